//! The load: clients that change rows in every way there is, whatever happens to the server meanwhile. They know
//! nothing that is not in the database.
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use postgres::error::SqlState;
use postgres::{Client, Error};
use serde_json::json;

use crate::random::Random;
use crate::server::Server;
use crate::transaction::{Context, Session, Transaction, end_prepared, implicit};

/// How many there are.
pub const CLIENTS: u64 = 8;
/// Rows of the biggest transactions; the documents of half of them do not fit into the recorder's memory either.
const BIG: u64 = 100_000;
/// So many prepared transactions may wait, and a few more.
const PREPARED: i64 = 16;
/// A big transaction is tried for so long after the others have ended.
const PATIENCE: Duration = Duration::from_secs(60);

/// The tables there are from the beginning; each client has one of its own besides, which it alters.
pub const SETUP: &str = "
CREATE SEQUENCE ids CACHE 10;
CREATE TABLE ledger (id text PRIMARY KEY, client int, counter int, step int, note text, did jsonb NOT NULL);
CREATE TABLE items (id bigint PRIMARY KEY DEFAULT nextval('ids'), client int, counter int, step int, note text, n int);
CREATE INDEX ON items (client, counter);
CREATE TABLE big (LIKE items INCLUDING DEFAULTS, PRIMARY KEY (id));
CREATE TABLE list_a (LIKE items INCLUDING DEFAULTS, PRIMARY KEY (id));
CREATE TABLE list_b (LIKE items INCLUDING DEFAULTS, PRIMARY KEY (id));
DO $$ BEGIN
  FOR i IN 0..7 LOOP
    EXECUTE format('CREATE TABLE altered_%s (LIKE items INCLUDING DEFAULTS, PRIMARY KEY (id))', i);
  END LOOP;
END $$;
SELECT bemi.track_all();
";

/// What clients and their tormentor know of each other.
pub struct Shared {
    pub database: &'static str,
    /// The clients shall end.
    pub is_over: AtomicBool,
    /// Somebody shall make a big transaction.
    pub wants_big: AtomicBool,
    /// The recorder is far behind: what it has to do shall not grow without end.
    pub is_behind: AtomicBool,
    pub problems: Mutex<Vec<String>>,
    pub committed: AtomicU64,
    pub rolled_back: AtomicU64,
    /// Transactions that the server ended, or of which nobody knows how they ended.
    pub failed: AtomicU64,
    pub prepared: AtomicU64,
}

impl Shared {
    /// Notes what should not be.
    pub fn problem(&self, text: String) {
        self.problems.lock().unwrap().push(text);
    }
}

