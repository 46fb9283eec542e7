//! Transactions that are decoded while they are in progress.
use std::collections::HashMap;
use std::process::Stdio;

use postgres::Client;
use serde_json::{Value, json};

use crate::Test;
use crate::context::table;
use crate::random::Random;
use crate::server::{Database, Running, Server, resident_kb, wait_until};

pub const TESTS: &[Test] = &[
    ("streamed_and_unstreamed_histories_agree_with_the_model", histories),
    ("a_streamed_transaction_is_told_to_be_committed_or_rolled_back", endings),
    ("a_savepoint_rolled_back_while_its_part_is_decoded_leaves_the_rest_whole", concurrent_abort),
    ("contexts_of_many_savepoints_come_back_from_a_file", filed_contexts),
    ("a_client_that_reconnects_gets_a_transaction_in_progress_from_its_beginning", reconnect),
    ("two_million_streamed_rows_leave_the_walsender_small", memory),
    ("a_silent_transaction_does_not_time_out_its_client", silence),
];

/// What a session does, and what of it must be in the log, by the plain rules of settings and savepoints.
struct Session {
    client: Client,
    table: &'static str,
    /// The statements of the transaction so far, for the message of a failure.
    text: String,
    now: State,
    /// As it was at the beginning of the transaction, and at each savepoint.
    before: Vec<State>,
    labels: u32,
    columns: u32,
}

#[derive(Clone, Default)]
struct State {
    session: Option<String>,
    local: Option<String>,
    /// The labels of the rows that were written, and their contexts.
    rows: Vec<(String, Value)>,
}

impl State {
    fn context(&self) -> Value {
        let text = self.local.as_ref().or(self.session.as_ref());
        text.map_or(json!({}), |text| serde_json::from_str(text).unwrap())
    }
}

impl Session {
    fn new(database: &Database, table: &'static str) -> Self {
        let client = database.connect();
        Self { client, table, text: String::new(), now: State::default(), before: Vec::new(), labels: 0, columns: 0 }
    }

    fn run(&mut self, statement: &str) {
        self.text.push_str(statement);
        self.client.batch_execute(statement).unwrap_or_else(|e| panic!("{e:?}: {}", self.text));
    }

    fn label(&mut self) -> String {
        self.labels += 1;
        format!("{}-{}", self.table, self.labels)
    }

    fn step(&mut self, random: &mut Random) {
        let table = self.table;
        match random.below(14) {
            0..=3 => {
                let (label, count) = (self.label(), random.below(25) + 1);
                self.run(&format!(
                    "INSERT INTO {table} (label, v, pad) SELECT '{label}', bemi.context(), repeat('x', 900) FROM generate_series(1, {count});"
                ));
                let row = (label, self.now.context());
                self.now.rows.extend(std::iter::repeat_n(row, count as usize));
            }
            4 => {
                // Of the committed rows there is always one.
                let label = self.label();
                self.run(&format!("UPDATE {table} SET label = '{label}', v = bemi.context() WHERE id = 0;"));
                let context = self.now.context();
                self.now.rows.push((label, context));
            }
            5 => self.run(&format!("UPDATE {table} SET v = 'no row' WHERE id = -1;")),
            6 | 7 => {
                let context = format!("{{\"n\":{}}}", random.below(4));
                self.run(&format!("SELECT bemi.set_context('{context}');"));
                (self.now.session, self.now.local) = (Some(context), None);
            }
            8 => {
                let context = format!("{{\"l\":{}}}", random.below(4));
                self.run(&format!("SET LOCAL bemi.context = '{context}';"));
                self.now.local = Some(context);
            }
            9 => {
                self.run("SELECT bemi.clear_context();");
                (self.now.session, self.now.local) = (None, None);
            }
            10 => {
                self.run(&format!("SAVEPOINT s{};", self.before.len()));
                self.before.push(self.now.clone());
            }
            11 if self.before.len() > 1 => {
                self.before.pop();
                self.run(&format!("RELEASE s{};", self.before.len()));
            }
            12 if self.before.len() > 1 => {
                self.run(&format!("ROLLBACK TO s{};", self.before.len() - 1));
                self.now = self.before.last().unwrap().clone();
            }
            13 if random.below(4) == 0 => {
                self.columns += 1;
                let column = format!("c{}", self.columns);
                self.run(&format!("ALTER TABLE {table} ADD {column} text DEFAULT 'd'; ALTER TABLE {table} RENAME {column} TO r{column};"));
            }
            _ => {}
        }
    }

