import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { comment } from "../src/comment.js";
import { bemiContext, currentBemiContext, mergeBemiContext } from "../src/context.js";
import { fit } from "../src/fit.js";
import { encode, inAscii, MAX_CONTEXT_SIZE, MAX_MEMBERS } from "../src/json.js";
import { secretsOf } from "../src/secrets.js";
import { small as written } from "../src/small.js";

type Json = Record<string, any>;

/** How deep a value nests, and how many members and elements it has. */
const measured = (value: unknown): { depth: number; members: number } => {
  if (typeof value !== "object" || value === null) return { depth: 0, members: 0 };
  const parts = Object.values(value).map(measured);
  return {
    depth: 1 + parts.reduce((deepest, { depth }) => Math.max(deepest, depth), 0),
    members: parts.reduce((sum, { members }) => sum + members + 1, 0),
  };
};

/** What is encoded, which is checked to be within what the server takes. */
const encoded = (context: object): Json => {
  const json = encode(context);
  const parsed = JSON.parse(json) as Json;
  const { depth, members } = measured(parsed);
  assert.ok(Buffer.byteLength(json) <= MAX_CONTEXT_SIZE && MAX_CONTEXT_SIZE <= 48 * 1024, `${json.length} characters`);
  assert.ok(members <= MAX_MEMBERS && MAX_MEMBERS <= 1000, `${members} members`);
  assert.ok(depth <= 127, `${depth} levels`);
  assert.ok(!/\\u(?:0000|d[89a-f])/i.test(json.replaceAll("\\\\", "")) && json.isWellFormed());
  assert.ok(Buffer.byteLength(inAscii(json)) <= MAX_CONTEXT_SIZE);
  assert.equal(encode(context), json);
  return parsed;
};

const nested = (levels: number): unknown => JSON.parse("[".repeat(levels) + "]".repeat(levels));

test("a body that is too long or too deep does not take the user away", () => {
  const request = (params: object): object => ({ endpoint: "/todo", params, userId: 187234 });
  assert.deepEqual(encoded(request({ pad: "p".repeat(1_000_001) })), {
    endpoint: "/todo", params: {}, userId: 187234, bemi_omitted: { "params.pad": "longer than the limit" },
  });
  const deep = encoded(request({ pad: "p".repeat(1000), x: nested(130) }));
  assert.equal(deep["params"].pad.length, 1000);
  assert.equal(deep["userId"], 187234);
  assert.match(Object.keys(deep["bemi_omitted"]).join(), /^params\.x\.0\.0/);
  assert.deepEqual(Object.values(deep["bemi_omitted"]), ["deeper than the limit"]);
});

test("of a large body, the largest part is left out", () => {
  const context = { userId: 1, params: { name: "Ann", photo: "x".repeat(40_000), note: "y".repeat(20_000), tags: ["a"] } };
  assert.deepEqual(encoded(context), {
    userId: 1, params: { name: "Ann", note: context.params.note, tags: ["a"] },
    bemi_omitted: { "params.photo": "longer than the limit" },
  });
  const list = { userId: 1, params: { list: ["a", "x".repeat(60_000), "b"], ids: Array(2000).fill(1) } };
  assert.deepEqual(encoded(list), {
    userId: 1, params: { list: ["a", null, "b"] },
    bemi_omitted: { "params.list.1": "longer than the limit", "params.ids": "more members than the limit" },
  });
});

test("what fits is whole, and is what JSON.stringify writes", () => {
  fc.assert(
    fc.property(fc.dictionary(fc.string(), fc.jsonValue()), (context) => {
      assert.deepEqual(encoded(context), JSON.parse(JSON.stringify(context).replaceAll("\\u0000", "\ufffd")));
    }),
    { numRuns: 1000 },
  );
  const odd = {
    a: undefined, b: () => 1, c: Symbol("c"), d: NaN, e: new Date(0), f: [undefined, () => 1], g: new Number(7),
    h: Object("text"), i: new Map([[1, 2]]), j: Buffer.from("ab"), k: Object(false), l: [, 1], m: { toJSON: (key: string) => key },
  };
  assert.equal(encode(odd), JSON.stringify(odd));
});

