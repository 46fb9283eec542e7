//! Nobody becomes a superuser by what the extension, the recorder or an event trigger does as one: whatever others had in
//! the schema beforehand, were given there, or hang on the tables. Each statement that is refused says what ends that.
use postgres::Client;

use crate::Test;
use crate::recorder::{recording, wait_until_recording};
use crate::server::{Server, run, sqlstate, wait_until};

pub const TESTS: &[Test] = &[
    ("what_others_put_into_the_schema_beforehand_is_refused_and_never_run", planted),
    ("who_may_create_in_the_schema_is_refused_before_and_after", grantee),
    ("a_table_made_beforehand_keeps_its_trigger_when_it_is_given_to_a_superuser_and_is_refused", given),
    ("what_others_hang_on_the_tables_of_an_earlier_installation_is_refused", hung),
    ("default_privileges_give_nobody_anything", default_privileges),
    ("without_default_rights_everything_works_as_with_them", hardened),
    ("a_right_to_a_table_that_was_granted_later_has_the_recorder_wait", granted_later),
    ("a_trigger_on_the_recorders_state_is_not_run_by_the_worker_nor_by_stop", recorder_state),
    ("a_trigger_on_a_table_of_the_extension_is_not_run_by_ddl_or_track_all", extension_tables),
    ("what_an_owner_for_a_while_left_behind_is_not_run", left_behind),
    ("a_schema_that_was_given_away_later_is_refused_until_it_is_back", given_away),
    ("functions_made_after_the_extension_was_dropped_are_refused", dropped),
    ("a_partition_made_later_may_be_read_by_those_who_may_read_the_whole", partitions_granted),
    ("changes_diff_shows_what_the_reader_may_read_of_bemi_changes", changes_diff),
    ("no_overload_fits_better_than_a_function_of_the_extension", overloads),
    ("a_slot_of_another_keeps_nobody_from_dropping_the_extension", foreign_slot),
];

/// A database of a role of the same name, who is no superuser; and a superuser's and his connection to it.
fn owned_database(server: &Server, name: &str) -> (Client, Client) {
    let mut client = server.connect("postgres");
    run(&mut client, &format!("CREATE ROLE {name} LOGIN; CREATE DATABASE {name} OWNER {name}"));
    let mut client = server.connect(name);
    run(&mut client, &format!("GRANT CREATE ON SCHEMA public TO {name}"));
    let mut owner = server.connect_with(name, name, "");
    owner.batch_execute(&payload(name)).unwrap();
    (client, owner)
}

/// What makes a role superuser wherever a superuser runs it, as a function of each form. Expressions call immutable ones only.
fn payload(role: &str) -> String {
    let function = |arguments: &str, result: &str, volatility: &str, value: &str| {
        format!(
            "CREATE FUNCTION public.pwn{arguments} RETURNS {result} LANGUAGE plpgsql {volatility} AS
             $$BEGIN PERFORM public.take(); RETURN {value}; END$$;"
        )
    };
    format!(
        "CREATE FUNCTION public.take() RETURNS void LANGUAGE plpgsql AS $$BEGIN
           IF (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)
             AND current_setting('takeover.is_off', true) IS DISTINCT FROM 'on'
           THEN EXECUTE 'ALTER ROLE {role} SUPERUSER'; END IF; END$$; {} {} {} {}
         CREATE DOMAIN public.pwn_text AS text CHECK (public.pwn_if(VALUE))",
        function("()", "trigger", "VOLATILE", "NEW"),
        function("_of(text)", "text", "IMMUTABLE", "$1"),
        function("_if(text)", "boolean", "IMMUTABLE", "true"),
        function("_name(name, name)", "boolean", "IMMUTABLE", "true"),
    )
}

/// Runs a statement; wherever it is refused, what the hint says, and the statement again. Gives what was said.
fn fixed(client: &mut Client, statement: &str) -> Vec<String> {
    let mut said = Vec::new();
    while let Err(error) = client.batch_execute(statement) {
        let error = error.as_db_error().unwrap_or_else(|| panic!("{error}: {statement}"));
        assert_eq!(error.code().code(), "42501", "{error:?}: {statement}");
        let hint = error.hint().unwrap_or_else(|| panic!("{error:?}: {statement}")).to_owned();
        said.push(error.message().to_owned());
        assert!(said.len() < 20, "{said:?}");
        client.batch_execute(&hint).unwrap_or_else(|error| panic!("{error:?}: {hint}"));
    }
    said
}

fn is_superuser(client: &mut Client, role: &str) -> bool {
    client.query_one("SELECT rolsuper FROM pg_roles WHERE rolname = $1", &[&role]).unwrap().get(0)
}

/// Tracks, records and ends that.
fn goes_on(client: &mut Client) {
    run(
        client,
        "CREATE TABLE IF NOT EXISTS public.goes_on (id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY); SELECT bemi.track('public.goes_on')",
    );
    assert_eq!(fixed(client, "SELECT bemi.start()"), [""; 0]);
    run(client, "INSERT INTO public.goes_on DEFAULT VALUES; SELECT bemi.sync()");
    let count = "SELECT count(*) FROM bemi.changes WHERE \"table\" = 'goes_on'";
    assert!(client.query_one(count, &[]).unwrap().get::<_, i64>(0) > 0);
    client.batch_execute("SELECT bemi.stop(drop_slot => true)").unwrap();
}

