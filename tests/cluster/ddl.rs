//! DDL of all kinds beside writers, the recorder and a client of the decoder. What writers committed has to be recorded
//! once and under their contexts, and nothing else; no masked value may be seen. Each writer keeps a ledger.
use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use postgres::{Client, Error};
use serde_json::Value;

use crate::Test;
use crate::random::Random;
use crate::server::{Database, Running, Server, wait_until};

pub const TESTS: &[Test] =
    &[("beside_ddl_of_all_kinds_each_change_is_recorded_once_under_its_context_and_masked", beside)];

/// How long the writers write; `BEMI_DDL_SECONDS` is another number.
const SECONDS: u64 = 15;
const WRITERS: u64 = 4;
const DEFINERS: u64 = 4;
/// Tables that are written. The last one has partitions, of which one is written and another comes and goes.
const TABLES: [&str; 5] = ["t1", "t2", "t3", "t4", "p"];

/// Columns that no statement of a writer names may change their names. Triggers that sort before `bemi_context` stand
/// before it in the relation cache.
const SETUP: &str = "
CREATE ROLE reader; CREATE ROLE owner SUPERUSER; CREATE SCHEMA moved; CREATE DOMAIN small AS int;
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN COALESCE(NEW, OLD); END';
CREATE TABLE t1 (id bigint PRIMARY KEY, token bigint, part int DEFAULT 0, extra int DEFAULT 7,
  secret text DEFAULT 'clear-secret', iban text DEFAULT 'clear-iban');
CREATE TABLE t2 (LIKE t1 INCLUDING ALL); CREATE TABLE t3 (LIKE t1 INCLUDING ALL);
CREATE TABLE t4 (LIKE t1 INCLUDING ALL);
CREATE TABLE p (LIKE t1 INCLUDING DEFAULTS, PRIMARY KEY (id, part)) PARTITION BY LIST (part);
CREATE TABLE p_0 PARTITION OF p FOR VALUES IN (0); CREATE TABLE other_p (LIKE p INCLUDING DEFAULTS);
CREATE TABLE other (id int PRIMARY KEY, secret text DEFAULT 'clear-other');
SELECT bemi.track('other', mask_columns => '{secret}');
DO $$ DECLARE name text; BEGIN
  FOREACH name IN ARRAY '{t1,t2,t3,t4,p}'::text[] LOOP
    EXECUTE format('CREATE TRIGGER a_touch BEFORE INSERT OR UPDATE ON %s FOR EACH ROW EXECUTE FUNCTION touch()', name);
    PERFORM bemi.track(name::regclass, mask_columns => '{secret,iban}');
  END LOOP;
END $$;
";

