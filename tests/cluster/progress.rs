//! How far the recorder is: exactly, whoever else reads its slot or writes its table.
use postgres::Client;
use serde_json::{Value, json};

use crate::Test;
use crate::recorder::{changes, recording, wait_until_recording};
use crate::server::{Database, Server, run, sqlstate, wait_until};

pub const TESTS: &[Test] = &[
    ("a_slot_that_others_read_after_a_restart_of_the_server_is_lost", read_after_restart),
    ("a_slot_that_others_read_in_the_pause_after_a_failure_is_lost", read_in_pause),
    ("a_slot_that_others_moved_is_lost", moved),
    ("a_slot_that_was_made_again_under_its_name_is_lost", made_again),
    ("nobody_reads_the_slot_while_the_recorder_waits", held),
    ("what_is_recorded_and_not_confirmed_is_recorded_once", not_confirmed),
    ("progress_that_was_not_recorded_is_refused", forged),
    ("a_gap_that_no_start_left_is_refused", forged_gap),
    ("a_second_gap_before_the_first_is_recorded_widens_it", two_gaps),
    ("changes_of_any_time_are_recorded_and_those_behind_them", any_time),
    ("a_transaction_that_does_not_fit_is_named_with_the_statement_that_helps", too_large),
    ("log_without_changes_to_record_is_no_lag", no_lag),
    ("small_transactions_do_not_fail_together", small_together),
    ("an_idle_recorder_does_not_write", idle),
    ("a_member_that_the_table_cannot_hold_leaves_the_others", member),
];

fn values(client: &mut Client) -> Vec<String> {
    let name = |row: &Value| row["after"]["v"].as_str().or(row["operation"].as_str()).unwrap().to_owned();
    changes(client).iter().map(name).collect()
}

fn state(client: &mut Client) -> (String, String) {
    let row = client.query_one("SELECT state, COALESCE(detail, '') FROM bemi.status", &[]).unwrap();
    (row.get(0), row.get(1))
}

/// The slot is lost, nothing hides that, and a gap is recorded when it is accepted.
fn is_lost(client: &mut Client, sign: &str, before: &[&str]) {
    wait_until("the loss", || state(client).0 == "slot lost");
    let detail = state(client).1;
    assert!(detail.contains(sign), "{detail}");
    assert_eq!(sqlstate(client.batch_execute("SELECT bemi.sync('1 s')")), "55000");
    let error = client.batch_execute("SELECT bemi.start()").unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code().code(), "55000");
    assert!(error.detail().unwrap().contains(sign), "{error:?}");
    run(client, "SELECT bemi.start(accept_gap => true); INSERT INTO t (v) VALUES ('last')");
    let expected: Vec<&str> = before.iter().copied().chain(["GAP", "last"]).collect();
    assert_eq!(values(client), expected);
    let gap = "SELECT context->>'reason', (context->>'from')::pg_lsn < (context->>'to')::pg_lsn, sequence, schema FROM bemi.changes WHERE operation = 'GAP'";
    let row = client.query_one(gap, &[]).unwrap();
    assert_eq!((row.get(0), row.get(1), row.get(2), row.get(3)), ("slot lost", true, 0, ""));
    wait_until_recording(client);
}

/// What a role does that may read slots, as far as it succeeds.
fn drain(database: &Database, statement: &str) {
    let mut reader = database.connect();
    let role = format!("{}_reader", database.name);
    run(&mut reader, &format!("DROP ROLE IF EXISTS {role}; CREATE ROLE {role} REPLICATION; SET ROLE {role}"));
    wait_until("the slot to be free", || reader.batch_execute(statement).is_ok());
    run(&mut reader, &format!("RESET ROLE; DROP ROLE {role}"));
}

const READ: &str = "SELECT count(*) FROM pg_logical_slot_get_changes(bemi.recorder_slot(), NULL, NULL)";

fn read_after_restart(_: &Server) {
    let server = Server::start("");
    let (database, mut client, _stop) = recording(&server, "progress_restart");
    run(&mut client, "GRANT USAGE ON SCHEMA bemi TO PUBLIC; INSERT INTO t (v) VALUES ('0'); SELECT bemi.sync()");
    server.pg_ctl("restart");
    client = database.connect();
    run(&mut client, "INSERT INTO t (v) VALUES ('1'), ('2')");
    drain(&database, READ);
    run(&mut client, "INSERT INTO t (v) VALUES ('3')");
    is_lost(&mut client, "another reader", &["0"]);
    server.stop();
}