/// Every kind of object that a role may make in a schema of its own, and what the refusal calls it.
const PLANTED: &[(&str, &str)] = &[
    (
        "CREATE FUNCTION bemi.keep_partitions(text) RETURNS void LANGUAGE plpgsql AS $$BEGIN PERFORM public.pwn_of(''); END$$",
        "function bemi.keep_partitions",
    ),
    (
        "CREATE FUNCTION bemi.table_rules(oid, text) RETURNS text[] LANGUAGE plpgsql AS $$BEGIN RETURN ARRAY[public.pwn_of('')]; END$$",
        "function bemi.table_rules",
    ),
    (
        "CREATE FUNCTION bemi.unsafe_objects() RETURNS TABLE (detail text, fix text) LANGUAGE sql AS $$SELECT public.pwn_of(''), '' WHERE false$$",
        "function bemi.unsafe_objects",
    ),
    (
        "CREATE FUNCTION bemi.format(text, VARIADIC anyarray) RETURNS text LANGUAGE sql AS $$SELECT public.pwn_of('')$$",
        "function bemi.format",
    ),
    (
        "CREATE PROCEDURE bemi.start(int) LANGUAGE plpgsql AS $$BEGIN PERFORM public.pwn_of(''); END$$",
        "procedure bemi.start",
    ),
    ("CREATE AGGREGATE bemi.track(text) (SFUNC = textcat, STYPE = text)", "aggregate bemi.track"),
    ("CREATE AGGREGATE bemi.total(*) (SFUNC = int8inc, STYPE = int8, INITCOND = '0')", "aggregate bemi.total"),
    ("CREATE OPERATOR bemi.= (LEFTARG = name, RIGHTARG = name, FUNCTION = public.pwn_name)", "operator bemi.="),
    ("CREATE DOMAIN bemi.undo AS public.pwn_text", "type bemi.undo"),
    ("CREATE TYPE bemi.reverted AS ENUM ('a')", "type bemi.reverted"),
    ("CREATE TYPE bemi.attempt AS (a public.pwn_text)", "type bemi.attempt"),
    ("CREATE TABLE bemi.tracked_schemas (schema public.pwn_text)", "table bemi.tracked_schemas"),
    (
        "CREATE TABLE bemi.table_versions (a int); CREATE TRIGGER pwn BEFORE INSERT ON bemi.table_versions FOR EACH ROW EXECUTE FUNCTION public.pwn()",
        "table bemi.table_versions",
    ),
    ("CREATE VIEW bemi.tracked AS SELECT public.pwn_of('')", "view bemi.tracked"),
    ("CREATE MATERIALIZED VIEW bemi.status AS SELECT 1", "materialized view bemi.status"),
    ("CREATE SEQUENCE bemi.changes_id", "sequence bemi.changes_id"),
    ("CREATE COLLATION bemi.c FROM pg_catalog.\"C\"", "collation bemi.c"),
    ("CREATE TEXT SEARCH CONFIGURATION bemi.s (COPY = pg_catalog.simple)", "text search configuration bemi.s"),
    ("CREATE TEXT SEARCH DICTIONARY bemi.d (TEMPLATE = pg_catalog.simple)", "text search dictionary bemi.d"),
    ("CREATE CONVERSION bemi.v FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8", "conversion bemi.v"),
    (
        "CREATE TABLE public.s (a int, b int); CREATE STATISTICS bemi.st ON a, b FROM public.s",
        "statistics object bemi.st",
    ),
    (
        "CREATE TABLE bemi.recorder (is_one boolean PRIMARY KEY, slot name); CREATE TRIGGER pwn BEFORE INSERT OR UPDATE ON bemi.recorder FOR EACH ROW EXECUTE FUNCTION public.pwn()",
        "table bemi.recorder",
    ),
];

fn planted(server: &Server) {
    let (mut client, mut owner) = owned_database(server, "takeover_planted");
    for (statement, what) in PLANTED {
        owner.batch_execute("CREATE SCHEMA bemi; GRANT ALL ON SCHEMA bemi TO PUBLIC").unwrap();
        owner.batch_execute(statement).unwrap_or_else(|error| panic!("{error:?}: {statement}"));
        let said = fixed(&mut client, "CREATE EXTENSION bemi");
        assert_eq!(said[0], "the schema bemi belongs to the role takeover_planted, who is no superuser");
        assert_eq!(said[1], "the role PUBLIC may create objects in the schema bemi");
        let refused = said.iter().any(|said| said.contains(what) && said.contains("takeover_planted"));
        assert!(refused || said.iter().any(|said| said.contains("recorder")), "{statement}: {said:?}");
        assert_eq!(
            sqlstate(owner.batch_execute("CREATE FUNCTION bemi.f() RETURNS int LANGUAGE sql AS 'SELECT 1'")),
            "42501"
        );
        // A table of that name is kept, and used if it has the form that it should have.
        if what.ends_with("recorder") {
            client.batch_execute("DROP TABLE bemi.recorder").unwrap();
        }
        client.batch_execute("SELECT bemi.track_all(); SELECT * FROM bemi.doctor()").unwrap();
        if what.contains("keep_partitions") || what.contains("recorder") {
            goes_on(&mut client);
        }
        assert!(!is_superuser(&mut client, "takeover_planted"), "{statement}");
        run(&mut client, "DROP EXTENSION bemi CASCADE; DROP SCHEMA bemi CASCADE; DROP TABLE IF EXISTS public.s");
    }
    run(&mut client, "CREATE EXTENSION bemi");
    goes_on(&mut client);
    assert!(!is_superuser(&mut client, "takeover_planted"));
}

