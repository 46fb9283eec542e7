//! When the context is written to the log.
use std::process::Command;

use postgres::Client;
use serde_json::{Value, json};

use crate::Test;
use crate::context::table;
use crate::random::Random;
use crate::server::{Database, Server, contexts, sqlstate};

pub const TESTS: &[Test] = &[
    ("rollback_to_savepoint_restores_the_context_in_the_log", rollback_to_savepoint),
    ("a_released_savepoint_leaves_its_context", release_savepoint),
    ("a_context_written_by_a_statement_without_rows_counts_for_the_next_row", no_rows_between_savepoints),
    ("documents_are_sent_at_their_own_positions", positions),
    ("two_hundred_statements_under_one_context_write_one_message", one_message),
    ("the_first_statement_of_a_session_writes_one_message_in_each_protocol", first_statement),
    ("no_context_writes_nothing_and_assigns_no_transaction_id", no_context),
    ("a_cleared_context_is_empty_for_the_rest_of_the_transaction", cleared),
    ("what_fails_or_is_rolled_back_leaves_nothing_behind", nothing_left_behind),
    ("a_prepared_transaction_carries_its_context_and_the_next_one_its_own", prepared),
    ("every_way_to_change_a_row_carries_the_context_of_its_statement", every_way),
    ("contexts_of_bemihq_triggers_and_comments_are_the_same", bemihq),
    ("the_trigger_function_refuses_to_run_in_another_way", misuse),
    ("tables_that_are_not_logged_write_nothing", not_logged),
    ("track_and_untrack_work_on_partition_trees", track),
    ("contexts_are_right_in_random_histories_of_savepoints", random_histories),
];

const A: &str = "SELECT bemi.set_context('{\"c\":\"A\"}');";
const B: &str = "SELECT bemi.set_context('{\"c\":\"B\"}');";
const ROW: &str = "INSERT INTO t (v) VALUES ('x');";

fn letters(documents: &[Value]) -> String {
    contexts(documents).iter().map(|c| c["c"].as_str().unwrap_or("-").to_owned()).collect()
}

fn rollback_to_savepoint(server: &Server) {
    let mut database = table(server, "rollback_to_savepoint");
    // A row before the savepoint and one after it; the one inside is gone.
    let changes = database.changes_of(&format!("BEGIN; {A} {ROW} SAVEPOINT s; {B} {ROW} ROLLBACK TO s; {ROW} COMMIT;"));
    assert_eq!(letters(&changes), "AA");
    // The first message is written inside of the savepoint and gone with it.
    let changes = database.changes_of(&format!("BEGIN; {A} SAVEPOINT s; {ROW} ROLLBACK TO s; {ROW} {ROW} COMMIT;"));
    assert_eq!(letters(&changes), "AA");
    let changes = database
        .changes_of(&format!("BEGIN; {A} SAVEPOINT s; SAVEPOINT r; {B} {ROW} RELEASE r; ROLLBACK TO s; {ROW} COMMIT;"));
    assert_eq!(letters(&changes), "A");
}

fn release_savepoint(server: &Server) {
    let mut database = table(server, "release_savepoint");
    let changes = database.changes_of(&format!("BEGIN; {A} {ROW} SAVEPOINT s; {B} {ROW} RELEASE s; {ROW} COMMIT;"));
    assert_eq!(letters(&changes), "ABB");
}

/// The message of such a statement ends where the next row's record begins, and may belong to another savepoint.
fn no_rows_between_savepoints(server: &Server) {
    let mut database = table(server, "no_rows_between_savepoints");
    let no_row = "UPDATE t SET v = 'x' WHERE id = -1;";
    let changes = database.changes_of(&format!("BEGIN; {A} {ROW} SAVEPOINT s; {B} {no_row} RELEASE s; {ROW} COMMIT;"));
    assert_eq!(letters(&changes), "AB");
    let changes = database.changes_of(&format!(
        "BEGIN; {A} {ROW} SAVEPOINT z; {ROW} RELEASE z; {B} {no_row} SAVEPOINT y; {ROW} RELEASE y; {no_row} SAVEPOINT x; {ROW} COMMIT;"
    ));
    assert_eq!(letters(&changes), "AABB");
    let changes = database.changes_of(
        "DO $$ BEGIN FOR i IN 1..20 LOOP
           PERFORM bemi.set_context(jsonb_build_object('i', i));
           BEGIN UPDATE t SET v = 'x' WHERE id = -1; EXCEPTION WHEN division_by_zero THEN NULL; END;
           INSERT INTO t (v) VALUES (i), (i);
         END LOOP; END $$",
    );
    assert_eq!(changes.len(), 40);
    for document in changes {
        assert_eq!(document["context"]["i"].to_string(), document["after"]["v"].as_str().unwrap());
    }
}