fn read_in_pause(_: &Server) {
    let server = Server::start("");
    let (database, mut client, _stop) = recording(&server, "progress_pause");
    run(&mut client, "GRANT USAGE ON SCHEMA bemi TO PUBLIC; INSERT INTO t (v) VALUES ('0'); SELECT bemi.sync()");
    client.batch_execute("SELECT pg_terminate_backend(bemi.recorder_pid())").unwrap();
    wait_until("the end of the worker", || {
        client.query_one("SELECT bemi.recorder_pid() IS NULL", &[]).unwrap().get::<_, bool>(0)
    });
    // Whoever comes first takes the row, the reader or the worker that the server starts again.
    run(&mut client, "INSERT INTO t (v) VALUES ('1')");
    drain(&database, READ);
    is_lost(&mut client, "another reader", &["0"]);
    server.stop();
}

fn moved(server: &Server) {
    let (database, mut client, _stop) = recording(server, "progress_moved");
    run(&mut client, "GRANT USAGE ON SCHEMA bemi TO PUBLIC; INSERT INTO t (v) VALUES ('0'); SELECT bemi.sync()");
    run(&mut client, "SELECT bemi.stop(); INSERT INTO t (v) VALUES ('1')");
    drain(&database, "SELECT pg_replication_slot_advance(bemi.recorder_slot(), pg_current_wal_lsn())");
    is_lost(&mut client, "another reader", &["0"]);
}

fn made_again(server: &Server) {
    let (database, mut client, _stop) = recording(server, "progress_again");
    run(&mut client, "GRANT USAGE ON SCHEMA bemi TO PUBLIC; INSERT INTO t (v) VALUES ('0'); SELECT bemi.sync()");
    run(&mut client, "SELECT bemi.stop(); INSERT INTO t (v) VALUES ('1')");
    let slot: String = client.query_one("SELECT slot::text FROM bemi.status", &[]).unwrap().get(0);
    drain(&database, &format!("SELECT pg_drop_replication_slot('{slot}')"));
    drain(&database, &format!("SELECT pg_create_logical_replication_slot('{slot}', 'bemi_decoder')"));
    is_lost(&mut client, "another reader", &["0"]);
}

/// Makes the recorder fail again and again.
fn starve(client: &mut Client, database: &str, rows: i32) {
    run(
        client,
        &format!("SELECT bemi.sync(); SELECT bemi.stop(); ALTER DATABASE {database} SET temp_file_limit = '1MB'"),
    );
    client.batch_execute(&format!("INSERT INTO t (v) SELECT md5(i::text) FROM generate_series(1, {rows}) i")).unwrap();
    run(client, "SELECT bemi.start()");
    wait_until("the failure", || state(client).0 == "waiting");
}

fn held(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "progress_held");
    starve(&mut client, "progress_held", 50_000);
    // From its fourth failure on, it waits for longer than the server does between two workers.
    wait_until("some failures", || {
        client.query_one("SELECT failures >= 4 FROM bemi.recorder", &[]).unwrap().get::<_, bool>(0)
    });
    // It sleeps before it begins to decode.
    wait_until("the worker to wait", || {
        let sleeps = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'bemi recorder' AND datname = current_database()
            AND query = 'bemi recorder: starting' AND wait_event = 'Extension')";
        client.query_one(sleeps, &[]).unwrap().get::<_, bool>(0)
    });
    assert_eq!(sqlstate(client.batch_execute(READ)), "55006");
}

fn not_confirmed(_: &Server) {
    let server = Server::start("");
    let (database, mut client, _stop) = recording(&server, "progress_crash");
    run(&mut client, "SELECT bemi.sync(); CHECKPOINT");
    let mut expected = 0;
    for _ in 0..3 {
        // What a slot confirms is not on disk when the server crashes.
        for _ in 0..20 {
            run(&mut client, "INSERT INTO t (v) VALUES ('a'), ('b')");
            expected += 2;
        }
        wait_until("the rows", || {
            client.query_one("SELECT count(*) FROM bemi.changes", &[]).unwrap().get::<_, i64>(0) == expected
        });
        server.stop_with("immediate");
        server.pg_ctl("start");
        client = database.connect();
        assert_ne!(state(&mut client).0, "slot lost");
        run(&mut client, "SELECT bemi.start(); SELECT bemi.sync()");
    }
    assert_eq!(changes(&mut client).len() as i64, expected);
    server.stop();
}