fn grantee(server: &Server) {
    let (mut client, mut owner) = owned_database(server, "takeover_grantee");
    run(
        &mut client,
        "CREATE SCHEMA bemi; GRANT ALL ON SCHEMA bemi TO takeover_grantee WITH GRANT OPTION; CREATE ROLE takeover_third",
    );
    owner.batch_execute("GRANT CREATE ON SCHEMA bemi TO takeover_third").unwrap();
    let said = fixed(&mut client, "CREATE EXTENSION bemi");
    assert!(said.iter().all(|said| said.ends_with("may create objects in the schema bemi")), "{said:?}");
    goes_on(&mut client);
    // Whatever his function is called, and whoever owns it at the end.
    for name in ["keep_partitions(text)", "has_strays(text)", "anything(int)"] {
        client.batch_execute("GRANT CREATE, USAGE ON SCHEMA bemi TO takeover_grantee").unwrap();
        owner
            .batch_execute(&format!(
                "CREATE FUNCTION bemi.{name} RETURNS text LANGUAGE sql AS $$SELECT public.pwn_of('')$$"
            ))
            .unwrap();
        assert_eq!(sqlstate(client.batch_execute("SELECT bemi.start()")), "42501");
        client.batch_execute("REVOKE CREATE ON SCHEMA bemi FROM takeover_grantee").unwrap();
        assert_eq!(sqlstate(client.batch_execute("SELECT bemi.start()")), "42501");
        if name != "anything(int)" {
            client.batch_execute(&format!("ALTER FUNCTION bemi.{name} OWNER TO postgres")).unwrap();
        }
        let said = fixed(&mut client, "SELECT bemi.start()");
        assert!(said.len() == 1 && said[0].contains(name.split('(').next().unwrap()), "{name}: {said:?}");
        client.batch_execute("SELECT bemi.stop(drop_slot => true)").unwrap();
    }
    goes_on(&mut client);
    assert!(!is_superuser(&mut client, "takeover_grantee"));
    run(&mut client, "DROP OWNED BY takeover_grantee, takeover_third CASCADE; DROP ROLE takeover_third");
}

fn given(server: &Server) {
    let (mut client, mut owner) = owned_database(server, "takeover_given");
    owner
        .batch_execute(
            "CREATE SCHEMA bemi; CREATE TABLE bemi.changes (id uuid, committed_at timestamptz); CREATE TABLE bemi.recorder (is_one boolean PRIMARY KEY, slot name);
             CREATE TRIGGER pwn BEFORE INSERT ON bemi.changes FOR EACH ROW EXECUTE FUNCTION public.pwn();
             CREATE TRIGGER pwn BEFORE INSERT ON bemi.recorder FOR EACH STATEMENT EXECUTE FUNCTION public.pwn()",
        )
        .unwrap();
    run(
        &mut client,
        "ALTER SCHEMA bemi OWNER TO postgres; ALTER TABLE bemi.changes OWNER TO postgres; ALTER TABLE bemi.recorder OWNER TO postgres",
    );
    let mut said = fixed(&mut client, "CREATE EXTENSION bemi");
    said.sort();
    let expected = ["changes", "recorder"].map(|table| {
        format!("the trigger pwn on bemi.{table} calls public.pwn(), which belongs to the role takeover_given, who is no superuser")
    });
    assert_eq!(said, expected);
    assert!(!is_superuser(&mut client, "takeover_given"));
    run(&mut client, "DROP TABLE bemi.changes; DROP TABLE bemi.recorder");
    goes_on(&mut client);
}

/// What somebody may have left on the tables, and what the refusal names.
const HUNG: &[(&str, &str)] = &[
    ("CREATE RULE pwn AS ON UPDATE TO bemi.recorder DO ALSO SELECT public.pwn_of('')", "bemi.recorder has a rule: pwn"),
    ("CREATE RULE pwn AS ON INSERT TO bemi.changes_default DO ALSO SELECT 1", "bemi.changes_default has a rule: pwn"),
    ("CREATE POLICY pwn ON bemi.changes USING (public.pwn_if(database))", "policy pwn on bemi.changes"),
    ("ALTER TABLE bemi.recorder ALTER state SET DEFAULT public.pwn_of('')", "default value for bemi.recorder.state"),
    (
        "ALTER TABLE bemi.changes ALTER omitted SET DEFAULT to_jsonb(public.pwn_of(''))",
        "default value for bemi.changes.omitted",
    ),
    (
        "ALTER TABLE bemi.changes ADD CHECK (public.pwn_if(database)) NOT VALID",
        "constraint changes_database_check on bemi.changes",
    ),
    (
        "ALTER TABLE bemi.changes_default ADD CONSTRAINT pwn CHECK (public.pwn_if(database)) NOT VALID",
        "constraint pwn on bemi.changes_default",
    ),
    ("CREATE INDEX pwn ON bemi.changes (public.pwn_of(database))", "index bemi.pwn"),
    ("CREATE INDEX pwn ON bemi.changes_default (id) WHERE public.pwn_if(database)", "index bemi.pwn"),
    (
        "ALTER TABLE bemi.recorder ADD pwn text GENERATED ALWAYS AS (public.pwn_of(state)) STORED",
        "default value for bemi.recorder.pwn",
    ),
    ("ALTER TABLE bemi.recorder ALTER state TYPE public.pwn_text", "table column bemi.recorder.state"),
    ("ALTER TABLE bemi.recorder ADD pwn public.pwn_text[]", "table column bemi.recorder.pwn"),
    ("CREATE STATISTICS bemi.pwn ON (public.pwn_of(state)) FROM bemi.recorder", "statistics object bemi.pwn"),
    (
        "CREATE TRIGGER pwn BEFORE UPDATE ON bemi.recorder FOR EACH STATEMENT EXECUTE FUNCTION public.pwn()",
        "trigger pwn on bemi.recorder",
    ),
    (
        "CREATE TRIGGER pwn AFTER INSERT ON bemi.changes FOR EACH ROW EXECUTE FUNCTION public.pwn()",
        "trigger pwn on bemi.changes",
    ),
    (
        "CREATE TRIGGER pwn AFTER INSERT ON bemi.changes_default FOR EACH ROW WHEN (public.pwn_if(NEW.database)) EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "trigger pwn on bemi.changes_default",
    ),
    ("ALTER TABLE bemi.changes_diff OWNER TO takeover_hung", "view bemi.changes_diff"),
    ("ALTER TABLE bemi.changes_default OWNER TO takeover_hung", "table bemi.changes_default"),
    ("GRANT TRIGGER ON bemi.changes_default TO takeover_hung", "takeover_hung has TRIGGER on bemi.changes_default"),
    ("GRANT UPDATE (slot) ON bemi.recorder TO PUBLIC", "PUBLIC has UPDATE on bemi.recorder"),
    ("GRANT ALL ON bemi.changes TO takeover_hung", "takeover_hung has DELETE, INSERT"),
];

