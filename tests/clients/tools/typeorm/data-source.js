const { DataSource, EntitySchema } = require("typeorm");

const columns = {
  id: { type: "int", primary: true, generated: true },
  task: { type: "text" },
  is_completed: { type: "boolean", default: false },
};
// What a developer adds next.
if (process.env.NEXT) columns.note = { type: "text", nullable: true };

exports.default = new DataSource({
  type: "postgres",
  url: process.env.DATABASE_URL,
  entities: [new EntitySchema({ name: "Todo", tableName: "todo", columns })],
  migrations: ["generated/*.js"],
  synchronize: Boolean(process.env.SYNCHRONIZE),
  dropSchema: Boolean(process.env.DROP_SCHEMA),
});
