import { bemiContext, currentBemiContext, mergeBemiContext } from "bemi/typeorm";
import { Router } from "express";
import type { Client, Pool } from "pg";
import type { PostgresDriver } from "typeorm/driver/postgres/PostgresDriver.js";
import { AppDataSource } from "./data-source.js";

export const pgRoutes = Router();

const insertTodo = (task: string) => ({
  name: "insert-todo",
  text: "INSERT INTO todo (task) VALUES ($1) RETURNING id, task",
  values: [task],
});

const pool = () => (AppDataSource.driver as PostgresDriver).master as Pool;

pgRoutes.post("/todo/callback", (req, res, next) => {
  pool().query("INSERT INTO todo (task) VALUES ($1) RETURNING id, task", [req.body.task], (error, result) => {
    if (error) return next(error);
    res.json(result.rows);
  });
});

pgRoutes.post("/todo/named", async (req, res) => {
  const result = await pool().query(insertTodo(req.body.task));
  res.json(result.rows);
});

// What a named statement tells the server is undone by a rollback, and holds for no other statement.
pgRoutes.post("/todo/savepoint", async (req, res) => {
  const { task } = req.body;
  const runner = AppDataSource.createQueryRunner();
  const client: Client = await runner.connect();
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
    await runner.release();
  }
});