/// Has something made that runs over rows that are there, which whoever makes it is to survive.
fn hang(client: &mut Client, statement: &str) {
    client.batch_execute("SET takeover.is_off = on").unwrap();
    client.batch_execute(statement).unwrap_or_else(|error| panic!("{error:?}: {statement}"));
    client.batch_execute("RESET takeover.is_off").unwrap();
}

fn hung(server: &Server) {
    let (mut client, _owner) = owned_database(server, "takeover_hung");
    run(&mut client, "CREATE EXTENSION bemi; ALTER DATABASE takeover_hung SET plan_cache_mode = force_custom_plan");
    goes_on(&mut client);
    // With the extension, and on what it left.
    for (statement, what) in HUNG {
        hang(&mut client, statement);
        let rows = client.query("SELECT detail FROM bemi.unsafe()", &[]).unwrap();
        assert!(rows.first().is_some_and(|row| row.get::<_, &str>(0).contains(what)), "{statement}: {rows:?}");
        let said = fixed(&mut client, "SELECT bemi.start()");
        assert!(said.len() == 1 && said[0].contains(what), "{statement}: {said:?}");
        client.batch_execute("SELECT bemi.stop(drop_slot => true)").unwrap();
    }
    for (statement, what) in HUNG {
        client.batch_execute("DROP EXTENSION bemi CASCADE").unwrap();
        hang(&mut client, statement);
        let said = fixed(&mut client, "CREATE EXTENSION bemi");
        assert!(said.len() == 1 && said[0].contains(what), "{statement}: {said:?}");
    }
    goes_on(&mut client);
    assert!(!is_superuser(&mut client, "takeover_hung"));
}

fn default_privileges(server: &Server) {
    let (mut client, mut owner) = owned_database(server, "takeover_defaults");
    run(
        &mut client,
        "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO takeover_defaults WITH GRANT OPTION; ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO takeover_defaults;
         ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO takeover_defaults, PUBLIC; ALTER DEFAULT PRIVILEGES GRANT ALL ON TYPES TO takeover_defaults;
         ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO takeover_defaults",
    );
    // In a transaction within a transaction too.
    run(
        &mut client,
        "BEGIN; SAVEPOINT s; CREATE EXTENSION bemi; RELEASE s; COMMIT; SELECT bemi.track_all(); SELECT bemi.start(); SELECT bemi.add_partition('2001-01-01')",
    );
    let rights = "SELECT DISTINCT what FROM (
            SELECT c.relname || ': ' || a.privilege_type AS what, a.grantee FROM pg_class c, aclexplode(c.relacl) a WHERE c.relnamespace = 'bemi'::regnamespace
            UNION ALL SELECT p.proname, a.grantee FROM pg_proc p, aclexplode(p.proacl) a WHERE p.pronamespace = 'bemi'::regnamespace
            UNION ALL SELECT 'schema ' || a.privilege_type, a.grantee FROM pg_namespace n, aclexplode(n.nspacl) a WHERE n.nspname = 'bemi' AND NOT (a.grantee = 0 AND a.privilege_type = 'USAGE')
            UNION ALL SELECT t.typname, a.grantee FROM pg_type t, aclexplode(t.typacl) a WHERE t.typnamespace = 'bemi'::regnamespace AND t.typtype = 'c'
              AND EXISTS (SELECT FROM pg_class c WHERE c.oid = t.typrelid AND c.relkind = 'c')
        ) r WHERE grantee = 'takeover_defaults'::regrole OR grantee = 0 AND what LIKE 'schema%'";
    let found: Vec<String> = client.query(rights, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(found, [""; 0]);
    for table in ["changes", "changes_default", "changes_2001_01", "recorder", "tracked_schemas", "table_versions"] {
        let trigger = format!(
            "CREATE TRIGGER pwn BEFORE INSERT OR UPDATE ON bemi.{table} FOR EACH STATEMENT EXECUTE FUNCTION public.pwn()"
        );
        assert_eq!(sqlstate(owner.batch_execute(&trigger)), "42501", "{table}");
    }
    for call in ["bemi.stop()", "bemi.make_changes()", "bemi.own_alone('bemi.changes')"] {
        assert_eq!(sqlstate(owner.batch_execute(&format!("SELECT {call}"))), "42501", "{call}");
    }
    client.batch_execute("SELECT bemi.stop(drop_slot => true)").unwrap();
    goes_on(&mut client);
    assert!(!is_superuser(&mut client, "takeover_defaults"));
}

