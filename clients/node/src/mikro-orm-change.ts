import { EntitySchema } from "@mikro-orm/core";

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

new EntitySchema({
  class: Change,
  tableName: "changes",
  schema: "bemi",
  readonly: true,
  properties: {
    id: { type: "uuid", primary: true },
    primaryKey: { type: "text", fieldName: "primary_key", nullable: true },
    table: { type: "text" },
    schema: { type: "text" },
    database: { type: "text" },
    operation: { type: "text" },
    before: { type: "json" },
    after: { type: "json" },
    context: { type: "json" },
    committedAt: { type: "datetime", fieldName: "committed_at" },
    queuedAt: { type: "datetime", fieldName: "queued_at" },
    createdAt: { type: "datetime", fieldName: "created_at" },
    transactionId: { type: "number", fieldName: "transaction_id", columnType: "bigint" },
    position: { type: "number", columnType: "bigint" },
  },
});