/// A client that confirms what it has may not confirm what it has not: no document is sent as if it stood at the end
/// of its transaction, even where documents wait for what follows them.
fn positions(server: &Server) {
    let database = table(server, "positions");
    let mut client = database.connect();
    client
        .batch_execute(&format!(
            "BEGIN; {A} {ROW} SAVEPOINT a; INSERT INTO t (v) SELECT i FROM generate_series(1, 10) i; {B} {ROW} RELEASE a; {ROW} COMMIT"
        ))
        .unwrap();
    let rows = client
        .query(
            "SELECT lsn::text, data::json->>'position' FROM pg_logical_slot_get_changes('positions', NULL, NULL)",
            &[],
        )
        .unwrap();
    assert_eq!(rows.len(), 13);
    for row in rows {
        assert_eq!(row.get::<_, String>(0), row.get::<_, String>(1));
    }
}

/// Runs statements and counts the messages with our prefix that they left in the log, as pg_waldump shows it.
fn messages_of(database: &Database, statements: &str) -> usize {
    messages_while(database, |client| {
        client.batch_execute(statements).unwrap_or_else(|e| panic!("{e:?}: {statements}"));
    })
}

/// As [`messages_of`], of what runs in a new session.
fn messages_while(database: &Database, run: impl FnOnce(&mut Client)) -> usize {
    let mut client = database.connect();
    let start: String = client.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).unwrap().get(0);
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    run(&mut client);
    // The log has to end with a commit to be read up to there.
    client.batch_execute(&format!("SELECT pg_logical_emit_message(true, 'end of {pid}', '')")).unwrap();
    let end: String = client.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).unwrap().get(0);
    let folder: String = client.query_one("SELECT current_setting('data_directory') || '/pg_wal'", &[]).unwrap().get(0);
    let mut dump: Command = database.server.program("pg_waldump", &database.name);
    dump.args(["-p", &folder, "-s", &start, "-e", &end, "-r", "LogicalMessage"]);
    let text = String::from_utf8(database.server.check(&mut dump).stdout).unwrap();
    assert!(text.contains(&format!("end of {pid}")), "{text}");
    text.lines().filter(|line| line.contains("prefix \"_bemi\"")).count()
}

/// The first statement of a session loads the library, and nothing ran around it.
fn first_statement(_: &Server) {
    let server = Server::start("");
    let database = table(&server, "first_statement");
    let comment = "/*Bemi {\"c\":1} Bemi*/";
    for statement in [
        "INSERT INTO t (v) VALUES ('x')",
        "INSERT INTO t (v) VALUES ('x') RETURNING id",
        "WITH new AS (INSERT INTO t (v) VALUES ('x') RETURNING id) SELECT * FROM new",
        "UPDATE t SET v = 'y'",
        "DELETE FROM t",
        "TRUNCATE t",
    ] {
        let statement = format!("{statement} {comment}");
        let extended = |client: &mut Client| drop(client.query(&statement, &[]).unwrap());
        assert_eq!(messages_while(&database, extended), 1, "{statement}");
        let in_transaction = |client: &mut Client| {
            let mut transaction = client.transaction().unwrap();
            transaction.query(&statement, &[]).unwrap();
            transaction.query(&statement, &[]).unwrap();
            transaction.commit().unwrap();
        };
        assert_eq!(messages_while(&database, in_transaction), 1, "{statement}");
        assert_eq!(messages_of(&database, &statement), 1, "{statement}");
    }
    server.stop();
}

