import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { comment, withComments } from "../src/comment.js";
import { encode } from "../src/json.js";
import { places } from "../src/sql.js";

const marked = (text: string): string =>
  withComments(text, "{}", true).replaceAll(" /*Bemi {} Bemi*/", "@").replace("/*Bemi {} Bemi*/ ", "^");

const CASES: [name: string, text: string, marked: string][] = [
  ["an INSERT", "INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (1)@"],
  ["lower case, with white space and a semicolon", "\n update t set a = 1 ; \n", "\n update t set a = 1@ ; \n"],
  ["comments at the end", "DELETE FROM t -- all; of it\n/* really */", "DELETE FROM t@ -- all; of it\n/* really */"],
  ["a line comment that does not end", "DELETE FROM t -- all", "DELETE FROM t@ -- all"],
  ["MERGE", "merge into t using s on true when matched then delete", "merge into t using s on true when matched then delete@"],
  ["TRUNCATE", "TRUNCATE t", "TRUNCATE t@"],
  ["COPY FROM", "COPY t (a, b) FROM STDIN WITH (FORMAT csv);", "COPY t (a, b) FROM STDIN WITH (FORMAT csv)@;"],
  ["COPY TO", "COPY t TO STDOUT", "COPY t TO STDOUT"],
  ["COPY of a query", "COPY (SELECT a FROM t) TO STDOUT", "COPY (SELECT a FROM t) TO STDOUT"],
  ["COPY of what a statement returns", "COPY (DELETE FROM t RETURNING *) TO STDOUT", "COPY (DELETE FROM t RETURNING *) TO STDOUT@"],
  ["a SELECT", "SELECT 'INSERT' FROM t", "SELECT 'INSERT' FROM t"],
  ["a locking SELECT", "SELECT * FROM t FOR UPDATE", "SELECT * FROM t FOR UPDATE"],
  ["a CTE that writes", "WITH a AS MATERIALIZED (DELETE FROM t RETURNING *) SELECT * FROM a", "WITH a AS MATERIALIZED (DELETE FROM t RETURNING *) SELECT * FROM a@"],
  ["a writing statement behind CTEs", "WITH a AS (SELECT 1), b(x) AS (SELECT 2) INSERT INTO t SELECT * FROM a", "WITH a AS (SELECT 1), b(x) AS (SELECT 2) INSERT INTO t SELECT * FROM a@"],
  ["a CTE that locks", "WITH a AS (SELECT * FROM t FOR UPDATE) SELECT \"delete\", update FROM a FOR NO KEY UPDATE", "WITH a AS (SELECT * FROM t FOR UPDATE) SELECT \"delete\", update FROM a FOR NO KEY UPDATE"],
  ["a writing statement behind a search clause", "WITH RECURSIVE a AS (SELECT 1) SEARCH DEPTH FIRST BY x SET y UPDATE t SET b = 1", "WITH RECURSIVE a AS (SELECT 1) SEARCH DEPTH FIRST BY x SET y UPDATE t SET b = 1@"],
  ["EXPLAIN", "EXPLAIN (ANALYZE) INSERT INTO t VALUES (1); EXPLAIN ANALYZE DELETE FROM t; EXPLAIN SELECT 1 FOR UPDATE", "EXPLAIN (ANALYZE) INSERT INTO t VALUES (1)@; EXPLAIN ANALYZE DELETE FROM t@; EXPLAIN SELECT 1 FOR UPDATE"],
  ["parentheses around all", "(WITH a AS (DELETE FROM t RETURNING *) SELECT * FROM a FOR UPDATE)", "(WITH a AS (DELETE FROM t RETURNING *) SELECT * FROM a FOR UPDATE)@"],
  ["several statements", "BEGIN; INSERT INTO t VALUES (';'); SELECT 1; DELETE FROM t; COMMIT", "BEGIN; INSERT INTO t VALUES (';')@; SELECT 1; DELETE FROM t@; COMMIT"],
  ["quotes in strings", "INSERT INTO t VALUES ('it''s; DELETE', E'it\\'s; x', \"a\"\"; b\".c)", "INSERT INTO t VALUES ('it''s; DELETE', E'it\\'s; x', \"a\"\"; b\".c)@"],
  ["a string that goes on in the next line", "INSERT INTO t VALUES (E'a'\n -- b\n '\\';', 1); SELECT 1", "INSERT INTO t VALUES (E'a'\n -- b\n '\\';', 1)@; SELECT 1"],
  ["dollar quotes", "INSERT INTO t VALUES ($$a'; $1$$, $x$b; $$ $x$, $1); SELECT 1", "INSERT INTO t VALUES ($$a'; $1$$, $x$b; $$ $x$, $1)@; SELECT 1"],
  ["a dollar in a name", "INSERT INTO a$b$c VALUES (1); SELECT '$b$'", "INSERT INTO a$b$c VALUES (1)@; SELECT '$b$'"],
  ["nested comments", "/* a /* ; ' */ b */ INSERT INTO t /* /* */ ; */ VALUES (1);", "/* a /* ; ' */ b */ INSERT INTO t /* /* */ ; */ VALUES (1)@;"],
  ["a rule's statements", "CREATE RULE r AS ON INSERT TO t DO ALSO (DELETE FROM s; DELETE FROM u)", "CREATE RULE r AS ON INSERT TO t DO ALSO (DELETE FROM s; DELETE FROM u)"],
  ["a string that does not end", "INSERT INTO t VALUES ('", "INSERT INTO t VALUES ('"],
  ["a comment that does not end", "INSERT INTO t VALUES (1) /* /* */", "INSERT INTO t VALUES (1) /* /* */"],
  ["a dollar quote that does not end", "INSERT INTO t VALUES ($a$ $$)", "INSERT INTO t VALUES ($a$ $$)"],
  ["backslashes before no quote", "INSERT INTO t VALUES ('C:\\a\\\\b'); SELECT 1", "INSERT INTO t VALUES ('C:\\a\\\\b')@; SELECT 1"],
  ["nothing", "", ""],
];

