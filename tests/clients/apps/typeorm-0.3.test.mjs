import { testApp } from "./suite.mjs";

testApp({
  name: "typeorm-0.3",
  completed: "is_completed",
  currentQuery: true,
  worker: "node --import tsx src/worker.ts",
  revert: "npx tsx node_modules/typeorm/cli.js migration:revert -d src/data-source.ts",
  start: "node --import tsx src/index.ts",
});
