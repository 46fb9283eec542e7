import { testApp } from "./suite.mjs";

testApp({
  name: "tsed",
  completed: "is_completed",
  without: ["anonymous", "callback", "named", "savepoint", "worker"],
  schema: "npx mikro-orm schema:update --dump --config dist/mikro-orm.config.js",
  revert: "npx mikro-orm migration:down --config dist/mikro-orm.config.js",
  start: "node dist/index.js",
});
