//! Tables that are made, attached or moved later, dumps, and whole schemas.
use std::fs;
use std::time::Instant;

use crate::Test;
use crate::server::{Server, contexts, wait_until};
use crate::tracking::identity;
use serde_json::json;

pub const TESTS: &[Test] = &[
    ("track_all_tracks_what_is_there_and_what_comes", what_comes),
    ("a_table_made_while_all_are_tracked_is_not_missed", meanwhile),
    ("what_is_not_in_the_log_or_belongs_to_an_extension_is_not_tracked", left_out),
    ("a_schema_is_followed_through_its_names_and_its_end", schemas),
    ("a_table_that_was_untracked_stays_so_until_it_is_moved", untracked_stays),
    ("a_table_that_cannot_be_tracked_is_made_all_the_same", never_fails),
    ("untrack_all_leaves_the_schema_as_it_was", as_it_was),
    ("a_restored_dump_keeps_tracking_rules_and_identities", dump),
    ("a_dump_is_restored_into_tracked_schemas_with_its_rules", restored_over),
    ("foreign_tables_are_imported_into_tracked_schemas_untracked", imported),
    ("event_triggers_of_others_with_our_functions_do_no_harm", misused_event_triggers),
    ("thousands_of_tables_are_tracked_in_one_call", thousands),
];

