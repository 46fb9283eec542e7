import { setContext } from "bemi/mikro-orm";
import express, { type Request } from "express";
import { authenticate } from "./authenticate.js";

export const app = express();

app.use(express.json({ limit: "5mb" }));
app.use(authenticate);

app.use(
  setContext((req: Request) => ({
    userId: req.user?.id,
    endpoint: req.url,
    params: req.body,
  })),
);
