// features.mjs: what MikroORM does, one feature after the other, and what comes of it, as JSON for each. With BEMI it does so
// under a context of bemi/mikro-orm. What it prints is the same with and without; it runs with MikroORM 6 and 7.
import { EntitySchema } from "@mikro-orm/core";
import { MikroORM, raw } from "@mikro-orm/postgresql";

const timestamp = { type: "Date", nullable: true };
const id = { type: "integer", primary: true };

const Person = new EntitySchema({
  name: "Person",
  properties: {
    id,
    email: { type: "string", unique: true },
    age: { type: "integer", nullable: true },
    settings: { type: "json", nullable: true },
    version: { type: "integer", version: true },
    books: { kind: "1:m", entity: () => Book, mappedBy: "author", orphanRemoval: true, cascade: ["persist", "remove"] },
  },
});
const Book = new EntitySchema({
  name: "Book",
  filters: { alive: { name: "alive", cond: { deletedAt: null }, default: true } },
  properties: {
    id,
    title: { type: "string" },
    deletedAt: timestamp,
    author: { kind: "m:1", entity: () => Person, deleteRule: "cascade" },
    tags: { kind: "m:n", entity: () => Tag, owner: true },
  },
});
const Tag = new EntitySchema({ name: "Tag", properties: { id, name: { type: "string", unique: true } } });
const Node = new EntitySchema({
  name: "Node",
  properties: {
    id,
    name: { type: "string" },
    parent: { kind: "m:1", entity: () => Node, nullable: true, deleteRule: "cascade" },
    children: { kind: "1:m", entity: () => Node, mappedBy: "parent", cascade: ["persist", "remove"] },
  },
});

// What is deleted softly: a row that is removed is updated instead.
const softly = {
  onFlush({ uow }) {
    for (const changeSet of uow.getChangeSets().filter(({ type, entity }) => type === "delete" && entity.title?.startsWith("soft"))) {
      changeSet.entity.deletedAt = new Date(0);
      uow.computeChangeSet(changeSet.entity, "update");
    }
  },
};

