//! What must hold in the end: the ledger tells what each transaction did, and the recorded changes have to tell the
//! same, in the same order; replayed, they have to give the tables as they are.
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use postgres::fallible_iterator::FallibleIterator;
use postgres::{Client, Error, Row};
use serde_json::Value;

use crate::transaction::{NEVER, end_prepared};

/// So many lines of each kind of trouble are enough.
const SHOWN: usize = 12;

/// What was wrong, without saying the same ten thousand times.
#[derive(Default)]
pub struct Problems {
    pub lines: Vec<String>,
    counts: HashMap<&'static str, usize>,
}

impl Problems {
    /// Notes what is wrong; `kind` says of what kind.
    pub fn add(&mut self, kind: &'static str, text: impl FnOnce() -> String) {
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        if *count <= SHOWN {
            self.lines.push(format!("{kind}: {}", text()));
        }
    }

    /// All lines, and how many more there would be.
    pub fn finish(mut self) -> Vec<String> {
        let mut more: Vec<_> = self.counts.iter().filter(|(_, count)| **count > SHOWN).collect();
        more.sort();
        self.lines.extend(more.iter().map(|(kind, count)| format!("{kind}: {count} times in all")));
        self.lines
    }
}

/// What was counted meanwhile.
#[derive(Default)]
pub struct Figures {
    /// Prepared transactions that were still pending.
    pub pending: usize,
    /// Bytes of log that were not recorded yet.
    pub lag: i64,
    pub synced_in: Duration,
    pub transactions: usize,
    pub changes: u64,
    pub tables: usize,
    pub spilled: i64,
}

/// Checks everything, when no client writes any more.
pub fn run(connection: &mut Client, problems: &mut Problems) -> Result<Figures, Error> {
    let mut figures = Figures::default();
    connection.batch_execute("SET statement_timeout = 0; SET work_mem = '256MB'; SET timezone = 'UTC'")?;
    for row in connection.query("SELECT gid FROM pg_prepared_xacts", &[])? {
        end_prepared(connection, row.get(0))?;
        figures.pending += 1;
    }
    let statement = "SELECT COALESCE(lag_bytes::bigint, 0) FROM bemi.status";
    figures.lag = connection.query_one(statement, &[])?.get(0);
    let start = Instant::now();
    if let Err(error) = connection.batch_execute("SELECT bemi.sync('5 min')") {
        problems.add("bemi.sync failed", || format!("{error:?}"));
    }
    figures.synced_in = start.elapsed();
    status(connection, problems, &mut figures)?;
    identities(connection, problems)?;
    rows_and_contexts(connection, problems)?;
    let ledger = Ledger::read(connection, problems)?;
    figures.transactions = ledger.entries.len();
    let mut replay = Replay::new(ledger);
    replay.run(connection, problems)?;
    figures.changes = replay.changes;
    figures.tables = replay.compare(connection, problems)?;
    Ok(figures)
}

