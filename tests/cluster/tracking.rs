//! Which tables can be tracked, by whom, and what tracking leaves behind.
use std::time::{Duration, Instant};

use crate::Test;
use crate::server::{Database, Server, contexts, sqlstate};
use serde_json::json;

pub const TESTS: &[Test] = &[
    ("tracking_gives_full_images_and_untracking_puts_back_what_was_there", identities),
    ("a_renamed_index_is_still_put_back_and_a_dropped_one_gives_the_default", identity_index),
    ("triggers_that_tracking_did_not_make_are_told_and_replaced", other_triggers),
    ("what_cannot_be_tracked_is_refused_with_a_reason", refusals),
    ("wrong_arguments_of_track_are_refused_and_named", arguments),
    ("a_trigger_of_the_same_name_is_not_replaced", stranger),
    ("tables_without_a_key_and_with_children_say_what_is_missing", notices),
    ("tracking_a_table_waits_no_longer_than_lock_timeout", lock_timeout),
    ("a_hundred_sessions_write_while_tables_are_tracked_and_untracked", under_load),
    ("twenty_sessions_write_while_all_tables_are_tracked_and_untracked", all_under_load),
    ("dropping_the_extension_names_the_tables_that_stand_in_the_way", drop_extension),
];

/// The replica identity of a table, and what its rules say of it.
pub fn identity(client: &mut postgres::Client, table: &str) -> (String, Option<String>) {
    let statement = format!(
        "SELECT bemi.identity('{0}'), (SELECT (bemi.rules(arguments, 'identity'))[1] FROM bemi.context_triggers WHERE relation = '{0}'::regclass)",
        table.replace('\'', "''")
    );
    let row = client.query_one(&statement, &[]).unwrap_or_else(|e| panic!("{e:?}: {statement}"));
    (row.get(0), row.get(1))
}

fn identities(server: &Server) {
    let mut client = server.database("identities").connect();
    client
        .batch_execute(
            "CREATE TABLE t (id int PRIMARY KEY, u int NOT NULL, v text);
             CREATE UNIQUE INDEX \"the 'index\" ON t (u)",
        )
        .unwrap();
    for before in ["DEFAULT", "NOTHING", "FULL", "USING INDEX \"the 'index\""] {
        client.batch_execute(&format!("ALTER TABLE t REPLICA IDENTITY {before}")).unwrap();
        let (was, _) = identity(&mut client, "t");
        for calls in [
            &["'full'"][..],
            &["'default'"],
            &["'keep'"],
            &["'full'", "'default'"],
            &["'keep'", "'full'", "'full'"],
            &["'default'", "'keep'", "'full'", "'keep'"],
        ] {
            let mut expected = was.clone();
            for call in calls {
                client.batch_execute(&format!("SELECT bemi.track('t', {call})")).unwrap();
                if *call != "'keep'" {
                    expected = call.trim_matches('\'').to_owned();
                }
                assert_eq!(identity(&mut client, "t").0, expected, "{before}: {calls:?}");
            }
            client.batch_execute("SELECT bemi.untrack('t'); SELECT bemi.untrack('t')").unwrap();
            assert_eq!(identity(&mut client, "t"), (was.clone(), None), "{before}: {calls:?}");
        }
    }
}

fn identity_index(server: &Server) {
    let database = server.database("identity_index");
    let (mut client, notices) = server.connect_listening(&database.name, "postgres");
    client
        .batch_execute(
            "CREATE TABLE t (id int CONSTRAINT one PRIMARY KEY, u int NOT NULL); CREATE UNIQUE INDEX two ON t (u);
             ALTER TABLE t REPLICA IDENTITY USING INDEX two; SELECT bemi.track('t');
             ALTER TABLE t ADD CONSTRAINT three UNIQUE USING INDEX two; ALTER TABLE t ADD CONSTRAINT two CHECK (true);
             ALTER TABLE t RENAME CONSTRAINT two TO four; ALTER TABLE t RENAME CONSTRAINT three TO two; ALTER INDEX two RENAME TO \"2'\"; ALTER TABLE \"2'\" RENAME TO \"zwei \\\"",
        )
        .unwrap();
    assert_eq!(identity(&mut client, "t"), ("full".to_owned(), Some("index:zwei \\".to_owned())));
    client.batch_execute("SELECT bemi.untrack('t')").unwrap();
    assert_eq!(identity(&mut client, "t").0, "index:zwei \\");
    client
        .batch_execute(
            "ALTER TABLE t REPLICA IDENTITY USING INDEX one; SELECT bemi.track('t'); ALTER TABLE t RENAME CONSTRAINT one TO uno;
             SELECT bemi.untrack('t')",
        )
        .unwrap();
    assert_eq!(identity(&mut client, "t").0, "index:uno");
    // What can be one no longer gives the default as well.
    client
        .batch_execute(
            "CREATE TABLE n (u int NOT NULL); CREATE UNIQUE INDEX n_u ON n (u); ALTER TABLE n REPLICA IDENTITY USING INDEX n_u;
             SELECT bemi.track('n'); ALTER TABLE n ALTER u DROP NOT NULL; SELECT bemi.untrack_all()",
        )
        .unwrap();
    assert_eq!(identity(&mut client, "n"), ("default".to_owned(), None));
    client.batch_execute("ALTER TABLE t REPLICA IDENTITY USING INDEX uno").unwrap();
    notices.take();
    client
        .batch_execute("SELECT bemi.track('t'); ALTER TABLE t DROP CONSTRAINT uno; SELECT bemi.untrack('t')")
        .unwrap();
    assert_eq!(identity(&mut client, "t").0, "default");
    assert!(notices.take().concat().contains("because it can no longer be the index uno"));
}