const orm = await MikroORM.init({
  clientUrl: process.env.DATABASE_URL,
  entities: [Person, Book, Tag, Node],
  subscribers: [softly],
  allowGlobalContext: false,
});
const features = {
  async insert(em) {
    const ann = em.create(Person, { email: "ann@example.com", age: 30, settings: { theme: "*/ dark /*" } });
    em.create(Book, { title: "one", author: ann });
    em.create(Book, { title: "two", author: ann });
    await em.flush();
    await em.insertMany(Person, [{ email: "bob@example.com", version: 1 }, { email: "cy@example.com", version: 1 }]);
    return em.insert(Tag, { name: "red" });
  },
  async upsert(em) {
    await em.upsert(Person, { email: "ann@example.com", age: 31, version: 1 });
    const many = await em.upsertMany(Tag, [{ name: "red" }, { name: "blue" }]);
    return many.map(({ name }) => name);
  },
  async update(em) {
    const bob = await em.findOneOrFail(Person, { email: "bob@example.com" });
    bob.age = 41;
    bob.settings = { a: [1, "?", "$1"] };
    await em.flush();
    return [bob.version, await em.nativeUpdate(Person, { age: { $gt: 30 } }, { age: raw("age + 1") })];
  },
  async optimisticLock(em) {
    const bob = await em.findOneOrFail(Person, { email: "bob@example.com" });
    await em.fork().nativeUpdate(Person, { id: bob.id }, { version: 9 });
    bob.age = 1;
    return em.flush().then(() => "written", (error) => error.constructor.name);
  },
  async manyToMany(em) {
    const book = await em.findOneOrFail(Book, { title: "one" }, { populate: ["tags"] });
    book.tags.add(...(await em.find(Tag, {})));
    await em.flush();
    book.tags.remove(book.tags.getItems()[0]);
    await em.flush();
    return em.count(Book, { tags: { name: "blue" } });
  },
  async softDelete(em) {
    const author = await em.findOneOrFail(Person, { email: "cy@example.com" });
    em.create(Book, { title: "soft", author });
    await em.flush();
    await em.remove(await em.findOneOrFail(Book, { title: "soft" })).flush();
    return [await em.fork().count(Book, { title: "soft" }), await em.fork().count(Book, { title: "soft" }, { filters: false })];
  },
  async cascade(em) {
    const author = em.create(Person, { email: "dan@example.com" });
    em.create(Book, { title: "of dan", author });
    em.create(Book, { title: "orphan", author });
    await em.flush();
    author.books.remove(author.books.getItems()[1]);
    await em.flush();
    const left = await em.fork().count(Book, { author: author.id });
    await em.remove(author).flush();
    return [left, await em.fork().count(Book, { title: { $in: ["of dan", "orphan"] } })];
  },
  async tree(em) {
    const root = em.create(Node, { name: "root" });
    const branch = em.create(Node, { name: "branch", parent: root });
    em.create(Node, { name: "leaf", parent: branch });
    em.create(Node, { name: "other", parent: root });
    await em.flush();
    branch.parent = null;
    await em.flush();
    await em.remove(await em.fork().findOneOrFail(Node, { name: "branch" }, { populate: ["children"] })).flush();
    await em.nativeDelete(Node, { name: "branch" });
    return (await em.fork().find(Node, {}, { orderBy: { id: "asc" } })).map(({ name }) => name);
  },
  async queryBuilder(em) {
    await em.createQueryBuilder(Tag).insert({ name: "green" }).onConflict("name").ignore();
    await em.createQueryBuilder(Tag).insert({ name: "green" }).onConflict("name").merge();
    const updated = await em.createQueryBuilder(Tag).update({ name: "leaf */ green" }).where({ name: "green" }).execute("run");
    const deleted = await em.createQueryBuilder(Tag).delete({ name: "leaf */ green" }).execute("run");
    const joined = await em.createQueryBuilder(Book, "b").select("b.title").leftJoin("b.author", "a").where({ "a.email": "ann@example.com" }).orderBy({ "b.id": 1 }).execute("all");
    return [updated.affectedRows, deleted.affectedRows, joined];
  },
  async sql(em) {
    return em.getConnection().execute("insert into tag (name) values (?), (?) returning name", ["a?b", "c$1d"]);
  },
  async transactions(em) {
    const results = [];
    await em.transactional(async (outer) => {
      outer.create(Tag, { name: "outer" });
      await outer.flush();
      await outer
        .transactional(async (inner) => {
          inner.create(Tag, { name: "inner" });
          await inner.flush();
          throw new Error("rolled back to the savepoint");
        })
        .catch((error) => results.push(error.message));
    });
    await em
      .fork()
      .transactional(async (lost) => {
        await lost.insert(Tag, { name: "lost" });
        throw new Error("rolled back");
      })
      .catch((error) => results.push(error.message));
    const fork = em.fork();
    await fork.begin({ isolationLevel: "serializable" });
    await fork.insert(Tag, { name: "serializable" });
    await fork.commit();
    return [results, (await em.fork().find(Tag, {}, { orderBy: { id: 1 } })).map(({ name }) => name)];
  },
  async constraint(em) {
    return em.fork().insert(Tag, { name: "red" }).catch((error) => error.constructor.name);
  },
  async streams(em) {
    const names = [];
    // MikroORM 6 has none.
    if (!em.stream) return "streamed";
    for await (const tag of em.fork().stream(Tag, { orderBy: { id: 1 } })) {
      names.push(tag.name);
      await em.fork().nativeUpdate(Tag, { id: tag.id }, { name: `${tag.name}!` });
    }
    return names.length > 0 ? "streamed" : names;
  },
  concurrency(em) {
    const work = Array.from({ length: 20 }, (_, i) => em.fork().transactional((fork) => fork.insert(Tag, { name: `concurrent ${i}` })));
    return Promise.all(work).then((ids) => ids.length);
  },
};

const under = process.env.BEMI ? (await import("bemi/mikro-orm")).bemiContext : (_, work) => work();
const generator = orm.schema ?? orm.getSchemaGenerator();
await (generator.create ?? generator.createSchema).call(generator);
for (const [feature, work] of Object.entries(features)) {
  const result = await under({ feature }, () => work(orm.em.fork()));
  console.log(JSON.stringify({ feature, result }));
}
for (const table of ["person", "book", "book_tags", "tag", "node"]) {
  const rows = await orm.em.getConnection().execute(`select to_jsonb(t) as row from "${table}" t order by to_jsonb(t)::text`);
  // Keys of concurrent work differ from run to run.
  for (const { row } of rows) console.log(JSON.stringify({ table, ...row, ...(row.name?.startsWith("concurrent") && { id: 0 }) }));
}
await orm.close();
