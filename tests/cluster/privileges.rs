//! Who may track what, and that nobody has anything done with the rights of others.
use crate::Test;
use crate::server::Server;
use crate::tracking::{identity, refusal};

pub const TESTS: &[Test] = &[
    ("what_anyone_writes_into_a_trigger_is_never_run", injection),
    ("the_owner_tracks_his_table_and_nobody_elses", owners),
    ("no_function_looks_names_up_through_the_callers_search_path", search_path),
];

/// The arguments of a trigger may be anything, and be there by the right TRIGGER alone.
fn injection(server: &Server) {
    let database = server.database("injection");
    let (mut client, notices) = server.connect_listening(&database.name, "postgres");
    client
        .batch_execute(
            "CREATE ROLE mallory LOGIN; GRANT CREATE ON SCHEMA public TO mallory; CREATE TABLE t (id int PRIMARY KEY, v text, secret text);
             SELECT bemi.track('t', mask_columns => '{secret}'); GRANT TRIGGER, SELECT ON t TO mallory",
        )
        .unwrap();
    let mut mallory = server.connect_with(&database.name, "mallory", "");
    for argument in [
        "identity=nothing; ALTER ROLE mallory SUPERUSER",
        "identity=index:x; ALTER ROLE mallory SUPERUSER",
        "identity=index:\"; ALTER ROLE mallory SUPERUSER; --",
        "identity=",
        "identity=rubbish",
    ] {
        mallory
            .batch_execute(&format!(
                "CREATE TABLE m (id int); CREATE TRIGGER bemi_context BEFORE INSERT ON m FOR EACH STATEMENT EXECUTE FUNCTION bemi.emit_context('{argument}');
                 CREATE TRIGGER zzz BEFORE TRUNCATE ON t FOR EACH STATEMENT EXECUTE FUNCTION bemi.emit_context('{argument}', 'ignore=v')"
            ))
            .unwrap();
        client.batch_execute("SELECT * FROM bemi.tracked; SELECT * FROM bemi.doctor(); SELECT bemi.track_again('m'), bemi.track('m'), bemi.untrack_all()").unwrap();
        let is_superuser: bool =
            client.query_one("SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'", &[]).unwrap().get(0);
        assert!(!is_superuser, "{argument}");
        let left: i64 = client.query_one("SELECT count(*) FROM bemi.tracked", &[]).unwrap().get(0);
        assert_eq!(left, 0, "{argument}: {:?}", notices.take());
        mallory.batch_execute("DROP TABLE m").unwrap();
        client.batch_execute("SELECT bemi.track('t', mask_columns => '{secret}')").unwrap();
    }
    // One table that cannot be tracked, or untracked, does not keep the others from it.
    mallory
        .batch_execute(
            "CREATE TABLE m (id int); CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
             CREATE TRIGGER bemi_context BEFORE INSERT ON m FOR EACH STATEMENT EXECUTE FUNCTION f()",
        )
        .unwrap();
    client.batch_execute("CREATE TABLE u (id int)").unwrap();
    notices.take();
    client.batch_execute("SELECT bemi.track_all()").unwrap();
    assert!(notices.take().concat().contains("could not track public.m"));
    let tracked: i64 = client.query_one("SELECT count(*) FROM bemi.tracked", &[]).unwrap().get(0);
    assert_eq!(tracked, 2);
    for call in [
        "bemi.put_trigger('t', '{}')",
        "bemi.track_one('t', 'full', '{}', '{}')",
        "bemi.set_identity('t', 'nothing')",
        "bemi.lock('t', true)",
        "bemi.untrack_one('t')",
        "bemi.follow_rename('t', '{mask}', 'secret', 'v')",
        "bemi.track_again('t', 'default')",
    ] {
        // None of these does what its caller may not do himself.
        let result = mallory.batch_execute(&format!("BEGIN; SELECT {call}; ROLLBACK"));
        mallory.batch_execute("ROLLBACK").unwrap();
        assert!(
            result.is_err() || call.starts_with("bemi.put_trigger") || call.starts_with("bemi.follow_rename"),
            "{call}"
        );
    }
    for invalid in ["ff00", "69676e6f72653dff00", "e69700"] {
        assert_eq!(refusal(&mut mallory, &format!("SELECT bemi.rules('\\x{invalid}', 'every')")).0, "22021");
    }
    client.batch_execute("DROP OWNED BY mallory; DROP ROLE mallory").unwrap();
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
    assert!(said.contains("tracked 3 tables"), "{said}");
    assert!(said.contains("because you do not own them") && said.contains("public.foreigner"), "{said}");
    assert!(
        said.contains("this requires a superuser") && said.contains("SELECT bemi.track_all('{public}');"),
        "{said}"
    );
    one.batch_execute("SELECT bemi.untrack_all()").unwrap();
    let left: i64 = client.query_one("SELECT count(*) FROM bemi.tracked", &[]).unwrap().get(0);
    assert_eq!(left, 0);
    client.batch_execute("DROP OWNED BY owners_one, owners_two; DROP ROLE owners_one, owners_two").unwrap();
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
            "CREATE FUNCTION evil.format(pg_catalog.text, pg_catalog.text) RETURNS pg_catalog.text LANGUAGE plpgsql AS 'BEGIN INSERT INTO evil.hits VALUES (''format''); RETURN NULL; END';
             CREATE FUNCTION evil.format(pg_catalog.text, regclass) RETURNS pg_catalog.text LANGUAGE plpgsql AS 'BEGIN INSERT INTO evil.hits VALUES (''format''); RETURN NULL; END';
             CREATE FUNCTION evil.unnest(pg_catalog.text[]) RETURNS SETOF pg_catalog.text LANGUAGE plpgsql AS 'BEGIN INSERT INTO evil.hits VALUES (''unnest''); END'",
        )
        .unwrap();
    // They do catch whoever looks through the search_path.
    client
        .batch_execute("SET search_path = evil, pg_temp, pg_catalog, public; SELECT quote_ident('x'), format('x'::pg_catalog.text, 'y'::pg_catalog.text), 'a'::\"char\" = 'b'::\"char\"")
        .unwrap();
    let caught: i64 = client.query_one("SELECT pg_catalog.count(*) FROM evil.hits", &[]).unwrap().get(0);
    assert_eq!(caught, 3);
    client.batch_execute("DELETE FROM evil.hits").unwrap();
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
