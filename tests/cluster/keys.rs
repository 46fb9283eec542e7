//! The keys that name a row in its documents: its own, and the one it had before.
use serde_json::{Value, json};

use crate::Test;
use crate::recorder::{recording, wait_until_recording};
use crate::server::{Database, Server, run};

pub const TESTS: &[Test] = &[
    ("primary_key_is_the_text_of_the_key_columns", keys),
    ("an_update_that_changes_the_key_tells_the_old_one", old_keys),
    ("an_old_key_is_told_with_every_option", old_keys_with_options),
    ("an_old_key_that_cannot_be_written_is_named_once", omitted_keys),
    ("an_old_key_that_the_table_cannot_hold_is_left_out_and_named", too_long),
];

fn keys(server: &Server) {
    let mut database = server.database("keys");
    database.create_slot();
    let changes = database.changes_of(
        "CREATE TABLE composite (b text, v int, a int, PRIMARY KEY (a, b) INCLUDE (v));
         INSERT INTO composite VALUES ('q\"u', 5, 7); DELETE FROM composite;
         CREATE TABLE textual (k text PRIMARY KEY); INSERT INTO textual VALUES (E'a\"\\n\\\\é');
         CREATE TABLE timed (k timestamptz PRIMARY KEY); INSERT INTO timed VALUES ('2026-11-20 11:00+00');
         CREATE TABLE documented (k jsonb PRIMARY KEY); INSERT INTO documented VALUES ('{\"a\": \"b\"}');
         CREATE TABLE arrayed (k int[], l numeric, PRIMARY KEY (k, l)); INSERT INTO arrayed VALUES ('{1,2}', 1.50);
         CREATE TABLE indexed (k int NOT NULL, v int); CREATE UNIQUE INDEX i ON indexed (k);
         ALTER TABLE indexed REPLICA IDENTITY USING INDEX i; INSERT INTO indexed VALUES (3, 4);
         CREATE TABLE keyless (v int); INSERT INTO keyless VALUES (1);
         CREATE TABLE deferred (k int PRIMARY KEY DEFERRABLE); INSERT INTO deferred VALUES (9);
         CREATE TABLE moved (gone int, k int PRIMARY KEY); ALTER TABLE moved DROP COLUMN gone; INSERT INTO moved VALUES (8);",
    );
    let shown: Vec<&Value> = changes.iter().map(|d| &d["primary_key"]).collect();
    let expected = [
        json!("[\"7\",\"q\\\"u\"]"),
        json!("[\"7\",\"q\\\"u\"]"),
        json!("a\"\n\\é"),
        json!("2026-11-20T11:00:00+00:00"),
        json!("{\"a\":\"b\"}"),
        json!("[\"[1,2]\",\"1.50\"]"),
        json!("3"),
        json!(null),
        json!("9"),
        json!("8"),
    ];
    assert_eq!(shown, expected.iter().collect::<Vec<_>>());
    assert_eq!(changes[1]["before"], json!({"a":7,"b":"q\"u"}));
}

/// The operation, the key, and the key before, if it is there.
fn moves(documents: &[Value]) -> Vec<Value> {
    let shown = |d: &Value| match d.get("old_primary_key") {
        Some(old) => json!([d["operation"], d["primary_key"], old]),
        None => json!([d["operation"], d["primary_key"]]),
    };
    documents.iter().map(shown).collect()
}

