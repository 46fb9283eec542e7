import { PrismaPg } from "@prisma/adapter-pg";
import pg from "pg";
import { bemiContext, instrument } from "bemi/pg";
import { Prisma, PrismaClient } from "./generated/prisma/client";

instrument(pg);
const adapter = new PrismaPg({ connectionString: process.env.DATABASE_URL, max: 4 });
const prisma = new PrismaClient({ adapter });

// A call begins when it is awaited; the package has it begin inside.
await bemiContext({ user_id: 1 }, () => prisma.todo.create({ data: { task: "Write" } }));

await bemiContext({ user_id: 2, name: "*/ Bemi*/; DROP TABLE todo; -- $1" }, () =>
  prisma.$transaction(async (tx) => {
    await tx.todo.createMany({ data: [{ task: "Draw" }, { task: "Sing" }] });
    await tx.todo.updateMany({ where: { task: "Draw" }, data: { isCompleted: true } });
  }),
);
const lost = bemiContext({ user_id: 3 }, () =>
  prisma.$transaction(async (tx) => {
    await tx.todo.create({ data: { task: "Lost" } });
    throw new Error("rolled back");
  }),
);
await lost.catch((error) => {
  if (error.message !== "rolled back") throw error;
});

const { id } = await bemiContext({ user_id: 4 }, () => prisma.todo.create({ data: { task: "Drive" } }));
const upsert = { where: { id }, create: { task: "New" }, update: { task: "Upserted" } } satisfies Prisma.TodoUpsertArgs;
await bemiContext({ user_id: 5 }, () => prisma.todo.upsert(upsert));
await bemiContext({ user_id: 6 }, () =>
  prisma.$transaction([
    prisma.$executeRaw`INSERT INTO todo (task) VALUES (${"Raw, in a list"})`,
    prisma.todo.delete({ where: { id } }),
  ]),
);
await prisma.todo.create({ data: { task: "Nobody, of the package" } });

// 20 requests at once, each of a user of its own. run.sh looks at what was recorded of them.
await Promise.all(
  Array.from({ length: 20 }, (_, user_id) =>
    bemiContext({ user_id }, async () => {
      await prisma.todo.create({ data: { task: `Crowd ${user_id}` } });
      await prisma.todo.create({ data: { task: `Crowd ${user_id}` } });
    }),
  ),
);
await prisma.$disconnect();
