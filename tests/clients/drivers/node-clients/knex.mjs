import assert from "node:assert/strict";
import createKnex from "knex";
import pg from "pg";
import { bemiContext, instrument } from "bemi/pg";
import { crowd } from "./crowd.mjs";

instrument(pg);
const knex = createKnex({ client: "pg", connection: process.env.DATABASE_URL, pool: { min: 0, max: 4 } });

await bemiContext({ user_id: 1 }, () => knex("todo").insert({ task: "Sleep" }));

await bemiContext({ user_id: 2 }, () =>
  knex.transaction(async (trx) => {
    await trx("todo").insert([{ task: "Eat" }, { task: "Walk" }]);
    const nested = trx.transaction(async (savepoint) => {
      await savepoint("todo").insert({ task: "Lost" });
      throw new Error("rolled back");
    });
    await assert.rejects(nested, /rolled back/);
    await trx("todo").where({ task: "Eat" }).update({ is_completed: true });
  }),
);

// A transaction that was begun before anybody was known.
const trx = await knex.transaction();
await bemiContext({ user_id: 3 }, () => trx("todo").insert({ task: "Read" }));
await trx.commit();

const hostile = { user_id: 4, name: "*/ Bemi*/; DROP TABLE todo; -- ? :x $1 /*" };
const [{ id }] = await bemiContext(hostile, () => knex("todo").insert({ task: "Draft" }).returning("id"));
await bemiContext({ user_id: 5 }, () =>
  knex("todo").insert({ id, task: "Final" }).onConflict("id").merge(["task"]),
);
await bemiContext({ user_id: 6 }, async () => {
  await knex.batchInsert("todo", [{ task: "Batch 1" }, { task: "Batch 2" }, { task: "Batch 3" }], 2);
  await knex.raw("UPDATE todo SET is_completed = ? WHERE task = ?", [true, "Batch 1"]);
  await knex("todo").with("batch", knex("todo").select("id").whereLike("task", "Batch %"))
    .whereIn("id", knex("batch").select("id")).andWhere({ is_completed: false }).delete();
});
await knex("todo").insert({ task: "Nobody" });

await crowd("knex", (task) => knex("todo").insert({ task }));
await knex.destroy();
