import { Migration } from "@mikro-orm/migrations";

export class Migration20231211000000_todo extends Migration {
  override async up(): Promise<void> {
    this.addSql(`
      create table todo (
        id serial primary key,
        task text not null,
        "isCompleted" boolean not null default false
      )`);
  }

  override async down(): Promise<void> {
    this.addSql("drop table todo");
  }
}
