import { setContext } from "bemi/typeorm";
import express, { type Request } from "express";
import { AppDataSource } from "./data-source.js";

export const app = express();

app.use(express.json({ limit: "5mb" }));

app.use(
  setContext(AppDataSource, (req: Request) => ({
    endpoint: req.url,
    params: req.body,
    userId: Number(req.headers["x-user-id"]),
  })),
);
