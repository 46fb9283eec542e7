import { testApp } from "./suite.mjs";

testApp({
  name: "mikro-orm",
  completed: "isCompleted",
  createMigration: "npx bemi migration:create --path src/migrations",
  migrate: "npx mikro-orm migration:up --config dist/mikro-orm.config.js",
  revert: "npx mikro-orm migration:down --config dist/mikro-orm.config.js",
  start: "node dist/index.js",
});
