import { testApp } from "./suite.mjs";

testApp({
  name: "nestjs",
  completed: "isCompleted",
  without: ["anonymous", "callback", "named", "savepoint", "worker"],
  revert: "npx typeorm migration:revert -d dist/data-source.js",
  start: "node dist/main.js",
});
