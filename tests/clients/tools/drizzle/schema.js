import { boolean, pgTable, serial, text } from "drizzle-orm/pg-core";

export const todo = pgTable("todo", {
  id: serial().primaryKey(),
  task: text().notNull(),
  isCompleted: boolean("is_completed").notNull().default(false),
  // What a developer adds next.
  ...(process.env.NEXT && { note: text() }),
});
