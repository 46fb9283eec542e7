//! Statements whose trigger does not fire: their rows carry the statement's own context or none, never one from before.
use postgres::Client;
use serde_json::{Value, json};

use crate::Test;
use crate::server::{Database, Server, run, wait_until};

pub const TESTS: &[Test] = &[
    ("a_statement_on_a_table_above_a_tracked_one_leaves_no_context_of_another", above),
    ("disabled_triggers_and_the_replica_role_leave_no_context_of_another", disabled),
    ("triggers_of_an_untracked_table_write_one_context_for_all_its_rows", one_for_all),
    ("rows_of_untracked_tables_carry_no_context_of_another", untracked),
    ("statements_that_write_no_rows_write_no_context", nothing_written),
    ("rows_behind_a_nested_statement_have_the_context_of_the_statement_around_it", nested),
    ("errors_of_statements_keep_their_fields_behind_the_hooks", errors),
    ("the_hooks_go_with_those_of_other_libraries", other_libraries),
    ("what_is_applied_after_a_trigger_has_run_sql_carries_no_context_of_it", applied),
];

/// Who wrote each change, with its operation: `CREATE r1 anna`.
fn writers(documents: &[Value]) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let line = |d: &Value| format!("{} {} {}", text(&d["operation"]), text(&d["table"]), text(&d["context"]["who"]));
    documents.iter().map(line).collect()
}

fn by(statement: &str, who: &str) -> String {
    format!("{statement} /*Bemi {{\"who\":\"{who}\"}} Bemi*/")
}

/// Runs statements in one transaction, each sent by itself.
fn transaction(client: &mut Client, statements: &[String]) {
    client.batch_execute("BEGIN").unwrap();
    for statement in statements {
        client.batch_execute(statement).unwrap_or_else(|error| panic!("{error:?}: {statement}"));
    }
    client.batch_execute("COMMIT").unwrap();
}

fn database<'a>(server: &'a Server, name: &str) -> Database<'a> {
    let mut database = server.database(name);
    run(
        &mut database.connect(),
        "CREATE TABLE other (id int PRIMARY KEY); SELECT bemi.track('other'); \
         CREATE TABLE r (id int, k int, v int, PRIMARY KEY (id, k)) PARTITION BY LIST (k); \
         CREATE TABLE r1 PARTITION OF r FOR VALUES IN (1); SELECT bemi.track('r1'); \
         CREATE TABLE parent (id int, v int); CREATE TABLE child (PRIMARY KEY (id)) INHERITS (parent); \
         SELECT bemi.track('child'); INSERT INTO child VALUES (1, 1); INSERT INTO r VALUES (9, 1, 1)",
    );
    database.create_slot();
    database
}

