//! The recorder: how fast it works off what has piled up, how soon a change is seen, and what it costs the writers.
use std::fs;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use postgres::Client;
use postgres::types::PgLsn;

use crate::server::Server;
use crate::table::Table;
use crate::{WORKLOADS, Workload};

const CONTEXT: &str = "SELECT bemi.set_context('{\"user_id\":187234,\"endpoint\":\"/todo/complete\"}')";

pub fn run(server: &Server, runs: usize) -> Vec<Table> {
    let mut tables = vec![backlog(server, &WORKLOADS[0], runs)];
    tables.extend(latency(server, runs));
    tables.extend(writers(server, runs));
    tables
}

/// Makes `copy`, a table with the columns, indexes and partitions of `bemi.changes`.
const MAKE_COPY: &str = "
  CREATE TABLE copy (LIKE bemi.changes INCLUDING ALL) PARTITION BY RANGE (committed_at);
  DO $$
  DECLARE
    part record;
  BEGIN
    FOR part IN
      SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) AS bound, array_to_string(c.reloptions, ', ') AS options
      FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'bemi.changes'::regclass
    LOOP
      EXECUTE format('CREATE TABLE %I PARTITION OF copy %s', 'copy_of_' || part.relname, part.bound)
        || COALESCE(' WITH (' || part.options || ')', '');
    END LOOP;
  END
  $$";

/// Changes per second that are recorded when all of them are in the log already, beside what the server needs to put
/// the same rows into the same kind of table. The rows are there only when they are recorded, so the copy comes second.
/// The first round does not count: its copy would be the first to use most of the server's buffers, which takes a third
/// longer, while COPY has a few of its own.
fn backlog(server: &Server, workload: &Workload, runs: usize) -> Table {
    println!("-- recorder: backlog");
    const RECORDING: &str = "bemi, from bemi.start() to the end of bemi.sync()";
    const COPYING: &str = "INSERT … SELECT of the same rows";
    let name = workload.name.split_once(": ").map_or(workload.name, |(_, rest)| rest);
    let mut table = Table::new(format!("Recording of a backlog, {name}"), "changes/s");
    for run in 0..=runs {
        let name = format!("backlog_{run}");
        let mut client = server.database(&name).connect();
        client.batch_execute(workload.setup).unwrap();
        client.batch_execute("SELECT bemi.track('t')").unwrap();
        client.batch_execute("SELECT bemi.start()").unwrap();
        client.batch_execute("SELECT bemi.sync()").unwrap();
        client.batch_execute("SELECT bemi.stop()").unwrap();
        client.batch_execute(CONTEXT).unwrap();
        client.batch_execute(workload.statements).unwrap();
        client.batch_execute("CHECKPOINT").unwrap();

        let start = Instant::now();
        client.batch_execute("SELECT bemi.start()").unwrap();
        client.batch_execute("SELECT bemi.sync('10 min')").unwrap();
        let recording = start.elapsed();

        // So that it does not decode the copy meanwhile.
        client.batch_execute("SELECT bemi.stop(drop_slot => true)").unwrap();
        client.batch_execute(MAKE_COPY).unwrap();
        // To be read it has to be seen as committed, which the first reader notes down.
        let recorded: i64 = client.query_one("SELECT count(context) FROM bemi.changes", &[]).unwrap().get(0);
        assert!(recorded >= 600_000, "{recorded} changes were recorded");
        client.batch_execute("CHECKPOINT").unwrap();
        let start = Instant::now();
        let copied = client.execute("INSERT INTO copy SELECT * FROM bemi.changes", &[]).unwrap();
        let copying = start.elapsed();
        assert_eq!(copied, recorded as u64);

        if run > 0 {
            table.add(RECORDING, recorded as f64 / recording.as_secs_f64());
            table.add(COPYING, recorded as f64 / copying.as_secs_f64());
        }
        drop(client);
        server.connect("postgres").batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).unwrap();
    }
    table.compare(RECORDING, &[COPYING]);
    table
}

/// Sessions that write while the latency is measured.
const WRITERS: u32 = 4;
/// Transactions per second of all of them.
const RATE: u32 = 1000;
const SECONDS: u32 = 10;
/// What one session writes.
const TRANSACTIONS: u32 = RATE * SECONDS / WRITERS;

/// When the transaction with this number committed, as its client saw it.
struct Committed {
    number: i64,
    at: SystemTime,
}

