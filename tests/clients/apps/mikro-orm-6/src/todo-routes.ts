import { bemiContext, mergeBemiContext } from "bemi/mikro-orm";
import { Router } from "express";
import { setTimeout as sleep } from "node:timers/promises";
import { Todo } from "./entities/Todo";
import { orm } from "./orm";
import { route } from "./route";

export const todoRoutes = Router();
const { em } = orm;

todoRoutes.get(
  "/todo",
  route(async (_req, res) => {
    res.json(await em.findAll(Todo, { orderBy: { id: "desc" }, limit: 20 }));
  }),
);

todoRoutes.post(
  "/todo",
  route(async (req, res) => {
    const { task, isCompleted = false } = req.body;
    const todo = em.create(Todo, { task, isCompleted });
    await em.flush();
    res.json(todo);
  }),
);

todoRoutes.put(
  "/todo/complete",
  route(async (req, res) => {
    const todo = await em.findOneOrFail(Todo, req.body.id);
    todo.isCompleted = true;
    await em.flush();
    res.json(todo);
  }),
);

todoRoutes.delete(
  "/todo/:id",
  route(async (req, res) => {
    await em.nativeDelete(Todo, Number(req.params.id));
    res.json({ id: req.params.id });
  }),
);

// The first attempt writes, waits and is rolled back.
todoRoutes.post(
  "/todo/retry",
  route(async (req, res) => {
    const attempt = (failing: boolean) =>
      em.fork().transactional(async (em) => {
        const todo = em.create(Todo, { task: `${req.body.task}${failing ? " rolled back" : ""}` });
        await em.flush();
        await sleep(Math.random() * 10);
        todo.isCompleted = true;
        await em.flush();
        if (failing) throw new Error("try again");
        return todo;
      });
    res.json(await attempt(true).catch(() => attempt(false)));
  }),
);

todoRoutes.post(
  "/todo/parallel",
  route(async (req, res) => {
    const ids = await Promise.all(req.body.tasks.map((task: string) => em.fork().insert(Todo, { task })));
    res.json(ids);
  }),
);

todoRoutes.post(
  "/todo/bulk",
  route(async (req, res) => {
    res.json(await em.insertMany(Todo, req.body.tasks.map((task: string) => ({ task }))));
  }),
);

todoRoutes.post(
  "/todo/raw",
  route(async (req, res) => {
    res.json(await em.execute("insert into todo (task) values (?) returning *;", [req.body.task]));
  }),
);

todoRoutes.post(
  "/todo/worker",
  route(async (req, res) => {
    const { task, userId } = req.body;
    bemiContext({ worker: "MyWorker", stage: "calculate", userId });
    const todo = em.create(Todo, { task });
    await em.flush();
    await sleep(Math.random() * 10);
    mergeBemiContext({ stage: "store" });
    todo.isCompleted = true;
    await em.flush();
    await bemiContext({ worker: "Inner", userId }, async () => {
      await sleep(Math.random() * 10);
      await em.insert(Todo, { task: `${task} inner` });
    });
    await em.insert(Todo, { task: `${task} last` });
    res.json(todo);
  }),
);
