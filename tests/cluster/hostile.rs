//! What must not stop decoding.
use serde_json::{Value, json};

use crate::Test;
use crate::context::table;
use crate::server::{Server, contexts, sqlstate};

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} of {value}"))
}

pub const TESTS: &[Test] = &[
    ("messages_that_are_no_context_do_not_stop_decoding", garbage_messages),
    ("values_that_cannot_be_written_are_omitted_and_named", omitted),
    ("json_that_jsonb_cannot_hold_is_omitted", json_values),
    ("columns_that_are_omitted_are_each_named", omitted_names),
    ("messages_too_long_for_an_encoding_do_not_stop_decoding", long_messages),
    ("names_in_another_encoding_than_the_database_are_valid_all_the_same", foreign_names),
    ("types_that_nest_deep_or_wide_do_not_stop_decoding", deep_types),
    ("an_aborted_transaction_that_was_spilled_does_not_stop_decoding", aborted),
    ("databases_in_other_encodings_give_ascii_documents", encodings),
];

fn garbage_messages(server: &Server) {
    let mut database = table(server, "garbage_messages");
    let row = "INSERT INTO t (v) VALUES ('x');";
    let emit =
        |content: &str| format!("BEGIN; SELECT pg_logical_emit_message(true, '_bemi', {content}); {row} COMMIT;");
    let contents = [
        ("'garbage'", json!({"bemi_invalid_context":"garbage"})),
        ("''", json!({"bemi_invalid_context":""})),
        ("'[1]'", json!({"bemi_invalid_context":"[1]"})),
        ("'{\"a\":\"\\u0000\"}'", json!({"bemi_invalid_context":"{\"a\":\"\\u0000\"}"})),
        ("'\\xfffe7b7d'::bytea", json!({"bemi_invalid_context":"\u{FFFD}\u{FFFD}{}"})),
        ("'\\x00'::bytea", json!({"bemi_invalid_context":"\u{FFFD}"})),
        ("E'{\\n \"a\" :\\t1 }'", json!({"a":1})),
        ("repeat('x', 10000000)", json!({"bemi_invalid_context":"x".repeat(1024)})),
        ("repeat('[', 10000000)", json!({"bemi_invalid_context":"[".repeat(1024)})),
        (
            "'{\"a\":\"' || repeat('y', 10000000) || '\"}'",
            json!({"bemi_invalid_context":format!("{{\"a\":\"{}", "y".repeat(1018))}),
        ),
    ];
    for (content, expected) in contents {
        let changes = database.changes_of(&emit(content));
        assert!(contexts(&changes) == [expected], "{content:.50}: {:.200}", changes[0].to_string());
    }
    // Messages with other prefixes and outside of transactions are not ours.
    let changes = database.changes_of(&format!(
        "BEGIN; SELECT pg_logical_emit_message(true, '_bem', '{{\"a\":1}}'), pg_logical_emit_message(true, '_bemi2', '{{\"a\":1}}'),
         pg_logical_emit_message(false, '_bemi', '{{\"a\":1}}'); {row} COMMIT;"
    ));
    assert_eq!(contexts(&changes), [json!({})]);
}

