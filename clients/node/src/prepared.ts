import { comment } from "./comment.js";
import type { PgConnection, PgQuery } from "./node-postgres.js";

/**
 * Named statements are kept prepared by the server, so their text cannot carry a context that is another one each time.
 * Before and behind them the context is set for the transaction, and put back, in the same round trip: up to the
 * message Sync all is one transaction for the server, if none was begun. A rollback, also one to a savepoint, puts the
 * setting back by itself, so that nothing has to be remembered here, and nothing is left for the next client of a pooler.
 */

// What is too long together with the session's own context is told as the server tells it: no statement may fail for it.
// The limit is shown with a unit, of which pg_size_bytes() of older servers does not know "B".
const SET = `
  SELECT set_config('bemi_client.context', base::text, true), bemi.set_context(
    CASE WHEN octet_length((base || $1::jsonb)::text) <= size THEN base || $1::jsonb
      WHEN octet_length((base || told)::text) <= size THEN base || told ELSE base END, true)
  FROM (SELECT bemi.context() AS base, jsonb_build_object('bemi_invalid_context', left($1::text, 1000)) AS told,
    pg_size_bytes(regexp_replace(COALESCE(current_setting('bemi.max_context_size', true), '1000000'), '^(\\d+)B$', '\\1')) AS size) AS c`;
const RESTORE = "SELECT bemi.set_context(current_setting('bemi_client.context')::jsonb, true)";

// A statement with a context would fail in a database without the extension.
const ASK =
  "SELECT to_regprocedure('bemi.set_context(jsonb, boolean)') IS NOT NULL AND to_regprocedure('bemi.context()') IS NOT NULL";

/** What is known of the database of a connection. */
export interface Extension {
  /** Whether it has the extension; undefined if it has to be asked. */
  has(): boolean | undefined;
  /** Keeps the answer. */
  keep(has: boolean): void;
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

/** Has a named query send its context with it, if the database has the extension. */
export const bracket = (query: PgQuery, json: string, extension: Extension): void => {
  const { name } = query;
  const submit = query.submit.bind(query);
  const [dataRow, commandComplete] = [query.handleDataRow.bind(query), query.handleCommandComplete.bind(query)];
  const [portalSuspended, handleError] = [query.handlePortalSuspended.bind(query), query.handleError.bind(query)];
  let phase = Phase.Running;
  let connection: PgConnection;
  // What the query sends, in our brackets.
  let bracketed: PgConnection;
  let isSent = false;
  let isEnded = false;
  const begin = (): void => {
    if (!isSent) add(connection, SET, [json], false);
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
    if (phase === Phase.Asking) extension.keep(message.fields[0]?.toString() === "t");
    if (phase === Phase.Running) dataRow(message);
  };
  query.handleCommandComplete = (message) => {
    if (phase === Phase.Asking) {
      submitAnswered(extension.has() ?? false);
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
    if (phase === Phase.Asking) connection.sync();
    handleError(error, answering);
  };
  // While the answers are ours, the client must not take our statement for the named one.
  Object.defineProperty(query, "name", { configurable: true, get: () => (phase === Phase.Running ? name : undefined) });
};
