import { testApp } from "./suite.mjs";

testApp({
  name: "mikro-orm-6",
  completed: "is_completed",
  currentQuery: true,
  revert: "npx mikro-orm migration:down --config dist/mikro-orm.config.js",
  start: "node dist/index.js",
});