/// What those who define run, statements of one kind with `;;` between, each in a transaction of its own; `{t}` is a
/// table, `{n}` a number.
const KINDS: &[&str] = &[
    "ALTER TABLE {t} SET (fillfactor = {n})",
    "ALTER TABLE {t} SET (fillfactor = {n}) ;; ALTER TABLE {t} RESET (fillfactor)",
    "ALTER TABLE {t} RENAME COLUMN extra TO extra_x ;; ALTER TABLE {t} RENAME COLUMN extra_x TO extra",
    "ALTER TABLE {t} RENAME COLUMN iban TO iban_x ;; ALTER TABLE {t} RENAME COLUMN iban_x TO iban",
    "ALTER TABLE {t} ADD COLUMN added_{n} int DEFAULT {n} ;; ALTER TABLE {t} DROP COLUMN added_{n}",
    "ALTER TABLE {t} ADD COLUMN added_{n} text ;; ALTER TABLE {t} DROP COLUMN added_{n}",
    "ALTER TABLE {t} ALTER COLUMN extra TYPE bigint ;; ALTER TABLE {t} ALTER COLUMN extra TYPE int",
    "ALTER TABLE {t} ALTER COLUMN extra TYPE small ;; ALTER TABLE {t} ALTER COLUMN extra TYPE int",
    "ALTER TABLE {t} ALTER COLUMN extra SET STATISTICS {n}",
    "ALTER TABLE {t} ALTER COLUMN secret SET STORAGE EXTERNAL ;; \
     ALTER TABLE {t} ALTER COLUMN secret SET STORAGE EXTENDED",
    "ALTER TABLE {t} ALTER COLUMN extra SET DEFAULT {n} ;; ALTER TABLE {t} ALTER COLUMN extra DROP DEFAULT",
    "ALTER TABLE {t} RENAME TO {t}_x ;; ALTER TABLE {t}_x RENAME TO {t}",
    "ALTER TABLE {t} SET SCHEMA moved ;; ALTER TABLE moved.{t} SET SCHEMA public ;; \
     ALTER TABLE moved_x.{t} SET SCHEMA public",
    "ALTER SCHEMA moved RENAME TO moved_x ;; ALTER SCHEMA moved_x RENAME TO moved",
    "ALTER TABLE {t} OWNER TO owner ;; ALTER TABLE {t} OWNER TO postgres",
    "ALTER TABLE {t} ADD CONSTRAINT positive CHECK (id > 0) NOT VALID ;; \
     ALTER TABLE {t} VALIDATE CONSTRAINT positive ;; ALTER TABLE {t} DROP CONSTRAINT positive",
    "CREATE INDEX index_{t} ON {t} (token) ;; DROP INDEX index_{t}",
    "CREATE INDEX CONCURRENTLY concurrent_{t} ON {t} (token) ;; DROP INDEX CONCURRENTLY IF EXISTS concurrent_{t}",
    "CREATE TRIGGER a_more AFTER INSERT ON {t} FOR EACH ROW EXECUTE FUNCTION touch() ;; DROP TRIGGER a_more ON {t}",
    "CREATE TRIGGER z_more BEFORE UPDATE ON {t} EXECUTE FUNCTION touch() ;; DROP TRIGGER z_more ON {t}",
    "ALTER TABLE {t} DISABLE TRIGGER a_touch ;; ALTER TABLE {t} ENABLE TRIGGER a_touch",
    "CREATE RULE rule AS ON DELETE TO {t} DO ALSO NOTHING ;; DROP RULE rule ON {t}",
    "CREATE POLICY policy ON {t} USING (true) ;; ALTER TABLE {t} ENABLE ROW LEVEL SECURITY ;; \
     ALTER TABLE {t} DISABLE ROW LEVEL SECURITY ;; DROP POLICY policy ON {t}",
    "CREATE STATISTICS statistics_{t} ON id, token FROM {t} ;; ANALYZE {t} ;; DROP STATISTICS statistics_{t}",
    "CREATE VIEW view_{t} AS SELECT * FROM {t} ;; DROP VIEW view_{t}",
    "CREATE PUBLICATION publication_{t} FOR TABLE {t} ;; DROP PUBLICATION publication_{t}",
    "ANALYZE {t}",
    "VACUUM {t}",
    "VACUUM FULL {t}",
    "VACUUM FULL pg_trigger ;; VACUUM FULL pg_proc ;; VACUUM FULL pg_attribute",
    "CLUSTER {t} USING {t}_pkey",
    "REINDEX TABLE {t}",
    "REINDEX TABLE pg_trigger",
    "GRANT SELECT ON {t} TO reader ;; REVOKE SELECT ON {t} FROM reader",
    "COMMENT ON TABLE {t} IS '{n}' ;; COMMENT ON COLUMN {t}.token IS '{n}'",
    "ALTER FUNCTION bemi.emit_context() COST {n}",
    "ALTER FUNCTION touch() COST {n}",
    "CREATE SCHEMA schema_{n} ;; DROP SCHEMA schema_{n}",
    "CREATE TYPE type_{n} AS ENUM ('a') ;; ALTER TYPE type_{n} ADD VALUE 'b' ;; DROP TYPE type_{n}",
    "CREATE TABLE other_{n} (id int PRIMARY KEY) ;; SELECT bemi.track('other_{n}') ;; \
     INSERT INTO other_{n} VALUES (1) ;; DROP TABLE other_{n}",
    "BEGIN ; LOCK {t} IN SHARE ROW EXCLUSIVE MODE ; \
     SELECT bemi.track('{t}', mask_columns => (SELECT array_agg(attname) \
     FROM pg_attribute WHERE attrelid = '{t}'::regclass AND attname ~ '^(secret|iban)')) ; \
     COMMIT",
    "INSERT INTO other VALUES (1), (2), ({n}) ON CONFLICT DO NOTHING ;; TRUNCATE other",
    "SELECT bemi.untrack('other_p') ;; SELECT bemi.track('other_p', mask_columns => '{secret,iban}')",
    "CREATE TABLE other_p{n} (LIKE p INCLUDING DEFAULTS) ;; \
     ALTER TABLE p ATTACH PARTITION other_p{n} FOR VALUES IN ({n}) ;; \
     ALTER TABLE p DETACH PARTITION other_p{n} ;; DROP TABLE other_p{n}",
    "CREATE TABLE other_p{n} PARTITION OF p FOR VALUES IN ({n}) ;; DROP TABLE other_p{n}",
    "BEGIN ; ALTER TABLE {t} ADD COLUMN added_{n} int ; SAVEPOINT s ; \
     ALTER TABLE {t} RENAME COLUMN added_{n} TO renamed_{n} ; ROLLBACK TO s ; \
     ALTER TABLE {t} DROP COLUMN added_{n} ; COMMIT",
    "BEGIN ; ALTER TABLE {t} SET (fillfactor = {n}) ; \
     CREATE TRIGGER b_more AFTER UPDATE ON {t} EXECUTE FUNCTION touch() ; ROLLBACK",
];