fn above(server: &Server) {
    let mut database = database(server, "above");
    let mut client = database.connect();
    let anna = by("INSERT INTO other VALUES (1)", "anna");
    for (statement, expected) in [
        (by("INSERT INTO r VALUES (1, 1, 1)", "berta"), "CREATE r1 berta"),
        (by("UPDATE r SET v = 2 WHERE id = 9", "berta"), "UPDATE r1 berta"),
        ("UPDATE r SET v = 3 WHERE id = 9".to_owned(), "UPDATE r1 -"),
        (by("UPDATE parent SET v = 5", "berta"), "UPDATE child berta"),
        (by("WITH w AS (UPDATE r SET v = 4 WHERE id = 9 RETURNING 1) SELECT * FROM w", "berta"), "UPDATE r1 berta"),
        (by("EXPLAIN ANALYZE UPDATE parent SET v = 6", "berta"), "UPDATE child berta"),
        (by("DO $$ BEGIN UPDATE parent SET v = 7; END $$", "berta"), "UPDATE child berta"),
        (by("TRUNCATE r1", "berta"), "TRUNCATE r1 berta"),
    ] {
        client.batch_execute("DELETE FROM r WHERE id = 1; DELETE FROM other").unwrap();
        client.batch_execute("INSERT INTO r VALUES (9, 1, 1) ON CONFLICT DO NOTHING").unwrap();
        database.documents();
        transaction(&mut client, &[anna.clone(), statement.clone()]);
        assert_eq!(writers(&database.documents()), ["CREATE other anna", expected], "{statement}");
    }
    // COPY, and a savepoint that takes back what a statement wrote.
    client.batch_execute("DELETE FROM other; TRUNCATE r").unwrap();
    database.documents();
    client.batch_execute(&format!("BEGIN; {anna}")).unwrap();
    let mut copy = client.copy_in(&by("COPY r FROM stdin", "carla")).unwrap();
    std::io::Write::write_all(&mut copy, b"5\t1\t1\n").unwrap();
    copy.finish().unwrap();
    client.batch_execute("SAVEPOINT s").unwrap();
    client.batch_execute(&by("UPDATE parent SET v = 8", "berta")).unwrap();
    client.batch_execute("ROLLBACK TO s").unwrap();
    client.batch_execute(&by("UPDATE parent SET v = 9", "dora")).unwrap();
    client.batch_execute("COMMIT").unwrap();
    assert_eq!(writers(&database.documents()), ["CREATE other anna", "CREATE r1 carla", "UPDATE child dora"]);
    // Each statement of one text has its own.
    client.batch_execute("DELETE FROM other").unwrap();
    database.documents();
    let text = format!("BEGIN; {anna}; {}; UPDATE r SET v = 9; COMMIT", by("UPDATE parent SET v = 1", "berta"));
    client.batch_execute(&text).unwrap();
    assert_eq!(writers(&database.documents()), ["CREATE other anna", "UPDATE child berta", "UPDATE r1 -"]);
    if server.major >= 15 {
        client.batch_execute("DELETE FROM other").unwrap();
        database.documents();
        let merge =
            by("MERGE INTO r USING (VALUES (5)) x (id) ON r.id = x.id WHEN MATCHED THEN UPDATE SET v = 1", "emma");
        transaction(&mut client, &[anna, merge]);
        assert_eq!(writers(&database.documents()), ["CREATE other anna", "UPDATE r1 emma"]);
    }
}

fn disabled(server: &Server) {
    let mut database = database(server, "disabled_triggers");
    let mut client = database.connect();
    let anna = by("INSERT INTO other VALUES (1)", "anna");
    let off = "ALTER TABLE child DISABLE TRIGGER ALL".to_owned();
    transaction(
        &mut client,
        &[anna.clone(), off, by("UPDATE child SET v = 2", "berta"), "UPDATE child SET v = 3".into()],
    );
    assert_eq!(writers(&database.documents()), ["CREATE other anna", "UPDATE child berta", "UPDATE child -"]);
    client.batch_execute("DELETE FROM other").unwrap();
    database.documents();
    let replica = "SET LOCAL session_replication_role = replica".to_owned();
    transaction(&mut client, &[anna.clone(), replica.clone(), "INSERT INTO other VALUES (2)".to_owned()]);
    assert_eq!(writers(&database.documents()), ["CREATE other anna", "CREATE other -"]);
    client.batch_execute("DELETE FROM other").unwrap();
    database.documents();
    transaction(&mut client, &[anna.clone(), replica, by("TRUNCATE r1", "berta"), "TRUNCATE other".to_owned()]);
    assert_eq!(writers(&database.documents()), ["CREATE other anna", "TRUNCATE r1 berta", "TRUNCATE other -"]);
    // What a foreign key does to a table whose trigger is off, and what a prepared statement does.
    run(
        &mut client,
        "CREATE TABLE owner (id int PRIMARY KEY); CREATE TABLE owned (id int PRIMARY KEY, owner int REFERENCES owner ON DELETE CASCADE); \
         SELECT bemi.track('owned'); ALTER TABLE owned DISABLE TRIGGER bemi_context; DELETE FROM other; \
         INSERT INTO owner VALUES (1), (2); INSERT INTO owned VALUES (1, 1), (2, 2); \
         PREPARE remove AS DELETE FROM owner WHERE id = $1",
    );
    database.documents();
    let named = "EXECUTE remove (2)".to_owned();
    transaction(&mut client, &[anna, by("DELETE FROM owner WHERE id = 1", "berta"), named]);
    let expected =
        ["CREATE other anna", "DELETE owner berta", "DELETE owned berta", "DELETE owner -", "DELETE owned -"];
    assert_eq!(writers(&database.documents()), expected);
}