test("what cannot be written is left out and named, and the rest stays", () => {
  const circular: Json = { name: "c" };
  circular["self"] = circular;
  const revoked = Proxy.revocable({}, {});
  revoked.revoke();
  const thrown = [Object.create(null), Object.assign(new Error(), { message: 7 }), Symbol("no"), "text"];
  for (const error of thrown) {
    const fail = (): never => { throw error; };
    const reason = "circular, or cannot be read";
    const context = {
      get getter(): number { return fail(); }, json: { toJSON: fail }, proxy: revoked.proxy, circular,
      list: [circular, 1], big: 2n ** 70n, userId: 7n,
    };
    assert.deepEqual(encoded(context), {
      circular: { name: "c" }, list: [{ name: "c" }, 1], big: "1180591620717411303424", userId: 7,
      bemi_omitted: {
        getter: reason, json: reason, proxy: reason, "circular.self": reason, "list.0.self": reason,
      },
    });
  }
  assert.deepEqual(encoded({ userId: 7, toJSON: () => { throw new Error("no"); } }), { userId: 7 });
});

const heavy = fc.oneof(
  fc.integer({ min: 10_000, max: 200_000 }).map((n) => "*/é\0\ud800\"x".repeat(n / 8)),
  fc.integer({ min: 100, max: 5000 }).map((n) => Array.from({ length: n }, (_, i) => i)),
  fc.integer({ min: 100, max: 5000 }).map((n) => Object.fromEntries(Array.from({ length: n }, (_, i) => [`k${i}`, i]))),
  fc.integer({ min: 100, max: 2000 }).map((n) => ({ deep: nested(n) })),
  fc.integer({ min: 2, max: 60 }).map((n) => Array(n).fill({ text: "y".repeat(5000), list: Array(30).fill(1) })),
  fc.constant([1e300, -1e-300]).map((numbers) => Array(400).fill(numbers)),
  fc.constant(() => { const c: Json = {}; c["c"] = [c]; return c; }).map((make) => make()),
);
const small = fc.oneof(fc.string({ maxLength: 20 }), fc.integer(), fc.boolean(), fc.constant(null));

test("whatever else there is, each small member of a context stays, and what goes is named", () => {
  const name = fc.stringMatching(/^[a-z]{1,8}$/);
  fc.assert(
    fc.property(
      fc.dictionary(name, small, { maxKeys: 10 }), fc.dictionary(name.map((n) => `${n}_large`), fc.letrec((tie) => ({
        value: fc.oneof({ maxDepth: 3 }, heavy, fc.dictionary(name, tie("value"), { maxKeys: 4 }), small),
      })).value, { maxKeys: 5 }), (few, large) => {
        const context: Json = { ...large, ...few, userId: 187234 };
        const known = encoded(context);
        for (const [key, value] of Object.entries<unknown>({ ...few, userId: 187234 })) {
          assert.deepEqual(known[key], typeof value === "string" ? value.replaceAll("\0", "\ufffd") : value);
        }
        const named = Object.keys(known["bemi_omitted"] ?? {});
        for (const key of Object.keys(large)) assert.ok(key in known || named.includes(key) || named.includes("(others)"), key);
        if (named.length === 0) assert.equal(encode(context), encode(JSON.parse(JSON.stringify(context))));
      },
    ),
    { numRuns: 300 },
  );
});

test("a text, a name or a number that is longer for the server is measured as such", () => {
  assert.deepEqual(encoded({ a: "*/".repeat(20_000), user: 1 }), { user: 1, bemi_omitted: { a: "longer than the limit" } });
  assert.deepEqual(encoded({ ["k".repeat(60_000)]: 1, user: 1 })["user"], 1);
  assert.deepEqual(Object.keys(encoded({ numbers: Array(300).fill(1e300), user: 1 })), ["user", "bemi_omitted"]);
  const accented = encode({ user: 1, a: "é".repeat(20_000) });
  assert.equal(Buffer.byteLength(accented), 40_017);
  assert.equal(inAscii(accented), '{"user":1,"bemi_omitted":{"a":"longer than the limit"}}');
  assert.equal(comment(accented, false), '/*Bemi {"user":1,"bemi_omitted":{"a":"longer than the limit"}} Bemi*/');
});

