import { setContext } from "bemi/typeorm";
import express, { type Request } from "express";
import { authenticate } from "./authenticate.js";
import { AppDataSource } from "./data-source.js";

export const app = express();

app.use(express.json({ limit: "5mb" }));
app.use(authenticate);

app.use(
  setContext(AppDataSource, (req: Request) => ({
    userId: req.user?.id,
    endpoint: req.url,
    params: req.body,
  })),
);