/// A type whose output function raises an error, and one whose function is gone.
fn omitted(server: &Server) {
    let mut database = table(server, "omitted");
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE TYPE odd;
             CREATE FUNCTION odd_in(cstring) RETURNS odd LANGUAGE internal IMMUTABLE STRICT AS 'int4in';
             CREATE FUNCTION odd_out(odd) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'enum_out';
             CREATE TYPE odd (INPUT = odd_in, OUTPUT = odd_out, LIKE = int4);
             CREATE TYPE pair AS (a int, o odd);
             CREATE TABLE o (id int PRIMARY KEY, v odd, w text, p pair, a odd[]);
             ALTER TABLE o REPLICA IDENTITY FULL;
             INSERT INTO o VALUES (1, '5', 'kept', ROW(1, '6'), NULL), (2, NULL, 'kept', NULL, '{7}');
             UPDATE o SET w = 'more';",
        )
        .unwrap();
    let changes = database.documents();
    assert_eq!(changes.len(), 4);
    assert_eq!(changes[0]["after"], json!({"id":1,"v":null,"w":"kept","p":null,"a":null}));
    let reason = "invalid internal value for enum: ";
    assert_eq!(changes[0]["omitted"], json!({"v":format!("{reason}5"),"p":format!("{reason}6")}));
    assert_eq!(changes[1]["after"], json!({"id":2,"v":null,"w":"kept","p":null,"a":null}));
    assert_eq!(changes[1]["omitted"], json!({"a":format!("{reason}7")}));
    assert_eq!(changes[2]["omitted"], changes[0]["omitted"]);
    assert_eq!(changes[3]["primary_key"], json!("2"));
    client
        .batch_execute(
            "CREATE FUNCTION gone_out(odd) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'int4out';
             UPDATE pg_type SET typoutput = 'gone_out'::regproc WHERE typname = 'odd';
             UPDATE pg_proc SET prolang = (SELECT oid FROM pg_language WHERE lanname = 'c'), probin = '$libdir/gone', prosrc = 'gone_out' WHERE proname = 'gone_out';
             ALTER TABLE o ADD x int; INSERT INTO o VALUES (3, '5', 'kept', ROW(1, '6'), '{7}')",
        )
        .unwrap();
    let changes = database.documents();
    assert_eq!(changes[0]["after"], json!({"id":3,"v":null,"w":"kept","p":null,"a":null,"x":null}));
    for column in ["v", "p", "a"] {
        assert!(text(&changes[0]["omitted"], column).contains("gone"), "{}", changes[0]);
    }
    // Far above what fits: text that doubles when it is escaped.
    client
        .batch_execute(
            "CREATE TABLE big (id int PRIMARY KEY, a text, b text, c text);
             ALTER TABLE big ALTER a SET STORAGE main; ALTER TABLE big ALTER b SET STORAGE main;
             INSERT INTO big VALUES (1, repeat('\"', 400000000), repeat('\"', 200000000), 'end')",
        )
        .unwrap();
    let lines = database.lines();
    let document: Value = serde_json::from_str(&lines[0]).unwrap();
    let reason = "the value would be longer than 67108864 bytes";
    assert_eq!(document["omitted"], json!({"a":reason,"b":reason}));
    assert_eq!(document["after"], json!({"id":1,"a":null,"b":null,"c":"end"}));
    // Where text is escaped, it is as long as its escapes: 12 million characters of six bytes.
    let mut latin1 =
        server.database_with("omitted_latin1", "ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'");
    latin1.create_slot();
    let changes = latin1.changes_of(
        "CREATE TABLE big (id int PRIMARY KEY, a text); INSERT INTO big VALUES (1, repeat(chr(233), 12000000))",
    );
    assert_eq!(changes[0]["omitted"], json!({"a":reason}));
    // The slot still works.
    assert_eq!(database.changes_of("INSERT INTO t (v) VALUES ('x')").len(), 1);
}

fn json_values(server: &Server) {
    let mut database = server.database("json_values");
    database.create_slot();
    let changes = database.changes_of(
        "CREATE TABLE j (j json);
         INSERT INTO j VALUES ('{\"a\":\"\\u0000\"}'), ('\"\\ud800\"'), ('[1e999999]'), (E'{\\n\"a\" : [ 1,\\t\"b c\" ] }'), ('{\"a\":1,\"a\":2}');",
    );
    assert!(text(&changes[0]["omitted"], "j").contains("\\u0000"));
    assert_eq!(changes[0]["after"], json!({"j":null}));
    assert!(text(&changes[1]["omitted"], "j").contains("surrogate"));
    assert!(text(&changes[2]["omitted"], "j").contains("numeric"));
    assert_eq!(changes[3]["after"], json!({"j":{"a":[1,"b c"]}}));
    assert_eq!(changes[4]["after"], json!({"j":{"a":2}}));
}

fn omitted_names(server: &Server) {
    let mut database = server.database("omitted_names");
    database.create_slot();
    let changes = database.changes_of(
        "CREATE TABLE o (\"x\"\"a\" json, a json, id int PRIMARY KEY); INSERT INTO o VALUES ('\"\\u0000\"', '\"\\u0000\"', 1)",
    );
    let names: Vec<&String> = changes[0]["omitted"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["x\"a", "a"]);
}

/// In UTF-8 they would be longer than the server can hold.
fn long_messages(server: &Server) {
    let mut database =
        server.database_with("long_messages", "ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'");
    database.create_slot();
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE TABLE t (id int); BEGIN; SELECT pg_logical_emit_message(true, '_bemi', repeat(chr(233), 70000000));
             INSERT INTO t VALUES (1); COMMIT; SELECT pg_logical_emit_message(false, 'z', repeat(chr(233), 560000000)); INSERT INTO t VALUES (2)",
        )
        .unwrap();
    let documents = database.documents_with(&["add-msg-prefixes=z"]);
    assert_eq!(documents.len(), 3);
    let row = documents.iter().find(|d| d["after"]["id"] == json!(1)).unwrap();
    let shown = text(&row["context"], "bemi_invalid_context");
    assert!(shown.starts_with("éé") && shown.chars().all(|c| c == 'é') && shown.len() == 1024, "{shown:.20}");
    let message = documents.iter().find(|d| d["operation"] == json!("MESSAGE")).unwrap();
    assert_eq!(message["content_bytes"], json!(null));
    assert_eq!(message["omitted"], json!({"content_bytes":"the document would be longer than 1000000000 bytes"}));
    database.documents();
}

