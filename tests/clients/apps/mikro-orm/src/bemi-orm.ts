import { MikroORM } from "@mikro-orm/postgresql";
import { Change } from "bemi/mikro-orm";

export const bemiOrm = await MikroORM.init({
  contextName: "bemi",
  clientUrl: process.env.DATABASE_URL,
  entities: [Change],
});
