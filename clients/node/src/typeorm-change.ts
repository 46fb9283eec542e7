import { Column, Entity, PrimaryColumn } from "typeorm";

/** A change that bemi has recorded: a row of `bemi.changes`, for reading. */
export class Change {
  id!: string;
  /** Of several columns, a JSON array as text. */
  primaryKey!: string | null;
  table!: string;
  schema!: string;
  database!: string;
  operation!: "CREATE" | "UPDATE" | "DELETE" | "TRUNCATE" | "MESSAGE" | "GAP";
  before!: Record<string, unknown>;
  after!: Record<string, unknown>;
  context!: Record<string, unknown>;
  committedAt!: Date;
  queuedAt!: Date;
  createdAt!: Date;
  transactionId!: number;
  /** Of the change in the write-ahead log, in bytes. */
  position!: number;
}

const number = { to: (value?: number) => value, from: (value: string | null) => (value === null ? null : Number(value)) };

Entity({ name: "changes", schema: "bemi", synchronize: false })(Change);
PrimaryColumn("uuid")(Change.prototype, "id");
Column({ name: "primary_key", type: "text", nullable: true })(Change.prototype, "primaryKey");
for (const name of ["table", "schema", "database", "operation"]) Column("text")(Change.prototype, name);
for (const name of ["before", "after", "context"]) Column("jsonb")(Change.prototype, name);
Column({ name: "committed_at", type: "timestamptz" })(Change.prototype, "committedAt");
Column({ name: "queued_at", type: "timestamptz" })(Change.prototype, "queuedAt");
Column({ name: "created_at", type: "timestamptz" })(Change.prototype, "createdAt");
Column({ name: "transaction_id", type: "bigint", transformer: number })(Change.prototype, "transactionId");
Column({ type: "bigint", transformer: number })(Change.prototype, "position");
