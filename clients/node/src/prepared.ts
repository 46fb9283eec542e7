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

/** Whether the database of a connection has the extension, without which a statement with a context would fail. */
export const HAS_EXTENSION =
  "SELECT to_regprocedure('bemi.set_context(jsonb, boolean)') IS NOT NULL AND to_regprocedure('bemi.context()') IS NOT NULL AS has";

const send = (connection: PgConnection, text: string, values: string[]): void => {
  // "More comes", which older versions want to know, so that all goes in one packet.
  connection.parse({ text, name: "", types: [] }, true);
  connection.bind({ portal: "", statement: "", values, binary: false, valueMapper: (value: unknown) => value }, true);
  connection.execute({ portal: "", rows: 0 }, true);
};

/** Which answers of the server are ours, and which the statement's. */
const enum Phase {
  Setting,
  Running,
  Restoring,
}

/** Has a named query send its context with it, if the database has the extension by then. */
export const bracket = (query: PgQuery, json: string, hasExtension: () => boolean): void => {
  const { name } = query;
  const submit = query.submit.bind(query);
  query.submit = (connection) => {
    if (!hasExtension()) return submit(connection);
    let phase = Phase.Running;
    let isSent = false;
    let isAbandoned = false;
    const begin = (): void => {
      if (!isSent) send(connection, SET, [json]);
      isSent = true;
    };
    const bracketed = Object.create(connection) as PgConnection;
    bracketed.parse = (...message) => (begin(), connection.parse(...message));
    bracketed.bind = (...message) => (begin(), connection.bind(...message));
    // A value that cannot be written: the statement is not sent.
    bracketed.close = (...message) => ((isAbandoned = true), connection.close(...message));
    bracketed.sync = () => {
      send(connection, RESTORE, []);
      connection.sync();
    };

    const dataRow = query.handleDataRow.bind(query);
    query.handleDataRow = (message) => {
      if (phase === Phase.Running) dataRow(message);
    };
    const commandComplete = query.handleCommandComplete.bind(query);
    query.handleCommandComplete = (message) => {
      if (phase === Phase.Setting) {
        phase = isAbandoned ? Phase.Restoring : Phase.Running;
      } else if (phase === Phase.Running) {
        phase = Phase.Restoring;
        commandComplete(message, bracketed);
      }
    };
    const portalSuspended = query.handlePortalSuspended.bind(query);
    query.handlePortalSuspended = () => portalSuspended(bracketed);
    const error = query.handleError.bind(query);
    query.handleError = (reason, answering) => {
      // The named statement was not reached.
      if (phase === Phase.Setting && name !== undefined) delete connection.submittedNamedStatements?.[name];
      error(reason, answering);
    };
    // While the answers are ours, the client must not take our statement for the named one.
    Object.defineProperty(query, "name", {
      configurable: true,
      get: () => (phase === Phase.Running ? name : undefined),
    });
    const refused = submit(bracketed);
    if (isSent) phase = Phase.Setting;
    return refused;
  };
};
