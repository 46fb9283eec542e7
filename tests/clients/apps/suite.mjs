// The tests of one app, in one database and against one process.
import { after, before, describe } from "node:test";
import { testBodies } from "./bodies.mjs";
import { testConcurrency } from "./concurrency.mjs";
import { testFlow, testRevert, testWorker } from "./flow.mjs";
import { App } from "./harness.mjs";
import { testStatements } from "./statements.mjs";

export function testApp(description) {
  describe(description.name, { concurrency: false }, () => {
    const context = { ...description };
    before(async () => {
      context.app = await App.make(description);
    });
    after(() => context.app?.remove());
    testFlow(context);
    testConcurrency(context);
    testBodies(context);
    testStatements(context);
    testWorker(context);
    testRevert(context);
  });
}
