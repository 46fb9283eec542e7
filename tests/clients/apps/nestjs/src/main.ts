import { NestFactory } from "@nestjs/core";
import type { NestExpressApplication } from "@nestjs/platform-express";
import { setContext } from "bemi/typeorm";
import type { Request } from "express";
import type { AddressInfo } from "node:net";
import { DataSource } from "typeorm";
import { AppModule } from "./app.module.js";
import { authenticate } from "./authenticate.js";

const app = await NestFactory.create<NestExpressApplication>(AppModule, { logger: ["error", "warn"] });
const dataSource = app.get(DataSource);

// Nest's own parser comes behind what is used here, and the context is to have the body.
app.useBodyParser("json", { limit: "5mb" });
app.use(authenticate);

app.use(
  setContext(dataSource, (req: Request) => ({
    userId: req.user?.id,
    endpoint: req.url,
    params: req.body,
  })),
);

if (process.env.BACKGROUND_MS) {
  const write = () => dataSource.query("INSERT INTO todo (task) VALUES ('background')");
  setInterval(() => write().catch(console.error), Number(process.env.BACKGROUND_MS));
}

const server = await app.listen(Number(process.env.PORT ?? 0), "127.0.0.1");
console.log(`listening on ${(server.address() as AddressInfo).port}`);