fn hardened(server: &Server) {
    let (mut client, mut app) = owned_database(server, "takeover_hardened");
    run(
        &mut client,
        "ALTER DEFAULT PRIVILEGES REVOKE ALL ON FUNCTIONS FROM PUBLIC; ALTER DEFAULT PRIVILEGES REVOKE ALL ON TYPES FROM PUBLIC;
         ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM postgres; CREATE EXTENSION bemi; SELECT bemi.track_all(); SELECT bemi.start()",
    );
    app.batch_execute(
        "SELECT bemi.set_context('{\"who\": \"app\"}'::text); CREATE TABLE mine (id int PRIMARY KEY, v text, password text);
         SELECT bemi.track('mine', mask_columns => '{password}'); ALTER TABLE mine RENAME password TO secret; INSERT INTO mine VALUES (1, 'v', 'hidden')",
    )
    .unwrap();
    app.batch_execute("SELECT bemi.sync(); SELECT * FROM bemi.tracked; SELECT * FROM bemi.doctor()").unwrap();
    let row = client.query_one("SELECT after->>'secret', context->>'who' FROM bemi.changes", &[]).unwrap();
    assert_eq!((row.get::<_, &str>(0), row.get::<_, &str>(1)), ("[masked]", "app"));
    // Reading the past and undoing it, with the rights of the reader.
    client.batch_execute("GRANT SELECT ON bemi.changes TO takeover_hardened").unwrap();
    run(
        &mut app,
        "SELECT * FROM bemi.as_of(NULL::mine, now()); SELECT * FROM bemi.history(NULL::mine, '1'); SELECT bemi.revert_sql(relation => 'mine');
         SELECT * FROM bemi.revert(relation => 'mine'); SELECT bemi.untrack_all(); SELECT bemi.clear_context(); SELECT bemi.diff('{}', '{}')",
    );
    assert_eq!(app.query("SELECT * FROM mine", &[]).unwrap().len(), 0);
    client.batch_execute("SELECT bemi.stop(drop_slot => true)").unwrap();
}

/// The recorder waits, the status names it and has the statement, after which it goes on.
fn waits_and_goes_on(client: &mut Client, what: &str) {
    client.batch_execute("INSERT INTO t (v) VALUES ('more')").unwrap();
    let mut fix = None;
    wait_until("the recorder to wait", || {
        let row = client.query_one("SELECT state, last_error, fix FROM bemi.status", &[]).unwrap();
        fix = row.get::<_, Option<String>>(2);
        row.get::<_, &str>(0) == "waiting" && row.get::<_, Option<&str>>(1).is_some_and(|error| error.contains(what))
    });
    let doctor =
        client.query_one("SELECT ok, detail, fix FROM bemi.doctor() WHERE \"check\" = 'recorder'", &[]).unwrap();
    assert!(!doctor.get::<_, bool>(0) && doctor.get::<_, &str>(1).contains(what), "{doctor:?}");
    assert_eq!(doctor.get::<_, Option<String>>(2), fix);
    client.batch_execute(&fix.unwrap()).unwrap();
}

fn granted_later(server: &Server) {
    let (mut superuser, mut owner) = owned_database(server, "takeover_later");
    run(
        &mut superuser,
        "CREATE EXTENSION bemi; CREATE TABLE t (id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY, v text); SELECT bemi.track('t'); SELECT bemi.start()",
    );
    wait_until_recording(&mut superuser);
    for table in ["bemi.changes", "bemi.changes_default", "bemi.recorder"] {
        run(&mut superuser, &format!("GRANT TRIGGER, SELECT ON {table} TO takeover_later"));
        superuser.batch_execute("GRANT USAGE ON SCHEMA bemi TO takeover_later").unwrap();
        owner
            .batch_execute(&format!(
                "CREATE TRIGGER pwn BEFORE INSERT OR UPDATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION public.pwn()"
            ))
            .unwrap();
        waits_and_goes_on(&mut superuser, &format!("the role takeover_later has TRIGGER on {table}"));
        waits_and_goes_on(&mut superuser, &format!("the trigger pwn on {table} calls public.pwn()"));
        superuser.batch_execute("SELECT bemi.sync()").unwrap();
        wait_until_recording(&mut superuser);
    }
    assert!(!is_superuser(&mut superuser, "takeover_later"));
    let changes = superuser.query("SELECT * FROM bemi.changes", &[]).unwrap();
    assert_eq!(changes.len(), 6);
    superuser.batch_execute("SELECT bemi.stop(drop_slot => true)").unwrap();
}

fn recorder_state(server: &Server) {
    let (mut client, mut owner) = owned_database(server, "takeover_state");
    run(
        &mut client,
        "CREATE EXTENSION bemi; CREATE TABLE t (id int PRIMARY KEY); SELECT bemi.track('t'); SELECT bemi.start(); CREATE ROLE takeover_operator LOGIN;
         GRANT EXECUTE ON FUNCTION bemi.start(boolean), bemi.stop(boolean) TO takeover_operator",
    );
    wait_until_recording(&mut client);
    client.batch_execute("GRANT ALL ON ALL TABLES IN SCHEMA bemi TO takeover_state").unwrap();
    owner.batch_execute("CREATE TRIGGER pwn BEFORE INSERT OR UPDATE ON bemi.recorder FOR EACH STATEMENT EXECUTE FUNCTION public.pwn()").unwrap();
    // What has the worker write its state without recording anything.
    client.batch_execute("SELECT pg_reload_conf()").unwrap();
    let pid: i32 = client.query_one("SELECT bemi.recorder_pid()", &[]).unwrap().get(0);
    client.batch_execute("SELECT pg_terminate_backend(bemi.recorder_pid())").unwrap();
    wait_until("another worker", || {
        client
            .query_one("SELECT bemi.recorder_pid()", &[])
            .unwrap()
            .get::<_, Option<i32>>(0)
            .is_some_and(|new| new != pid)
    });
    let mut operator = server.connect_with("takeover_state", "takeover_operator", "");
    for call in ["SELECT bemi.stop()", "SELECT bemi.start()", "SELECT bemi.stop(drop_slot => true)"] {
        assert_eq!(sqlstate(operator.batch_execute(call)), "42501", "{call}");
    }
    wait_until("the status", || {
        let row = client.query_one("SELECT state, detail FROM bemi.status", &[]).unwrap();
        row.get::<_, &str>(0) == "waiting" && row.get::<_, &str>(1).contains("takeover_state")
    });
    assert!(!is_superuser(&mut client, "takeover_state"));
    let said = fixed(&mut client, "SELECT bemi.start()");
    assert!(said.len() > 5, "{said:?}");
    run(&mut client, "INSERT INTO t VALUES (1); SELECT bemi.sync(); SELECT bemi.stop(drop_slot => true)");
    assert!(!is_superuser(&mut client, "takeover_state"));
    run(&mut client, "DROP OWNED BY takeover_operator; DROP ROLE takeover_operator");
}