fn tracked(client: &mut postgres::Client) -> Vec<String> {
    let rows =
        client.query("SELECT relation::text FROM bemi.tracked ORDER BY relation::text COLLATE \"C\"", &[]).unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

fn what_comes(server: &Server) {
    let mut database = server.database("what_comes");
    let (mut client, notices) = server.connect_listening(&database.name, "postgres");
    client
        .batch_execute(
            "CREATE SCHEMA other; CREATE SCHEMA aside; CREATE TABLE there (id int PRIMARY KEY); CREATE TABLE other.there (id int);
             CREATE TABLE aside.there (id int); SELECT bemi.track_all('{public,other}')",
        )
        .unwrap();
    assert_eq!(tracked(&mut client), ["other.there", "there"]);
    assert_eq!(notices.take(), ["NOTICE: tracked 2 tables that were not tracked before"]);
    client
        .batch_execute(
            "CREATE TABLE a_created (id int PRIMARY KEY, r int REFERENCES there); CREATE TABLE b_as AS SELECT 1 AS id; SELECT 1 AS id INTO c_into;
             CREATE TABLE d_parted (id int) PARTITION BY LIST (id); CREATE TABLE aside.part PARTITION OF d_parted FOR VALUES IN (1);
             CREATE TABLE aside.attached (id int); ALTER TABLE d_parted ATTACH PARTITION aside.attached FOR VALUES IN (2);
             CREATE TABLE aside.e_moved (id int); ALTER TABLE aside.e_moved SET SCHEMA public;
             CREATE UNLOGGED TABLE f_logged (id int); ALTER TABLE f_logged SET LOGGED; CREATE TABLE IF NOT EXISTS there (id int);
             PREPARE q AS SELECT 2 AS id; CREATE TABLE g_execute AS EXECUTE q; CREATE TABLE h_like (LIKE there INCLUDING ALL);
             DO 'BEGIN CREATE TABLE i_function (id serial); END'; CREATE TABLE aside.not_this (id int)",
        )
        .unwrap();
    assert_eq!(notices.take().iter().filter(|notice| notice.starts_with("WARNING")).count(), 0);
    assert_eq!(
        tracked(&mut client),
        [
            "a_created",
            "aside.attached",
            "aside.part",
            "b_as",
            "c_into",
            "d_parted",
            "e_moved",
            "f_logged",
            "g_execute",
            "h_like",
            "i_function",
            "other.there",
            "there"
        ]
    );
    database.create_slot();
    client
        .batch_execute(
            "SELECT bemi.set_context('{\"a\":1}'); INSERT INTO a_created VALUES (1); COMMIT; INSERT INTO aside.attached VALUES (2); COMMIT;
             UPDATE e_moved SET id = 1; CREATE TABLE j AS SELECT 1 AS id; COMMIT; UPDATE j SET id = 2",
        )
        .unwrap();
    let documents = database.documents();
    let images: Vec<_> =
        documents.iter().map(|document| (&document["table"], &document["before"], &document["context"]["a"])).collect();
    assert_eq!(images.len(), 4, "{images:?}");
    assert_eq!(images[3], (&json!("j"), &json!({"id":1}), &json!(1)));
    // Twice is as once.
    let before = tracked(&mut client);
    client.batch_execute("SELECT bemi.track_all('{public,other}'); SELECT bemi.track_all()").unwrap();
    assert_eq!(tracked(&mut client), before);
}

/// One that was made before and is committed after, and one that is made meanwhile.
fn meanwhile(server: &Server) {
    let database = server.database("meanwhile");
    let mut client = database.connect();
    let mut maker = database.connect();
    maker.batch_execute("BEGIN; CREATE TABLE before (id int)").unwrap();
    let tries = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'meanwhile' AND state = 'active' AND starts_with(query, 'SELECT bemi.track_all')";
    std::thread::scope(|scope| {
        let tracker = scope.spawn(|| database.connect().batch_execute("SELECT bemi.track_all()"));
        wait_until("the tracker", || client.query_one(tries, &[]).unwrap().get::<_, i64>(0) == 1);
        // It does not stand in the way of others while it waits.
        database.connect().batch_execute("SET lock_timeout = '500ms'; CREATE TABLE late (id int)").unwrap();
        maker.batch_execute("COMMIT").unwrap();
        tracker.join().unwrap().unwrap();
    });
    assert_eq!(tracked(&mut client), ["before", "late"]);
}

fn left_out(server: &Server) {
    let database = server.database("left_out");
    let (mut client, notices) = server.connect_listening(&database.name, "postgres");
    client
        .batch_execute(
            "CREATE UNLOGGED TABLE unlogged (id int); CREATE TEMP TABLE temporary (id int); SELECT bemi.track_all();
             CREATE TEMP TABLE later (id int); CREATE TABLE pg_temp.latest (id int); CREATE TEMP TABLE later_as AS SELECT 1;
             CREATE UNLOGGED TABLE unlogged_later (id int); CREATE VIEW v AS SELECT 1; CREATE MATERIALIZED VIEW m AS SELECT 1;
             CREATE TABLE ext (id int); SELECT bemi.untrack('ext'); ALTER EXTENSION bemi ADD TABLE ext; SELECT bemi.track_all();
             CREATE FOREIGN DATA WRAPPER nothing; CREATE SERVER nowhere FOREIGN DATA WRAPPER nothing; CREATE FOREIGN TABLE f (id int) SERVER nowhere;
             CREATE TEMP TABLE p (id int) PARTITION BY LIST (id); CREATE TEMP TABLE p1 PARTITION OF p FOR VALUES IN (1); CREATE TYPE c AS (a int)",
        )
        .unwrap();
    assert_eq!(tracked(&mut client), [""; 0]);
    assert_eq!(notices.take().iter().filter(|notice| notice.starts_with("WARNING")).count(), 0);
    client.batch_execute("ALTER EXTENSION bemi DROP TABLE ext; SELECT bemi.track_all()").unwrap();
    assert_eq!(tracked(&mut client), ["ext"]);
}

fn schemas(server: &Server) {
    let mut client = server.database("schemas").connect();
    client
        .batch_execute(
            "CREATE SCHEMA \"Old one\"; SELECT bemi.track_all('{\"Old one\"}'); ALTER SCHEMA \"Old one\" RENAME TO \"new'\";
             CREATE TABLE \"new'\".a (id int); CREATE SCHEMA \"Old one\"; CREATE TABLE \"Old one\".b (id int)",
        )
        .unwrap();
    assert_eq!(tracked(&mut client), ["\"new'\".a"]);
    // Dropped and made again, as tests and restores do.
    client
        .batch_execute(
            "DROP SCHEMA \"new'\" CASCADE; CREATE SCHEMA \"new'\" CREATE TABLE c (id int) CREATE TABLE d (id int)",
        )
        .unwrap();
    assert_eq!(tracked(&mut client), ["\"new'\".c", "\"new'\".d"]);
    // A name that is listed already, and one of a schema that is gone.
    client
        .batch_execute(
            "CREATE SCHEMA x; CREATE SCHEMA y; SELECT bemi.track_all('{x,y}'); DROP SCHEMA y; ALTER SCHEMA x RENAME TO y; CREATE TABLE y.z (id int);
             SELECT bemi.untrack('y.z'); DROP SCHEMA \"new'\" CASCADE",
        )
        .unwrap();
    let row = client
        .query_one("SELECT fix, (SELECT string_agg(schema, ',' ORDER BY schema) FROM bemi.tracked_schemas) FROM bemi.doctor() WHERE \"check\" = 'untracked tables'", &[])
        .unwrap();
    assert_eq!(row.get::<_, &str>(1), "new',y");
    client.batch_execute(row.get(0)).unwrap();
    assert_eq!(tracked(&mut client), ["y.z"]);
    client
        .batch_execute("SELECT bemi.untrack_all(); CREATE SCHEMA \"new'\"; CREATE TABLE \"new'\".e (id int)")
        .unwrap();
    assert_eq!(tracked(&mut client), [""; 0]);
}

fn untracked_stays(server: &Server) {
    let mut client = server.database("untracked_stays").connect();
    client
        .batch_execute(
            "SELECT bemi.track_all(); CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int); SELECT bemi.untrack('t');
             ALTER TABLE t ADD v text; ALTER TABLE t RENAME v TO w; ALTER TABLE t RENAME TO tt; ALTER TABLE tt REPLICA IDENTITY FULL;
             CREATE INDEX ON tt (w); ALTER TABLE u RENAME TO uu; ALTER TABLE uu ADD v text",
        )
        .unwrap();
    assert_eq!(tracked(&mut client), ["uu"]);
    client.batch_execute("CREATE SCHEMA s; ALTER TABLE tt SET SCHEMA s; ALTER TABLE s.tt SET SCHEMA public").unwrap();
    assert_eq!(tracked(&mut client), ["tt", "uu"]);
}

fn never_fails(server: &Server) {
    let database = server.database("never_fails");
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE ROLE never_fails LOGIN; GRANT ALL ON SCHEMA public TO never_fails; GRANT CREATE ON DATABASE never_fails TO never_fails; CREATE SCHEMA mine AUTHORIZATION never_fails;
             CREATE FUNCTION fail() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN IF tg_tag = 'CREATE TRIGGER' THEN RAISE 'no triggers here'; END IF; END $$;
             SELECT bemi.track_all('{public,mine}')",
        )
        .unwrap();
    let (mut user, notices) = server.connect_listening(&database.name, "never_fails");
    let statements = [
        "CREATE TABLE \"a b\" (id int, v text)",
        "CREATE TABLE root (id int) PARTITION BY LIST (id); CREATE TABLE leaf PARTITION OF root FOR VALUES IN (1)",
        "CREATE TABLE as_select AS SELECT 1",
        "ALTER TABLE \"a b\" SET SCHEMA mine",
    ];
    let undo = "ALTER TABLE mine.\"a b\" SET SCHEMA public; DROP TABLE \"a b\", root, as_select";
    // Other triggers object, or parts of the extension are gone.
    for (spoil, mend) in [
        ("CREATE EVENT TRIGGER fail ON ddl_command_start EXECUTE FUNCTION fail()", "DROP EVENT TRIGGER fail"),
        ("ALTER TABLE bemi.tracked_schemas RENAME TO gone", "ALTER TABLE bemi.gone RENAME TO tracked_schemas"),
        (
            "ALTER FUNCTION bemi.follow_ddl(text, text, text, oid) RENAME TO gone",
            "ALTER FUNCTION bemi.gone(text, text, text, oid) RENAME TO follow_ddl",
        ),
    ] {
        client.batch_execute(spoil).unwrap();
        notices.take();
        for statement in statements {
            user.batch_execute(statement).unwrap_or_else(|e| panic!("{spoil}: {statement}: {e:?}"));
        }
        user.batch_execute("ALTER TABLE mine.\"a b\" RENAME v TO w").unwrap();
        let warned = notices.take();
        if !spoil.contains("follow_ddl") {
            assert!(
                warned.iter().any(|text| text.starts_with("WARNING: bemi could not follow")),
                "{spoil}: {warned:?}"
            );
        }
        client.batch_execute(mend).unwrap();
        user.batch_execute(undo).unwrap();
    }
    // The warning names the table and the statement that mends it, and that does.
    client.batch_execute("CREATE EVENT TRIGGER fail ON ddl_command_start EXECUTE FUNCTION fail()").unwrap();
    user.batch_execute(statements[0]).unwrap();
    let warned = notices.take().concat();
    assert!(
        warned.contains("\"a b\": no triggers here HINT: SELECT bemi.follow_table('public.\"a b\"', true);"),
        "{warned}"
    );
    client.batch_execute("DROP EVENT TRIGGER fail").unwrap();
    user.batch_execute("SELECT bemi.follow_table('public.\"a b\"', true)").unwrap();
    // A schema is followed though its owner may not write into the list.
    notices.take();
    user.batch_execute("ALTER SCHEMA mine RENAME TO yours").unwrap();
    assert_eq!(notices.take(), [""; 0]);
    user.batch_execute("CREATE TABLE yours.t (id int)").unwrap();
    assert_eq!(tracked(&mut client), ["\"a b\"", "yours.t"]);
    client.batch_execute("DROP OWNED BY never_fails CASCADE; DROP ROLE never_fails").unwrap();
}

