//! What a revert reports is so: it looks at what it has done, and says what it could not do.
use postgres::Client;

use crate::Test;
use crate::recorder::recording;
use crate::revert::{error, of, revert, rows, statements, under};
use crate::server::{Server, run, sqlstate};

pub const TESTS: &[Test] = &[
    ("what_is_reported_as_reverted_is_in_the_table", in_the_table),
    ("what_triggers_change_again_behind_an_undo_is_set_again_or_refused", changed_again),
    ("a_value_that_a_column_cannot_hold_any_more_is_a_conflict", cannot_hold),
    ("a_recorded_value_that_cannot_be_read_is_a_conflict_of_its_row", unreadable),
    ("what_was_masked_is_never_reported_as_reverted", masked),
    ("what_cannot_be_undone_is_skipped_by_those_who_skip_conflicts", refused),
    ("foreign_keys_that_do_nothing_are_not_asked", idle_keys),
    ("a_revert_does_the_same_under_all_settings_of_the_caller", settings),
    ("the_triggers_of_a_revert_have_the_time_zone_of_the_caller", time_zone),
];

fn skipping(name: &str) -> String {
    format!("{}, on_conflict => 'skip'", of(name))
}

/// A trigger or a rule, what happens to the row (1,a,1) of a table under it, what its revert says, and what is there then.
const GUARDS: [(&str, &str, &str, &str); 8] = [
    ("NEW.v := OLD.v; RETURN NEW", "UPDATE", "skipped (a trigger kept it from being undone: v)", "(1,b,1)"),
    ("NEW.v := upper(NEW.v); RETURN NEW", "UPDATE", "partly reverted (a trigger changed: v)", "(1,A,1)"),
    ("NEW.n := 99; RETURN NEW", "UPDATE", "partly reverted (a trigger changed: n)", "(1,a,99)"),
    ("NEW.v := NEW.v; RETURN NEW", "UPDATE", "reverted", "(1,a,1)"),
    (
        "NEW.id := 7; RETURN NEW",
        "UPDATE",
        "skipped (a trigger, a rule or a policy left no row with this key)",
        "(1,b,1)",
    ),
    (
        "UPDATE g SET n = 5; RETURN NULL",
        "DELETE",
        "skipped (a trigger, a rule or a policy kept it from being undone)",
        "(1,a,1)",
    ),
    ("RAISE 'not here'", "DELETE", "skipped (not here)", "(1,a,1)"),
    ("NEW.n := 99; RETURN NEW", "INSERT", "partly reverted (a trigger changed: n)", "(1,a,99)"),
];

