// All other statements, and whose context they carry.
import assert from "node:assert/strict";
import { once } from "node:events";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { bemiContext, currentBemiContext } from "bemi/pg";
import { from as copyFrom } from "pg-copy-streams";
import Cursor from "pg-cursor";
import QueryStream from "pg-query-stream";
import { insert, makeDatabase, named, plain, TODO, withEachVersion } from "./harness.mjs";

withEachVersion("statements", async ({ t, pg, database, pool, changes, client }) => {
  await t.test("no body takes its sender's name away, too deep or too long, in a comment or beside a named statement", async () => {
    const deep = JSON.parse(`{"pad":"${"p".repeat(1000)}","x":${"[".repeat(130)}${"]".repeat(130)}}`);
    const numbers = { list: Array(890).fill(1e300) };
    const levels = JSON.parse(`{"x":${"[".repeat(125)}${"]".repeat(125)}}`);
    const bodies = [deep, { pad: "p".repeat(1_000_001) }, { pad: "p".repeat(47_000) }, { many: Array(899).fill(1) }, numbers, levels];
    const request = (params) => ({ endpoint: "/todo", params, userId: 187234 });
    for (const body of bodies) {
      await bemiContext(request(body), () => pool.query("INSERT INTO todo (task) VALUES ('text')"));
      await bemiContext(request(body), () => named(pool, "named", 1));
    }
    const found = await changes();
    assert.deepEqual(found.map(([, , { userId, endpoint }]) => [userId, endpoint]), Array(12).fill([187234, "/todo"]));
    assert.deepEqual(found[0][2].params.pad, deep.pad);
    const omitted = found.map(([, , context]) => Object.keys(context.bemi_omitted ?? {}).join());
    const expected = ["params.x", "params.pad", "", "params.many", "params.list", ""];
    omitted.forEach((names, i) => assert.equal(names.slice(0, expected[i >> 1].length || undefined), expected[i >> 1]));
  });

  await t.test("each form of a query carries the context of who calls it", async () => {
    const insert = "INSERT INTO todo (task) VALUES ($1)";
    const called = (use) => new Promise((resolve, reject) => use((error) => (error ? reject(error) : resolve(currentBemiContext()))));
    await bemiContext({ user: 1 }, async () => {
      await pool.query("INSERT INTO todo (task) VALUES ('text') ; -- a comment");
      await pool.query(insert, ["values"]);
      await pool.query({ text: insert, values: ["config"], rowMode: "array" });
      assert.deepEqual(await called((done) => pool.query(insert, ["callback"], done)), { user: 1 });
      assert.deepEqual(await called((done) => pool.query({ text: insert, values: ["config and callback"] }, done)), { user: 1 });
      await client(async (c) => {
        assert.deepEqual(await called((done) => c.query("INSERT INTO todo (task) VALUES ('text and callback')", done)), { user: 1 });
        assert.deepEqual(await called((done) => c.query({ text: insert, values: ["callback inside"], callback: done })), { user: 1 });
        const query = c.query(new pg.Query(insert, ["object"]));
        await once(query, "end");
        await new Promise((resolve) => c.query(new pg.Query("SELECT 1", undefined, () => {
          assert.deepEqual(currentBemiContext(), { user: 1 });
          resolve();
        })));
        await c.query("BEGIN; INSERT INTO todo (task) VALUES ('several'); SELECT 1; UPDATE todo SET n = 1 WHERE task = 'several'; COMMIT");
        // An object of a class whose text is computed.
        class Sql {
          values = ["class"];
          get text() {
            return insert;
          }
        }
        await c.query(new Sql());
        const cursor = c.query(new Cursor("INSERT INTO todo (task) VALUES ('cursor') RETURNING id"));
        await new Promise((resolve, reject) => cursor.read(10, (error) => (error ? reject(error) : resolve())));
        await new Promise((resolve) => cursor.close(resolve));
        const rows = [];
        for await (const row of c.query(new QueryStream("WITH a AS (INSERT INTO todo (task) VALUES ('stream') RETURNING id) SELECT * FROM a"))) rows.push(row);
        assert.equal(rows.length, 1);
        await pipeline(Readable.from(["copied\n"]), c.query(copyFrom("COPY todo (task) FROM STDIN")));
      });
    });
    await pool.query(insert, ["nobody"]);
    const expected = ["text", "values", "config", "callback", "config and callback", "text and callback", "callback inside", "object", "several"]
      .map((task) => ["CREATE", task, { user: 1 }]);
    expected.push(["UPDATE", "several", { user: 1 }]);
    expected.push(...["class", "cursor", "stream", "copied"].map((task) => ["CREATE", task, { user: 1 }]));
    expected.push(["CREATE", "nobody", {}]);
    assert.deepEqual(await changes(), expected);
  });

  await t.test("what a connection calls by itself has no context, whoever made the connection", async () => {
    const other = new pg.Pool({ database, max: 1 });
    await bemiContext({ user: 1 }, () => other.query("SELECT 1"));
    const seen = [];
    await bemiContext({ user: 2 }, () => client(async (c) => {
      c.on("notice", () => seen.push(currentBemiContext()));
      const query = c.query(new pg.Query("DO $$BEGIN RAISE NOTICE 'x'; END$$"));
      query.on("end", () => seen.push(currentBemiContext()));
      await once(query, "end");
    }, other));
    assert.deepEqual(seen, [undefined, undefined]);
    await other.end();
  });

  await t.test("what reads is sent as it is", async () => {
    await bemiContext({ user: 1 }, async () => {
      const statement = "SELECT current_query() AS text -- INSERT";
      assert.equal((await pool.query(statement)).rows[0].text, statement);
      const inserted = await pool.query("INSERT INTO todo (task) VALUES ('x') RETURNING current_query() AS text;");
      assert.equal(inserted.rows[0].text, `INSERT INTO todo (task) VALUES ('x') RETURNING current_query() AS text /*Bemi {"user":1} Bemi*/;`);
      await assert.rejects(() => pool.query(null), TypeError);
    });
    await changes();
  });

  await t.test("whatever a context holds is data", async () => {
    const hostile = ["Bemi*/; DROP TABLE todo; --", "/*/ */*/ /* /*", "'; \" $$ $1 ? %s \\", "\u2028\u2029\r\n\t\b", "é😀", "$bemi$", "__proto__"];
    const contexts = hostile.flatMap((text) => [{ text }, JSON.parse(`{${JSON.stringify(text)}:[${JSON.stringify(text)}]}`)]);
    contexts.push({ text: "\0 \ud800 \udc00" }, { n: 1e308, deep: { list: [1, [null, true]] } });
    for (const context of contexts) {
      await bemiContext(context, async () => {
        await pool.query("INSERT INTO todo (task) VALUES ($1)", ["unnamed"]);
        await pool.query({ ...insert, values: ["named", 1] });
      });
    }
    const expected = contexts.flatMap((context) => {
      const stored = JSON.parse(JSON.stringify(context).replaceAll(/\\u0000|\\ud800|\\udc00/g, "\ufffd"));
      return [["CREATE", "unnamed", stored], ["CREATE", "named", stored]];
    });
    assert.deepEqual(await changes(), expected);
  });

  await t.test("two hundred requests at once over five connections each have their own", async () => {
    const failures = [];
    const request = async (user) => {
      const check = () => {
        if (currentBemiContext()?.user !== user) failures.push([user, currentBemiContext()]);
      };
      const task = `${user}`;
      await sleep(Math.random() * 20);
      await pool.query("INSERT INTO todo (task) VALUES ($1)", [task]);
      check();
      await new Promise((resolve, reject) =>
        pool.connect((error, c, release) => {
          check();
          if (error) return reject(error);
          c.query("BEGIN", () => {
            check();
            c.query({ ...insert, values: [task, 1] }, () => {
              check();
              c.query(user % 3 ? "COMMIT" : "ROLLBACK", (e) => {
                check();
                release();
                e ? reject(e) : resolve();
              });
            });
          });
        }),
      );
      check();
      await Promise.all([
        pool.query({ ...insert, values: [task, 2] }),
        pool.query("SELECT 1"),
        new Promise((resolve) => pool.query("UPDATE todo SET n = 3 WHERE task = $1", [task], () => (check(), resolve()))),
      ]);
      check();
    };
    const idle = async () => {
      for (let i = 0; i < 100; i++) {
        await pool.query("INSERT INTO todo (task) VALUES ('idle')");
        await sleep(1);
      }
    };
    await Promise.all([idle(), ...Array.from({ length: 200 }, (_, user) => bemiContext({ user }, () => request(user)))]);
    assert.deepEqual(failures, []);
    const found = await changes();
    assert.ok(found.length > 900, `${found.length}`);
    for (const [, task, context] of found) assert.deepEqual(context, task === "idle" ? {} : { user: Number(task) });
  });

  await t.test("what node-postgres refuses or takes, it refuses or takes with a context", () =>
    client(async (c) => {
      await bemiContext({ user: 1 }, async () => {
        assert.throws(() => c.query({ ...insert, values: ["a", 1] }, [], "nope"), /callback is not a function/);
        const query = new pg.Query("");
        const computed = Object.create(query, { text: { configurable: true, get: () => "INSERT INTO todo (task) VALUES ('computed')" } });
        c.query(computed);
        await once(computed, "end");
        // A setting that is on its way when the next text is read.
        const setting = c.query("SET standard_conforming_strings = off");
        const { rows } = await c.query("INSERT INTO todo (task) VALUES ('a\\'); INSERT INTO todo (task) VALUES (\\'b') RETURNING task");
        await setting;
        assert.equal(rows[0].task, "a'); INSERT INTO todo (task) VALUES ('b");
        await c.query("RESET standard_conforming_strings");
      });
      assert.deepEqual((await changes()).map(([, , context]) => context), [{ user: 1 }, { user: 1 }]);
    }));

  await t.test("behind a pooler in transaction mode no context stays for the next client", async () => {
    const clients = Array.from({ length: 20 }, () => new pg.Client({ database, port: Number(process.env.BOUNCER_PORT) }));
    await Promise.all(clients.map((c) => c.connect()));
    const work = async (c, user) => {
      for (let i = 0; i < 20; i++) {
        const task = i % 4 === 3 ? "nobody" : `${user}`;
        const statement = () => c.query("INSERT INTO todo (task, n) VALUES ($1, $2)", [task, i]);
        await bemiContext(task === "nobody" ? null : { user }, async () => {
          await c.query("BEGIN");
          await statement();
          await c.query(i % 5 === 4 ? "ROLLBACK" : "COMMIT");
          await statement();
        });
      }
    };
    await Promise.all(clients.map((c, user) => work(c, user)));
    await Promise.all(clients.map((c) => c.end()));
    const found = await changes();
    assert.equal(found.length, 20 * 36);
    for (const [, task, context] of found) assert.deepEqual(context, task === "nobody" ? {} : { user: Number(task) });
    // PgBouncer 1.18 keeps no statement prepared for its client, so each of these is run once.
    const two = [1, 2].map(() => new pg.Client({ database, port: Number(process.env.BOUNCER_PORT) }));
    for (const c of two) await c.connect();
    await bemiContext({ user: 1 }, () => two[0].query({ name: "one", text: insert.text, values: ["1", 1] }));
    await bemiContext({ user: 2 }, () => two[1].query({ name: "two", text: insert.text, values: ["2", 1] }));
    await two[0].query("INSERT INTO todo (task) VALUES ('nobody')");
    assert.deepEqual(await changes(), [["CREATE", "1", { user: 1 }], ["CREATE", "2", { user: 2 }], ["CREATE", "nobody", {}]]);
    for (const c of two) await c.end();
  });

  await t.test("in other encodings, and where backslashes escape", async () => {
    const latin = `${database}_latin1`;
    await makeDatabase(latin, "ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'");
    await plain(latin, "CREATE EXTENSION bemi", TODO, "SELECT bemi.track_all()");
    const other = new pg.Pool({ database: latin, max: 1 });
    await client(async (c) => {
      await c.query("SET client_encoding = 'UTF8'");
      await c.query("SET standard_conforming_strings = off");
      await c.query("SET escape_string_warning = off");
      const seen = await bemiContext({ text: "é😀" }, () =>
        c.query("INSERT INTO todo (task) VALUES ('it\\'s; x') RETURNING task, bemi.context() AS context, current_query() AS sent"));
      assert.equal(seen.rows[0].task, "it's; x");
      assert.match(seen.rows[0].sent, /^\/\*Bemi \{"text":"\\u00e9\\ud83d\\ude00"\} Bemi\*\/ INSERT/);
    }, other);
    await other.end();
  });
});
