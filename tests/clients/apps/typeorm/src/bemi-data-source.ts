import { Change } from "bemi/typeorm";
import { DataSource } from "typeorm";

export const BemiDataSource = new DataSource({
  type: "postgres",
  url: process.env.DATABASE_URL,
  entities: [Change],
});
