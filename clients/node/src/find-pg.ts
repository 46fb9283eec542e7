import { createRequire } from "node:module";
import { isAbsolute } from "node:path";
import { here } from "./here.js";
import { instrument } from "./instrument.js";
import type { Pg } from "./node-postgres.js";

/** Where packages are looked for: beside this one, where the program was started, and where it stands. */
const starts = (): string[] => {
  const main = process.argv[1];
  return [here, `${process.cwd()}/package.json`, ...(main !== undefined && isAbsolute(main) ? [main] : [])];
};

/**
 * Instruments each copy of `pg` that one of these chains of packages leads to, from this package or from the application:
 * package managers may give each package a copy of its own.
 * @throws Error if there is none.
 */
export const instrumentPgOf = (...chains: string[][]): void => {
  let isFound = false;
  for (const start of starts()) {
    for (const chain of chains) {
      let require = createRequire(start);
      let path: string;
      try {
        for (const name of chain) require = createRequire(require.resolve(name));
        path = require.resolve("pg");
      } catch {
        continue;
      }
      instrument(require(path) as Pg);
      isFound = true;
    }
  }
  if (!isFound) {
    throw new Error(
      'bemi cannot find the package "pg". Install it, or pass the module that your connections are made with: ' +
        'import { instrument } from "bemi/pg"; instrument(pg);',
    );
  }
};
