import { Body, Controller, Delete, Get, Param, Post, Put } from "@nestjs/common";
import { InjectRepository } from "@nestjs/typeorm";
import { setTimeout as sleep } from "node:timers/promises";
import { DataSource, Repository } from "typeorm";
import { Todo } from "./todo.entity.js";

@Controller("todo")
export class TodoController {
  constructor(
    @InjectRepository(Todo) private readonly todos: Repository<Todo>,
    private readonly dataSource: DataSource,
  ) {}

  @Get()
  findAll() {
    return this.todos.find({ order: { id: "DESC" }, take: 20 });
  }

  @Post()
  create(@Body() { task, isCompleted = false }: { task: string; isCompleted?: boolean }) {
    return this.todos.save({ task, isCompleted });
  }

  @Put("complete")
  async complete(@Body() { id }: { id: number }) {
    await this.todos.update(id, { isCompleted: true });
    return { id };
  }

  @Delete(":id")
  async remove(@Param("id") id: string) {
    await this.todos.delete(id);
    return { id };
  }

  // The first attempt writes, waits and is rolled back.
  @Post("retry")
  retry(@Body() { task }: { task: string }) {
    const attempt = (failing: boolean) =>
      this.dataSource.transaction(async (manager) => {
        const todo = await manager.save(Todo, { task: `${task}${failing ? " rolled back" : ""}` });
        await sleep(Math.random() * 10);
        await manager.update(Todo, todo.id, { isCompleted: true });
        if (failing) throw new Error("try again");
        return todo;
      });
    return attempt(true).catch(() => attempt(false));
  }

  @Post("parallel")
  parallel(@Body() { tasks }: { tasks: string[] }) {
    return Promise.all(tasks.map((task) => this.todos.save({ task })));
  }

  @Post("bulk")
  async bulk(@Body() { tasks }: { tasks: string[] }) {
    const result = await this.todos.insert(tasks.map((task) => ({ task })));
    return result.identifiers;
  }

  @Post("raw")
  raw(@Body() { task }: { task: string }) {
    return this.dataSource.query("INSERT INTO todo (task) VALUES ($1) RETURNING *;", [task]);
  }
}