/// On a server of its own, where nobody else writes.
fn one_message(_: &Server) {
    let server = Server::start("");
    let mut database = table(&server, "one_message");
    let set = "SELECT bemi.set_context('{\"c\":\"one_message\"}');";
    let statements = ROW.repeat(200);
    assert_eq!(messages_of(&database, &format!("{set} COMMIT; BEGIN; {statements} COMMIT;")), 1);
    assert_eq!(database.documents().len(), 200);
    // Set again to the same value, and within released savepoints.
    let again = format!("SAVEPOINT s; {set} {ROW} RELEASE s; {set} {ROW}").repeat(50);
    assert_eq!(messages_of(&database, &format!("BEGIN; {set} {ROW} {again} COMMIT;")), 1);
    let changes = database.documents();
    assert!(contexts(&changes).iter().all(|context| context == &json!({"c":"one_message"})));
    assert_eq!(changes.len(), 101);
    // An UPDATE of no rows writes one, since the trigger cannot know.
    assert_eq!(messages_of(&database, &format!("BEGIN; {set} UPDATE t SET v = 'y' WHERE id = -1; COMMIT;")), 1);
    assert_eq!(database.documents(), [Value::Null; 0]);
    // No context, none; cleared again, one more.
    assert_eq!(
        messages_of(&database, &format!("{ROW} BEGIN; {ROW} SAVEPOINT s; {ROW} ROLLBACK TO s; {ROW} COMMIT;")),
        0
    );
    assert_eq!(
        messages_of(&database, &format!("BEGIN; {set} {ROW} SELECT bemi.clear_context(); {ROW} {ROW} COMMIT;")),
        2
    );
    server.stop();
}

fn no_context(server: &Server) {
    let mut database = table(server, "no_context");
    let mut client = database.connect();
    client.batch_execute("SELECT bemi.context(); BEGIN; UPDATE t SET v = 'x' WHERE id = -1").unwrap();
    let xid: Option<String> = client.query_one("SELECT pg_current_xact_id_if_assigned()::text", &[]).unwrap().get(0);
    assert_eq!(xid, None);
    client.batch_execute("SET bemi.context = '{}'; UPDATE t SET v = 'x' WHERE id = -1").unwrap();
    let xid: Option<String> = client.query_one("SELECT pg_current_xact_id_if_assigned()::text", &[]).unwrap().get(0);
    assert_eq!(xid, None);
    client.batch_execute(&format!("{ROW} COMMIT")).unwrap();
    assert_eq!(contexts(&database.documents()), [json!({})]);
}

fn cleared(server: &Server) {
    let mut database = table(server, "cleared");
    let changes =
        database.changes_of(&format!("BEGIN; {A} {ROW} SELECT bemi.clear_context(); {ROW} {ROW} {A} {ROW} COMMIT; "));
    assert_eq!(letters(&changes), "A--A");
}

fn nothing_left_behind(server: &Server) {
    let mut database = table(server, "nothing_left_behind");
    let mut client = database.connect();
    client.batch_execute(A).unwrap();
    // A failed statement.
    assert_eq!(sqlstate(client.batch_execute("INSERT INTO t VALUES (1), (1)")), "23505");
    client.batch_execute("BEGIN").unwrap();
    client.batch_execute(ROW).unwrap();
    client.batch_execute("COMMIT").unwrap();
    assert_eq!(letters(&database.documents()), "A");
    // A rolled-back transaction that changed the context, and one that failed.
    client.batch_execute(&format!("BEGIN; {B} {ROW} ROLLBACK; {ROW}")).unwrap();
    client.batch_execute(&format!("BEGIN; {B} {ROW}")).unwrap();
    assert_eq!(sqlstate(client.batch_execute("SELECT 1/0")), "22012");
    client.batch_execute("ROLLBACK").unwrap();
    client.batch_execute(ROW).unwrap();
    assert_eq!(letters(&database.documents()), "AA");
    // A cursor over a function that changes rows and the context, closed before its end.
    client
        .batch_execute(&format!(
            "CREATE FUNCTION f(n int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN {} {ROW} RETURN n; END $$;
             BEGIN; {A} DECLARE c CURSOR FOR SELECT f(n) FROM generate_series(1, 10) n; FETCH 1 FROM c; CLOSE c; {ROW} COMMIT; {ROW}",
            "PERFORM bemi.set_context('{\"c\":\"B\"}', true);"
        ))
        .unwrap();
    assert_eq!(letters(&database.documents()), "BBA");
    // A caught exception is a savepoint that is rolled back.
    let block = format!(
        "DO $$ BEGIN {ROW} BEGIN PERFORM bemi.set_context('{{\"c\":\"B\"}}'); {ROW} RAISE 'no'; EXCEPTION WHEN OTHERS THEN NULL; END; {ROW} END $$"
    );
    client.batch_execute(&block).unwrap();
    assert_eq!(letters(&database.documents()), "AA");
}