fn in_the_table(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "revert_in_the_table");
    run(&mut client, "CREATE TABLE g (id int PRIMARY KEY, v text, n int); SELECT bemi.track('g')");
    for (place, (body, event, expected, left)) in GUARDS.into_iter().enumerate() {
        let name = format!("{place}");
        let (before, change) = match event {
            "UPDATE" => ("INSERT INTO g VALUES (1, 'a', 1)", "UPDATE g SET v = 'b'"),
            "DELETE" => ("SELECT", "INSERT INTO g VALUES (1, 'a', 1)"),
            _ => ("INSERT INTO g VALUES (1, 'a', 1)", "DELETE FROM g"),
        };
        run(&mut client, before);
        under(&mut client, &name, change);
        client
            .batch_execute(&format!(
                "CREATE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body}; END $$;
                 CREATE TRIGGER guard BEFORE {event} ON g FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION guard()"
            ))
            .unwrap();
        let done = revert(&mut client, &skipping(&name));
        assert_eq!((done.len(), done[0].ends_with(&format!(" g 1 {expected}"))), (1, true), "{body}: {done:?}");
        assert_eq!(rows(&mut client, "g"), left, "{body}");
        if expected.starts_with("skipped") {
            assert_eq!(error(&mut client, &of(&name)).0, "27000", "{body}");
        }
        run(&mut client, "DROP FUNCTION guard() CASCADE; DELETE FROM g");
    }
    // Rules that do something else, and a policy.
    run(&mut client, "INSERT INTO g VALUES (1, 'a', 1)");
    under(&mut client, "rule", "UPDATE g SET v = 'b'");
    for rule in ["NOTHING", "UPDATE g SET n = 3 WHERE id = OLD.id AND n = 1"] {
        run(&mut client, &format!("CREATE RULE r AS ON UPDATE TO g DO INSTEAD {rule}"));
        let done = client.query(&format!("SELECT status FROM bemi.revert({})", skipping("rule")), &[]);
        let is_told = match done {
            Ok(rows) => rows[0].get::<_, &str>(0) == "skipped",
            Err(error) => error.as_db_error().is_some(),
        };
        assert!(is_told && rows(&mut client, "g") == "(1,b,1)", "{rule}: {}", rows(&mut client, "g"));
        run(&mut client, "DROP RULE r ON g");
    }
    assert_eq!(revert(&mut client, &of("rule")), ["UPDATE g 1 reverted"]);
    // What a generated column computes today.
    run(
        &mut client,
        "CREATE TABLE made (id int PRIMARY KEY, a int, s int GENERATED ALWAYS AS (a * 2) STORED); SELECT bemi.track('made'); INSERT INTO made (id, a) VALUES (1, 1)",
    );
    under(&mut client, "made", "UPDATE made SET a = 5; DELETE FROM made");
    run(
        &mut client,
        "SELECT bemi.sync(); ALTER TABLE made DROP s; ALTER TABLE made ADD s int GENERATED ALWAYS AS (a * 3) STORED",
    );
    let done = revert(&mut client, &of("made"));
    assert!(done.iter().all(|line| line.contains(" reverted")), "{done:?}");
    assert_eq!(rows(&mut client, "made"), "(1,1,3)");
    if server.major >= 17 {
        run(&mut client, "INSERT INTO made (id, a) VALUES (2, 2)");
        under(
            &mut client,
            "said",
            "UPDATE made SET a = 5 WHERE id = 1; UPDATE made SET a = 6 WHERE id = 1; DELETE FROM made WHERE id = 2",
        );
        run(&mut client, "SELECT bemi.sync(); ALTER TABLE made ALTER s SET EXPRESSION AS (a * 4)");
        let done = revert(&mut client, &of("said"));
        let says = " partly reverted (computed otherwise now: s)";
        assert!(done.len() == 3 && done.iter().all(|line| line.ends_with(says)), "{done:?}");
        assert_eq!(rows(&mut client, "made"), "(1,1,4) (2,2,8)");
    }
}

/// Triggers of one table that change rows of another, which were undone before.
fn changed_again(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "revert_changed_again");
    client
        .batch_execute(
            "CREATE TABLE parent (id int PRIMARY KEY, n int, v text); CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent);
             CREATE FUNCTION counts() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               UPDATE parent SET n = n + CASE TG_OP WHEN 'INSERT' THEN 1 ELSE -1 END; RETURN NULL; END $$;
             CREATE TRIGGER counts AFTER INSERT OR DELETE ON child FOR EACH ROW EXECUTE FUNCTION counts();
             SELECT bemi.track('parent'), bemi.track('child'); INSERT INTO parent VALUES (1, 0, 'a')",
        )
        .unwrap();
    under(&mut client, "x", "INSERT INTO child VALUES (1, 1), (2, 1); DELETE FROM child WHERE id = 2");
    assert_eq!(rows(&mut client, "parent"), "(1,1,a)");
    let done = revert(&mut client, &of("x"));
    assert!(done.iter().all(|line| line.contains(" reverted")), "{done:?}");
    assert_eq!((rows(&mut client, "parent").as_str(), rows(&mut client, "child").as_str()), ("(1,0,a)", ""));
    // One that will not let go of it.
    client
        .batch_execute(
            "CREATE FUNCTION holds() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.n := OLD.n; RETURN NEW; END $$;
             CREATE TRIGGER holds BEFORE UPDATE ON parent FOR EACH ROW WHEN (OLD.n < 0) EXECUTE FUNCTION holds()",
        )
        .unwrap();
    under(&mut client, "y", "INSERT INTO child VALUES (3, 1)");
    let (state, text) = error(&mut client, &of("y"));
    assert_eq!(
        (state.as_str(), text.as_str()),
        ("27000", "bemi undid nothing: triggers changed rows again that were undone\npublic.parent 1: n")
    );
    assert_eq!((rows(&mut client, "parent").as_str(), rows(&mut client, "child").as_str()), ("(1,1,a)", "(3,1)"));
}