    fn begin(&mut self) {
        self.text.clear();
        self.before = vec![self.now.clone()];
        self.run("BEGIN;");
    }

    /// Gives what of the transaction is in the log.
    fn end(&mut self, is_committed: bool) -> Vec<(String, Value)> {
        self.run(if is_committed { "COMMIT;" } else { "ROLLBACK;" });
        let rows = if is_committed {
            self.now.local = None;
            std::mem::take(&mut self.now.rows)
        } else {
            self.now = self.before.swap_remove(0);
            Vec::new()
        };
        self.before.clear();
        rows
    }
}

/// What a consumer does with a stream: keeps the documents of transactions in progress, and drops what is rolled back.
/// Gives the documents of committed transactions, in the order of their commits, and how much was dropped.
fn consume(documents: Vec<Value>) -> (Vec<Value>, usize, usize) {
    let mut open: HashMap<u64, Vec<Value>> = HashMap::new();
    let (mut committed, mut streamed, mut dropped) = (Vec::new(), 0, 0);
    for mut document in documents {
        let xid = document["transaction_id"].as_u64().unwrap();
        match document["operation"].as_str().unwrap() {
            "STREAM COMMIT" => {
                let mut last = 0;
                for mut change in open.remove(&xid).expect("a transaction of which something was sent") {
                    assert!(change["sequence"].as_u64().unwrap() > last);
                    last = change["sequence"].as_u64().unwrap();
                    assert_eq!((&change["commit_position"], &change["committed_at"]), (&json!(null), &json!(null)));
                    change["commit_position"] = document["commit_position"].clone();
                    change["committed_at"] = document["committed_at"].clone();
                    change.as_object_mut().unwrap().shift_remove("subtransaction_id");
                    committed.push(change);
                }
            }
            "STREAM ABORT" => match document.get("subtransaction_id") {
                Some(subtransaction) => {
                    let changes = open.get_mut(&xid).expect("a transaction of which something was sent");
                    let before = changes.len();
                    changes.retain(|change| change.get("subtransaction_id") != Some(subtransaction));
                    assert!(changes.len() < before, "nothing was sent of {document}");
                    dropped += before - changes.len();
                }
                None => dropped += open.remove(&xid).expect("a transaction of which something was sent").len(),
            },
            _ if document["commit_position"].is_null() => {
                streamed += 1;
                open.entry(xid).or_default().push(document);
            }
            _ => {
                document.as_object_mut().unwrap().shift_remove("subtransaction_id");
                committed.push(document);
            }
        }
    }
    for document in &mut committed {
        document.as_object_mut().unwrap().shift_remove("sequence");
    }
    assert!(open.is_empty(), "{open:?}");
    (committed, streamed, dropped)
}

