import { testApp } from "./suite.mjs";

testApp({
  name: "mikro-orm",
  completed: "isCompleted",
  schema: "npx mikro-orm schema:update --dump --config dist/mikro-orm.config.js",
  worker: "node dist/worker.js",
  revert: "npx mikro-orm migration:down --config dist/mikro-orm.config.js",
  start: "node dist/index.js",
});