fn cannot_hold(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "revert_cannot_hold");
    run(
        &mut client,
        "CREATE TABLE h (id int PRIMARY KEY, p numeric(10, 2), q varchar(11)); SELECT bemi.track('h'); INSERT INTO h VALUES (1, 19.99, 'a'), (2, 1, 'long enough'), (3, 1, 'a')",
    );
    under(&mut client, "x", "DELETE FROM h WHERE id IN (1, 3); UPDATE h SET q = 'b'");
    run(&mut client, "SELECT bemi.sync(); ALTER TABLE h ALTER p TYPE numeric(10, 0), ALTER q TYPE varchar(4)");
    let (state, text) = error(&mut client, &of("x"));
    assert!(state == "27000" && text.contains("\npublic.h 2 (UPDATE): "), "{state}: {text}");
    let done = revert(&mut client, &skipping("x"));
    assert!(done.contains(&"DELETE h 3 reverted".to_owned()), "{done:?}");
    assert!(done[0].starts_with("UPDATE h 2 skipped ("), "{done:?}");
    // Rounded as ALTER TABLE would have done it, or not at all.
    let left = rows(&mut client, "h");
    match done.contains(&"DELETE h 1 reverted".to_owned()) {
        true => assert_eq!(left, "(1,20,a) (2,1,b) (3,1,a)"),
        false => assert_eq!(left, "(2,1,b) (3,1,a)"),
    }
}

fn unreadable(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "revert_unreadable");
    client
        .batch_execute(
            "CREATE TYPE mood AS ENUM ('gone', 'ok', 'new'); CREATE TABLE victim (i int); CREATE SCHEMA lost; CREATE TABLE lost.victim (i int);
             CREATE TABLE r (id int PRIMARY KEY, c regclass, m mood, n int); CREATE TABLE k (m mood PRIMARY KEY, n int);
             SELECT bemi.track_all(); INSERT INTO r VALUES (1, 'victim', 'ok', 1), (2, 'lost.victim', 'ok', 1), (3, 'pg_class', 'gone', 1), (4, 'pg_class', 'ok', 1), (5, 'victim', 'ok', 1);
             INSERT INTO k VALUES ('gone', 1), ('ok', 1)",
        )
        .unwrap();
    under(
        &mut client,
        "x",
        "UPDATE r SET c = 'pg_class' WHERE id = 1; DELETE FROM r WHERE id IN (2, 3, 4); UPDATE r SET n = 2 WHERE id = 5; UPDATE k SET n = 2",
    );
    run(
        &mut client,
        "SELECT bemi.sync(); DELETE FROM k WHERE m = 'gone'; DROP TABLE victim; DROP SCHEMA lost CASCADE; DELETE FROM pg_enum WHERE enumlabel = 'gone'",
    );
    let (state, text) = error(&mut client, &of("x"));
    assert_eq!(state, "27000", "{text}");
    for row in [
        "public.k gone (UPDATE)",
        "public.r 5 (UPDATE)",
        "public.r 3 (DELETE)",
        "public.r 2 (DELETE)",
        "public.r 1 (UPDATE)",
    ] {
        assert!(text.contains(&format!("{row}: what was recorded of ")), "{row}: {text}");
    }
    let shown = statements(&mut client, &of("x"));
    assert_eq!(shown.iter().filter(|statement| statement.starts_with("-- the ")).count(), 5, "{shown:#?}");
    // Each can be run as it stands, the others are nothing.
    client.batch_execute("BEGIN").unwrap();
    for statement in &shown {
        client.batch_execute(statement).unwrap();
    }
    assert_eq!(
        rows(&mut client, "r"),
        "(1,pg_class,ok,1) (4,pg_class,ok,1) (5,16384,ok,2)".replace("16384", &gone(&mut client))
    );
    client.batch_execute("ROLLBACK").unwrap();
    let done = revert(&mut client, &skipping("x"));
    assert_eq!(done.iter().filter(|line| line.contains(" skipped (what was recorded of ")).count(), 5, "{done:#?}");
    assert_eq!(rows(&mut client, "k"), "(ok,1)");
    // Labels that have another name: exact, or refused, but never another label.
    run(
        &mut client,
        "CREATE TYPE level AS ENUM ('low', 'high'); CREATE TABLE l (id int PRIMARY KEY, v level); SELECT bemi.track('l'); INSERT INTO l VALUES (1, 'low')",
    );
    under(&mut client, "label", "DELETE FROM l");
    run(&mut client, "SELECT bemi.sync(); ALTER TYPE level RENAME VALUE 'low' TO 'small'");
    let done = revert(&mut client, &skipping("label"));
    match done[0].contains(" reverted") {
        true => assert_eq!(rows(&mut client, "l"), "(1,small)"),
        false => assert!(
            done[0].contains("skipped (what was recorded of v") && rows(&mut client, "l").is_empty(),
            "{done:?}"
        ),
    }
    // Attributes that have another name.
    run(
        &mut client,
        "CREATE TYPE addr AS (street text, zip text); CREATE TABLE c (id int PRIMARY KEY, a addr, b addr[]); SELECT bemi.track('c'); \
         INSERT INTO c VALUES (1, ROW('Side', '222'), NULL), (2, NULL, ARRAY[ROW('Side', '222')]::addr[])",
    );
    under(&mut client, "attribute", "DELETE FROM c");
    run(&mut client, "SELECT bemi.sync(); ALTER TYPE addr RENAME ATTRIBUTE zip TO postcode");
    let done = revert(&mut client, &skipping("attribute"));
    match done.iter().all(|line| line.contains(" reverted")) {
        true => assert_eq!(rows(&mut client, "c"), "(1,\"(Side,222)\",) (2,,\"{\"\"(Side,222)\"\"}\")"),
        false => assert!(rows(&mut client, "c").is_empty(), "{done:?}: {}", rows(&mut client, "c")),
    }
}

