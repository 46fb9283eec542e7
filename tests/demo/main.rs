//! The main job on real input: a todo application and a pgbench run change rows under contexts, `pg_recvlogical`
//! streams meanwhile, and what comes out is checked change by change.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::ExitCode;

use bemi_test_support::server;
use serde_json::{Value, json};
use server::{Database, Running, Server, is_soon};

/// Transactions of the pgbench run; each changes three rows and inserts one.
const CLIENTS: i64 = 4;
const TRANSACTIONS: i64 = 1_000;

/// A transaction of TPC-B, as pgbench has it built in, with a context that says what it is about to do.
const TPC_B: &str = r#"
\set aid random(1, 100000 * :scale)
\set bid random(1, 1 * :scale)
\set tid random(1, 10 * :scale)
\set delta random(-5000, 5000)
BEGIN;
SELECT bemi.set_context(jsonb_build_object('endpoint', '/transfer', 'client', :client_id, 'aid', :aid, 'tid', :tid, 'bid', :bid, 'delta', :delta), true);
UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
UPDATE pgbench_tellers SET tbalance = tbalance + :delta WHERE tid = :tid;
UPDATE pgbench_branches SET bbalance = bbalance + :delta WHERE bid = :bid;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (:tid, :bid, :aid, :delta, CURRENT_TIMESTAMP);
END;
"#;

/// What everyone asks first.
const QUERY: &str = "SELECT primary_key, \"table\", operation, before, after, context, committed_at FROM bemi.changes \
                     ORDER BY source, commit_position, sequence LIMIT 7";

fn main() -> ExitCode {
    println!("-- Starting a throwaway server");
    let server = Server::start("max_slot_wal_keep_size = 10GB\n");
    let outcome = std::panic::catch_unwind(|| run(&server));
    server.stop();
    println!("-- The server is stopped and its folder removed");
    match outcome {
        Ok(problems) if problems.is_empty() => {
            println!(
                "\nEvery change came out of the log once, and was recorded once, with the context it was made under."
            );
            println!("Next: README.md, \"Quickstart on your own server\".");
            ExitCode::SUCCESS
        }
        Ok(problems) => {
            for problem in problems.iter().take(20) {
                eprintln!("WRONG: {problem}");
            }
            eprintln!("{} of the checks failed.", problems.len());
            ExitCode::FAILURE
        }
        Err(_) => ExitCode::FAILURE,
    }
}

/// Gives what was wrong.
fn run(server: &Server) -> Vec<String> {
    let mut database = server.database("demo");
    database.connect().batch_execute(include_str!("todo.sql")).expect("the todo table");
    println!("-- Preparing pgbench");
    server.check(server.program("pgbench", "demo").args(["-i", "-q"]));
    let mut client = database.connect();
    println!("-- SELECT bemi.start()");
    client.batch_execute("SELECT bemi.start()").expect("the recorder starts");
    database.create_slot();

    println!("-- Streaming with pg_recvlogical -P bemi_decoder, while a todo application works");
    let stream = server.host().join("stream.jsonl");
    let mut reader = server.program("pg_recvlogical", "demo");
    reader.args(["-d", "demo", "-S", "demo", "--start", "-F", "1", "-s", "1", "-f"]).arg(&stream);
    let reader = Running::start(&mut reader);
    let expected = todo_application(server, &database);
    wait_for_lines(&stream, expected.len());
    let todo: Vec<String> = lines(&stream).collect();
    println!();
    for line in &todo {
        println!("{line}");
    }
    println!();
    let mut problems = check_todo(&todo, &expected);

    println!("-- pgbench, TPC-B: {CLIENTS} clients, {TRANSACTIONS} transactions each, a context for each transaction");
    let script = server.host().join("tpc-b.sql");
    fs::write(&script, TPC_B).expect("the script");
    let mut pgbench = server.program("pgbench", "demo");
    pgbench.args(["-n", "-c", &CLIENTS.to_string(), "-j", "2", "-t", &TRANSACTIONS.to_string(), "-f"]).arg(&script);
    server.check(&mut pgbench);
    wait_for_lines(&stream, todo.len() + (CLIENTS * TRANSACTIONS * 4) as usize);
    drop(reader);

    let mut contexts = HashSet::new();
    let (mut changes, mut bytes, mut without_context) = (0, 0, 0);
    let (mut pgbench, mut commits) = (Vec::new(), Vec::new());
    for line in lines(&stream) {
        changes += 1;
        bytes += line.len() + 1;
        let document: Value = serde_json::from_str(&line).expect("each line is a document");
        let context = &document["context"];
        contexts.insert(context.to_string());
        commits.extend(document["committed_at"].as_str().map(str::to_owned));
        without_context += usize::from(context == &json!({}));
        if changes > todo.len() {
            pgbench.push(document);
        }
    }
    problems.extend(check_pgbench(&pgbench, &mut client));
    let times =
        "SELECT extract(epoch FROM max(t::timestamptz) - min(t::timestamptz))::float8 FROM unnest($1::text[]) t";
    let seconds: f64 = client.query_one(times, &[&commits]).expect("a time").get(0);
    println!();
    println!("changes                    {changes}");
    println!("contexts                   {}", contexts.len());
    println!("documents without context  {without_context}");
    println!("bytes                      {bytes}");
    println!("seconds                    {seconds:.1}  from the first commit to the last");
    println!();
    println!("-- SELECT * FROM bemi.doctor()");
    problems.extend(doctor(&mut client));
    println!();
    problems.extend(check_recorded(&mut client, &contexts, changes));
    println!("-- {QUERY}");
    let table = server.check(server.program("psql", "demo").args(["-X", "-c", QUERY])).stdout;
    println!("{}", String::from_utf8_lossy(&table));
    problems.extend(show_past(server, &mut client));
    problems
}

