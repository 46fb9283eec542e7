const { EntitySchema } = require("@mikro-orm/core");
const { Migrator } = require("@mikro-orm/migrations");
const { defineConfig } = require("@mikro-orm/postgresql");
const { bemiMikroOrmOptions } = require("bemi/mikro-orm");

const properties = {
  id: { type: "integer", primary: true },
  task: { type: "text" },
  isCompleted: { type: "boolean", default: false },
};
// What a developer adds next.
if (process.env.NEXT) properties.note = { type: "text", nullable: true };

const options = { all: bemiMikroOrmOptions(), schema: { schemaGenerator: { ignoreSchema: ["bemi"] } } };

module.exports = defineConfig({
  clientUrl: process.env.DATABASE_URL,
  entities: [new EntitySchema({ name: "Todo", tableName: "todo", properties })],
  extensions: [Migrator],
  migrations: { path: "generated", emit: "js" },
  ...options[process.env.OPTIONS],
});
