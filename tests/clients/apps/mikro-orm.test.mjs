import { testApp } from "./suite.mjs";

testApp({
  name: "mikro-orm",
  completed: "isCompleted",
  revert: "npx mikro-orm migration:down --config dist/mikro-orm.config.js",
  start: "node dist/index.js",
});
