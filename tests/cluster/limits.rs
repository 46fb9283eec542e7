//! What is too long is left out by itself, and needs no memory; contexts, options and new slots know their limits.
use serde_json::{Value, json};

use crate::Test;
use crate::context::table;
use crate::recorder::{recording, running_recorder};
use crate::server::{Server, address_space_kb, contexts, most_resident_kb, resident_kb, sqlstate, wait_until};

pub const TESTS: &[Test] = &[
    ("a_member_that_is_too_long_is_left_out_alone", members),
    ("an_image_that_is_too_long_keeps_its_small_members", images),
    ("values_that_are_left_out_need_no_memory", memory),
    ("a_reader_without_memory_fails_alone_and_loses_nothing", no_memory),
    ("a_foreign_context_longer_than_the_setting_is_shown_as_invalid", foreign_contexts),
    ("a_context_is_told_once_if_it_is_not_repeated", not_repeated),
    ("a_change_can_name_the_oid_of_its_table", relation_oid),
    ("a_long_option_is_refused", long_option),
    ("a_slot_for_prepared_transactions_is_made_beside_them", new_slot),
];

const VALUE: &str = "the value would be longer than 67108864 bytes";
const IMAGE: &str = "the row would be longer than 134217728 bytes";

fn members(server: &Server) {
    let mut database = server.database("limits_members");
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE TYPE pair AS (a text, b int);
             CREATE TABLE l (id int PRIMARY KEY, a text, b bytea, c json, d jsonb, e text[], f pair, g varchar, h text, i numeric);
             ALTER TABLE l REPLICA IDENTITY FULL",
        )
        .unwrap();
    database.create_slot();
    // At the limit, and one byte above it; bytea is twice as long in JSON, and quotes are.
    client
        .batch_execute(
            "INSERT INTO l (id, a, h, i) VALUES (1, repeat('x', 67108862), 'end', 1.5), (2, repeat('x', 67108863), 'end', 2.5);
             INSERT INTO l (id, b, h) VALUES (3, convert_to(repeat('x', 33554430), 'UTF8'), 'end');
             INSERT INTO l (id, g, h) VALUES (5, repeat('\"', 33554432), 'end');
             INSERT INTO l (id, c, h) VALUES (7, ('[1' || repeat(' ', 70000000) || ']')::json, 'end');
             INSERT INTO l (id, d, h) VALUES (8, ('{\"a\":\"' || repeat('x', 68000000) || '\"}')::jsonb, 'end');
             INSERT INTO l (id, e, h) VALUES (9, array_fill(repeat('x', 1000000), ARRAY[68]), 'end');
             INSERT INTO l (id, f, h) VALUES (10, ROW(repeat('x', 67108864), 1), 'end');
             UPDATE l SET h = 'later' WHERE id = 2",
        )
        .unwrap();
    let documents = database.documents();
    assert_eq!(documents.len(), 9);
    for (document, left_out) in documents.iter().zip(["", "a", "b", "g", "", "d", "e", "f", "a"]) {
        let expected = if left_out.is_empty() { Value::Null } else { json!({left_out:VALUE}) };
        assert_eq!(document["omitted"], expected, "{:.300}", document.to_string());
        if !left_out.is_empty() {
            assert_eq!(document["after"][left_out], Value::Null);
        }
        let is_update = document["operation"] == "UPDATE";
        assert_eq!(document["after"]["h"], if is_update { "later" } else { "end" });
    }
    assert_eq!(documents[0]["after"]["a"].as_str().unwrap().len(), 67_108_862);
    assert_eq!(documents[1]["after"]["i"], json!(2.5));
    assert_eq!(documents[4]["after"]["c"], json!([1]));
    assert_eq!((&documents[8]["before"]["h"], &documents[8]["before"]["a"]), (&json!("end"), &Value::Null));
}

