import type { Options } from "@mikro-orm/core";
import { defineConfig } from "@mikro-orm/postgresql";
import { Configuration } from "@tsed/di";
import { MikroOrmModule } from "@tsed/mikro-orm";
import "@tsed/platform-express";
import { Change, setContext } from "bemi/mikro-orm";
import express, { type Request } from "express";
import { authenticate } from "./authenticate.js";
import { ChangesController } from "./controllers/ChangesController.js";
import { TodoController } from "./controllers/TodoController.js";
import config from "./mikro-orm.config.js";

@Configuration({
  httpPort: `127.0.0.1:${process.env.PORT ?? 0}`,
  httpsPort: false,
  logger: { level: "warn", disableRoutesSummary: true },
  imports: [MikroOrmModule],
  // The types of @tsed/mikro-orm 8 are those of MikroORM 6.
  mikroOrm: [
    config,
    defineConfig({ contextName: "bemi", clientUrl: process.env.DATABASE_URL, entities: [Change] }),
  ] as Options[],
  middlewares: [
    express.json({ limit: "5mb" }),
    authenticate,
    setContext((req: Request) => ({
      userId: req.user?.id,
      endpoint: req.url,
      params: req.body,
    })),
  ],
  mount: { "/": [TodoController, ChangesController] },
})
export class Server {}