/// The list as it was before something was deleted, and how to undo that.
fn show_past(server: &Server, client: &mut postgres::Client) -> Vec<String> {
    let deleted = "SELECT (committed_at - interval '1 microsecond')::text FROM bemi.changes WHERE \"table\" = 'todo' AND operation = 'DELETE'";
    let before: String = client.query_one(deleted, &[]).expect("the change").get(0);
    let mut problems = Vec::new();
    for (query, sign) in [
        (format!("SELECT id, task, is_completed FROM bemi.as_of(NULL::todo, '{before}') ORDER BY id"), "Eat"),
        (
            r#"SELECT revert_sql FROM bemi.revert_sql(context => '{"user_id":42}')"#.to_owned(),
            "INSERT INTO public.todo",
        ),
    ] {
        println!("-- {query}");
        let shown = server.check(server.program("psql", "demo").args(["-X", "-c", &query])).stdout;
        let shown = String::from_utf8_lossy(&shown);
        println!("{shown}");
        if !shown.contains(sign) {
            problems.push(format!("{sign} is not in the answer to {query}"));
        }
    }
    problems
}

/// The recorder has each of the changes that came out of the log, too, under the same contexts.
fn check_recorded(client: &mut postgres::Client, contexts: &HashSet<String>, changes: usize) -> Vec<String> {
    client.batch_execute("SELECT bemi.sync()").expect("the recorder keeps up");
    let statement = "SELECT count(*), count(DISTINCT id), count(DISTINCT context) FROM bemi.changes";
    let row = client.query_one(statement, &[]).expect("the changes");
    let recorded: [i64; 3] = [row.get(0), row.get(1), row.get(2)];
    let expected = [changes, changes, contexts.len()].map(|count| count as i64);
    println!("recorded in bemi.changes   {}", recorded[0]);
    println!();
    if recorded == expected {
        Vec::new()
    } else {
        vec![format!("changes, ids and contexts recorded are {recorded:?}, not {expected:?}")]
    }
}

/// Prints what the doctor says, and gives what is not well.
fn doctor(client: &mut postgres::Client) -> Vec<String> {
    let mut problems = Vec::new();
    for row in
        client.query("SELECT \"check\", COALESCE(ok, false), detail, fix FROM bemi.doctor()", &[]).expect("the doctor")
    {
        let (check, ok, detail, fix): (String, bool, String, Option<String>) =
            (row.get(0), row.get(1), row.get(2), row.get(3));
        println!("{check:<26} {}  {detail}", if ok { "ok " } else { "ILL" });
        if !ok {
            problems.push(format!("{check}: {detail}; {}", fix.unwrap_or_default()));
        }
    }
    problems
}

fn lines(stream: &Path) -> impl Iterator<Item = String> + use<> {
    BufReader::new(File::open(stream).expect("the stream")).lines().map(|line| line.expect("UTF-8"))
}

/// Waits for as many documents as there should be; if fewer come, the checks say which are missing.
fn wait_for_lines(stream: &Path, count: usize) {
    is_soon(|| stream.exists() && lines(stream).count() >= count);
}