fn extension_tables(server: &Server) {
    let (mut client, mut owner) = owned_database(server, "takeover_tables");
    run(
        &mut client,
        "CREATE EXTENSION bemi; SELECT bemi.track_all(); GRANT ALL ON bemi.table_versions, bemi.tracked_schemas TO takeover_tables",
    );
    owner
        .batch_execute(
            "CREATE TRIGGER pwn BEFORE INSERT OR UPDATE OR DELETE ON bemi.table_versions FOR EACH STATEMENT EXECUTE FUNCTION public.pwn();
             CREATE TRIGGER pwn BEFORE INSERT OR UPDATE OR DELETE ON bemi.tracked_schemas FOR EACH STATEMENT EXECUTE FUNCTION public.pwn();
             CREATE TABLE mine (id int PRIMARY KEY); ALTER TABLE mine ADD v text; DROP TABLE mine",
        )
        .unwrap();
    assert!(!is_superuser(&mut client, "takeover_tables"));
    run(&mut client, "CREATE SCHEMA more");
    let said = fixed(&mut client, "SELECT bemi.track_all('{public,more}')");
    assert_eq!(said.len(), 2, "{said:?}");
    let said = fixed(&mut client, "SELECT bemi.require_safe()");
    assert_eq!(said.len(), 2, "{said:?}");
    run(
        &mut client,
        "ALTER SCHEMA more RENAME TO less; CREATE TABLE t (id int PRIMARY KEY); SELECT bemi.untrack_all()",
    );
    assert!(!is_superuser(&mut client, "takeover_tables"));
    goes_on(&mut client);
}

fn left_behind(server: &Server) {
    let (mut client, mut owner) = owned_database(server, "takeover_left");
    run(
        &mut client,
        "CREATE EXTENSION bemi; CREATE TABLE t (id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY, v text); SELECT bemi.track('t'); SELECT bemi.start()",
    );
    for (table, code, what) in [
        ("bemi.changes", "CREATE RULE pwn AS ON INSERT TO bemi.changes DO ALSO SELECT public.pwn_of('')", "rule: pwn"),
        (
            "bemi.changes_default",
            "ALTER TABLE bemi.changes_default ADD CONSTRAINT pwn CHECK (public.pwn_if(database)) NOT VALID",
            "constraint pwn",
        ),
        (
            "bemi.recorder",
            "ALTER TABLE bemi.recorder ADD CONSTRAINT pwn CHECK (public.pwn_if(state)) NOT VALID",
            "constraint pwn",
        ),
    ] {
        wait_until_recording(&mut client);
        run(&mut client, &format!("ALTER TABLE {table} OWNER TO takeover_left"));
        owner.batch_execute(code).unwrap();
        waits_and_goes_on(&mut client, &format!("{table} belongs to the role takeover_left"));
        client.batch_execute("INSERT INTO t (v) VALUES ('more')").unwrap();
        let said = fixed(&mut client, "SELECT bemi.require_safe()");
        assert!(said.len() == 1 && said[0].contains(what), "{said:?}");
        client.batch_execute("SELECT bemi.sync()").unwrap();
        assert!(!is_superuser(&mut client, "takeover_left"), "{code}");
    }
    assert_eq!(client.query("SELECT * FROM bemi.changes", &[]).unwrap().len(), 6);
    client.batch_execute("SELECT bemi.stop(drop_slot => true)").unwrap();
}

fn given_away(server: &Server) {
    let (mut client, mut owner) = owned_database(server, "takeover_away");
    run(&mut client, "CREATE EXTENSION bemi");
    goes_on(&mut client);
    client.batch_execute("ALTER SCHEMA bemi OWNER TO takeover_away").unwrap();
    owner
        .batch_execute("CREATE FUNCTION bemi.keep_partitions(text) RETURNS void LANGUAGE plpgsql AS $$BEGIN PERFORM public.pwn_of(''); END$$")
        .unwrap();
    let detail: String = owner.query("SELECT detail FROM bemi.unsafe()", &[]).unwrap()[0].get(0);
    assert_eq!(detail, "the schema bemi belongs to the role takeover_away, who is no superuser");
    let said = fixed(&mut client, "SELECT bemi.start()");
    assert!(said.len() == 2 && said[0] == detail && said[1].contains("keep_partitions"), "{said:?}");
    client.batch_execute("SELECT bemi.stop(drop_slot => true)").unwrap();
    goes_on(&mut client);
    assert!(!is_superuser(&mut client, "takeover_away"));
}

