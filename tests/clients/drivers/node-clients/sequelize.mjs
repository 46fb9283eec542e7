import assert from "node:assert/strict";
import pg from "pg";
import { DataTypes, Sequelize } from "sequelize";
import { bemiContext, currentBemiContext, instrument } from "bemi/pg";
import { crowd } from "./crowd.mjs";

instrument(pg);
const sequelize = new Sequelize(process.env.DATABASE_URL, { dialectModule: pg, pool: { max: 4 }, logging: false });
const Todo = sequelize.define(
  "Todo",
  { task: DataTypes.TEXT, isCompleted: { type: DataTypes.BOOLEAN, field: "is_completed", defaultValue: false } },
  { tableName: "todo", timestamps: false },
);

const { id } = await bemiContext({ user_id: 1 }, () => Todo.create({ task: "Sleep" }));

await bemiContext({ user_id: 2 }, () =>
  sequelize.transaction(async (transaction) => {
    await Todo.bulkCreate([{ task: "Eat" }, { task: "Walk" }], { transaction });
    const nested = sequelize.transaction({ transaction }, async (savepoint) => {
      await Todo.create({ task: "Lost" }, { transaction: savepoint });
      throw new Error("rolled back");
    });
    await assert.rejects(nested, /rolled back/);
    await Todo.update({ isCompleted: true }, { where: { task: "Eat" }, transaction });
  }),
);
await bemiContext({ user_id: 3 }, () => Todo.upsert({ id, task: "Upserted" }));
await bemiContext({ user_id: 4 }, () => Todo.destroy({ where: { id } }));
const bind = ["Bound"];
await bemiContext({ user_id: 5 }, () => sequelize.query("INSERT INTO todo (task) VALUES ($1)", { bind }));

await bemiContext({ user_id: 6 }, () => Todo.findOrCreate({ where: { task: "Found by nobody" } }));

const findOrCreate = (Model, options) =>
  sequelize.transaction(async (transaction) => {
    const bind = [JSON.stringify(currentBemiContext() ?? {})];
    await sequelize.query("SELECT bemi.set_context($1, true)", { bind, transaction });
    return Model.findOrCreate({ ...options, transaction });
  });
await bemiContext({ user_id: 7 }, () => findOrCreate(Todo, { where: { task: "Found" } }));
await bemiContext({ user_id: 8 }, () => findOrCreate(Todo, { where: { task: "Found" } }));
await Todo.create({ task: "Nobody" });

await crowd("sequelize", (task) => Todo.create({ task }));
await sequelize.close();
