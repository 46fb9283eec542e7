#!/usr/bin/env node
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";

const USAGE = `bemi migration:create <folder>          writes a migration for TypeORM that tracks all tables
bemi migration:create --path <folder>   the same for MikroORM`;

const typeorm = (now: Date): [name: string, content: string] => {
  const time = now.getTime();
  return [
    `${time}-Bemi.ts`,
    `import type { MigrationInterface, QueryRunner } from "typeorm";
import { bemiDownSQL, bemiUpSQL } from "bemi/typeorm";

export class Bemi${time} implements MigrationInterface {
  public async up(queryRunner: QueryRunner): Promise<void> {
    await queryRunner.query(bemiUpSQL());
  }

  public async down(queryRunner: QueryRunner): Promise<void> {
    await queryRunner.query(bemiDownSQL());
  }
}
`,
  ];
};

const mikroOrm = (now: Date): [name: string, content: string] => {
  const name = `Migration${now.toISOString().slice(0, 19).replace(/\D/g, "")}_bemi`;
  return [
    `${name}.ts`,
    `import { Migration } from "@mikro-orm/migrations";
import { bemiDownSQL, bemiUpSQL } from "bemi/mikro-orm";

export class ${name} extends Migration {
  override async up(): Promise<void> {
    this.addSql(bemiUpSQL());
  }

  override async down(): Promise<void> {
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

const read = (): { folder: string; write: typeof typeorm } => {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { path: { type: "string" }, help: { type: "boolean", short: "h" } },
  });
  if (values.help) {
    console.log(USAGE);
    process.exit(0);
  }
  const [command, folder, ...rest] = positionals;
  if (command !== "migration:create") fail(command ? `there is no command "${command}".` : "a command is missing.");
  if (rest.length > 0) fail(`"${rest.join(" ")}" is too much.`);
  if (values.path !== undefined && folder !== undefined) fail("give the folder either with --path or without it.");
  if (values.path) return { folder: values.path, write: mikroOrm };
  if (folder) return { folder, write: typeorm };
  return fail("the folder of the migrations is missing.");
};

const main = (): void => {
  const { folder, write } = read();
  const [name, content] = write(new Date());
  const path = join(folder, name);
  if (!existsSync(folder)) mkdirSync(folder, { recursive: true });
  writeFileSync(path, content, { flag: "wx" });
  console.log(`Migration file created: ${path}`);
};

try {
  main();
} catch (error) {
  fail(error instanceof Error ? error.message : String(error));
}