/// Another name, or another shape: they may mask, but nothing depends on them alone.
fn other_triggers(server: &Server) {
    let mut database = server.database("other_triggers");
    let mut client = database.connect();
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY, v text, secret text)").unwrap();
    database.create_slot();
    let make = |name: &str, events: &str, arguments: &str| {
        format!(
            "CREATE OR REPLACE TRIGGER {name} BEFORE {events} ON t FOR EACH STATEMENT EXECUTE FUNCTION bemi.emit_context({arguments});"
        )
    };
    for (statement, sign) in [
        (
            make("zzz", "INSERT OR UPDATE OR DELETE OR TRUNCATE", "'ignore=v', 'mask=secret'"),
            "another trigger, zzz, writes the context",
        ),
        (make("bemi_context", "TRUNCATE", "'mask=secret'"), "a trigger that does not fire before every statement"),
        (
            make("bemi_context", "INSERT OR UPDATE OF v OR DELETE OR TRUNCATE", "'mask=secret'"),
            "a trigger that does not fire before every statement",
        ),
        (
            "SELECT bemi.track('t', mask_columns => '{secret}'); ALTER TRIGGER bemi_context ON t RENAME TO other"
                .to_owned(),
            "another trigger, other, writes the context",
        ),
    ] {
        client.batch_execute(&statement).unwrap();
        let missing: Vec<String> = client.query_one("SELECT missing FROM bemi.tracked", &[]).unwrap().get(0);
        assert!(missing.iter().any(|missing| missing.starts_with(sign)), "{statement}: {missing:?}");
        let documents = database.changes_of("SELECT bemi.set_context('{\"a\":1}'); DELETE FROM t; INSERT INTO t VALUES (1, 'x', 'hidden'); COMMIT; UPDATE t SET v = 'y'");
        assert_eq!(
            documents.last().map(|document| (&document["operation"], &document["after"]["secret"])),
            Some((&json!("UPDATE"), &json!("[masked]"))),
            "{statement}"
        );
        let fix: String =
            client.query_one("SELECT fix FROM bemi.doctor() WHERE \"check\" = 'rules'", &[]).unwrap().get(0);
        client.batch_execute(&fix).unwrap();
        let row = client
            .query_one(
                "SELECT missing, mask_columns::text, (SELECT count(*) FROM bemi.context_triggers) FROM bemi.tracked",
                &[],
            )
            .unwrap();
        let missing: Vec<String> = row.get(0);
        assert!(!missing.iter().any(|missing| missing.contains("trigger")), "{fix}: {missing:?}");
        assert_eq!((row.get::<_, &str>(1), row.get::<_, i64>(2)), ("{secret}", 1), "{fix}");
        client.batch_execute("SELECT bemi.untrack('t')").unwrap();
        database.documents();
    }
    // A row trigger that is cloned to partitions is nobody's of ours, and not in the way.
    client
        .batch_execute(
            "CREATE TABLE leaf (id int); CREATE TABLE root (id int) PARTITION BY LIST (id);
             CREATE TRIGGER by_row AFTER INSERT ON root FOR EACH ROW EXECUTE FUNCTION bemi.emit_context();
             ALTER TABLE root ATTACH PARTITION leaf FOR VALUES IN (1); SELECT bemi.untrack_all()",
        )
        .unwrap();
    let left: i64 = client.query_one("SELECT count(*) FROM bemi.context_triggers", &[]).unwrap().get(0);
    assert_eq!(left, 0);
}