fn images(server: &Server) {
    let mut database = server.database("limits_images");
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE TABLE l (a text, b text, c text, d text, id int PRIMARY KEY, j jsonb, e text); ALTER TABLE l REPLICA IDENTITY FULL",
        )
        .unwrap();
    database.create_slot();
    client
        .batch_execute(
            "INSERT INTO l VALUES (repeat('a', 65000000), repeat('b', 65000000), repeat('c', 65000000), 'small', 7, '{\"k\":[1]}', repeat('e', 5000000));
             UPDATE l SET d = 'changed'",
        )
        .unwrap();
    let documents = database.documents();
    let small = |image: &Value| json!([image["c"], image["d"], image["id"], image["j"], image["e"]]);
    for (image, d) in
        [(&documents[0]["after"], "small"), (&documents[1]["before"], "small"), (&documents[1]["after"], "changed")]
    {
        assert_eq!(small(image), json!([null, d, 7, {"k":[1]}, null]));
        assert_eq!(image["b"].as_str().unwrap().len(), 65_000_000);
    }
    for document in &documents {
        assert_eq!(document["omitted"], json!({"c":IMAGE,"e":IMAGE}));
        assert_eq!(document["primary_key"], "7");
    }
}

/// Two values that are small as they are stored, and half a gigabyte each.
fn memory(server: &Server) {
    let mut database = server.database("limits_memory");
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE TABLE l (id int PRIMARY KEY, a text, b text, c text);
             ALTER TABLE l REPLICA IDENTITY FULL",
        )
        .unwrap();
    database.create_slot();
    client.batch_execute("INSERT INTO l VALUES (1, repeat('x', 499000000), repeat('y', 499000000), 'end')").unwrap();
    let mut reader = database.connect();
    let pid: i32 = reader.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    let before = resident_kb(pid);
    let statement = "SELECT data FROM pg_logical_slot_peek_changes('limits_memory', NULL, NULL)";
    let line: String = reader.query(statement, &[]).unwrap().pop().unwrap().get(0);
    let document: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(document["after"], json!({"id":1,"a":null,"b":null,"c":"end"}));
    assert_eq!(document["omitted"], json!({"a":VALUE,"b":VALUE}));
    let most = most_resident_kb(pid);
    println!("two values of 499 MB: {before} kB became at most {most} kB");
    // The server itself makes room for both as they are without compression (ReorderBufferToastReplace).
    let of_the_server = 2 * 499_000_000 / 1024;
    assert!(most - before - of_the_server < 64 * 1024, "{before} kB became {most} kB");
}

/// Lets a process of the server have so much more address space than it has.
fn limit_memory(pid: i32, more: Option<i64>) {
    let limit = more.map_or("unlimited".to_owned(), |more| (address_space_kb(pid) * 1024 + more).to_string());
    // Only who runs as the process does may do it.
    let arguments = ["-u", "postgres", "--", "prlimit", "--pid", &pid.to_string(), &format!("--as={limit}:")];
    let status = std::process::Command::new("runuser").args(arguments).status();
    assert!(status.unwrap().success());
}

/// Wherever memory ends, there is an error, and not the end of the process, with which all others would end.
fn no_memory(_: &Server) {
    const MB: i64 = 1 << 20;
    let server = Server::start("");
    let (database, mut client, _stop) = recording(&server, "limits_no_memory");
    client.batch_execute("SELECT pg_create_logical_replication_slot('beside', 'bemi_decoder')").unwrap();
    let worker = running_recorder(&mut client);
    limit_memory(worker, Some(12 * MB));
    client.batch_execute("INSERT INTO t (v) VALUES (repeat(E'\\n', 6000000)), ('end')").unwrap();
    let peek =
        "SELECT length(data)::text FROM pg_logical_slot_peek_changes('beside', NULL, NULL, 'tracked-only', 'true')";
    let (mut errors, mut last) = (0, false);
    for more in (1..).map(|step| step * 3 * MB).take(60) {
        let mut reader = database.connect();
        let pid: i32 = reader.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
        // Where the library itself finds no room, it is said to be missing.
        reader.batch_execute("LOAD 'bemi_decoder'").unwrap();
        limit_memory(pid, Some(more));
        let outcome = reader.query(peek, &[]);
        last = outcome.is_ok();
        if last {
            break;
        }
        assert_eq!(sqlstate(outcome), "53200");
        errors += 1;
    }
    println!("{errors} sessions had too little memory");
    assert!(errors > 0 && last, "{errors} errors");
    // The worker fails, says why if there is memory for that, and comes back without the limit.
    wait_until("another worker", || {
        let status =
            "SELECT COALESCE(last_error ~ 'out of memory', false) OR COALESCE(pid <> $1, false) FROM bemi.status";
        client.query_one(status, &[&worker]).unwrap().get(0)
    });
    client.batch_execute("SELECT bemi.sync('5 min')").unwrap();
    let recorded = "SELECT count(*), max(length(after->>'v')) FROM bemi.changes WHERE omitted IS NULL";
    let row = client.query_one(recorded, &[]).unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i32>(1)), (2, 6_000_000));
}