/// When the row of the transaction with this number was in `bemi.changes`, as another session saw it.
struct Seen {
    number: i64,
    at: SystemTime,
    /// When it committed, as the server says.
    committed_at: SystemTime,
}

/// From the commit of a small transaction until others can read its change, in a steady stream of such transactions.
fn latency(server: &Server, runs: usize) -> Vec<Table> {
    println!("-- recorder: latency");
    let mut table = Table::new(format!("From commit to the row in bemi.changes, {RATE} transactions/s"), "ms");
    let mut rates = Table::new(format!("Transactions, of {RATE}/s, while that was measured"), "transactions/s");
    let database = server.database("latency");
    let mut client = database.connect();
    client.batch_execute("CREATE TABLE t (id bigint PRIMARY KEY, number bigint, note text)").unwrap();
    client.batch_execute("SELECT bemi.track('t')").unwrap();
    client.batch_execute("SELECT bemi.start()").unwrap();
    for run in 0..runs {
        client.batch_execute("CHECKPOINT").unwrap();
        client.batch_execute("SELECT bemi.sync()").unwrap();
        let begin = Instant::now() + Duration::from_millis(100);
        let first = run as u32 * WRITERS;
        let (committed, seen, took) = thread::scope(|scope| {
            let reader = scope.spawn(|| watch(database.connect(), (WRITERS * TRANSACTIONS) as usize));
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| {
                    let client = database.connect();
                    scope.spawn(move || write(client, first + writer, begin + Duration::from_secs(1) * writer / RATE))
                })
                .collect();
            let committed: Vec<Committed> = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
            let took = begin.elapsed();
            (committed, reader.join().unwrap(), took)
        });
        rates.add("reached", committed.len() as f64 / took.as_secs_f64());
        let from_clients = latencies(&committed, &seen);
        let mut from_server: Vec<f64> = seen.iter().map(|seen| milliseconds(seen.committed_at, seen.at)).collect();
        from_server.sort_by(f64::total_cmp);
        table.add("median", share(&from_clients, 50));
        table.add("99 of 100", share(&from_clients, 99));
        table.add("longest", share(&from_clients, 100));
        table.add("median, since committed_at", share(&from_server, 50));
        table.add("99 of 100, since committed_at", share(&from_server, 99));
    }
    client.batch_execute("SELECT bemi.stop(drop_slot => true)").unwrap();
    vec![table, rates]
}

/// Inserts and updates rows one by one, each at its time, or at once where it is late.
fn write(mut client: Client, writer: u32, begin: Instant) -> Vec<Committed> {
    client.batch_execute(CONTEXT).unwrap();
    let insert = client.prepare("INSERT INTO t (id, number, note) VALUES ($1, $2, 'a note')").unwrap();
    let update = client.prepare("UPDATE t SET number = $2 WHERE id = $1").unwrap();
    let step = |i: u32| {
        thread::sleep((begin + Duration::from_secs(1) * WRITERS / RATE * i).saturating_duration_since(Instant::now()));
        let number = i64::from(writer) * i64::from(TRANSACTIONS) + i64::from(i);
        // A row is inserted, and updated by the next transaction.
        let (statement, id) = if i.is_multiple_of(2) { (&insert, number) } else { (&update, number - 1) };
        let changed = client.execute(statement, &[&id, &number]).unwrap();
        assert_eq!(changed, 1);
        Committed { number, at: SystemTime::now() }
    };
    (0..TRANSACTIONS).map(step).collect()
}

/// Reads what is new in `bemi.changes` again and again, until so many rows have come.
fn watch(mut client: Client, count: usize) -> Vec<Seen> {
    // The table has no statistics, by which the server would know that the index is better.
    client.batch_execute("SET enable_seqscan = off").unwrap();
    // Changes come in the order of their commit positions. The times of their commits are not quite in that order, so
    // the index on these is asked for some more.
    let statement = "
      SELECT commit_position, committed_at, (after->>'number')::bigint FROM bemi.changes
      WHERE (source, commit_position) > (1, $1) AND committed_at > $2::timestamptz - interval '1 s' ORDER BY source, commit_position";
    let new = client.prepare(statement).unwrap();
    let statement = "SELECT COALESCE(max(commit_position), '0/0'), now() FROM bemi.changes";
    let row = client.query_one(statement, &[]).unwrap();
    let (mut position, mut time): (PgLsn, SystemTime) = (row.get(0), row.get(1));
    let mut seen = Vec::with_capacity(count);
    let end = Instant::now() + Duration::from_secs(120);
    while seen.len() < count {
        let rows = client.query(&new, &[&position, &time]).unwrap();
        let at = SystemTime::now();
        for row in &rows {
            position = row.get(0);
            time = time.max(row.get(1));
            seen.push(Seen { number: row.get(2), at, committed_at: row.get(1) });
        }
        assert!(Instant::now() < end, "{} of {count} changes were seen in two minutes", seen.len());
        thread::sleep(Duration::from_millis(5));
    }
    seen
}

