//! The server rebuilds what it keeps of a relation whenever another session changes it, also while the decoder reads it.
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::Test;
use crate::server::{Database, Server, sqlstate};

pub const TESTS: &[Test] = &[
    ("tables_altered_beside_cold_readers_stay_masked", readers),
    ("tables_altered_beside_the_recorder_are_recorded_row_by_row", recorder),
];

/// How long each test goes on.
const TIME: Duration = Duration::from_secs(12);

const TABLES: usize = 5;

/// Tables with triggers before and behind ours, in the order of their names.
fn tables(database: &Database) {
    database
        .connect()
        .batch_execute(&format!(
            "CREATE FUNCTION tf() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
             DO $$ BEGIN FOR i IN 1..{TABLES} LOOP
               EXECUTE format('CREATE TABLE t%s (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text, secret text, iban text)', i);
               FOR j IN 1..3 LOOP
                 EXECUTE format('CREATE FUNCTION tf_%s_%s() RETURNS trigger LANGUAGE plpgsql AS ''BEGIN RETURN NEW; END''', i, j);
                 EXECUTE format('CREATE TRIGGER audit_%s BEFORE INSERT ON t%s FOR EACH ROW EXECUTE FUNCTION tf_%2$s_%1$s()', j, i);
               END LOOP;
               EXECUTE format('CREATE TRIGGER z_touch BEFORE INSERT ON t%s FOR EACH ROW EXECUTE FUNCTION tf()', i);
               PERFORM bemi.track(format('t%s', i)::regclass, mask_columns => '{{secret,iban}}');
             END LOOP; END $$"
        ))
        .unwrap();
}

/// Has sessions alter the tables, and others do more, until the time is over or `work` fails. A deadlock between an ALTER
/// TABLE and another one is nobody's fault here.
fn beside_alterations<'a>(database: &Database, others: Vec<Box<dyn FnMut() + Send + 'a>>) {
    let stop = AtomicBool::new(false);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for number in 0..3 {
            let (stop, mut client) = (&stop, database.connect());
            scope.spawn(move || {
                for round in number.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let table = round % TABLES + 1;
                    let factor = 50 + round % 50;
                    let altered = client.batch_execute(&format!("ALTER TABLE t{table} SET (fillfactor = {factor})"));
                    if altered.is_err() {
                        assert_eq!(sqlstate(altered), "40P01");
                    }
                }
            });
        }
        let works: Vec<_> = others
            .into_iter()
            .map(|mut work| {
                scope.spawn(move || {
                    while start.elapsed() < TIME {
                        work();
                    }
                })
            })
            .collect();
        let results: Vec<_> = works.into_iter().map(|work| work.join()).collect();
        stop.store(true, Ordering::Relaxed);
        for result in results {
            result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
}

/// Each reader begins with nothing in its caches.
fn readers(_: &Server) {
    let server = Server::start("");
    let database = server.database("relcache_readers");
    tables(&database);
    let mut client = database.connect();
    const READERS: usize = 4;
    for reader in 0..READERS {
        client
            .batch_execute(&format!("SELECT pg_create_logical_replication_slot('cold_{reader}', 'bemi_decoder')"))
            .unwrap();
    }
    for table in 1..=TABLES {
        client.batch_execute(&format!("INSERT INTO t{table} (v, secret, iban) VALUES ('a', 'geheim', 'DE1')")).unwrap();
    }
    let works = (0..READERS).map(|reader| {
        let database = &database;
        let work = move || {
            let peek = format!("SELECT data FROM pg_logical_slot_peek_changes('cold_{reader}', NULL, NULL)");
            let lines: Vec<String> =
                database.connect().query(&peek, &[]).unwrap().iter().map(|row| row.get(0)).collect();
            assert_eq!(lines.len(), TABLES);
            assert!(lines.iter().all(|line| !line.contains("geheim") && !line.contains("DE1")), "{lines:?}");
        };
        Box::new(work) as Box<dyn FnMut() + Send>
    });
    beside_alterations(&database, works.collect());
    no_crash(&server);
}

fn recorder(_: &Server) {
    let server = Server::start("shared_preload_libraries = 'bemi'\nbemi.flush_interval = 1\n");
    let database = server.database("relcache_recorder");
    tables(&database);
    let mut client = database.connect();
    client.batch_execute("SELECT bemi.start()").unwrap();
    let works = (0..2).map(|number| {
        let (mut writer, mut round) = (database.connect(), number);
        let work = move || {
            round += 1;
            let table = round % TABLES + 1;
            let insert = format!("INSERT INTO t{table} (v, secret, iban) VALUES ('a', 'geheim', 'DE1')");
            writer.batch_execute(&insert).unwrap();
            // A portion of its own for many rows, each of which begins with empty caches.
            std::thread::sleep(Duration::from_millis(3));
        };
        Box::new(work) as Box<dyn FnMut() + Send>
    });
    beside_alterations(&database, works.collect());
    client.batch_execute("SELECT bemi.sync('60 s')").unwrap();
    for table in 1..=TABLES {
        let counts = format!(
            "SELECT count(t.id), count(c.primary_key), count(*) FILTER (WHERE t.id IS NULL OR c.primary_key IS NULL),
                    count(*) FILTER (WHERE c.after->>'secret' <> '[masked]' OR c.after::text ~ 'geheim|DE1')
             FROM t{table} t FULL JOIN (SELECT * FROM bemi.changes WHERE \"table\" = 't{table}') c ON c.primary_key = t.id::text"
        );
        let row = client.query_one(&counts, &[]).unwrap();
        let [rows, changes, apart, clear] = [0, 1, 2, 3].map(|column| row.get::<_, i64>(column));
        assert!(rows > 0 && rows == changes && apart == 0 && clear == 0, "t{table}: {rows} {changes} {apart} {clear}");
    }
    no_crash(&server);
}

fn no_crash(server: &Server) {
    let log = server.log();
    for sign in ["terminated by signal", "capacity overflow", "PANIC", "of bemi failed and restarts"] {
        let found = log.lines().find(|line| line.contains(sign));
        assert_eq!(found, None);
    }
}
