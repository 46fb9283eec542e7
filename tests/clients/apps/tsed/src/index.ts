import { MikroOrmRegistry } from "@tsed/mikro-orm";
import { PlatformExpress } from "@tsed/platform-express";
import type { EntityManager } from "@mikro-orm/postgresql";
import { Server as HttpServer } from "node:http";
import type { AddressInfo } from "node:net";
import { Server } from "./Server.js";

const platform = await PlatformExpress.bootstrap(Server);
await platform.listen();

if (process.env.BACKGROUND_MS) {
  const { em } = platform.injector.get<MikroOrmRegistry>(MikroOrmRegistry)!.get()!;
  const write = () => (em.fork() as EntityManager).execute("insert into todo (task) values ('background')");
  setInterval(() => write().catch(console.error), Number(process.env.BACKGROUND_MS));
}

const server = platform.injector.get<HttpServer>(HttpServer)!;
console.log(`listening on ${(server.address() as AddressInfo).port}`);
