#!/usr/bin/env node
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { lackingForMikroOrm } from "./schema-tools.js";

const USAGE = `bemi migration:create <folder>          writes a migration for TypeORM that tracks all tables
bemi migration:create --path <folder>   the same for MikroORM

  --from-bemihq   the migration takes the triggers of BemiHQ's packages away, and puts bemi's in place`;

/** What a migration calls, and what it says of going back. */
interface Content {
  up: string;
  /** A comment before `down`, with its indentation and the end of its line. */
  note: string;
}

const TRACK: Content = { up: "bemiUpSQL", note: "" };
const TAKE_OVER: Content = {
  up: "bemiTakeOverSQL",
  note: "  // Takes bemi away. The triggers of BemiHQ's package do not come back.\n",
};

type Write = (now: Date, content: Content) => [name: string, content: string];

const typeorm: Write = (now, { up, note }) => {
  const time = now.getTime();
  return [
    `${time}-Bemi.ts`,
    `import type { MigrationInterface, QueryRunner } from "typeorm";
import { ${["bemiDownSQL", up].sort().join(", ")} } from "bemi/typeorm";

export class Bemi${time} implements MigrationInterface {
  public async up(queryRunner: QueryRunner): Promise<void> {
    await queryRunner.query(${up}());
  }

${note}  public async down(queryRunner: QueryRunner): Promise<void> {
    await queryRunner.query(bemiDownSQL());
  }
}
`,
  ];
};

const mikroOrm: Write = (now, { up, note }) => {
  const name = `Migration${now.toISOString().slice(0, 19).replace(/\D/g, "")}_bemi`;
  return [
    `${name}.ts`,
    `import { Migration } from "@mikro-orm/migrations";
import { ${["bemiDownSQL", up].sort().join(", ")} } from "bemi/mikro-orm";

export class ${name} extends Migration {
  override async up(): Promise<void> {
    this.addSql(${up}());
  }

${note}  override async down(): Promise<void> {
    this.addSql(bemiDownSQL());
  }
}
`,
  ];
};

const fail = (message: string): never => {
  console.error(`bemi: ${message}\n\n${USAGE}`);
  process.exit(2);
};

const read = (): { folder: string; write: Write; content: Content } => {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { path: { type: "string" }, "from-bemihq": { type: "boolean" }, help: { type: "boolean", short: "h" } },
  });
  if (values.help) {
    console.log(USAGE);
    process.exit(0);
  }
  const [command, folder, ...rest] = positionals;
  if (command !== "migration:create") fail(command ? `there is no command "${command}".` : "a command is missing.");
  if (rest.length > 0) fail(`"${rest.join(" ")}" is too much.`);
  if (values.path !== undefined && folder !== undefined) fail("give the folder either with --path or without it.");
  const content = values["from-bemihq"] ? TAKE_OVER : TRACK;
  if (values.path) return { folder: values.path, write: mikroOrm, content };
  if (folder) return { folder, write: typeorm, content };
  return fail("the folder of the migrations is missing.");
};

/** The migrations in a folder that use a package of BemiHQ. */
const migrationsOfBemiHQ = (folder: string): string[] =>
  readdirSync(folder, { withFileTypes: true })
    .filter((file) => file.isFile() && /\.[cm]?[jt]s$/.test(file.name))
    .filter(({ name }) => /["']@bemi-db\//.test(readFileSync(join(folder, name), "utf8")))
    .map(({ name }) => name);

const main = (): void => {
  const { folder, write, content } = read();
  const [name, text] = write(new Date(), content);
  const path = join(folder, name);
  if (!existsSync(folder)) mkdirSync(folder, { recursive: true });
  const earlier = migrationsOfBemiHQ(folder);
  writeFileSync(path, text, { flag: "wx" });
  console.log(`Migration file created: ${path}`);
  if (earlier.length > 0) {
    const advice = content === TRACK ? " Where they have run, this one needs --from-bemihq." : "";
    const entry = write === typeorm ? "bemi/typeorm" : "bemi/mikro-orm";
    console.error(`bemi: ${earlier.join(", ")} of BemiHQ's package: import "${entry}" there instead.${advice}`);
  }
  const lacking = write === mikroOrm ? lackingForMikroOrm(process.cwd()) : undefined;
  if (lacking) console.error(`bemi: ${lacking}`);
};

try {
  main();
} catch (error) {
  fail(error instanceof Error ? error.message : String(error));
}
