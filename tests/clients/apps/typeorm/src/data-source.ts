import "reflect-metadata";
import { DataSource } from "typeorm";
import { Todo } from "./entity/Todo.js";

export const AppDataSource = new DataSource({
  type: "postgres",
  url: process.env.DATABASE_URL,
  poolSize: 5,
  entities: [Todo],
  migrations: [import.meta.dirname + "/migration/*.js"],
});