/// On a server of its own: while a transaction is prepared, no slot can be made.
fn prepared(_: &Server) {
    let server = Server::start("");
    let mut database = table(&server, "prepared");
    let mut client = database.connect();
    client.batch_execute(&format!("{A} COMMIT; BEGIN; {ROW} PREPARE TRANSACTION 'prepared';")).unwrap();
    // The context is unchanged, but what the prepared transaction wrote does not count for the next one.
    client.batch_execute(ROW).unwrap();
    assert_eq!(letters(&database.documents()), "A");
    client.batch_execute(&format!("{B} {ROW}")).unwrap();
    client.batch_execute("COMMIT PREPARED 'prepared'").unwrap();
    client.batch_execute(ROW).unwrap();
    assert_eq!(letters(&database.documents()), "BAB");
    client.batch_execute(&format!("BEGIN; {ROW} PREPARE TRANSACTION 'again';")).unwrap();
    client.batch_execute("ROLLBACK PREPARED 'again'").unwrap();
    client.batch_execute(ROW).unwrap();
    assert_eq!(letters(&database.documents()), "B");
    server.stop();
}

fn every_way(server: &Server) {
    let mut database = table(server, "every_way");
    let setup = "
        CREATE TABLE parent (id int PRIMARY KEY);
        CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE ON UPDATE SET NULL);
        SELECT bemi.track('parent'), bemi.track('child');
        INSERT INTO parent VALUES (1), (2); INSERT INTO child VALUES (1, 1), (2, 2);
        CREATE FUNCTION twice() RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
          INSERT INTO t (v) VALUES ('1');
          PERFORM bemi.merge_context('{\"step\":2}', true);
          INSERT INTO t (v) VALUES ('2');
        END $$";
    database.changes_of(setup);
    let mut client = database.connect();
    let mut check = |statement: &str, expected: &[(&str, &str)]| {
        client.batch_execute(statement).unwrap_or_else(|e| panic!("{e:?}: {statement}"));
        let shown: Vec<String> = database
            .documents()
            .iter()
            .map(|d| format!("{} {} {}", d["table"].as_str().unwrap(), d["operation"].as_str().unwrap(), d["context"]))
            .collect();
        let expected: Vec<String> = expected.iter().map(|(change, context)| format!("{change} {context}")).collect();
        assert_eq!(shown, expected, "{statement}");
    };
    let with = |n: u32| format!("SELECT bemi.set_context('{{\"n\":{n}}}');");
    check(
        &format!("{} DELETE FROM parent WHERE id = 1", with(1)),
        &[("parent DELETE", "{\"n\":1}"), ("child DELETE", "{\"n\":1}")],
    );
    check(
        &format!("{} UPDATE parent SET id = 3", with(2)),
        &[("parent UPDATE", "{\"n\":2}"), ("child UPDATE", "{\"n\":2}")],
    );
    check(
        &format!(
            "{} WITH a AS (INSERT INTO t (id, v) VALUES (100, 'a') RETURNING id) INSERT INTO parent SELECT id FROM a",
            with(3)
        ),
        &[("t CREATE", "{\"n\":3}"), ("parent CREATE", "{\"n\":3}")],
    );
    check(
        &format!(
            "{} INSERT INTO t (id, v) VALUES (100, 'a'), (101, 'b') ON CONFLICT (id) DO UPDATE SET v = 'c'",
            with(4)
        ),
        &[("t UPDATE", "{\"n\":4}"), ("t CREATE", "{\"n\":4}")],
    );
    check(&format!("{} SELECT twice()", with(5)), &[("t CREATE", "{\"n\":5}"), ("t CREATE", "{\"n\":5,\"step\":2}")]);
    check(
        &format!("{} TRUNCATE child, parent", with(6)),
        &[("child TRUNCATE", "{\"n\":6}"), ("parent TRUNCATE", "{\"n\":6}")],
    );
    check(&with(7), &[]);
    check(
        "DO $$ BEGIN INSERT INTO t (v) VALUES ('1'); COMMIT; INSERT INTO t (v) VALUES ('2'); END $$",
        &[("t CREATE", "{\"n\":7}"), ("t CREATE", "{\"n\":7}")],
    );
    if server.major >= 15 {
        check(
            "MERGE INTO t USING (VALUES (100), (-1)) new (id) ON t.id = new.id WHEN MATCHED THEN UPDATE SET v = 'm' WHEN NOT MATCHED THEN INSERT (v) VALUES ('m')",
            &[("t UPDATE", "{\"n\":7}"), ("t CREATE", "{\"n\":7}")],
        );
    }
}