/// The number of a table that is gone, as a value of type regclass shows it.
fn gone(client: &mut Client) -> String {
    client.query_one("SELECT c::oid::text FROM r WHERE id = 5", &[]).unwrap().get(0)
}

fn masked(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "revert_masked");
    run(
        &mut client,
        "CREATE TABLE u (id int PRIMARY KEY, name text, iban text); SELECT bemi.track('u', mask_columns => '{iban}'); INSERT INTO u VALUES (1, 'a', 'x')",
    );
    under(&mut client, "alone", "UPDATE u SET iban = 'y'");
    under(&mut client, "beside", "UPDATE u SET iban = NULL, name = 'b'");
    assert_eq!(revert(&mut client, &of("beside")), ["UPDATE u 1 partly reverted (masked, and left as they are: iban)"]);
    assert_eq!(
        revert(&mut client, &of("alone")),
        ["UPDATE u 1 unchanged (masked, and left as they are: iban. nothing to set)"]
    );
    assert_eq!(rows(&mut client, "u"), "(1,a,)");
    let statement: Option<String> =
        client.query_one(&format!("SELECT statement FROM bemi.revert({})", of("alone")), &[]).unwrap().get(0);
    assert_eq!(statement, None);
}

fn refused(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "revert_refused_skipped");
    run(
        &mut client,
        "CREATE TABLE u (id int PRIMARY KEY, iban text); SELECT bemi.track('u', mask_columns => '{iban}'); CREATE TABLE keyless (v text); SELECT bemi.track('keyless'); \
         CREATE TABLE gone (id int PRIMARY KEY); SELECT bemi.track('gone'); CREATE TABLE a (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v int); SELECT bemi.track('a'); \
         CREATE TABLE full_before (id int PRIMARY KEY); INSERT INTO full_before VALUES (1); SELECT bemi.track('full_before'); \
         INSERT INTO u VALUES (1, 'x'); INSERT INTO t VALUES (1, 'a'); INSERT INTO a (v) VALUES (1)",
    );
    under(
        &mut client,
        "x",
        "DELETE FROM u; INSERT INTO keyless VALUES ('a'); INSERT INTO gone VALUES (1); UPDATE t SET v = 'b'; UPDATE a SET id = DEFAULT; UPDATE a SET v = 2; TRUNCATE full_before",
    );
    run(&mut client, "SELECT bemi.sync(); DROP TABLE gone");
    let done = revert(&mut client, &skipping("x"));
    let expected = [
        "TRUNCATE full_before skipped (the rows that public.full_before had before its TRUNCATE at ",
        "UPDATE a 2 reverted",
        "UPDATE a 2 skipped (the column id is GENERATED ALWAYS AS IDENTITY and cannot be set)",
        "UPDATE t 1 reverted",
        "CREATE 1 skipped (public.gone: it is no longer there)",
        "CREATE keyless skipped (nothing names the row)",
        "DELETE u 1 skipped (the value of iban was masked)",
    ];
    assert_eq!(done.len(), expected.len(), "{done:#?}");
    for (line, start) in done.iter().zip(expected) {
        assert!(line.starts_with(start), "{done:#?}");
    }
    assert_eq!(rows(&mut client, "t"), "(1,a)");
}

