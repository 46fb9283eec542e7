npx bemi migration:create src/migration
npx tsc
npx typeorm migration:run -d dist/data-source.js
