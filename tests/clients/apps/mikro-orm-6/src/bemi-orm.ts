import { MikroORM } from "@mikro-orm/postgresql";
import { Change } from "bemi/mikro-orm";

export const bemiOrm = MikroORM.initSync({
  contextName: "bemi",
  clientUrl: process.env.DATABASE_URL,
  entities: [Change],
});