/// Works as the application does; gives operation, task and context of each change.
fn todo_application(server: &Server, database: &Database) -> Vec<(&'static str, &'static str, Value)> {
    let mut client = database.connect();
    let mut expected = Vec::new();
    let mut step =
        |client: &mut postgres::Client, statements: &str, changes: &[(&'static str, &'static str)], context: Value| {
            client.batch_execute(statements).expect("the application works");
            expected.extend(changes.iter().map(|(operation, task)| (*operation, *task, context.clone())));
        };
    // A request sets its context for the session.
    step(
        &mut client,
        r#"SELECT bemi.set_context('{"user_id":187234,"endpoint":"/todo","method":"POST"}');
           INSERT INTO todo (task) VALUES ('Sleep'), ('Eat'), ('Repeat')"#,
        &[("CREATE", "Sleep"), ("CREATE", "Eat"), ("CREATE", "Repeat")],
        json!({"user_id":187234,"endpoint":"/todo","method":"POST"}),
    );
    // Another, for its transaction alone.
    step(
        &mut client,
        r#"BEGIN; SET LOCAL bemi.context = '{"user_id":187234,"endpoint":"/todo/complete"}';
           UPDATE todo SET is_completed = true WHERE task = 'Sleep'; COMMIT"#,
        &[("UPDATE", "Sleep")],
        json!({"user_id":187234,"endpoint":"/todo/complete"}),
    );
    // An ORM sends it in a comment, on top of the session's.
    step(
        &mut client,
        r#"SELECT bemi.set_context('{"service":"web"}');
           DELETE FROM todo WHERE task = 'Eat' /*Bemi {"user_id":42,"endpoint":"/todo/2","params":{"id":2}} Bemi*/"#,
        &[("DELETE", "Eat")],
        json!({"service":"web","user_id":42,"endpoint":"/todo/2","params":{"id":2}}),
    );
    // A service has it from its role.
    let mut billing = server.connect_with(&database.name, "billing", "");
    step(
        &mut billing,
        "INSERT INTO todo (task) VALUES ('Send invoices')",
        &[("CREATE", "Send invoices")],
        json!({"service":"billing"}),
    );
    // What is rolled back leaves no trace, and somebody forgot the context.
    step(
        &mut client,
        r#"SELECT bemi.set_context('{"user_id":7}'); BEGIN; DELETE FROM todo; ROLLBACK; SELECT bemi.clear_context();
           UPDATE todo SET task = 'Rest' WHERE task = 'Repeat'"#,
        &[("UPDATE", "Rest")],
        json!({}),
    );
    expected
}

fn check_todo(lines: &[String], expected: &[(&str, &str, Value)]) -> Vec<String> {
    let shown: Vec<(String, String, Value)> = lines
        .iter()
        .map(|line| {
            let document: Value = serde_json::from_str(line).expect("each line is a document");
            let row = if document["operation"] == "DELETE" { &document["before"] } else { &document["after"] };
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            (text(&document["operation"]), text(&row["task"]), document["context"].clone())
        })
        .collect();
    let expected: Vec<(String, String, Value)> = expected
        .iter()
        .map(|(operation, task, context)| ((*operation).to_owned(), (*task).to_owned(), context.clone()))
        .collect();
    if shown == expected { Vec::new() } else { vec![format!("the todo changes are {shown:?}, not {expected:?}")] }
}

/// Each transaction said in its context which rows it would change, and by how much; so each change can be held
/// against its context, and all changes together against the tables.
fn check_pgbench(documents: &[Value], client: &mut postgres::Client) -> Vec<String> {
    let mut problems = Vec::new();
    let mut counts = std::collections::BTreeMap::<&str, i64>::new();
    let mut sum = 0;
    for document in documents {
        let (context, before, after) = (&document["context"], &document["before"], &document["after"]);
        let number = |value: &Value| value.as_i64().unwrap_or(i64::MIN / 4);
        let delta = number(&context["delta"]);
        let table = document["table"].as_str().unwrap_or_default();
        *counts.entry(table).or_default() += 1;
        let moved = |key: &str, balance: &str| {
            after[key] == context[key] && number(&after[balance]) - number(&before[balance]) == delta
        };
        let is_right = match table {
            "pgbench_accounts" => moved("aid", "abalance"),
            "pgbench_tellers" => moved("tid", "tbalance"),
            "pgbench_branches" => moved("bid", "bbalance"),
            "pgbench_history" => {
                sum += delta;
                ["aid", "tid", "bid", "delta"].iter().all(|key| after[key] == context[key])
            }
            _ => false,
        };
        if !is_right {
            problems.push(format!("the context does not fit the change: {document}"));
        }
    }
    for table in ["pgbench_accounts", "pgbench_tellers", "pgbench_branches", "pgbench_history"] {
        let count = counts.get(table).copied().unwrap_or(0);
        if count != CLIENTS * TRANSACTIONS {
            problems.push(format!("{count} changes of {table} came out, not {}", CLIENTS * TRANSACTIONS));
        }
    }
    let balance: i64 =
        client.query_one("SELECT sum(bbalance)::bigint FROM pgbench_branches", &[]).expect("the sum").get(0);
    if sum != balance {
        problems.push(format!("the changes add up to {sum}, the table says {balance}"));
    }
    problems
}
