import { Kysely, PostgresDialect, sql } from "kysely";
import pg from "pg";
import { bemiContext, instrument } from "bemi/pg";
import { crowd } from "./crowd.mjs";

instrument(pg);
const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 4 });
const db = new Kysely({ dialect: new PostgresDialect({ pool }) });

await bemiContext({ user_id: 1 }, () => db.insertInto("todo").values({ task: "Sleep" }).execute());

await bemiContext({ user_id: 2 }, () =>
  db.transaction().execute(async (trx) => {
    await trx.insertInto("todo").values([{ task: "Eat" }, { task: "Walk" }]).execute();
    await trx.updateTable("todo").set({ is_completed: true }).where("task", "=", "Eat").execute();
  }),
);

await bemiContext({ user_id: 3 }, async () => {
  const trx = await db.startTransaction().execute();
  const before = await trx.savepoint("before").execute();
  await before.insertInto("todo").values({ task: "Lost" }).execute();
  await before.rollbackToSavepoint("before").execute();
  await trx.insertInto("todo").values({ task: "Read" }).execute();
  await trx.commit().execute();
});

const { id } = await bemiContext({ user_id: 4 }, () =>
  db.insertInto("todo").values({ task: "Draft" }).returning("id").executeTakeFirstOrThrow(),
);
await bemiContext({ user_id: 5 }, () =>
  db.insertInto("todo").values({ id, task: "Final" })
    .onConflict((conflict) => conflict.column("id").doUpdateSet({ task: "Final" })).execute(),
);
await bemiContext({ user_id: 6 }, async () => {
  await db.with("gone", (db) => db.deleteFrom("todo").where("id", "=", id).returning("task"))
    .selectFrom("gone").selectAll().execute();
  await sql`INSERT INTO todo (task) VALUES (${"By hand"})`.execute(db);
});
await db.insertInto("todo").values({ task: "Nobody" }).execute();

await crowd("kysely", (task) => db.insertInto("todo").values({ task }).execute());
await db.destroy();
