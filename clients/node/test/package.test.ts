// The package as it is built.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type * as MikroOrm from "../src/mikro-orm.js";
import type * as Pg from "../src/pg.js";

const root = new URL("../..", import.meta.url).pathname;
const require = createRequire(import.meta.url);

test("loaded as ESM and as CommonJS, it has one context", async () => {
  const esm = (await import(`${root}dist/esm/pg.js`)) as typeof Pg;
  const cjs = require(`${root}dist/cjs/pg.js`) as typeof Pg;
  assert.notEqual(esm.bemiContext, cjs.bemiContext);
  // Stands for node-postgres, which this package does not install.
  class Client { query() {} connect() {} }
  class Pool { connect() {} }
  esm.instrument({ Client, Pool, Query: class {} });
  esm.bemiContext({ user: 1 }, () => assert.deepEqual(cjs.currentBemiContext(), { user: 1 }));
  assert.deepEqual(Object.keys(cjs).sort(), Object.keys(esm).sort());
});

test("what is not node-postgres is refused", () => {
  const { instrument } = require(`${root}dist/cjs/pg.js`) as typeof Pg;
  for (const wrong of [undefined, {}, { Client: class {}, Pool: class {}, Query: class {} }]) assert.throws(() => instrument(wrong as never), /This is not node-postgres/);
});