fn idle_keys(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "revert_idle_keys");
    run(
        &mut client,
        "CREATE TABLE p (id int PRIMARY KEY, v text); CREATE TABLE c (id int PRIMARY KEY, p int CONSTRAINT k REFERENCES p ON DELETE CASCADE ON UPDATE CASCADE); SELECT bemi.track('p'); SELECT bemi.track('c')",
    );
    under(&mut client, "x", "INSERT INTO p VALUES (1, 'a')");
    run(&mut client, "INSERT INTO c VALUES (1, 1)");
    let asked = ["CREATE p 1 skipped (rows of public.c refer to it by the foreign key k, which would change them too)"];
    assert_eq!(revert(&mut client, &skipping("x")), asked);
    // A key that is not valid acts on the rows that do refer.
    run(
        &mut client,
        "ALTER TABLE c DROP CONSTRAINT k; ALTER TABLE c ADD CONSTRAINT k FOREIGN KEY (p) REFERENCES p ON DELETE CASCADE NOT VALID",
    );
    assert_eq!(revert(&mut client, &skipping("x")), asked);
    let mut idle = vec![("ALTER TABLE p DISABLE TRIGGER ALL", "ALTER TABLE p ENABLE TRIGGER ALL")];
    if server.major >= 18 {
        idle.push(("ALTER TABLE c ALTER CONSTRAINT k NOT ENFORCED", "ALTER TABLE c ALTER CONSTRAINT k ENFORCED"));
    }
    for (disable, enable) in idle {
        run(&mut client, &format!("BEGIN; {disable}"));
        assert_eq!(revert(&mut client, &of("x")), ["CREATE p 1 reverted"], "{disable}");
        assert_eq!((rows(&mut client, "p").as_str(), rows(&mut client, "c").as_str()), ("", "(1,1)"), "{disable}");
        run(&mut client, &format!("ROLLBACK; {enable}"));
        assert_eq!(revert(&mut client, &skipping("x")), asked, "{enable}");
    }
    // Without its triggers the session would let a revert break what all others keep.
    run(&mut client, "SET session_replication_role = replica");
    assert_eq!(revert(&mut client, &skipping("x")), asked);
    let role: String = client.query_one("SHOW session_replication_role", &[]).unwrap().get(0);
    assert_eq!(role, "replica");
}

/// Settings that anybody may set and that could matter, each with values that are not those of the session.
const TRIED: &str = "
  SELECT s.name, v.value FROM pg_settings s, LATERAL (
    SELECT CASE s.setting WHEN 'on' THEN 'off' ELSE 'on' END AS value WHERE s.vartype = 'bool'
    UNION ALL SELECT e FROM unnest(s.enumvals) e WHERE e <> s.setting
    UNION ALL SELECT u FROM unnest(ARRAY[s.min_val, s.max_val]) u WHERE s.vartype IN ('integer', 'real') AND s.name IN ('extra_float_digits', 'gin_fuzzy_search_limit')
  ) v
  WHERE s.context IN ('user', 'superuser') AND (s.category LIKE 'Client Connection Defaults%' OR s.category LIKE 'Version and Platform%' OR s.category LIKE 'Query Tuning%')
    -- What the transaction itself is.
    AND s.name NOT LIKE 'transaction\\_%' AND s.name NOT LIKE '%timeout%'
  UNION ALL SELECT o.name, o.value FROM (VALUES ('DateStyle', 'SQL, DMY'), ('DateStyle', 'German'), ('TimeZone', 'Asia/Kathmandu'), ('default_tablespace', 'pg_default'),
    ('plpgsql.extra_errors', 'all'), ('plpgsql.extra_warnings', 'all'), ('search_path', ''), ('search_path', 'public, pg_catalog'), ('timezone_abbreviations', 'India'),
    ('default_text_search_config', 'pg_catalog.german')) o (name, value)
  ORDER BY 1, 2";

