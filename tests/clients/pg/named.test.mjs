// Named statements, which the server keeps prepared.
import assert from "node:assert/strict";
import { bemiContext } from "bemi/pg";
import { insert, makeDatabase, named, plain, TODO, warnings, withEachVersion } from "./harness.mjs";

withEachVersion("named", async ({ t, pg, isOldest, database, early, changes, client }) => {
  await t.test("named statements carry it in the same round trip, and their text does not change", () =>
    client(async (c) => {
      let answers = 0;
      c.connection.on("readyForQuery", () => answers++);
      // What is written and what is answered, in turns.
      let turns = "";
      const { stream } = c.connection;
      const write = stream.write;
      stream.write = function (...data) {
        if (!turns.endsWith("w")) turns += "w";
        return write.apply(this, data);
      };
      stream.on("data", () => {
        if (!turns.endsWith("a")) turns += "a";
      });
      await bemiContext({ user: 0 }, () => named(c, "first", 0));
      answers = 0;
      for (const user of [1, 2]) {
        turns = "";
        const { rows, rowCount, command } = await bemiContext({ user }, () => named(c, `named ${user}`, user));
        assert.deepEqual({ rows, rowCount, command }, { rows: [{ task: `named ${user}`, text: insert.text }], rowCount: 1, command: "INSERT" });
        // The oldest sends Sync when it has the answer.
        assert.match(turns, !isOldest ? /^wa$/ : /^wa(wa)?$/);
      }
      await named(c, "nobody", 0);
      await bemiContext({ user: 3 }, () => new Promise((resolve, reject) => c.query({ ...insert, values: ["called", 1] }, (e) => (e ? reject(e) : resolve()))));
      // Prepared before, called by its name alone; and in portions of rows.
      await bemiContext({ user: 4 }, () => c.query({ name: "insert", values: ["by name", 1] }));
      const portions = await bemiContext({ user: 5 }, () =>
        c.query({ name: "many", text: "INSERT INTO todo (task) SELECT 'many' FROM generate_series(1, $1) RETURNING id", values: [5], rows: 2 }));
      assert.equal(portions.rows.length, 5);
      assert.equal(answers, 6);
      assert.equal((await c.query("SELECT bemi.context() AS c")).rows[0].c.user, undefined);
      const expected = [["first", 0], ["named 1", 1], ["named 2", 2], ["nobody"], ["called", 3], ["by name", 4], ...Array(5).fill(["many", 5])];
      assert.deepEqual(await changes(), expected.map(([task, user]) => ["CREATE", task, user === undefined ? {} : { user }]));
    }));

  await t.test("named statements and rollbacks, errors and other contexts of the session", () =>
    client(async (c) => {
      const by = (user, run) => bemiContext({ user }, run);
      await c.query(`SET bemi.context = '{"service":"billing"}'`);
      await c.query("BEGIN");
      await by(1, () => named(c, "a", 1));
      await c.query("SAVEPOINT s");
      await by(2, () => named(c, "undone", 1));
      await c.query("ROLLBACK TO s");
      await by(1, () => named(c, "b", 1));
      await by(3, () => c.query("INSERT INTO todo (task) VALUES ('c')"));
      await c.query("INSERT INTO todo (task) VALUES ('d')");
      await c.query(`SELECT bemi.set_context('{"job":1}')`);
      await by(4, () => named(c, "e", 1));
      await named(c, "f", 1);
      await c.query("COMMIT");
      await named(c, "g", 1);
      await c.query("RESET bemi.context");
      // A statement that fails when it runs stays prepared; one that cannot be prepared can be mended.
      await assert.rejects(() => by(5, () => named(c, "refused", 1000)), /todo_n_check/);
      await by(5, () => named(c, "h", 1));
      await assert.rejects(() => by(5, () => c.query({ name: "broken", text: "INSERT INTO nothing VALUES (1)" })), /nothing/);
      await c.query("CREATE TABLE nothing (id int PRIMARY KEY)");
      await by(5, () => c.query({ name: "broken", text: "INSERT INTO nothing VALUES (1)" }));
      await assert.rejects(() => by(5, () => c.query({ name: "broken", text: "DELETE FROM todo" })), /must be unique/);
      if (!isOldest) {
        // The oldest breaks its connection at that.
        const value = { toPostgres: () => { throw new Error("no value"); } };
        await assert.rejects(() => by(5, () => c.query({ name: "unsent", text: insert.text, values: [value, 1] })), /no value/);
      }
      await by(6, () => named(c, "i", 1));
      await c.query("BEGIN");
      await assert.rejects(() => by(7, () => named(c, "refused", 1000)), /todo_n_check/);
      await assert.rejects(() => by(7, () => named(c, "aborted", 1)), /current transaction is aborted/);
      await c.query("ROLLBACK");
      await by(8, () => named(c, "j", 1));
      // One that is refused before it is prepared, the first on its connection and a later one, is prepared later.
      const other = new pg.Client({ database });
      await other.connect();
      for (const late of ["late 1", "late 2"]) {
        const prepare = () => by(9, () => other.query({ ...insert, name: late, values: [late, 1] }));
        await other.query("BEGIN");
        await assert.rejects(() => other.query("SELECT 1 / 0"), /division by zero/);
        await assert.rejects(prepare, /current transaction is aborted/);
        await other.query("ROLLBACK");
        await prepare();
      }
      await other.end();
      const service = "billing";
      assert.deepEqual(await changes(), [
        ["CREATE", "a", { service, user: 1 }],
        ["CREATE", "b", { service, user: 1 }],
        ["CREATE", "c", { service, user: 3 }],
        ["CREATE", "d", { service }],
        ["CREATE", "e", { job: 1, user: 4 }],
        ["CREATE", "f", { job: 1 }],
        ["CREATE", "g", { job: 1 }],
        ["CREATE", "h", { user: 5 }],
        ["CREATE", null, { user: 5 }],
        ["CREATE", "i", { user: 6 }],
        ["CREATE", "j", { user: 8 }],
        ["CREATE", "late 1", { user: 9 }],
        ["CREATE", "late 2", { user: 9 }],
      ]);
      await c.query("DROP TABLE nothing");
    }));

  // The oldest always waits.
  if (!isOldest) await t.test("where statements are sent without waiting for answers, each has its own", async () => {
    const c = new pg.Client({ database, pipeline: true });
    await c.connect();
    const users = Array.from({ length: 50 }, (_, user) => user);
    const results = await Promise.all(users.map((user) => bemiContext({ user }, () => (user % 7 === 3
      ? assert.rejects(() => named(c, "refused", 1000), /todo_n_check/)
      : user % 5 === 0 ? c.query("INSERT INTO todo (task) VALUES ($1) RETURNING task", [`${user}`]) : named(c, `${user}`, 1)))));
    await c.end();
    const written = users.filter((user) => user % 7 !== 3);
    assert.deepEqual(results.filter(Boolean).map(({ rows }) => rows[0].task), written.map(String));
    assert.deepEqual(await changes(), written.map((user) => ["CREATE", `${user}`, { user }]));
  });

  await t.test("a context that is too long fails no statement, named or not", () =>
    client(async (c) => {
      const long = { long: "x".repeat(2_000_000), user: 1 };
      const [{ size }] = (await c.query("SELECT setting::int AS size FROM pg_settings WHERE name = 'bemi.max_context_size'")).rows;
      const base = "z".repeat(size - 20_000);
      const half = { half: "y".repeat(40_000), user: 2 };
      await bemiContext(long, () => c.query("INSERT INTO todo (task) VALUES ('long')"));
      await bemiContext(long, () => named(c, "long", 1));
      await c.query("SELECT bemi.set_context($1)", [JSON.stringify({ base })]);
      await bemiContext(half, () => named(c, "half", 1));
      const many = { list: Array(890).fill(1), user: 3 };
      await c.query("SELECT bemi.set_context($1)", [JSON.stringify({ base: Array(900).fill(2) })]);
      await bemiContext(many, () => named(c, "many", 1));
      await c.query("SELECT bemi.clear_context()");
      const found = (await changes()).map(([, , context]) => context);
      assert.deepEqual(found, [
        { user: 1, bemi_omitted: { long: "longer than the limit" } },
        { user: 1, bemi_omitted: { long: "longer than the limit" } },
        { base, user: 2, bemi_omitted: { "(others)": "longer than the limit" } },
        { base: Array(900).fill(2), user: 3, bemi_omitted: { "(others)": "longer than the limit" } },
      ]);
    }));

  await t.test("an application without the extension works as before", async () => {
    const other = `${database}_plain`;
    await makeDatabase(other);
    await plain(other, TODO);
    const without = new pg.Pool({ database: other, max: 1 });
    warnings.length = 0;
    await bemiContext({ user: 1 }, async () => {
      await without.query("INSERT INTO todo (task) VALUES ('a')");
      for (let i = 0; i < 3; i++) await without.query({ ...insert, values: ["b", i] });
      await client(async (c) => {
        await c.query("BEGIN");
        await named(c, "c", 1);
        await c.query("COMMIT");
      }, without);
    });
    assert.equal((await without.query("SELECT count(*)::int AS n FROM todo")).rows[0].n, 5);
    await without.end();
    if (!isOldest) assert.deepEqual(warnings, ["BEMI_NO_EXTENSION"]);
  });

  await t.test("whatever the database and its session are like, a named statement does not fail for its context", async () => {
    const latin = `${database}_latin1`;
    await makeDatabase(latin, "ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'");
    await plain(latin, "CREATE EXTENSION bemi", TODO);
    const returning = (c, values) => c.query({ name: "returning", text: "INSERT INTO todo (task) VALUES ($1) RETURNING bemi.context() AS context", values });
    const on = async (of, use) => {
      const c = new pg.Client({ database: of });
      await c.connect();
      await use(c).finally(() => c.end());
    };
    await on(latin, async (c) => {
      const { rows } = await bemiContext({ text: "é😀" }, () => returning(c, ["a"]));
      assert.deepEqual(rows[0].context, { text: "é?" });
    });
    // A connection that was there before, and tells its encoding when it is asked.
    await bemiContext({ text: "é😀" }, async () => {
      await early.query("INSERT INTO todo (task) VALUES ('a')");
      assert.deepEqual((await returning(early, ["a"])).rows[0].context, { text: "é😀" });
    });
    // A setting of the role that nothing can read.
    await plain(database, `CREATE ROLE garbled_${database} LOGIN`, `GRANT ALL ON todo, todo_id_seq TO garbled_${database}`,
      `ALTER ROLE garbled_${database} SET bemi.context = 'garbage'`);
    const garbled = new pg.Client({ database, user: `garbled_${database}` });
    await garbled.connect();
    assert.deepEqual((await bemiContext({ user: 1 }, () => returning(garbled, ["a"]))).rows[0].context, { user: 1 });
    await garbled.end();
    // A setting that is as long as may be, and one that the limit has been lowered below.
    await on(database, async (c) => {
      // The setting is known to a session that has used the extension.
      await c.query("SELECT bemi.context()");
      const [{ size }] = (await c.query("SELECT setting::int AS size FROM pg_settings WHERE name = 'bemi.max_context_size'")).rows;
      const setting = `{"a":[${"1,".repeat(900)}1],"b":""}`;
      await c.query("SELECT set_config('bemi.context', $1, false)", [setting.replace('""', `"${"x".repeat(size - setting.length)}"`)]);
      const { rows } = await bemiContext({ user: 1 }, () => returning(c, ["a"]));
      assert.deepEqual(Object.keys(rows[0].context), ["a", "b"]);
      await c.query("SELECT set_config('bemi.context', $1, false)", [JSON.stringify({ a: "x".repeat(5000) })]);
      await c.query("SET bemi.max_context_size = 1000");
      await bemiContext({ user: 1 }, () => returning(c, ["a"]));
      assert.equal((await c.query("SELECT bemi.context() AS context")).rows[0].context.a.length, 5000);
    });
    // Functions of these names in the way.
    await on(latin, async (c) => {
      await c.query("CREATE TABLE called (name text)");
      await c.query("CREATE FUNCTION jsonb_build_object(text, text) RETURNS jsonb LANGUAGE plpgsql AS $$BEGIN INSERT INTO called VALUES ('j'); RETURN '{}'; END$$");
      await c.query("CREATE SCHEMA evil");
      await c.query("CREATE FUNCTION evil.set_config(text, text, boolean) RETURNS text LANGUAGE plpgsql AS $$BEGIN INSERT INTO public.called VALUES ('s'); RETURN ''; END$$");
      await c.query("SET search_path = evil, public, pg_catalog");
      await bemiContext({ text: "x".repeat(1000) }, () => returning(c, ["a"]));
      await c.query("SET bemi.max_context_size = 500");
      await bemiContext({ text: "x".repeat(1000) }, () => returning(c, ["a"]));
      assert.equal((await c.query("SELECT count(*)::int AS n FROM called")).rows[0].n, 0);
    });
    // A role that may not use bemi.
    await plain(latin, "DROP ROLE IF EXISTS locked_out", "CREATE ROLE locked_out", "GRANT ALL ON todo, todo_id_seq TO locked_out");
    for (const revoke of ["REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA bemi FROM PUBLIC", "REVOKE USAGE ON SCHEMA bemi FROM PUBLIC"]) {
      await plain(latin, revoke);
      await on(latin, async (c) => {
        await c.query("SET ROLE locked_out");
        await bemiContext({ user: 1 }, () => c.query({ ...insert, values: ["a", 1] }));
      });
    }
    await plain(latin, "DROP OWNED BY locked_out", "DROP ROLE locked_out");
  });

  await t.test("node-postgres warns of nothing that its user has not done", () => {
    assert.deepEqual(warnings.filter((warning) => !warning.startsWith("BEMI_")), []);
  });

  await t.test("what a named statement sets itself stays", () =>
    client(async (c) => {
      await c.query("BEGIN");
      const text = "WITH a AS (INSERT INTO todo (task) VALUES ('sets') RETURNING id) SELECT bemi.set_context('{\"job\":1}', true) FROM a";
      await bemiContext({ user: 1 }, () => c.query({ name: "sets", text }));
      assert.deepEqual((await c.query("SELECT bemi.context() AS context")).rows[0].context, { job: 1 });
      await c.query("COMMIT");
      await changes();
    }));

  // Behind a query that it has given up, the oldest mixes up answers, with a context or without.
  if (!isOldest) await t.test("a query that is given up while the extension is asked for leaves the connection in order", async () => {
    const holder = new pg.Client({ database });
    const c = new pg.Client({ database });
    await holder.connect();
    await c.connect();
    await holder.query("BEGIN; LOCK TABLE pg_proc IN ACCESS EXCLUSIVE MODE");
    const given = assert.rejects(() => bemiContext({ user: 1 }, () => c.query({ ...insert, values: ["given up", 1], query_timeout: 100 })), /timeout/);
    const rest = [2, 3, 4].map((i) => c.query(`SELECT ${i} AS i`));
    await given;
    await holder.query("ROLLBACK");
    assert.deepEqual((await Promise.all(rest)).map(({ rows }) => rows[0].i), [2, 3, 4]);
    await holder.end();
    await c.end();
    assert.equal((await plain(database, "SELECT count(*)::int AS n FROM todo WHERE task = 'given up'")).rows[0].n, 0);
    await changes();
  });

  await t.test("an extension that is dropped meanwhile fails one statement of a connection at most", async () => {
    const other = `${database}_dropped`;
    await makeDatabase(other);
    await plain(other, "CREATE EXTENSION bemi", TODO);
    const c = new pg.Client({ database: other });
    await c.connect();
    const add = () => bemiContext({ user: 1 }, () => c.query({ ...insert, values: ["a", 1] }));
    await add();
    await plain(other, "DROP EXTENSION bemi");
    await assert.rejects(add, /bemi/);
    await add();
    assert.equal((await c.query("SELECT count(*)::int AS n FROM todo")).rows[0].n, 2);
    await c.end();
  });
});
