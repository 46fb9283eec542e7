//! Which tables can be tracked, by whom, and what tracking leaves behind.
use std::time::{Duration, Instant};

use crate::Test;
use crate::server::{Database, Server, contexts, sqlstate};
use serde_json::json;

pub const TESTS: &[Test] = &[
    ("tracking_gives_full_images_and_untracking_puts_back_what_was_there", identities),
    ("a_renamed_index_is_still_put_back_and_a_dropped_one_gives_the_default", identity_index),
    ("what_cannot_be_tracked_is_refused_with_a_reason", refusals),
    ("wrong_arguments_of_track_are_refused_and_named", arguments),
    ("the_owner_tracks_his_table_and_nobody_elses", owners),
    ("a_trigger_of_the_same_name_is_not_replaced", stranger),
    ("tables_without_a_key_and_with_children_say_what_is_missing", notices),
    ("no_function_looks_names_up_through_the_callers_search_path", search_path),
    ("tracking_a_table_waits_no_longer_than_lock_timeout", lock_timeout),
    ("a_hundred_sessions_write_while_tables_are_tracked_and_untracked", under_load),
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
             ALTER INDEX two RENAME TO \"2'\"; ALTER TABLE \"2'\" RENAME TO \"zwei \\\"",
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
    notices.take();
    client
        .batch_execute("SELECT bemi.track('t'); ALTER TABLE t DROP CONSTRAINT uno; SELECT bemi.untrack('t')")
        .unwrap();
    assert_eq!(identity(&mut client, "t").0, "default");
    assert!(notices.take().concat().contains("index uno that was the replica identity of"));
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
        ("s", "no table"),
        ("c", "no table"),
        ("t_pkey", "no table"),
        ("temporary", "temporary table"),
        ("unlogged", "ALTER TABLE public.unlogged SET LOGGED;"),
        ("f", "foreign table"),
        ("pg_class", "system catalogs"),
        ("pg_authid", "system catalogs"),
        ("information_schema.sql_parts", "system catalogs"),
        ("bemi.tracked_schemas", "a part of bemi"),
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
    client.batch_execute("SELECT bemi.track('t', ignore_columns => NULL, mask_columns => NULL)").unwrap();
}

fn owners(server: &Server) {
    let database = server.database("owners");
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE ROLE owners_one LOGIN; CREATE ROLE owners_two LOGIN; GRANT CREATE ON SCHEMA public TO owners_one, owners_two;
             CREATE TABLE foreigner (id int PRIMARY KEY)",
        )
        .unwrap();
    let mut one = server.connect_with(&database.name, "owners_one", "");
    let mut two = server.connect_with(&database.name, "owners_two", "");
    one.batch_execute(
        "CREATE TABLE mine (id int PRIMARY KEY, v text); CREATE TABLE root (id int) PARTITION BY LIST (id);
         GRANT ALL ON mine TO owners_two;
         SELECT bemi.track('mine', ignore_columns => '{v}'), bemi.track('root')",
    )
    .unwrap();
    for statement in ["SELECT bemi.track('mine')", "SELECT bemi.untrack('mine')", "SELECT bemi.track('foreigner')"] {
        assert_eq!(refusal(&mut two, statement).0, "42501", "{statement}");
    }
    assert_eq!(identity(&mut client, "mine").0, "full");
    // A partition of somebody else is not touched, nor is the rest then.
    client
        .batch_execute("ALTER TABLE foreigner DROP CONSTRAINT foreigner_pkey; CREATE TABLE leaf PARTITION OF root FOR VALUES IN (1); SELECT bemi.untrack('root')")
        .unwrap();
    assert_eq!(refusal(&mut one, "SELECT bemi.track('root')").0, "42501");
    assert_eq!(identity(&mut client, "root"), ("default".to_owned(), None));
    // All that is his.
    let (mut one, notices) = server.connect_listening(&database.name, "owners_one");
    one.batch_execute("SELECT bemi.untrack('mine'); CREATE TABLE mine_too (id int); SELECT bemi.track_all()").unwrap();
    let said = notices.take().join("\n");
    assert!(said.contains("tracked 2 tables") || said.contains("tracked 3 tables"), "{said}");
    assert!(said.contains("you do not own these tables") && said.contains("public.foreigner"), "{said}");
    assert!(
        said.contains("only a superuser can have that") && said.contains("SELECT bemi.track_all('{public}');"),
        "{said}"
    );
    one.batch_execute("SELECT bemi.untrack_all()").unwrap();
    let left: i64 = client.query_one("SELECT count(*) FROM bemi.tracked", &[]).unwrap().get(0);
    assert_eq!(left, 0);
    client.batch_execute("DROP OWNED BY owners_one, owners_two; DROP ROLE owners_one, owners_two").unwrap();
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
    assert!(notices.take().concat().contains("only if that is tracked too: public.child"));
    client.batch_execute("SELECT bemi.track('child'), bemi.track('t')").unwrap();
    assert_eq!(notices.take(), [""; 0]);
}