fn settings(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "revert_settings");
    run(
        &mut client,
        "CREATE TYPE pair AS (a text[], x xml); CREATE TABLE s (id int PRIMARY KEY, a text[], p pair, x xml, i interval, b bytea, z timestamptz, y timestamp, d date, f float8, m money, t text, n text); SELECT bemi.track('s'); \
         INSERT INTO s VALUES (1, '{a,NULL}', ROW('{NULL}', 'text <b/>'), '<a/>text', '-1 mon +2 days -00:00:01', '\\x00ff5c', '2026-01-02 03:04+00', '2026-01-02 03:04', '2026-02-01', 0.1, 12.34, E'back\\\\slash '' \"', NULL)",
    );
    let before = rows(&mut client, "s");
    under(
        &mut client,
        "x",
        "UPDATE s SET a = '{}', p = NULL, x = '<b/>', i = '1 day', b = '', z = now(), y = now(), d = now(), f = 2, m = 1, t = '', n = ''; DELETE FROM s; INSERT INTO t VALUES (7, 'x')",
    );
    run(&mut client, "SELECT bemi.sync()");
    let tried: Vec<(String, String)> =
        client.query(TRIED, &[]).unwrap().iter().map(|row| (row.get(0), row.get(1))).collect();
    assert!(tried.len() > 60, "{}", tried.len());
    let shown = statements(&mut client, &of("x"));
    // Each with its first value, each with its second one, and so on; those of which there are no more with the last.
    let names: std::collections::BTreeSet<&String> = tried.iter().map(|(name, _)| name).collect();
    for round in 0..6 {
        client.batch_execute("BEGIN").unwrap();
        for name in &names {
            let values: Vec<&String> =
                tried.iter().filter(|(other, _)| other == *name).map(|(_, value)| value).collect();
            let set = format!("SET LOCAL {name} = {}", literal(name, values[round.min(values.len() - 1)]));
            client.batch_execute("SAVEPOINT s").unwrap();
            let end = if client.batch_execute(&set).is_ok() { "RELEASE s" } else { "ROLLBACK TO s" };
            client.batch_execute(end).unwrap();
        }
        assert_eq!(statements(&mut client, &of("x")), shown, "round {round}");
        let statement = format!("SELECT count(*) FILTER (WHERE status = 'reverted') FROM bemi.revert({})", of("x"));
        let done: i64 = client.query_one(&statement, &[]).unwrap_or_else(|e| panic!("{round}: {e:?}")).get(0);
        let history = "SELECT count(\"row\") FROM bemi.history(NULL::public.s, '1')";
        let history: i64 = client.query_one(history, &[]).unwrap_or_else(|e| panic!("{round}: {e:?}")).get(0);
        assert_eq!((done, history), (3, 2), "round {round}");
        client.batch_execute("RESET ALL").unwrap();
        assert_eq!(rows(&mut client, "s"), before, "round {round}");
        client.batch_execute("ROLLBACK").unwrap();
    }
}

/// A value of a setting in SET: those that are lists as they are.
fn literal(name: &str, value: &str) -> String {
    match name {
        "DateStyle" | "search_path" if !value.is_empty() => value.to_owned(),
        _ => format!("'{value}'"),
    }
}

fn time_zone(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "revert_time_zone");
    client
        .batch_execute(
            "CREATE TABLE z (id int PRIMARY KEY, v text); CREATE TABLE seen (zone text, style text, path text);
             CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               INSERT INTO seen VALUES (current_setting('timezone'), current_setting('datestyle'), current_setting('search_path')); RETURN NEW; END $$;
             CREATE TRIGGER look BEFORE UPDATE ON z FOR EACH ROW EXECUTE FUNCTION look(); SELECT bemi.track('z'); INSERT INTO z VALUES (1, 'a')",
        )
        .unwrap();
    under(&mut client, "x", "UPDATE z SET v = 'b'");
    run(
        &mut client,
        "TRUNCATE seen; SET timezone = 'Asia/Kathmandu'; SET datestyle = 'German'; SET search_path = public, pg_temp",
    );
    revert(&mut client, &of("x"));
    assert_eq!(rows(&mut client, "seen"), "(Asia/Kathmandu,\"German, DMY\",\"public, pg_temp\")");
    assert_eq!(sqlstate(client.query("SELECT bemi.revert_sql()", &[])), "22023");
}