fn dropped(server: &Server) {
    let (mut client, mut owner) = owned_database(server, "takeover_dropped");
    run(&mut client, "CREATE EXTENSION bemi");
    goes_on(&mut client);
    client.batch_execute("DROP EXTENSION bemi CASCADE").unwrap();
    let function = "CREATE FUNCTION bemi.keep_partitions(text) RETURNS void LANGUAGE plpgsql AS $$BEGIN PERFORM public.pwn_of(''); END$$";
    // The schema is a superuser's still.
    assert_eq!(sqlstate(owner.batch_execute(function)), "42501");
    client.batch_execute("GRANT CREATE ON SCHEMA bemi TO takeover_dropped").unwrap();
    owner.batch_execute(function).unwrap();
    let said = fixed(&mut client, "CREATE EXTENSION bemi");
    assert!(said.len() == 2 && said[1].contains("keep_partitions"), "{said:?}");
    goes_on(&mut client);
    assert!(!is_superuser(&mut client, "takeover_dropped"));
}

fn partitions_granted(server: &Server) {
    let (mut client, mut owner) = owned_database(server, "takeover_partitions");
    run(
        &mut client,
        "CREATE EXTENSION bemi; SELECT bemi.start(); SELECT bemi.sync(); CREATE ROLE takeover_auditor LOGIN",
    );
    run(
        &mut client,
        "GRANT SELECT ON ALL TABLES IN SCHEMA bemi TO takeover_partitions; GRANT SELECT (id, committed_at) ON bemi.changes TO takeover_auditor;
         ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO takeover_auditor; SELECT bemi.add_partition('2001-01-01')",
    );
    let mut dump = server.program("pg_dump", "takeover_partitions");
    server.check(dump.env("PGUSER", "takeover_partitions").args(["-f", "/dev/null"]));
    assert_eq!(owner.query("SELECT * FROM bemi.changes_2001_01", &[]).unwrap().len(), 0);
    let mut auditor = server.connect_with("takeover_partitions", "takeover_auditor", "");
    auditor.batch_execute("SELECT id FROM bemi.changes_2001_01").unwrap();
    for statement in
        ["SELECT * FROM bemi.changes_2001_01", "DELETE FROM bemi.changes_2001_01", "TRUNCATE bemi.changes_2001_01"]
    {
        assert_eq!(sqlstate(auditor.batch_execute(statement)), "42501", "{statement}");
    }
    // With policies on the whole, nobody reads past them.
    run(
        &mut client,
        "ALTER TABLE bemi.changes ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON bemi.changes FOR SELECT USING (database = current_user); SELECT bemi.add_partition('2001-02-01')",
    );
    client
        .batch_execute(
            "INSERT INTO bemi.changes (id, database, schema, \"table\", operation, before, after, context, committed_at, queued_at, created_at, transaction_id, position, commit_position, sequence)
             SELECT gen_random_uuid(), d, '', '', 'GAP', '{}', '{}', '{}', t, t, t, 1, 1, '0/1', 1 FROM unnest('{2001-01-15,2001-02-15}'::timestamptz[]) t, unnest('{takeover_partitions,other}'::text[]) d",
        )
        .unwrap();
    assert_eq!(owner.query("SELECT * FROM bemi.changes", &[]).unwrap().len(), 2);
    assert_eq!(owner.query("SELECT * FROM bemi.changes_2001_02", &[]).unwrap().len(), 0);
    client.batch_execute("SELECT bemi.keep_partitions(NULL)").unwrap();
    assert_eq!(owner.query("SELECT * FROM bemi.changes_2001_01", &[]).unwrap().len(), 0);
    run(&mut client, "SELECT bemi.stop(drop_slot => true); DROP OWNED BY takeover_auditor; DROP ROLE takeover_auditor");
}

fn changes_diff(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "takeover_diff");
    client
        .batch_execute("INSERT INTO t (v) VALUES ('a'), ('b'); SELECT bemi.sync(); CREATE ROLE takeover_reader LOGIN")
        .unwrap();
    client.batch_execute("SELECT bemi.sync()").unwrap();
    let mut reader = server.connect_with("takeover_diff", "takeover_reader", "");
    let count = |reader: &mut Client| reader.query("SELECT * FROM bemi.changes_diff", &[]).map(|rows| rows.len());
    // PostgreSQL 14 reads a view's tables as its owner: it shows nothing.
    let nothing = |found: Result<usize, postgres::Error>| {
        if server.major == 14 { found.unwrap() == 0 } else { sqlstate(found) == "42501" }
    };
    assert!(nothing(count(&mut reader)));
    // Not by a condition that looks at the rows first, either.
    reader
        .batch_execute("CREATE FUNCTION pg_temp.peek(jsonb) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS $$BEGIN RAISE EXCEPTION 'seen: %', $1 USING ERRCODE = 'P0099'; END$$")
        .unwrap();
    let peek = reader.query("SELECT * FROM bemi.changes_diff WHERE pg_temp.peek(context)", &[]);
    assert!(nothing(peek.map(|rows| rows.len())));
    client.batch_execute("GRANT SELECT ON bemi.changes TO takeover_reader").unwrap();
    assert_eq!(count(&mut reader).unwrap(), 2);
    client
        .batch_execute("ALTER TABLE bemi.changes ENABLE ROW LEVEL SECURITY; CREATE POLICY one ON bemi.changes FOR SELECT USING (after->>'v' = 'a')")
        .unwrap();
    assert_eq!(reader.query("SELECT * FROM bemi.changes", &[]).unwrap().len(), 1);
    assert_eq!(count(&mut reader).unwrap(), if server.major == 14 { 0 } else { 1 });
    assert_eq!(count(&mut client).unwrap(), 2);
    run(&mut client, "REVOKE ALL ON bemi.changes FROM takeover_reader");
    assert!(nothing(count(&mut reader)));
    client.batch_execute("DROP OWNED BY takeover_reader; DROP ROLE takeover_reader").unwrap();
}

