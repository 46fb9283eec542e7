//! What schema tools drop that they do not know: what is recorded stays, and triggers come back or are missed aloud.
use postgres::Client;

use crate::Test;
use crate::recorder::recording;
use crate::server::{Server, run, sqlstate};

pub const TESTS: &[Test] = &[
    ("what_is_recorded_is_neither_dropped_nor_truncated_unless_it_is_said", kept),
    ("what_is_recorded_goes_with_its_schema_and_stays_without_the_extension", let_go),
    ("retention_drops_what_nobody_else_can", retention),
    ("a_trigger_that_is_dropped_in_a_tracked_schema_is_back_with_its_rules", put_back),
    ("a_trigger_that_is_dropped_elsewhere_is_missed_by_name_and_time", missed),
    ("who_may_not_drop_a_trigger_gets_the_error_of_the_server", strangers),
    ("a_trigger_on_the_list_of_dropped_triggers_is_not_run", planted),
    ("what_bemihq_has_left_is_told_and_replaced_and_stands_in_the_way_of_nothing", bemihq),
];

fn value(client: &mut Client, query: &str) -> String {
    client.query_one(query, &[]).unwrap_or_else(|error| panic!("{query}: {error:?}")).get(0)
}

/// The schema tools' statements and those of people, each refused.
const REFUSED: [&str; 11] = [
    "DROP TABLE IF EXISTS \"bemi\".\"changes\" CASCADE",
    "DROP TABLE bemi.changes_default",
    "DROP TABLE bemi.recorder, t CASCADE",
    "DROP TABLE bemi.sources CASCADE",
    "DROP TABLE bemi.recorded_versions",
    "TRUNCATE bemi.changes",
    "TRUNCATE t, bemi.changes_default CASCADE",
    "TRUNCATE bemi.recorder",
    "TRUNCATE bemi.sources RESTART IDENTITY",
    "DO $$ BEGIN EXECUTE 'DROP TABLE bemi.changes CASCADE'; END $$",
    "SET session_replication_role = replica; TRUNCATE bemi.changes",
];

fn kept(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "drops_kept");
    run(&mut client, "INSERT INTO t VALUES (1, 'a'); SELECT bemi.sync()");
    let month = value(&mut client, "SELECT to_char(now() AT TIME ZONE 'UTC', '\"bemi.changes_\"YYYY_MM')");
    let more = [format!("DROP TABLE {month}"), format!("TRUNCATE {month}"), format!("TRUNCATE ONLY {month}")];
    for statement in REFUSED.into_iter().chain(more.iter().map(String::as_str)) {
        let error = client.batch_execute(statement).expect_err(statement);
        let error = error.as_db_error().unwrap_or_else(|| panic!("{statement}"));
        let hint = error.hint().unwrap_or_default();
        assert!(error.code().code() == "55006" && hint.contains("SET bemi.allow_drop = on;"), "{statement}: {error:?}");
        run(&mut client, "RESET ALL");
    }
    assert_eq!(value(&mut client, "SELECT string_agg(after ->> 'v', '') FROM bemi.changes"), "a");
    // A partition that somebody made is kept from the day on which the recorder knows of it; until then the doctor says so.
    run(&mut client, "ALTER TABLE bemi.changes_default DISABLE TRIGGER bemi_keep");
    let row = client
        .query_one("SELECT ok, detail, fix FROM bemi.doctor() WHERE \"check\" = 'recorded changes'", &[])
        .unwrap();
    assert_eq!((row.get(0), row.get::<_, &str>(1)), (false, "TRUNCATE is not refused: bemi.changes_default"));
    run(&mut client, row.get(2));
    assert_eq!(sqlstate(client.batch_execute("TRUNCATE bemi.changes_default")), "55006");
    // Those who mean it.
    run(&mut client, "SET bemi.allow_drop = on; TRUNCATE bemi.changes");
    assert_eq!(value(&mut client, "SELECT count(*)::text FROM bemi.changes"), "0");
    run(&mut client, "RESET bemi.allow_drop");
    assert_eq!(sqlstate(client.batch_execute("DROP TABLE bemi.changes CASCADE")), "55006");
    // Tables of others are theirs.
    run(
        &mut client,
        "CREATE SCHEMA other; CREATE TABLE other.changes (id int); TRUNCATE other.changes; DROP TABLE other.changes",
    );
}

