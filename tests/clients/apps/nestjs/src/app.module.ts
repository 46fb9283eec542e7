import { Module } from "@nestjs/common";
import { TypeOrmModule } from "@nestjs/typeorm";
import { Change } from "bemi/typeorm";
import { ChangesController } from "./changes.controller.js";
import { options } from "./data-source.js";
import { TodoController } from "./todo.controller.js";
import { Todo } from "./todo.entity.js";

@Module({
  imports: [
    TypeOrmModule.forRoot(options),
    TypeOrmModule.forRoot({ name: "bemi", type: "postgres", url: process.env.DATABASE_URL, entities: [Change] }),
    TypeOrmModule.forFeature([Todo]),
    TypeOrmModule.forFeature([Change], "bemi"),
  ],
  controllers: [TodoController, ChangesController],
})
export class AppModule {}