/// The recorder is well, has nothing left to do, and has counted right.
fn status(connection: &mut Client, problems: &mut Problems, figures: &mut Figures) -> Result<(), Error> {
    let start = Instant::now();
    let statement =
        "SELECT state, lag_bytes::bigint, last_error, spilled_bytes, changes, transactions FROM bemi.status";
    loop {
        let row = connection.query_one(statement, &[])?;
        let (state, lag): (Option<String>, Option<i64>) = (row.get(0), row.get(1));
        figures.spilled = row.get::<_, Option<i64>>(3).unwrap_or(0);
        if state.as_deref() == Some("recording") && lag == Some(0) {
            let statement = "SELECT count(*), count(DISTINCT commit_position) FROM bemi.changes";
            let truth = connection.query_one(statement, &[])?;
            let (truth, said) = ([truth.get::<_, i64>(0), truth.get(1)], [row.get::<_, i64>(4), row.get(5)]);
            if truth != said {
                problems.add("bemi.status", || format!("[changes, transactions] are {said:?}, in truth {truth:?}"));
            }
            return Ok(());
        }
        if start.elapsed() > Duration::from_secs(60) {
            let error: Option<String> = row.get(2);
            problems.add("bemi.status", || format!("state {state:?}, lag {lag:?}, last error {error:?}"));
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Each id is there once, and each change in a partition of its own month.
fn identities(connection: &mut Client, problems: &mut Problems) -> Result<(), Error> {
    let statement =
        "SELECT id::text, count(*) FROM bemi.changes GROUP BY id HAVING count(*) > 1 ORDER BY 2 DESC LIMIT 5";
    for row in connection.query(statement, &[])? {
        let (id, count): (String, i64) = (row.get(0), row.get(1));
        problems.add("an id is not unique", || format!("{id} is there {count} times"));
    }
    let statement = "SELECT count(*) FROM bemi.changes WHERE database <> current_database() OR schema <> 'public'
                     OR omitted IS NOT NULL OR (primary_key IS NULL) <> (operation = 'TRUNCATE')
                     OR old_primary_key IS DISTINCT FROM CASE operation WHEN 'UPDATE' THEN nullif(before->>'id', primary_key) END";
    let count: i64 = connection.query_one(statement, &[])?.get(0);
    if count > 0 {
        problems.add("database, schema, key or omitted", || format!("is wrong in {count} changes"));
    }
    Ok(())
}

/// Each row that was written tells who wrote it, and its context has to agree, if it tells.
fn rows_and_contexts(connection: &mut Client, problems: &mut Problems) -> Result<(), Error> {
    let statement = "SELECT count(*) OVER (), \"table\", operation, after::text, context::text FROM bemi.changes
        WHERE operation IN ('CREATE', 'UPDATE') AND context ? 'step'
        AND (after->'client', after->'counter', after->'step') IS DISTINCT FROM
            (context->'client', context->'counter', context->'step') LIMIT 5";
    for row in connection.query(statement, &[])? {
        let text = |column| row.get::<_, String>(column).chars().take(300).collect::<String>();
        let count: i64 = row.get(0);
        problems.add("a row does not fit its context", || {
            format!("{} {} {} under {} (1 of {count})", text(2), text(1), text(3), text(4))
        });
    }
    Ok(())
}

/// A transaction as its client wrote it down.
struct Entry {
    id: String,
    did: Vec<Value>,
    was_seen: bool,
}

/// The transactions by their commit positions.
struct Ledger {
    entries: HashMap<i64, Entry>,
}

impl Ledger {
    fn read(connection: &mut Client, problems: &mut Problems) -> Result<Self, Error> {
        let statement = "SELECT (c.commit_position - '0/0')::bigint, l.id, l.did::text FROM ledger l
            LEFT JOIN bemi.changes c ON c.schema = 'public' AND c.\"table\" = 'ledger' AND c.primary_key = l.id";
        let mut entries = HashMap::new();
        for row in connection.query(statement, &[])? {
            let id: String = row.get(1);
            let Some(position) = row.get::<_, Option<i64>>(0) else {
                problems.add("a transaction is not recorded", || format!("{id}: {}", row.get::<_, String>(2)));
                continue;
            };
            let did = serde_json::from_str(row.get(2)).expect("the ledger is JSON");
            if let Some(other) = entries.insert(position, Entry { id: id.clone(), did, was_seen: false }) {
                problems.add("a commit position is not unique", || format!("{} and {id}", other.id));
            }
        }
        Ok(Self { entries })
    }
}

/// A recorded change.
struct Change {
    commit_position: i64,
    sequence: i32,
    table: String,
    operation: String,
    primary_key: Option<String>,
    before: String,
    after: String,
    context: String,
    key_before: Option<String>,
}

impl Change {
    const SELECT: &str = "SELECT (commit_position - '0/0')::bigint, sequence, \"table\", operation, primary_key,
        before::text, after::text, context::text, before->>'id' FROM bemi.changes ORDER BY source, commit_position, sequence";

    fn new(row: &Row) -> Self {
        Self {
            commit_position: row.get(0),
            sequence: row.get(1),
            table: row.get(2),
            operation: row.get(3),
            primary_key: row.get(4),
            before: row.get(5),
            after: row.get(6),
            context: row.get(7),
            key_before: row.get(8),
        }
    }
}

/// The tables as the changes make them, and where in the ledger the changes are.
struct Replay {
    ledger: Ledger,
    tables: HashMap<String, HashMap<String, String>>,
    changes: u64,
    /// The commit position of the transaction, and the sequence of its last change.
    position: i64,
    sequence: i32,
    /// The next thing in the transaction's list, and how many changes of the one before are still to come.
    next: usize,
    left: u64,
    /// The ledger has it, and it agreed up to here.
    agrees: bool,
}

impl Replay {
    fn new(ledger: Ledger) -> Self {
        let tables = HashMap::new();
        Self { ledger, tables, changes: 0, position: 0, sequence: 0, next: 0, left: 0, agrees: false }
    }

    fn run(&mut self, connection: &mut Client, problems: &mut Problems) -> Result<(), Error> {
        let none: [&str; 0] = [];
        let mut rows = connection.query_raw(Change::SELECT, none)?;
        while let Some(row) = rows.next()? {
            let change = Change::new(&row);
            self.changes += 1;
            if change.commit_position != self.position {
                self.end_transaction(problems);
                self.begin_transaction(&change, problems);
            }
            if change.sequence != self.sequence + 1 {
                let id = self.id();
                problems.add("a sequence has a hole or comes twice", || {
                    format!("{} after {} in transaction {id}", change.sequence, self.sequence)
                });
            }
            self.sequence = change.sequence;
            if [&change.table, &change.before, &change.after, &change.context].iter().any(|text| text.contains(NEVER)) {
                problems.add("something that was rolled back is recorded", || self.show(&change));
            }
            self.compare_with_ledger(&change, problems);
            self.apply(&change, problems);
        }
        self.end_transaction(problems);
        for entry in self.ledger.entries.values().filter(|entry| !entry.was_seen) {
            problems.add("a transaction was not seen", || entry.id.clone());
        }
        Ok(())
    }

    fn id(&self) -> String {
        let entry = self.ledger.entries.get(&self.position);
        entry.map_or_else(|| format!("at {:X}", self.position), |entry| entry.id.clone())
    }

    fn show(&self, change: &Change) -> String {
        let cut = |text: &str| text.chars().take(300).collect::<String>();
        format!(
            "transaction {}, change {}: {} {} {} -> {} under {}",
            self.id(),
            change.sequence,
            change.operation,
            change.table,
            cut(&change.before),
            cut(&change.after),
            cut(&change.context)
        )
    }

    fn begin_transaction(&mut self, change: &Change, problems: &mut Problems) {
        self.position = change.commit_position;
        (self.sequence, self.next, self.left) = (0, 0, 0);
        self.agrees = match self.ledger.entries.get_mut(&self.position) {
            Some(entry) => {
                entry.was_seen = true;
                true
            }
            None => {
                problems.add("a transaction is recorded that was not committed", || self.show(change));
                false
            }
        };
    }

    /// Does what the ledger tells of columns and tables before the next change.
    fn define(&mut self) {
        while let Some(Entry { did, .. }) = self.ledger.entries.get(&self.position)
            && let Some(step) = did.get(self.next)
            && let Some(action @ ("add" | "drop" | "forget")) = step[0].as_str()
        {
            let table = self.tables.entry(text(&step[1])).or_default();
            if action == "forget" {
                table.clear();
            } else {
                for row in table.values_mut() {
                    let mut value: Value = serde_json::from_str(row).expect("a row is JSON");
                    let columns = value.as_object_mut().expect("a row is an object");
                    if action == "add" {
                        columns.insert(text(&step[2]), step[3].clone());
                    } else {
                        columns.shift_remove(&text(&step[2]));
                    }
                    *row = value.to_string();
                }
            }
            self.next += 1;
        }
    }

    fn compare_with_ledger(&mut self, change: &Change, problems: &mut Problems) {
        if !self.agrees {
            return;
        }
        if self.left == 0 {
            self.define();
            self.next += 1;
            let entry = &self.ledger.entries[&self.position];
            self.left = entry.did.get(self.next - 1).and_then(|step| step[2].as_u64()).unwrap_or(0);
        }
        let entry = &self.ledger.entries[&self.position];
        let expected = entry.did.get(self.next - 1).unwrap_or(&Value::Null);
        let is_right = expected[0] == change.table.as_str()
            && expected[1] == change.operation.as_str()
            && serde_json::from_str::<Value>(&change.context).is_ok_and(|context| context == expected[3]);
        if !is_right {
            let did = Value::Array(entry.did.clone());
            problems.add("a change is not what was done", || {
                format!("{}; expected {expected} as number {} of {did}", self.show(change), self.next)
            });
            self.agrees = false;
        }
        self.left = self.left.saturating_sub(1);
    }

    fn end_transaction(&mut self, problems: &mut Problems) {
        if self.position == 0 || !self.agrees {
            return;
        }
        self.define();
        let did = &self.ledger.entries[&self.position].did;
        if self.left > 0 || self.next < did.len() {
            problems.add("changes of a transaction are missing", || {
                let did = Value::Array(did.clone());
                format!("{}: {} of number {}, and all after, of {did}", self.id(), self.left, self.next)
            });
        }
    }

    fn apply(&mut self, change: &Change, problems: &mut Problems) {
        let table = self.tables.entry(change.table.clone()).or_default();
        let old = match change.operation.as_str() {
            "TRUNCATE" => {
                table.clear();
                return;
            }
            "CREATE" => None,
            _ => table.remove(change.key_before.as_deref().unwrap_or_default()),
        };
        let mut replaced = None;
        if change.operation != "DELETE" {
            replaced = table.insert(change.primary_key.clone().unwrap_or_default(), change.after.clone());
        }
        if change.operation != "CREATE" && !old.as_deref().is_some_and(|old| is_same(old, &change.before)) {
            problems.add("a row was another before its change", || format!("{old:?} in {}", self.show(change)));
        }
        if let Some(replaced) = replaced {
            problems.add("a new row was there already", || format!("{replaced} in {}", self.show(change)));
        }
    }

    /// Holds the replayed tables against the real ones; gives their number.
    fn compare(&mut self, connection: &mut Client, problems: &mut Problems) -> Result<usize, Error> {
        let statement =
            "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'";
        let names: HashSet<String> = connection.query(statement, &[])?.iter().map(|row| row.get(0)).collect();
        for name in &names {
            let mut replayed = self.tables.remove(name).unwrap_or_default();
            let none: [&str; 0] = [];
            let mut rows = connection.query_raw(&format!("SELECT id::text, to_jsonb(t)::text FROM {name} t"), none)?;
            while let Some(row) = rows.next()? {
                let (key, real): (String, String) = (row.get(0), row.get(1));
                if real.contains(NEVER) {
                    problems.add("the test is wrong: a row was to be rolled back", || format!("{name}: {real}"));
                }
                match replayed.remove(&key) {
                    Some(recorded) if is_same(&recorded, &real) => {}
                    recorded => problems.add("a row is not as recorded", || {
                        format!("{name}: {real}, recorded {}", recorded.unwrap_or_else(|| "none".to_owned()))
                    }),
                }
            }
            for row in replayed.values() {
                problems.add("a recorded row is not there", || format!("{name}: {row}"));
            }
        }
        for (name, rows) in &self.tables {
            for row in rows.values() {
                problems.add("a recorded row is not there", || format!("{name}, which is gone: {row}"));
            }
        }
        Ok(names.len())
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Whether two rows are the same. Those to which a column was added here have it at another place.
fn is_same(a: &str, b: &str) -> bool {
    let parsed = |text| serde_json::from_str::<Value>(text).ok();
    a == b || parsed(a) == parsed(b)
}
