import assert from "node:assert/strict";
import createKnex from "knex";
import { Model } from "objection";
import pg from "pg";
import { bemiContext, instrument } from "bemi/pg";
import { crowd } from "./crowd.mjs";

class Todo extends Model {
  static tableName = "todo";
}

instrument(pg);
const knex = createKnex({ client: "pg", connection: process.env.DATABASE_URL, pool: { min: 0, max: 4 } });
Model.knex(knex);

const { id } = await bemiContext({ user_id: 1 }, () => Todo.query().insert({ task: "Sleep" }));

await bemiContext({ user_id: 2 }, () =>
  Todo.transaction(async (trx) => {
    await Todo.query(trx).insert([{ task: "Eat" }, { task: "Walk" }]);
    const nested = trx.transaction(async (savepoint) => {
      await Todo.query(savepoint).insert({ task: "Lost" });
      throw new Error("rolled back");
    });
    await assert.rejects(nested, /rolled back/);
    await Todo.query(trx).patch({ is_completed: true }).where({ task: "Eat" });
  }),
);
await bemiContext({ user_id: 3 }, () => Todo.query().insert({ id, task: "Upserted" }).onConflict("id").merge());
await bemiContext({ user_id: 4 }, () => Todo.query().upsertGraph({ id, task: "Graph" }));
await bemiContext({ user_id: 5 }, () => Todo.query().deleteById(id));
await Todo.query().insert({ task: "Nobody" });

await crowd("objection", (task) => Todo.query().insert({ task }));
await knex.destroy();
