import { RequestContext } from "@mikro-orm/core";
import { Change, setContext } from "bemi/mikro-orm";
import express, { type NextFunction, type Request, type Response } from "express";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { authenticate } from "./authenticate";
import { bemiOrm } from "./bemi-orm";
import { orm } from "./orm";
import { pgRoutes } from "./pg-routes";
import { route } from "./route";
import { todoRoutes } from "./todo-routes";

async function userOf(req: Request): Promise<number | undefined> {
  await sleep(Math.random() * 3);
  return req.user?.id;
}

const app = express();

app.use(express.json({ limit: "5mb" }));
app.use(authenticate);

// Before the middleware, nobody is known.
app.post(
  "/anonymous",
  route(async (req, res) => {
    await orm.em.fork().execute("insert into todo (task) values (?)", [req.body.task]);
    res.json({});
  }),
);

app.use(
  setContext(
    async (req: Request) => ({
      userId: await userOf(req),
      endpoint: req.url,
      params: req.body,
    }),
    { currentQuery: true },
  ),
);

app.use((_req, _res, next) => RequestContext.create(orm.em, next));

app.use(todoRoutes);
app.use(pgRoutes);

app.get(
  "/changes",
  route(async (_req, res) => {
    const changes = await bemiOrm.em.fork().findAll(Change, { orderBy: { commitPosition: "asc", sequence: "asc" } });
    res.json(changes);
  }),
);

app.use((error: Error, _req: Request, res: Response, _next: NextFunction) => {
  res.status(500).json({ error: error.message });
});

if (process.env.BACKGROUND_MS) {
  const write = () => orm.em.fork().execute("insert into todo (task) values ('background')");
  setInterval(() => write().catch(console.error), Number(process.env.BACKGROUND_MS));
}

const server = app.listen(Number(process.env.PORT ?? 0), "127.0.0.1", () => {
  console.log(`listening on ${(server.address() as AddressInfo).port}`);
});