fn let_go(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "drops_let_go");
    run(&mut client, "INSERT INTO t VALUES (1, 'a'); SELECT bemi.sync()");
    assert_eq!(sqlstate(client.batch_execute("DROP EXTENSION bemi CASCADE")), "55006");
    run(&mut client, "SELECT bemi.stop(drop_slot => true); SELECT bemi.untrack_all()");
    // It was not dropped: the triggers are there still.
    assert_eq!(sqlstate(client.batch_execute("BEGIN; DROP EXTENSION bemi; SELECT 1/0")), "22012");
    run(&mut client, "ROLLBACK");
    assert_eq!(sqlstate(client.batch_execute("TRUNCATE bemi.changes")), "55006");
    run(&mut client, "DROP EXTENSION bemi");
    assert_eq!(value(&mut client, "SELECT count(*)::text FROM bemi.changes"), "1");
    run(&mut client, "CREATE EXTENSION bemi SCHEMA bemi; SELECT bemi.start()");
    assert_eq!(sqlstate(client.batch_execute("TRUNCATE bemi.changes")), "55006");
    assert_eq!(sqlstate(client.batch_execute("DROP TABLE bemi.changes CASCADE")), "55006");
    run(
        &mut client,
        "SELECT bemi.stop(drop_slot => true); CREATE ROLE drops_all SUPERUSER; ALTER TABLE bemi.changes OWNER TO drops_all",
    );
    for owned in ["drops_all", "CURRENT_USER, drops_all", "drops_all CASCADE"] {
        assert_eq!(sqlstate(client.batch_execute(&format!("DROP OWNED BY {owned}"))), "55006", "{owned}");
    }
    run(&mut client, "CREATE ROLE drops_other; DROP OWNED BY drops_other; DROP ROLE drops_other");
    run(
        &mut client,
        "SET bemi.allow_drop = on; DROP OWNED BY drops_all CASCADE; RESET bemi.allow_drop; DROP ROLE drops_all",
    );
    assert_eq!(value(&mut client, "SELECT COALESCE(to_regclass('bemi.changes')::text, 'gone')"), "gone");
    run(&mut client, "SELECT bemi.start()");
    run(&mut client, "SELECT bemi.stop(drop_slot => true); DROP SCHEMA bemi CASCADE");
    assert_eq!(value(&mut client, "SELECT COALESCE(to_regclass('bemi.changes')::text, 'gone')"), "gone");
}

fn retention(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "drops_retention");
    run(
        &mut client,
        "SELECT bemi.stop(); SELECT bemi.add_partition('2001-01-15'); SELECT bemi.keep_partitions('1 year')",
    );
    assert_eq!(value(&mut client, "SELECT COALESCE(to_regclass('bemi.changes_2001_01')::text, 'gone')"), "gone");
    assert_eq!(value(&mut client, "SHOW bemi.allow_drop"), "off");
}

fn rules(client: &mut Client, table: &str) -> String {
    value(
        client,
        &format!(
            "SELECT concat_ws(' ', t.replica_identity, t.ignore_columns, t.mask_columns, g.tgenabled) FROM bemi.tracked t
             JOIN pg_trigger g ON g.tgrelid = t.relation AND g.tgname = 'bemi_context' WHERE t.relation = '{table}'::regclass"
        ),
    )
}

