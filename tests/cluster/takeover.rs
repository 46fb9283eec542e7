//! Nobody becomes a superuser by what the extension, the recorder or an event trigger does as one: whatever others had in
//! the schema beforehand, were given there, or hang on the tables. Each statement that is refused says what ends that.
use postgres::Client;

use crate::Test;
use crate::server::{Server, run, sqlstate};

pub const TESTS: &[Test] = &[
    ("what_others_put_into_the_schema_beforehand_is_refused_and_never_run", planted),
    ("who_may_create_in_the_schema_is_refused_before_and_after", grantee),
    ("a_table_made_beforehand_keeps_its_trigger_when_it_is_given_to_a_superuser_and_is_refused", given),
    ("what_others_hang_on_the_tables_of_an_earlier_installation_is_refused", hung),
    ("default_privileges_give_nobody_anything", default_privileges),
    ("without_default_rights_everything_works_as_with_them", hardened),
];

/// A database of a role of the same name, which is not a superuser; and a superuser's and his connection to it.
pub fn owned_database(server: &Server, name: &str) -> (Client, Client) {
    let mut client = server.connect("postgres");
    run(&mut client, &format!("CREATE ROLE {name} LOGIN; CREATE DATABASE {name} OWNER {name}"));
    let mut client = server.connect(name);
    run(&mut client, &format!("GRANT CREATE ON SCHEMA public TO {name}"));
    let mut owner = server.connect_with(name, name, "");
    owner.batch_execute(&payload(name)).unwrap();
    (client, owner)
}

/// What makes a role superuser wherever a superuser runs it, as a function of each form. Expressions call immutable ones only.
/// Autovacuum, which computes expressions of statistics with the rights of the table's owner, is the server's own.
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
             AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_activity WHERE pid = pg_backend_pid() AND backend_type = 'autovacuum worker')
           THEN EXECUTE 'ALTER ROLE {role} SUPERUSER'; END IF; END$$; {} {} {} {}
         CREATE DOMAIN public.pwn_text AS text CHECK (public.pwn_if(VALUE))",
        function("()", "trigger", "VOLATILE", "NEW"),
        function("_of(text)", "text", "IMMUTABLE", "$1"),
        function("_if(text)", "boolean", "IMMUTABLE", "true"),
        function("_name(name, name)", "boolean", "IMMUTABLE", "true"),
    )
}

/// Runs a statement; wherever it is refused, what the hint says, and the statement again. Gives what was said.
pub fn fixed(client: &mut Client, statement: &str) -> Vec<String> {
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

pub fn is_superuser(client: &mut Client, role: &str) -> bool {
    client.query_one("SELECT rolsuper FROM pg_roles WHERE rolname = $1", &[&role]).unwrap().get(0)
}

/// Tracks, records and ends that.
pub fn goes_on(client: &mut Client) {
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
        assert_eq!(said[0], "the schema bemi belongs to the role takeover_planted, which is not a superuser");
        assert_eq!(said[1], "the role PUBLIC may create objects in the schema bemi");
        let refused = said.iter().any(|said| said.contains(what) && said.contains("takeover_planted"));
        assert!(refused || said.iter().any(|said| said.contains("recorder")), "{statement}: {said:?}");
        assert_eq!(
            sqlstate(owner.batch_execute("CREATE FUNCTION bemi.f() RETURNS int LANGUAGE sql AS 'SELECT 1'")),
            "42501"
        );
        // A table of that name is kept, and used if it has the form that it should have.
        if what.ends_with("recorder") {
            client.batch_execute("SET bemi.allow_drop = on; DROP TABLE bemi.recorder; RESET bemi.allow_drop").unwrap();
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
        format!("the trigger pwn on bemi.{table} calls public.pwn(), which belongs to the role takeover_given, which is not a superuser")
    });
    assert_eq!(said, expected);
    assert!(!is_superuser(&mut client, "takeover_given"));
    run(
        &mut client,
        "SET bemi.allow_drop = on; DROP TABLE bemi.changes; DROP TABLE bemi.recorder; RESET bemi.allow_drop",
    );
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
        // Of the column itself on 14.
        "bemi.recorder.pwn uses the function public.pwn_of",
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
pub fn hang(client: &mut Client, statement: &str) {
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
        let found: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
        assert!(found.first().is_some_and(|detail| detail.contains(what)), "{statement}: {found:?}");
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
