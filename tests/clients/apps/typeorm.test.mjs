import { testApp } from "./suite.mjs";

testApp({
  name: "typeorm",
  completed: "isCompleted",
  worker: "node dist/worker.js",
  revert: "npx typeorm migration:revert -d dist/data-source.js",
  start: "node dist/index.js",
});
