import { MikroORM } from "@mikro-orm/postgresql";
import { bemiContext } from "bemi/mikro-orm";
import { Todo } from "./entities/Todo.js";
import config from "./mikro-orm.config.js";

export const handler = async () => {
  const orm = await MikroORM.init(config);
  const em = orm.em.fork();

  bemiContext({ worker: "MyWorker", stage: "calculate" });
  const todo = em.create(Todo, { task: "worker" });
  await em.flush();

  bemiContext({ worker: "MyWorker", stage: "store" });
  todo.isCompleted = true;
  await em.flush();

  // A query that begins when it is awaited.
  await bemiContext({ worker: "MyWorker", stage: "end" }, () => em.qb(Todo).delete({ id: todo.id }));
  await orm.close();
};

handler();
