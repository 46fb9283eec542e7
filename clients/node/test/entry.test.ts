// What an application has that never calls setContext.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { omitSecrets } from "../src/secrets.js";

const root = new URL("../..", import.meta.url).pathname;

/** Stands for node-postgres: sends nothing, and shows what it was to send. */
const PG = `
class Query { constructor(text) { this.text = text; } submit() {} }
class Client { connect() { return Promise.resolve(); } query(text) { console.log(text); return Promise.resolve({ rows: [] }); } }
class Pool {
  waiting = [];
  connect(callback) { if (!callback) return new Client(); this.waiting.push(callback); }
  release(client) { this.free = client; this._pulseQueue(); }
  _pulseQueue() { this.waiting.shift()(null, this.free); }
}
module.exports = { Client, Pool, Query };
`;

/** What a script shows in an application of its own, with or without a package pg. */
const run = (script: string, hasPg = true, cwd?: string): { stdout: string; stderr: string } => {
  const folder = mkdtempSync(join(tmpdir(), "bemi-entry-"));
  try {
    writeFileSync(join(folder, "package.json"), "{}");
    if (hasPg) {
      mkdirSync(join(folder, "node_modules/pg"), { recursive: true });
      writeFileSync(join(folder, "node_modules/pg/index.js"), PG);
    }
    writeFileSync(join(folder, "main.cjs"), `const bemi = require("${root}dist/cjs/pg.js");\n${script}`);
    return spawnSync(process.execPath, [join(folder, "main.cjs")], { cwd: cwd ?? folder, encoding: "utf8" });
  } finally {
    rmSync(folder, { recursive: true });
  }
};

test("the first context has it sent, in whatever order things are made", () => {
  for (const script of [
    `const client = new (require("pg").Client)(); bemi.bemiContext({ a: 1 }, () => client.query("INSERT x"));`,
    `bemi.bemiContext({ a: 1 }, () => new (require("pg").Client)().query("INSERT x"));`,
    `bemi.mergeBemiContext({ a: 1 }); new (require("pg").Client)().query("INSERT x");`,
  ]) {
    assert.equal(run(script).stdout, 'INSERT x /*Bemi {"a":1} Bemi*/\n', script);
  }
});

test("where there is no pg, it says so, unless somebody has passed one", () => {
  assert.match(run("bemi.bemiContext({ a: 1 });", false).stderr, /cannot find the package "pg"/);
  assert.equal(run("bemi.bemiContext(null); console.log('none');", false).stdout, "none\n");
  const own = `const pg = (() => { const module = {}; ${PG} return module.exports; })(); bemi.instrument(pg);`;
  assert.equal(run(`${own} bemi.bemiContext({ a: 1 }, () => new pg.Client().query("INSERT x"));`, false).stdout, 'INSERT x /*Bemi {"a":1} Bemi*/\n');
});

test("a query that begins when it is awaited has the context of whoever made it", () => {
  const lazy = `const client = new (require("pg").Client)();
    const builder = { then(resolve, reject) { return client.query("INSERT x").then(resolve, reject); } };`;
  assert.equal(run(`${lazy} (async () => { await bemi.bemiContext({ a: 1 }, () => builder); })();`).stdout, 'INSERT x /*Bemi {"a":1} Bemi*/\n');
  assert.equal(
    run(`${lazy} (async () => { console.log(await bemi.bemiContext({ a: 1 }, () => ({ then(_, no) { no(new Error("of the query")); } })).catch((e) => e.message)); })();`).stdout,
    "of the query\n",
  );
});

test("`then` is read once and called once, in the context of whoever made the query", () => {
  const shown = run(`
    const client = new (require("pg").Client)();
    let reads = 0;
    const builder = { get then() { reads++; return (resolve) => { client.query("INSERT " + reads); resolve(7); }; } };
    (async () => { console.log(await bemi.bemiContext({ a: 1 }, () => builder), reads, bemi.currentBemiContext()); })();`);
  assert.equal(shown.stdout, 'INSERT 1 /*Bemi {"a":1} Bemi*/\n7 1 undefined\n');
  // A query that gives another one.
  const nested = run(`
    const client = new (require("pg").Client)();
    const inner = { then(resolve) { client.query("INSERT x"); resolve("inner"); } };
    const outer = { then(resolve) { resolve(inner); } };
    (async () => { console.log(await bemi.bemiContext({ a: 1 }, () => outer)); })();`);
  assert.equal(nested.stdout, 'INSERT x /*Bemi {"a":1} Bemi*/\ninner\n');
});

