//! `bemi.as_of` while others write, and in transactions that began before: what it shows is what its snapshot sees, undone
//! back to the instant.
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::Test;
use crate::past::Past;
use crate::random::Random;
use crate::server::{Server, sqlstate};

pub const TESTS: &[Test] = &[
    ("a_sum_that_no_transaction_changes_is_the_same_at_every_instant", sums),
    ("a_snapshot_taken_before_changes_were_recorded_sees_its_own_past", snapshots),
    ("what_a_transaction_has_changed_itself_gives_no_wrong_past", own_changes),
    ("the_past_is_read_in_read_only_and_failed_transactions_as_in_others", modes),
    ("transactions_that_commit_late_are_not_there_before", late_commits),
    ("prepared_transactions_are_there_when_they_are_committed", prepared_transactions),
];

const ACCOUNTS: i64 = 20;
const AMOUNT: i64 = 1000;

/// Writers move amounts between rows, change their keys and put them back, and roll back, all the time.
fn sums(server: &Server) {
    let mut past = Past::new(
        server,
        "past_sums",
        &format!(
            "CREATE TABLE plain (id int PRIMARY KEY, amount bigint, note text);
             CREATE TABLE parted (id int PRIMARY KEY, amount bigint, note text) PARTITION BY RANGE (id);
             CREATE TABLE parted_0 PARTITION OF parted FOR VALUES FROM (0) TO (7);
             CREATE TABLE parted_1 (note text, amount bigint, id int NOT NULL); ALTER TABLE parted ATTACH PARTITION parted_1 DEFAULT;
             INSERT INTO plain SELECT i, {AMOUNT} FROM generate_series(1, {ACCOUNTS}) i; INSERT INTO parted TABLE plain;
             SELECT bemi.track('plain'); SELECT bemi.track('parted')"
        ),
    );
    let begin = past.now();
    let is_over = AtomicBool::new(false);
    let name = "past_sums";
    let seen = std::thread::scope(|scope| {
        for writer in 0..3 {
            let is_over = &is_over;
            scope.spawn(move || {
                let mut client = server.connect(name);
                let mut random = Random::new(writer);
                while !is_over.load(Ordering::Relaxed) {
                    write(&mut client, &mut random, writer);
                }
            });
        }
        let readers = [1, 2].map(|reader| {
            let (is_over, begin) = (&is_over, &begin);
            scope.spawn(move || {
                // Whatever fails, the writers end.
                let _end = End(is_over);
                read(&mut server.connect(name), &mut Random::new(reader), reader, begin)
            })
        });
        readers
            .map(|reader| reader.join())
            .into_iter()
            .flat_map(|seen| seen.expect("each sum was right"))
            .collect::<Vec<_>>()
    });
    // Then the past stays as it was seen, if it was past by then.
    for (at, table, is_old, rows) in seen {
        let again = past.rows(&format!("SELECT x::text FROM bemi.as_of(NULL::{table}, timestamptz '{at}') x"));
        if is_old {
            assert_eq!(again, rows, "{table} at {at}");
        }
    }
    assert_eq!(
        past.rows(&format!("SELECT sum(amount)::text FROM bemi.as_of(NULL::plain, {begin})")),
        [(ACCOUNTS * AMOUNT).to_string()]
    );
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn write(client: &mut postgres::Client, random: &mut Random, writer: u64) {
    let table = *random.one_of(&["plain", "parted"]);
    // In order, so that writers do not wait for one another in a circle.
    let (a, b) = (random.between(1, 10), random.between(11, 20));
    let amount = random.below(100);
    let end = if random.once_in(5) { "ROLLBACK" } else { "COMMIT" };
    let text = match random.below(4) {
        0 | 1 => format!(
            "BEGIN; UPDATE {table} SET note = 'locked' WHERE id = {a}; SAVEPOINT s; UPDATE {table} SET amount = 0 WHERE id = {b}; ROLLBACK TO s;
             WITH taken AS (UPDATE {table} SET amount = amount - {amount} WHERE id = {a} RETURNING id)
             UPDATE {table} SET amount = amount + {amount} * (SELECT count(*) FROM taken) WHERE id = {b}; {end}"
        ),
        2 => format!(
            "BEGIN; WITH gone AS (DELETE FROM {table} WHERE id = {a} RETURNING *) INSERT INTO {table} SELECT {writer} * 100 + 100 + id, amount, 'moved' FROM gone;
             UPDATE {table} SET id = {a} WHERE id = {writer} * 100 + 100 + {a}; {end}"
        ),
        _ => format!("BEGIN; UPDATE {table} SET id = -id WHERE id = {b}; UPDATE {table} SET note = '{writer}' WHERE id = -{b}; UPDATE {table} SET id = -id WHERE id = -{b}; {end}"),
    };
    client.batch_execute(&text).unwrap_or_else(|e| panic!("{e:?}: {text}"));
}

/// Instants, the table that was looked at, whether the instant was old enough for all that committed by then to be seen,
/// and what was seen.
fn read(
    client: &mut postgres::Client,
    random: &mut Random,
    reader: u64,
    begin: &str,
) -> Vec<(String, &'static str, bool, Vec<String>)> {
    client.batch_execute("SET TimeZone = 'UTC'").unwrap();
    let mut seen = Vec::new();
    let end = Instant::now() + Duration::from_secs(5);
    // On a busy machine it takes longer to see enough.
    while Instant::now() < end || seen.len() < 20 {
        let table = *random.one_of(&["plain", "parted"]);
        let ago = if random.once_in(2) { random.below(20) } else { 1000 + random.below(500) };
        let instant = format!("SELECT greatest({begin}, clock_timestamp() - interval '{ago} ms')::text");
        let at: String = client.query_one(&instant, &[]).unwrap().get(0);
        let isolation =
            ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"][(reader + seen.len() as u64) as usize % 3];
        client.batch_execute(&format!("BEGIN ISOLATION LEVEL {isolation} READ ONLY")).unwrap();
        let rows =
            client.query(&format!("SELECT x::text, amount FROM bemi.as_of(NULL::{table}, timestamptz '{at}') x"), &[]);
        let rows = rows.unwrap_or_else(|e| panic!("{e:?}"));
        let live = format!("SELECT count(*), sum(amount)::bigint FROM {table}");
        let live = client.query_one(&live, &[]).unwrap();
        assert_eq!((live.get::<_, i64>(0), live.get::<_, i64>(1)), (ACCOUNTS, ACCOUNTS * AMOUNT), "the live {table}");
        client.batch_execute("COMMIT").unwrap();
        let sum: i64 = rows.iter().map(|row| row.get::<_, i64>(1)).sum();
        assert_eq!((rows.len() as i64, sum), (ACCOUNTS, ACCOUNTS * AMOUNT), "{table} at {at}, {isolation}");
        let mut rows: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        rows.sort();
        seen.push((at, table, ago >= 1000, rows));
    }
    seen
}

/// The recorder cannot write meanwhile, so that the snapshots see changes in the table and not in `bemi.changes`.
fn snapshots(server: &Server) {
    let mut past = Past::new(
        server,
        "past_snapshots",
        "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 0), (2, 0); SELECT bemi.track('t')",
    );
    let mut instants = vec![past.now()];
    let mut images: BTreeMap<usize, Vec<String>> = BTreeMap::from([(0, past.rows("SELECT t::text FROM t"))]);
    let mut lock = past.database.connect();
    lock.batch_execute("BEGIN; LOCK TABLE bemi.changes IN SHARE MODE").unwrap();
    let mut open = past.database.connect();
    open.batch_execute("BEGIN; UPDATE t SET v = 100 WHERE id = 2").unwrap();
    let change = |past: &mut Past, instants: &mut Vec<String>, images: &mut BTreeMap<usize, Vec<String>>| {
        let n = instants.len();
        let at = past.then(&format!("BEGIN; UPDATE t SET v = {n} WHERE id = 1; INSERT INTO t VALUES ({n}0, {n}); DELETE FROM t WHERE id = {}0; COMMIT", n as i64 - 2));
        instants.push(at);
        images.insert(n, past.rows("SELECT t::text FROM t"));
    };
    for _ in 0..4 {
        change(&mut past, &mut instants, &mut images);
    }
    let mut sessions: Vec<_> = ["REPEATABLE READ", "SERIALIZABLE"]
        .iter()
        .map(|level| {
            let mut client = past.database.connect();
            client.batch_execute(&format!("BEGIN ISOLATION LEVEL {level}; SELECT FROM t")).unwrap();
            (client, *level)
        })
        .collect();
    let seen = instants.len() - 1;
    open.batch_execute("COMMIT").unwrap();
    for _ in 0..4 {
        change(&mut past, &mut instants, &mut images);
    }
    assert_eq!(past.rows("SELECT count(*)::text FROM bemi.changes"), ["0"]);
    lock.batch_execute("COMMIT").unwrap();
    past.then("SELECT bemi.sync()");
    for round in 0..2 {
        for (client, level) in &mut sessions {
            for (n, at) in instants.iter().enumerate() {
                for condition in ["", " WHERE id = 1", " WHERE id IN (20, 30, 60)"] {
                    let rows = client
                        .query(
                            &format!("SELECT x::text, id FROM bemi.as_of(NULL::t, {at}) x{condition} ORDER BY 1"),
                            &[],
                        )
                        .unwrap_or_else(|e| panic!("{level}: {e:?}"));
                    let rows: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
                    // What its snapshot does not see has not happened.
                    let expected = images[&n.min(seen)].iter().filter(|row| match condition {
                        "" => true,
                        " WHERE id = 1" => row.starts_with("(1,"),
                        _ => ["(20,", "(30,", "(60,"].iter().any(|start| row.starts_with(start)),
                    });
                    assert_eq!(
                        rows,
                        expected.cloned().collect::<Vec<_>>(),
                        "{level}, instant {n} of {}, round {round}{condition}",
                        instants.len()
                    );
                }
            }
        }
        // Once more, with more that they do not see.
        change(&mut past, &mut instants, &mut images);
        past.then("SELECT bemi.sync()");
    }
    for (client, _) in &mut sessions {
        client.batch_execute("COMMIT").unwrap();
    }
    for (n, at) in instants.iter().enumerate() {
        assert_eq!(past.rows(&format!("SELECT x::text FROM bemi.as_of(NULL::t, {at}) x")), images[&n], "instant {n}");
    }
}

/// They are in the table, and not in the log yet.
fn own_changes(server: &Server) {
    let mut past = Past::new(
        server,
        "past_own",
        "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY LIST (id);
         CREATE TABLE p1 PARTITION OF p DEFAULT; CREATE TABLE other (id int PRIMARY KEY); SELECT bemi.track(r) FROM unnest('{t,p,other}'::regclass[]) r",
    );
    past.then("INSERT INTO t VALUES (1, 'a'), (2, 'a'); INSERT INTO p TABLE t");
    let at = past.then("UPDATE t SET v = 'b'; UPDATE p SET v = 'b'");
    past.then("UPDATE t SET v = 'c'; UPDATE p SET v = 'c'");
    for table in ["t", "p"] {
        for change in [
            "UPDATE {t} SET v = 'own' WHERE id = 1",
            "DELETE FROM {t} WHERE id = 2",
            "INSERT INTO {t} VALUES (3, 'own')",
            "UPDATE {t} SET id = 3 WHERE id = 1",
            "SAVEPOINT s; UPDATE {t} SET v = 'own'; ROLLBACK TO s",
            "SAVEPOINT s; UPDATE {t} SET v = 'own'; RELEASE s",
            "TRUNCATE {t}",
            "DO $$ BEGIN UPDATE {t} SET v = 'own'; EXCEPTION WHEN OTHERS THEN NULL; END $$",
            "ALTER TABLE {t} ADD x int",
            "ALTER TABLE {t} RENAME v TO w",
            "COPY (SELECT) TO '/dev/null'",
            "INSERT INTO other VALUES (1)",
            "SELECT FROM {t} FOR UPDATE",
        ] {
            let change = change.replace("{t}", table);
            past.client.batch_execute(&format!("BEGIN; {change}")).unwrap();
            for condition in ["", " WHERE id = 1"] {
                past.client.batch_execute("SAVEPOINT look").unwrap();
                match past.client.query(&format!("SELECT to_jsonb(x)->>'id' || COALESCE(to_jsonb(x)->>'v', to_jsonb(x)->>'w') FROM bemi.as_of(NULL::{table}, {at}) x{condition} ORDER BY 1"), &[]) {
                    Ok(rows) => {
                        let rows: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
                        let expected: &[&str] = if condition.is_empty() { &["1b", "2b"] } else { &["1b"] };
                        assert_eq!(rows, expected, "{change}{condition}");
                    }
                    Err(error) => {
                        assert_eq!(sqlstate::<()>(Err(error)), "55000", "{change}");
                        assert!(!change.contains("other") && !change.contains("COPY") && !change.contains("FOR UPDATE"), "{change} keeps nothing from being known");
                    }
                }
                past.client.batch_execute("ROLLBACK TO look").unwrap();
            }
            past.client.batch_execute("ROLLBACK").unwrap();
        }
    }
}

fn modes(server: &Server) {
    let mut past =
        Past::new(server, "past_modes", "CREATE TABLE t (id int PRIMARY KEY, v text); SELECT bemi.track('t')");
    let at = past.then("INSERT INTO t VALUES (1, 'a')");
    past.then("UPDATE t SET v = 'b'");
    let look = format!("SELECT x::text FROM bemi.as_of(NULL::t, {at}) x");
    for begin in [
        "BEGIN READ ONLY",
        "BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE",
        "BEGIN ISOLATION LEVEL SERIALIZABLE",
        "BEGIN; SAVEPOINT s; SAVEPOINT s",
    ] {
        past.client.batch_execute(begin).unwrap();
        for _ in 0..3 {
            assert_eq!(past.rows(&look), ["(1,a)"], "{begin}");
        }
        past.client.batch_execute("COMMIT").unwrap();
    }
    // An error on the way leaves nothing behind.
    for _ in 0..3 {
        assert_eq!(sqlstate(past.client.batch_execute(&look.replace("x::text", "1 / (id - 1)"))), "22012");
        assert_eq!(past.rows(&look), ["(1,a)"]);
    }
    past.client.batch_execute("SET bemi.context = '{\"who\":1}'").unwrap();
    assert_eq!(past.rows(&look), ["(1,a)"]);
    // It changes nothing by itself.
    past.then("SELECT bemi.sync()");
    let count = "SELECT concat(count(*), max(commit_position)) FROM bemi.changes";
    let before = past.rows(count);
    past.rows(&look);
    past.then("SELECT bemi.sync()");
    assert_eq!(past.rows(count), before);
}

/// Order of commits, not of changes.
fn late_commits(server: &Server) {
    let mut past =
        Past::new(server, "past_late", "CREATE TABLE t (id int PRIMARY KEY, v text); SELECT bemi.track('t')");
    let mut late = past.database.connect();
    late.batch_execute("BEGIN; INSERT INTO t VALUES (1, 'late')").unwrap();
    let first = past.then("INSERT INTO t VALUES (2, 'a')");
    let second = past.then("UPDATE t SET v = 'b'");
    late.batch_execute("COMMIT").unwrap();
    let third = past.now();
    past.then("UPDATE t SET v = 'c'");
    for (at, expected) in [(first, vec!["(2,a)"]), (second, vec!["(2,b)"]), (third, vec!["(1,late)", "(2,b)"])] {
        assert_eq!(past.rows(&format!("SELECT x::text FROM bemi.as_of(NULL::t, {at}) x")), expected, "{at}");
    }
}

fn prepared_transactions(server: &Server) {
    let mut past =
        Past::new(server, "past_two_phase", "CREATE TABLE t (id int PRIMARY KEY, v text); SELECT bemi.track('t')");
    past.client.batch_execute("BEGIN; INSERT INTO t VALUES (1, 'two'); PREPARE TRANSACTION 'past_two'").unwrap();
    let first = past.then("INSERT INTO t VALUES (2, 'a')");
    past.client.batch_execute("COMMIT PREPARED 'past_two'").unwrap();
    let second = past.now();
    past.then("DELETE FROM t");
    assert_eq!(past.rows(&format!("SELECT x::text FROM bemi.as_of(NULL::t, {first}) x")), ["(2,a)"]);
    assert_eq!(past.rows(&format!("SELECT x::text FROM bemi.as_of(NULL::t, {second}) x")), ["(1,two)", "(2,a)"]);
}