fn forged(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "progress_forged");
    run(&mut client, "INSERT INTO t (v) VALUES ('0'); SELECT bemi.sync()");
    let mut before = vec!["0"];
    for wrong in [
        "commit_position = 'FFFFFF/0'",
        "commit_position = 'FFFFFFFF/0'",
        "read_position = 'FFFFFF/0'",
        "commit_position = pg_current_wal_flush_lsn()",
    ] {
        run(
            &mut client,
            "SELECT bemi.stop(); INSERT INTO t (v) VALUES ('missing'); CREATE TABLE x AS SELECT; DROP TABLE x",
        );
        run(&mut client, &format!("UPDATE bemi.recorder SET {wrong}"));
        wait_until("the loss", || state(&mut client).0 == "slot lost");
        let sign = "the progress in bemi.recorder is not what was recorded";
        assert!(state(&mut client).1.contains(sign), "{wrong}");
        assert_eq!(sqlstate(client.batch_execute("SELECT bemi.start()")), "55000", "{wrong}");
        run(&mut client, "SELECT bemi.start(accept_gap => true); INSERT INTO t (v) VALUES ('on')");
        before.extend(["GAP", "on"]);
        assert_eq!(values(&mut client), before, "{wrong}");
    }
    // Behind the recorder's back, too: it sees it when it begins again.
    run(&mut client, "SELECT bemi.sync(); UPDATE bemi.recorder SET commit_position = 'FFFFFF/0'");
    client.batch_execute("SELECT pg_terminate_backend(bemi.recorder_pid())").unwrap();
    wait_until("the worker to end", || {
        let row =
            client.query_one("SELECT state = 'slot lost' AND last_error LIKE '%progress%' FROM bemi.recorder", &[]);
        row.unwrap().get::<_, Option<bool>>(0) == Some(true)
    });
    assert_eq!(
        client.query("SELECT FROM bemi.changes WHERE context->>'from' >= context->>'to'", &[]).unwrap().len(),
        0
    );
}

fn forged_gap(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "progress_gap");
    run(&mut client, "INSERT INTO t (v) VALUES ('0'); SELECT bemi.sync(); SELECT bemi.stop()");
    for wrong in [
        "gap_reason = 'stopped'",
        "gap_reason = 'stopped', gap_to = 'FFFFFF/0', gap_at = now(), gap_transaction = 1",
        "gap_reason = 'stopped', gap_to = read_position, gap_at = 'infinity', gap_transaction = 1",
    ] {
        run(&mut client, &format!("UPDATE bemi.recorder SET {wrong}"));
        assert_eq!(sqlstate(client.batch_execute("SELECT bemi.start()")), "55000", "{wrong}");
        run(&mut client, "UPDATE bemi.recorder SET gap_reason = NULL, gap_to = NULL");
    }
    let error = client.batch_execute("UPDATE bemi.recorder SET gap_reason = 'because'");
    assert_eq!(sqlstate(error), "23514");
    run(&mut client, "SELECT bemi.start(); INSERT INTO t (v) VALUES ('1')");
    assert_eq!(values(&mut client), ["0", "1"]);
}

fn two_gaps(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "progress_two");
    run(&mut client, "INSERT INTO t (v) VALUES ('0'); SELECT bemi.sync(); SELECT bemi.stop(drop_slot => true)");
    let read = |client: &mut Client| -> String {
        client.query_one("SELECT read_position::text FROM bemi.recorder", &[]).unwrap().get(0)
    };
    let from = read(&mut client);
    // The first of them cannot be written.
    run(
        &mut client,
        "ALTER TABLE bemi.changes ADD CONSTRAINT no CHECK (operation <> 'GAP') NOT VALID; SELECT bemi.start()",
    );
    wait_until("the failure", || state(&mut client).0 == "waiting");
    run(
        &mut client,
        "SELECT bemi.stop(drop_slot => true); INSERT INTO t (v) VALUES ('missing'); ALTER TABLE bemi.changes DROP CONSTRAINT no",
    );
    run(&mut client, "SELECT bemi.start(); INSERT INTO t (v) VALUES ('1')");
    assert_eq!(values(&mut client), ["0", "GAP", "1"]);
    let gap = &changes(&mut client)[1];
    assert_eq!((&gap["context"]["from"], &gap["context"]["reason"]), (&json!(from), &json!("stopped")));
    assert_eq!(gap["context"]["to"], gap["commit_position"]);
}