test("what a thenable throws is for whoever awaits it", () => {
  const shown = run(`(async () => {
    const throwing = { then() { throw new Error("of then"); } };
    console.log(await bemi.bemiContext({ a: 1 }, () => throwing).catch((e) => e.message));
    const hidden = { get then() { throw new Error("of the getter"); } };
    const given = bemi.bemiContext({ a: 1 }, () => hidden);
    console.log(given === hidden, await (async () => given)().catch((e) => e.message));
    const revoked = Proxy.revocable({}, {});
    revoked.revoke();
    console.log(bemi.bemiContext({ a: 1 }, () => revoked.proxy) === revoked.proxy);
    for (const plain of [1, null, undefined, "x", { then: 1 }]) if (bemi.bemiContext({ a: 1 }, () => plain) !== plain) console.log("changed", plain);
    const own = Promise.resolve(1);
    console.log(bemi.bemiContext({ a: 1 }, () => own) === own);
  })();`);
  assert.equal(shown.stdout, "of then\ntrue of the getter\ntrue\ntrue\n");
});

test("scopes nest, and each ends with its function, also when that throws", () => {
  const shown = run(`(async () => {
    const now = () => JSON.stringify(bemi.currentBemiContext() ?? null);
    await bemi.bemiContext({ a: 1 }, async () => {
      await bemi.mergeBemiContext({ b: 2 }, async () => {
        await null;
        bemi.bemiContext({ c: 3 });
        console.log(now());
        await bemi.bemiContext(null, async () => console.log(now()));
      });
      try { bemi.bemiContext({ d: 4 }, () => { throw new Error(); }); } catch { console.log(now()); }
      await bemi.bemiContext({ e: 5 }, () => ({ then(_, reject) { reject(new Error()); } })).catch(() => console.log(now()));
    });
    console.log(now());
  })();`);
  assert.equal(shown.stdout, '{"c":3}\nnull\n{"a":1}\n{"a":1}\nnull\n');
});

test("loaded as ESM first and as CommonJS later, and in two copies, each statement has one context", () => {
  const shown = run(`(async () => {
    const esm = await import("${root}dist/esm/pg.js");
    const { cpSync } = require("node:fs");
    cpSync("${root}dist", "copy/dist", { recursive: true });
    cpSync("${root}package.json", "copy/package.json");
    const copy = require("./copy/dist/cjs/pg.js");
    const client = new (require("pg").Client)();
    copy.bemiContext({ a: 1 }, () => client.query("INSERT x"));
    esm.bemiContext({ a: 2 }, () => copy.mergeBemiContext({ b: 1 }, () => bemi.mergeBemiContext({ c: 1 }, () => client.query("INSERT y"))));
    bemi.setContext(() => ({ a: 3 }))({}, {}, () => client.query("INSERT z"));
  })();`);
  assert.equal(shown.stdout, 'INSERT x /*Bemi {"a":1} Bemi*/\nINSERT y /*Bemi {"a":2,"b":1,"c":1} Bemi*/\nINSERT z /*Bemi {"a":3} Bemi*/\n', shown.stderr);
});

test("who waits for a client since before the first context does not get that of whoever gives one back", () => {
  const shown = run(`
    const { Pool } = require("pg");
    const pool = new Pool();
    const first = pool.connect();
    pool.connect((_, client) => client.query("INSERT waited"));
    bemi.bemiContext({ user: "other" }, () => { first.query("INSERT own"); pool.release(first); });`);
  assert.equal(shown.stdout, 'INSERT own /*Bemi {"user":"other"} Bemi*/\nINSERT waited\n', shown.stderr);
});

test("where pg is hidden, a middleware takes what was passed to instrument", () => {
  const own = `const pg = (() => { const module = {}; ${PG} return module.exports; })();`;
  assert.match(run(`${own} bemi.setContext(() => ({ a: 1 }));`, false).stderr, /cannot find the package "pg"/);
  assert.equal(
    run(`${own} bemi.instrument(pg); bemi.setContext(() => ({ a: 1 }))({}, {}, () => new pg.Client().query("INSERT x"));`, false).stdout,
    'INSERT x /*Bemi {"a":1} Bemi*/\n',
  );
});

