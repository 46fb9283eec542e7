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
class Pool { connect() { return Promise.resolve(new Client()); } }
module.exports = { Client, Pool, Query };
`;

/** What a script shows in an application of its own, with or without a package pg. */
const run = (script: string, hasPg = true): { stdout: string; stderr: string } => {
  const folder = mkdtempSync(join(tmpdir(), "bemi-entry-"));
  try {
    writeFileSync(join(folder, "package.json"), "{}");
    if (hasPg) {
      mkdirSync(join(folder, "node_modules/pg"), { recursive: true });
      writeFileSync(join(folder, "node_modules/pg/index.js"), PG);
    }
    writeFileSync(join(folder, "main.cjs"), `const bemi = require("${root}dist/cjs/pg.js");\n${script}`);
    return spawnSync(process.execPath, ["main.cjs"], { cwd: folder, encoding: "utf8" });
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
