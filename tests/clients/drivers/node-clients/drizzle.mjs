import assert from "node:assert/strict";
import { eq, sql } from "drizzle-orm";
import { drizzle } from "drizzle-orm/node-postgres";
import { boolean, integer, pgTable, text } from "drizzle-orm/pg-core";
import pg from "pg";
import { bemiContext, instrument } from "bemi/pg";
import { crowd } from "./crowd.mjs";

const todo = pgTable("todo", {
  id: integer().primaryKey().generatedByDefaultAsIdentity(),
  task: text().notNull(),
  isCompleted: boolean("is_completed").notNull().default(false),
});

instrument(pg);
const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 4 });
const db = drizzle({ client: pool });

await bemiContext({ user_id: 1 }, () => db.insert(todo).values({ task: "Sleep" }));

await bemiContext({ user_id: 2 }, () =>
  db.transaction(async (tx) => {
    await tx.insert(todo).values([{ task: "Eat" }, { task: "Walk" }]);
    const nested = tx.transaction(async (savepoint) => {
      await savepoint.insert(todo).values({ task: "Lost" });
      savepoint.rollback();
    });
    await assert.rejects(nested, /Rollback/);
    await tx.update(todo).set({ isCompleted: true }).where(eq(todo.task, "Eat"));
  }),
);

// The server keeps it prepared; each execution has the context of the moment.
const add = db.insert(todo).values({ task: sql.placeholder("task") }).prepare("add_todo");
await bemiContext({ user_id: 3 }, () => add.execute({ task: "Prepared" }));
await bemiContext({ user_id: 4 }, () => add.execute({ task: "Prepared" }));
await add.execute({ task: "Prepared, nobody" });

const [{ id }] = await bemiContext({ user_id: 5 }, () =>
  db.insert(todo).values({ task: "Draft" }).returning({ id: todo.id }),
);
await bemiContext({ user_id: 6 }, () =>
  db.insert(todo).values({ id, task: "Final" }).onConflictDoUpdate({ target: todo.id, set: { task: "Final" } }),
);
await bemiContext({ user_id: 7 }, () => db.execute(sql`DELETE FROM todo WHERE id = ${id}`));
await db.insert(todo).values({ task: "Nobody" });

await crowd("drizzle", (task) => db.insert(todo).values({ task }));
await pool.end();
