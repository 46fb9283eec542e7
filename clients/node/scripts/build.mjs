// Builds dist/esm, with types, and dist/cjs.
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import ts from "typescript";

process.chdir(new URL("..", import.meta.url).pathname);
rmSync("dist", { recursive: true, force: true });
execFileSync(process.execPath, ["node_modules/typescript/bin/tsc", "-p", "."], { stdio: "inherit" });
writeFileSync("dist/esm/here.js", "export const here = import.meta.url;\n");

mkdirSync("dist/cjs");
for (const name of readdirSync("src")) {
  const { outputText } = ts.transpileModule(readFileSync(`src/${name}`, "utf8"), {
    compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.CommonJS, esModuleInterop: true },
  });
  const base = name.slice(0, -".ts".length);
  writeFileSync(`dist/cjs/${base}.js`, outputText);
  cpSync(`dist/esm/${base}.d.ts`, `dist/cjs/${base}.d.ts`);
}
writeFileSync("dist/cjs/package.json", '{ "type": "commonjs" }\n');
