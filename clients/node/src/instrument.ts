import { withComments, writes } from "./comment.js";
import { inAscii, withStatement } from "./json.js";
import type { Callback, ParameterStatus, Pg, PgClient, PgPool, PgQuery, QueryConfig } from "./node-postgres.js";
import { bracket, type Extension } from "./prepared.js";
import { currentScope, noteInstrumented, runIn, type Scope, warnOnce } from "./state.js";

export { isInstrumented } from "./state.js";

/** What is known of a client's session. */
interface Known {
  /** The encoding of its database; undefined if nobody saw it. */
  encoding: string | undefined;
  /** Whether the database has the extension, and until when that holds; asked with the first named statement. */
  extension: { has: boolean; until: number } | undefined;
}

/** A database without the extension is asked again after so many milliseconds. */
const ASK_AGAIN = 60_000;

const KEYS = [
  "text", "values", "name", "callback", "types", "rowMode", "rows", "binary", "queryMode", "portal", "query_timeout",
] as const;

const INSTRUMENTED = Symbol.for("bemi.instrumented");

const sessions = new WeakMap<PgClient, Known>();

const session = (client: PgClient): Known => {
  let known = sessions.get(client);
  if (!known) {
    known = { encoding: undefined, extension: undefined };
    sessions.set(client, known);
  }
  return known;
};

/** Has each client of the module `pg` send the context of who calls it. Once is enough; further calls do nothing. */
export const instrument = (pg: { Client: unknown; Pool: unknown; Query: unknown }): void => {
  const { Client, Pool, Query } = (pg ?? {}) as Partial<Pg>;
  if (!Client?.prototype?.query || !Pool?.prototype?.connect || typeof Query !== "function") {
    throw new TypeError('This is not node-postgres: pass the module, as in instrument(require("pg")).');
  }
  const client = Client.prototype;
  noteInstrumented();
  if (Object.hasOwn(client, INSTRUMENTED)) return;
  Object.defineProperty(client, INSTRUMENTED, { value: true });
  instrumentConnect(client);
  instrumentQuery(client, Query);
  instrumentPool(Pool.prototype);
};

/** The callback, called in the context in which it was given. Else it would run in that of whoever made the connection. */
const bound = (callback: Callback): Callback => {
  const scope = currentScope();
  return function (this: unknown, ...args: unknown[]) {
    return runIn(scope, () => callback.apply(this, args));
  };
};

const instrumentConnect = (prototype: PgClient): void => {
  const { connect } = prototype;
  prototype.connect = function (callback) {
    const known = session(this);
    this.connection?.on("parameterStatus", ({ parameterName, parameterValue }: ParameterStatus) => {
      if (parameterName === "server_encoding") known.encoding = parameterValue;
    });
    // What the connection calls later, for other requests too, has no context of its own.
    const inContext = typeof callback === "function" ? bound(callback) : callback;
    return runIn(undefined, () => connect.call(this, inContext));
  };
};

const instrumentPool = (pool: PgPool): void => {
  // pg-pool's own class, which others may use with clients of their own.
  let prototype = pool;
  while (!Object.hasOwn(prototype, "connect")) prototype = Object.getPrototypeOf(prototype) as PgPool;
  const { connect } = prototype;
  // Who waits for a client is called by whoever gives one back.
  prototype.connect = function (callback) {
    return connect.call(this, typeof callback === "function" ? bound(callback) : callback);
  };
  // Who has waited since before that is called without a context, and not in that of whoever gives a client back.
  const pulse = prototype._pulseQueue;
  if (typeof pulse !== "function") return;
  prototype._pulseQueue = function () {
    return runIn(undefined, () => pulse.call(this));
  };
};

const instrumentQuery = (prototype: PgClient, Query: Pg["Query"]): void => {
  const { query } = prototype;
  prototype.query = function (config, values, callback) {
    if (typeof values === "function") values = bound(values as Callback);
    if (typeof callback === "function") callback = bound(callback as Callback);
    const scope = currentScope();
    if (config == null) return query.call(this, config, values, callback);
    if (typeof config === "string") {
      return query.call(this, contextual(config, scope, session(this)), values, callback);
    }
    if (typeof (config as PgQuery).submit === "function") {
      const submitted = config as PgQuery;
      if (typeof submitted.callback === "function") submitted.callback = bound(submitted.callback);
      if (scope) addTo(this, submitted, scope);
      return query.call(this, submitted, values, callback);
    }
    if (!scope && typeof (config as QueryConfig).callback !== "function") return query.call(this, config, values, callback);
    const given = copy(config as QueryConfig);
    if (typeof given.callback === "function") given.callback = bound(given.callback);
    if (scope && given.name) return named(this, query, new Query(given, values, callback), given, scope);
    if (typeof given.text === "string") given.text = contextual(given.text, scope, session(this));
    return query.call(this, given, values, callback);
  };
};

