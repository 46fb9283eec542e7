import { type Fitting, fit, OMITTED_KEY, type Reason, REASONS } from "./fit.js";
import type { IsSecret } from "./secrets.js";
import { small } from "./small.js";
import { warnOnce } from "./state.js";

/**
 * How many bytes of JSON a context takes at most: three quarters of the default of the server's
 * `bemi.max_context_size`, which counts what the session says as well.
 */
export const MAX_CONTEXT_SIZE = 48_000;
/** The members of objects and elements of arrays that it has at most; the server takes 1,000 with those of the session. */
export const MAX_MEMBERS = 900;
/** The key under which the server keeps what it could not read. */
const INVALID_KEY = "bemi_invalid_context";

export type Context = Record<string, unknown>;

/**
 * The context as JSON that `jsonb` accepts. What the server would not take (too long, too deep, circular) is left out by
 * itself and named under the key `bemi_omitted`, with a warning once, since no statement may fail for it. Members for
 * which `isSecret` holds are "[omitted]".
 * @throws TypeError if it is no object.
 */
export const encode = (context: object, isSecret?: IsSecret): string => {
  if (!isObject(context)) {
    throw new TypeError(`A context is an object such as { userId: 1 }, and not ${describe(context)}.`);
  }
  const read = fromToJSON(context);
  if (!isObject(read)) {
    throw new TypeError(`A context is an object such as { userId: 1 }, and not what its toJSON() gives: ${describe(read)}.`);
  }
  try {
    return small(read as object, harmless, isSecret) ?? fitted(read as object, MAX_CONTEXT_SIZE, harmless, isSecret);
  } catch (error) {
    // Nothing of it can be read, as of a proxy that was revoked.
    const reason = describeError(error);
    warnOnce("NOT_JSON", `bemi: a context cannot be read: ${reason}. Its changes carry the key "${INVALID_KEY}" instead.`);
    return `{"${INVALID_KEY}":${harmless(JSON.stringify(reason.slice(0, 1000)))}}`;
  }
};

/** What an object's toJSON makes of it; the object itself if that throws. */
const fromToJSON = (context: object): unknown => {
  try {
    const { toJSON } = context as { toJSON?: unknown };
    return typeof toJSON === "function" ? (toJSON as (name: string) => unknown).call(context, "") : context;
  } catch {
    return context;
  }
};

const fitted = (context: object, size: number, escape: (json: string) => string, isSecret?: IsSecret): string => {
  const made = fit(context, { size, members: MAX_MEMBERS - 1 }, escape, Buffer.byteLength, isSecret);
  warnOf(made);
  return made.json;
};

/** The same context in so many bytes. */
export const within = (json: string, size: number): string =>
  Buffer.byteLength(json) <= size ? json : fitted(JSON.parse(json) as object, size, harmless);

const warnOf = ({ omitted }: Fitting): void => {
  const told = new Set<Reason>();
  for (const [path, reason] of omitted) {
    if (told.has(reason)) continue;
    told.add(reason);
    const name = JSON.stringify(path.slice(0, 100));
    warnOnce(reason, `bemi: a context goes without ${name} (${REASONS[reason]}). The key "${OMITTED_KEY}" names what is left out.`);
  }
};

const isObject = (value: unknown): boolean => {
  try {
    const isOther = Array.isArray(value) || value instanceof Map || value instanceof Set || isPromise(value);
    return typeof value === "object" && value !== null && !isOther;
  } catch {
    // A proxy that was revoked, or a getter that throws: whoever reads it will see.
    return true;
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

const escapeAscii = (json: string): string =>
  json.replace(/[\x80-\uffff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);

/** The same JSON in ASCII. */
export const inAscii = (json: string, size: number = MAX_CONTEXT_SIZE): string => {
  const ascii = escapeAscii(json);
  return ascii.length <= size ? ascii : fitted(JSON.parse(json) as object, size, (part) => escapeAscii(harmless(part)));
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

/** Whether a value has to be awaited. */
export const isPromise = <T>(value: T | PromiseLike<T>): value is PromiseLike<T> =>
  typeof (value as { then?: unknown } | null | undefined)?.then === "function";

const describe = (value: unknown): string => {
  if (value === null) return "null";
  if (isPromise(value)) return "a promise";
  if (value instanceof Map || value instanceof Set) return `a ${value.constructor.name}`;
  return Array.isArray(value) ? "an array" : typeof value === "string" ? "a string" : typeof value;
};
