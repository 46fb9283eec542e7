import { RequestContext } from "@mikro-orm/core";
import { Change } from "bemi/mikro-orm";
import express, { type NextFunction, type Request, type Response } from "express";
import type { AddressInfo } from "node:net";
import { app } from "./app.js";
import { bemiOrm } from "./bemi-orm.js";
import { orm } from "./orm.js";
import { pgRoutes } from "./pg-routes.js";
import { todoRoutes } from "./todo-routes.js";

app.use((_req, _res, next) => RequestContext.create(orm.em, next));

app.use(todoRoutes);
app.use(pgRoutes);

app.get("/changes", async (_req, res) => {
  const changes = await bemiOrm.em.fork().findAll(Change, { orderBy: { commitPosition: "asc", sequence: "asc" } });
  res.json(changes);
});

app.use((error: Error, _req: Request, res: Response, _next: NextFunction) => {
  res.status(500).json({ error: error.message });
});

if (process.env.BACKGROUND_MS) {
  const write = () => orm.em.fork().execute("insert into todo (task) values ('background')");
  setInterval(() => write().catch(console.error), Number(process.env.BACKGROUND_MS));
}

// Outside of the middleware, nobody is known.
const root = express();
root.post("/anonymous", express.json(), async (req, res) => {
  await orm.em.fork().execute("insert into todo (task) values (?)", [req.body.task]);
  res.json({});
});
root.use(app);

const server = root.listen(Number(process.env.PORT ?? 0), "127.0.0.1", () => {
  console.log(`listening on ${(server.address() as AddressInfo).port}`);
});
