import type { MigrationInterface, QueryRunner } from "typeorm";

export class Todo1700000000000 implements MigrationInterface {
  async up(queryRunner: QueryRunner): Promise<void> {
    await queryRunner.query(`
      CREATE TABLE todo (
        id serial PRIMARY KEY,
        task text NOT NULL,
        "isCompleted" boolean NOT NULL DEFAULT false
      )`);
  }

  async down(queryRunner: QueryRunner): Promise<void> {
    await queryRunner.query("DROP TABLE todo");
  }
}