fn untracked(server: &Server) {
    let mut database = database(server, "untracked_rows");
    let mut client = database.connect();
    client.batch_execute("CREATE TABLE plain (id int)").unwrap();
    let anna = by("INSERT INTO other VALUES (1)", "anna");
    let made = "CREATE TABLE made AS SELECT 1 AS id".to_owned();
    let into = by("SELECT 1 AS id INTO made_too", "carla");
    let explained = by("EXPLAIN ANALYZE CREATE TABLE made_so AS SELECT 1 AS id", "dora");
    let prepared = "PREPARE one AS SELECT 1 AS id".to_owned();
    let executed = by("CREATE TABLE made_of AS EXECUTE one", "emma");
    transaction(
        &mut client,
        &[
            anna,
            by("INSERT INTO plain VALUES (1)", "berta"),
            made,
            into,
            explained,
            prepared,
            executed,
            "DELETE FROM plain".into(),
        ],
    );
    assert_eq!(
        writers(&database.documents()),
        [
            "CREATE other anna",
            "CREATE plain berta",
            "CREATE made -",
            "CREATE made_too carla",
            "CREATE made_so dora",
            "CREATE made_of emma",
            "DELETE plain -"
        ]
    );
}

fn nothing_written(server: &Server) {
    let database = database(server, "nothing_written");
    let mut client = database.connect();
    let messages = |client: &mut Client, statements: &[String]| -> i64 {
        let slot = "SELECT count(*) FROM pg_logical_slot_get_changes('nothing_written', NULL, NULL, 'add-msg-prefixes', '_bemi')
            WHERE data::jsonb ->> 'operation' = 'MESSAGE'";
        transaction(client, statements);
        client.query_one(slot, &[]).unwrap().get(0)
    };
    let anna = by("INSERT INTO other VALUES (1)", "anna");
    let reads = [
        anna,
        by("EXPLAIN UPDATE parent SET v = 1", "berta"),
        by("SELECT * FROM r", "berta"),
        by("COPY other TO stdout", "berta"),
        by("CREATE INDEX ON r1 (v)", "berta"),
    ];
    let reads: Vec<String> = reads.into_iter().filter(|statement| !statement.starts_with("COPY")).collect();
    assert_eq!(messages(&mut client, &reads), 1);
    // Without a context in force, a statement whose trigger does not fire writes none.
    assert_eq!(messages(&mut client, &[by("UPDATE parent SET v = 1", "berta")]), 0);
}