/// What the server says against a statement: SQLSTATE, message and hint.
pub fn refusal(client: &mut postgres::Client, statement: &str) -> (String, String) {
    let error = client.batch_execute(statement).expect_err(statement);
    let error = error.as_db_error().unwrap_or_else(|| panic!("{error}: {statement}"));
    (error.code().code().to_owned(), format!("{} {}", error.message(), error.hint().unwrap_or_default()))
}

fn refusals(server: &Server) {
    let mut client = server.database("refusals").connect();
    client
        .batch_execute(
            "CREATE TABLE t (id int PRIMARY KEY); CREATE VIEW v AS SELECT * FROM t; CREATE MATERIALIZED VIEW m AS SELECT * FROM t;
             CREATE SEQUENCE s; CREATE TYPE c AS (a int); CREATE TEMP TABLE temporary (id int); CREATE UNLOGGED TABLE unlogged (id int);
             CREATE FOREIGN DATA WRAPPER nothing; CREATE SERVER nowhere FOREIGN DATA WRAPPER nothing;
             CREATE FOREIGN TABLE f (id int) SERVER nowhere",
        )
        .unwrap();
    for (relation, reason) in [
        ("v", "view and has no rows of its own"),
        ("m", "materialized view"),
        ("s", "is not a table"),
        ("c", "is not a table"),
        ("t_pkey", "is not a table"),
        ("temporary", "temporary table"),
        ("unlogged", "ALTER TABLE public.unlogged SET LOGGED;"),
        ("f", "foreign table"),
        ("pg_class", "system catalogs"),
        ("pg_authid", "system catalogs"),
        ("information_schema.sql_parts", "system catalogs"),
        ("bemi.tracked_schemas", "part of bemi"),
    ] {
        let (code, text) = refusal(&mut client, &format!("SELECT bemi.track('{relation}')"));
        assert_eq!(code, "42809", "{relation}: {text}");
        assert!(text.contains(reason) && text.contains(relation.split('.').next_back().unwrap()), "{relation}: {text}");
    }
    assert_eq!(sqlstate(client.batch_execute("SELECT bemi.track(NULL)")), "22004");
    assert_eq!(sqlstate(client.batch_execute("SELECT bemi.track(12345)")), "42P01");
    assert_eq!(sqlstate(client.batch_execute("SELECT bemi.track_all('{none}')")), "3F000");
    assert_eq!(sqlstate(client.batch_execute("SELECT bemi.track_all(ARRAY[NULL]::name[])")), "3F000");
    for schema in ["bemi", "pg_catalog", "information_schema", "pg_toast"] {
        assert_eq!(sqlstate(client.batch_execute(&format!("SELECT bemi.track_all('{{{schema}}}')"))), "22023");
    }
    let tracked: i64 = client.query_one("SELECT count(*) FROM bemi.tracked", &[]).unwrap().get(0);
    assert_eq!(tracked, 0);
}

fn arguments(server: &Server) {
    let mut client = server.database("arguments").connect();
    client
        .batch_execute(
            "CREATE TABLE t (id int PRIMARY KEY, \"a b\" int, gone int); ALTER TABLE t DROP COLUMN gone;
             CREATE TABLE two (a int, b int, c text, PRIMARY KEY (a, b)); CREATE TABLE u (i int NOT NULL UNIQUE, c text);
             ALTER TABLE u REPLICA IDENTITY USING INDEX u_i_key",
        )
        .unwrap();
    for rule in ["ignore_columns", "mask_columns"] {
        for column in ["nothing", "gone", "ID", "ctid", "xmin", "a b "] {
            let (code, text) = refusal(&mut client, &format!("SELECT bemi.track('t', {rule} => '{{id,{column:?}}}')"));
            // The key cannot be masked, but what is not there is named first.
            assert_eq!(code, "42703", "{text}");
            assert!(text.contains(column) && text.contains("Its columns are id, \"a b\"."), "{text}");
        }
        let (code, _) = refusal(&mut client, &format!("SELECT bemi.track('t', {rule} => '{{NULL}}')"));
        assert_eq!(code, "22004");
    }
    for (table, column) in [("t", "id"), ("two", "b"), ("u", "i")] {
        let (code, text) =
            refusal(&mut client, &format!("SELECT bemi.track('{table}', mask_columns => '{{{column}}}')"));
        assert_eq!(code, "0A000");
        assert!(text.contains(&format!("column {column} of {table}")) || text.contains("belongs to the key"), "{text}");
    }
    for identity in ["'FULL'", "''", "NULL", "'nothing'"] {
        let (code, text) = refusal(&mut client, &format!("SELECT bemi.track('t', {identity})"));
        assert_eq!(code, "22023");
        assert!(text.contains("'keep'"), "{text}");
    }
    assert_eq!(refusal(&mut client, "SELECT bemi.rules('', 'nothing')").0, "22023");
    for call in ["track('t', ignore_columns => NULL)", "track('t', mask_columns => NULL)", "track_all(NULL)"] {
        assert_eq!(refusal(&mut client, &format!("SELECT bemi.{call}")).0, "22004");
    }
}

