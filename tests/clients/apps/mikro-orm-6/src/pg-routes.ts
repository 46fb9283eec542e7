import { bemiContext, currentBemiContext, mergeBemiContext } from "bemi/mikro-orm";
import { Router } from "express";
import type { Client } from "pg";
import { orm } from "./orm";
import { route } from "./route";

export const pgRoutes = Router();

const insertTodo = (task: string) => ({
  name: "insert-todo",
  text: "INSERT INTO todo (task) VALUES ($1) RETURNING id, task",
  values: [task],
});

async function withClient<T>(work: (client: Client) => Promise<T>): Promise<T> {
  const { client: knex } = orm.em.getConnection().getKnex();
  const client = await knex.acquireConnection();
  try {
    return await work(client);
  } finally {
    await knex.releaseConnection(client);
  }
}

pgRoutes.post("/todo/callback", (req, res, next) => {
  withClient(
    (client) =>
      new Promise<void>((resolve) => {
        client.query("INSERT INTO todo (task) VALUES ($1) RETURNING id, task", [req.body.task], (error, result) => {
          if (error) next(error);
          else res.json(result.rows);
          resolve();
        });
      }),
  ).catch(next);
});

pgRoutes.post(
  "/todo/named",
  route(async (req, res) => {
    const result = await withClient((client) => client.query(insertTodo(req.body.task)));
    res.json(result.rows);
  }),
);

// What a named statement tells the server is undone by a rollback, and holds for no other statement.
pgRoutes.post(
  "/todo/savepoint",
  route(async (req, res) => {
    const { task } = req.body;
    const result = await withClient(async (client) => {
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
      return client.query(insertTodo(`${task} third`));
    });
    res.json(result.rows);
  }),
);
