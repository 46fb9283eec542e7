import { Change, setContext } from "bemi/typeorm";
import express, { type NextFunction, type Request, type Response } from "express";
import type { AddressInfo } from "node:net";
import { BemiDataSource } from "./bemi-data-source.js";
import { AppDataSource } from "./data-source.js";
import { pgRoutes } from "./pg-routes.js";
import { todoRoutes } from "./todo-routes.js";

const app = express();

app.use(express.json({ limit: "5mb" }));

// Before the middleware, nobody is known.
app.post("/anonymous", async (req, res) => {
  await AppDataSource.query("INSERT INTO todo (task) VALUES ($1)", [req.body.task]);
  res.json({});
});

app.use(
  setContext(AppDataSource, (req: Request) => ({
    endpoint: req.url,
    params: req.body,
    userId: Number(req.headers["x-user-id"]),
  })),
);

app.use(todoRoutes);
app.use(pgRoutes);

app.get("/changes", async (_req, res) => {
  const changes = await BemiDataSource.getRepository(Change).find({ order: { committedAt: "ASC", position: "ASC" } });
  res.json(changes);
});

app.use((error: Error, _req: Request, res: Response, _next: NextFunction) => {
  res.status(500).json({ error: error.message });
});

await AppDataSource.initialize();
await BemiDataSource.initialize();

if (process.env.BACKGROUND_MS) {
  const write = () => AppDataSource.query("INSERT INTO todo (task) VALUES ('background')");
  setInterval(() => write().catch(console.error), Number(process.env.BACKGROUND_MS));
}

const server = app.listen(Number(process.env.PORT ?? 0), "127.0.0.1", () => {
  console.log(`listening on ${(server.address() as AddressInfo).port}`);
});