fn parse(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// Two sessions whose transactions run at the same time, read by one client as they come, by another one later, and by
/// a third one unstreamed.
fn histories(_: &Server) {
    let server = Server::start("logical_decoding_work_mem = 64kB\n");
    let mut database = server.database("histories");
    let mut client = database.connect();
    for name in ["one", "two"] {
        client
            .batch_execute(&format!(
                "CREATE TABLE {name} (id int PRIMARY KEY GENERATED BY DEFAULT AS IDENTITY, label text, v text, pad text);
                 SELECT bemi.track('{name}'); INSERT INTO {name} (id) VALUES (0)"
            ))
            .unwrap();
    }
    database.create_slot();
    client.batch_execute("SELECT pg_copy_logical_replication_slot('histories', 'live')").unwrap();
    let file = server.host().join("live.jsonl");
    let mut command = server.program("pg_recvlogical", &database.name);
    command.args(["-d", &database.name, "-S", "live", "--start", "--no-loop", "-F", "0", "-o", "stream-changes", "-f"]);
    let live = Running::start(command.arg(&file));

    let mut sessions = [Session::new(&database, "one"), Session::new(&database, "two")];
    let mut expected: Vec<(String, Value)> = Vec::new();
    for seed in 1..=100u64 {
        let mut random = Random::new(seed);
        sessions.iter_mut().for_each(Session::begin);
        for _ in 0..80 {
            sessions[random.below(2) as usize].step(&mut random);
        }
        let first = random.below(2) as usize;
        for session in [first, 1 - first] {
            expected.extend(sessions[session].end(random.below(8) != 0));
        }
    }
    client.batch_execute("CREATE TABLE last (id int); INSERT INTO last VALUES (1)").unwrap();
    let last = |line: &str| line.contains("\"table\":\"last\"");
    wait_until("the live reader", || std::fs::read_to_string(&file).unwrap_or_default().lines().any(last));
    drop(live);

    let unstreamed = database.documents_with(&[]);
    let shown: Vec<(String, Value)> = unstreamed[..unstreamed.len() - 1]
        .iter()
        .map(|d| (d["after"]["label"].as_str().unwrap().to_owned(), d["context"].clone()))
        .collect();
    assert!(expected.len() > 5000, "{}", expected.len());
    for (i, (shown, expected)) in shown.iter().zip(&expected).enumerate() {
        assert_eq!(shown, expected, "change {i}");
    }
    assert_eq!(shown.len(), expected.len());
    for document in &unstreamed[..unstreamed.len() - 1] {
        let said: Value = serde_json::from_str(document["after"]["v"].as_str().unwrap()).unwrap();
        assert_eq!(said, document["context"]);
    }

    let later = database.documents_with(&["stream-changes"]);
    let live = parse(&std::fs::read_to_string(&file).unwrap());
    let batched = database.documents_with(&["stream-changes", "batch-bytes=100000"]);
    assert_eq!(batched, later);
    let (unstreamed, _, _) = consume(unstreamed);
    for (name, documents) in [("later", later), ("live", live)] {
        let (committed, streamed, dropped) = consume(documents);
        println!("{name}: {streamed} documents streamed, {dropped} of them rolled back, {} kept", committed.len());
        assert!(streamed > 5000 && dropped > 200, "{name}: {streamed} streamed, {dropped} dropped");
        assert_eq!(committed.len(), unstreamed.len(), "{name}");
        for (one, other) in committed.iter().zip(&unstreamed) {
            assert_eq!(one, other, "{name}");
        }
    }
    drop(sessions);
    server.stop();
}

fn endings(_: &Server) {
    let server = Server::start("logical_decoding_work_mem = 64kB\n");
    let database = table(&server, "endings");
    let mut client = database.connect();
    let rows = "INSERT INTO t (v) SELECT repeat('x', 500) FROM generate_series(1, 300);";
    client
        .batch_execute(&format!(
            "BEGIN; SELECT bemi.set_context('{{\"c\":\"A\"}}', true); {rows} SAVEPOINT s; SELECT bemi.set_context('{{\"c\":\"B\"}}', true); {rows}
             ROLLBACK TO s; INSERT INTO t (v) VALUES ('after'); COMMIT;
             BEGIN; {rows} ROLLBACK; INSERT INTO t (v) VALUES ('small'); COMMIT;
             BEGIN; INSERT INTO t (v) VALUES ('x'); {rows} TRUNCATE t; SELECT pg_logical_emit_message(true, 'm', 'x'); COMMIT"
        ))
        .unwrap();
    let options = ["stream-changes", "include-transaction", "add-msg-prefixes=m"];
    let documents = database.documents_with(&options);
    let markers: Vec<String> = documents
        .iter()
        .filter(|d| d.get("table").is_none())
        .map(|d| {
            format!(
                "{}{}",
                d["operation"].as_str().unwrap(),
                if d.get("subtransaction_id").is_some() { " sub" } else { "" }
            )
        })
        .collect();
    let mut expected = vec!["BEGIN", "STREAM ABORT sub", "STREAM COMMIT"];
    if server.major < 18 {
        // Later servers see that the transaction is rolled back already, and pass on nothing of it.
        expected.extend(["BEGIN", "STREAM ABORT"]);
    }
    expected.extend(["BEGIN", "COMMIT", "BEGIN", "STREAM COMMIT"]);
    assert_eq!(markers, expected);
    let after = documents.iter().find(|d| d["after"]["v"] == json!("after")).unwrap();
    assert_eq!(after["context"], json!({"c":"A"}));
    let begin = &documents[0];
    assert_eq!((&begin["commit_position"], &begin["committed_at"]), (&json!(null), &json!(null)));
    let sub = documents.iter().find(|d| d.get("subtransaction_id").is_some() && d.get("table").is_some()).unwrap();
    let keys: Vec<_> = sub.as_object().unwrap().keys().take(6).collect();
    assert_eq!(
        keys,
        ["position", "commit_position", "sequence", "transaction_id", "subtransaction_id", "committed_at"]
    );
    assert!(documents.iter().any(|d| d["operation"] == json!("TRUNCATE") && d["commit_position"].is_null()));
    assert!(documents.iter().any(|d| d["operation"] == json!("MESSAGE") && d["commit_position"].is_null()));
    // Of what is not shown, nothing is told.
    assert_eq!(
        database.documents_with(&["stream-changes", "include-transaction", "add-tables=no.ne"]),
        [Value::Null; 0]
    );
    // The order is that of the log, and the SQL interface gives the same.
    let plain = "SELECT data FROM pg_logical_slot_peek_changes('endings', NULL, NULL, 'stream-changes', 'on', 'include-transaction', 'on', 'add-msg-prefixes', 'm')";
    let same: Vec<Value> =
        client.query(plain, &[]).unwrap().iter().map(|row| serde_json::from_str(row.get(0)).unwrap()).collect();
    assert_eq!(same, documents);
    server.stop();
}

/// The server notices while a value is written that its savepoint is gone: the label of an enum has to be looked up.
fn concurrent_abort(_: &Server) {
    let server = Server::start("logical_decoding_work_mem = 64kB\n");
    let mut database = server.database("concurrent_abort");
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TABLE e (id int, m mood, pad text); SELECT bemi.track('e')",
        )
        .unwrap();
    database.create_slot();
    let rows = |m: &str, count: i32| {
        format!("INSERT INTO e SELECT i, {m}, repeat('x', 500) FROM generate_series(1, {count}) i;")
    };
    client
        .batch_execute(&format!(
            "BEGIN; SELECT bemi.set_context('{{\"c\":\"A\"}}'); {} SAVEPOINT s; SELECT bemi.set_context('{{\"c\":\"B\"}}'); {} ROLLBACK TO s;
             {} COMMIT; BEGIN; {} ROLLBACK; INSERT INTO e VALUES (1000, 'sad')",
            rows("NULL", 10),
            rows("'ok'", 400),
            rows("NULL", 200),
            rows("'ok'", 400)
        ))
        .unwrap();
    let documents = database.documents_with(&["stream-changes"]);
    let (committed, streamed, dropped) = consume(documents.clone());
    assert!(streamed >= 210 && dropped < 400, "{streamed} streamed, {dropped} dropped");
    let (unstreamed, _, _) = consume(database.documents());
    assert_eq!(committed, unstreamed);
    assert_eq!(committed.len(), 211);
    let gone = documents.iter().filter(|d| d["after"]["m"] == json!("ok")).count();
    println!("{gone} rows of the savepoint were sent before it was found rolled back");
    assert!(gone < 400, "the server did not notice");
    server.stop();
}