/// A change as its writer made it: what it did to which row, and under which context.
#[derive(Debug, PartialEq, Eq)]
struct Made {
    id: i64,
    before: Option<i64>,
    context: Value,
}

/// Changes by what they did and the token that they wrote or, if they deleted, removed. No two have the same.
type Ledger = HashMap<(&'static str, i64), Made>;

/// What writers, and those who define, know of each other.
#[derive(Default)]
struct Shared {
    is_over: AtomicBool,
    problems: Mutex<Vec<String>>,
    defined: AtomicU64,
    refused: Mutex<BTreeMap<String, u64>>,
    ledger: Mutex<Ledger>,
    /// The token of each row of each table.
    rows: Mutex<HashMap<(usize, i64), i64>>,
}

impl Shared {
    fn problem(&self, text: String) {
        self.problems.lock().unwrap().push(text);
    }
}

/// Whether a statement met the DDL of others, and nothing is wrong: it waited too long, or for each other, or a table or
/// a column has another name for now.
fn is_collision(error: &Error) -> bool {
    let code = error.as_db_error().map(|error| error.code().code());
    code.is_some_and(|code| matches!(code, "55P03" | "40P01" | "42P01" | "42703" | "3F000"))
}

/// Whether DDL was refused for what is there already, or no more, or cannot be with partitions, or is in use, or since
/// two changed the same row of a catalog.
fn is_refusal(error: &Error) -> bool {
    const CODES: [&str; 17] = [
        "22023", "42704", "42710", "42701", "42804", "42809", "42939", "42P06", "42P07", "42P16", "42P17", "0A000",
        "23505", "25P02", "2BP01", "55000", "55006",
    ];
    let Some(cause) = error.as_db_error() else { return false };
    let (code, message) = (cause.code().code(), cause.message());
    // The last one is of CLUSTER, whose partitions may be dropped before it has locked them.
    let is_race = ["tuple concurrently ", "cache lookup failed", "could not open relation with OID"]
        .iter()
        .any(|race| message.contains(race));
    is_collision(error) || CODES.contains(&code) || code == "XX000" && is_race
}

fn define(database: &Database, shared: &Shared, mut random: Random) {
    let mut client = database.connect();
    let settings =
        "SET lock_timeout = '300ms'; SET statement_timeout = '60s'; SET search_path = public, moved, moved_x";
    client.batch_execute(settings).unwrap();
    while !shared.is_over.load(Relaxed) {
        let table = TABLES[random.below(TABLES.len() as u64) as usize];
        let number = random.between(20, 99).to_string();
        let kind = random.one_of(KINDS).replace("{t}", table).replace("{n}", &number);
        for statement in kind.split(" ;; ") {
            match client.batch_execute(statement) {
                Ok(()) => _ = shared.defined.fetch_add(1, Relaxed),
                Err(error) if error.is_closed() => return shared.problem(format!("{statement}: {}", said(&error))),
                Err(error) => {
                    // What stands in one text may have left its transaction open.
                    if statement.starts_with("BEGIN") {
                        let _ = client.batch_execute("ROLLBACK");
                    }
                    if !is_refusal(&error) {
                        shared.problem(format!("{statement}: {}", said(&error)));
                    }
                    let words: Vec<&str> = statement.split(' ').take(2).collect();
                    *shared.refused.lock().unwrap().entry(words.join(" ")).or_default() += 1;
                }
            }
        }
    }
}

/// A session that writes rows of its own.
struct Writer<'a> {
    me: i64,
    shared: &'a Shared,
    random: Random,
    client: Client,
    count: i64,
    transactions: i64,
    rows: Vec<(usize, i64, i64)>,
}

