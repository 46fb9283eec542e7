//! Transactions that are decoded when they are prepared.
use serde_json::{Value, json};

use crate::Test;
use crate::context::table;
use crate::server::{Database, Server};

pub const TESTS: &[Test] = &[
    ("prepared_transactions_are_decoded_at_prepare_across_a_restart", restart),
    ("a_prepared_transaction_can_be_streamed", streamed),
    ("without_the_option_a_prepared_transaction_is_decoded_when_it_commits", without),
];

/// A database with a slot for prepared transactions. They hold up the making of slots, so each test has a server of
/// its own.
fn two_phase<'a>(server: &'a Server, name: &str) -> Database<'a> {
    let database = table(server, name);
    make_slot_again(&database);
    database
}

fn make_slot_again(database: &Database) {
    let statement = format!(
        "SELECT pg_drop_replication_slot('{0}'); SELECT pg_create_logical_replication_slot('{0}', 'bemi_decoder', false, true)",
        database.name
    );
    database.connect().batch_execute(&statement).unwrap();
}

/// Operation, value or name, and context of each document.
fn short(lines: &[String]) -> Vec<Value> {
    lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .map(|d: Value| match d.get("gid") {
            Some(gid) => json!([d["operation"], gid]),
            None if d.get("after").is_none() => json!([d["operation"]]),
            None => json!([d["operation"], d["after"]["v"], d["context"]]),
        })
        .collect()
}

fn lines(database: &mut Database, options: &[&str]) -> Vec<String> {
    let arguments: Vec<&str> = options.iter().flat_map(|option| ["-o", option]).collect();
    let output = database.server.check(&mut database.recvlogical(&arguments)).stdout;
    String::from_utf8(output).unwrap().lines().map(str::to_owned).collect()
}

fn restart(_: &Server) {
    let server = Server::start("");
    let mut database = two_phase(&server, "restart");
    let mut client = database.connect();
    client
        .batch_execute(
            "SELECT bemi.set_context('{\"c\":\"A\"}');
             COMMIT; BEGIN; INSERT INTO t (v) VALUES ('kept'); SAVEPOINT s; SELECT bemi.set_context('{\"c\":\"B\"}'); INSERT INTO t (v) VALUES ('gone'); ROLLBACK TO s;
             INSERT INTO t (v) VALUES ('kept'); PREPARE TRANSACTION 'to commit é';
             BEGIN; INSERT INTO t (v) VALUES ('back'); PREPARE TRANSACTION 'to roll back';
             BEGIN; INSERT INTO t (v) VALUES ('later'); PREPARE TRANSACTION 'x_nodecode';
             INSERT INTO t (v) VALUES ('plain');",
        )
        .unwrap();
    let a = json!({"c":"A"});
    let options = ["two-phase", "include-transaction"];
    let first = lines(&mut database, &options);
    let expected = [
        json!(["BEGIN"]),
        json!(["CREATE", "kept", a]),
        json!(["CREATE", "kept", a]),
        json!(["PREPARE", "to commit é"]),
        json!(["BEGIN"]),
        json!(["CREATE", "back", a]),
        json!(["PREPARE", "to roll back"]),
        json!(["BEGIN"]),
        json!(["CREATE", "plain", a]),
        json!(["COMMIT"]),
    ];
    assert_eq!(short(&first), expected);
    let document: Value = serde_json::from_str(&first[1]).unwrap();
    assert_eq!((&document["commit_position"], &document["committed_at"]), (&json!(null), &json!(null)));
    let prepare: Value = serde_json::from_str(&first[3]).unwrap();
    assert_eq!(prepare["transaction_id"], document["transaction_id"]);
    assert!(prepare["prepare_position"].is_string() && prepare["prepared_at"].is_string());
    drop(client);
    server.pg_ctl("restart");
    let mut client = database.connect();
    client.batch_execute("COMMIT PREPARED 'to commit é'").unwrap();
    client.batch_execute("ROLLBACK PREPARED 'to roll back'").unwrap();
    client.batch_execute("COMMIT PREPARED 'x_nodecode'").unwrap();
    client.batch_execute("INSERT INTO t (v) VALUES ('end')").unwrap();
    // What a client confirmed shortly before a restart may be sent to it again; then it is the same.
    let mut second = lines(&mut database, &options);
    second.retain(|line| !first.contains(line));
    let expected = [
        json!(["COMMIT PREPARED", "to commit é"]),
        json!(["ROLLBACK PREPARED", "to roll back"]),
        json!(["BEGIN"]),
        json!(["CREATE", "later", a]),
        json!(["COMMIT"]),
        json!(["BEGIN"]),
        json!(["CREATE", "end", {}]),
        json!(["COMMIT"]),
    ];
    assert_eq!(short(&second), expected);
    let commit: Value = serde_json::from_str(&second[0]).unwrap();
    assert_eq!(commit["transaction_id"], document["transaction_id"]);
    assert!(commit["commit_position"].is_string() && commit["committed_at"].is_string());
    let rollback: Value = serde_json::from_str(&second[1]).unwrap();
    let prepare: Value = serde_json::from_str(&first[6]).unwrap();
    for key in ["gid", "transaction_id", "prepare_position", "prepared_at"] {
        assert_eq!(rollback[key], prepare[key]);
    }
    // The slot goes on with it where the reader says nothing.
    client.batch_execute("BEGIN; INSERT INTO t (v) VALUES ('x'); PREPARE TRANSACTION 'again'").unwrap();
    client.batch_execute("COMMIT PREPARED 'again'").unwrap();
    let third = lines(&mut database, &["include-transaction"]);
    let expected = [
        json!(["BEGIN"]),
        json!(["CREATE", "x", {}]),
        json!(["PREPARE", "again"]),
        json!(["COMMIT PREPARED", "again"]),
    ];
    assert_eq!(short(&third), expected);
    drop(client);
    server.stop();
    latin1_names();
}