fn filed_contexts(_: &Server) {
    let server = Server::start("logical_decoding_work_mem = 64kB\nbemi.max_context_size = 2MB\n");
    let database = table(&server, "filed_contexts");
    let mut client = database.connect();
    let mut text = String::from("BEGIN;");
    for i in 0..40 {
        text.push_str(&format!(
            "SAVEPOINT s{i}; SELECT bemi.set_context(jsonb_build_object('n', {i}, 'x', repeat('x', 900000))); INSERT INTO t (v) VALUES ({i});"
        ));
    }
    text.push_str(
        "ROLLBACK TO s20; INSERT INTO t (v) VALUES ('19'); ROLLBACK TO s3; INSERT INTO t (v) VALUES ('2'); COMMIT",
    );
    client.batch_execute(&text).unwrap();
    let documents = database.documents_with(&["stream-changes"]);
    let rows: Vec<&Value> = documents.iter().filter(|d| d.get("table").is_some()).collect();
    // Of those that were rolled back, the server may have noticed in time.
    assert!(rows.len() > 30, "{}", rows.len());
    for row in rows {
        assert_eq!(row["context"]["n"].to_string(), row["after"]["v"].as_str().unwrap());
        assert_eq!(row["context"]["x"].as_str().unwrap().len(), 900_000);
    }
    let (kept, _, _) = consume(documents);
    let values: Vec<&str> = kept.iter().map(|d| d["after"]["v"].as_str().unwrap()).collect();
    assert_eq!(values, ["0", "1", "2", "2"]);
    server.stop();
}

