import assert from "node:assert/strict";
import pg from "pg";
import { createPool, sql } from "slonik";
import { bemiContext, instrument } from "bemi/pg";
import { crowd } from "./crowd.mjs";

instrument(pg);
const pool = await createPool(process.env.DATABASE_URL, { maximumPoolSize: 4 });

await bemiContext({ user_id: 1 }, () => pool.query(sql.unsafe`INSERT INTO todo (task) VALUES (${"Sleep"})`));

await bemiContext({ user_id: 2 }, () =>
  pool.transaction(async (transaction) => {
    const tasks = sql.unnest([["Eat"], ["Walk"]], ["text"]);
    await transaction.query(sql.unsafe`INSERT INTO todo (task) SELECT * FROM ${tasks}`);
    const nested = transaction.transaction(async (savepoint) => {
      await savepoint.query(sql.unsafe`INSERT INTO todo (task) VALUES ('Lost')`);
      throw new Error("rolled back");
    });
    await assert.rejects(nested, /rolled back/);
    await transaction.query(sql.unsafe`UPDATE todo SET is_completed = true WHERE task = 'Eat'`);
  }),
);
const id = await bemiContext({ user_id: 3 }, () =>
  pool.oneFirst(sql.unsafe`INSERT INTO todo (task) VALUES ('Draft') RETURNING id`),
);
await bemiContext({ user_id: 4 }, () =>
  pool.query(sql.unsafe`INSERT INTO todo (id, task) VALUES (${id}, 'Final')
                        ON CONFLICT (id) DO UPDATE SET task = excluded.task`),
);
await bemiContext({ user_id: 5 }, () =>
  pool.any(sql.unsafe`WITH gone AS (DELETE FROM todo WHERE id = ${id} RETURNING task) SELECT task FROM gone`),
);
await pool.query(sql.unsafe`INSERT INTO todo (task) VALUES ('Nobody')`);

await crowd("slonik", (task) => pool.query(sql.unsafe`INSERT INTO todo (task) VALUES (${task})`));
await pool.end();