/** Runs `work` in a folder of its own, which has the package installed. */
const inApplication = (work: (folder: string) => void): void => {
  const folder = mkdtempSync(join(tmpdir(), "bemi-package-"));
  try {
    mkdirSync(join(folder, "node_modules/@mikro-orm"), { recursive: true });
    symlinkSync(root, join(folder, "node_modules/bemi"));
    for (const name of ["typeorm", "@types", "@mikro-orm/core"]) symlinkSync(`${root}node_modules/${name}`, join(folder, "node_modules", name));
    writeFileSync(join(folder, "package.json"), "{}");
    work(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
};

const IMPORTS = `import { Change } from "bemi/typeorm/src/entities/Change";
import { Change as Same, bemiContext, bemiTakeOverSQL, bemiUpSQL, mergeBemiContext, omitSecrets } from "bemi/typeorm";
`;

test("the path of BemiHQ's entity leads to the same class, in ESM and in CommonJS", () => {
  inApplication((folder) => {
    const shown = "console.log(Change === Same, typeof Change.find, bemiTakeOverSQL().startsWith(bemiUpSQL()));\n";
    writeFileSync(join(folder, "main.mjs"), IMPORTS + shown);
    writeFileSync(join(folder, "main.cjs"), IMPORTS.replace(/import (.*) from (.*);/g, "const $1 = require($2);").replaceAll(" as ", ": ") + shown);
    for (const main of ["main.mjs", "main.cjs"]) {
      const { stdout, stderr } = spawnSync(process.execPath, [main], { cwd: folder, encoding: "utf8" });
      assert.equal(stdout, "true function true\n", stderr);
    }
  });
});

test("TypeScript finds the types by each way of resolving modules, and knows what a context's function gives", () => {
  inApplication((folder) => {
    writeFileSync(join(folder, "main.ts"), `${IMPORTS}import { bemiMikroOrmOptions } from "bemi/mikro-orm";
const change: Same = new Change();
const [primaryKey, old, omitted]: [string | null, string | null, Record<string, string> | null] = [change.primaryKey, change.oldPrimaryKey, change.omitted];
declare const builder: { where(): void } & PromiseLike<number>;
const begun: Promise<number> = bemiContext({ a: 1 }, () => builder);
const native: Promise<string> = mergeBemiContext({ a: 1 }, async () => "x");
const plain: number = bemiContext(null, () => 7);
const wrapped = <T>(fn: () => T): T => bemiContext({ a: 1 }, fn);
const { schemaGenerator } = bemiMikroOrmOptions({ disableForeignKeys: false, ignoreSchema: ["other"] });
const told: [boolean, string[], true] = [schemaGenerator.disableForeignKeys, schemaGenerator.ignoreSchema, schemaGenerator.ignoreTriggers];
const body: { name: string } = omitSecrets({ name: "Ann" });
export default [primaryKey, old, omitted, begun, native, plain, wrapped, told, body, Change.find()];
`);
    for (const options of ["--module nodenext", "--module esnext --moduleResolution bundler", "--module commonjs --moduleResolution node10"]) {
      const args = [`${root}node_modules/typescript/bin/tsc`, "--noEmit", "--strict", "--skipLibCheck", "--target", "es2022", ...options.split(" "), "main.ts"];
      const { stdout, status } = spawnSync(process.execPath, args, { cwd: folder, encoding: "utf8" });
      assert.equal(status, 0, `${options}\n${stdout}`);
    }
  });
});

test("MikroORM's schema tools are told to leave bemi alone, beside what the application tells them", async () => {
  const { bemiMikroOrmOptions } = (await import(`${root}dist/esm/mikro-orm.js`)) as typeof MikroOrm;
  assert.deepEqual(bemiMikroOrmOptions(), { schemaGenerator: { ignoreSchema: ["bemi"], ignoreTriggers: true } });
  const given = { ignoreSchema: ["other"], disableForeignKeys: true };
  assert.deepEqual(bemiMikroOrmOptions(given), { schemaGenerator: { ignoreSchema: ["other", "bemi"], disableForeignKeys: true, ignoreTriggers: true } });
  assert.deepEqual(given.ignoreSchema, ["other"]);
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

test("the command writes migrations that take over from BemiHQ's packages, and sees the migrations of those", () => {
  const folder = mkdtempSync(join(tmpdir(), "bemi-cli-"));
  try {
    mkdirSync(join(folder, "typeorm"));
    writeFileSync(join(folder, "typeorm/1-Bemi.ts"), 'import { bemiUpSQL } from "@bemi-db/typeorm";');
    const plain = run(folder, "migration:create", "typeorm");
    assert.match(plain.stderr, /1-Bemi\.ts of BemiHQ's package: import "bemi\/typeorm" there instead\..* --from-bemihq/);
    const taking = run(folder, "migration:create", "--from-bemihq", "typeorm");
    assert.match(taking.stderr, /1-Bemi\.ts/);
    assert.ok(!taking.stderr.includes("--from-bemihq"));
    run(folder, "migration:create", "--path", "mikro-orm", "--from-bemihq");
    const path = taking.stdout.trim().split(" ").pop() as string;
    const [name] = readdirSync(join(folder, "mikro-orm"));
    for (const text of [readFileSync(join(folder, path), "utf8"), readFileSync(join(folder, "mikro-orm", name as string), "utf8")]) {
      assert.match(text, /import \{ bemiDownSQL, bemiTakeOverSQL \} from "bemi\/(typeorm|mikro-orm)";/);
      assert.match(text, /\(bemiTakeOverSQL\(\)\);[^]*do not come back\.\n.* down\(.*[^]*\(bemiDownSQL\(\)\);/);
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("the command says what MikroORM's configuration lacks", () => {
  const folder = mkdtempSync(join(tmpdir(), "bemi-cli-"));
  const said = (configuration: string | undefined, version?: string, name = "src/mikro-orm.config.ts"): string => {
    rmSync(folder, { recursive: true });
    mkdirSync(join(folder, "src"), { recursive: true });
    if (version) {
      mkdirSync(join(folder, "node_modules/@mikro-orm/core"), { recursive: true });
      writeFileSync(join(folder, "node_modules/@mikro-orm/core/package.json"), JSON.stringify({ version }));
    }
    if (configuration !== undefined) writeFileSync(join(folder, name), configuration);
    writeFileSync(join(folder, "package.json"), JSON.stringify({ "mikro-orm": { configPaths: ["./src/orm.ts"] } }));
    const { status, stderr } = run(folder, "migration:create", "--path", "src/migrations");
    assert.equal(status, 0);
    return stderr;
  };
  try {
    assert.match(said(undefined), /no configuration of MikroORM is found/);
    assert.match(said("export default {};"), /src\/mikro-orm\.config\.ts lacks ignoreSchema: \["bemi"\] and ignoreTriggers: true/);
    assert.match(said("export default {};", "7.2.1", "src/orm.ts"), /src\/orm\.ts lacks/);
    assert.match(said('export default { schemaGenerator: { ignoreSchema: ["a", "bemi"] } };', "7.1.3"), /lacks ignoreTriggers: true/);
    assert.match(said("export default {\n  // ...bemiMikroOrmOptions(),\n};"), /lacks ignoreSchema/);
    assert.match(said("export default { ...bemiMikroOrmOptions(), schemaGenerator: { ignoreSchema: [] } };"), /replaces what that says/);
    assert.match(said("export default { ...bemiMikroOrmOptions() };", "7.1.2"), /Update it to 7\.1\.3/);
    for (const [configuration, version] of [
      ["export default { ...bemiMikroOrmOptions() };", "7.2.1"],
      ["export default { url: 'postgres://localhost', ...bemiMikroOrmOptions({ ignoreSchema: [] }) };", undefined],
      ["export default { schemaGenerator: { ignoreSchema: ['bemi'] } };", "6.6.15"],
      ["export default { schemaGenerator: { ignoreTriggers: true, ignoreSchema: [\n'other', 'bemi'\n] } };", "7.1.3"],
    ] as const) assert.equal(said(configuration, version), "", configuration);
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