impl Writer<'_> {
    fn next(&mut self) -> i64 {
        self.count += 1;
        self.me * 1_000_000 + self.count
    }

    /// One transaction: all of it is written down when it has committed.
    fn work(&mut self) -> Result<(), Error> {
        self.transactions += 1;
        let context = serde_json::json!({"writer": self.me, "transaction": self.transactions});
        let mut statements = match self.random.once_in(2) {
            true => vec![format!("SELECT bemi.set_context('{context}')"), "BEGIN".to_owned()],
            false => vec!["BEGIN".to_owned(), format!("SELECT bemi.set_context('{context}', true)")],
        };
        let (mut rows, mut made) = (self.rows.clone(), Vec::new());
        for _ in 0..self.random.between(1, 5) {
            let (token, choice) = (self.next(), self.random.below(8));
            if rows.is_empty() || choice < 4 {
                let table = self.random.below(TABLES.len() as u64) as usize;
                statements.push(format!("INSERT INTO {} (id, token) VALUES ({token}, {token})", TABLES[table]));
                made.push((("CREATE", token), Made { id: token, before: None, context: context.clone() }));
                rows.push((table, token, token));
                continue;
            }
            let at = self.random.below(rows.len() as u64) as usize;
            let (table, id, before) = rows[at];
            let name = TABLES[table];
            let done = Made { id, before: Some(before), context: context.clone() };
            match choice {
                4..=5 => {
                    statements.push(format!("UPDATE {name} SET token = {token} WHERE id = {id}"));
                    made.push((("UPDATE", token), done));
                    rows[at].2 = token;
                }
                6 => {
                    statements.push(format!("DELETE FROM {name} WHERE id = {id}"));
                    made.push((("DELETE", before), done));
                    rows.swap_remove(at);
                }
                _ => {
                    let undone = format!("UPDATE {name} SET token = {token} WHERE id = {id}");
                    statements.extend(["SAVEPOINT s".to_owned(), undone, "ROLLBACK TO s".to_owned()]);
                }
            }
        }
        statements.push("COMMIT".to_owned());
        if self.random.once_in(3) {
            self.client.batch_execute(&statements.join("; "))?;
        } else {
            statements.iter().try_for_each(|statement| self.client.batch_execute(statement))?;
        }
        self.rows = rows;
        self.shared.ledger.lock().unwrap().extend(made);
        Ok(())
    }

    fn run(mut self) {
        self.client.batch_execute("SET search_path = public, moved, moved_x").unwrap();
        while !self.shared.is_over.load(Relaxed) {
            let Err(error) = self.work() else { continue };
            if error.is_closed() || !is_collision(&error) {
                self.shared.problem(format!("writer {}, transaction {}: {}", self.me, self.transactions, said(&error)));
            }
            if self.client.batch_execute("ROLLBACK").is_err() {
                return;
            }
        }
        self.shared.rows.lock().unwrap().extend(self.rows.iter().map(|(table, id, token)| ((*table, *id), *token)));
    }
}