/// The end of a prepared transaction is told where no transaction is open, in which an encoding could be converted.
fn latin1_names() {
    let server = Server::start("");
    let latin1 = "ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'";
    let mut database = server.database_with("latin1_names", latin1);
    let mut client = database.connect();
    client.batch_execute("CREATE TABLE t (v text)").unwrap();
    client
        .batch_execute("SELECT pg_create_logical_replication_slot('latin1_names', 'bemi_decoder', false, true)")
        .unwrap();
    database.slot_is_there();
    client.batch_execute("BEGIN; INSERT INTO t VALUES ('é'); PREPARE TRANSACTION 'brûlée'").unwrap();
    client.batch_execute("COMMIT PREPARED 'brûlée'").unwrap();
    let expected = [json!(["CREATE", "é", {}]), json!(["PREPARE", "brûlée"]), json!(["COMMIT PREPARED", "brûlée"])];
    assert_eq!(short(&lines(&mut database, &[])), expected);
    drop(client);
    server.stop();
}

fn streamed(_: &Server) {
    let server = Server::start("logical_decoding_work_mem = 64kB\n");
    let mut database = two_phase(&server, "streamed");
    let mut client = database.connect();
    let rows = "INSERT INTO t (v) SELECT repeat('x', 500) FROM generate_series(1, 300);";
    client
        .batch_execute(&format!("BEGIN; {rows} SAVEPOINT s; {rows} ROLLBACK TO s; PREPARE TRANSACTION 'one'; BEGIN; {rows} PREPARE TRANSACTION 'two'"))
        .unwrap();
    client.batch_execute("COMMIT PREPARED 'one'").unwrap();
    client.batch_execute("ROLLBACK PREPARED 'two'").unwrap();
    let all = short(&lines(&mut database, &["two-phase", "stream-changes"]));
    let markers: Vec<&Value> = all.iter().filter(|d| d[0] != json!("CREATE")).collect();
    let expected = [
        json!(["STREAM ABORT"]),
        json!(["STREAM PREPARE", "one"]),
        // Later servers see that the transaction is rolled back already, and pass on no rows of it.
        json!([if server.major < 18 { "STREAM PREPARE" } else { "PREPARE" }, "two"]),
        json!(["COMMIT PREPARED", "one"]),
        json!(["ROLLBACK PREPARED", "two"]),
    ];
    assert_eq!(markers, expected.iter().collect::<Vec<_>>());
    drop(client);
    server.stop();
}

fn without(_: &Server) {
    let server = Server::start("");
    let mut database = table(&server, "without");
    let mut client = database.connect();
    let statements = [
        "BEGIN; INSERT INTO t (v) VALUES ('x'); PREPARE TRANSACTION 'one'",
        "INSERT INTO t (v) VALUES ('y')",
        "COMMIT PREPARED 'one'",
    ];
    for statement in statements {
        client.batch_execute(statement).unwrap();
    }
    let operations = |lines: &[String]| -> Vec<String> {
        short(lines).iter().map(|d| format!("{} {}", d[0].as_str().unwrap(), d[1].as_str().unwrap())).collect()
    };
    let plain = ["CREATE y", "CREATE x"];
    let at_prepare = ["CREATE x", "PREPARE one", "CREATE y", "COMMIT PREPARED one"];
    assert_eq!(operations(&database.read(&[]).unwrap()), plain);
    if server.major == 14 {
        // It has to be said when the slot is made.
        let said = database.read(&["two-phase"]).unwrap_err();
        assert!(said.contains("takes a slot that was made for it") && said.contains("false, true"), "{said}");
    } else {
        assert_eq!(operations(&database.read(&["two-phase"]).unwrap()), at_prepare);
    }
    make_slot_again(&database);
    for statement in statements {
        client.batch_execute(statement).unwrap();
    }
    assert_eq!(operations(&lines(&mut database, &["two-phase=false"])), plain);
    for statement in statements {
        client.batch_execute(statement).unwrap();
    }
    assert_eq!(operations(&lines(&mut database, &["two-phase"])), at_prepare);
    drop(client);
    server.stop();
}
