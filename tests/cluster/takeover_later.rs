//! As in `takeover.rs`: what others were given, or left behind, after the extension was there.
use postgres::Client;

use crate::Test;
use crate::recorder::{recording, wait_until_recording};
use crate::server::{Server, run, sqlstate, wait_until};
use crate::takeover::{fixed, goes_on, is_superuser, owned_database};

pub const TESTS: &[Test] = &[
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

/// A table, what its owner leaves on it that runs when it is written, and what the refusal calls that.
pub const LEFT: &[(&str, &str, &str)] = &[
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
];

fn left_behind(server: &Server) {
    let (mut client, mut owner) = owned_database(server, "takeover_left");
    run(
        &mut client,
        "CREATE EXTENSION bemi; CREATE TABLE t (id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY, v text); SELECT bemi.track('t'); SELECT bemi.start()",
    );
    for (table, code, what) in LEFT {
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
    assert_eq!(detail, "the schema bemi belongs to the role takeover_away, which is not a superuser");
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
