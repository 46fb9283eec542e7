//! `bemi.track_all()` beside those who make tables and those who read.
use std::time::{Duration, Instant};

use crate::Test;
use crate::server::{Database, Server, wait_until};

pub const TESTS: &[Test] = &[
    ("nobody_waits_behind_a_track_all_that_waits_for_a_long_transaction", nobody_waits),
    ("a_reader_of_the_tracked_schemas_holds_nobody_up", readers),
    ("whoever_makes_a_table_while_track_all_runs_waits_and_is_tracked", makers_wait),
];

fn tracked(client: &mut postgres::Client) -> Vec<String> {
    let rows =
        client.query("SELECT relation::text FROM bemi.tracked ORDER BY relation::text COLLATE \"C\"", &[]).unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Sessions of the database that run a statement that begins so, and still do.
fn running(client: &mut postgres::Client, beginning: &str) -> i64 {
    let statement = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' AND starts_with(query, $1) AND pid <> pg_backend_pid()";
    client.query_one(statement, &[&beginning]).unwrap().get(0)
}

/// A third session makes tables while the second waits for the first.
fn nobody_waits(server: &Server) {
    let database = server.database("nobody_waits");
    let mut client = database.connect();
    let mut long = database.connect();
    long.batch_execute("BEGIN; CREATE TABLE unfinished (id int)").unwrap();
    let told = std::thread::scope(|scope| {
        let tracker = scope.spawn(|| {
            let (mut client, notices) = server.connect_listening("nobody_waits", "postgres");
            client.batch_execute("SELECT bemi.track_all()").unwrap();
            notices.take()
        });
        wait_until("the tracker", || running(&mut client, "SELECT bemi.track_all") == 1);
        let mut other = database.connect();
        other.batch_execute("SET lock_timeout = '500ms'").unwrap();
        for i in 0..5 {
            other.batch_execute(&format!("CREATE TABLE made_{i} (id int)")).unwrap();
        }
        tracker.join().unwrap()
    });
    let warning = "WARNING: transactions in progress have created tables, which may not be tracked HINT: When they have ended: SELECT bemi.track_all('{public}');";
    assert!(told.iter().any(|notice| notice == warning), "{told:?}");
    long.batch_execute("COMMIT").unwrap();
    // From then on all are tracked, and the statement of the warning brings the one that was missed.
    client.batch_execute("CREATE TABLE after (id int)").unwrap();
    assert!(tracked(&mut client).contains(&"after".to_owned()));
    client.batch_execute("SELECT bemi.track_all('{public}')").unwrap();
    assert_eq!(tracked(&mut client), ["after", "made_0", "made_1", "made_2", "made_3", "made_4", "unfinished"]);
}

/// As pg_dump does, and any role may.
fn readers(server: &Server) {
    let database = server.database("tracked_schemas_readers");
    let mut client = database.connect();
    let mut reader = database.connect();
    reader
        .batch_execute(
            "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT * FROM bemi.tracked_schemas; LOCK TABLE bemi.tracked_schemas IN ACCESS SHARE MODE;
             SELECT * FROM bemi.doctor()",
        )
        .unwrap();
    client
        .batch_execute(
            "SET lock_timeout = '500ms'; SELECT bemi.track_all(); CREATE TABLE t (id int); SELECT bemi.untrack_all(); SELECT bemi.track_all()",
        )
        .unwrap();
    assert_eq!(tracked(&mut client), ["t"]);
    reader.batch_execute("COMMIT").unwrap();
}

fn makers_wait(server: &Server) {
    let database = server.database("makers_wait");
    let mut client = database.connect();
    let mut tracker = database.connect();
    tracker.batch_execute("CREATE TABLE t (id int); BEGIN; SELECT bemi.track_all()").unwrap();
    std::thread::scope(|scope| {
        let database: &Database = &database;
        let maker = scope.spawn(move || database.connect().batch_execute("CREATE TABLE late (id int)"));
        let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'object' AND classid = 'pg_extension'::regclass AND objsubid = 2";
        wait_until("the maker", || client.query_one(waits, &[]).unwrap().get::<_, i64>(0) == 1);
        // Another one that tracks all goes on, too, and neither fails.
        let start = Instant::now();
        let second = scope.spawn(move || database.connect().batch_execute("SELECT bemi.track_all()"));
        wait_until("the second one", || running(&mut client, "SELECT bemi.track_all") == 1);
        tracker.batch_execute("COMMIT").unwrap();
        maker.join().unwrap().unwrap();
        second.join().unwrap().unwrap();
        assert!(start.elapsed() < Duration::from_secs(30));
    });
    assert_eq!(tracked(&mut client), ["late", "t"]);
    // In one transaction with tables of its own.
    client
        .batch_execute(
            "BEGIN; CREATE TABLE mine (id int); SELECT bemi.track_all(); CREATE TABLE mine_too (id int); COMMIT",
        )
        .unwrap();
    assert_eq!(tracked(&mut client), ["late", "mine", "mine_too", "t"]);
}
