import type { PostgreSqlConnection } from "@mikro-orm/postgresql";
import { bemiContext, currentBemiContext, instrument, mergeBemiContext } from "bemi/mikro-orm";
import { Router } from "express";
import pg from "pg";
import { orm } from "./orm.js";

export const pgRoutes = Router();

const insertTodo = (task: string) => ({
  name: "insert-todo",
  text: "INSERT INTO todo (task) VALUES ($1) RETURNING id, task",
  values: [task],
});

const pool = await (orm.em.getConnection() as PostgreSqlConnection).getNativeClient();

// Of the app's own node-postgres, which is another copy than MikroORM's.
instrument(pg);
const ownPool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 2 });

pgRoutes.post("/todo/callback", (req, res, next) => {
  ownPool.query("INSERT INTO todo (task) VALUES ($1) RETURNING id, task", [req.body.task], (error, result) => {
    if (error) return next(error);
    res.json(result.rows);
  });
});

pgRoutes.post("/todo/named", async (req, res) => {
  const result = await pool.query(insertTodo(req.body.task));
  res.json(result.rows);
});

// What a named statement tells the server is undone by a rollback, and holds for no other statement.
pgRoutes.post("/todo/savepoint", async (req, res) => {
  const { task } = req.body;
  const client = await pool.connect();
  try {
    await client.query("BEGIN");
    mergeBemiContext({ step: "first" });
    await client.query(insertTodo(`${task} first`));
    await bemiContext({ userId: currentBemiContext()?.userId, isNamed: false }, () =>
      client.query("INSERT INTO todo (task) VALUES ($1)", [`${task} unnamed`]),
    );
    await client.query("SAVEPOINT s");
    mergeBemiContext({ step: "second" });
    await client.query(insertTodo(`${task} rolled back`));
    await client.query("ROLLBACK TO SAVEPOINT s");
    await client.query(insertTodo(`${task} second`));
    await client.query("COMMIT");
    await client.query("BEGIN");
    mergeBemiContext({ step: "third" });
    await client.query(insertTodo(`${task} rolled back`));
    await client.query("ROLLBACK");
    const result = await client.query(insertTodo(`${task} third`));
    res.json(result.rows);
  } finally {
    client.release();
  }
});
