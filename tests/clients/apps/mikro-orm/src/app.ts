import { setContext } from "bemi/mikro-orm";
import express, { type Request } from "express";

export const app = express();

app.use(express.json({ limit: "5mb" }));

app.use(
  setContext((req: Request) => ({
    endpoint: req.url,
    params: req.body,
    userId: Number(req.headers["x-user-id"]),
  })),
);