/// Everything that a function might name stands in front of what it means: it would fail or be counted.
fn search_path(server: &Server) {
    let database = server.database("search_path");
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE SCHEMA evil; CREATE TABLE evil.hits (what text);
             CREATE TABLE evil.pg_trigger (a int); CREATE TABLE evil.pg_class (a int); CREATE TABLE evil.pg_attribute (a int);
             CREATE TABLE evil.pg_index (a int); CREATE TABLE evil.pg_namespace (a int); CREATE TABLE evil.pg_inherits (a int);
             CREATE TABLE evil.pg_settings (a int); CREATE TABLE evil.pg_depend (a int); CREATE TABLE evil.pg_roles (a int);
             CREATE TABLE evil.pg_replication_slots (a int); CREATE TABLE evil.tracked_schemas (a int); CREATE TABLE evil.context_triggers (a int);
             CREATE TYPE evil.regclass AS (a int); CREATE TYPE evil.name AS (a int); CREATE DOMAIN evil.text AS pg_catalog.int4;",
        )
        .unwrap();
    // Every function that ours call, and the operators.
    client
        .batch_execute(
            r#"DO $do$
            DECLARE f record;
            BEGIN
              FOR f IN SELECT DISTINCT p.proname, pg_get_function_identity_arguments(p.oid) AS arguments, format_type(p.prorettype, NULL) AS result, p.oid
                FROM pg_proc p WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind = 'f' AND NOT proretset AND provariadic = 0 AND proname IN
                ('format', 'unnest', 'pg_has_role', 'quote_ident', 'quote_literal', 'array_position', 'cardinality', 'substring', 'concat_ws',
                 'pg_size_pretty', 'array_to_string', 'nullif', 'replace', 'current_database', 'pg_wal_lsn_diff', 'pg_is_in_recovery')
                AND p.prorettype NOT IN ('anyarray'::regtype, 'anyelement'::regtype, 'anycompatiblearray'::regtype)
              LOOP
                EXECUTE format('CREATE FUNCTION evil.%I(%s) RETURNS %s LANGUAGE plpgsql AS $f$BEGIN INSERT INTO evil.hits VALUES (%L); RETURN NULL; END$f$', f.proname, f.arguments, f.result, f.proname);
              END LOOP;
              CREATE FUNCTION evil.operator(pg_catalog.text, pg_catalog.text) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN INSERT INTO evil.hits VALUES (''text =''); RETURN false; END';
              CREATE FUNCTION evil.operator(pg_catalog.name, pg_catalog.name) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN INSERT INTO evil.hits VALUES (''name =''); RETURN false; END';
              CREATE FUNCTION evil.operator(oid, oid) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN INSERT INTO evil.hits VALUES (''oid =''); RETURN false; END';
              CREATE FUNCTION evil.operator("char", "char") RETURNS boolean LANGUAGE plpgsql AS 'BEGIN INSERT INTO evil.hits VALUES (''char =''); RETURN false; END';
              CREATE OPERATOR evil.= (LEFTARG = pg_catalog.text, RIGHTARG = pg_catalog.text, FUNCTION = evil.operator);
              CREATE OPERATOR evil.= (LEFTARG = pg_catalog.name, RIGHTARG = pg_catalog.name, FUNCTION = evil.operator);
              CREATE OPERATOR evil.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = evil.operator);
              CREATE OPERATOR evil.= (LEFTARG = "char", RIGHTARG = "char", FUNCTION = evil.operator);
            END $do$"#,
        )
        .unwrap();
    client
        .batch_execute(
            "SET search_path = evil, pg_temp, pg_catalog, public;
             CREATE TABLE public.t (id int PRIMARY KEY, v pg_catalog.varchar, secret pg_catalog.varchar);
             CREATE TEMP TABLE tracked (a int); CREATE TEMP TABLE pg_proc (a int);
             SELECT bemi.track('public.t', 'full', '{v}', '{secret}'); SELECT bemi.track_all('{public,evil}');
             CREATE TABLE public.new (id int PRIMARY KEY); ALTER TABLE public.t RENAME v TO w;
             CREATE TABLE public.root (id int) PARTITION BY LIST (id); CREATE TABLE public.leaf PARTITION OF public.root FOR VALUES IN (1);
             SELECT * FROM bemi.doctor(); SELECT * FROM bemi.tracked;",
        )
        .unwrap();
    let mut sober = database.connect();
    let rows = sober.query("SELECT relation::text || ignore_columns::text || mask_columns::text FROM bemi.tracked WHERE relation::text NOT LIKE 'evil%' ORDER BY 1", &[]).unwrap();
    let tracked: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(tracked, ["leaf{}{}", "new{}{}", "root{}{}", "t{w}{secret}"]);
    client.batch_execute("SELECT bemi.untrack('public.t'); SELECT bemi.untrack_all()").unwrap();
    let hits = sober.query("SELECT DISTINCT what FROM evil.hits", &[]).unwrap();
    assert_eq!(hits.iter().map(|row| row.get(0)).collect::<Vec<String>>(), [""; 0]);
}

fn lock_timeout(server: &Server) {
    let mut database = crate::context::table(server, "lock_timeout");
    let mut client = database.connect();
    client.batch_execute("SELECT bemi.untrack('t')").unwrap();
    let mut reader = database.connect();
    reader.batch_execute("BEGIN; SELECT * FROM t").unwrap();
    let start = Instant::now();
    for call in ["bemi.track('t')", "bemi.track_all()"] {
        assert_eq!(sqlstate(client.batch_execute(&format!("SET lock_timeout = '200ms'; SELECT {call}"))), "55P03");
    }
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
