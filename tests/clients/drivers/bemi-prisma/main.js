const assert = require("node:assert/strict");
const { PrismaPg, bemiMiddleware, setBemiContext, withBemiExtension } = require("@bemi-db/prisma");
const { randomUUID } = require("node:crypto");
const http = require("node:http");
const { PrismaClient } = require("./generated/prisma");

const connect = (options) => {
  const adapter = new PrismaPg({ connectionString: process.env.DATABASE_URL, max: 5 });
  return withBemiExtension(new PrismaClient({ adapter }), options);
};
const prisma = connect();
const withQuery = connect({ injectSqlInContext: true });

const middleware = bemiMiddleware((request) => ({ userId: request.user?.id, endpoint: request.url }));

// Stands for the app's own authentication.
const sessions = new Map();
const logIn = (id) => {
  const token = randomUUID();
  sessions.set(token, { id });
  return token;
};

const server = http.createServer((request, response) => {
  request.user = sessions.get(request.headers.authorization);
  middleware(request, response, async () => {
    const task = new URL(request.url, "http://localhost").searchParams.get("task");
    await new Promise((resolve) => setTimeout(resolve, 5 * Math.random()));
    const todo = await prisma.todo.create({ data: { task } });
    response.end(JSON.stringify(todo));
  });
});

async function main() {
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const base = `http://127.0.0.1:${server.address().port}`;
  const create = async (user, task) => {
    const response = await fetch(`${base}/todo?task=${task}`, { headers: { authorization: logIn(user) } });
    return response.json();
  };

  // Over HTTP, by the middleware: one request, and 40 at once of different users over 5 connections.
  const todo = await create(1, "Sleep");
  await Promise.all(Array.from({ length: 40 }, (_, user) => create(user, `request-${user}`)));

  // What the package calls a write. (upsert is not implemented in the query compiler of Prisma 6.7.)
  setBemiContext({ user_id: 2, name: 'Zoë\'s "2nd"' });
  await prisma.todo.createMany({ data: [{ task: "Eat" }, { task: "Repeat" }] });
  await prisma.todo.update({ where: { id: todo.id }, data: { isCompleted: true } });
  await prisma.todo.updateMany({ where: { task: { in: ["Eat", "Repeat"] } }, data: { isCompleted: true } });
  setBemiContext({ user_id: 3 });
  await prisma.todo.deleteMany({ where: { task: { in: ["Eat", "Repeat"] } } });
  await prisma.todo.delete({ where: { id: todo.id } });
  await withQuery.todo.create({ data: { task: "With its query" } });
  await prisma.$executeRaw`UPDATE todo SET task = 'By raw SQL' WHERE task = 'With its query'`;

  // Without a context.
  setBemiContext(undefined);
  await prisma.todo.deleteMany();
}

main()
  .catch((error) => {
    console.error(error);
    process.exitCode = 1;
  })
  .finally(async () => {
    server.close();
    server.closeAllConnections();
    await prisma.$disconnect();
    await withQuery.$disconnect();
  });
