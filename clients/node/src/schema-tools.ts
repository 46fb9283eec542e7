import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

/** Where MikroORM's own command looks for its configuration. */
const CONFIGURATIONS = ["src/", "", "dist/", "build/"].flatMap((folder) =>
  ["ts", "mts", "cts", "js", "mjs", "cjs"].map((extension) => `${folder}mikro-orm.config.${extension}`),
);

const ADVICE = `Without these options "mikro-orm schema:update" wants to drop bemi's tables and the triggers of yours, and "migration:create"
writes that into migrations. Spread them into the configuration of MikroORM:

  import { bemiMikroOrmOptions } from "bemi/mikro-orm";

  export default defineConfig({ ...bemiMikroOrmOptions(), /* … */ });`;

/** The text of a file; undefined if it cannot be read. */
const textOf = (path: string): string | undefined => {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
};

/** The text without what stands in comments. */
const withoutComments = (text: string): string => text.replace(/\/\*[^]*?\*\//g, "").replace(/(?<=^|\s)\/\/.*$/gm, "");

/** The configuration of MikroORM in an application's folder; undefined if none is where its command looks for it. */
const configurationOf = (folder: string): { name: string; text: string } | undefined => {
  let paths: unknown;
  try {
    const described = JSON.parse(textOf(join(folder, "package.json")) ?? "{}") as { "mikro-orm"?: { configPaths?: unknown } };
    paths = described["mikro-orm"]?.configPaths;
  } catch {
    // Not for us to say.
  }
  const named = [process.env.MIKRO_ORM_CLI_CONFIG, ...(Array.isArray(paths) ? (paths as unknown[]) : [])];
  for (const name of [...named, ...CONFIGURATIONS]) {
    if (typeof name !== "string" || !existsSync(join(folder, name))) continue;
    const text = textOf(join(folder, name));
    if (text !== undefined) return { name: name.replace(/^\.\//, ""), text: withoutComments(text) };
  }
  return undefined;
};

/** The version of MikroORM that an application has installed. */
const versionOf = (folder: string): string | undefined => {
  try {
    const path = createRequire(join(folder, "package.json")).resolve("@mikro-orm/core/package.json");
    return (JSON.parse(readFileSync(path, "utf8")) as { version?: string }).version;
  } catch {
    return undefined;
  }
};

/**
 * What lacks in the configuration of MikroORM, for people to read, so that its schema tools leave bemi alone; undefined if
 * nothing does. The configuration is read as text, since it may be TypeScript.
 */
export const lackingForMikroOrm = (folder: string): string | undefined => {
  const version = versionOf(folder);
  const [major = 0, minor = 0, patch = 0] = (version ?? "").split(".").map((part) => parseInt(part, 10));
  if (major === 7 && minor === 1 && patch < 3) {
    const told = `MikroORM ${version} drops triggers that it does not know, bemi's too, and has no option against it.`;
    return `${told} Update it to 7.1.3 or later.\n${ADVICE}`;
  }
  const found = configurationOf(folder);
  if (!found) return `no configuration of MikroORM is found here.\n${ADVICE}`;
  const { name, text } = found;
  if (/\bbemiMikroOrmOptions\s*\(/.test(text)) {
    const isReplaced = /\bbemiMikroOrmOptions\s*\([^]*\bschemaGenerator\s*:/.test(text);
    return isReplaced
      ? `in ${name} a "schemaGenerator" behind bemiMikroOrmOptions() replaces what that says. Pass it: ...bemiMikroOrmOptions({ … }).`
      : undefined;
  }
  const lacking = [
    ...(/\bignoreSchema\b[^\]]*["'`]bemi["'`]/.test(text) ? [] : ['ignoreSchema: ["bemi"]']),
    ...(major === 6 || /\bignoreTriggers\s*:\s*true\b/.test(text) ? [] : ["ignoreTriggers: true"]),
  ];
  return lacking.length === 0 ? undefined : `${name} lacks ${lacking.join(" and ")} in "schemaGenerator".\n${ADVICE}`;
};
