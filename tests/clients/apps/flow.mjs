import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { test } from "node:test";
import { contextsWithoutSQL } from "./contexts.mjs";

const user = 187234;

/** The rows that BemiHQ's documentation shows. */
function documentedRows(completed) {
  const todo = (id, task, done = false) => ({ id, task, [completed]: done });
  const context = (endpoint, params) => ({ endpoint, params, userId: user });
  const created = (id, task) => ({
    primary_key: String(id),
    table: "todo",
    operation: "CREATE",
    before: {},
    after: todo(id, task),
    context: context("/todo", { task, isCompleted: false }),
  });
  return [
    created(26, "Sleep"),
    created(27, "Eat"),
    created(28, "Repeat"),
    {
      primary_key: "26",
      table: "todo",
      operation: "UPDATE",
      before: todo(26, "Sleep"),
      after: todo(26, "Sleep", true),
      context: context("/todo/complete", { id: 26 }),
    },
    {
      primary_key: "27",
      table: "todo",
      operation: "DELETE",
      before: todo(27, "Eat"),
      after: {},
      context: context("/todo/27", { id: 27 }),
    },
  ];
}

export function testFlow(suite) {
  test("a migration that `npx bemi migration:create` writes is compiled and run by the ORM", async () => {
    const { app } = suite;
    await app.command("bash -e migrate.sh");
    const [{ version }] = await app.rows("SELECT extversion AS version FROM pg_extension WHERE extname = 'bemi'");
    assert.ok(version);
    const tracked = await app.rows("SELECT relation::text FROM bemi.tracked WHERE relation = 'todo'::regclass");
    assert.equal(tracked.length, 1);
  });

  test("the five rows of BemiHQ's documentation are recorded", async () => {
    const { app } = suite;
    await app.rows("SELECT bemi.start()");
    await app.makeRole();
    await app.rows("ALTER SEQUENCE todo_id_seq RESTART 26");
    await app.start();
    const { changes } = await app.changesOf(async () => {
      for (const task of ["Sleep", "Eat", "Repeat"]) {
        await app.call("POST", "/todo", { body: { task, isCompleted: false } });
      }
      await app.call("PUT", "/todo/complete", { body: { id: 26 } });
      await app.call("DELETE", "/todo/27", { body: { id: 27 } });
      await app.call("GET", "/todo");
    });
    const rows = changes.map(({ primary_key, table, operation, before, after, context }) => {
      return { primary_key, table, operation, before, after, context };
    });
    assert.deepEqual(contextsWithoutSQL(rows, suite), documentedRows(suite.completed));
    suite.recorded = changes;
  });

  test("they are found through the Change entity from a second data source", async () => {
    const { app, recorded, completed } = suite;
    const entities = (await app.call("GET", "/changes")).slice(-5);
    const expected = documentedRows(completed).map(({ primary_key, ...row }, i) => ({
      id: recorded[i].id,
      primaryKey: primary_key,
      ...row,
      schema: "public",
      database: app.database,
      committedAt: recorded[i].committed_at.toISOString(),
    }));
    const found = entities.map(
      ({ id, primaryKey, table, operation, before, after, context, schema, database, committedAt }) => {
        return { id, primaryKey, table, operation, before, after, context, schema, database, committedAt };
      },
    );
    assert.deepEqual(contextsWithoutSQL(found, suite), expected);

    const [{ transaction_id, position, queued_at, created_at, commit_position, sequence }] = await app.rows(
      `SELECT transaction_id, position, queued_at, created_at, commit_position::text, sequence FROM bemi.changes WHERE id = $1`,
      [recorded[4].id],
    );
    const last = entities[4];
    assert.equal(last.transactionId, Number(transaction_id));
    assert.equal(last.position, Number(position));
    assert.equal(last.commitPosition, commit_position);
    assert.equal(last.sequence, sequence);
    assert.equal(last.queuedAt, queued_at.toISOString());
    assert.equal(last.createdAt, created_at.toISOString());
    // From here on, the app also writes in the background.
    await app.stop();
    await app.start({ BACKGROUND_MS: "20" });
  });
}

export function testWorker(suite) {
  test("a worker that never calls setContext sends its contexts", { skip: !suite.worker }, async () => {
    const { app } = suite;
    const { changes } = await app.changesOf(() => app.command(suite.worker));
    const seen = changes.filter(({ task }) => task === "worker").map(({ operation, context }) => [operation, context]);
    const context = (stage) => ({ worker: "MyWorker", stage });
    assert.deepEqual(seen, [["CREATE", context("calculate")], ["UPDATE", context("store")], ["DELETE", context("end")]]);
  });

  test("MikroORM's schema tools see nothing of bemi", { skip: !suite.schema }, async () => {
    const { stdout } = await suite.app.command(suite.schema);
    assert.doesNotMatch(stdout, /bemi/);
  });
}

export function testRevert(suite) {
  test("the ORM takes the migration back, and nothing of bemi is left in the tables", async () => {
    const { app } = suite;
    await app.stop();
    await app.rows("SELECT bemi.stop(drop_slot => true)");
    await app.command(suite.revert);
    const triggers = await app.rows(
      `SELECT tgname FROM pg_trigger WHERE tgname LIKE 'bemi%' AND NOT tgisinternal
       UNION ALL SELECT evtname FROM pg_event_trigger`,
    );
    assert.deepEqual(triggers, []);
    assert.deepEqual(await app.rows("SELECT 1 FROM pg_extension WHERE extname = 'bemi'"), []);
    const [{ identity }] = await app.rows("SELECT relreplident AS identity FROM pg_class WHERE oid = 'todo'::regclass");
    assert.equal(identity, "d");
  });

  test("where a migration of BemiHQ's packages has run, another one takes theirs away, and is taken back", async () => {
    const { app } = suite;
    const theirs = () => app.rows("SELECT 1 FROM pg_trigger WHERE tgname = '_bemi_row_trigger_todo'");
    await app.rows(await readFile(new URL("../bemihq.sql", import.meta.url), "utf8"));
    assert.equal((await theirs()).length, 1);
    const migrate = await readFile(path.join(app.folder, "migrate.sh"), "utf8");
    await writeFile(path.join(app.folder, "take-over.sh"), migrate.replace("migration:create", "migration:create --from-bemihq"));
    await app.command("bash -e take-over.sh");
    assert.deepEqual(await theirs(), []);
    assert.equal((await app.rows("SELECT 1 FROM bemi.tracked WHERE relation = 'todo'::regclass")).length, 1);
    // The first migration of bemi stands before it, and finds nothing to take back any more.
    for (let i = 0; i < 2; i++) await app.command(suite.revert);
    assert.deepEqual(await app.rows("SELECT 1 FROM pg_extension WHERE extname = 'bemi'"), []);
    assert.deepEqual(await theirs(), []);
  });
}
