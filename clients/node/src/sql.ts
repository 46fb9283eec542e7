/**
 * Reads SQL as far as it takes to know which statements write, and where each of them ends: as PostgreSQL's own lexer
 * does, so that no quote, comment or dollar-quoted body is taken for what it is not.
 */

/** Where contexts have to be put into a text. */
export interface Places {
  /** Whether any statement writes. */
  readonly writes: boolean;
  /** The ends of the statements that write: behind their last token, before semicolons and trailing comments. */
  readonly ends: readonly number[];
  /**
   * Whether a backslash before a quote, in an ordinary string, makes the ends unsure: it depends on
   * `standard_conforming_strings`, which may have been set since. The beginning of the text is sure, and counts for its
   * first statement.
   */
  readonly isUnsure: boolean;
  /** Whether there is more than one statement. */
  readonly areSeveral: boolean;
}

const NOTHING: Places = { writes: false, ends: [], isUnsure: false, areSeveral: false };

const SPACE = /[ \t\n\r\f\v]+/y;
const LINE_COMMENT = /--[^\r\n]*/y;
const WORD = /[A-Za-z_\x80-\uffff][\w$\x80-\uffff]*/y;
const PARAMETER = /\$\d+/y;
const NUMBER = /\.?\d[\w.]*/y;
const DOLLAR_QUOTE = /\$(?:[A-Za-z_\x80-\uffff][\w\x80-\uffff]*)?\$/y;
// Strings go on in the next line; one with escapes goes on with escapes.
const CONTINUED = /[ \t\f\v]*(?:--[^\r\n]*)?[\r\n](?:[ \t\n\r\f\v]|--[^\r\n]*[\r\n])*'/y;

const WRITES = /^(?:insert|update|delete|merge)$/i;
const MAY_WRITE = /insert|update|delete|merge|copy|truncate/i;

/** What is known of the statement that is being read. */
interface Statement {
  first: string | undefined;
  writes: boolean;
  end: number;
}

/** Reads a text of one statement or several. */
export const places = (text: string): Places => {
  if (!MAY_WRITE.test(text)) return NOTHING;
  const ends: number[] = [];
  let isUnsure = false;
  let count = 0;
  let statement: Statement = { first: undefined, writes: false, end: 0 };
  let depth = 0;
  let previous = "";
  let at = 0;

  const match = (pattern: RegExp): string | undefined => {
    pattern.lastIndex = at;
    return pattern.exec(text)?.[0];
  };
  const finish = (): void => {
    if (statement.writes) ends.push(statement.end);
    statement = { first: undefined, writes: false, end: 0 };
  };

  // What does not end is for the server to refuse, unless it reads backslashes in another way.
  const unfinished = (): Places =>
    text.includes("\\'")
      ? { writes: ends.length > 0 || statement.writes, ends, isUnsure: true, areSeveral: count > 1 }
      : NOTHING;

  while (at < text.length) {
    const space = match(SPACE) ?? match(LINE_COMMENT);
    if (space !== undefined) {
      at += space.length;
      continue;
    }
    if (text.startsWith("/*", at)) {
      const end = endOfComment(text, at);
      if (end < 0) return unfinished();
      at = end;
      continue;
    }
    const start = at;
    let token = text.charAt(at);
    const word = match(WORD);
    if (word !== undefined) {
      token = word;
      at += word.length;
      if (text.charAt(at) === "'" && /^e$/i.test(word)) {
        at = endOfEscapes(text, at);
        token = "'";
      } else {
        observe(statement, word, depth, previous);
      }
    } else if (token === "'") {
      at = endOfQuote(text, at, "'");
      isUnsure ||= text.slice(start, at).includes("\\'");
    } else if (token === '"') {
      at = endOfQuote(text, at, '"');
    } else if (token === "$") {
      const quote = match(PARAMETER) === undefined ? match(DOLLAR_QUOTE) : undefined;
      if (quote === undefined) {
        at += match(PARAMETER)?.length ?? 1;
      } else {
        const end = text.indexOf(quote, at + quote.length);
        at = end < 0 ? -1 : end + quote.length;
      }
    } else if (token === ";" && depth === 0) {
      finish();
      at++;
      previous = token;
      continue;
    } else {
      if (token === "(" || token === "[") depth++;
      else if (token === ")" || token === "]") depth--;
      at += match(NUMBER)?.length ?? 1;
    }
    if (at < 0) return unfinished();
    if (statement.first === undefined) count++;
    statement.first ??= token;
    statement.end = at;
    previous = token;
  }
  finish();
  return { writes: ends.length > 0, ends, isUnsure, areSeveral: count > 1 };
};

/** Whether a word makes its statement one that writes. */
const observe = (statement: Statement, word: string, depth: number, previous: string): void => {
  const first = statement.first?.toLowerCase();
  if (first === undefined) {
    statement.writes = WRITES.test(word) || /^truncate$/i.test(word);
  } else if (first === "copy") {
    statement.writes ||= (depth === 0 && /^from$/i.test(word)) || (previous === "(" && WRITES.test(word));
  } else if (first === "with" || first === "explain" || first === "(") {
    // In the body of a common table expression, or behind the last of them, which may end with a word.
    const begins = previous === "(" || previous === ")" || (depth === 0 && /^(?!for$|key$|do$)\w/i.test(previous));
    statement.writes ||= begins && WRITES.test(word);
  }
};

const endOfComment = (text: string, start: number): number => {
  const delimiter = /\/\*|\*\//g;
  delimiter.lastIndex = start;
  let depth = 0;
  for (let found = delimiter.exec(text); found; found = delimiter.exec(text)) {
    depth += found[0] === "/*" ? 1 : -1;
    if (depth === 0) return delimiter.lastIndex;
  }
  return -1;
};

/** The end of a string or a quoted name, in which the quote is written twice; -1 if it does not end. */
const endOfQuote = (text: string, start: number, quote: string): number => {
  let at = start + 1;
  for (;;) {
    const end = text.indexOf(quote, at);
    if (end < 0) return -1;
    if (text.charAt(end + 1) !== quote) return end + 1;
    at = end + 2;
  }
};

/** The end of a string with escapes; -1 if it does not end. */
const endOfEscapes = (text: string, start: number): number => {
  const special = /['\\]/g;
  special.lastIndex = start + 1;
  for (let found = special.exec(text); found; found = special.exec(text)) {
    if (found[0] === "\\" || text.charAt(special.lastIndex) === "'") {
      special.lastIndex++;
      continue;
    }
    CONTINUED.lastIndex = special.lastIndex;
    if (!CONTINUED.test(text)) return special.lastIndex;
    special.lastIndex = CONTINUED.lastIndex;
  }
  return -1;
};
