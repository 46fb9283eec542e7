//! The documents that come out of `pg_recvlogical`.
use serde_json::{Value, json};

use crate::Test;
use crate::context::table;
use crate::server::Server;

pub const TESTS: &[Test] = &[
    ("a_document_has_the_keys_of_the_contract_in_their_order", document),
    ("before_holds_what_the_replica_identity_logged", replica_identities),
    ("names_of_every_kind_are_told_as_they_are", names),
    ("columns_added_dropped_and_renamed_are_told_as_of_the_change", altered_columns),
    ("schemas_tables_types_and_labels_renamed_are_told_as_of_the_change", renamed),
    ("unchanged_toast_is_filled_from_before_or_named", toast),
    ("copy_gives_a_document_for_each_row_and_stays_a_bulk_load", copy),
    ("a_truncate_gives_a_document_for_each_table", truncate),
    ("composite_types_may_change_between_changes", composites),
    ("stored_generated_columns_are_shown_and_virtual_ones_are_not", generated_columns),
    ("what_is_no_table_is_not_shown", no_tables),
    ("both_readers_give_the_same_documents", sql_interface),
];

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} of {value}"))
}

fn document(server: &Server) {
    let mut database = server.database("document");
    database.create_slot();
    database
        .connect()
        .batch_execute(
            "CREATE TABLE todo (id int PRIMARY KEY, task text, is_completed boolean);
             ALTER TABLE todo REPLICA IDENTITY FULL;
             SELECT bemi.track('todo');
             INSERT INTO todo VALUES (26, 'Sleep', false);",
        )
        .unwrap();
    let mut client = database.connect();
    client
        .batch_execute(
            "SELECT bemi.set_context('{\"user_id\":187234,\"endpoint\":\"/todo/complete\"}');
             UPDATE todo SET is_completed = true; DELETE FROM todo;",
        )
        .unwrap();
    let lines = database.lines();
    assert_eq!(lines.len(), 3);
    let documents: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let keys: Vec<_> = documents[1].as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "position",
        "commit_position",
        "sequence",
        "transaction_id",
        "committed_at",
        "database",
        "schema",
        "table",
        "operation",
        "primary_key",
        "before",
        "after",
        "context",
    ];
    assert_eq!(keys, expected);
    let tail = concat!(
        r#""database":"document","schema":"public","table":"todo","operation":"UPDATE","primary_key":"26","#,
        r#""before":{"id":26,"task":"Sleep","is_completed":false},"after":{"id":26,"task":"Sleep","is_completed":true},"#,
        r#""context":{"user_id":187234,"endpoint":"/todo/complete"}}"#
    );
    assert!(lines[1].ends_with(tail), "{}", lines[1]);
    assert_eq!(documents[0]["before"], json!({}));
    assert_eq!(documents[2]["after"], json!({}));
    assert_eq!(documents[2]["primary_key"], json!("26"));
    assert_eq!((&documents[1]["sequence"], &documents[2]["sequence"]), (&json!(1), &json!(2)));
    assert_eq!(documents[1]["commit_position"], documents[2]["commit_position"]);
    assert_eq!(documents[1]["transaction_id"], documents[2]["transaction_id"]);
    // The time and the positions are the server's.
    for document in &documents {
        let row = client
            .query_one(
                "SELECT abs(extract(epoch FROM now() - $1::text::timestamptz)) < 60, $2::text::pg_lsn < $3::text::pg_lsn,
                        $1::text = to_jsonb($1::text::timestamptz) #>> '{}'
                 FROM set_config('TimeZone', 'UTC', false)",
                &[&text(document, "committed_at"), &text(document, "position"), &text(document, "commit_position")],
            )
            .unwrap();
        assert_eq!((row.get(0), row.get(1), row.get(2)), (true, true, true), "{document}");
    }
}

