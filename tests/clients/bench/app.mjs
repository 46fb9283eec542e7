// app.mjs bemi|same|empty: an application on Express and TypeORM, with the package or with an empty AsyncLocalStorage.
import { AsyncLocalStorage } from "node:async_hooks";
import { setContext } from "bemi/typeorm";
import express from "express";
import "reflect-metadata";
import { DataSource, EntitySchema } from "typeorm";

const Todo = new EntitySchema({
  name: "todo",
  columns: { id: { type: "int", primary: true, generated: true }, task: { type: "text" }, is_completed: { type: "boolean", default: false } },
});
const source = new DataSource({ type: "postgres", url: process.env.DATABASE_URL, poolSize: 10, entities: [Todo] });
const storage = new AsyncLocalStorage();
const middlewares = {
  bemi: () => setContext(source, (request) => ({ userId: 187234, endpoint: request.url, params: request.body })),
  // The same as empty, for what differs between two processes without a reason.
  same: () => (_request, _response, next) => storage.run({}, next),
  empty: () => (_request, _response, next) => storage.run({}, next),
};

const app = express();
app.get("/spent", (_request, response) => {
  const { user, system } = process.cpuUsage();
  globalThis.gc();
  response.json({ cpu: (user + system) / 1000, heap: process.memoryUsage().heapUsed / 2 ** 20 });
});
app.use(express.json());
app.use(middlewares[process.argv[2]]());
app.post("/todo", async (request, response) => {
  const todo = await source.getRepository(Todo).save({ task: request.body.task });
  response.json(todo);
});
await source.initialize();
const server = app.listen(0, "127.0.0.1", () => console.log(server.address().port));
// While the others are measured.
server.keepAliveTimeout = 3_600_000;
