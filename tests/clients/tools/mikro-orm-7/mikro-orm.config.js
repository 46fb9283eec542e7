import { EntitySchema } from "@mikro-orm/core";
import { Migrator } from "@mikro-orm/migrations";
import { defineConfig } from "@mikro-orm/postgresql";
import { bemiMikroOrmOptions } from "bemi/mikro-orm";

const properties = {
  id: { type: "integer", primary: true },
  task: { type: "text" },
  isCompleted: { type: "boolean", default: false },
};
// What a developer adds next.
if (process.env.NEXT) properties.note = { type: "text", nullable: true };

const options = { all: bemiMikroOrmOptions(), schema: { schemaGenerator: { ignoreSchema: ["bemi"] } } };

export default defineConfig({
  clientUrl: process.env.DATABASE_URL,
  entities: [new EntitySchema({ name: "Todo", tableName: "todo", properties })],
  extensions: [Migrator],
  migrations: { path: "migrations", emit: "js" },
  ...options[process.env.OPTIONS],
});