fn old_keys(server: &Server) {
    let mut database = server.database("old_keys");
    database.create_slot();
    for identity in ["DEFAULT", "FULL"] {
        let lines = |database: &mut Database, statements: &str| -> Vec<String> {
            database.connect().batch_execute(statements).unwrap();
            database.lines()
        };
        let found = lines(
            &mut database,
            &format!(
                "CREATE TABLE t (id int PRIMARY KEY, body text, n int); ALTER TABLE t REPLICA IDENTITY {identity};
                 ALTER TABLE t ALTER body SET STORAGE external; INSERT INTO t VALUES (5, repeat('b', 5000), 1);
                 UPDATE t SET n = 2; UPDATE t SET id = id; UPDATE t SET id = 6; UPDATE t SET id = -7, n = 3; DELETE FROM t; TRUNCATE t; DROP TABLE t"
            ),
        );
        let documents: Vec<Value> = found.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let expected = [
            json!(["CREATE", "5"]),
            json!(["UPDATE", "5"]),
            json!(["UPDATE", "5"]),
            json!(["UPDATE", "6", "5"]),
            json!(["UPDATE", "-7", "6"]),
            json!(["DELETE", "-7"]),
            json!(["TRUNCATE", null]),
        ];
        assert_eq!(moves(&documents), expected, "{identity}");
        let tail = if identity == "FULL" { "}" } else { r#","unchanged":["body"]}"# };
        let tail = format!(r#""context":{{}},"old_primary_key":"5"{tail}"#);
        assert!(found[3].ends_with(&tail), "{}", found[3]);
        // Keys of several columns; text; the same text in other bytes, for the server another value; and a value that
        // lies outside of its row.
        let documents = database.changes_of(&format!(
            "CREATE TABLE two (b text, v int, a int, PRIMARY KEY (a, b)); ALTER TABLE two REPLICA IDENTITY {identity};
             INSERT INTO two VALUES ('q\"u', 5, 7); UPDATE two SET v = 6; UPDATE two SET a = 8; UPDATE two SET b = E'[\\\\\\n\",', v = 7;
             CREATE TABLE textual (k text PRIMARY KEY); ALTER TABLE textual REPLICA IDENTITY {identity};
             INSERT INTO textual VALUES (E'a\"\\n\\\\é'); UPDATE textual SET k = E'\"}},\"x\":{{😀}}\\x01'; UPDATE textual SET k = 'null'; UPDATE textual SET k = '';
             CREATE TABLE precise (k numeric PRIMARY KEY); ALTER TABLE precise REPLICA IDENTITY {identity};
             INSERT INTO precise VALUES (1.0); UPDATE precise SET k = 1.00;
             CREATE TABLE packed (k text PRIMARY KEY); ALTER TABLE packed REPLICA IDENTITY {identity};
             INSERT INTO packed VALUES (repeat('a', 2500)); ALTER TABLE packed ALTER k SET STORAGE plain; UPDATE packed SET k = repeat('a', 2500);
             CREATE TABLE far (k text PRIMARY KEY, n int); ALTER TABLE far ALTER k SET STORAGE external; ALTER TABLE far REPLICA IDENTITY {identity};
             INSERT INTO far VALUES (repeat('a', 2500), 1); UPDATE far SET n = 2; UPDATE far SET k = repeat('b', 2500);
             DROP TABLE two, textual, precise, packed, far",
        ));
        let (a, b) = ("a".repeat(2500), "b".repeat(2500));
        let expected = [
            json!(["CREATE", "[\"7\",\"q\\\"u\"]"]),
            json!(["UPDATE", "[\"7\",\"q\\\"u\"]"]),
            json!(["UPDATE", "[\"8\",\"q\\\"u\"]", "[\"7\",\"q\\\"u\"]"]),
            json!(["UPDATE", "[\"8\",\"[\\\\\\n\\\",\"]", "[\"8\",\"q\\\"u\"]"]),
            json!(["CREATE", "a\"\n\\é"]),
            json!(["UPDATE", "\"},\"x\":{😀}\u{1}", "a\"\n\\é"]),
            json!(["UPDATE", "null", "\"},\"x\":{😀}\u{1}"]),
            json!(["UPDATE", "", "null"]),
            json!(["CREATE", "1.0"]),
            json!(["UPDATE", "1.00", "1.0"]),
            json!(["CREATE", a]),
            json!(["UPDATE", a]),
            json!(["CREATE", a]),
            json!(["UPDATE", a]),
            json!(["UPDATE", b, a]),
        ];
        assert_eq!(moves(&documents), expected, "{identity}");
    }
    // An identity by another index: only where it has all columns of the key.
    let documents = database.changes_of(
        "CREATE TABLE t (id int PRIMARY KEY, code text NOT NULL UNIQUE, UNIQUE (code, id));
         ALTER TABLE t REPLICA IDENTITY USING INDEX t_code_key;
         INSERT INTO t VALUES (1, 'a'); UPDATE t SET id = 2; UPDATE t SET code = 'b'; UPDATE t SET id = 3, code = 'c';
         ALTER TABLE t REPLICA IDENTITY USING INDEX t_code_id_key; UPDATE t SET code = 'd'; UPDATE t SET id = 4;
         ALTER TABLE t REPLICA IDENTITY NOTHING; UPDATE t SET id = 5;
         CREATE TABLE indexed (k int NOT NULL, v int); CREATE UNIQUE INDEX i ON indexed (k); ALTER TABLE indexed REPLICA IDENTITY USING INDEX i;
         INSERT INTO indexed VALUES (3, 4); UPDATE indexed SET v = 5; UPDATE indexed SET k = 4;
         CREATE TABLE keyless (v int); ALTER TABLE keyless REPLICA IDENTITY FULL; INSERT INTO keyless VALUES (1); UPDATE keyless SET v = 2",
    );
    let expected = [
        json!(["CREATE", "1"]),
        json!(["UPDATE", "2"]),
        json!(["UPDATE", "2"]),
        json!(["UPDATE", "3"]),
        json!(["UPDATE", "3"]),
        json!(["UPDATE", "4", "3"]),
        json!(["UPDATE", "5"]),
        json!(["CREATE", "3"]),
        json!(["UPDATE", "3"]),
        json!(["UPDATE", "4", "3"]),
        json!(["CREATE", null]),
        json!(["UPDATE", null]),
    ];
    assert_eq!(moves(&documents), expected);
}

fn old_keys_with_options(server: &Server) {
    let mut database = server.database("old_keys_with_options");
    database.create_slot();
    database
        .connect()
        .batch_execute(
            "CREATE TABLE root (a int, id int, v text, PRIMARY KEY (a, id)) PARTITION BY LIST (a);
             CREATE TABLE one (gone int, v text, id int NOT NULL, a int NOT NULL); ALTER TABLE one DROP gone;
             ALTER TABLE root ATTACH PARTITION one FOR VALUES IN (1); CREATE TABLE two PARTITION OF root FOR VALUES IN (2);
             INSERT INTO root VALUES (1, 1, 'x'); UPDATE root SET v = 'y'; UPDATE root SET id = 2; UPDATE root SET a = 2;
             BEGIN; SELECT bemi.set_context('{\"a\":1}');
             SAVEPOINT s; UPDATE root SET id = id + 10; ROLLBACK TO s; UPDATE root SET id = id + 20;
             INSERT INTO root SELECT 2, i, 'z' FROM generate_series(100, 4000) i; COMMIT",
        )
        .unwrap();
    // Between partitions, a row moves by being deleted and created.
    let expected = [
        json!(["CREATE", "[\"1\",\"1\"]"]),
        json!(["UPDATE", "[\"1\",\"1\"]"]),
        json!(["UPDATE", "[\"1\",\"2\"]", "[\"1\",\"1\"]"]),
        json!(["DELETE", "[\"1\",\"2\"]"]),
        json!(["CREATE", "[\"2\",\"2\"]"]),
        json!(["UPDATE", "[\"2\",\"22\"]", "[\"2\",\"2\"]"]),
    ];
    let options = ["publish-via-partition-root", "include-origin", "numeric-data-types-as-string", "batch-bytes=65536"];
    let documents = database.documents_with(&options);
    assert_eq!(moves(&documents[..6]), expected);
    let keys: Vec<&String> = documents[2].as_object().unwrap().keys().collect();
    assert_eq!(keys[10..], ["before", "after", "context", "old_primary_key", "origin"]);
    assert_eq!(documents[2]["before"], json!({"a":"1","id":"1"}));
    let pretty = database.read(&["pretty-print"]).unwrap();
    assert!(pretty.iter().any(|line| line.trim() == r#""old_primary_key": "[\"1\",\"1\"]""#), "{:?}", &pretty[..40]);
    database
        .connect()
        .batch_execute("ALTER DATABASE old_keys_with_options SET logical_decoding_work_mem = '64kB'")
        .unwrap();
    let streamed = database.documents_with(&["stream-changes"]);
    let old: Vec<Option<&Value>> = streamed[..6].iter().map(|d| d.get("old_primary_key")).collect();
    let (one, two) = (json!("[\"1\",\"1\"]"), json!("[\"2\",\"2\"]"));
    assert_eq!(old, [None, None, Some(&one), None, None, Some(&two)]);
    assert_eq!(streamed[2]["commit_position"], json!(null));
}

/// Labels of an enum type that are gone.
fn omitted_keys(server: &Server) {
    let mut database = server.database("omitted_keys");
    database.create_slot();
    database
        .connect()
        .batch_execute(
            "CREATE TYPE mood AS ENUM ('gone', 'b', 'c'); CREATE TABLE one (m mood PRIMARY KEY); CREATE TABLE two (id int, m mood, PRIMARY KEY (m, id));
             INSERT INTO one VALUES ('gone'); INSERT INTO two VALUES (1, 'gone'); CREATE TABLE kept AS SELECT m FROM one",
        )
        .unwrap();
    database.documents();
    let changes = database.changes_of(
        "DELETE FROM pg_enum WHERE enumlabel = 'gone';
         UPDATE one SET m = 'b'; UPDATE one SET m = 'c'; UPDATE one SET m = (SELECT m FROM kept);
         UPDATE two SET id = 2; UPDATE two SET m = 'b'",
    );
    let shown: Vec<Value> = changes
        .iter()
        .map(|d| json!([d["primary_key"], d["old_primary_key"], d["before"]["m"], d["after"]["m"]]))
        .collect();
    let expected = [
        json!(["b", null, null, "b"]),
        json!(["c", "b", "b", "c"]),
        json!([null, "c", "c", null]),
        json!([null, null, null, null]),
        json!(["[\"b\",\"2\"]", null, null, "b"]),
    ];
    assert_eq!(shown, expected);
    for (i, change) in changes.iter().enumerate() {
        let names: Vec<&str> =
            change["omitted"].as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, if i == 1 { &[][..] } else { &["m"] }, "{change}");
        assert_eq!(change.get("old_primary_key").is_some(), [1, 2].contains(&i), "{change}");
    }
}

/// A key before a change that is longer than an index holds.
fn too_long(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "old_keys_too_long");
    run(&mut client, "CREATE TABLE long (a text, b text, v int, PRIMARY KEY (a, b)); SELECT bemi.track('long')");
    let long = "(SELECT repeat(chr(1), 100) || string_agg(md5(i::text), '') FROM generate_series(1, 70) i)";
    client.batch_execute(&format!("INSERT INTO long VALUES ({long}, 'b', 7)")).unwrap();
    // As long as the one before is, neither is there.
    client
        .batch_execute(&format!(
            "UPDATE long SET v = 8; UPDATE long SET b = 'c'; UPDATE long SET a = 's'; UPDATE long SET a = 't'; UPDATE long SET a = {long}"
        ))
        .unwrap();
    run(&mut client, "SELECT bemi.sync()");
    let statement = "SELECT jsonb_build_array(primary_key, old_primary_key, omitted)::text FROM bemi.changes ORDER BY commit_position, sequence OFFSET 1";
    let rows = client.query(statement, &[]).unwrap();
    let shown: Vec<Value> = rows.iter().map(|row| serde_json::from_str(row.get(0)).unwrap()).collect();
    let reason = "the table cannot hold it";
    let both = json!([null, null, {"primary_key": reason, "old_primary_key": reason}]);
    let expected = [
        json!([null, null, {"primary_key": reason}]),
        both.clone(),
        both.clone(),
        json!(["[\"t\",\"c\"]", "[\"s\",\"c\"]", null]),
        both,
    ];
    assert_eq!(shown, expected);
    wait_until_recording(&mut client);
}
