import assert from "node:assert/strict";
import { PrismaPg } from "@prisma/adapter-pg";
import { Prisma, PrismaClient } from "./generated/prisma/client";

const bemi = Prisma.defineExtension((client) =>
  client.$extends({
    client: {
      $withContext<T>(context: object, work: (tx: Prisma.TransactionClient) => Promise<T>) {
        return client.$transaction(async (tx) => {
          await tx.$executeRaw`SELECT bemi.set_context(${JSON.stringify(context)}, true)`;
          return work(tx as Prisma.TransactionClient);
        });
      },
    },
  }),
);

const adapter = new PrismaPg({ connectionString: process.env.DATABASE_URL, max: 1 });
const prisma = new PrismaClient({ adapter }).$extends(bemi);

async function backend() {
  const [{ pid }] = await prisma.$queryRaw<[{ pid: number }]>`SELECT pg_backend_pid() AS pid`;
  return pid;
}
const first = await backend();

// Two users, one after the other, on the only connection of the pool.
await prisma.$withContext({ user_id: 1 }, async (tx) => {
  await tx.todo.create({ data: { task: "Sleep" } });
  await tx.todo.create({ data: { task: "Eat" } });
});
await prisma.$withContext({ user_id: 2, name: 'Zoë\'s "2nd" */' }, (tx) =>
  tx.todo.updateMany({ where: { task: "Sleep" }, data: { isCompleted: true } }),
);

// What follows a rollback has no context.
const failed = prisma.$withContext({ user_id: 3 }, async (tx) => {
  await tx.todo.create({ data: { task: "Lost" } });
  throw new Error("rolled back");
});
await assert.rejects(failed, /rolled back/);
await prisma.todo.create({ data: { task: "After a rollback" } });

// A savepoint that is rolled back puts back the context from before it.
await prisma.$withContext({ user_id: 4 }, async (tx) => {
  await tx.$executeRaw`SAVEPOINT attempt`;
  await tx.$executeRaw`SELECT bemi.merge_context(${JSON.stringify({ step: 1 })}, true)`;
  await tx.todo.create({ data: { task: "Lost" } });
  await tx.$executeRaw`ROLLBACK TO SAVEPOINT attempt`;
  await tx.todo.create({ data: { task: "After a savepoint" } });
});

// Many rows at once.
await prisma.$withContext({ user_id: 5 }, (tx) =>
  tx.todo.createMany({ data: [{ task: "Bulk 1" }, { task: "Bulk 2" }] }),
);

// A list of calls in one transaction.
await prisma.$transaction([
  prisma.$executeRaw`SELECT bemi.set_context(${{ user_id: 6 }}, true)`,
  prisma.todo.create({ data: { task: "Listed" } }),
  prisma.todo.delete({ where: { id: 1 } }),
]);
await prisma.todo.create({ data: { task: "After the list" } });

// $queryRaw cannot read a result of type void.
const attempt = prisma.$queryRaw`SELECT bemi.set_context('{}', true)`;
await assert.rejects(attempt, /void/);

assert.equal(await backend(), first);
await prisma.$disconnect();
