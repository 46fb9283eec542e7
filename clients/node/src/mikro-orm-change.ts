import { BigIntType, EntitySchema } from "@mikro-orm/core";
import type { Change as Fields } from "./change.js";

export interface Change extends Fields {}
export class Change {}

new EntitySchema({
  class: Change,
  tableName: "changes",
  schema: "bemi",
  readonly: true,
  properties: {
    id: { type: "uuid", primary: true },
    primaryKey: { type: "text", fieldName: "primary_key", nullable: true },
    oldPrimaryKey: { type: "text", fieldName: "old_primary_key", nullable: true },
    omitted: { type: "json", nullable: true },
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
    transactionId: { type: new BigIntType("number"), fieldName: "transaction_id" },
    position: { type: new BigIntType("number") },
    commitPosition: { type: "text", fieldName: "commit_position" },
    sequence: { type: "integer" },
    source: { type: "integer" },
  },
});
