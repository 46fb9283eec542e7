import { warnOnce } from "./state.js";

/** The longest context in bytes of JSON: the default of the server's `bemi.max_context_size`. */
export const MAX_CONTEXT_SIZE = 1_000_000;
/** How deep arrays and objects may nest, for the server. */
const MAX_DEPTH = 127;
/** The key under which the server too keeps what it could not read. */
const INVALID_KEY = "bemi_invalid_context";

export type Context = Record<string, unknown>;

/**
 * The context as JSON that `jsonb` accepts. What is no context for the server (too long, too deep, circular) is told under
 * the key `bemi_invalid_context`, with a warning once, since no statement may fail for it.
 * @throws TypeError if it is no object.
 */
export const encode = (context: object): string => {
  if (!isObject(context)) {
    throw new TypeError(`A context is an object such as { userId: 1 }, and not ${describe(context)}.`);
  }
  let json: string | undefined;
  try {
    json = stringify(context);
  } catch (error) {
    const reason = describeError(error);
    return invalid("NOT_JSON", `a context cannot be written as JSON: ${reason}`, reason);
  }
  if (!json?.startsWith("{")) {
    throw new TypeError(`A context is an object such as { userId: 1 }, and not what its toJSON() gives: ${describe(json)}.`);
  }
  json = harmless(json);
  const size = Buffer.byteLength(json);
  if (size > MAX_CONTEXT_SIZE) return tooLong(size, json);
  if (depth(json) > MAX_DEPTH) {
    return invalid("TOO_DEEP", `a context is nested deeper than ${MAX_DEPTH} levels`, json);
  }
  return json;
};

const isObject = (value: unknown): boolean => {
  try {
    const isOther = Array.isArray(value) || value instanceof Map || value instanceof Set || isPromise(value);
    return typeof value === "object" && value !== null && !isOther;
  } catch {
    // A proxy that was revoked, or a getter that throws: JSON.stringify will tell.
    return true;
  }
};

const stringify = (context: object): string | undefined => {
  try {
    return JSON.stringify(context);
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    return JSON.stringify(context, (_key, value: unknown) => (typeof value === "bigint" ? fromBigInt(value) : value));
  }
};

const describeError = (error: unknown): string => {
  try {
    return String(error instanceof Error ? error.message : error);
  } catch {
    return "an error that cannot be read";
  }
};

/** JSON of an object with the text of the statement under the key `SQL`, cut where it would be too long. */
export const withStatement = (json: string, text: string): string => {
  const added = (text: string): string => {
    const sql = harmless(JSON.stringify(text));
    // Of two equal keys jsonb takes the last.
    return json === "{}" ? `{"SQL":${sql}}` : `${json.slice(0, -1)},"SQL":${sql}}`;
  };
  const whole = added(text);
  if (Buffer.byteLength(whole) <= MAX_CONTEXT_SIZE) return whole;
  // A character takes six bytes at most.
  const cut = added(text.slice(0, Math.max(0, Math.floor((MAX_CONTEXT_SIZE - Buffer.byteLength(json) - 20) / 6))));
  return Buffer.byteLength(cut) <= MAX_CONTEXT_SIZE ? cut : json;
};

/** The same JSON in ASCII. */
export const inAscii = (json: string): string => {
  const ascii = json.replace(/[\x80-\uffff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
  return ascii.length <= MAX_CONTEXT_SIZE ? ascii : inAscii(tooLong(ascii.length, json));
};

/** What is told instead of a context that is too long. */
export const tooLong = (size: number, json: string): string =>
  invalid("TOO_LONG", `a context of ${size} bytes is longer than ${MAX_CONTEXT_SIZE}`, json);

const invalid = (kind: string, what: string, text: string): string => {
  const told = `{"${INVALID_KEY}":${harmless(JSON.stringify(text.slice(0, 1000)))}}`;
  warnOnce(kind, `bemi: ${what}. Its changes carry the key "${INVALID_KEY}" with the beginning of it.`);
  return told;
};

// A number where it is exact.
const fromBigInt = (value: bigint): number | string => {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value.toString();
};

/**
 * The same JSON, but for what `jsonb` does not know: halves of surrogate pairs and U+0000, which JSON.stringify escapes,
 * become U+FFFD. And each star next to a slash is escaped, so that in a comment nothing ends it or begins another.
 */
const harmless = (json: string): string => {
  const known = json.includes("\\u")
    ? json.replace(/\\(?:u0000|ud[89a-f][0-9a-f]{2}|[^])/gi, (escape) => (escape.length > 2 ? "\ufffd" : escape))
    : json;
  return known.replace(/\*(?=\/)|(?<=\/)\*/g, "\\u002a");
};

/** How deep JSON nests. */
const depth = (json: string): number => {
  let deepest = 0;
  let at = 0;
  for (const [token] of json.matchAll(/"(?:[^"\\]|\\[^])*"|[[\]{}]/g)) {
    if (token === "[" || token === "{") deepest = Math.max(deepest, ++at);
    else if (token === "]" || token === "}") at--;
  }
  return deepest;
};

/** Whether a value has to be awaited. */
export const isPromise = <T>(value: T | PromiseLike<T>): value is PromiseLike<T> =>
  typeof (value as { then?: unknown } | null | undefined)?.then === "function";

const describe = (value: unknown): string => {
  if (value === null) return "null";
  if (isPromise(value)) return "a promise";
  if (value instanceof Map || value instanceof Set) return `a ${value.constructor.name}`;
  return Array.isArray(value) ? "an array" : typeof value === "string" ? "a string" : typeof value;
};
