import assert from "node:assert/strict";
import { once } from "node:events";
import { Agent, createServer, type IncomingMessage, request } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import fc from "fast-check";
import { bemiContext, currentBemiContext, mergeBemiContext, middleware } from "../src/context.js";
import { encode, MAX_CONTEXT_SIZE, withStatement } from "../src/json.js";

const warnings: string[] = [];
process.on("warning", (warning) => warnings.push((warning as Error & { code?: string }).code ?? ""));

test("any object comes back as JSON has it, with U+FFFD for what jsonb does not know", () => {
  fc.assert(
    fc.property(fc.dictionary(fc.string({ unit: "binary" }), fc.jsonValue()), (context) => {
      const json = encode(context);
      const known = (text: string) => text.replace(/\0/g, "\ufffd").toWellFormed();
      const expected = JSON.parse(JSON.stringify(context), (_key, value) =>
        typeof value === "string" ? known(value)
        : value && typeof value === "object" && !Array.isArray(value)
          ? Object.fromEntries(Object.entries(value).map(([k, v]) => [known(k), v]))
          : value,
      );
      assert.deepEqual(JSON.parse(json), expected);
      assert.ok(!/\\u(?:0000|d[89a-f])/.test(json.replaceAll("\\\\", "")));
    }),
    { numRuns: 3000 },
  );
  assert.equal(encode({ a: "\ud800\\u0000\0😀", b: 12n, c: 2n ** 70n }), '{"a":"\ufffd\\\\u0000\ufffd😀","b":12,"c":"1180591620717411303424"}');
});

test("what is no object is refused, and says so", () => {
  for (const wrong of ["text", 7, [1], () => 1, new Map([["a", 1]]), new Set([1])]) assert.throws(() => encode(wrong as object), /A context is an object such as/);
  assert.throws(() => encode(new Date()), /what its toJSON\(\) gives/);
  assert.throws(() => mergeBemiContext("abc" as unknown as object), /a string/);
  bemiContext({ a: 1 }, () => {
    mergeBemiContext({ toJSON: () => ({ b: 2 }) });
    assert.deepEqual(currentBemiContext(), { a: 1, b: 2 });
  });
});