fn reconnect(_: &Server) {
    let server = Server::start("logical_decoding_work_mem = 64kB\n");
    let database = table(&server, "reconnect");
    let mut client = database.connect();
    let rows = "INSERT INTO t (v) SELECT repeat('x', 500) FROM generate_series(1, 300);";
    client.batch_execute(&format!("BEGIN; SELECT bemi.set_context('{{\"c\":1}}', true); {rows}")).unwrap();
    let file = server.host().join("first.jsonl");
    let mut command = server.program("pg_recvlogical", &database.name);
    command.args([
        "-d",
        &database.name,
        "-S",
        "reconnect",
        "--start",
        "--no-loop",
        "-F",
        "0",
        "-o",
        "stream-changes",
        "-f",
    ]);
    let reader = Running::start(command.arg(&file));
    let read = || std::fs::read_to_string(&file).unwrap_or_default();
    wait_until("a part of the transaction", || read().lines().count() > 100);
    drop(reader);
    let mut other = database.connect();
    let idle = "SELECT NOT active FROM pg_replication_slots WHERE slot_name = 'reconnect'";
    wait_until("the end of the reader", || other.query_one(idle, &[]).unwrap().get(0));
    client.batch_execute(&format!("{rows} COMMIT")).unwrap();
    let documents = database.documents_with(&["stream-changes"]);
    let (committed, streamed, _) = consume(documents.clone());
    assert_eq!((committed.len(), streamed), (600, 600));
    assert!(committed.iter().all(|d| d["context"] == json!({"c":1})));
    let first = parse(read().lines().next().unwrap());
    assert_eq!(first[0], documents[0]);
    server.stop();
}

const ROWS: i32 = 2_000_000;
/// What a streaming walsender may need more than an idle one.
const GROWTH_KB: i64 = 32 * 1024;