/// A role whose name was made from a LATIN1 database, seen from one in UTF-8.
fn foreign_names(server: &Server) {
    let latin1 =
        server.database_with("foreign_latin1", "ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'");
    latin1.connect().batch_execute("CREATE ROLE \"café\"").unwrap();
    let mut database = server.database("foreign_utf8");
    database.create_slot();
    let changes = database.changes_of(
        "CREATE TABLE r (id int, r regrole);
         INSERT INTO r SELECT 1, oid::regrole FROM pg_roles WHERE rolname LIKE 'caf%'",
    );
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0]["after"], json!({"id":1,"r":null}));
    let reason = json!({"r":"invalid byte sequence for encoding \"UTF8\""});
    assert_eq!(changes[0]["omitted"], reason);
}

/// Types that nest deeper than the stack holds, and types that use one another a million times over.
fn deep_types(server: &Server) {
    let mut database = server.database("deep_types");
    database.create_slot();
    let mut client = database.connect();
    // Beside other tests these types alone may take longer than a statement is allowed to.
    client.batch_execute("SET statement_timeout = 0").unwrap();
    client
        .batch_execute(
            "DO $$ BEGIN CREATE TYPE deep_0 AS (a int);
               FOR i IN 1..5000 LOOP EXECUTE format('CREATE TYPE deep_%s AS (a deep_%s)', i, i - 1); IF i % 500 = 0 THEN COMMIT; END IF; END LOOP;
             END $$",
        )
        .unwrap();
    let changes = database.changes_of(
        "DO $$ BEGIN CREATE TYPE fan_0 AS (a int);
           FOR i IN 1..19 LOOP EXECUTE format('CREATE TYPE fan_%s AS (a fan_%2$s, b fan_%2$s)', i, i - 1); END LOOP;
         END $$;
         CREATE TABLE d (id int PRIMARY KEY, c deep_5000, f fan_19, g fan_2);
         INSERT INTO d VALUES (1, NULL, NULL, ROW(ROW(ROW(1), NULL), NULL));",
    );
    assert_eq!(changes[0]["after"], json!({"id":1,"c":null,"f":null,"g":{"a":{"a":{"a":1},"b":null},"b":null}}));
}

fn encodings(server: &Server) {
    for (name, encoding, text) in [
        ("latin1", "LATIN1", "Crème brûlée"),
        ("euc_jp", "EUC_JP", "日本語テキスト"),
        ("sql_ascii", "SQL_ASCII", "Crème 日本"),
    ] {
        let mut database = server
            .database_with(name, &format!("ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"));
        database.create_slot();
        let mut client = database.connect();
        client
            .batch_execute(&format!(
                "CREATE TABLE \"{text}\" (\"id {text}\" text PRIMARY KEY, j json, jb jsonb); SELECT bemi.track('\"{text}\"');
                 SELECT bemi.set_context('{{\"{text}\":\"{text}\"}}');
                 INSERT INTO \"{text}\" VALUES ('{text}', '{{\"a\":\"{text}\"}}', '{{\"a\":\"{text}\"}}');
                 INSERT INTO \"{text}\" VALUES ('2') /*Bemi {{\"comment\":\"{text}\"}} Bemi*/;"
            ))
            .unwrap_or_else(|e| panic!("{name}: {e:?}"));
        let lines = database.lines();
        assert!(lines.iter().all(|line| line.is_ascii()), "{name}: {lines:?}");
        let documents: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(documents[0]["table"], json!(text));
        assert_eq!(documents[0]["primary_key"], json!(text));
        assert_eq!(documents[0]["after"], json!({format!("id {text}"):text,"j":{"a":text},"jb":{"a":text}}));
        assert_eq!(documents[0]["context"], json!({text:text}));
        assert_eq!(documents[1]["context"], json!({text:text,"comment":text}));
        client.batch_execute("SELECT bemi.merge_context('{\"a\":1}')").unwrap();
        let same = format!("SELECT bemi.context() = '{{\"{text}\":\"{text}\",\"a\":1}}'::jsonb");
        assert!(client.query_one(&same, &[]).unwrap().get::<_, bool>(0), "{name}");
        if name != "euc_jp" {
            let state = sqlstate(client.batch_execute("SELECT bemi.set_context('{\"a\":\"\\u65e5\"}')"));
            assert!(["22P05", "0A000"].contains(&state.as_str()), "{state}");
        }
    }
}

/// PostgreSQL 18 calls the plugin for the savepoints of such a transaction.
fn aborted(server: &Server) {
    let database = table(server, "aborted");
    let mut client = database.connect();
    client
        .batch_execute(
            "BEGIN; INSERT INTO t (v) VALUES ('top'); SAVEPOINT a; INSERT INTO t (v) VALUES ('sub'); RELEASE a;
             INSERT INTO t (v) SELECT repeat('x', 100) FROM generate_series(1, 3000); ROLLBACK;
             INSERT INTO t (v) VALUES ('kept'); SET logical_decoding_work_mem = '64kB'",
        )
        .unwrap();
    let rows = client.query("SELECT data FROM pg_logical_slot_get_changes('aborted', NULL, NULL)", &[]).unwrap();
    assert_eq!(rows.len(), 1);
    assert!(rows[0].get::<_, String>(0).contains("kept"));
}