fn put_back(server: &Server) {
    let (database, mut client, _stop) = recording(server, "drops_put_back");
    run(
        &mut client,
        "SELECT bemi.track_all(); CREATE TABLE \"To do\" (id int PRIMARY KEY, v text, secret text, noise text);
         SELECT bemi.track('\"To do\"', ignore_columns => '{noise}', mask_columns => '{secret}');
         ALTER TABLE \"To do\" ENABLE ALWAYS TRIGGER bemi_context",
    );
    let before = rules(&mut client, "\"To do\"");
    assert!(before.contains("{noise} {secret} A"), "{before}");
    let (mut listening, notices) = server.connect_listening(&database.name, "postgres");
    for statement in [
        "DROP TRIGGER bemi_context ON \"To do\"",
        "DROP TRIGGER IF EXISTS \"bemi_context\" ON public.\"To do\" CASCADE",
        "SET search_path = ''; DROP TRIGGER bemi_context ON public.\"To do\"; RESET search_path",
        "DO $$ BEGIN EXECUTE 'DROP TRIGGER bemi_context ON \"To do\"'; END $$",
    ] {
        listening.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
        assert_eq!(rules(&mut client, "\"To do\""), before, "{statement}");
        let said = notices.take();
        assert!(
            said.len() == 1 && said[0].contains("the trigger bemi_context of public.\"To do\" was created again"),
            "{statement}: {said:?}"
        );
    }
    let dropped = value(&mut client, "SELECT dropped FROM bemi.tracked WHERE relation = '\"To do\"'::regclass");
    assert!(
        dropped.starts_with("the trigger was dropped by postgres at ")
            && dropped.ends_with(", and created again at once"),
        "{dropped}"
    );
    under(&mut client, "INSERT INTO \"To do\" VALUES (1, 'a', 's', 'n')");
    assert_eq!(
        value(&mut client, "SELECT concat_ws(' ', context, after) FROM bemi.changes WHERE \"table\" = 'To do'"),
        "{\"x\": 1} {\"v\": \"a\", \"id\": 1, \"noise\": \"n\", \"secret\": \"[masked]\"}"
    );
    // The past knows no time without it.
    assert_eq!(
        value(
            &mut client,
            "SELECT bool_and(is_tracked)::text FROM bemi.table_versions WHERE \"table\" = 'To do' AND position > (SELECT min(position) FROM bemi.table_versions WHERE \"table\" = 'To do' AND is_tracked)"
        ),
        "true"
    );
    // Without its rules it does not come back: they may mask.
    run(&mut client, "ALTER EVENT TRIGGER bemi_before_ddl DISABLE");
    listening.batch_execute("SET bemi_drop.trigger = 'no json'").unwrap();
    assert_eq!(sqlstate(listening.batch_execute("BEGIN; DROP TRIGGER bemi_context ON \"To do\"; SELECT 1/0")), "22012");
    assert!(notices.take().iter().any(|notice| notice.contains("is no longer tracked")));
    run(&mut listening, "ROLLBACK; RESET bemi_drop.trigger");
    run(&mut client, "ALTER EVENT TRIGGER bemi_before_ddl ENABLE ALWAYS");
    // Those who end tracking as they should are not contradicted.
    run(&mut listening, "SELECT bemi.untrack('\"To do\"')");
    assert_eq!(notices.take(), [""; 0]);
    assert_eq!(
        value(&mut client, "SELECT count(*)::text FROM bemi.tracked WHERE relation = '\"To do\"'::regclass"),
        "0"
    );
    // Partitions of a tracked table, wherever they are.
    run(
        &mut listening,
        "SELECT bemi.untrack_all(); CREATE SCHEMA parts; CREATE TABLE p (id int PRIMARY KEY, secret text) PARTITION BY RANGE (id);
         CREATE TABLE parts.p1 PARTITION OF p FOR VALUES FROM (1) TO (10); SELECT bemi.track('p', mask_columns => '{secret}')",
    );
    notices.take();
    run(&mut listening, "DROP TRIGGER bemi_context ON parts.p1");
    assert!(notices.take()[0].contains("parts.p1 was created again"));
    assert!(rules(&mut client, "parts.p1").contains("{secret}"));
}

fn under(client: &mut Client, statement: &str) {
    run(
        client,
        &format!("BEGIN; SELECT bemi.set_context('{{\"x\":1}}', true); {statement}; COMMIT; SELECT bemi.sync()"),
    );
}

fn missed(server: &Server) {
    let (database, mut client, _stop) = recording(server, "drops_missed");
    let (mut listening, notices) = server.connect_listening(&database.name, "postgres");
    run(&mut client, "SELECT bemi.untrack_all(); SELECT bemi.track('t')");
    run(&mut listening, "DROP TRIGGER bemi_context ON t");
    let said = notices.take();
    assert!(said.len() == 1 && said[0].contains("the table public.t is no longer tracked"), "{said:?}");
    let row = client
        .query_one("SELECT ok, detail, fix FROM bemi.doctor() WHERE \"check\" = 'dropped triggers'", &[])
        .unwrap();
    assert!(!row.get::<_, bool>(0) && row.get::<_, &str>(1).contains("t (by postgres, "), "{row:?}");
    run(&mut client, row.get(2));
    assert_eq!(value(&mut client, "SELECT ok::text FROM bemi.doctor() WHERE \"check\" = 'dropped triggers'"), "true");
    assert!(
        value(&mut client, "SELECT dropped FROM bemi.tracked").starts_with("the trigger was dropped by postgres at ")
    );
    // Triggers of that name on tables of others, on views, and with their tables.
    listening.batch_execute(
        "CREATE TABLE u (id int); CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
         CREATE TRIGGER other BEFORE INSERT ON u EXECUTE FUNCTION f(); DROP TRIGGER other ON u; DROP TABLE t; DROP TABLE u;
         CREATE TEMP TABLE changes (id int); DROP TABLE changes",
    )
    .unwrap();
    assert_eq!(notices.take(), [""; 0]);
    assert_eq!(value(&mut client, "SELECT ok::text FROM bemi.doctor() WHERE \"check\" = 'dropped triggers'"), "true");
    assert_eq!(sqlstate(listening.batch_execute("DROP TRIGGER bemi_context ON nowhere.t")), "3F000");
}

