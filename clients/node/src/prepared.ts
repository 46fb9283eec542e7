import type { PgConnection, PgQuery } from "./node-postgres.js";

/**
 * Named statements are kept prepared by the server, so their text cannot carry a context that is another one each time.
 * Before and behind them the context is set for the transaction, and put back, in the same round trip: up to the
 * message Sync all is one transaction for the server, if none was begun. A rollback, also one to a savepoint, puts the
 * setting back by itself, so that nothing has to be remembered here, and nothing is left for the next client of a pooler.
 */

const members = (context: string): string => `(
      SELECT pg_catalog.count(*)
      FROM pg_catalog.jsonb_path_query(${context}::pg_catalog.jsonb, 'strict $.**'::pg_catalog.jsonpath))`;
// Up to 1,000 members and the object itself. A server that has taken more from the session takes more of ours, too.
const FITS = `pg_catalog.octet_length(context) OPERATOR(pg_catalog.<=) size AND (
      base OPERATOR(pg_catalog.=) '' OR ${members("context")} OPERATOR(pg_catalog.<=) 1001
      OR ${members("base")} OPERATOR(pg_catalog.>) 1001)`;
// What the session says goes below it. Where both are too much for the server, what is short of ours is sent, or else what
// the session says alone: no statement may fail for it. Nothing is looked up through the search_path, in which others may
// have functions of these names. The limit is shown with a unit, of which pg_size_bytes() of older servers does not know "B".
const SET = `
  WITH session AS MATERIALIZED (
    SELECT COALESCE(pg_catalog.current_setting('bemi.context', true), '') AS base,
      pg_catalog.pg_size_bytes(pg_catalog.regexp_replace(
        COALESCE(pg_catalog.current_setting('bemi.max_context_size', true), '65536'), '^(\\d+)B$', '\\1')) AS size
  ), whole AS MATERIALIZED (
    SELECT base, size, CASE WHEN base OPERATOR(pg_catalog.=) '' THEN $1::pg_catalog.text
      ELSE (base::pg_catalog.jsonb OPERATOR(pg_catalog.||) $1::pg_catalog.jsonb)::pg_catalog.text END AS context
    FROM session
  ), told AS MATERIALIZED (
    SELECT base, size, CASE WHEN ${FITS} THEN context
      ELSE (CASE WHEN base OPERATOR(pg_catalog.=) '' THEN '{}' ELSE base END::pg_catalog.jsonb OPERATOR(pg_catalog.||)
        COALESCE((SELECT pg_catalog.jsonb_object_agg(key, value) FROM pg_catalog.jsonb_each($1::pg_catalog.jsonb)
          WHERE pg_catalog.octet_length(value::pg_catalog.text) OPERATOR(pg_catalog.<=) 200), '{}') OPERATOR(pg_catalog.||)
        '{"bemi_omitted":{"(others)":"longer than the limit"}}'::pg_catalog.jsonb)::pg_catalog.text END AS context
    FROM whole
  ), sent AS MATERIALIZED (
    SELECT base, CASE WHEN ${FITS} THEN context ELSE base END AS context
    FROM told
  )
  SELECT pg_catalog.set_config('bemi_client.base', base, true), pg_catalog.set_config('bemi_client.sent', context, true),
    CASE WHEN context OPERATOR(pg_catalog.<>) base THEN bemi.set_context(context, true) END
  FROM sent`;
// What the statement itself has set stays.
const RESTORE = `
  SELECT CASE WHEN pg_catalog.current_setting('bemi.context', true) OPERATOR(pg_catalog.=) pg_catalog.current_setting('bemi_client.sent', true)
    AND pg_catalog.current_setting('bemi_client.sent', true) OPERATOR(pg_catalog.<>) pg_catalog.current_setting('bemi_client.base', true)
  THEN pg_catalog.set_config('bemi.context', pg_catalog.current_setting('bemi_client.base', true), true) END`;

// A statement with a context would fail in a database without the extension, or for a role that may not use it; and for a
// character that the database's encoding lacks.
const ASK = `
  SELECT pg_catalog.current_setting('server_encoding'), EXISTS (
    SELECT FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
    WHERE n.nspname OPERATOR(pg_catalog.=) 'bemi' AND p.proname OPERATOR(pg_catalog.=) 'set_context'
      AND p.proargtypes[0] OPERATOR(pg_catalog.=) 'pg_catalog.text'::pg_catalog.regtype
      AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_function_privilege(p.oid, 'EXECUTE'))`;

