npx bemi migration:create src/migration
npx tsc
npx tsx node_modules/typeorm/cli.js migration:run -d src/data-source.ts