fn strangers(server: &Server) {
    let (database, mut client, _stop) = recording(server, "drops_strangers");
    run(
        &mut client,
        "SELECT bemi.track_all(); CREATE ROLE drops_stranger LOGIN; CREATE ROLE drops_owner LOGIN; ALTER TABLE t OWNER TO drops_owner",
    );
    let (mut stranger, _) = server.connect_listening(&database.name, "drops_stranger");
    assert_eq!(sqlstate(stranger.batch_execute("DROP TRIGGER bemi_context ON t")), "42501");
    // The owner has not the rights of the extension.
    let (mut owner, notices) = server.connect_listening(&database.name, "drops_owner");
    run(&mut owner, "DROP TRIGGER bemi_context ON t");
    assert!(notices.take()[0].contains("was created again"));
    assert!(value(&mut client, "SELECT dropped FROM bemi.tracked").contains("by drops_owner at "));
    run(&mut owner, "SELECT bemi.untrack('t')");
    assert_eq!(value(&mut client, "SELECT count(*)::text FROM bemi.tracked"), "0");
    drop((owner, stranger));
    run(&mut client, "DROP OWNED BY drops_owner; DROP ROLE drops_owner; DROP ROLE drops_stranger");
}

fn planted(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "drops_planted");
    client.batch_execute(
        "SELECT bemi.track_all(); CREATE ROLE drops_planter; GRANT CREATE ON SCHEMA public TO drops_planter; SET ROLE drops_planter;
         CREATE FUNCTION public.plant() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''planted''; END'; RESET ROLE;
         CREATE TRIGGER plant BEFORE INSERT ON bemi.dropped_triggers FOR EACH ROW EXECUTE FUNCTION public.plant()",
    )
    .unwrap();
    assert_eq!(sqlstate(client.batch_execute("DROP TRIGGER bemi_context ON t")), "42501");
    run(
        &mut client,
        "DROP TRIGGER plant ON bemi.dropped_triggers; DROP OWNED BY drops_planter; DROP ROLE drops_planter",
    );
}

/// What a migration of BemiHQ's packages makes, in short.
const BEMIHQ: &str = "CREATE FUNCTION _bemi_row_trigger_func() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_logical_emit_message(true, ''_bemi'', ''{\"theirs\":1}''); RETURN NULL; END';
    CREATE PROCEDURE _bemi_create_triggers() LANGUAGE plpgsql AS $$ DECLARE t record; BEGIN
      FOR t IN SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
        AND NOT EXISTS (SELECT FROM pg_trigger g WHERE g.tgrelid = c.oid AND g.tgname = '_bemi_row_trigger_' || c.relname) LOOP
        EXECUTE format('CREATE TRIGGER %I BEFORE INSERT OR UPDATE OR DELETE ON %I FOR EACH ROW EXECUTE FUNCTION _bemi_row_trigger_func()', '_bemi_row_trigger_' || t.relname, t.relname);
      END LOOP; END $$;
    CALL _bemi_create_triggers();
    CREATE FUNCTION _bemi_create_table_trigger_func() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN CALL _bemi_create_triggers(); END';
    CREATE EVENT TRIGGER _bemi_create_table_trigger ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION _bemi_create_table_trigger_func()";

fn bemihq(server: &Server) {
    // Theirs first, and ours first.
    for ours_first in [false, true] {
        let name = if ours_first { "bemihq_second" } else { "bemihq_first" };
        run(&mut server.connect("postgres"), &format!("CREATE DATABASE {name}"));
        let mut client = server.connect(name);
        run(&mut client, "CREATE TABLE todo (id int PRIMARY KEY, v text)");
        if ours_first {
            run(&mut client, "CREATE EXTENSION bemi");
        }
        client.batch_execute(BEMIHQ).unwrap();
        if !ours_first {
            run(&mut client, "CREATE EXTENSION bemi");
        }
        let failing = "SET search_path = pg_temp; CREATE TABLE other (id int)";
        assert_eq!(sqlstate(client.batch_execute(failing)), "42883");
        run(
            &mut client,
            "RESET search_path; SELECT bemi.start(); SELECT bemi.add_partition(now() + interval '1 year')",
        );
        let doctor = "SELECT concat_ws(' ', ok::text, fix) FROM bemi.doctor() WHERE \"check\" = 'BemiHQ'";
        assert_eq!(value(&mut client, doctor), "false SELECT bemi.replace_bemihq();");
        run(&mut client, "SELECT bemi.replace_bemihq()");
        assert_eq!(value(&mut client, doctor), "true");
        run(&mut client, failing);
        run(&mut client, "RESET search_path");
        under(&mut client, "INSERT INTO todo VALUES (1, 'a')");
        assert_eq!(
            value(&mut client, "SELECT string_agg(concat(\"table\", context), ' ') FROM bemi.changes"),
            "todo{\"x\": 1}"
        );
        run(&mut client, "SELECT bemi.stop(drop_slot => true)");
    }
}
