//! The past: how long a whole table of an earlier time takes to be read, beside the table itself, one of its rows, and the
//! history of one.
use std::time::Instant;

use postgres::Client;

use crate::server::Server;
use crate::table::Table;

const ROWS: u32 = 1_000_000;
const CHANGES: u32 = 100_000;
/// Of so many changes, at even distances over the table.
const TRANSACTIONS: u32 = 10;

const NOW: &str = "the table itself";
const NOW_ALONE: &str = "the table itself, without parallel workers";
const THEN: &str = "bemi.as_of, before the changes";
const BETWEEN: &str = "bemi.as_of, after half of the changes";
const LAST: &str = "bemi.as_of, after the changes";

pub fn run(server: &Server, runs: usize) -> Vec<Table> {
    println!("-- past");
    let mut client = server.database("past").connect();
    client
        .batch_execute(&format!(
            "CREATE TABLE t (id int PRIMARY KEY, customer_id int NOT NULL, status varchar(20), amount numeric(12,2), note text, at timestamptz DEFAULT now());
             INSERT INTO t (id, customer_id, status, amount, note)
             SELECT i, i % 1000, (ARRAY['new','paid','shipped','cancelled'])[1 + i % 4], (i % 100000) / 100.0, 'note ' || i FROM generate_series(1, {ROWS}) i;
             SELECT bemi.track('t')"
        ))
        .unwrap();
    client.batch_execute("SELECT bemi.start()").unwrap();
    client.batch_execute("SELECT bemi.sync()").unwrap();
    let then = now(&mut client);
    let mut between = then.clone();
    let step = ROWS / CHANGES;
    for transaction in 0..TRANSACTIONS {
        let first = transaction * (ROWS / TRANSACTIONS);
        let last = first + ROWS / TRANSACTIONS;
        let update = format!(
            "UPDATE t SET amount = amount + 1, status = 'done' WHERE id > {first} AND id <= {last} AND id % {step} = 0"
        );
        assert_eq!(client.execute(&update, &[]).unwrap(), u64::from(CHANGES / TRANSACTIONS));
        if transaction + 1 == TRANSACTIONS / 2 {
            between = now(&mut client);
        }
    }
    // A row whose history is long enough to be one.
    for i in 0..20 {
        client.batch_execute(&format!("UPDATE t SET note = 'version {i}' WHERE id = 500000")).unwrap();
    }
    let last = now(&mut client);
    client.batch_execute("SELECT bemi.sync('10 min')").unwrap();
    // The first readers note down what is seen as committed.
    for statement in ["VACUUM ANALYZE t", "VACUUM ANALYZE bemi.changes", "CHECKPOINT"] {
        client.batch_execute(statement).unwrap();
    }
    check(&mut client, &then);
    let tables = vec![
        scans(&mut client, [&then, &between, &last], runs),
        look_ups(&mut client, &then, runs),
        histories(&mut client, runs),
    ];
    client.batch_execute("SELECT bemi.stop(drop_slot => true)").unwrap();
    tables
}

fn now(client: &mut Client) -> String {
    let statement = "SELECT pg_sleep(0.01)::text, clock_timestamp()::text, pg_sleep(0.01)::text";
    format!("timestamptz '{}'", client.query_one(statement, &[]).unwrap().get::<_, String>(1))
}

/// What is timed has to be right.
fn check(client: &mut Client, then: &str) {
    let statement = format!(
        "SELECT count(*) = {ROWS} AND sum(amount) = (SELECT sum((i % 100000) / 100.0) FROM generate_series(1, {ROWS}) i) FROM bemi.as_of(NULL::t, {then})"
    );
    assert!(client.query_one(&statement, &[]).unwrap().get::<_, bool>(0), "the past is as it was");
    let statement = format!("SELECT note FROM bemi.as_of(NULL::t, {then}) WHERE id = 500000");
    assert_eq!(client.query_one(&statement, &[]).unwrap().get::<_, &str>(0), "note 500000");
}

fn milliseconds(client: &mut Client, statement: &str) -> f64 {
    let start = Instant::now();
    client.query(statement, &[]).unwrap();
    start.elapsed().as_secs_f64() * 1000.0
}

/// Each run has the table itself beside each instant.
fn scans(client: &mut Client, [then, between, last]: [&str; 3], runs: usize) -> Table {
    let name = format!("Count and sum of a table of {ROWS} rows with {CHANGES} changes");
    let mut table = Table::new(name, "ms");
    let query = |source: String| format!("SELECT count(*), sum(amount) FROM {source}");
    for _ in 0..runs {
        for (peer, at) in [(THEN, then), (BETWEEN, between), (LAST, last)] {
            if peer == THEN {
                table.add(NOW, milliseconds(client, &query("t".to_owned())));
                client.batch_execute("SET max_parallel_workers_per_gather = 0").unwrap();
                table.add(NOW_ALONE, milliseconds(client, &query("t".to_owned())));
                client.batch_execute("RESET max_parallel_workers_per_gather").unwrap();
            }
            table.add(peer, milliseconds(client, &query(format!("bemi.as_of(NULL::t, {at})"))));
        }
    }
    for peer in [THEN, BETWEEN, LAST] {
        table.compare(peer, &[NOW, NOW_ALONE]);
    }
    table
}

fn look_ups(client: &mut Client, then: &str, runs: usize) -> Table {
    const NOW: &str = "the table itself, by key";
    const CHANGED: &str = "bemi.as_of, by the key of a changed row";
    const UNCHANGED: &str = "bemi.as_of, by the key of an unchanged row";
    let mut table = Table::new("Look-up of one row by its key".to_owned(), "ms");
    for run in 0..runs * 4 {
        let changed = 10 * (1 + run * 997 % 99_000);
        table.add(NOW, milliseconds(client, &format!("SELECT * FROM t WHERE id = {changed}")));
        for (peer, id) in [(CHANGED, changed), (UNCHANGED, changed + 1)] {
            table
                .add(peer, milliseconds(client, &format!("SELECT * FROM bemi.as_of(NULL::t, {then}) WHERE id = {id}")));
        }
    }
    table.compare(CHANGED, &[NOW]);
    table.compare(UNCHANGED, &[NOW]);
    table
}

fn histories(client: &mut Client, runs: usize) -> Table {
    let mut table = Table::new(format!("History of one key among {CHANGES} changes"), "ms");
    for run in 0..runs * 4 {
        let id = 10 * (1 + run * 997 % 99_000);
        for (peer, id, versions) in [
            ("bemi.history, 1 version", id, 1),
            ("bemi.history, 21 versions", 500_000, 21),
            ("bemi.history, none", 7, 0),
        ] {
            let statement = format!("SELECT * FROM bemi.history(NULL::t, '{id}')");
            let start = Instant::now();
            let rows = client.query(&statement, &[]).unwrap();
            let elapsed = start.elapsed();
            assert!(rows.len() == versions || id != 500_000, "{} versions of {id}", rows.len());
            table.add(peer, elapsed.as_secs_f64() * 1000.0);
        }
    }
    table
}
