// features.js: what TypeORM does, one feature after the other, and what comes of it, as JSON for each. With BEMI it does so
// under a context of bemi/typeorm. What it prints is the same with and without.
const { DataSource, EntitySchema, In } = require("typeorm");

const id = { type: "int", primary: true, generated: true };
const name = { type: "text" };

const Person = new EntitySchema({
  name: "Person",
  columns: {
    id,
    email: { type: "text", unique: true },
    age: { type: "int", nullable: true },
    settings: { type: "jsonb", nullable: true },
    version: { type: "int", version: true },
  },
  relations: { books: { type: "one-to-many", target: "Book", inverseSide: "author", cascade: true } },
});
const Book = new EntitySchema({
  name: "Book",
  columns: { id, title: { type: "text" }, deletedAt: { type: "timestamptz", deleteDate: true, nullable: true } },
  relations: {
    author: { type: "many-to-one", target: "Person", inverseSide: "books", onDelete: "CASCADE", orphanedRowAction: "delete" },
    tags: { type: "many-to-many", target: "Tag", joinTable: true },
  },
});
const Tag = new EntitySchema({ name: "Tag", columns: { id, name: { type: "text", unique: true } } });
const tree = (type) =>
  new EntitySchema({
    name: type.replace(/\W/g, "_"),
    columns: { id, name },
    trees: [{ type }],
    relations: {
      parent: { type: "many-to-one", target: type.replace(/\W/g, "_"), treeParent: true, inverseSide: "children" },
      children: { type: "one-to-many", target: type.replace(/\W/g, "_"), treeChildren: true, inverseSide: "parent", cascade: true },
    },
  });
const trees = ["closure-table", "materialized-path", "nested-set"];

const dataSource = new DataSource({
  type: "postgres",
  url: process.env.DATABASE_URL,
  entities: [Person, Book, Tag, ...trees.map(tree)],
  synchronize: true,
});