fn replica_identities(server: &Server) {
    let mut database = server.database("replica_identities");
    database.create_slot();
    let changes = database.changes_of(
        "CREATE TABLE t (id int PRIMARY KEY, code text NOT NULL UNIQUE, v text);
         INSERT INTO t VALUES (1, 'a', 'x');
         UPDATE t SET v = 'y'; UPDATE t SET id = 2; DELETE FROM t;
         ALTER TABLE t REPLICA IDENTITY USING INDEX t_code_key;
         INSERT INTO t VALUES (1, 'a', 'x');
         UPDATE t SET v = 'y'; UPDATE t SET code = 'b'; DELETE FROM t;
         ALTER TABLE t REPLICA IDENTITY FULL;
         INSERT INTO t VALUES (1, 'a', 'x');
         UPDATE t SET v = 'y'; UPDATE t SET id = 2; DELETE FROM t;
         ALTER TABLE t REPLICA IDENTITY NOTHING;
         INSERT INTO t VALUES (1, 'a', 'x');
         UPDATE t SET v = 'y'; UPDATE t SET id = 2; DELETE FROM t;",
    );
    let shown: Vec<Value> = changes.iter().map(|d| json!([d["primary_key"], d["before"], d["after"]])).collect();
    let row = |id: i32, code: &str, v: &str| json!({"id":id,"code":code,"v":v});
    let none = json!({});
    let expected = [
        json!(["1", none, row(1, "a", "x")]),
        json!(["1", none, row(1, "a", "y")]),
        json!(["2", {"id":1}, row(2, "a", "y")]),
        json!(["2", {"id":2}, none]),
        json!(["1", none, row(1, "a", "x")]),
        json!(["1", none, row(1, "a", "y")]),
        json!(["1", {"code":"a"}, row(1, "b", "y")]),
        json!([null, {"code":"b"}, none]),
        json!(["1", none, row(1, "a", "x")]),
        json!(["1", row(1, "a", "x"), row(1, "a", "y")]),
        json!(["2", row(1, "a", "y"), row(2, "a", "y")]),
        json!(["2", row(2, "a", "y"), none]),
        json!(["1", none, row(1, "a", "x")]),
        json!(["1", none, row(1, "a", "y")]),
        json!(["2", none, row(2, "a", "y")]),
        json!([null, none, none]),
    ];
    assert_eq!(shown, expected);
}

fn names(server: &Server) {
    let database = server.database("Da \"ta\" é");
    database
        .connect()
        .batch_execute(
            "CREATE SCHEMA \"Sche.ma\"; CREATE TABLE \"Sche.ma\".\"ta\"\"ble\\ /*x*/ 日本\" (\"ID\" int PRIMARY KEY, \"co'l\nu\tmn\" text, \"$1;--\" int);
             SELECT bemi.track('\"Sche.ma\".\"ta\"\"ble\\ /*x*/ 日本\"');",
        )
        .unwrap();
    let mut client = database.connect();
    client.batch_execute("SELECT pg_create_logical_replication_slot('names', 'bemi_decoder')").unwrap();
    client.batch_execute("SELECT bemi.set_context('{\"é\\n\":\"日本\"}'); INSERT INTO \"Sche.ma\".\"ta\"\"ble\\ /*x*/ 日本\" VALUES (1, E'\\x01\\x7f😀', 2)").unwrap();
    let row = client
        .query_one("SELECT string_agg(data, '') FROM pg_logical_slot_get_changes('names', NULL, NULL)", &[])
        .unwrap();
    let document: Value = serde_json::from_str(row.get(0)).unwrap();
    assert_eq!(document["database"], json!("Da \"ta\" é"));
    assert_eq!(document["schema"], json!("Sche.ma"));
    assert_eq!(document["table"], json!("ta\"ble\\ /*x*/ 日本"));
    assert_eq!(document["after"], json!({"ID":1,"co'l\nu\tmn":"\u{1}\u{7f}😀","$1;--":2}));
    assert_eq!(document["context"], json!({"é\n":"日本"}));
}

fn altered_columns(server: &Server) {
    let mut database = table(server, "altered_columns");
    let changes = database.changes_of(
        "BEGIN;
         INSERT INTO t VALUES (1, 'a');
         ALTER TABLE t ADD COLUMN n int DEFAULT 7; ALTER TABLE t REPLICA IDENTITY FULL;
         UPDATE t SET v = 'b';
         ALTER TABLE t DROP COLUMN v; ALTER TABLE t RENAME n TO m;
         UPDATE t SET m = 8;
         ALTER TABLE t ALTER m TYPE text USING 'm' || m;
         UPDATE t SET m = m || '!';
         ALTER TABLE t RENAME TO u;
         DELETE FROM u;
         COMMIT;",
    );
    let shown: Vec<Value> = changes.iter().map(|d| json!([d["table"], d["before"], d["after"]])).collect();
    let expected = [
        json!(["t", {}, {"id":1,"v":"a"}]),
        json!(["t", {"id":1,"v":"a","n":7}, {"id":1,"v":"b","n":7}]),
        json!(["t", {"id":1,"m":7}, {"id":1,"m":8}]),
        json!(["t", {"id":1,"m":"m8"}, {"id":1,"m":"m8!"}]),
        json!(["u", {"id":1,"m":"m8!"}, {}]),
    ];
    assert_eq!(shown, expected);
}

