npx bemi migration:create --path src/migrations
npx tsc
npx mikro-orm migration:up --config dist/mikro-orm.config.js
