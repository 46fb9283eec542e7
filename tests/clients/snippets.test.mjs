// Each block of code in the guides stands, as it is, in a file that the tests run.
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

const root = new URL("../..", import.meta.url).pathname;
const read = (path) => readFileSync(join(root, path), "utf8");

/** The text without the indentation that its lines have in common, and without empty lines. */
const outdented = (text) => {
  const lines = text.split("\n").map((line) => line.trimEnd()).filter((line) => line !== "");
  const common = Math.min(...lines.map((line) => line.search(/\S/)));
  return lines.map((line) => line.slice(common));
};

/** Whether the lines stand in a text one after another, however far they are indented there. */
const stands = (snippet, text) => {
  const wanted = outdented(snippet);
  const lines = text.split("\n").map((line) => line.trimEnd()).filter((line) => line !== "");
  return lines.some((_, at) => {
    const found = lines.slice(at, at + wanted.length);
    if (found.length < wanted.length) return false;
    const indentation = found[0].length - wanted[0].length;
    return indentation >= 0 && found.every((line, i) => line === " ".repeat(indentation) + wanted[i]);
  });
};

const files = (folder) =>
  readdirSync(join(root, folder)).flatMap((name) => {
    const path = `${folder}/${name}`;
    if (name === "node_modules" || name.endsWith("lock.json") || name.endsWith("expected.txt")) return [];
    return statSync(join(root, path)).isDirectory() ? files(path) : [path];
  });

/** The blocks of code of a part of a guide, from its heading to the next of the same level. */
const blocks = (guide, heading) => {
  const level = heading.match(/^#+/)[0];
  const text = read(guide);
  const start = text.indexOf(`\n${heading}\n`);
  assert.ok(start >= 0, `${guide} has no part "${heading}"`);
  const end = text.slice(start + heading.length + 2).search(new RegExp(`^#{1,${level.length}} `, "m"));
  const part = end < 0 ? text.slice(start) : text.slice(start, start + heading.length + 2 + end);
  return [...part.matchAll(/^```\w*\n([^]*?)^```/gm)].map(([, code]) => code);
};

// Where the tests run what a part of a guide shows.
const PARTS = JSON.parse(read("tests/clients/snippets.json"));

for (const [guide, parts] of Object.entries(PARTS)) {
  test(`each snippet of ${guide} is run by a test`, () => {
    for (const [heading, places] of Object.entries(parts)) {
      const found = blocks(guide, heading);
      assert.ok(found.length > 0, `"${heading}" of ${guide} has no code`);
      const texts = places.flatMap((place) => {
        assert.ok(existsSync(join(root, place)), place);
        return statSync(join(root, place)).isDirectory() ? files(place) : [place];
      }).map(read);
      for (const snippet of found) {
        assert.ok(texts.some((text) => stands(snippet, text)), `not in ${places}:\n${snippet}`);
      }
    }
  });
}

const HOLDERS = ["## TypeORM and MikroORM", "## Drivers", "## With the npm package", "## Servers and tools", "## BemiHQ's packages"];

test("each part of the clients' guides that has code is among them", () => {
  for (const guide of ["docs/clients.md", "docs/schema-tools.md", "clients/node/README.md"]) {
    const headings = [...read(guide).matchAll(/^(###? .*)$/gm)].map(([heading]) => heading);
    const known = Object.keys(PARTS[guide]);
    for (const heading of headings.filter((heading) => blocks(guide, heading).length > 0)) {
      // Parts that only hold others.
      const holds = HOLDERS.includes(heading);
      assert.ok(known.includes(heading) || holds, `${heading} of ${guide} is not in snippets.json`);
    }
  }
});