/// Connects as soon as the server lets us; None if all is over before.
fn connect(server: &Server, shared: &Shared) -> Option<Client> {
    let start = Instant::now();
    loop {
        if let Some(mut connection) = server.try_connect(shared.database)
            && connection.batch_execute("SET lock_timeout = '1s'; SET statement_timeout = '100s'").is_ok()
        {
            return Some(connection);
        }
        if shared.is_over.load(Relaxed) && start.elapsed() > PATIENCE {
            return None;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Whether an error is what a client has to live with here: its server goes away, or another client was first.
pub fn is_expected(error: &Error) -> bool {
    const EXPECTED: &[SqlState] = &[
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::CANNOT_CONNECT_NOW,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::LOCK_NOT_AVAILABLE,
    ];
    error.code().is_none_or(|code| EXPECTED.contains(code))
}

/// Works as one client until all is over.
pub fn run(server: &Server, shared: &Shared, me: u64, mut random: Random) {
    let mut counter = 0;
    let mut over_since = None;
    while let Some(connection) = connect(server, shared) {
        let mut session = Session { connection, me, context: Context::new() };
        while !session.connection.is_closed() {
            if shared.is_over.load(Relaxed) {
                let since = *over_since.get_or_insert_with(Instant::now);
                if me > 0 || !shared.wants_big.load(Relaxed) || since.elapsed() > PATIENCE {
                    return;
                }
            }
            counter += 1;
            if let Err(error) = work(&mut session, &mut random, shared, counter) {
                shared.failed.fetch_add(1, Relaxed);
                if !is_expected(&error) {
                    shared.problem(format!("client {me}, transaction {counter}: {error:?}"));
                }
                // Fails if the session is gone, which shows in a moment.
                if session.connection.batch_execute("ROLLBACK").is_err() {
                    break;
                }
            }
            let pause = if shared.is_behind.load(Relaxed) { 100 } else { 15 };
            if random.once_in(2) {
                std::thread::sleep(Duration::from_millis(random.below(pause)));
            }
        }
    }
}

/// One transaction.
fn work(session: &mut Session, random: &mut Random, shared: &Shared, counter: u64) -> Result<(), Error> {
    if shared.wants_big.swap(false, Relaxed) {
        let result = big(session, random, counter);
        if !matches!(result, Ok(true)) {
            shared.wants_big.store(true, Relaxed);
        }
        let is_committed = result?;
        count(shared, !is_committed);
        return Ok(());
    }
    match random.below(100) {
        0..=24 => implicit(session, random, counter)?,
        25..=27 => return session.set_context(random, counter),
        28..=33 => return resolve(session, random),
        34..=43 => return prepare(session, random, shared, counter),
        44..=51 => {
            let is_doomed = random.once_in(4);
            alter(session, random, counter, is_doomed)?;
            count(shared, is_doomed);
            return Ok(());
        }
        _ => {
            let is_doomed = random.once_in(6);
            plain(session, random, counter, is_doomed)?;
            count(shared, is_doomed);
            return Ok(());
        }
    }
    count(shared, false);
    Ok(())
}

fn count(shared: &Shared, is_doomed: bool) {
    let counter = if is_doomed { &shared.rolled_back } else { &shared.committed };
    counter.fetch_add(1, Relaxed);
}

/// Some rows of a table that other clients may want too, from a random one on.
fn some_rows(random: &mut Random, table: &str) -> String {
    let count = random.between(1, 4);
    // Who waits for the others gets their rows in the order of their commits, unless all wait for each other.
    let skip = if random.once_in(8) { "" } else { " SKIP LOCKED" };
    format!(
        "id IN (SELECT id FROM {table}
                WHERE id >= (SELECT min(id) + random() * (max(id) - min(id)) FROM {table})::bigint
                ORDER BY id LIMIT {count} FOR UPDATE{skip})"
    )
}

/// Single rows, several rows, savepoints and TRUNCATE, on tables of all clients.
fn plain(session: &mut Session, random: &mut Random, counter: u64, is_doomed: bool) -> Result<(), Error> {
    let steps = random.between(1, 8);
    let mut t = Transaction::begin(session, random, counter, is_doomed)?;
    for _ in 0..steps {
        let table = if t.random.once_in(8) { *t.random.one_of(&["list_a", "list_b"]) } else { "items" };
        let rows = some_rows(t.random, table);
        let count = t.random.between(1, 30);
        match t.random.below(40) {
            0..=9 => t.insert(table, 1).map(|_| ())?,
            10..=11 => t.insert(table, count).map(|_| ())?,
            12..=14 => t.copy(table, 2 * count).map(|_| ())?,
            15..=22 => t.update(table, &rows, "").map(|_| ())?,
            23 => t.update(table, &rows, ", id = nextval('ids')").map(|_| ())?,
            24..=28 => t.delete(table, &rows).map(|_| ())?,
            29..=32 => t.savepoint()?,
            33..=35 => t.end_savepoint()?,
            36 if t.random.once_in(5) => t.truncate(&["list_a", "list_b"])?,
            36 if t.random.once_in(5) => t.truncate(&["list_b"])?,
            _ => t.set_context()?,
        }
    }
    t.end()
}

/// A transaction in two phases, on rows of its own, so that nobody waits for it.
fn prepare(session: &mut Session, random: &mut Random, shared: &Shared, counter: u64) -> Result<(), Error> {
    let waiting: i64 = session.connection.query_one("SELECT count(*) FROM pg_prepared_xacts", &[])?.get(0);
    if waiting >= PREPARED {
        return resolve(session, random);
    }
    let is_doomed = random.once_in(3);
    let steps = random.between(1, 5);
    let mut t = Transaction::begin(session, random, counter, is_doomed)?;
    let own = format!("client = {} AND counter = {counter}", t.session.me);
    t.insert("items", 3)?;
    for _ in 0..steps {
        let count = t.random.between(1, 9);
        match t.random.below(16) {
            0..=2 => t.insert("items", count).map(|_| ())?,
            3..=4 => t.copy("items", 5).map(|_| ())?,
            5..=7 => t.update("items", &own, "").map(|_| ())?,
            8 => t.delete("items", &format!("{own} AND id % 3 = 0")).map(|_| ())?,
            9..=10 => t.savepoint()?,
            11..=12 => t.end_savepoint()?,
            13 if t.random.once_in(4) => new_table(&mut t)?,
            _ => t.set_context()?,
        }
    }
    let name = t.prepare()?;
    shared.prepared.fetch_add(1, Relaxed);
    if random.once_in(3) {
        return end_in_a_race(session, &name);
    }
    Ok(())
}

/// Ends some prepared transaction, whoever's it was.
fn resolve(session: &mut Session, random: &mut Random) -> Result<(), Error> {
    let statement = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() ORDER BY gid";
    let rows = session.connection.query(statement, &[])?;
    if rows.is_empty() {
        return Ok(());
    }
    let name: String = random.one_of(&rows).get(0);
    end_in_a_race(session, &name)
}

/// Ends a prepared transaction, if no other client does so now.
fn end_in_a_race(session: &mut Session, name: &str) -> Result<(), Error> {
    match end_prepared(&mut session.connection, name) {
        Err(error)
            if error.code() == Some(&SqlState::UNDEFINED_OBJECT)
                || error.code() == Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE) =>
        {
            Ok(())
        }
        result => result,
    }
}

/// DDL between changes of rows, on the client's own table; and tables that come and go.
fn alter(session: &mut Session, random: &mut Random, counter: u64, is_doomed: bool) -> Result<(), Error> {
    let steps = random.between(2, 7);
    let table = format!("altered_{}", session.me);
    let mut t = Transaction::begin(session, random, counter, is_doomed)?;
    for _ in 0..steps {
        // All its rows, now and then.
        let rows = if t.random.once_in(8) { "true".to_owned() } else { some_rows(t.random, &table) };
        let count = t.random.between(1, 4);
        match t.random.below(20) {
            0..=2 => t.insert(&table, count).map(|_| ())?,
            3 => t.copy(&table, 10).map(|_| ())?,
            4..=6 => {
                let column = columns(&mut t, &table)?.pop();
                let more = column.map_or(String::new(), |column| format!(", {column} = {}", t.random.below(100)));
                t.update(&table, &rows, &more)?;
            }
            7 => t.delete(&table, &rows).map(|_| ())?,
            8 if t.random.once_in(4) => t.truncate(&[&table])?,
            9..=10 => {
                let column = t.new_name("added");
                let value = t.random.once_in(2).then(|| t.random.below(100));
                let default = value.map_or(String::new(), |value| format!(" DEFAULT {value}"));
                let did = json!(["add", table, column, value]);
                t.define(&format!("ALTER TABLE {table} ADD COLUMN {column} int{default}"), Some(did))?;
            }
            11..=12 => {
                let columns = columns(&mut t, &table)?;
                if columns.len() > 2 || !columns.is_empty() && t.random.once_in(2) {
                    let column = t.random.one_of(&columns).clone();
                    let did = json!(["drop", table, column]);
                    t.define(&format!("ALTER TABLE {table} DROP COLUMN {column}"), Some(did))?;
                }
            }
            // The table is written anew, with the same rows.
            13 => {
                let kind = *t.random.one_of(&["int", "bigint"]);
                t.define(&format!("ALTER TABLE {table} ALTER n TYPE {kind}"), None)?;
            }
            14 => new_table(&mut t)?,
            15 => drop_tables(&mut t)?,
            16..=17 => t.savepoint()?,
            18 => t.end_savepoint()?,
            _ => t.set_context()?,
        }
    }
    t.end()
}

/// The columns that were added to a table, the oldest first.
fn columns(t: &mut Transaction, table: &str) -> Result<Vec<String>, Error> {
    let statement = format!(
        "SELECT attname::text FROM pg_attribute WHERE attrelid = '{table}'::regclass AND NOT attisdropped
         AND (attname LIKE 'added%' OR attname LIKE 'never%') ORDER BY attnum"
    );
    Ok(t.session.connection.query(&statement, &[])?.iter().map(|row| row.get(0)).collect())
}

/// Makes a table and changes its rows.
fn new_table(t: &mut Transaction) -> Result<(), Error> {
    let table = t.new_name("new");
    // It is tracked from the start, since all tables are; by name it would be tracked as well.
    let track = if t.random.once_in(2) { format!("; SELECT bemi.track('{table}')") } else { String::new() };
    let create = format!("CREATE TABLE {table} (LIKE items INCLUDING DEFAULTS, PRIMARY KEY (id)){track}");
    t.session.connection.batch_execute(&create)?;
    t.insert(&table, 5)?;
    t.update(&table, "id % 2 = 0", "")?;
    t.copy(&table, 5).map(|_| ())
}

/// Drops the oldest of the tables that the client made, if there are enough of them.
fn drop_tables(t: &mut Transaction) -> Result<(), Error> {
    let pattern = format!("new\\_{}\\_%", t.session.me);
    let statement = "SELECT relname::text FROM pg_class WHERE relname LIKE $1 AND relkind = 'r' ORDER BY oid";
    let mut tables = t.session.connection.query(statement, &[&pattern])?;
    tables.truncate(tables.len().saturating_sub(2));
    for row in tables {
        let table: String = row.get(0);
        if t.random.once_in(2) {
            t.delete(&table, "id % 2 = 0")?;
        }
        t.define(&format!("DROP TABLE {table}"), Some(json!(["forget", table])))?;
    }
    Ok(())
}

/// A big transaction; tells whether it was committed.
fn big(session: &mut Session, random: &mut Random, counter: u64) -> Result<bool, Error> {
    let rows: i64 = session.connection.query_one("SELECT count(*) FROM big", &[])?.get(0);
    let is_doomed = random.once_in(8);
    let count = random.between(BIG / 2, BIG);
    let mut t = Transaction::begin(session, random, counter, is_doomed)?;
    let mut is_full = rows > BIG as i64 / 2;
    if rows > BIG as i64 || t.random.once_in(5) {
        t.truncate(&["big"])?;
        is_full = false;
    }
    if t.random.once_in(3) {
        t.savepoint()?;
        t.insert("big", BIG / 10)?;
        t.end_savepoint()?;
    }
    match t.random.below(6) {
        0..=1 if is_full => t.update("big", "true", "")?,
        2 if is_full => t.delete("big", "true")?,
        0..=2 => t.copy("big", count)?,
        _ => t.insert("big", count)?,
    };
    t.end().map(|()| !is_doomed)
}