fn stranger(server: &Server) {
    let mut client = server.database("stranger").connect();
    client
        .batch_execute(
            "CREATE TABLE t (id int); CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
             CREATE TRIGGER bemi_context AFTER INSERT ON t FOR EACH STATEMENT EXECUTE FUNCTION f()",
        )
        .unwrap();
    let (code, text) = refusal(&mut client, "SELECT bemi.track('t')");
    assert_eq!(code, "42710");
    assert!(text.contains("DROP TRIGGER bemi_context ON public.t;"), "{text}");
    client.batch_execute("SELECT bemi.untrack('t'); DROP TRIGGER bemi_context ON t; SELECT bemi.track('t')").unwrap();
}

fn notices(server: &Server) {
    let database = server.database("notices");
    let (mut client, notices) = server.connect_listening(&database.name, "postgres");
    client.batch_execute("CREATE TABLE t (id int); SELECT bemi.track('t')").unwrap();
    assert_eq!(notices.take(), [""; 0]);
    client.batch_execute("SELECT bemi.untrack('t'), bemi.track('t', 'keep')").unwrap();
    let said = notices.take().concat();
    assert!(
        said.contains("neither a key nor REPLICA IDENTITY FULL") && said.contains("SELECT bemi.track('public.t');"),
        "{said}"
    );
    client.batch_execute("CREATE TABLE child () INHERITS (t); SELECT bemi.track('t')").unwrap();
    assert!(notices.take().concat().contains("have to be tracked separately: public.child"));
    client.batch_execute("SELECT bemi.track('child'), bemi.track('t')").unwrap();
    assert_eq!(notices.take(), [""; 0]);
}

fn lock_timeout(server: &Server) {
    let mut database = crate::context::table(server, "lock_timeout");
    let mut client = database.connect();
    client.batch_execute("SELECT bemi.untrack('t')").unwrap();
    let mut reader = database.connect();
    reader.batch_execute("BEGIN; SELECT * FROM t").unwrap();
    let start = Instant::now();
    assert_eq!(sqlstate(client.batch_execute("SET lock_timeout = '200ms'; SELECT bemi.track('t')")), "55P03");
    // That of all tables goes on to the next one.
    let (mut listening, notices) = server.connect_listening(&database.name, "postgres");
    listening
        .batch_execute("CREATE TABLE another (id int); SET lock_timeout = '200ms'; SELECT bemi.track_all()")
        .unwrap();
    let said = notices.take().join("\n");
    assert!(
        said.contains(
            "could not track public.t: canceling statement due to lock timeout HINT: SELECT bemi.track('public.t');"
        ),
        "{said}"
    );
    assert!(said.contains("tracked 1 tables"), "{said}");
    assert!(start.elapsed() < Duration::from_secs(20));
    // Without a new replica identity, readers are not in the way.
    client.batch_execute("SELECT bemi.track('t', 'keep')").unwrap();
    // What is tracked already is not locked again.
    let mut writer = database.connect();
    writer.batch_execute("BEGIN; INSERT INTO t (v) VALUES ('x')").unwrap();
    client.batch_execute("SELECT bemi.track('t', 'keep'); SELECT bemi.track_all()").unwrap();
    writer.batch_execute("COMMIT").unwrap();
    reader.batch_execute("COMMIT").unwrap();
    client.batch_execute("SET lock_timeout = 0; SELECT bemi.track('t')").unwrap();
    // Which schemas are tracked is a change like any other.
    let written: Vec<_> = database.documents().iter().map(|document| document["table"].clone()).collect();
    assert_eq!(written, ["tracked_schemas", "t"]);
}

