/** What is used of node-postgres, `pg` 8. */

export interface PgConnection {
  parse(message: { text: string; name: string; types: number[] }, more?: boolean): void;
  bind(message: object, more?: boolean): void;
  execute(message: { portal: string; rows: number }, more?: boolean): void;
  flush(): void;
  sync(): void;
  on(event: "parameterStatus", listener: (message: ParameterStatus) => void): unknown;
  parsedStatements: Record<string, string>;
  submittedNamedStatements?: Record<string, string>;
}

export interface ParameterStatus {
  parameterName: string;
  parameterValue: string;
}

/** A query of node-postgres itself. Others that it takes, such as cursors and COPY streams, have some of it. */
export interface PgQuery {
  text?: string;
  name?: string;
  /** How many are read at once. */
  rows?: number;
  callback?: Callback;
  cursor?: { text?: string };
  submit(connection: PgConnection): Error | null | undefined;
  handleDataRow(message: { fields: ({ toString(): string } | null)[] }): void;
  handleCommandComplete(message: unknown, connection: PgConnection): void;
  handlePortalSuspended(connection: PgConnection): void;
  handleError(error: unknown, connection: PgConnection): void;
}

export interface QueryConfig {
  text?: string;
  values?: unknown;
  name?: string;
  callback?: Callback;
  types?: unknown;
  rowMode?: unknown;
  rows?: unknown;
  binary?: unknown;
  queryMode?: unknown;
  portal?: unknown;
  query_timeout?: number;
}

export type Callback = (...args: any[]) => unknown;

export interface PgClient {
  connection?: PgConnection;
  /** Whether it sends what it is given without waiting for answers. */
  pipeline?: boolean;
  query(config: unknown, values?: unknown, callback?: unknown): unknown;
  connect(callback?: Callback): unknown;
}

export interface PgPool {
  connect(callback?: Callback): unknown;
  /** Serves those who wait, called by whoever gives a client back; pg-pool's own. */
  _pulseQueue?(): unknown;
}

/** The module `pg`. */
export interface Pg {
  Client: { prototype: PgClient };
  Pool: { prototype: PgPool };
  Query: new (config: unknown, values?: unknown, callback?: unknown) => PgQuery;
}
