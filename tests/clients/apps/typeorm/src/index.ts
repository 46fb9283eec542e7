import { Change } from "bemi/typeorm";
import express, { type NextFunction, type Request, type Response } from "express";
import type { AddressInfo } from "node:net";
import { app } from "./app.js";
import { BemiDataSource } from "./bemi-data-source.js";
import { AppDataSource } from "./data-source.js";
import { pgRoutes } from "./pg-routes.js";
import { todoRoutes } from "./todo-routes.js";

app.use(todoRoutes);
app.use(pgRoutes);

app.get("/changes", async (_req, res) => {
  const changes = await BemiDataSource.getRepository(Change).find({ order: { commitPosition: "ASC", sequence: "ASC" } });
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

// Outside of the middleware, nobody is known.
const root = express();
root.post("/anonymous", express.json(), async (req, res) => {
  await AppDataSource.query("INSERT INTO todo (task) VALUES ($1)", [req.body.task]);
  res.json({});
});
root.use(app);

const server = root.listen(Number(process.env.PORT ?? 0), "127.0.0.1", () => {
  console.log(`listening on ${(server.address() as AddressInfo).port}`);
});