fn foreign_slot(server: &Server) {
    let database = server.database("takeover_slot");
    let mut client = database.connect();
    client.batch_execute("CREATE ROLE takeover_replicator LOGIN REPLICATION").unwrap();
    let mut other = server.connect_with("takeover_slot", "takeover_replicator", "");
    let name: String = client
        .query_one("SELECT format('bemi_recorder_%s_x', oid) FROM pg_database WHERE datname = current_database()", &[])
        .unwrap()
        .get(0);
    let make = format!("SELECT pg_create_logical_replication_slot('{name}', 'test_decoding')");
    other.batch_execute(&make).unwrap();
    client.batch_execute("DROP EXTENSION bemi").unwrap();
    run(&mut client, "CREATE EXTENSION bemi; SELECT bemi.start()");
    for statement in ["DROP EXTENSION bemi", "DROP SCHEMA bemi CASCADE"] {
        assert_eq!(sqlstate(client.batch_execute(statement)), "55006");
    }
    // Without a slot of the recorder's, one of somebody else does not count.
    run(&mut client, "SELECT bemi.stop(drop_slot => true); DROP EXTENSION bemi");
    run(&mut client, &format!("SELECT pg_drop_replication_slot('{name}'); DROP ROLE takeover_replicator"));
}

/// Whoever gets CREATE on the schema later could take calls over by arguments that fit better than those of ours. Each of ours
/// is cast, so that none fits better: here all that would are there.
fn overloads(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "takeover_overloads");
    client
        .batch_execute(
            r#"DO $do$
            DECLARE
              f record;
              types text[];
              other text;
            BEGIN
              FOR f IN SELECT p.proname, p.proargtypes::oid[] AS types, pg_get_function_result(p.oid) AS result, place
                FROM pg_proc p, generate_series(1, pronargs) place
                WHERE p.pronamespace = 'bemi'::regnamespace AND p.prokind = 'f' AND p.proname NOT IN ('as_of', 'history', 'as_of_support')
              LOOP
                FOREACH other IN ARRAY '{oid,regclass,int4,int8,text,name,text[],name[]}'::text[] LOOP
                  types := ARRAY(SELECT format_type(t, NULL) FROM unnest(f.types) WITH ORDINALITY AS a (t, place) ORDER BY place);
                  CONTINUE WHEN types[f.place] = format_type(other::regtype, NULL);
                  types[f.place] := other;
                  BEGIN
                    EXECUTE format('CREATE FUNCTION bemi.%I(%s) RETURNS %s LANGUAGE plpgsql AS $f$BEGIN RAISE EXCEPTION %L; END$f$',
                      f.proname, array_to_string(types, ','), f.result, 'taken over: ' || f.proname || ' ' || types::text);
                    EXECUTE format('ALTER EXTENSION bemi ADD FUNCTION bemi.%I(%s)', f.proname, array_to_string(types, ','));
                  EXCEPTION WHEN duplicate_function OR invalid_function_definition THEN
                  END;
                END LOOP;
              END LOOP;
            END $do$"#,
        )
        .unwrap();
    let overloads: i64 = client
        .query_one(
            "SELECT count(*) FROM pg_proc WHERE pronamespace = 'bemi'::regnamespace AND prosrc LIKE '%taken over%'",
            &[],
        )
        .unwrap()
        .get(0);
    assert!(overloads > 500, "{overloads}");
    for statement in [
        "SELECT bemi.track_all('{public}'::name[])",
        "CREATE TABLE public.u (id int PRIMARY KEY, v text, secret text)",
        "SELECT bemi.track('public.u'::regclass, 'full'::text, '{}'::name[], '{secret}'::name[])",
        "INSERT INTO u VALUES (1, 'a', 's'), (2, 'b', 's')",
        "CREATE TABLE public.w (id int PRIMARY KEY, v text)",
        "INSERT INTO w VALUES (1, 'a')",
        "UPDATE u SET v = 'c' WHERE id = 1",
        "ALTER TABLE u RENAME secret TO hidden",
        "UPDATE u SET id = 3 WHERE id = 2",
        "SELECT bemi.sync('1 min'::interval)",
        "SELECT * FROM bemi.tracked",
        "SELECT * FROM bemi.doctor()",
        "SELECT * FROM bemi.status",
        "SELECT * FROM bemi.as_of(NULL::u, now())",
        "SELECT * FROM bemi.as_of(NULL::u, now()) WHERE id = 1",
        "SELECT * FROM bemi.history(NULL::u, '1'::text)",
        "SELECT * FROM bemi.history(NULL::u, '3'::text)",
        "SELECT bemi.revert_sql(NULL::bigint, NULL::jsonb, 'u'::regclass, NULL::text, NULL::timestamptz, NULL::timestamptz)",
        "SELECT * FROM bemi.revert(NULL::bigint, NULL::jsonb, 'u'::regclass, '1'::text, NULL::timestamptz, NULL::timestamptz, 'skip'::text)",
        "TRUNCATE w",
        "SELECT bemi.revert_sql(NULL::bigint, NULL::jsonb, 'w'::regclass, NULL::text, NULL::timestamptz, NULL::timestamptz)",
        "SELECT bemi.add_partition('2001-01-01'::timestamptz), bemi.keep_partitions(NULL::interval)",
        "SELECT bemi.stop(false)",
        "SELECT bemi.start(false)",
        "SELECT bemi.untrack('public.u'::regclass)",
        "SELECT bemi.untrack_all()",
    ] {
        client.batch_execute(statement).unwrap_or_else(|error| panic!("{error:?}: {statement}"));
    }
}