/// Holds recorded changes, or documents, against the ledger; each of them as (operation, before, after, context).
fn compare<'a>(who: &str, ledger: &Ledger, found: impl Iterator<Item = [&'a Value; 4]>) -> Vec<String> {
    let (mut problems, mut seen) = (Vec::new(), HashMap::new());
    for [operation, before, after, context] in found {
        let operation = match operation.as_str() {
            Some("CREATE") => "CREATE",
            Some("UPDATE") => "UPDATE",
            Some("DELETE") => "DELETE",
            _ => {
                problems.push(format!("{who}: {operation} {before} {after} is there"));
                continue;
            }
        };
        let image = if operation == "DELETE" { before } else { after };
        let (token, id) = (image["token"].as_i64().unwrap_or_default(), image["id"].as_i64().unwrap_or_default());
        let made = Made { id, before: before["token"].as_i64(), context: context.clone() };
        match ledger.get(&(operation, token)) {
            None => problems.push(format!("{who}: {operation} {before} {after} was not committed")),
            Some(expected) if *expected != made => {
                problems.push(format!("{who}: {operation} of token {token} is {made:?}, not {expected:?}"));
            }
            Some(_) => {}
        }
        let mut images = [before, after].into_iter().filter(|image| image.as_object().is_some_and(|o| !o.is_empty()));
        if !images.all(|image| {
            image["secret"] == "[masked]" && (image["iban"] == "[masked]" || image["iban_x"] == "[masked]")
        }) {
            problems.push(format!("{who}: {operation} {before} {after} is not masked"));
        }
        *seen.entry((operation, token)).or_insert(0) += 1;
    }
    problems.extend(
        seen.iter().filter(|(_, count)| **count > 1).map(|(key, count)| format!("{who}: {key:?} {count} times")),
    );
    problems
        .extend(ledger.keys().filter(|key| !seen.contains_key(key)).map(|key| format!("{who}: {key:?} is missing")));
    problems
}

/// What the server (16.15) once said, to every session at once, while pg_attribute was rewritten.
const REWRITTEN: &str = "pg_attribute catalog is missing";

/// A run that ends with nothing but that error says nothing; the next one has to be without it.
fn beside(_: &Server) {
    let mut problems = attempt();
    if !problems.is_empty() && problems.iter().all(|problem| problem.contains(REWRITTEN)) {
        println!("once again, since the server said: {}", shown(&problems));
        problems = attempt();
    }
    assert!(problems.is_empty(), "{}", shown(&problems));
}

