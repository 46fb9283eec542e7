#!/usr/bin/env node
// schema-engine.mjs: the schema engine that the commands of Prisma start, as a program. Theirs is a binary that no package
// brings; this is the same engine, of the same commit, built for WebAssembly, behind the same JSON-RPC on standard input.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { PrismaPg } from "@prisma/adapter-pg";
import Result from "pg/lib/result.js";

// As `schema-engine … cli can-connect-to-database` it is asked whether the database is there.
if (process.argv.includes("cli")) process.exit(0);

const require = createRequire(import.meta.url);
const folder = new URL("node_modules/@prisma/schema-engine-wasm/", import.meta.url);
const engine = await import(new URL("schema_engine_bg.js", folder));
const wasm = readFileSync(new URL("schema_engine_bg.wasm", folder));
const { instance } = await WebAssembly.instantiate(wasm, { "./schema_engine_bg.js": engine });
globalThis.PRISMA_WASM_PANIC_REGISTRY = { set_message: (message) => console.error(message) };
engine.__wbg_set_wasm(instance.exports);
instance.exports.__wbindgen_start();

const paths = process.argv.flatMap((argument, i) => (argument === "--datamodels" ? [process.argv[i + 1]] : []));
const datamodels = paths.map((path) => [path, readFileSync(path, "utf8")]);
const { bindMigrationAwareSqlAdapterFactory, ColumnTypeEnum } = require("@prisma/driver-adapter-utils");

// The adapter does not know the type "char", which catalogs have. It takes the values for uuids, of which there are none.
const [CHAR, UUID] = [18, 2950];
const { addFields } = Result.prototype;
Result.prototype.addFields = function (fields) {
  for (const field of fields) if (field.dataTypeID === CHAR) field.dataTypeID = UUID;
  return addFields.call(this, fields);
};
class Factory extends PrismaPg {
  connect = async () => this.fixed(await super.connect());
  connectToShadowDb = async () => this.fixed(await super.connectToShadowDb());
  fixed(adapter) {
    const queryRaw = adapter.queryRaw.bind(adapter);
    const executeScript = adapter.executeScript.bind(adapter);
    adapter.queryRaw = async (query) => {
      const result = await queryRaw(query);
      const columnTypes = result.columnTypes.map((type) => (type === ColumnTypeEnum.Uuid ? ColumnTypeEnum.Character : type));
      return { ...result, columnTypes };
    };
    // It drops the shadow database before it closes its connections there.
    adapter.executeScript = (script) => executeScript(script.replace(/^DROP DATABASE \S+$/, "$& WITH (FORCE)"));
    adapter.underlyingDriver().on("error", () => {});
    return adapter;
  }
}
// Not by DATABASE_URL, whose database would be the shadow database too.
const { PGHOST: host, PGPORT: port, PGUSER: user, PGDATABASE: database } = process.env;
const adapter = bindMigrationAwareSqlAdapterFactory(new Factory({ host, port: Number(port), user, database }));
const prisma = await engine.SchemaEngine.new({ datamodels: datamodels.length > 0 ? datamodels : undefined }, () => {}, adapter);

const answer = (message) => process.stdout.write(`${JSON.stringify({ jsonrpc: "2.0", ...message })}\n`);

for await (const line of createInterface({ input: process.stdin })) {
  const { id, method, params } = JSON.parse(line);
  // An answer to what was printed.
  if (!method) continue;
  try {
    const result = (await prisma[method === "getDatabaseVersion" ? "version" : method](params)) ?? {};
    if (method === "diff" && result.stdout) answer({ id: id + 1_000_000, method: "print", params: { content: result.stdout } });
    answer({ id, result });
  } catch (error) {
    answer({ id, error: { code: 4466, message: error.message, data: { is_panic: false, message: error.message } } });
  }
}
process.exit(0);
