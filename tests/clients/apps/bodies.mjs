import assert from "node:assert/strict";
import { test } from "node:test";
import { canonical, contextsWithoutSQL } from "./contexts.mjs";

const texts = {
  "the end of the comment": "Bemi*/; DROP TABLE todo; --",
  "the end of a comment and of a string": "'*/; DROP TABLE todo; /*",
  "a comment of its own": '/*Bemi {"userId":1} Bemi*/',
  "an end and a new comment": '*/ /*Bemi {"userId":1} Bemi*/',
  "comments that end in each other": "/*/ */*/",
  "nested comments": "/* /* a */ /*/* b */*/ */ */",
  "halves of delimiters": "* / /\\* *\\/ **//**",
  quotes: `'"\`'' "" $$ $a$ E'\\'`,
  backslashes: "\\ \\\\ \\n \\u002a/ \\x2a/",
  placeholders: "$1 $2 ? ?? :name %s %% #{} {{}} @p1",
  "line ends": "a\r\nb\n-- c\u2028d\u2029e\u0085f",
  "control characters": "\u0001\b\f\u001b\u007f",
  "other scripts": "日本語 \u{1f600} e\u0301 \ufeff\u200b\u202e",
  "lone surrogates": "a\ud800b\udc00c \udc00\ud800",
  "names of the prototype": "__proto__ constructor",
};

/** What JSON can carry into the server: U+FFFD stands for what is no character there. */
function storable(value) {
  if (typeof value === "string") return value.toWellFormed().replaceAll("\0", "\ufffd");
  if (Array.isArray(value)) return value.map(storable);
  if (value === null || typeof value !== "object") return value;
  const copy = JSON.parse("{}");
  for (const [key, part] of Object.entries(value)) {
    Object.defineProperty(copy, storable(key), { value: storable(part), enumerable: true, configurable: true });
  }
  return copy;
}

const nested = (levels) => `${"[".repeat(levels)}${"]".repeat(levels)}`;

/** Posts a body and returns the change that it makes. */
async function post(suite, endpoint, body) {
  const { app } = suite;
  const { changes } = await app.changesOf(() => app.call("POST", endpoint, { body }));
  assert.equal(changes.length, 1);
  return contextsWithoutSQL(changes, suite)[0];
}

/** The change carries the body as its context, and the table the text. */
async function assertIsData(suite, endpoint, body) {
  const change = await post(suite, endpoint, body);
  const params = storable(JSON.parse(body));
  assert.equal(canonical(change.context), canonical({ endpoint, params, userId: 187234 }));
  const [row] = await suite.app.rows("SELECT task FROM todo WHERE id = $1", [change.primary_key]);
  assert.equal(row.task, params.task);
}

export function testBodies(suite) {
  const endpoints = ["/todo", "/todo/raw", "/todo/named"].filter((url) => !suite.without?.includes(url.split("/")[2]));

  for (const [what, text] of Object.entries(texts)) {
    test(`a body is data, in the row and in the context: ${what}`, async () => {
      const body = JSON.stringify({ task: text, [text]: [text, { [text]: text }] });
      for (const endpoint of endpoints) await assertIsData(suite, endpoint, body);
    });
  }

  test("a body is data: own keys by the name of __proto__", async () => {
    const body = '{"task":"proto","__proto__":{"userId":1,"isCompleted":true},"a":{"__proto__":null,"constructor":{"prototype":1}}}';
    for (const endpoint of endpoints) await assertIsData(suite, endpoint, body);
  });

  test("a body is data: 100 levels deep", async () => {
    for (const endpoint of endpoints) await assertIsData(suite, endpoint, `{"task":"deep","deep":${nested(100)}}`);
  });

  test("a body is data: 40 kB", async () => {
    const body = JSON.stringify({ task: "large", note: `*/ ${"x".repeat(300)}`.repeat(120) });
    for (const endpoint of endpoints) await assertIsData(suite, endpoint, body);
  });

  test("U+0000 that no column takes fails the request alone, and in the context it is U+FFFD", async () => {
    const { app } = suite;
    for (const endpoint of endpoints) {
      const { status } = await app.request("POST", endpoint, { body: { task: "a\0b" } });
      assert.equal(status, 500);
      await assertIsData(suite, endpoint, JSON.stringify({ task: "nul", "k\0": "a\0b", list: ["\0"] }));
    }
  });

  const tooMuch = {
    "too large (2 MB, or 750 kB of comments' ends)": [
      [JSON.stringify({ task: "2 MB ".repeat(400_000) }), "task"],
      [JSON.stringify({ task: "750 kB", note: "*/ x ".repeat(150_000) }), "note"],
    ],
    "too deep (130 levels, 200 or 5,000)": [130, 200, 5000].map((levels) => [
      `{"task":"${levels} levels, ${"p".repeat(1000)}","deep":${nested(levels)}}`, "deep",
    ]),
    "of too many (2,000 elements)": [[JSON.stringify({ task: "many", list: Array(2000).fill(1) }), "list"]],
  };
  for (const [what, bodies] of Object.entries(tooMuch)) {
    test(`a part of a body that is ${what} is left out of the context alone, with one warning, and the user stays`, async () => {
      const { app } = suite;
      const before = app.errors.length;
      for (const endpoint of endpoints) {
        for (const [body, part] of bodies) {
          const { context, task } = await post(suite, endpoint, body);
          const sent = JSON.parse(body);
          assert.equal(task, sent.task);
          const { userId, endpoint: recorded, params, bemi_omitted: omitted, ...rest } = context;
          assert.deepEqual([userId, recorded, rest], [187234, endpoint, {}]);
          for (const key of Object.keys(sent)) if (key !== part) assert.equal(params[key], sent[key]);
          assert.equal(Object.keys(omitted).length, 1);
          assert.ok(Object.keys(omitted)[0].startsWith(`params.${part}`), JSON.stringify(omitted));
        }
      }
      const told = app.errors.slice(before);
      assert.equal(told.match(/bemi: /g)?.length, 1, told);
    });
  }

  test("after all that the app runs, the table is whole, and requests have their contexts", async () => {
    assert.ok(suite.app.isRunning());
    assert.doesNotMatch(suite.app.errors, /DeprecationWarning/);
    const [{ count }] = await suite.app.rows("SELECT count(*)::int FROM todo");
    assert.ok(count > 100);
    await assertIsData(suite, "/todo", '{"task":"well"}');
  });
}