test("a small context is written at once, as it is written otherwise", () => {
  const escape = (json: string): string => json.replaceAll("*", "\\u002a");
  const isSecret = secretsOf([]);
  const limits = { size: 48_000, members: 899 };
  const contexts = fc.dictionary(fc.oneof(fc.string({ unit: "binary" }), fc.constantFrom("password", "token", "__proto__", "toJSON", "bemi_omitted")), fc.anything({
    key: fc.constantFrom("a", "secret", "pin", "*/", "then"), withBigInt: true, withDate: true, withMap: true, withSparseArray: true, withTypedArray: true,
    withNullPrototype: true, withBoxedValues: true, withObjectString: true,
  }));
  let count = 0;
  fc.assert(fc.property(contexts, fc.boolean(), (context, hides) => {
    const json = written(context, escape, hides ? isSecret : undefined);
    if (json === undefined) return;
    count++;
    assert.equal(json, fit(context, limits, escape, Buffer.byteLength, hides ? isSecret : undefined).json);
  }), { numRuns: 5000 });
  assert.ok(count > 500, String(count));
  assert.equal(written({ a: [undefined, () => 1, Symbol("s"), -0, NaN], b: undefined, c: Symbol("s") }, escape), '{"a":[null,null,null,0,null]}');
  const circular: Record<string, unknown> = {};
  circular["self"] = circular;
  const throws = { get a() { throw new Error("no"); } };
  for (const other of [circular, throws, { a: 1n }, { a: 1e300 }, { a: new Date() }, { a: "x".repeat(5000) }, { a: Array(300).fill(1) }, { bemi_omitted: {} }]) {
    assert.equal(written(other, escape), undefined);
  }
});

/** Of this process alone, however busy the machine is. */
const milliseconds = (start: NodeJS.CpuUsage): number => {
  const { user, system } = process.cpuUsage(start);
  return (user + system) / 1000;
};

test("among any number of members, the user's is the last that goes", () => {
  const many = Object.fromEntries(Array.from({ length: 100_000 }, (_, i) => [`key ${i}`, i]));
  const start = process.cpuUsage();
  const known = encoded({ ...many, userId: 187234 });
  assert.equal(known["userId"], 187234);
  assert.ok(Object.keys(known).length > 800);
  assert.match(known["bemi_omitted"]["(others)"], /^\d+ more$/);
  assert.ok(milliseconds(start) < 5000, `${milliseconds(start)} ms`);
});

test("a large body does not take long", () => {
  const tree: Json = {};
  let explosive: unknown = 1;
  for (let i = 0; i < 100; i++) explosive = [explosive, explosive, explosive];
  const bodies: unknown[] = [
    { a: "*/".repeat(2_500_000) }, Array(2_500_000).fill(1), { tree, list: Array(500).fill(Array(500).fill("x".repeat(20))) },
    Object.fromEntries(Array.from({ length: 100_000 }, (_, i) => [`key ${i}`, "x".repeat(40)])),
    Array(800).fill(Array(800).fill([])), explosive, nested(100_000 / 20), Buffer.alloc(5_000_000),
  ];
  for (const params of bodies) {
    const start = process.cpuUsage();
    assert.equal(encoded({ endpoint: "/", params, userId: 187234 })["userId"], 187234);
    assert.ok(milliseconds(start) < 3000, `${milliseconds(start)} ms`);
  }
});

test("what was left out is still named when a context is extended", () => {
  bemiContext({ a: "x".repeat(60_000), user: 1 }, () => {
    mergeBemiContext({ b: "y".repeat(60_000), step: 2 }, () => {
      const reason = "longer than the limit";
      assert.deepEqual(currentBemiContext(), { user: 1, step: 2, bemi_omitted: { a: reason, b: reason } });
    });
  });
});
