// A database in which a migration of BemiHQ's packages has run.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { bemiContext, bemiDownSQL, bemiTakeOverSQL, bemiUpSQL, instrument } from "bemi/pg";
import pg from "pg";
import { makeDatabase, plain, TODO } from "./harness.mjs";

const THEIRS = readFileSync(new URL("bemihq.sql", import.meta.url), "utf8");

/** What of BemiHQ's is in a database. */
const theirs = async (database) => {
  const { rows } = await plain(
    database,
    `SELECT evtname AS name FROM pg_event_trigger WHERE evtname LIKE '\\_bemi%'
     UNION ALL SELECT tgname FROM pg_trigger WHERE tgname LIKE '\\_bemi%'
     UNION ALL SELECT proname FROM pg_proc WHERE proname LIKE '\\_bemi%'`,
  );
  return rows.map(({ name }) => name);
};

/** Writes with a context, and returns what was recorded of it. */
const recorded = async (database) => {
  await plain(database, "SELECT bemi.start()");
  instrument(pg);
  const client = new pg.Client({ database });
  await client.connect();
  await bemiContext({ user: 1 }, () => client.query("INSERT INTO todo (task) VALUES ('a'), ('b')"));
  await client.query("CREATE TABLE later (id int PRIMARY KEY)");
  await bemiContext({ user: 2 }, () => client.query("INSERT INTO later VALUES (1)"));
  await client.end();
  await plain(database, "SELECT bemi.sync()");
  const { rows } = await plain(database, `SELECT "table", context FROM bemi.changes ORDER BY source, commit_position, sequence`);
  return rows.map((row) => [row.table, row.context]);
};
const EXPECTED = [["todo", { user: 1 }], ["todo", { user: 1 }], ["later", { user: 2 }]];

test("where theirs ran first, theirs is taken away, and bemi records", async () => {
  const database = "take_over_first";
  await makeDatabase(database);
  await plain(database, TODO, THEIRS, 'CREATE TABLE "Other Table" (id int)');
  await plain(database, bemiTakeOverSQL());
  assert.deepEqual(await theirs(database), []);
  assert.deepEqual(await recorded(database), EXPECTED);
  // Once more changes nothing.
  await plain(database, bemiTakeOverSQL());
  const { rows } = await plain(database, "SELECT relation::text FROM bemi.tracked ORDER BY 1");
  assert.deepEqual(rows.map(({ relation }) => relation), ['"Other Table"', "later", "todo"]);
  await plain(database, "SELECT bemi.stop(drop_slot => true)", bemiDownSQL(), bemiDownSQL());
  assert.deepEqual(await theirs(database), []);
});

test("where bemi was first, and records, theirs is taken away, and nothing is recorded twice", async () => {
  const database = "take_over_second";
  await makeDatabase(database);
  await plain(database, TODO, bemiUpSQL(), "SELECT bemi.start()", THEIRS);
  await assert.rejects(plain(database, "SET search_path = bemi", "CREATE TABLE public.lost (id int)"), /procedure _bemi_create_triggers\(\) does not exist/);
  await plain(database, bemiTakeOverSQL());
  assert.deepEqual(await theirs(database), []);
  await plain(database, "SET search_path = bemi", "CREATE TABLE public.found (id int)");
  assert.deepEqual(await recorded(database), EXPECTED);
  await plain(database, "SELECT bemi.stop(drop_slot => true)");
});

test("theirs is found in any schema, on partitioned tables and under quoted names", async () => {
  const database = "take_over_schemas";
  await makeDatabase(database);
  await plain(
    database,
    `CREATE SCHEMA "Their schema"; SET search_path = "Their schema", public; ${THEIRS}`,
    `SET search_path = "Their schema", public; CREATE TABLE public.parts (id int) PARTITION BY LIST (id)`,
    `SET search_path = "Their schema", public; CREATE TABLE public.part PARTITION OF public.parts FOR VALUES IN (1); ${TODO.replace("todo", 'public."To do"')}`,
  );
  assert.equal((await theirs(database)).filter((name) => name.startsWith("_bemi_row_trigger_p")).length, 2);
  await plain(database, `BEGIN; ${bemiTakeOverSQL()} COMMIT`);
  assert.deepEqual(await theirs(database), []);
});

test("a database without theirs, and one with bemi already, take it as bemiUpSQL", async () => {
  const database = "take_over_none";
  await makeDatabase(database);
  await plain(database, TODO, bemiUpSQL(), bemiTakeOverSQL());
  const { rows } = await plain(database, "SELECT relation::text FROM bemi.tracked");
  assert.deepEqual(rows, [{ relation: "todo" }]);
});

test("`FROM changes` runs as it stands, by the search path or by a view", async () => {
  const database = "from_changes";
  await makeDatabase(database);
  await plain(database, TODO, bemiUpSQL(), "SELECT bemi.start()", `INSERT INTO todo (task) VALUES ('a') /*Bemi {"user":1} Bemi*/`, "SELECT bemi.sync()");
  const query = `SELECT "primary_key", "table", "operation", "before", "after", "context", "committed_at" FROM changes`;
  const seen = async (role) => {
    const client = new pg.Client({ database, user: role });
    await client.connect();
    try {
      return (await client.query(query)).rows.map(({ table, context }) => [table, context]);
    } finally {
      await client.end();
    }
  };
  await plain(database, "DROP ROLE IF EXISTS reader, onlooker", "CREATE ROLE reader LOGIN", "CREATE ROLE onlooker LOGIN", "GRANT SELECT ON bemi.changes TO reader");
  await plain(database, `
    ALTER ROLE reader SET search_path = bemi, public;
  `);
  assert.deepEqual(await seen("reader"), [["todo", { user: 1 }]]);
  await plain(database, `
    CREATE VIEW changes AS SELECT * FROM bemi.changes;
    GRANT SELECT ON changes TO reader;
  `);
  await plain(database, "ALTER ROLE reader RESET search_path");
  assert.deepEqual(await seen("reader"), [["todo", { user: 1 }]]);
  await assert.rejects(seen("onlooker"), /permission denied/);
  await plain(database, "SELECT bemi.stop(drop_slot => true)", "DROP VIEW changes");
  await plain(database, "DROP OWNED BY reader", "DROP ROLE reader, onlooker");
});
