// The package as it is built.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type * as Pg from "../src/pg.js";

const root = new URL("../..", import.meta.url).pathname;
const require = createRequire(import.meta.url);

test("loaded as ESM and as CommonJS, it has one context", async () => {
  const esm = (await import(`${root}dist/esm/pg.js`)) as typeof Pg;
  const cjs = require(`${root}dist/cjs/pg.js`) as typeof Pg;
  assert.notEqual(esm.bemiContext, cjs.bemiContext);
  esm.bemiContext({ user: 1 }, () => assert.deepEqual(cjs.currentBemiContext(), { user: 1 }));
  assert.deepEqual(Object.keys(cjs).sort(), Object.keys(esm).sort());
});

test("what is not node-postgres is refused", () => {
  const { instrument } = require(`${root}dist/cjs/pg.js`) as typeof Pg;
  for (const wrong of [undefined, {}, { Client: class {}, Pool: class {}, Query: class {} }]) assert.throws(() => instrument(wrong as never), /This is not node-postgres/);
});

const run = (folder: string, ...args: string[]) =>
  spawnSync(process.execPath, [`${root}dist/esm/cli.js`, ...args], { cwd: folder, encoding: "utf8" });

test("the command writes migrations of both kinds, into folders that need not be there", () => {
  const folder = mkdtempSync(join(tmpdir(), "bemi-cli-"));
  try {
    const typeorm = run(folder, "migration:create", "./src/migrations");
    assert.match(typeorm.stdout, /^Migration file created: src\/migrations\/\d{13}-Bemi\.ts\n$/);
    const mikroOrm = run(folder, "migration:create", "--path", "migrations");
    assert.match(mikroOrm.stdout, /^Migration file created: migrations\/Migration\d{14}_bemi\.ts\n$/);
    assert.deepEqual([typeorm.status, mikroOrm.status], [0, 0]);
    const [first] = readdirSync(join(folder, "src/migrations"));
    const content = readFileSync(join(folder, "src/migrations", first as string), "utf8");
    assert.match(content, new RegExp(`export class Bemi${first?.slice(0, 13)} implements MigrationInterface`));
    const [second] = readdirSync(join(folder, "migrations"));
    assert.match(readFileSync(join(folder, "migrations", second as string), "utf8"), new RegExp(`export class ${second?.slice(0, -3)} extends Migration`));
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("the command says what it does not understand", () => {
  for (const [args, expected] of [
    [[], /a command is missing/],
    [["migrate"], /there is no command "migrate"/],
    [["migration:create"], /the folder of the migrations is missing/],
    [["migration:create", "a", "b"], /"b" is too much/],
    [["migration:create", "a", "--path", "b"], /either with --path or without/],
    [["migration:create", "--paht", "b"], /Unknown option '--paht'/],
    [["migration:create", "/dev/null/folder"], /ENOTDIR/],
  ] as const) {
    const { status, stderr } = run(tmpdir(), ...args);
    assert.equal(status, 2);
    assert.match(stderr, expected);
    assert.match(stderr, /writes a migration for TypeORM/);
  }
  assert.equal(run(tmpdir(), "--help").status, 0);
});
