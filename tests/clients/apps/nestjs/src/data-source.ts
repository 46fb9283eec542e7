import "reflect-metadata";
import { DataSource, type DataSourceOptions } from "typeorm";
import { Todo } from "./todo.entity.js";

export const options: DataSourceOptions = {
  type: "postgres",
  url: process.env.DATABASE_URL,
  poolSize: 5,
  entities: [Todo],
  migrations: [import.meta.dirname + "/migration/*.js"],
};

export default new DataSource(options);