fn renamed(server: &Server) {
    let mut database = server.database("renamed");
    database.create_slot();
    let changes = database.changes_of(
        "CREATE SCHEMA one; CREATE TYPE mood AS ENUM ('sad'); CREATE TABLE one.t (m mood);
         INSERT INTO one.t VALUES ('sad');
         ALTER SCHEMA one RENAME TO two;
         INSERT INTO two.t VALUES ('sad');
         ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'; ALTER TABLE two.t SET SCHEMA public;
         INSERT INTO t VALUES ('blue');",
    );
    let shown: Vec<Value> = changes.iter().map(|d| json!([d["schema"], d["after"]["m"]])).collect();
    assert_eq!(shown, [json!(["one", "sad"]), json!(["two", "sad"]), json!(["public", "blue"])]);
}

fn toast(server: &Server) {
    let mut database = server.database("toast");
    database.create_slot();
    // Text that does not compress, so that it lies outside of its row.
    let changes = database.changes_of(
        "CREATE TABLE t (id int PRIMARY KEY, body text, more text, n int);
         ALTER TABLE t ALTER body SET STORAGE external; ALTER TABLE t ALTER more SET STORAGE external;
         INSERT INTO t VALUES (1, repeat('b', 100000), repeat('m', 50000), 1);
         UPDATE t SET n = 2;
         UPDATE t SET more = 'short';
         ALTER TABLE t REPLICA IDENTITY FULL;
         UPDATE t SET n = 3;
         DELETE FROM t;
         CREATE TABLE c (id int PRIMARY KEY, body text); INSERT INTO c VALUES (1, repeat('compress me ', 10000)); UPDATE c SET body = body || '!';",
    );
    let (body, more) = ("b".repeat(100_000), "m".repeat(50_000));
    assert_eq!(changes[0]["after"], json!({"id":1,"body":body,"more":more,"n":1}));
    assert_eq!(changes[0].get("unchanged"), None);
    assert_eq!(changes[1]["after"], json!({"id":1,"n":2}));
    assert_eq!(changes[1]["unchanged"], json!(["body", "more"]));
    assert_eq!(changes[2]["after"], json!({"id":1,"more":"short","n":2}));
    assert_eq!(changes[2]["unchanged"], json!(["body"]));
    assert_eq!(changes[3]["before"], json!({"id":1,"body":body,"more":"short","n":2}));
    assert_eq!(changes[3]["after"], json!({"id":1,"body":body,"more":"short","n":3}));
    assert_eq!(changes[3].get("unchanged"), None);
    assert_eq!(changes[4]["before"], json!({"id":1,"body":body,"more":"short","n":3}));
    assert_eq!(changes[5]["after"]["body"], json!("compress me ".repeat(10_000)));
    assert_eq!(changes[6]["after"]["body"], json!("compress me ".repeat(10_000) + "!"));
}

/// On a server of its own, since pg_waldump stumbles over segments that others are just making.
fn copy(_: &Server) {
    use std::io::Write;
    let server = Server::start("");
    let mut database = table(&server, "copy");
    let mut client = database.connect();
    client.batch_execute("SELECT bemi.set_context('{\"job\":\"import\"}')").unwrap();
    let start: String = client.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).unwrap().get(0);
    let mut writer = client.copy_in("COPY t (id, v) FROM STDIN").unwrap();
    for i in 1..=100_000 {
        writeln!(writer, "{i}\trow {i}").unwrap();
    }
    writer.finish().unwrap();
    let documents = database.documents();
    assert_eq!(documents.len(), 100_000);
    for (i, document) in documents.iter().enumerate() {
        assert_eq!(document["sequence"], json!(i + 1));
        assert_eq!(document["primary_key"], json!((i + 1).to_string()));
        assert_eq!(document["context"], json!({"job":"import"}));
    }
    // One COPY of so many rows, row by row, would be as many INSERT records.
    let folder: String = client.query_one("SELECT current_setting('data_directory') || '/pg_wal'", &[]).unwrap().get(0);
    let xid = documents[0]["transaction_id"].to_string();
    let end: String = client.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).unwrap().get(0);
    let mut dump = server.program("pg_waldump", &database.name);
    dump.args(["-p", &folder, "-s", &start, "-e", &end, "-x", &xid]);
    let records = String::from_utf8(server.check(&mut dump).stdout).unwrap();
    let multi = records.lines().filter(|line| line.contains("MULTI_INSERT")).count();
    assert!(multi > 100, "{multi} multi-insert records");
    let single = records.lines().filter(|line| line.contains("rmgr: Heap ") && line.contains("desc: INSERT")).count();
    assert!(single < 1000, "{single} single inserts");
    server.stop();
}

