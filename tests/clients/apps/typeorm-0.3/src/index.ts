import { Change, setContext } from "bemi/typeorm";
import express, { type NextFunction, type Request, type Response } from "express";
import type { AddressInfo } from "node:net";
import { authenticate } from "./authenticate";
import { BemiDataSource } from "./bemi-data-source";
import { AppDataSource } from "./data-source";
import { pgRoutes } from "./pg-routes";
import { route } from "./route";
import { todoRoutes } from "./todo-routes";

const app = express();

app.use(express.json({ limit: "5mb" }));
app.use(authenticate);

// Before the middleware, nobody is known.
app.post(
  "/anonymous",
  route(async (req, res) => {
    await AppDataSource.query("INSERT INTO todo (task) VALUES ($1)", [req.body.task]);
    res.json({});
  }),
);

app.use(
  setContext(
    AppDataSource,
    (req: Request) => ({
      userId: req.user?.id,
      endpoint: req.url,
      params: req.body,
    }),
    { currentQuery: true },
  ),
);

app.use(todoRoutes);
app.use(pgRoutes);

app.get(
  "/changes",
  route(async (_req, res) => {
    const changeRepository = BemiDataSource.getRepository(Change);
    const [changes] = await changeRepository.findAndCount({ order: { commitPosition: "ASC", sequence: "ASC" } });
    res.json(changes);
  }),
);

app.use((error: Error, _req: Request, res: Response, _next: NextFunction) => {
  res.status(500).json({ error: error.message });
});

async function main(): Promise<void> {
  await AppDataSource.initialize();
  await BemiDataSource.initialize();

  if (process.env.BACKGROUND_MS) {
    const write = () => AppDataSource.query("INSERT INTO todo (task) VALUES ('background')");
    setInterval(() => write().catch(console.error), Number(process.env.BACKGROUND_MS));
  }

  const server = app.listen(Number(process.env.PORT ?? 0), "127.0.0.1", () => {
    console.log(`listening on ${(server.address() as AddressInfo).port}`);
  });
}

main();
