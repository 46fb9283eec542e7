import { bemiContext } from "bemi/typeorm";
import { AppDataSource } from "./data-source.js";
import { Todo } from "./entity/Todo.js";

const MyWorker = async () => {
  const todos = AppDataSource.getRepository(Todo);

  bemiContext({ worker: "MyWorker", stage: "calculate" });
  const todo = await todos.save({ task: "worker" });

  bemiContext({ worker: "MyWorker", stage: "store" });
  await todos.update(todo.id, { isCompleted: true });

  // A query that begins when it is awaited.
  await bemiContext({ worker: "MyWorker", stage: "end" }, () => ({ then: (done: () => void) => todos.delete(todo.id).then(done) }));
};

AppDataSource.initialize()
  .then(MyWorker)
  .then(() => AppDataSource.destroy());
