import { Entity, type Opt, PrimaryKey, Property } from "@mikro-orm/core";

@Entity()
export class Todo {
  @PrimaryKey({ type: "integer" })
  id!: number;

  @Property({ type: "text" })
  task!: string;

  @Property({ type: "boolean", default: false })
  isCompleted: boolean & Opt = false;
}
