import assert from "node:assert/strict";
import pgPromise from "pg-promise";
import { bemiContext, instrument } from "bemi/pg";
import { crowd } from "./crowd.mjs";

const pgp = pgPromise();
instrument(pgp.pg);
const db = pgp({ connectionString: process.env.DATABASE_URL, max: 4 });

await bemiContext({ user_id: 1 }, () => db.none("INSERT INTO todo (task) VALUES ($1)", ["Sleep"]));

await bemiContext({ user_id: 2 }, () =>
  db.tx(async (t) => {
    await t.batch(["Eat", "Walk"].map((task) => t.none("INSERT INTO todo (task) VALUES ($<task>)", { task })));
    const nested = t.tx(async (savepoint) => {
      await savepoint.none("INSERT INTO todo (task) VALUES ('Lost')");
      throw new Error("rolled back");
    });
    await assert.rejects(nested, /rolled back/);
    await t.result("UPDATE todo SET is_completed = true WHERE task = 'Eat'");
  }),
);

// The server keeps it prepared; each execution has the context of the moment.
const add = new pgp.PreparedStatement({ name: "add_todo", text: "INSERT INTO todo (task) VALUES ($1) RETURNING id" });
const { id } = await bemiContext({ user_id: 3 }, () => db.one(add, ["Prepared"]));
await bemiContext({ user_id: 4 }, () => db.one(add, ["Prepared"]));
await db.one(add, ["Prepared, nobody"]);

await bemiContext({ user_id: 5 }, () =>
  db.none(`${pgp.helpers.insert([{ id, task: "Upserted" }], ["id", "task"], "todo")}
           ON CONFLICT (id) DO UPDATE SET task = excluded.task`),
);
await bemiContext({ user_id: 6 }, () =>
  db.multi("INSERT INTO todo (task) VALUES ('One of two'); DELETE FROM todo WHERE id = $1", [id]),
);
await db.none("INSERT INTO todo (task) VALUES ('Nobody')");

await crowd("pg-promise", (task) => db.none("INSERT INTO todo (task) VALUES ($1)", [task]));
pgp.end();
