/** A change that bemi has recorded: a row of `bemi.changes`, for reading. */
export interface Change {
  id: string;
  /** Of several columns, a JSON array as text. */
  primaryKey: string | null;
  table: string;
  schema: string;
  database: string;
  operation: "CREATE" | "UPDATE" | "DELETE" | "TRUNCATE" | "MESSAGE" | "GAP";
  before: Record<string, unknown>;
  after: Record<string, unknown>;
  context: Record<string, unknown>;
  committedAt: Date;
  queuedAt: Date;
  createdAt: Date;
  transactionId: number;
  /** Of the change in the write-ahead log, in bytes. */
  position: number;
  /** Of its transaction's end in the log, as `pg_lsn` is written. With `sequence`, the order of changes. */
  commitPosition: string;
  /** Which change of its transaction it is, from 1. */
  sequence: number;
}
