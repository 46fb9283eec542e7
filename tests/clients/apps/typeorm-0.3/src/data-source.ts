import "reflect-metadata";
import { DataSource } from "typeorm";
import { Todo } from "./entity/Todo";

export const AppDataSource = new DataSource({
  type: "postgres",
  url: process.env.DATABASE_URL,
  poolSize: 5,
  entities: [Todo],
  migrations: [__dirname + "/migration/*.ts"],
});
