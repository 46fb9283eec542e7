import assert from "node:assert/strict";
import { pipeline } from "node:stream/promises";
import { Readable } from "node:stream";
import pg from "pg";
import { from as copyFrom } from "pg-copy-streams";

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 1 });
// A client that loses its connection while it is in use emits an error, which ends the process if nobody listens.
pool.on("connect", (client) => client.on("error", () => {}));

async function withContext(context, work) {
  const client = await pool.connect();
  let failure;
  try {
    await client.query("BEGIN");
    await client.query("SELECT bemi.set_context($1, true)", [JSON.stringify(context)]);
    const result = await work(client);
    await client.query("COMMIT");
    return result;
  } catch (error) {
    await client.query("ROLLBACK").catch((error) => (failure = error));
    throw error;
  } finally {
    client.release(failure);
  }
}

async function withSessionContext(context, work) {
  const client = await pool.connect();
  let failure;
  try {
    await client.query("SELECT bemi.set_context($1)", [JSON.stringify(context)]);
    return await work(client);
  } finally {
    await client.query("RESET bemi.context").catch((error) => (failure = error));
    client.release(failure);
  }
}

const insert = (client, task) => client.query("INSERT INTO todo (task) VALUES ($1)", [task]);
const backend = async () => (await pool.query("SELECT pg_backend_pid() AS pid")).rows[0].pid;
const first = await backend();

// Two users, one after the other, on the only connection of the pool.
await withContext({ user_id: 1 }, async (client) => {
  await insert(client, "Sleep");
  await insert(client, "Eat");
});
await withContext({ user_id: 2, name: 'Zoë\'s "2nd" */' }, (client) =>
  client.query("UPDATE todo SET is_completed = true WHERE task = $1", ["Sleep"]),
);

// What follows a rollback has no context.
const failed = withContext({ user_id: 3 }, async (client) => {
  await insert(client, "Lost");
  throw new Error("rolled back");
});
await assert.rejects(failed, /rolled back/);
await insert(pool, "After a rollback");

// A savepoint that is rolled back puts back the context from before it.
await withContext({ user_id: 4 }, async (client) => {
  await client.query("SAVEPOINT attempt");
  await client.query("SELECT bemi.merge_context($1, true)", [JSON.stringify({ step: 1 })]);
  await insert(client, "Lost");
  await client.query("ROLLBACK TO SAVEPOINT attempt");
  await insert(client, "After a savepoint");
});

// COPY.
await withContext({ user_id: 5 }, (client) =>
  pipeline(Readable.from(["Copied 1\n", "Copied 2\n"]), client.query(copyFrom("COPY todo (task) FROM STDIN"))),
);

// A context of the session.
await withSessionContext({ worker: "nightly" }, async (client) => {
  await insert(client, "Nightly 1");
  await insert(client, "Nightly 2");
});
await insert(pool, "After the pool");

// A comment carries the context of one statement that is not kept prepared.
const comment = (context) => `/*Bemi ${JSON.stringify(context).replaceAll("*", "\\u002a")} Bemi*/`;
const name = "/* Bemi*/ */";
await pool.query(`DELETE FROM todo WHERE task = $1 ${comment({ user_id: 6, name })}`, ["Eat"]);

assert.equal(await backend(), first);

// The connection is lost in the middle of the work.
const lost = withContext({ user_id: 7 }, async (client) => {
  await insert(client, "Lost");
  await client.query("SELECT pg_terminate_backend(pg_backend_pid())").catch(() => {});
  throw new Error("what the work threw");
});
await assert.rejects(lost, /what the work threw/);
await assert.rejects(
  withSessionContext({ user_id: 7 }, (client) => client.query("SELECT pg_terminate_backend(pg_backend_pid())")),
  /terminating connection/,
);
await insert(pool, "After a lost connection");
assert.notEqual(await backend(), first);
await pool.end();