fn truncate(server: &Server) {
    let mut database = server.database("truncate");
    database.create_slot();
    let changes = database.changes_of(
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int REFERENCES a); CREATE TABLE c (id int);
         TRUNCATE a, c CASCADE;",
    );
    let mut tables: Vec<&str> = changes.iter().map(|d| text(d, "table")).collect();
    tables.sort_unstable();
    assert_eq!(tables, ["a", "b", "c"]);
    for (i, document) in changes.iter().enumerate() {
        assert_eq!(document["operation"], json!("TRUNCATE"));
        assert_eq!(
            (&document["before"], &document["after"], &document["primary_key"]),
            (&json!({}), &json!({}), &json!(null))
        );
        assert_eq!(document["sequence"], json!(i + 1));
    }
}

fn composites(server: &Server) {
    let mut database = server.database("composites");
    database.create_slot();
    let changes = database.changes_of(
        "CREATE TYPE inner_type AS (x int, y text); CREATE TYPE outer_type AS (i inner_type, list inner_type[]);
         CREATE TABLE c (o outer_type);
         INSERT INTO c VALUES (ROW(ROW(1, 'a'), ARRAY[ROW(2, NULL)::inner_type, NULL]));
         ALTER TYPE inner_type ADD ATTRIBUTE z int;
         INSERT INTO c VALUES (ROW(ROW(1, 'a', 5), ARRAY[ROW(2, NULL, 6)::inner_type]));
         ALTER TYPE inner_type RENAME ATTRIBUTE x TO w; ALTER TYPE inner_type DROP ATTRIBUTE y;
         INSERT INTO c VALUES (ROW(ROW(1, 5), '{}'));",
    );
    let shown: Vec<&Value> = changes.iter().map(|d| &d["after"]["o"]).collect();
    let expected = [
        json!({"i":{"x":1,"y":"a"},"list":[{"x":2,"y":null},null]}),
        json!({"i":{"x":1,"y":"a","z":5},"list":[{"x":2,"y":null,"z":6}]}),
        json!({"i":{"w":1,"z":5},"list":[]}),
    ];
    assert_eq!(shown, expected.iter().collect::<Vec<_>>());
}

fn generated_columns(server: &Server) {
    let mut database = server.database("generated_columns");
    database.create_slot();
    let changes = database
        .changes_of("CREATE TABLE g (a int, s int GENERATED ALWAYS AS (a * 2) STORED); INSERT INTO g VALUES (2)");
    assert_eq!(changes[0]["after"], json!({"a":2,"s":4}));
    if server.major >= 18 {
        let changes = database
            .changes_of("ALTER TABLE g ADD v int GENERATED ALWAYS AS (a * 3) VIRTUAL; INSERT INTO g VALUES (3)");
        assert_eq!(changes[0]["after"], json!({"a":3,"s":6}));
    }
}

fn no_tables(server: &Server) {
    let mut database = table(server, "no_tables");
    let changes = database.changes_of(
        "CREATE SEQUENCE s; SELECT nextval('s'); CREATE MATERIALIZED VIEW m AS SELECT 1 AS one; CREATE UNIQUE INDEX ON m (one);
         REFRESH MATERIALIZED VIEW CONCURRENTLY m; CREATE UNLOGGED TABLE u (id int); INSERT INTO u VALUES (1);
         CREATE TABLE made AS SELECT 1 AS one; ALTER TABLE made ALTER one TYPE bigint;",
    );
    let shown: Vec<_> = changes.iter().map(|d| (text(d, "table"), text(d, "operation"))).collect();
    assert_eq!(shown, [("made", "CREATE")]);
}

fn sql_interface(server: &Server) {
    let mut database = table(server, "sql_interface");
    let mut client = database.connect();
    client.batch_execute("SELECT bemi.set_context('{\"a\":1}'); INSERT INTO t (v) SELECT i::text FROM generate_series(1, 100) i; UPDATE t SET v = 'x'; DELETE FROM t WHERE id < 10; TRUNCATE t").unwrap();
    let rows = client.query("SELECT data FROM pg_logical_slot_peek_changes('sql_interface', NULL, NULL)", &[]).unwrap();
    let data: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(data.len(), 210);
    assert_eq!(data, database.lines());
}
