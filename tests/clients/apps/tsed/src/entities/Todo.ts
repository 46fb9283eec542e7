import { defineEntity, p } from "@mikro-orm/core";

export const Todo = defineEntity({
  name: "Todo",
  tableName: "todo",
  properties: {
    id: p.integer().primary(),
    task: p.text(),
    isCompleted: p.boolean().default(false),
  },
});