for (const [name, text, expected] of CASES) test(`the context stands at its place: ${name}`, () => assert.equal(marked(text), expected));

test("where a backslash before a quote makes the end unsure, the context stands in front", () => {
  assert.equal(marked("INSERT INTO t VALUES ('it\\'; x', ')')"), "^INSERT INTO t VALUES ('it\\'; x', ')')");
  assert.equal(marked("INSERT INTO t VALUES ('it\\'s')"), "^INSERT INTO t VALUES ('it\\'s')");
  assert.equal(marked("INSERT INTO t VALUES ('C:\\')"), "^INSERT INTO t VALUES ('C:\\')");
  assert.equal(marked("INSERT INTO t VALUES (E'\\'')"), "INSERT INTO t VALUES (E'\\'')@");
  assert.equal(marked("SELECT 'it\\'s'"), "SELECT 'it\\'s'");
});

test("a text of several statements of which only the first can have the context is warned of", async () => {
  const codes: unknown[] = [];
  const listen = (warning: Error & { code?: string }) => codes.push(warning.code);
  process.on("warning", listen);
  const text = "INSERT INTO t VALUES ('C:\\'); INSERT INTO t VALUES (1)";
  assert.equal(marked(text), `^${text}`);
  assert.equal(marked(text), `^${text}`);
  await new Promise(setImmediate);
  process.off("warning", listen);
  assert.deepEqual(codes, ["BEMI_UNSURE"]);
});

test("a text of many statements does not repeat a long context in each", () => {
  const out = withComments("INSERT;".repeat(6000), encode({ a: "x".repeat(40_000), userId: 7 }), true);
  assert.ok(out.length < 17_000_000);
  const expected = '/*Bemi {"userId":7,"bemi_omitted":{"a":"longer than the limit"}} Bemi*/';
  assert.equal(out.split(expected).length - 1, 6000);
});

// Pieces of statements in which the words that write do not count.
const quoted = fc.oneof(
  fc.string({ unit: "grapheme" }).map((s) => `'${s.replaceAll("'", "''").replace(/\\+(?='|$)/g, "")}'`),
  fc.string().map((s) => `E'${s.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`),
  fc.string().map((s) => `"${s.replaceAll('"', '""')}"`),
  fc.string().filter((s) => !s.includes("$")).map((s) => `$$${s}$$`),
  fc.string().filter((s) => !s.includes("$")).map((s) => `$body$${s} $$ '; $body$`),
  fc.constantFrom("a", "42", "$1", "(x, y)", "a.b", ":: int", "ARRAY[1,2]", "= 1.5", "FOR UPDATE", "ON CONFLICT DO UPDATE SET a = 1"),
);
const between = fc.oneof(
  fc.constantFrom(" ", "\n", "\t "),
  fc.string().map((s) => ` --${s.replace(/[\r\n]/g, "")} ; ' INSERT\n`),
  fc.string().map((s) => ` /* ${s.replace(/\*|\//g, "")} ; ' /* INSERT " */ */ `),
);
const body = fc.array(fc.tuple(between, quoted), { minLength: 1, maxLength: 6 }).map((pieces) => pieces.flat().join(""));
const statement = fc.oneof(
  fc.tuple(fc.constantFrom("INSERT", "update", "Delete", "merge", "TRUNCATE", "WITH a AS (SELECT 1) DELETE"), body).map(([first, rest]) => ({ text: first + rest, writes: true })),
  fc.tuple(fc.constantFrom("SELECT", "CREATE", "BEGIN", "WITH a AS (SELECT 1) SELECT", "EXPLAIN"), body).map(([first, rest]) => ({ text: first + rest, writes: false })),
);

test("in random texts, each statement that writes has its context behind its last token", () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(between, statement, between), { maxLength: 5 }), (statements) => {
      const text = (mark: string) => statements.map(([before, s, after]) => before + s.text + (s.writes ? mark : "") + after).join(";");
      assert.equal(marked(text("")), text("@"));
    }),
    { numRuns: 2000 },
  );
});

test("nothing but comments is ever added, and reading does not take long", () => {
  fc.assert(
    fc.property(fc.string({ unit: fc.constantFrom(..."'\"$\\/*-;()aE \n"), maxLength: 60 }), (rest) => {
      const text = `INSERT ${rest}`;
      const out = marked(text);
      assert.equal(out.replaceAll("@", "").replace("^", ""), text);
    }),
    { numRuns: 5000 },
  );
  const start = performance.now();
  for (const piece of ["'a''", "/*", "$a$", "E'\\'", "((", "-- \n", "a ", "insert;"]) {
    places(`INSERT ${piece.repeat(300_000)}`);
  }
  assert.ok(performance.now() - start < 10_000);
});

test("no value ends the comment or begins another", () => {
  const hostile = fc.string({ unit: fc.constantFrom("*", "/", "\\", "B", "Bemi*/", "Bemi ", '"', "é", "\u2028", "😀") });
  fc.assert(
    fc.property(hostile, hostile, fc.boolean(), (key, value, isUtf8) => {
      const context = { [key]: value };
      const text = comment(encode(context), isUtf8);
      const inside = text.slice("/*".length, -"*/".length);
      assert.ok(!inside.includes("*/") && !inside.includes("/*"), text);
      assert.deepEqual(JSON.parse(inside.slice("Bemi ".length, -" Bemi".length)), context);
      assert.ok(isUtf8 || /^[\x00-\x7f]*$/.test(text));
    }),
    { numRuns: 5000 },
  );
});
