import { EntityCaseNamingStrategy } from "@mikro-orm/core";
import { Migrator } from "@mikro-orm/migrations";
import { defineConfig } from "@mikro-orm/postgresql";
import { bemiMikroOrmOptions } from "bemi/mikro-orm";
import { Todo } from "./entities/Todo.js";

export default defineConfig({
  ...bemiMikroOrmOptions(),
  clientUrl: process.env.DATABASE_URL,
  pool: { max: 5 },
  entities: [Todo],
  namingStrategy: EntityCaseNamingStrategy,
  extensions: [Migrator],
  migrations: { path: "dist/migrations" },
});