/// Tables of many kinds, with replica identities of all kinds.
const SCHEMA: &str = "
CREATE SCHEMA \"other one\"; CREATE TABLE a (id int PRIMARY KEY, u int NOT NULL UNIQUE, v text, \"the 'secret\" text);
CREATE TABLE b (id int PRIMARY KEY, u int NOT NULL); CREATE UNIQUE INDEX b_u ON b (u); ALTER TABLE b REPLICA IDENTITY USING INDEX b_u;
CREATE TABLE c (id int PRIMARY KEY); ALTER TABLE c REPLICA IDENTITY FULL; CREATE TABLE d (id int); ALTER TABLE d REPLICA IDENTITY NOTHING;
CREATE TABLE \"other one\".root (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE leaf PARTITION OF \"other one\".root FOR VALUES FROM (0) TO (10);
CREATE TABLE \"other one\".leaf PARTITION OF \"other one\".root FOR VALUES FROM (10) TO (20); ALTER TABLE \"other one\".leaf REPLICA IDENTITY FULL;
CREATE VIEW v AS SELECT * FROM a; CREATE UNLOGGED TABLE unlogged (id int);
CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER theirs BEFORE INSERT ON a FOR EACH ROW EXECUTE FUNCTION f();
";

fn as_it_was(server: &Server) {
    let database = server.database("as_it_was");
    let mut client = database.connect();
    client.batch_execute(SCHEMA).unwrap();
    let dump = || {
        let output = server.check(server.program("pg_dump", &database.name).args(["--schema-only", "--no-comments"]));
        let text = String::from_utf8(output.stdout).unwrap();
        // Newer releases have a key of their own in each dump.
        text.lines()
            .filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let before = dump();
    client.batch_execute("SELECT bemi.track_all('{public,\"other one\"}')").unwrap();
    assert!(dump().contains("CREATE TRIGGER bemi_context"));
    client.batch_execute("SELECT bemi.track('a', 'default', '{v}', '{\"the ''secret\"}'), bemi.untrack_all()").unwrap();
    assert_eq!(dump(), before);
    client.batch_execute("CREATE TABLE later (id int)").unwrap();
    assert_eq!(tracked(&mut client), [""; 0]);
}

fn dump(server: &Server) {
    let database = server.database("dump");
    let mut client = database.connect();
    client.batch_execute(SCHEMA).unwrap();
    client
        .batch_execute(
            "SELECT bemi.track_all('{public,\"other one\"}'); SELECT bemi.track('a', 'default', '{v}', '{\"the ''secret\"}');
             ALTER TABLE c ENABLE ALWAYS TRIGGER bemi_context; INSERT INTO a VALUES (1, 1, 'v', 'hidden')",
        )
        .unwrap();
    let state = |client: &mut postgres::Client| -> Vec<String> {
        client
            .query(
                "SELECT concat_ws(' ', t.relation::regclass, t.enabled, bemi.rules(t.arguments, 'every'), bemi.identity(t.relation)) FROM bemi.context_triggers t
                 UNION ALL SELECT 'schema ' || schema FROM bemi.tracked_schemas ORDER BY 1",
                &[],
            )
            .unwrap()
            .iter()
            .map(|row| row.get(0))
            .collect()
    };
    let expected = state(&mut client);
    assert_eq!(expected.len(), 9, "{expected:?}");
    let fresh = Server::start("");
    for (name, arguments) in [("plain", &["-Fp"][..]), ("custom", &["-Fc"])] {
        let file = server.host().join(format!("{name}.dump"));
        server.check(server.program("pg_dump", &database.name).args(arguments).arg("-f").arg(&file));
        let mut admin = fresh.connect("postgres");
        admin.batch_execute(&format!("CREATE DATABASE {name}")).unwrap();
        if name == "plain" {
            fresh.check(
                fresh.program("psql", name).args(["-q", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-f"]).arg(&file),
            );
        } else {
            fresh.check(fresh.program("pg_restore", name).args(["-e", "-j", "2", "-d", name]).arg(&file));
        }
        let mut restored = fresh.connect(name);
        assert_eq!(state(&mut restored), expected, "{name}");
        let statement = format!("SELECT pg_create_logical_replication_slot('{name}', 'bemi_decoder')");
        restored.batch_execute(&statement).unwrap();
        restored
            .batch_execute("SELECT bemi.set_context('{\"a\":1}'); UPDATE a SET u = 2; COMMIT; CREATE TABLE later (id int); INSERT INTO later VALUES (1)")
            .unwrap();
        let row = restored
            .query_one(
                &format!("SELECT string_agg(data, '\n') FROM pg_logical_slot_get_changes('{name}', NULL, NULL)"),
                &[],
            )
            .unwrap();
        let text: String = row.get(0);
        assert!(text.contains("\"the 'secret\":\"[masked]\"") && !text.contains("hidden"), "{text}");
        assert_eq!(text.matches("\"context\":{\"a\":1}").count(), 2, "{text}");
        assert_eq!(identity(&mut restored, "later").0, "full");
        fs::remove_file(file).unwrap();
    }
    fresh.stop();
}

/// Tables are tracked as soon as they are made, and then the dump brings their triggers.
fn restored_over(server: &Server) {
    let database = server.database("restored_over");
    let mut client = database.connect();
    client
        .batch_execute(
            "SELECT bemi.track_all(); CREATE TABLE users (id int PRIMARY KEY, password text, seen int);
             SELECT bemi.track('users', 'full', '{seen}', '{password}'); INSERT INTO users VALUES (1, 'hidden', 1)",
        )
        .unwrap();
    let other = server.database("restored_elsewhere");
    other.connect().batch_execute("SELECT bemi.track_all()").unwrap();
    let file = server.host().join("restored_over.sql");
    for (arguments, target) in [
        (&["-t", "users", "--clean"][..], &database),
        (&["--clean", "--if-exists", "-n", "public"], &database),
        (&["-n", "public", "-n", "bemi"], &other),
    ] {
        server.check(server.program("pg_dump", &database.name).args(arguments).arg("-f").arg(&file));
        let mut psql = server.program("psql", &target.name);
        // The schema public itself is there already.
        server.check(psql.args(["-q", "-o", "/dev/null", "-f"]).arg(&file));
        let mut client = target.connect();
        let row = client.query_one("SELECT mask_columns::text || ignore_columns::text, (SELECT count(*) FROM bemi.tracked_schemas) FROM bemi.tracked WHERE relation = 'users'::regclass", &[]).unwrap();
        assert_eq!((row.get(0), row.get::<_, i64>(1)), ("{password}{seen}", 1), "{arguments:?}");
    }
    client.batch_execute("INSERT INTO bemi.tracked_schemas VALUES ('public'), ('other'), ('other')").unwrap();
    let schemas: String = client
        .query_one("SELECT string_agg(schema, ',' ORDER BY schema) FROM bemi.tracked_schemas", &[])
        .unwrap()
        .get(0);
    assert_eq!(schemas, "other,public");
    // A trigger of that name that is not ours is refused as ever.
    client.batch_execute("CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'").unwrap();
    client
        .batch_execute("CREATE TRIGGER bemi_context BEFORE INSERT ON users FOR EACH STATEMENT EXECUTE FUNCTION f()")
        .unwrap_err();
    fs::remove_file(file).unwrap();
}

fn imported(server: &Server) {
    let database = server.database("imported");
    let (mut client, notices) = server.connect_listening(&database.name, "postgres");
    if let Err(error) = client.batch_execute("LOAD 'postgres_fdw'") {
        // Some servers from PyPI bring one that does not fit the libpq of the machine.
        assert_ne!(server.major, 15, "{error}");
        println!("not run, since postgres_fdw cannot be loaded");
        return;
    }
    client
        .batch_execute(&format!(
            "CREATE EXTENSION postgres_fdw; CREATE SERVER here FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{}', dbname 'imported');
             CREATE USER MAPPING FOR postgres SERVER here OPTIONS (user 'postgres'); CREATE SCHEMA far; CREATE TABLE far.t (id int);
             SELECT bemi.track_all()",
            server.host().display()
        ))
        .unwrap();
    notices.take();
    client
        .batch_execute(
            "IMPORT FOREIGN SCHEMA far FROM SERVER here INTO public; SELECT * FROM t; SELECT bemi.track_all()",
        )
        .unwrap();
    assert_eq!(tracked(&mut client), [""; 0]);
    assert_eq!(notices.take(), ["NOTICE: tracked 0 tables that were not tracked before"]);
}

/// Only a superuser can make them.
fn misused_event_triggers(server: &Server) {
    let database = server.database("misused_event_triggers");
    let mut client = database.connect();
    let events = if server.major >= 17 {
        "ddl_command_start ddl_command_end sql_drop table_rewrite login"
    } else {
        "ddl_command_start ddl_command_end sql_drop table_rewrite"
    };
    for (i, (event, function)) in
        events.split(' ').flat_map(|event| [(event, "on_ddl"), (event, "before_ddl")]).enumerate()
    {
        client
            .batch_execute(&format!("CREATE EVENT TRIGGER misused_{i} ON {event} EXECUTE FUNCTION bemi.{function}()"))
            .unwrap();
    }
    let mut client = database.connect();
    client
        .batch_execute("CREATE TABLE t (id int); SELECT bemi.track_all(); ALTER TABLE t ALTER id TYPE text; CREATE TABLE u (); DROP TABLE t; CREATE TABLE v AS SELECT 1 AS a; ALTER TABLE v RENAME a TO b")
        .unwrap();
    assert_eq!(tracked(&mut client), ["u", "v"]);
    for function in ["on_ddl", "before_ddl"] {
        client.batch_execute(&format!("SELECT bemi.{function}()")).unwrap_err();
    }
    // The old meaning of backslashes changes nothing.
    database.connect().batch_execute("SET standard_conforming_strings = off; SELECT * FROM bemi.doctor(); CREATE SCHEMA pgab; CREATE TABLE pgab.t (id int); SELECT bemi.track_all('{pgab}')").unwrap();
    assert_eq!(tracked(&mut client), ["pgab.t", "u", "v"]);
}

/// On a server of its own, for the locks that it takes. What the INSERT takes is told, not judged.
fn thousands(main: &Server) {
    // What it takes grows faster than the tables do: with one version there are more.
    let tables = if main.major == 17 { 5000 } else { 2000 };
    let server = Server::start("max_locks_per_transaction = 128\n");
    let mut database = server.database("thousands");
    let (mut client, notices) = server.connect_listening(&database.name, "postgres");
    // Beside other tests the tables alone may take longer than a statement is allowed to.
    client.batch_execute("SET statement_timeout = 0").unwrap();
    client
        .batch_execute(&format!(
            "DO $$ BEGIN FOR i IN 1..{tables} LOOP EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY, v text)', i); END LOOP; END $$"
        ))
        .unwrap();
    let insert = |database: &crate::server::Database| {
        let mut client = database.connect();
        let statement = client.prepare("INSERT INTO t77 (id) VALUES ($1)").unwrap();
        let mut times: Vec<_> = (0..1001)
            .map(|i| {
                let start = Instant::now();
                client.execute(&statement, &[&i]).unwrap();
                start.elapsed()
            })
            .collect();
        client.batch_execute("TRUNCATE t77").unwrap();
        times.sort();
        times[times.len() / 2]
    };
    let before = insert(&database);
    let start = Instant::now();
    client.batch_execute("SELECT bemi.track_all()").unwrap();
    let elapsed = start.elapsed();
    let said = notices.take();
    assert!(said.iter().any(|notice| notice.contains(&format!("tracked 1500 of {tables} tables"))), "{said:?}");
    assert_eq!(said.len(), 1 + tables / 500, "{said:?}");
    let after = insert(&database);
    println!("{tables} tables tracked in {elapsed:.1?}; an INSERT takes {before:.1?} before and {after:.1?} after");
    let start = Instant::now();
    let row = client
        .query_one(
            "SELECT count(*), bool_and(ok) FROM bemi.doctor() WHERE \"check\" ~ 'tables|rules|triggers|images'",
            &[],
        )
        .unwrap();
    println!("bemi.doctor() takes {:.1?}", start.elapsed());
    assert_eq!((row.get::<_, i64>(0), row.get::<_, bool>(1)), (8, true));
    database.create_slot();
    client.batch_execute("SELECT bemi.set_context('{\"a\":1}'); INSERT INTO t1999 VALUES (1)").unwrap();
    assert_eq!(contexts(&database.documents()), [json!({"a":1})]);
    client.batch_execute("SELECT bemi.untrack_all()").unwrap();
    assert_eq!(tracked(&mut client), [""; 0]);
    server.stop();
}