/// Sessions that write rows and, for foreign keys, lock others, while all tables are tracked and untracked.
fn all_under_load(server: &Server) {
    let database = server.database("all_under_load");
    database
        .connect()
        .batch_execute(
            "CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (id int REFERENCES parent, v int);
             CREATE TABLE root (id int) PARTITION BY RANGE (id); CREATE TABLE leaf (id int); ALTER TABLE root ATTACH PARTITION leaf FOR VALUES FROM (0) TO (1000000);
             INSERT INTO parent SELECT generate_series(0, 20)",
        )
        .unwrap();
    let end = Instant::now() + Duration::from_secs(3);
    std::thread::scope(|scope| {
        for number in 0..20 {
            let database: &Database = &database;
            scope.spawn(move || {
                let mut client = database.connect();
                while Instant::now() < end {
                    client
                        .batch_execute(&format!(
                            "INSERT INTO child VALUES ({number}, 1); COMMIT; INSERT INTO root VALUES ({number})"
                        ))
                        .unwrap_or_else(|e| panic!("{e:?}"));
                }
            });
        }
        let database: &Database = &database;
        scope.spawn(move || {
            let mut client = database.connect();
            while Instant::now() < end {
                client
                    .batch_execute("SELECT bemi.track_all(); COMMIT; SELECT bemi.untrack_all()")
                    .unwrap_or_else(|e| panic!("{e:?}"));
            }
        });
    });
}

/// Sessions that read, and then write, what is being tracked: none is the victim of a deadlock.
fn under_load(server: &Server) {
    const TABLES: usize = 5;
    let database = server.database("under_load");
    let mut client = database.connect();
    for i in 0..TABLES {
        client
            .batch_execute(&format!("CREATE TABLE t{i} (id int PRIMARY KEY, v int); INSERT INTO t{i} SELECT i, 0 FROM generate_series(1, 100) i"))
            .unwrap();
    }
    let end = Instant::now() + Duration::from_secs(4);
    let connections: Vec<postgres::Client> = (0..100).map(|_| database.connect()).collect();
    let (written, tracked) = std::thread::scope(|scope| {
        let writers: Vec<_> = connections
            .into_iter()
            .enumerate()
            .map(|(number, mut client)| {
                scope.spawn(move || {
                    let mut written = 0;
                    while Instant::now() < end {
                        let table = (number + written) % TABLES;
                        client
                            .batch_execute(&format!(
                                "SELECT bemi.set_context('{{\"n\":{number}}}'); BEGIN; SELECT count(*) FROM t{table};
                                 UPDATE t{table} SET v = v + 1 WHERE id = {number} + 1; COMMIT"
                            ))
                            .unwrap_or_else(|e| panic!("{e:?}"));
                        written += 1;
                    }
                    written
                })
            })
            .collect();
        let trackers: Vec<_> = (0..4)
            .map(|number| {
                let database: &Database = &database;
                scope.spawn(move || {
                    let mut client = database.connect();
                    let mut done = 0;
                    while Instant::now() < end {
                        let table = (number + done) % TABLES;
                        let call = match done % 3 {
                            0 => format!("bemi.track('t{table}')"),
                            1 => format!("bemi.track('t{table}', 'default', '{{v}}')"),
                            _ => format!("bemi.untrack('t{table}')"),
                        };
                        client.batch_execute(&format!("SELECT {call}")).unwrap_or_else(|e| panic!("{e:?}"));
                        done += 1;
                    }
                    done
                })
            })
            .collect();
        let sum = |handles: Vec<std::thread::ScopedJoinHandle<usize>>| -> usize {
            handles.into_iter().map(|handle| handle.join().unwrap()).sum()
        };
        (sum(writers), sum(trackers))
    });
    assert!(written > 100 && tracked > 10, "{written} transactions, {tracked} calls");
}

fn drop_extension(server: &Server) {
    let mut database = crate::context::table(server, "drop_extension");
    let mut client = database.connect();
    client.batch_execute("SELECT bemi.track_all()").unwrap();
    let error = client.batch_execute("DROP EXTENSION bemi").unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code().code(), "2BP01");
    assert!(error.detail().unwrap().contains("trigger bemi_context on table t"), "{error:?}");
    client.batch_execute("SELECT bemi.set_context('{\"a\":1}'); INSERT INTO t (v) VALUES ('x')").unwrap();
    assert_eq!(contexts(&database.documents()).last(), Some(&json!({"a":1})));
    client.batch_execute("SELECT bemi.untrack_all(); DROP EXTENSION bemi; CREATE TABLE free (id int)").unwrap();
}
