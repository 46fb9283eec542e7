import { BaseEntity, Column, Entity, PrimaryColumn } from "typeorm";
import type { Change as Fields } from "./change.js";

export interface Change extends Fields {}
export class Change extends BaseEntity {}

const number = { to: (value?: number) => value, from: (value: string | null) => (value === null ? null : Number(value)) };

Entity({ name: "changes", schema: "bemi", synchronize: false })(Change);
PrimaryColumn("uuid")(Change.prototype, "id");
Column({ name: "primary_key", type: "text", nullable: true })(Change.prototype, "primaryKey");
Column({ name: "old_primary_key", type: "text", nullable: true })(Change.prototype, "oldPrimaryKey");
Column({ type: "jsonb", nullable: true })(Change.prototype, "omitted");
for (const name of ["table", "schema", "database", "operation"]) Column("text")(Change.prototype, name);
for (const name of ["before", "after", "context"]) Column("jsonb")(Change.prototype, name);
Column({ name: "committed_at", type: "timestamptz" })(Change.prototype, "committedAt");
Column({ name: "queued_at", type: "timestamptz" })(Change.prototype, "queuedAt");
Column({ name: "created_at", type: "timestamptz" })(Change.prototype, "createdAt");
Column({ name: "transaction_id", type: "bigint", transformer: number })(Change.prototype, "transactionId");
Column({ type: "bigint", transformer: number })(Change.prototype, "position");
Column({ name: "commit_position", type: "text" })(Change.prototype, "commitPosition");
for (const name of ["sequence", "source"]) Column("int")(Change.prototype, name);