fn any_time(server: &Server) {
    let (database, mut client, _stop) = recording(server, "progress_time");
    let times = [
        "infinity",
        "-infinity",
        "0044-03-15 12:00:00.5+00 BC",
        "4714-11-24 00:00:00+00 BC",
        "294276-12-31 23:59:59+00",
        "12000-01-01 00:00:00+00",
        "1969-12-31 23:59:59+00",
    ];
    let mut other = database.connect();
    run(
        &mut other,
        "SELECT pg_replication_origin_create('progress_time'); SELECT pg_replication_origin_session_setup('progress_time')",
    );
    for (i, time) in times.iter().enumerate() {
        run(
            &mut other,
            &format!(
                "BEGIN; SELECT pg_replication_origin_xact_setup('0/{}', '{time}'); INSERT INTO t (v) VALUES ('{time}'); COMMIT",
                i + 1
            ),
        );
    }
    run(&mut other, "SELECT pg_replication_origin_session_reset(); SELECT pg_replication_origin_drop('progress_time')");
    run(&mut client, "INSERT INTO t (v) VALUES ('behind')");
    let expected: Vec<&str> = times.iter().copied().chain(["behind"]).collect();
    assert_eq!(values(&mut client), expected);
    let wrong = "SELECT count(*) FROM bemi.changes WHERE id <> bemi.change_id(committed_at, commit_position, sequence) OR after->>'v' <> 'behind' AND committed_at <> (after->>'v')::timestamptz";
    assert_eq!(client.query_one(wrong, &[]).unwrap().get::<_, i64>(0), 0);
    // So as the last one, and whatever the state.
    run(&mut client, "SELECT bemi.stop(); SELECT * FROM bemi.doctor()");
    for time in times {
        run(
            &mut client,
            &format!(
                "UPDATE bemi.recorder SET committed_at = '{time}'; SELECT * FROM bemi.status; SELECT * FROM bemi.doctor()"
            ),
        );
    }
    run(
        &mut client,
        "UPDATE bemi.recorder SET committed_at = now(); SELECT bemi.start(); INSERT INTO t (v) VALUES ('last'); SELECT bemi.sync()",
    );
    wait_until_recording(&mut client);
    // What can have a partition gets one, and the advice ends.
    let mut advice = 0;
    loop {
        let fix: Option<String> = client.query_one("SELECT fix FROM bemi.status", &[]).unwrap().get(0);
        let Some(fix) = fix else { break };
        client.batch_execute(&fix).unwrap();
        advice += 1;
        assert!(advice < 10, "{fix}");
    }
    assert_eq!(advice, 1);
    for time in ["infinity", "-infinity", "0044-03-15 BC"] {
        assert_eq!(sqlstate(client.batch_execute(&format!("SELECT bemi.add_partition('{time}')"))), "22023", "{time}");
    }
}

fn too_large(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "progress_large");
    run(&mut client, "INSERT INTO t (v) VALUES ('before')");
    starve(&mut client, "progress_large", 50_000);
    let row = client.query_one("SELECT last_error, fix FROM bemi.status", &[]).unwrap();
    let (error, fix): (String, String) = (row.get(0), row.get(1));
    assert!(error.starts_with("transaction ") && error.contains(" MB of temporary files"), "{error}");
    // What came before it is recorded.
    let recorded = "SELECT count(*) FROM bemi.changes";
    assert_eq!(client.query_one(recorded, &[]).unwrap().get::<_, i64>(0), 1);
    assert!(fix.starts_with("ALTER DATABASE progress_large SET temp_file_limit = '"), "{fix}");
    for statement in fix.split('\n') {
        client.batch_execute(statement).unwrap();
    }
    client.batch_execute("SELECT bemi.sync('100 s')").unwrap();
    assert_eq!(client.query_one(recorded, &[]).unwrap().get::<_, i64>(0), 50_001);
    wait_until_recording(&mut client);
}

