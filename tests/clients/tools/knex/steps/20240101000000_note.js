exports.up = (knex) =>
  knex.schema
    .alterTable("todo", (table) => table.text("note"))
    .createTable("tag", (table) => {
      table.increments();
      table.text("name");
    });

exports.down = (knex) => knex.schema.dropTable("tag").alterTable("todo", (table) => table.dropColumn("note"));
