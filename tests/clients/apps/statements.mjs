import assert from "node:assert/strict";
import { test } from "node:test";

export function testStatements(suite) {
  if (!suite.without?.includes("named")) testNamed(suite);
  if (suite.currentQuery) testCurrentQuery(suite);
}

function testNamed(suite) {
  test("named prepared statements carry their own request's context, in transactions and after rollbacks", async () => {
    const { app } = suite;
    const { changes } = await app.changesOf(async () => {
      for (const user of [1, 2]) {
        await app.call("POST", "/todo/named", { user, body: { task: "named" } });
        await app.call("POST", "/todo/savepoint", { user, body: { task: "in a transaction" } });
        await app.call("POST", "/todo/named", { user, body: { task: "named again" } });
        await app.call("POST", "/todo/raw", { user, body: { task: "without a name" } });
      }
    });
    const made = changes.map(({ task, context: { SQL, ...context } }) => ({ task, context }));
    const savepoint = (userId, step) => ({
      task: `in a transaction ${step}`,
      context: { endpoint: "/todo/savepoint", params: { task: "in a transaction" }, userId, step },
    });
    const expected = [1, 2].flatMap((userId) => [
      { task: "named", context: { endpoint: "/todo/named", params: { task: "named" }, userId } },
      savepoint(userId, "first"),
      { task: "in a transaction unnamed", context: { userId, isNamed: false } },
      savepoint(userId, "second"),
      savepoint(userId, "third"),
      { task: "named again", context: { endpoint: "/todo/named", params: { task: "named again" }, userId } },
      { task: "without a name", context: { endpoint: "/todo/raw", params: { task: "without a name" }, userId } },
    ]);
    assert.deepEqual(made, expected);
  });
}

function testCurrentQuery(suite) {
  test("currentQuery adds the statement as it was written, without the comment", async () => {
    const { app } = suite;
    const { changes } = await app.changesOf(async () => {
      await app.call("POST", "/todo/raw", { body: { task: "/*Bemi" } });
      const [{ id }] = await app.call("POST", "/todo/named", { body: { task: "named" } });
      await app.call("DELETE", `/todo/${id}`);
    });
    const [raw, named, deleted] = changes.map(({ context }) => context.SQL);
    // MikroORM writes values into the text.
    assert.match(raw, /^INSERT INTO todo \(task\) VALUES \((\$1|'\/\*Bemi')\) RETURNING \*;$/i);
    assert.equal(named, "INSERT INTO todo (task) VALUES ($1) RETURNING id, task");
    assert.match(deleted, /^DELETE FROM "todo" WHERE [^*]*$/i);
  });
}