const features = {
  async save(manager) {
    const ann = await manager.save("Person", {
      email: "ann@example.com",
      age: 30,
      settings: { theme: "*/ dark /*" },
      books: [{ title: "one" }, { title: "two" }],
    });
    ann.age = 31;
    await manager.save("Person", ann);
    return ann.version;
  },
  async insert(manager) {
    const { identifiers } = await manager.insert("Person", [{ email: "bob@example.com" }, { email: "cy@example.com" }]);
    await manager.insert("Tag", [{ name: "red" }, { name: "blue" }]);
    return identifiers;
  },
  upsert: (manager) => manager.upsert("Tag", [{ name: "red" }, { name: "green" }], ["name"]).then(({ generatedMaps }) => generatedMaps.length),
  async update(manager) {
    const { affected } = await manager.update("Person", { email: "bob@example.com" }, { age: () => "1 + 1", settings: { a: [1, "?", "$1"] } });
    await manager.increment("Person", { email: "bob@example.com" }, "age", 5);
    await manager.decrement("Person", { email: "bob@example.com" }, "age", 2);
    return affected;
  },
  async manyToMany(manager) {
    const [book] = await manager.find("Book", { where: { title: "one" }, relations: { tags: true } });
    book.tags = await manager.find("Tag", { order: { id: "ASC" } });
    await manager.save("Book", book);
    await manager.createQueryBuilder().relation("Book", "tags").of(book.id).remove(book.tags[0].id);
    return manager.count("Book", { where: { tags: { name: "blue" } } });
  },
  async softDelete(manager) {
    const book = await manager.findOneByOrFail("Book", { title: "two" });
    await manager.softRemove("Book", book);
    const hidden = await manager.countBy("Book", { title: "two" });
    await manager.restore("Book", book.id);
    const restored = await manager.countBy("Book", { title: "two" });
    await manager.softDelete("Book", { title: "two" });
    await manager.recover("Book", book);
    await manager.softDelete("Book", { title: "two" });
    return [hidden, restored, await manager.count("Book", { where: { title: "two" }, withDeleted: true })];
  },
  async cascade(manager) {
    const dan = await manager.save("Person", { email: "dan@example.com", books: [{ title: "of dan" }, { title: "orphan" }] });
    dan.books.pop();
    await manager.save("Person", dan);
    const left = await manager.countBy("Book", { title: In(["of dan", "orphan"]) });
    await manager.remove("Person", dan);
    return [left, await manager.countBy("Book", { title: In(["of dan", "orphan"]) })];
  },
  async trees(manager) {
    const results = [];
    for (const type of trees) {
      const repository = manager.getTreeRepository(type.replace(/\W/g, "_"));
      const root = await repository.save({ name: "root" });
      const branch = await repository.save({ name: "branch", parent: root });
      const leaf = await repository.save({ name: "leaf", parent: branch });
      await repository.save({ name: "other", parent: root });
      leaf.parent = root;
      await repository.save(leaf);
      await repository.remove(leaf);
      results.push(await repository.findTrees(), await repository.countDescendants(root));
    }
    return results;
  },
  async queryBuilder(manager) {
    const builder = () => manager.createQueryBuilder();
    const inserted = await builder().insert().into("Tag").values({ name: "qb" }).orUpdate(["name"], ["name"]).returning("name").execute();
    await builder().insert().into("Tag").values({ name: "qb" }).orIgnore().execute();
    const updated = await builder().update("Tag").set({ name: "*/ qb" }).where("name = :name", { name: "qb" }).returning("*").execute();
    const deleted = await builder().delete().from("Tag").where("name = :name", { name: "*/ qb" }).execute();
    const joined = await manager.createQueryBuilder("Book", "b").innerJoin("b.author", "a").where("a.email = :email", { email: "ann@example.com" }).withDeleted().orderBy("b.id").getMany();
    return [inserted.raw, updated.affected, deleted.affected, joined.map(({ title }) => title)];
  },
  sql: (manager) => manager.query('insert into "tag" (name) values ($1), ($2) returning name', ["a?b", "c$1d"]),
  async transactions(manager) {
    const results = [];
    const fails = (reason) => () => {
      throw new Error(reason);
    };
    await manager.transaction(async (outer) => {
      await outer.insert("Tag", { name: "outer" });
      await outer
        .transaction((inner) => inner.insert("Tag", { name: "inner" }).then(fails("rolled back to the savepoint")))
        .catch((error) => results.push(error.message));
    });
    await manager
      .transaction("SERIALIZABLE", (lost) => lost.insert("Tag", { name: "lost" }).then(fails("rolled back")))
      .catch((error) => results.push(error.message));
    const runner = dataSource.createQueryRunner();
    await runner.startTransaction();
    await runner.manager.insert("Tag", { name: "by a runner" });
    await runner.commitTransaction();
    await runner.release();
    return [results, (await manager.find("Tag", { order: { id: "ASC" } })).map((tag) => tag.name)];
  },
  constraint: (manager) => manager.insert("Tag", { name: "red" }).catch(({ name, code }) => [name, code]),
  async streams(manager) {
    const stream = await manager.createQueryBuilder("Tag", "t").orderBy("t.id").stream();
    let count = 0;
    for await (const row of stream) {
      count++;
      await manager.update("Tag", row.t_id, { name: `${row.t_name}!` });
    }
    return count;
  },
  concurrency(manager) {
    const work = Array.from({ length: 20 }, (_, i) => manager.transaction((own) => own.save("Tag", { name: `concurrent ${i}` })));
    return Promise.all(work).then((tags) => tags.length);
  },
};

async function main() {
  const under = process.env.BEMI ? require("bemi/typeorm").bemiContext : (_, work) => work();
  await dataSource.initialize();
  for (const [feature, work] of Object.entries(features)) {
    const result = await under({ feature }, () => work(dataSource.manager));
    console.log(JSON.stringify({ feature, result }));
  }
  for (const { tableName } of dataSource.entityMetadatas) {
    // What the clock has written differs from run to run, and so do keys of concurrent work.
    const rows = await dataSource.query(`select to_jsonb(t) - 'deletedAt' as row from "${tableName}" t order by to_jsonb(t)::text`);
    for (const { row } of rows) console.log(JSON.stringify({ tableName, ...row, ...(row.name?.startsWith("concurrent") && { id: 0 }) }));
  }
  await dataSource.destroy();
}

main();