/** What node-postgres reads of a query's configuration, which may be an object of any class. */
const copy = (config: QueryConfig): QueryConfig => {
  const read: Record<string, unknown> = {};
  for (const key of KEYS) {
    const value = config[key];
    if (value !== undefined) read[key] = value;
  }
  return read;
};

/** The text with the context, where it writes. Whatever goes wrong here, the statement is sent. */
const contextual = (text: string, scope: Scope | undefined, known: Known): string => {
  if (!scope) return text;
  try {
    const json = scope.currentQuery && writes(text) ? withStatement(scope.json, text) : scope.json;
    return withComments(text, json, known.encoding === "UTF8");
  } catch (error) {
    notSent(error);
    return text;
  }
};

const notSent = (error: unknown): void => warnOnce("NOT_SENT", `bemi: a statement carries no context: ${String(error)}`);

/** Adds the context to a query that somebody has made: a Query, a cursor, a stream of rows or of COPY. */
const addTo = (client: PgClient, submitted: PgQuery, scope: Scope): void => {
  if (submitted.name) {
    addToNamed(client, submitted, scope);
    return;
  }
  const holder = typeof submitted.cursor?.text === "string" ? submitted.cursor : submitted;
  if (typeof holder.text !== "string") return;
  const text = contextual(holder.text, scope, session(client));
  if (text === holder.text) return;
  try {
    // It may have no text of its own, but a getter.
    Object.defineProperty(holder, "text", { value: text, writable: true, configurable: true });
  } catch (error) {
    notSent(error);
  }
};

const addToNamed = (client: PgClient, submitted: PgQuery, scope: Scope): void => {
  const text = submitted.text ?? client.connection?.parsedStatements?.[submitted.name as string] ?? "";
  try {
    if (!writes(text) || typeof submitted.handlePortalSuspended !== "function") return;
    const json = scope.currentQuery ? withStatement(scope.json, text) : scope.json;
    bracket(submitted, () => inEncoding(json, session(client).encoding), extensionOf(client));
  } catch (error) {
    notSent(error);
  }
};

/** Whether a client's database has the extension. */
const extensionOf = (client: PgClient): Extension => {
  const known = session(client);
  return {
    has() {
      // There is no waiting for an answer before the next statement is sent.
      if (client.pipeline) return true;
      return known.extension && known.extension.until > Date.now() ? known.extension.has : undefined;
    },
    forget() {
      known.extension = undefined;
    },
    keep(has, encoding) {
      known.encoding = encoding;
      known.extension = { has, until: has ? Infinity : Date.now() + ASK_AGAIN };
      if (!has) {
        warnOnce("NO_EXTENSION", "bemi: the database does not have the extension bemi, or the role may not use it; named statements carry no context.");
      }
    },
  };
};

/** The same JSON with `?` for what a database may not hold: as a parameter it would fail the statement. */
const inEncoding = (json: string, encoding: string | undefined): string => {
  if (encoding === undefined) return inAscii(json);
  if (encoding === "UTF8" || encoding === "SQL_ASCII") return json;
  return json.replace(encoding === "LATIN1" ? /[^\x00-\xff]/gu : /[^\x00-\x7f]/gu, "?");
};

/** Runs a named query as node-postgres does. */
const named = (client: PgClient, query: PgClient["query"], made: PgQuery, given: QueryConfig, scope: Scope): unknown => {
  addToNamed(client, made, scope);
  if (given.query_timeout) (made as QueryConfig).query_timeout = given.query_timeout;
  if (made.callback) {
    if (typeof made.callback !== "function") throw new TypeError("callback is not a function");
    query.call(client, made);
    return undefined;
  }
  return new Promise((resolve, reject) => {
    made.callback = (error: Error | null, result: unknown) => (error ? reject(error) : resolve(result));
    query.call(client, made);
  }).catch((error: Error) => {
    // The stack that leads to who asked, as node-postgres has it.
    Error.captureStackTrace(error);
    throw error;
  });
};