fn small_together(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "progress_small");
    run(
        &mut client,
        "SELECT bemi.sync(); SELECT bemi.stop(); ALTER DATABASE progress_small SET temp_file_limit = '1MB'",
    );
    for _ in 0..30 {
        run(&mut client, "INSERT INTO t (v) SELECT repeat('x', 1000) FROM generate_series(1, 1000)");
    }
    run(&mut client, "SELECT bemi.start(); SELECT bemi.sync('100 s')");
    let row = client.query_one("SELECT changes, last_error FROM bemi.status", &[]).unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, Option<String>>(1)), (30_000, None));
}

/// On a server of its own: nobody else writes.
fn idle(_: &Server) {
    let server = Server::start("autovacuum = off\n");
    let (_database, mut client, _stop) = recording(&server, "progress_idle");
    run(&mut client, "ALTER DATABASE progress_idle SET bemi.flush_interval = 1; SELECT pg_reload_conf()");
    run(&mut client, "INSERT INTO t (v) VALUES ('a'); SELECT bemi.sync()");
    let written = |client: &mut Client| -> i64 {
        client.query_one("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint", &[]).unwrap().get(0)
    };
    let start = written(&mut client);
    for _ in 0..50 {
        run(&mut client, "SELECT bemi.sync()");
    }
    let synced = written(&mut client);
    assert!(synced - start < 50 * 1024, "{} bytes for 50 calls of sync", synced - start);
    // As long as some hundred intervals.
    std::thread::sleep(std::time::Duration::from_secs(2));
    let end = written(&mut client);
    assert!(end - synced < 1024, "{} bytes", end - synced);
    assert_eq!(state(&mut client).0, "recording");
    server.stop();
}

/// In an encoding that does not have a character.
fn member(server: &Server) {
    let database =
        server.database_with("progress_member", "ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
    let mut client = database.connect();
    run(&mut client, "CREATE TABLE t (id int PRIMARY KEY, v int, j json); SELECT bemi.track('t'); SELECT bemi.start()");
    let long = "\\u20ac".repeat(300);
    run(
        &mut client,
        &format!(
            "INSERT INTO t VALUES (1, 1, '\"{long}\"'), (2, 2, '3'); UPDATE t SET v = 5 WHERE id = 1; UPDATE t SET j = NULL"
        ),
    );
    let rows = changes(&mut client);
    let reason = json!({"j": "the table cannot hold it"});
    let found: Vec<Value> = rows
        .iter()
        .map(|row| json!([row["before"]["v"], row["after"]["v"], row["after"]["j"], row["omitted"]]))
        .collect();
    assert_eq!(
        found,
        [
            json!([null, 1, null, reason]),
            json!([null, 2, 3, null]),
            json!([1, 5, null, reason]),
            json!([2, 2, null, null]),
            json!([5, 5, null, reason]),
        ]
    );
    run(&mut client, "SELECT bemi.stop(drop_slot => true)");
}

/// It is confirmed by the megabyte, or once a minute. On a server of its own, where nobody else writes.
fn no_lag(_: &Server) {
    let server = Server::start("");
    let (_database, mut client, _stop) = recording(&server, "progress_lag");
    run(&mut client, "INSERT INTO t (v) VALUES ('x'); SELECT bemi.sync()");
    wait_until_recording(&mut client);
    run(&mut client, "SELECT pg_logical_emit_message(true, 'another', repeat('x', 300000))");
    let begun = std::time::Instant::now();
    wait_until("the recorder to be idle", || {
        let lag = "SELECT state = 'recording' AND lag_bytes = 0 FROM bemi.status";
        client.query_one(lag, &[]).unwrap().get(0)
    });
    assert!(begun.elapsed().as_secs() < 30, "it waited for the next housekeeping");
    let kept = "SELECT pg_current_wal_flush_lsn() - recorded_position > 300000 FROM bemi.status";
    assert!(client.query_one(kept, &[]).unwrap().get::<_, bool>(0), "what is not confirmed yet is kept");
}