fn bemihq(server: &Server) {
    let mut database = table(server, "bemihq");
    // Their way: a row trigger that takes the text between the marks of a comment and writes it as a message.
    let setup = "
        CREATE TABLE theirs (id int PRIMARY KEY, v text);
        CREATE FUNCTION context_of_comment() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE found text := substring(current_query() FROM '/[*]Bemi (.*) Bemi[*]/');
        BEGIN
          IF found IS NOT NULL THEN
            PERFORM pg_logical_emit_message(true, '_bemi', found);
          END IF;
          RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
        END $$;
        CREATE TRIGGER theirs BEFORE INSERT OR UPDATE OR DELETE ON theirs FOR EACH ROW EXECUTE FUNCTION context_of_comment()";
    database.changes_of(setup);
    let comment = "/*Bemi {\"user_id\": 187234, \"endpoint\": \"/todo\", \"params\": {\"a b\": [1, null]}} Bemi*/";
    let context = json!({"user_id":187234,"endpoint":"/todo","params":{"a b":[1,null]}});
    let mut client = database.connect();
    for table in ["theirs", "t"] {
        for statement in [
            format!("INSERT INTO {table} (id, v) VALUES (1, 'a'), (2, 'b') {comment}"),
            format!("UPDATE {table} SET v = 'c' {comment}"),
            format!("DELETE FROM {table} {comment};"),
        ] {
            client.batch_execute(&statement).unwrap();
        }
        assert_eq!(contexts(&database.documents()), vec![context.clone(); 6], "{table}");
    }
}

fn misuse(server: &Server) {
    let database = table(server, "misuse");
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE TABLE u (id int); CREATE VIEW w AS SELECT id FROM u;
             CREATE FUNCTION plain() RETURNS void LANGUAGE c AS '$libdir/bemi', 'bemi_emit_context'",
        )
        .unwrap();
    for trigger in [
        "BEFORE INSERT ON u FOR EACH ROW",
        "AFTER INSERT ON u FOR EACH STATEMENT",
        "AFTER INSERT ON u FOR EACH ROW",
        "INSTEAD OF INSERT ON w FOR EACH ROW",
    ] {
        client.batch_execute(&format!("CREATE TRIGGER wrong {trigger} EXECUTE FUNCTION bemi.emit_context()")).unwrap();
        let table = if trigger.contains(" w ") { "w" } else { "u" };
        let error = client.batch_execute(&format!("INSERT INTO {table} VALUES (1)")).unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code().code(), "39P01", "{trigger}");
        assert!(error.hint().unwrap().contains("bemi.track"), "{trigger}");
        client.batch_execute(&format!("DROP TRIGGER wrong ON {table}")).unwrap();
    }
    assert_eq!(sqlstate(client.batch_execute("SELECT plain()")), "39P01");
    assert_eq!(sqlstate(client.batch_execute("SELECT bemi.emit_context()")), "39P01");
}

fn not_logged(server: &Server) {
    let mut database = table(server, "not_logged");
    let mut client = database.connect();
    client
        .batch_execute(&format!(
            "CREATE TEMP TABLE temporary (id int); CREATE UNLOGGED TABLE unlogged (id int);
             CREATE TRIGGER by_hand BEFORE UPDATE ON temporary FOR EACH STATEMENT EXECUTE FUNCTION bemi.emit_context();
             CREATE TRIGGER by_hand BEFORE UPDATE ON unlogged FOR EACH STATEMENT EXECUTE FUNCTION bemi.emit_context(); {A}"
        ))
        .unwrap();
    client.batch_execute("BEGIN; UPDATE temporary SET id = 1; UPDATE unlogged SET id = 1").unwrap();
    let xid: Option<String> = client.query_one("SELECT pg_current_xact_id_if_assigned()::text", &[]).unwrap().get(0);
    assert_eq!(xid, None);
    // But a table that is not logged may have children that are.
    client
        .batch_execute(
            "COMMIT; CREATE UNLOGGED TABLE parent (id int); CREATE TABLE child () INHERITS (parent);
             INSERT INTO child VALUES (1); SELECT bemi.track('parent'); UPDATE parent SET id = 2",
        )
        .unwrap();
    assert_eq!(letters(&database.documents()), "-A");
}