/// How long each change took, the shortest first.
fn latencies(committed: &[Committed], seen: &[Seen]) -> Vec<f64> {
    let mut seen: Vec<&Seen> = seen.iter().collect();
    seen.sort_by_key(|seen| seen.number);
    let mut committed: Vec<&Committed> = committed.iter().collect();
    committed.sort_by_key(|committed| committed.number);
    assert!(seen.iter().map(|seen| seen.number).eq(committed.iter().map(|committed| committed.number)));
    let pairs = committed.iter().zip(&seen);
    let mut latencies: Vec<f64> = pairs.map(|(committed, seen)| milliseconds(committed.at, seen.at)).collect();
    latencies.sort_by(f64::total_cmp);
    latencies
}

/// Less than nothing if the row was seen before the client heard of its own commit.
fn milliseconds(from: SystemTime, to: SystemTime) -> f64 {
    match to.duration_since(from) {
        Ok(duration) => duration.as_secs_f64() * 1000.0,
        Err(error) => error.duration().as_secs_f64() * -1000.0,
    }
}

/// The value that so many of a hundred do not exceed.
fn share(sorted: &[f64], of_hundred: usize) -> f64 {
    sorted[(sorted.len() * of_hundred).div_ceil(100) - 1]
}

/// Single-row transactions by pgbench, two clients, while their changes are recorded and while they are not. A recorder
/// reads the log of the whole server, whichever database is written to, so it is stopped for the latter.
fn writers(server: &Server, runs: usize) -> Vec<Table> {
    println!("-- recorder: writers");
    const WITH: &str = "bemi, recorded meanwhile";
    const WITHOUT: &str = "bemi, not recorded yet";
    let mut rates = Table::new("Single-row updates, two clients, of a tracked table".to_owned(), "transactions/s");
    let mut behind = Table::new("From the end of these updates to the end of bemi.sync()".to_owned(), "ms");
    let mut client = server.database("recorded_writers").connect();
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY, v int, note text); SELECT bemi.track('t')").unwrap();
    client.batch_execute("SELECT bemi.start()").unwrap();
    let file = server.host().join("recorder.sql");
    fs::write(&file, "\\set id random(1, 10000)\nUPDATE t SET v = v + 1 WHERE id = :id;\n").unwrap();
    for run in 0..runs * 2 {
        let ways = if run % 2 == 0 { [WITH, WITHOUT] } else { [WITHOUT, WITH] };
        for way in ways {
            client
                .batch_execute("TRUNCATE t; INSERT INTO t SELECT i, i, 'a note' FROM generate_series(1, 10000) i")
                .unwrap();
            client.batch_execute("SELECT bemi.sync('10 min')").unwrap();
            client.batch_execute("CHECKPOINT").unwrap();
            if way == WITHOUT {
                client.batch_execute("SELECT bemi.stop()").unwrap();
            }
            let mut command = server.program("pgbench", "recorded_writers");
            command.env("PGOPTIONS", "-c bemi.context={\"user_id\":187234}");
            command.args(["-n", "-c", "2", "-j", "2", "-T", "3", "-f"]).arg(&file).arg("recorded_writers");
            let output = command.stdin(Stdio::null()).output().unwrap();
            let start = Instant::now();
            let text = String::from_utf8(output.stdout).unwrap();
            let rate = text.lines().find_map(|line| line.strip_prefix("tps = ")).expect("a rate");
            rates.add(way, rate.split(' ').next().unwrap().parse().unwrap());
            if way == WITHOUT {
                client.batch_execute("SELECT bemi.start()").unwrap();
            }
            client.batch_execute("SELECT bemi.sync('10 min')").unwrap();
            behind.add(way, start.elapsed().as_secs_f64() * 1000.0);
        }
    }
    client.batch_execute("SELECT bemi.stop(drop_slot => true)").unwrap();
    rates.compare(WITH, &[WITHOUT]);
    vec![rates, behind]
}
