import { bemiContext, mergeBemiContext } from "bemi/typeorm";
import { Router } from "express";
import { setTimeout as sleep } from "node:timers/promises";
import { AppDataSource } from "./data-source.js";
import { Todo } from "./entity/Todo.js";

export const todoRoutes = Router();
const todos = AppDataSource.getRepository(Todo);

todoRoutes.get("/todo", async (_req, res) => {
  res.json(await todos.find({ order: { id: "DESC" }, take: 20 }));
});

todoRoutes.post("/todo", async (req, res) => {
  const { task, isCompleted = false } = req.body;
  res.json(await todos.save({ task, isCompleted }));
});

todoRoutes.put("/todo/complete", async (req, res) => {
  await todos.update(req.body.id, { isCompleted: true });
  res.json({ id: req.body.id });
});

todoRoutes.delete("/todo/:id", async (req, res) => {
  await todos.delete(req.params.id);
  res.json({ id: req.params.id });
});

// The first attempt writes, waits and is rolled back.
todoRoutes.post("/todo/retry", async (req, res) => {
  const attempt = (failing: boolean) =>
    AppDataSource.transaction(async (manager) => {
      const todo = await manager.save(Todo, { task: `${req.body.task}${failing ? " rolled back" : ""}` });
      await sleep(Math.random() * 10);
      await manager.update(Todo, todo.id, { isCompleted: true });
      if (failing) throw new Error("try again");
      return todo;
    });
  res.json(await attempt(true).catch(() => attempt(false)));
});

todoRoutes.post("/todo/parallel", async (req, res) => {
  res.json(await Promise.all(req.body.tasks.map((task: string) => todos.save({ task }))));
});

todoRoutes.post("/todo/bulk", async (req, res) => {
  const result = await todos.insert(req.body.tasks.map((task: string) => ({ task })));
  res.json(result.identifiers);
});

todoRoutes.post("/todo/raw", async (req, res) => {
  res.json(await AppDataSource.query("INSERT INTO todo (task) VALUES ($1) RETURNING *;", [req.body.task]));
});

todoRoutes.post("/todo/worker", async (req, res) => {
  const { task, userId } = req.body;
  bemiContext({ worker: "MyWorker", stage: "calculate", userId });
  const todo = await todos.save({ task });
  await sleep(Math.random() * 10);
  mergeBemiContext({ stage: "store" });
  await todos.update(todo.id, { isCompleted: true });
  await bemiContext({ worker: "Inner", userId }, async () => {
    await sleep(Math.random() * 10);
    await todos.save({ task: `${task} inner` });
  });
  await todos.save({ task: `${task} last` });
  res.json(todo);
});