fn foreign_contexts(server: &Server) {
    let mut database = table(server, "limits_contexts");
    let mut client = database.connect();
    client.batch_execute("SELECT bemi.context()").unwrap();
    let limit: i32 = client
        .query_one("SELECT setting::int FROM pg_settings WHERE name = 'bemi.max_context_size'", &[])
        .unwrap()
        .get(0);
    let limit = limit as usize;
    let context = |len: usize| format!("{{\"a\":\"{}\"}}", "y".repeat(len - 8));
    let mut shown = |content: &str| {
        let row = "INSERT INTO t (v) VALUES ('x')";
        let emit = format!("BEGIN; SELECT pg_logical_emit_message(true, '_bemi', '{content}'); {row}; COMMIT");
        contexts(&database.changes_of(&emit)).pop().unwrap()
    };
    assert_eq!(shown(&context(limit)), serde_json::from_str::<Value>(&context(limit)).unwrap());
    let cut = context(limit + 1);
    assert_eq!(shown(&cut), json!({"bemi_invalid_context":cut[..1024]}));
    // White space counts: what is compared is what stands in the log.
    let padded = format!("{{\"a\":1{}}}", " ".repeat(limit));
    assert_eq!(shown(&padded), json!({"bemi_invalid_context":padded[..1024]}));
    // The reader's setting counts, even below what is shown of an invalid one.
    client.batch_execute("SET bemi.max_context_size = 20").unwrap();
    client
        .batch_execute(
            "BEGIN; SELECT pg_logical_emit_message(true, '_bemi', '{\"name\":\"0123456789\"}'); INSERT INTO t (v) VALUES ('x'); COMMIT",
        )
        .unwrap();
    let statement =
        "SELECT data FROM pg_logical_slot_peek_changes('limits_contexts', NULL, NULL) ORDER BY lsn DESC LIMIT 1";
    let line: String = client.query_one(statement, &[]).unwrap().get(0);
    assert!(line.contains(r#""context":{"bemi_invalid_context":"{\"name\":\"0123456789\"}"}"#), "{line}");
}

fn not_repeated(server: &Server) {
    let database = table(server, "limits_not_repeated");
    database
        .connect()
        .batch_execute(
            "INSERT INTO t (v) VALUES ('1'), ('2'); COMMIT; SELECT bemi.set_context('{\"a\":1}'); COMMIT;
             BEGIN; INSERT INTO t (v) VALUES ('3'), ('4'); SAVEPOINT s; SELECT bemi.set_context('{\"a\":2}');
             INSERT INTO t (v) VALUES ('5'), ('6'); ROLLBACK TO s; INSERT INTO t (v) VALUES ('7'), ('8');
             SAVEPOINT s; INSERT INTO t (v) VALUES ('9'); SELECT pg_logical_emit_message(true, 'other', 'm'); INSERT INTO t (v) VALUES ('10');
             RELEASE s; SELECT pg_logical_emit_message(true, '_bemi', '{\"a\":1}'); INSERT INTO t (v) VALUES ('11'), ('12'); COMMIT;
             INSERT INTO t (v) VALUES ('13'), ('14')",
        )
        .unwrap();
    let whole = database.documents_with(&[]);
    let short = database.documents_with(&["repeat-context=false"]);
    assert!(whole.iter().all(|document| document["context"].is_object()));
    let mut last = (Value::Null, Value::Null);
    let mut told = 0;
    for (whole, short) in whole.iter().zip(&short) {
        let is_first = last.0 != whole["transaction_id"];
        if short["context"] == json!("=") {
            assert!(!is_first && last.1 == whole["context"], "{short}");
        } else {
            told += 1;
            assert_eq!(short["context"], whole["context"]);
        }
        let mut filled = short.clone();
        filled["context"] = whole["context"].clone();
        assert_eq!(&filled, whole);
        last = (whole["transaction_id"].clone(), whole["context"].clone());
    }
    // Three transactions, and the contexts set in the second: after the savepoint the trigger writes it again.
    assert_eq!((short.len(), told), (whole.len(), 4), "{short:?}");
}

fn relation_oid(server: &Server) {
    let mut database = server.database("limits_relation");
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE TABLE r (id int PRIMARY KEY, v json) PARTITION BY LIST (id); CREATE TABLE r1 PARTITION OF r FOR VALUES IN (1); CREATE TABLE s (id int)",
        )
        .unwrap();
    database.create_slot();
    client.batch_execute("INSERT INTO r VALUES (1, '\"\\u0000\"'); INSERT INTO s VALUES (1); TRUNCATE s").unwrap();
    let oids: Vec<u32> = client
        .query("SELECT unnest(ARRAY['r1', 's', 's']::regclass[])::oid", &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    for options in [&["include-relation", "include-origin"][..], &["include-relation", "publish-via-partition-root"]] {
        let documents = database.documents_with(options);
        let shown: Vec<u32> = documents.iter().map(|document| document["relation"].as_u64().unwrap() as u32).collect();
        assert_eq!(shown, oids);
    }
    let lines = database.read(&["include-relation", "include-origin"]).unwrap();
    assert!(lines[1].ends_with(&format!(r#""context":{{}},"origin":null,"relation":{}}}"#, oids[1])), "{}", lines[1]);
    assert!(lines[0].contains(&format!(r#""origin":null,"relation":{},"omitted""#, oids[0])), "{}", lines[0]);
    assert!(database.documents().iter().all(|document| document.get("relation").is_none()));
}

fn long_option(server: &Server) {
    let database = table(server, "limits_option");
    let mut client = database.connect();
    for pair in ["'add-tables', repeat('a', 2000000)", "repeat('a', 2000000), 'x'"] {
        let peek = format!("SELECT * FROM pg_logical_slot_peek_changes('limits_option', NULL, NULL, {pair})");
        assert_eq!(sqlstate(client.batch_execute(&peek)), "54000");
    }
}

/// A ROLLBACK PREPARED that goes by while the slot waits for a transaction to end.
fn new_slot(_: &Server) {
    let server = Server::start("");
    let database = server.database("limits_new_slot");
    let (mut first, mut third, mut other) = (database.connect(), database.connect(), database.connect());
    other.batch_execute("CREATE TABLE t (id int)").unwrap();
    first.batch_execute("BEGIN; INSERT INTO t VALUES (1)").unwrap();
    let mut maker = database.connect();
    let pid: i32 = maker.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    let making = std::thread::spawn(move || {
        maker.batch_execute("SELECT pg_create_logical_replication_slot('x', 'bemi_decoder', false, true)")
    });
    let xid = |client: &mut postgres::Client| -> String {
        client.query_one("SELECT pg_current_xact_id()::text", &[]).unwrap().get(0)
    };
    let mut wait_for = |xid: &str| {
        let waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = $1 AND locktype = 'transactionid' AND NOT granted
                     AND transactionid::text = $2)";
        wait_until("the slot to wait", || other.query_one(waits, &[&pid, &xid]).unwrap().get(0));
    };
    let first_xid = xid(&mut first);
    wait_for(&first_xid);
    third.batch_execute("BEGIN; INSERT INTO t VALUES (3)").unwrap();
    let third_xid = xid(&mut third);
    first.batch_execute("COMMIT").unwrap();
    // The slot asks for the transactions that run now, and waits for the next one.
    wait_for(&third_xid);
    let mut other = database.connect();
    other.batch_execute("BEGIN; INSERT INTO t VALUES (2); PREPARE TRANSACTION 'g'").unwrap();
    other.batch_execute("ROLLBACK PREPARED 'g'").unwrap();
    third.batch_execute("COMMIT").unwrap();
    making.join().unwrap().unwrap();
    let two_phase = "SELECT two_phase FROM pg_replication_slots WHERE slot_name = 'x'";
    assert!(other.query_one(two_phase, &[]).unwrap().get::<_, bool>(0));
    other.batch_execute("BEGIN; INSERT INTO t VALUES (4); PREPARE TRANSACTION 'h'").unwrap();
    let peek = "SELECT data FROM pg_logical_slot_peek_changes('x', NULL, NULL)";
    let lines: Vec<String> = other.query(peek, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    assert!(lines.iter().any(|line| line.contains(r#""operation":"PREPARE""#)), "{lines:?}");
    other.batch_execute("ROLLBACK PREPARED 'h'").unwrap();
}
