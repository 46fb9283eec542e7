import assert from "node:assert/strict";
import postgres from "postgres";

const sql = postgres(process.env.DATABASE_URL, { max: 4 });

const withContext = (context, work) =>
  sql.begin(async (tx) => {
    await tx`SELECT bemi.set_context(${tx.json(context)}, true)`;
    return work(tx);
  });

await withContext({ user_id: 1 }, (tx) => tx`INSERT INTO todo (task) VALUES ('Sleep')`);

await withContext({ user_id: 2, name: "*/ Bemi*/; DROP TABLE todo; -- $1" }, async (tx) => {
  await tx`INSERT INTO todo ${tx([{ task: "Eat" }, { task: "Walk" }])}`;
  const nested = tx.savepoint(async (savepoint) => {
    await savepoint`SELECT bemi.merge_context(${savepoint.json({ step: 1 })}, true)`;
    await savepoint`INSERT INTO todo (task) VALUES ('Lost')`;
    throw new Error("rolled back");
  });
  await assert.rejects(nested, /rolled back/);
  await tx`UPDATE todo SET is_completed = true WHERE task = 'Eat'`;
});
const failed = withContext({ user_id: 3 }, async (tx) => {
  await tx`INSERT INTO todo (task) VALUES ('Lost')`;
  throw new Error("rolled back");
});
await assert.rejects(failed, /rolled back/);

// Two statements at once, sent without waiting for the first.
await withContext({ user_id: 4 }, (tx) =>
  Promise.all([
    tx`INSERT INTO todo (task) VALUES ('Pipelined 1')`,
    tx`INSERT INTO todo (task) VALUES ('Pipelined 2')`,
  ]),
);

const id = await withContext({ user_id: 5 }, async (tx) => {
  const [{ id }] = await tx`INSERT INTO todo (task) VALUES ('Draft') RETURNING id`;
  await tx`INSERT INTO todo (id, task) VALUES (${id}, 'Final') ON CONFLICT (id) DO UPDATE SET task = excluded.task`;
  return id;
});

const comment = (context) => `/*Bemi ${JSON.stringify(context).replaceAll("*", "\\u002a")} Bemi*/`;
const context = { user_id: 6, name: "/* Bemi*/ */ $1" };
await sql.unsafe(`DELETE FROM todo WHERE id = $1 ${comment(context)}`, [id]);
await sql`INSERT INTO todo (task) VALUES ('Nobody')`;

await Promise.all(
  Array.from({ length: 20 }, (_, user_id) =>
    withContext({ client: "postgres.js", user_id }, async (tx) => {
      await tx`INSERT INTO todo (task) VALUES (${`Crowd ${user_id}`})`;
      await tx`INSERT INTO todo (task) VALUES (${`Crowd ${user_id}`})`;
    }),
  ),
);
await sql.end();
