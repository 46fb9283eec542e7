import { testApp } from "./suite.mjs";

testApp({
  name: "typeorm",
  completed: "isCompleted",
  createMigration: "npx bemi migration:create src/migration",
  migrate: "npx typeorm migration:run -d dist/data-source.js",
  revert: "npx typeorm migration:revert -d dist/data-source.js",
  start: "node dist/index.js",
});