fn nested(server: &Server) {
    let mut database = database(server, "nested_statements");
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE notes (id int); CREATE VIEW seen AS SELECT id FROM t;
             SELECT bemi.track('t'), bemi.track('notes');
             CREATE FUNCTION as_trigger() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
               PERFORM bemi.set_context('{\"who\":\"trigger\"}', true); END $$;
             CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE before text := current_setting('bemi.context', true); BEGIN
               PERFORM as_trigger(); INSERT INTO notes VALUES (NEW.id);
               BEGIN INSERT INTO notes VALUES (NEW.id / 0); EXCEPTION WHEN division_by_zero THEN NULL; END;
               PERFORM set_config('bemi.context', before, true); RETURN NEW; END $$;
             CREATE FUNCTION empty_notes() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF NEW.id = 2 THEN PERFORM as_trigger(); TRUNCATE notes; END IF; RETURN NEW; END $$;
             CREATE TRIGGER note BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION note()",
        )
        .unwrap();
    let anna = by("INSERT INTO other VALUES (1)", "anna");
    let set = |who: &str| match who {
        "-" => "SET LOCAL bemi.context = ''".to_owned(),
        who => format!("SET LOCAL bemi.context = '{{\"who\":\"{who}\"}}'"),
    };
    let is_logged = |line: &String| !line.starts_with("TRUNCATE other");
    // In every session a statement is the first, which loads the library; and each comes behind others too.
    for begin in [vec![], vec![anna]] {
        for (statement, who) in [
            ("INSERT INTO t SELECT generate_series(1, 3)", "berta"),
            ("INSERT INTO t SELECT generate_series(1, 3)", "-"),
            ("INSERT INTO seen SELECT generate_series(1, 3)", "berta"),
            ("WITH w AS (INSERT INTO t SELECT generate_series(1, 3) RETURNING id) SELECT FROM w", "berta"),
            ("COPY t FROM PROGRAM 'seq 3'", "berta"),
            ("EXPLAIN ANALYZE INSERT INTO t SELECT generate_series(1, 3)", "berta"),
        ] {
            // In its first session the statement that loads the library; a COPY is not seen to end there.
            let mut first =
                if statement.starts_with("COPY") { database.connect() } else { server.connect(&database.name) };
            client.batch_execute("TRUNCATE t, other, notes").unwrap();
            database.documents();
            let mut statements = begin.clone();
            statements.extend([set(who), statement.to_owned(), set("carla"), "INSERT INTO t VALUES (4)".to_owned()]);
            transaction(&mut first, &statements);
            let row = |who| ["CREATE notes trigger".to_owned(), format!("CREATE t {who}")];
            let mut expected: Vec<String> = begin.iter().map(|_| "CREATE other anna".to_owned()).collect();
            expected.extend([row(who), row(who), row(who), row("carla")].concat());
            let found: Vec<String> = writers(&database.documents()).into_iter().filter(is_logged).collect();
            assert_eq!(found, expected, "{statement}");
        }
    }
    // The library comes with a statement inside of one whose trigger does not fire.
    client.batch_execute("TRUNCATE t, other, notes; ALTER TABLE t DISABLE TRIGGER bemi_context").unwrap();
    for statement in ["INSERT INTO t SELECT generate_series(1, 3)", "COPY t FROM PROGRAM 'seq 3'"] {
        client.batch_execute("TRUNCATE t, notes").unwrap();
        database.documents();
        transaction(&mut server.connect(&database.name), &[set("berta"), statement.to_owned()]);
        assert_eq!(writers(&database.documents()), ["CREATE notes trigger", "CREATE t -"].repeat(3), "{statement}");
    }
    // A statement inside that the executor does not run, and a statement whose own trigger does not fire.
    run(
        &mut client,
        "TRUNCATE t, other, notes; DROP TRIGGER note ON t; \
         CREATE TRIGGER note BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION empty_notes()",
    );
    database.documents();
    for (begin, who) in [(vec![], "-"), (vec![by("INSERT INTO other VALUES (1)", "anna")], "berta")] {
        let mut statements = begin.clone();
        let fill = "INSERT INTO t SELECT generate_series(1, 3)".to_owned();
        statements.extend([set("berta"), fill, "DELETE FROM t".to_owned()]);
        transaction(&mut client, &statements);
        let mut expected: Vec<String> = begin.iter().map(|_| "CREATE other anna".to_owned()).collect();
        expected.push(format!("CREATE t {who}"));
        expected.push("TRUNCATE notes trigger".to_owned());
        expected.extend([format!("CREATE t {who}"), format!("CREATE t {who}")]);
        // The context that the trigger set for the transaction is the session's now.
        expected.extend(vec!["DELETE t trigger".to_owned(); 3]);
        let mut found = writers(&database.documents());
        // The order of what one statement writes is that of the log.
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
    }
}

fn errors(server: &Server) {
    let database = database(server, "errors_behind_hooks");
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE TABLE checked (id int CONSTRAINT small CHECK (id < 9));
             CREATE FUNCTION inner_error() RETURNS int LANGUAGE plpgsql AS 'BEGIN EXECUTE ''SELECT 1 / 0''; RETURN 1; END'",
        )
        .unwrap();
    for is_in_force in [false, true] {
        for (statement, expected) in [
            ("INSERT INTO checked VALUES (10)", json!(["23514", "checked", "small", null])),
            ("UPDATE parent SET v = inner_error()", json!(["22012", null, null, "SELECT 1 / 0"])),
            ("COPY checked FROM PROGRAM 'echo 10'", json!(["23514", "checked", "small", null])),
            ("INSERT INTO checked SELECT nothing", json!(["42703", null, null, null])),
        ] {
            client.batch_execute("BEGIN").unwrap();
            if is_in_force {
                client.batch_execute(&by("INSERT INTO other VALUES (1)", "anna")).unwrap();
            }
            let error = client.batch_execute(statement).unwrap_err();
            let error = error.as_db_error().unwrap();
            let query = error.where_().filter(|text| text.contains("SELECT 1 / 0")).map(|_| "SELECT 1 / 0");
            let found = json!([error.code().code(), error.table(), error.constraint(), query]);
            assert_eq!(found, expected, "{statement}: {error:?}");
            assert!(!error.message().contains("panic"), "{error:?}");
            assert!(error.file().is_some_and(|file| file.ends_with(".c")), "{error:?}");
            client.batch_execute("ROLLBACK").unwrap();
        }
    }
}

