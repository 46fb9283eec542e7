import type { EntityManager } from "@mikro-orm/postgresql";
import { Controller } from "@tsed/di";
import { Em, Transactional } from "@tsed/mikro-orm";
import { BodyParams, PathParams } from "@tsed/platform-params";
import { Delete, Get, Post, Put } from "@tsed/schema";
import { setTimeout as sleep } from "node:timers/promises";
import { Todo } from "../entities/Todo.js";

@Controller("/todo")
export class TodoController {
  @Em()
  private readonly em!: EntityManager;

  @Get("/")
  findAll() {
    return this.em.findAll(Todo, { orderBy: { id: "desc" }, limit: 20 });
  }

  @Post("/")
  @Transactional()
  async create(@BodyParams("task") task: string, @BodyParams("isCompleted") isCompleted = false) {
    const todo = this.em.create(Todo, { task, isCompleted });
    await this.em.flush();
    return todo;
  }

  @Put("/complete")
  async complete(@BodyParams("id") id: number) {
    const todo = await this.em.findOneOrFail(Todo, id);
    todo.isCompleted = true;
    await this.em.flush();
    return todo;
  }

  @Delete("/:id")
  async remove(@PathParams("id") id: number) {
    await this.em.nativeDelete(Todo, id);
    return { id };
  }

  // The first attempt writes, waits and is rolled back.
  @Post("/retry")
  retry(@BodyParams("task") task: string) {
    const attempt = (failing: boolean) =>
      this.em.fork().transactional(async (em) => {
        const todo = em.create(Todo, { task: `${task}${failing ? " rolled back" : ""}` });
        await em.flush();
        await sleep(Math.random() * 10);
        todo.isCompleted = true;
        await em.flush();
        if (failing) throw new Error("try again");
        return todo;
      });
    return attempt(true).catch(() => attempt(false));
  }

  @Post("/parallel")
  parallel(@BodyParams("tasks") tasks: string[]) {
    return Promise.all(tasks.map((task) => this.em.fork().insert(Todo, { task })));
  }

  @Post("/bulk")
  bulk(@BodyParams("tasks") tasks: string[]) {
    return this.em.insertMany(Todo, tasks.map((task) => ({ task })));
  }

  @Post("/raw")
  raw(@BodyParams("task") task: string) {
    return this.em.execute("insert into todo (task) values (?) returning *;", [task]);
  }
}