/// A reader of a slot, its walsender's process, and how much memory that has while it waits.
fn reader(database: &Database, slot: &str, options: &[&str], settings: &str) -> (Running, i32, i64) {
    let mut client = database.connect();
    client.batch_execute(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'bemi_decoder')")).unwrap();
    let mut command = database.server.program("pg_recvlogical", &database.name);
    command.env("PGOPTIONS", settings);
    // It says nothing by itself, and only answers when the server asks whether it is there.
    command.args(["-d", &database.name, "-S", slot, "--start", "--no-loop", "-F", "0", "-s", "0", "-f", "/dev/null"]);
    command.args(options.iter().flat_map(|option| ["-o", option])).stderr(Stdio::null());
    let reader = Running::start(&mut command);
    let active = format!("SELECT active_pid FROM pg_replication_slots WHERE slot_name = '{slot}' AND active");
    wait_until("the walsender", || client.query_opt(&active, &[]).unwrap().is_some());
    let pid: i32 = client.query_one(&active, &[]).unwrap().get(0);
    // A few changes, so that what every walsender needs is there.
    client.batch_execute("INSERT INTO t (v) SELECT 'warm' FROM generate_series(1, 10000)").unwrap();
    wait_until("the first changes", || reached(&mut client, pid));
    (reader, pid, resident_kb(pid))
}

/// Whether a walsender has sent all that there is; `None` if it is gone.
fn sent(client: &mut Client, pid: i32) -> Option<bool> {
    let statement = "SELECT sent_lsn >= pg_current_wal_flush_lsn() FROM pg_stat_replication WHERE pid = $1";
    client.query_opt(statement, &[&pid]).unwrap().map(|row| row.get(0))
}

fn reached(client: &mut Client, pid: i32) -> bool {
    sent(client, pid).unwrap_or_else(|| panic!("walsender {pid} is gone"))
}

/// On a server of its own: a walsender keeps room for the longest record of the log, whoever wrote it, and tests beside
/// this one write records of a gigabyte.
fn memory(_: &Server) {
    let server = Server::start("");
    let database = table(&server, "stream_memory");
    let mut client = database.connect();
    let settings = "-c logical_decoding_work_mem=1MB";
    let (reader, pid, idle) = reader(&database, "stream_memory_reader", &["stream-changes"], settings);
    client.batch_execute("SELECT bemi.set_context('{\"user_id\":187234}'); SET statement_timeout = 0").unwrap();
    client.execute("INSERT INTO t (v) SELECT 'row ' || i FROM generate_series(1, $1::int) i", &[&ROWS]).unwrap();
    let mut at_most = idle;
    wait_until("two million rows", || {
        at_most = at_most.max(resident_kb(pid));
        reached(&mut client, pid)
    });
    let streamed: i64 = client
        .query_one("SELECT stream_txns FROM pg_stat_replication_slots WHERE slot_name = 'stream_memory_reader'", &[])
        .unwrap()
        .get(0);
    println!("walsender: idle {idle} kB, at most {at_most} kB while {ROWS} rows were streamed");
    assert!(streamed > 0, "nothing was streamed");
    assert!(at_most - idle <= GROWTH_KB, "{idle} kB became {at_most} kB");
    drop(reader);
}

/// With a time-out of 5 s, and with one that is shorter than it takes to pass the transaction on. That one has it all
/// in memory, for there the time that the server itself spends with files counts too.
fn silence(server: &Server) {
    let database = table(server, "silence");
    let mut client = database.connect();
    client.batch_execute("SET statement_timeout = 0").unwrap();
    // A slow build takes longer for the rows. A reader that the machine keeps waiting may be late by itself, but not each time.
    let second = crate::server::patience().as_secs() / 120;
    for (seconds, memory) in [(5 * second, "64MB"), (second, "2GB")] {
        let settings = format!("-c wal_sender_timeout={seconds}s -c logical_decoding_work_mem={memory}");
        let is_answered = (1..=3).any(|attempt| {
            let slot = format!("silence_{seconds}_{attempt}");
            let (reader, pid, _) = reader(&database, &slot, &["add-tables=no.ne"], &settings);
            client
                .execute("INSERT INTO t (v) SELECT 'row ' || i FROM generate_series(1, $1::int) i", &[&ROWS])
                .unwrap();
            let start = std::time::Instant::now();
            let mut end = None;
            wait_until("two million rows", || {
                end = sent(&mut client, pid);
                end != Some(false)
            });
            println!("after {} ms", start.elapsed().as_millis());
            drop(reader);
            end.is_some()
        });
        assert!(is_answered, "the reader was timed out after {seconds} s");
    }
}
