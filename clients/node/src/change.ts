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
  /** The key of the row before the change, if the change gave it another one. */
  oldPrimaryKey: string | null;
  /** What could not be recorded of it, and why, by name; null if there is nothing. */
  omitted: Record<string, string> | null;
  committedAt: Date;
  queuedAt: Date;
  createdAt: Date;
  transactionId: number;
  /** Of the change in the write-ahead log, in bytes. */
  position: number;
  /** Whose log it is of: see `bemi.sources`. The order of changes is that of `source`, `commitPosition` and `sequence`. */
  source: number;
  /** Of its transaction's end in the log, as `pg_lsn` is written. */
  commitPosition: string;
  /** Which change of its transaction it is, from 1. */
  sequence: number;
}