fn track(server: &Server) {
    let mut database = table(server, "track");
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE TABLE \"my.root\" (id int, v text) PARTITION BY LIST (id);
             CREATE TABLE \"Leaf 1\" PARTITION OF \"my.root\" FOR VALUES IN (1);
             CREATE TABLE leaf2 PARTITION OF \"my.root\" FOR VALUES IN (2);
             CREATE FOREIGN DATA WRAPPER nothing; CREATE SERVER nowhere FOREIGN DATA WRAPPER nothing;
             CREATE FOREIGN TABLE leaf3 PARTITION OF \"my.root\" FOR VALUES IN (3) SERVER nowhere;
             SELECT bemi.track('\"my.root\"'); SELECT bemi.track('\"my.root\"');",
        )
        .unwrap();
    client
        .batch_execute(&format!(
            "{A} INSERT INTO \"my.root\" VALUES (1, 'root'), (2, 'root'); COMMIT; INSERT INTO leaf2 VALUES (2, 'leaf');"
        ))
        .unwrap();
    let documents = database.documents();
    assert_eq!(letters(&documents), "AAA");
    let tables: Vec<_> = documents.iter().map(|d| d["table"].as_str().unwrap()).collect();
    assert_eq!(tables, ["Leaf 1", "leaf2", "leaf2"]);
    client
        .batch_execute(
            "SELECT bemi.untrack('\"my.root\"'); SELECT bemi.untrack('\"my.root\"'); INSERT INTO leaf2 VALUES (2, 'x')",
        )
        .unwrap();
    assert_eq!(letters(&database.documents()), "-");
    assert_eq!(sqlstate(client.batch_execute("DROP EXTENSION bemi")), "2BP01");
    client.batch_execute("SELECT bemi.untrack('t'); DROP EXTENSION bemi").unwrap();
}

/// Each row holds the context that its statement had, by what the session itself says, so the log can be checked
/// against it without a model of savepoints.
fn random_histories(server: &Server) {
    let mut database = table(server, "random_histories");
    let mut client = database.connect();
    for seed in 1..=60u64 {
        let mut random = Random::new(seed);
        let mut text = String::from("BEGIN;");
        let mut depth = 0;
        for step in 0..40 {
            match random.below(12) {
                10 => text.push_str("UPDATE t SET v = 'x' WHERE id = -1;"),
                11 => text.push_str(
                    "DO $$ BEGIN UPDATE t SET v = 'x' WHERE id = -1; EXCEPTION WHEN OTHERS THEN NULL; END $$;",
                ),
                0..=3 => text.push_str("INSERT INTO t (v) VALUES (bemi.context());"),
                4 => text.push_str(&format!("SELECT bemi.set_context('{{\"n\":{}}}');", random.below(3))),
                5 => text.push_str(&format!("SET LOCAL bemi.context = '{{\"l\":{step}}}';")),
                6 => text.push_str("SELECT bemi.clear_context();"),
                7 => {
                    depth += 1;
                    text.push_str(&format!("SAVEPOINT s{depth};"));
                }
                8 if depth > 0 => {
                    text.push_str(&format!("RELEASE s{depth};"));
                    depth -= 1;
                }
                9 if depth > 0 => text.push_str(&format!("ROLLBACK TO s{depth};")),
                _ => {}
            }
        }
        text.push_str(if random.below(8) == 0 { "ROLLBACK;" } else { "COMMIT;" });
        client.batch_execute(&text).unwrap_or_else(|e| panic!("seed {seed}: {e:?}"));
        for document in database.documents() {
            let expected: Value = serde_json::from_str(document["after"]["v"].as_str().unwrap()).unwrap();
            assert_eq!(document["context"], expected, "seed {seed}: {text}");
        }
    }
}