test("where nothing can be read, the server is told so, with one warning", async () => {
  const revoked = Proxy.revocable({}, {});
  revoked.revoke();
  for (let i = 0; i < 2; i++) assert.match(encode(revoked.proxy), /^\{"bemi_invalid_context":"Cannot perform/);
  await sleep(1);
  assert.deepEqual(warnings, ["BEMI_NOT_JSON"]);
});

test("the statement is added under SQL, and cut where it would be too long", () => {
  assert.equal(withStatement("{}", 'INSERT "a"'), '{"SQL":"INSERT \\"a\\""}');
  assert.equal(withStatement('{"a":1}', "b"), '{"a":1,"SQL":"b"}');
  assert.equal(withStatement('{"a":1}', "/* x */"), '{"a":1,"SQL":"/\\u002a x \\u002a/"}');
  const full = encode({ a: "x".repeat(MAX_CONTEXT_SIZE - 10) });
  assert.equal(withStatement(full, "INSERT"), full);
  const long = withStatement('{"a":1}', "é\0".repeat(MAX_CONTEXT_SIZE));
  assert.ok(Buffer.byteLength(long) <= MAX_CONTEXT_SIZE && JSON.parse(long).SQL.startsWith("é\ufffdé"));
});

test("a context holds for its own asynchronous execution alone", async () => {
  assert.equal(currentBemiContext(), undefined);
  const seen: unknown[] = [];
  const request = async (user: number) => {
    await sleep(Math.random() * 5);
    seen.push([user, currentBemiContext()]);
    mergeBemiContext({ step: user });
    await Promise.all([sleep(Math.random() * 5), (async () => bemiContext({ branch: user }, () => sleep(1)))()]);
    seen.push([user, currentBemiContext()]);
    bemiContext({ replaced: user });
    await sleep(Math.random() * 5);
    seen.push([user, currentBemiContext()]);
    bemiContext(null);
    seen.push([user, currentBemiContext()]);
  };
  const handle = middleware((user: number) => ({ user }));
  await Promise.all(
    Array.from({ length: 100 }, (_, user) => new Promise<void>((resolve, reject) => handle(user, {}, () => void request(user).then(resolve, reject)))),
  );
  assert.equal(seen.length, 400);
  for (let user = 0; user < 100; user++) {
    const own = (seen as [number, unknown][]).filter(([who]) => who === user).map(([, context]) => context);
    assert.deepEqual(own, [{ user }, { user, step: user }, { replaced: user }, undefined]);
  }
  assert.equal(currentBemiContext(), undefined);
});

test("a context that is set in a scope without one does not leave it", () => {
  bemiContext(null, () => {
    bemiContext(null, () => bemiContext({ job: 1 }));
    assert.equal(currentBemiContext(), undefined);
  });
  assert.equal(currentBemiContext(), undefined);
});

test("requests of one connection do not see what another has set outside of a middleware", async () => {
  const handle = middleware((request: IncomingMessage) => {
    if (request.url === "/broken") throw new Error("no session");
    return null;
  });
  const server = createServer((request, response) => {
    const answer = () => response.end(JSON.stringify(currentBemiContext() ?? null));
    if (request.url === "/plain") return void answer();
    handle(request, response, () => {
      if (request.url === "/login") bemiContext({ user: "alice" });
      answer();
    });
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const get = (path: string) =>
    new Promise<string>((resolve, reject) => {
      const port = (server.address() as AddressInfo).port;
      request({ port, host: "127.0.0.1", path, agent }, async (response) => {
        let body = "";
        for await (const chunk of response) body += chunk;
        resolve(body);
      }).on("error", reject).end();
    });
  const seen = [];
  for (const path of ["/login", "/broken", "/login", "/plain", "/other", "/plain"]) seen.push(await get(path));
  agent.destroy();
  server.close();
  assert.deepEqual(seen, ['{"user":"alice"}', "null", '{"user":"alice"}', "null", "null", "null"]);
});

test("a middleware leaves out secrets wherever they stand, and what it is told besides; or nothing", () => {
  const request = {
    userId: 7, endpoint: "/login", authorization: "Bearer x",
    params: { name: "Ann", password: "p", hasPassword: true, card: { Iban: "DE", cvc: 123 }, tokens: ["a"], at: new Date(0), list: [{ apiKey: "k" }] },
    entity: { toJSON: () => ({ secret: "s", task: "Sleep" }) },
  };
  const seen = (options?: object): unknown => {
    let context;
    middleware(() => request, options)({}, {}, () => (context = currentBemiContext()));
    return context;
  };
  const expected = {
    userId: 7, endpoint: "/login", authorization: "[omitted]",
    params: {
      name: "Ann", password: "[omitted]", hasPassword: true, card: { Iban: "DE", cvc: "[omitted]" }, tokens: "[omitted]",
      at: "1970-01-01T00:00:00.000Z", list: [{ apiKey: "[omitted]" }],
    },
    entity: { secret: "[omitted]", task: "Sleep" },
  };
  assert.deepEqual(seen(), expected);
  assert.deepEqual(seen({ omitSecrets: true }), expected);
  expected.params.card.Iban = "[omitted]";
  assert.deepEqual(seen({ omitSecrets: ["iban"] }), expected);
  assert.deepEqual(seen({ omitSecrets: false }), JSON.parse(JSON.stringify(request)));
});

test("a secret that is too much is left out all the same, and one that cannot be read fails no request", () => {
  const params: Record<string, unknown> = { password: "x".repeat(1_000_000), get token() { throw new Error("no"); } };
  let deep: unknown = { secret: 1 };
  for (let i = 0; i < 100_000; i++) deep = { deep };
  const errors: unknown[] = [];
  middleware(() => ({ userId: 7, params, deep }))({}, {}, (error) => {
    errors.push(error);
    const context = currentBemiContext() as { userId: number; params: object; bemi_omitted: object };
    assert.equal(context.userId, 7);
    assert.deepEqual(context.params, { password: "[omitted]" });
    assert.ok("params.token" in context.bemi_omitted);
  });
  assert.deepEqual(errors, [undefined]);
});

test("what is changed in an object later is not seen", () => {
  const context = { list: [1] };
  bemiContext(context, () => {
    context.list.push(2);
    assert.deepEqual(currentBemiContext(), { list: [1] });
    (currentBemiContext() as typeof context).list.push(3);
    assert.deepEqual(currentBemiContext(), { list: [1] });
  });
});

test("a middleware waits for a context that takes time", async () => {
  const handle = middleware(async (user: number) => (user < 0 ? Promise.reject(new RangeError("no")) : { user: await sleep(1, user) }));
  const seen = await new Promise((resolve) => handle(7, {}, (error) => resolve([error, currentBemiContext()])));
  assert.deepEqual(seen, [undefined, { user: 7 }]);
  const [error, context] = await new Promise<unknown[]>((resolve) => handle(-1, {}, (error) => resolve([error, currentBemiContext()])));
  assert.ok(error instanceof RangeError && context === undefined);
  assert.throws(() => bemiContext(Promise.resolve({})), /a promise/);
});

test("a middleware hands on what its function throws", () => {
  const errors: unknown[] = [];
  middleware(() => { throw new RangeError("no"); })({}, {}, (error) => errors.push(error));
  middleware(() => "text" as unknown as object)({}, {}, (error) => errors.push(error));
  middleware(() => undefined)({}, {}, (error) => errors.push(error, currentBemiContext()));
  assert.ok(errors[0] instanceof RangeError && errors[1] instanceof TypeError);
  assert.deepEqual(errors.slice(2), [undefined, undefined]);
});