/// The problems that came up.
fn attempt() -> Vec<String> {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seconds = number("BEMI_DDL_SECONDS").unwrap_or(SECONDS);
    let seed = number("BEMI_DDL_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let mut random = Random::new(seed);
    let server =
        Server::start("shared_preload_libraries = 'bemi'\nbemi.flush_interval = '1ms'\nwal_keep_size = '64MB'\n");
    let mut database = server.database("ddl");
    let mut client = database.connect();
    client.batch_execute(SETUP).unwrap();
    client.batch_execute("SELECT bemi.start()").unwrap();
    database.create_slot();
    let file = server.host().join("documents");
    let mut reader = server.program("pg_recvlogical", "ddl");
    reader.args(["-d", "ddl", "-S", "ddl", "--start", "--no-loop", "-s", "1", "-F", "1", "-f"]).arg(&file);
    let reader = Running::start(&mut reader);
    let shared = Shared::default();
    std::thread::scope(|scope| {
        for me in 1..=WRITERS as i64 {
            let (random, client) = (Random::new(random.next()), database.connect());
            let shared = &shared;
            let writer = Writer { me, shared, random, client, count: 0, transactions: 0, rows: Vec::new() };
            scope.spawn(move || writer.run());
        }
        for _ in 0..DEFINERS {
            let (random, database, shared) = (Random::new(random.next()), &database, &shared);
            scope.spawn(move || define(database, shared, random));
        }
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(seconds) && shared.problems.lock().unwrap().is_empty() {
            std::thread::sleep(Duration::from_millis(20));
        }
        shared.is_over.store(true, Relaxed);
    });
    let Shared { problems, ledger, rows, defined, refused, .. } = shared;
    let (mut problems, ledger) = (problems.into_inner().unwrap(), ledger.into_inner().unwrap());
    println!(
        "BEMI_DDL_SEED={seed}: {} changes of rows beside {} statements of DDL; refused: {:?}",
        ledger.len(),
        defined.into_inner(),
        refused.into_inner().unwrap()
    );
    if !problems.is_empty() {
        return problems;
    }
    finish(&mut client, &rows.into_inner().unwrap(), &mut problems);
    // The recorder.
    client.batch_execute("SELECT bemi.sync('100 s')").unwrap();
    let statement =
        "SELECT operation, before::text, after::text, context::text, \"table\" ~ '^other', \"table\" = 'last'
                     FROM bemi.changes";
    let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let changes: Vec<([Value; 4], bool, bool)> = client
        .query(statement, &[])
        .unwrap()
        .iter()
        .map(|row| {
            (
                [Value::from(row.get::<_, &str>(0)), json(row.get(1)), json(row.get(2)), json(row.get(3))],
                row.get(4),
                row.get(5),
            )
        })
        .collect();
    let is_clear = |row: &[Value; 4]| row.iter().any(|value| value.to_string().contains("clear-"));
    problems.extend(
        changes.iter().filter(|(row, ..)| is_clear(row)).map(|(row, ..)| format!("recorder: in clear: {row:?}")),
    );
    let rows = changes.iter().filter(|(_, is_other, is_last)| !is_other && !is_last);
    problems.extend(compare("recorder", &ledger, rows.map(|(row, ..)| row.each_ref())));
    // The client of the decoder.
    let read = || std::fs::read_to_string(&file).unwrap_or_default();
    wait_until("the last document", || {
        read().lines().any(|line| line.contains("\"table\":\"last\"") && line.ends_with('}'))
    });
    drop(reader);
    let text = read();
    problems
        .extend(text.lines().filter(|line| line.contains("clear-")).map(|line| format!("reader: in clear: {line}")));
    let documents: Vec<Value> = text.lines().map(json).collect();
    let is_ours = |document: &&Value| {
        let table = document["table"].as_str().unwrap_or_default();
        document["schema"] != "bemi" && !table.starts_with("other") && table != "last"
    };
    let documents = documents.iter().filter(is_ours);
    let parts = |document: &'_ Value| -> [Value; 4] {
        ["operation", "before", "after", "context"].map(|key| document[key].clone())
    };
    let documents: Vec<[Value; 4]> = documents.map(parts).collect();
    problems.extend(compare("reader", &ledger, documents.iter().map(|parts| parts.each_ref())));
    problems.extend(server.log().lines().filter(|line| line.contains("could not note")).map(str::to_owned));
    server.stop();
    problems
}

/// Sees whether the tables are as the writers left them, and writes a last row.
fn finish(client: &mut Client, rows: &HashMap<(usize, i64), i64>, problems: &mut Vec<String>) {
    client.batch_execute("SET search_path = public, moved, moved_x").unwrap();
    for (number, name) in TABLES.iter().enumerate() {
        // It may have its other name still.
        let statement = format!("SELECT COALESCE(to_regclass('{name}'), to_regclass('{name}_x'))::text");
        let name: String = client.query_one(&statement, &[]).unwrap().get(0);
        let found = client.query(&format!("SELECT id, token FROM {name}"), &[]).unwrap();
        let found: BTreeMap<i64, i64> = found.iter().map(|row| (row.get(0), row.get(1))).collect();
        let expected = rows.iter().filter(|((of, _), _)| *of == number).map(|((_, id), token)| (*id, *token));
        if found != expected.collect() {
            problems.push(format!("{name} is not as the writers left it: the test is wrong"));
        }
    }
    client
        .batch_execute("CREATE TABLE last (id int PRIMARY KEY); SELECT bemi.track('last'); INSERT INTO last VALUES (1)")
        .unwrap();
}

/// What the server said, or that the session is gone.
fn said(error: &Error) -> String {
    error
        .as_db_error()
        .map_or_else(|| error.to_string(), |error| format!("{}: {}", error.code().code(), error.message()))
}

/// As many problems as one can read.
fn shown(problems: &[String]) -> String {
    let first: Vec<&str> = problems.iter().take(12).map(String::as_str).collect();
    format!("{} problems:\n{}", problems.len(), first.join("\n"))
}