fn other_libraries(_server: &Server) {
    let server = Server::start(
        "shared_preload_libraries = 'auto_explain'\nauto_explain.log_min_duration = 0\nauto_explain.log_analyze = on\n",
    );
    above(&server);
    assert!(server.log().is_empty() || !server.log().contains("TRAP"));
    drop(server);
    let server = Server::start("shared_preload_libraries = 'bemi, auto_explain'\nauto_explain.log_min_duration = 0\n");
    disabled(&server);
}

/// In the apply worker rows come without statements; a trigger there may run SQL that writes a context.
fn applied(_server: &Server) {
    let publisher = Server::start("");
    let subscriber = Server::start("");
    let tables = "CREATE TABLE one (id int PRIMARY KEY); CREATE TABLE two (id int PRIMARY KEY); CREATE PUBLICATION p FOR ALL TABLES";
    publisher.connect("postgres").batch_execute(tables).unwrap();
    let mut database = subscriber.database("applied");
    let mut client = database.connect();
    run(
        &mut client,
        "CREATE TABLE one (id int PRIMARY KEY); CREATE TABLE two (id int PRIMARY KEY); CREATE TABLE noted (id int PRIMARY KEY); \
         SELECT bemi.track('one'); SELECT bemi.track('two'); SELECT bemi.track('noted')",
    );
    client
        .batch_execute(
            "ALTER TABLE noted ENABLE ALWAYS TRIGGER bemi_context;
             CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               PERFORM bemi.set_context('{\"who\":\"trigger\"}', true); INSERT INTO public.noted VALUES (NEW.id); RETURN NEW; END $$;
             CREATE TRIGGER note BEFORE INSERT ON one FOR EACH ROW EXECUTE FUNCTION note();
             ALTER TABLE one ENABLE ALWAYS TRIGGER note",
        )
        .unwrap();
    database.create_slot();
    client
        .batch_execute(&format!(
            "CREATE SUBSCRIPTION s CONNECTION 'host={} user=postgres dbname=postgres' PUBLICATION p WITH (copy_data = off)",
            publisher.host().display()
        ))
        .unwrap();
    publisher
        .connect("postgres")
        .batch_execute(
            "BEGIN; INSERT INTO two VALUES (1); INSERT INTO one VALUES (1); INSERT INTO two VALUES (2); COMMIT",
        )
        .unwrap();
    wait_until("the rows", || client.query_one("SELECT count(*) = 2 FROM two", &[]).unwrap().get(0));
    // The apply worker does not wait for the disk.
    client.batch_execute("CHECKPOINT").unwrap();
    assert_eq!(
        writers(&database.documents()),
        ["CREATE two -", "CREATE noted trigger", "CREATE one -", "CREATE two -"]
    );
    client.batch_execute("DROP SUBSCRIPTION s").unwrap();
}

/// What runs inside of a statement under the same context is no reason to write it again for each row.
fn one_for_all(server: &Server) {
    let database = database(server, "one_for_all");
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE TABLE plain (id int);
             CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO other VALUES (NEW.id); RETURN NEW; END';
             CREATE TRIGGER note BEFORE INSERT ON plain FOR EACH ROW EXECUTE FUNCTION note()",
        )
        .unwrap();
    client.batch_execute("SELECT bemi.context(); DELETE FROM other").unwrap();
    let slot = "SELECT count(*) FILTER (WHERE data::jsonb ->> 'operation' = 'MESSAGE'),
            count(*) FILTER (WHERE data::jsonb -> 'context' ->> 'who' = 'anna' AND data::jsonb ->> 'operation' = 'CREATE')
        FROM pg_logical_slot_get_changes('one_for_all', NULL, NULL, 'add-msg-prefixes', '_bemi')";
    client.query_one(slot, &[]).unwrap();
    client.batch_execute(&by("INSERT INTO plain SELECT g FROM generate_series(1, 1000) g", "anna")).unwrap();
    let row = client.query_one(slot, &[]).unwrap();
    // The first row of the untracked table comes behind the context that the trigger wrote for it.
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (1, 2000));
}