/** What is known of the database of a connection. */
export interface Extension {
  /** Whether it has the extension; undefined if it has to be asked. */
  has(): boolean | undefined;
  /** Keeps the answer, and the encoding of the database. */
  keep(has: boolean, encoding: string): void;
  /** Has it asked again. */
  forget(): void;
}

/** Which answers of the server are ours, and which the statement's. */
const enum Phase {
  Asking,
  Setting,
  Running,
  Restoring,
}

/** Adds a statement to what is sent. Older versions write it out with the last of them. */
const add = (connection: PgConnection, text: string, values: string[], isLast: boolean): void => {
  connection.parse({ text, name: "", types: [] }, true);
  connection.bind({ portal: "", statement: "", values, binary: false, valueMapper: (value: unknown) => value }, true);
  connection.execute({ portal: "", rows: 0 }, !isLast);
};

/** Has a named query send its context with it, if the database has the extension. `json` is called when that is known. */
export const bracket = (query: PgQuery, json: () => string, extension: Extension): void => {
  const { name } = query;
  const submit = query.submit.bind(query);
  const [dataRow, commandComplete] = [query.handleDataRow.bind(query), query.handleCommandComplete.bind(query)];
  const [portalSuspended, handleError] = [query.handlePortalSuspended.bind(query), query.handleError.bind(query)];
  let phase = Phase.Running;
  let connection: PgConnection;
  // What the query sends, in our brackets.
  let bracketed: PgConnection;
  let isOver = false;
  let isSent = false;
  let isEnded = false;
  const begin = (): void => {
    if (!isSent) add(connection, SET, [json()], false);
    isSent = true;
  };
  const end = (isLast: boolean): void => {
    if (!isEnded) add(connection, RESTORE, [], isLast);
    isEnded = true;
  };
  const submitBracketed = (): Error | null | undefined => {
    phase = Phase.Running;
    bracketed = Object.create(connection) as PgConnection;
    bracketed.parse = (...message) => (begin(), connection.parse(...message));
    bracketed.bind = (...message) => (begin(), connection.bind(...message));
    bracketed.flush = () => {
      // Older versions send Sync when the statement has run. If they read its rows in portions, it is not over yet.
      if (!query.rows) end(false);
      connection.flush();
    };
    bracketed.sync = () => {
      end(true);
      connection.sync();
    };
    const refused = submit(bracketed);
    if (isSent) phase = Phase.Setting;
    return refused;
  };
  const submitAnswered = (has: boolean): void => {
    let refused;
    try {
      phase = Phase.Running;
      refused = has ? submitBracketed() : submit(connection);
    } catch (error) {
      refused = error;
    }
    if (refused) {
      query.handleError(refused, connection);
      // With the message Sync comes an answer for which nobody waits any more.
      query.callback = () => undefined;
      connection.sync();
    }
  };

  query.submit = (to) => {
    connection = bracketed = to;
    const has = extension.has();
    if (has === false) return submit(connection);
    if (has) return submitBracketed();
    phase = Phase.Asking;
    add(connection, ASK, [], false);
    connection.flush();
    return null;
  };
  query.handleDataRow = (message) => {
    if (phase === Phase.Asking) {
      const [encoding, has] = message.fields.map(String);
      extension.keep(has === "t", encoding ?? "");
    }
    if (phase === Phase.Running) dataRow(message);
  };
  query.handleCommandComplete = (message) => {
    if (phase === Phase.Asking) {
      if (!isOver) submitAnswered(extension.has() ?? false);
    } else if (phase === Phase.Setting) {
      phase = Phase.Running;
    } else if (phase === Phase.Running) {
      if (isSent) phase = Phase.Restoring;
      commandComplete(message, bracketed);
    }
  };
  query.handlePortalSuspended = () => portalSuspended(bracketed);
  query.handleError = (error, answering) => {
    if (phase === Phase.Setting) {
      // The named statement was not reached. The extension may have been dropped.
      if (name !== undefined) delete connection.submittedNamedStatements?.[name];
      extension.forget();
    }
    // Refused by the server, or given up by the client: one Sync ends it.
    if (phase === Phase.Asking && !isOver) {
      isOver = true;
      connection.sync();
    }
    handleError(error, answering);
  };
  // While the answers are ours, the client must not take our statement for the named one.
  Object.defineProperty(query, "name", { configurable: true, get: () => (phase === Phase.Running ? name : undefined) });
};
