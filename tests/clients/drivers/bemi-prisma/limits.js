// What the package does, whichever triggers there are.
const assert = require("node:assert/strict");
const { PrismaPg, setBemiContext, withBemiExtension } = require("@bemi-db/prisma");
const { PrismaClient } = require("./generated/prisma");

const adapter = new PrismaPg({ connectionString: process.env.DATABASE_URL, max: 5 });
const prisma = withBemiExtension(new PrismaClient({ adapter }));

async function main() {
  // A write leaves the transaction that it is called in.
  setBemiContext({ user_id: 4 });
  const failed = prisma.$transaction(async (tx) => {
    await tx.todo.create({ data: { task: "Not taken back" } });
    throw new Error("rolled back");
  });
  await assert.rejects(failed, /rolled back/);

  await prisma.$executeRawUnsafe("INSERT INTO todo (task) VALUES ('Without a context')");

  // The end of the comment in a value: what follows is SQL.
  setBemiContext({ name: "*/ OR true --" });
  await prisma.todo.deleteMany({ where: { task: "No such task" } });
  assert.equal(await prisma.todo.count(), 0);
}

main()
  .catch((error) => {
    console.error(error);
    process.exitCode = 1;
  })
  .finally(() => prisma.$disconnect());