test("pg is found beside the program too, wherever that is started", () => {
  assert.equal(run(`bemi.bemiContext({ a: 1 }, () => new (require("pg").Client)().query("INSERT x"));`, true, "/").stdout, 'INSERT x /*Bemi {"a":1} Bemi*/\n');
});

test("the names of BemiHQ's packages are there too", () => {
  assert.equal(run("console.log(bemi.bemiUpSql() === bemi.bemiUpSQL(), bemi.bemiDownSql() === bemi.bemiDownSQL());").stdout, "true true\n");
});

test("secrets are left out as deep as they stand, and nothing else", () => {
  const at = new Date(0);
  const body = { name: "Ann", password: "x", user: { apiKey: "k", "X-Auth-Token": "t", pin: 7, shipping: "pinned" }, list: [{ secret: null }, 1], at, ssn: "1" };
  const shown = omitSecrets(body, "SSN");
  assert.deepEqual(shown, {
    name: "Ann", password: "[omitted]", user: { apiKey: "[omitted]", "X-Auth-Token": "[omitted]", pin: "[omitted]", shipping: "pinned" },
    list: [{ secret: null }, 1], at, ssn: "[omitted]",
  });
  assert.equal(body.password, "x");
  const circular: Record<string, unknown> = { token: "t" };
  circular.self = circular;
  const copied = omitSecrets(circular);
  assert.equal(copied.self, copied);
  assert.deepEqual(omitSecrets(JSON.parse('{"__proto__":{"password":"x"}}')), JSON.parse('{"__proto__":{"password":"[omitted]"}}'));
  for (const plain of [undefined, null, 7, "password"]) assert.equal(omitSecrets(plain), plain);
});

test("the names of secrets are words, and not any letters in others", () => {
  const isOmitted = (name: string) => omitSecrets({ [name]: "x" } as Record<string, string>)[name] === "[omitted]";
  for (const name of ["password", "newPassword2", "PASSWORD_HASH", "passwd", "pwd", "userPwd", "accessToken", "refresh_token", "tokens", "client-secret", "clientsecrets",
    "Authorization", "proxy-authorization", "set-cookie", "apikey", "api_key", "x-api-key", "privateKey", "AWS_ACCESS_KEY", "credentials", "otp", "otpCode", "sms_otp", "userPIN", "card_pin", "cvv"]) assert.ok(isOmitted(name), name);
  for (const name of ["secretary", "secretariat", "footprint", "hotplug", "pinned", "shippingPinned", "spin", "opinion", "keyboard", "author", "passenger", "compass", "publicKey", "key"]) assert.ok(!isOmitted(name), name);
});

test("whatever a value does when it is read, its secrets do not come out, and nothing is thrown", () => {
  const revoked = Proxy.revocable({}, {});
  revoked.revoke();
  assert.equal(omitSecrets(revoked.proxy) as unknown, "[omitted]");
  assert.deepEqual(omitSecrets({ a: revoked.proxy, get b() { throw new Error("no"); }, c: 1 }), { a: "[omitted]", b: "[omitted]", c: 1 });
  assert.deepEqual(omitSecrets({ toJSON: () => ({ password: "x" }) }) as unknown, { password: "[omitted]" });
  const self = { password: "x", toJSON() { return this; } };
  assert.equal(omitSecrets(self).password, "[omitted]");
  let deep: unknown = { secret: "s3cret" };
  for (let i = 0; i < 100_000; i++) deep = [deep];
  assert.doesNotThrow(() => omitSecrets({ deep }));
  let lower: unknown = { secret: "s3cret" };
  for (let i = 0; i < 200; i++) lower = { lower };
  assert.ok(!JSON.stringify(omitSecrets(lower)).includes("s3cret"));
  let remade = 0;
  const endless = (): object => ({ toJSON: () => (remade++, endless()) });
  assert.doesNotThrow(() => omitSecrets(endless()));
  assert.ok(remade < 1000);
  const bytes = Buffer.from("x");
  assert.equal(omitSecrets({ bytes }).bytes, bytes);
});
