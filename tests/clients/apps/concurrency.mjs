import assert from "node:assert/strict";
import { test } from "node:test";
import { canonical, contextsWithoutSQL } from "./contexts.mjs";

/** What a user does, and the changes that it makes: what happens to a row, and the keys of the context beside the request's. */
const kinds = {
  async create(user) {
    const context = await user.send("POST", "/todo", { task: user.task("create") });
    user.expect(context, "CREATE");
  },
  async complete(user) {
    const created = await user.send("POST", "/todo", { task: user.task("to complete") });
    await user.read();
    const context = await user.send("PUT", "/todo/complete", { id: user.answer.id });
    user.expect(created, "CREATE");
    user.expect(context, "UPDATE");
  },
  async remove(user) {
    const created = await user.send("POST", "/todo", { task: user.task("to remove") });
    const context = await user.send("DELETE", `/todo/${user.answer.id}`, {});
    user.expect(created, "CREATE");
    user.expect(context, "DELETE");
  },
  async retry(user) {
    const context = await user.send("POST", "/todo/retry", { task: user.task("retry") });
    user.expect(context, "CREATE", "UPDATE");
  },
  async parallel(user) {
    const tasks = ["a", "b", "c"].map((part) => user.task(`parallel ${part}`));
    const context = await user.send("POST", "/todo/parallel", { tasks });
    user.expect(context, "CREATE", "CREATE", "CREATE");
  },
  async bulk(user) {
    const tasks = ["a", "b", "c"].map((part) => user.task(`bulk ${part}`));
    const context = await user.send("POST", "/todo/bulk", { tasks });
    user.expect(context, "CREATE", "CREATE", "CREATE");
  },
  async raw(user) {
    const context = await user.send("POST", "/todo/raw", { task: user.task("raw") });
    user.expect(context, "CREATE");
  },
  async callback(user) {
    const context = await user.send("POST", "/todo/callback", { task: user.task("callback") });
    user.expect(context, "CREATE");
  },
  async named(user) {
    const context = await user.send("POST", "/todo/named", { task: user.task("named") });
    user.expect(context, "CREATE");
  },
  async savepoint(user) {
    const context = await user.send("POST", "/todo/savepoint", { task: user.task("savepoint") });
    user.expect({ userId: user.id, isNamed: false }, "CREATE");
    for (const step of ["first", "second", "third"]) user.expect({ ...context, step }, "CREATE");
  },
  async worker(user) {
    await user.send("POST", "/todo/worker", { task: user.task("worker"), userId: user.id });
    const context = (rest) => ({ ...rest, userId: user.id });
    user.expect(context({ worker: "MyWorker", stage: "calculate" }), "CREATE");
    user.expect(context({ worker: "MyWorker", stage: "store" }), "UPDATE", "CREATE");
    user.expect(context({ worker: "Inner" }), "CREATE");
  },
  async anonymous(user) {
    await user.send("POST", "/anonymous", { task: user.task("anonymous") });
    user.expect({}, "CREATE");
  },
  async read(user) {
    await user.read();
  },
};

class User {
  expected = [];

  constructor(app, id) {
    this.app = app;
    this.id = id;
  }

  task(what) {
    return `user ${this.id}: ${what}`;
  }

  /** Sends a request; returns the context that it has. */
  async send(method, endpoint, body) {
    const params = { ...body, sentBy: this.id };
    this.answer = await this.app.call(method, endpoint, { user: this.id, body: params });
    return { endpoint, params, userId: this.id };
  }

  async read() {
    await this.app.call("GET", "/todo", { user: this.id });
  }

  expect(context, ...operations) {
    for (const operation of operations) this.expected.push(`${operation} ${canonical(context)}`);
  }
}

export function testConcurrency(suite) {
  test("200 concurrent users over 5 connections: every change carries the context of the request that made it", async () => {
    const { app } = suite;
    const names = Object.keys(kinds).filter((kind) => !suite.without?.includes(kind));
    const users = Array.from({ length: 200 }, (_, i) => new User(app, 1001 + i));
    const { changes, background } = await app.changesOf(async () => {
      const done = await Promise.allSettled(users.map((user, i) => kinds[names[i % names.length]](user)));
      for (const { status, reason } of done) if (status === "rejected") throw reason;
    });

    assert.equal(app.most, users.length);
    const found = new Map(users.map(({ id }) => [id, []]));
    for (const { task, operation, context } of contextsWithoutSQL(changes, suite)) {
      assert.doesNotMatch(task, /rolled back/);
      const id = Number(/^user (\d+): /.exec(task)[1]);
      const author = task.endsWith("anonymous") ? undefined : id;
      assert.equal(context.userId, author, `${operation} of "${task}" has the context ${JSON.stringify(context)}`);
      found.get(id).push(`${operation} ${canonical(context)}`);
    }
    for (const { id, expected } of users) assert.deepEqual(found.get(id).sort(), expected.sort(), `user ${id}`);
    assert.ok(changes.length > 250);

    assert.ok(background.length >= 3, `the timer wrote ${background.length} times`);
    for (const { context } of background) assert.deepEqual(context, {});
  });
}
