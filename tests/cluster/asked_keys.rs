//! Keys as people write them: found by the equality of their types, or refused by name.
use postgres::Client;

use crate::Test;
use crate::past::Past;
use crate::server::{Server, run, sqlstate};

pub const TESTS: &[Test] = &[
    ("a_key_is_found_however_its_type_lets_it_be_written", spellings),
    ("a_key_that_its_type_does_not_know_is_refused_by_name", refused),
    ("equal_keys_of_other_texts_are_one_history", one_history),
    ("the_history_of_a_table_is_found_by_its_name", by_name),
    ("who_may_read_the_changes_may_read_a_history_by_name", readers),
    ("looking_for_a_key_runs_nothing_of_others", runs_nothing),
];

/// A type, a value, and texts by which its row is found.
const KEYS: &[(&str, &str, &[&str])] = &[
    ("int", "7", &["7", "07", " 7 ", "+7"]),
    ("bigint", "-7", &["-7", "-007"]),
    ("numeric", "1.0", &["1", "1.0", "1e0", "01.000"]),
    ("numeric(6, 2)", "1.5", &["1.5", "1.50", "1.500"]),
    ("char(4)", "b", &["b", "b   ", "b "]),
    ("varchar(4)", "b ", &["b "]),
    ("citext", "Ab", &["Ab", "ab", "AB"]),
    (
        "uuid",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        &["A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "{a0eebc999c0b4ef8bb6d6bb9bd380a11}"],
    ),
    (
        "timestamptz",
        "2026-11-20 11:00+00",
        &["2026-11-20T11:00:00+00:00", "2026-11-20 12:00+01", "20 Nov 2026 11:00 UTC"],
    ),
    ("timestamp", "2026-11-20 11:00", &["2026-11-20T11:00:00", "2026-11-20 11:00"]),
    ("date", "2026-11-20", &["2026-11-20", "Nov 20, 2026"]),
    ("bytea", "\\x00ff", &["\\x00ff", "\\x00FF", "\\000\\377"]),
    ("bool", "t", &["t", "true", "on", "1"]),
    ("inet", "10.0.0.1", &["10.0.0.1", "10.0.0.1/32"]),
    ("macaddr", "08:00:2b:01:02:03", &["08002b010203", "08-00-2B-01-02-03"]),
    ("mood", "ok", &["ok"]),
    ("code", "x", &["x"]),
    ("caseless", "Xy", &["xY", "Xy"]),
    ("interval", "1 mon", &["1 mon", "30 days", "P1M"]),
    ("int4range", "[1,5)", &["[1,5)", "[1,4]"]),
    ("numrange", "[1.0,2)", &["[1,2)", "[1.00,2.0)"]),
    ("float8", "1.5", &["1.5", "15e-1"]),
    ("text", "[\"a\"]", &["[\"a\"]"]),
];

const SETUP: &str = "CREATE EXTENSION citext; CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN code AS text CHECK (value <> ''); CREATE DOMAIN caseless AS citext CHECK (value <> '')";

/// How many versions each form has of a row.
fn counts(client: &mut Client, table: &str, key: &str) -> [i64; 4] {
    [
        format!("bemi.history(NULL::{table}, $1)"),
        format!("bemi.history('{table}', $1)"),
        format!("bemi.revert_sql(relation => '{table}', primary_key => $1)"),
        format!("bemi.revert_sql(context => '{{\"of\": \"{table}\"}}', primary_key => $1)"),
    ]
    .map(|form| {
        let statement = format!("SELECT count(*) FROM {form}");
        client.query_one(&statement, &[&key]).unwrap_or_else(|e| panic!("{table} {key}: {e:?}")).get(0)
    })
}

fn spellings(server: &Server) {
    let mut past = Past::new(server, "asked_spellings", SETUP);
    let mut keys: Vec<(String, String, Vec<String>)> = KEYS
        .iter()
        .map(|(kind, value, texts)| {
            ((*kind).to_owned(), (*value).to_owned(), texts.iter().map(|text| (*text).to_owned()).collect())
        })
        .collect();
    // Without ICU there are no collations that are not deterministic.
    let collation = "CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)";
    if past.client.batch_execute(collation).is_ok() {
        keys.push(("text COLLATE ci".to_owned(), "Foo".to_owned(), vec!["foo".to_owned(), "FOO".to_owned()]));
    }
    for (place, (kind, value, texts)) in keys.iter().enumerate() {
        past.client
            .batch_execute(&format!(
                "CREATE TABLE k{place} (k {kind} PRIMARY KEY, v int); CREATE TABLE m{place} (a int, k {kind}, v int, PRIMARY KEY (k, a)); SELECT bemi.track('k{place}'); SELECT bemi.track('m{place}')"
            ))
            .unwrap();
        for (table, columns) in [(format!("k{place}"), "k, v"), (format!("m{place}"), "k, a, v")] {
            let values = if columns == "k, v" { "$1::text, 1" } else { "$1::text, 1, 1" }.replace(
                "$1::text",
                &format!("CAST('{}' AS {})", value.replace('\'', "''"), kind.replace(" COLLATE ci", "")),
            );
            past.client
                .batch_execute(&format!(
                    "BEGIN; SELECT bemi.set_context('{{\"of\": \"{table}\"}}', true); INSERT INTO {table} ({columns}) VALUES ({values}); UPDATE {table} SET v = 2; COMMIT"
                ))
                .unwrap_or_else(|e| panic!("{kind}: {e:?}"));
        }
        let ask = |client: &mut Client, form: String, key: &str| -> i64 {
            let statement = format!("SELECT count(*) FROM {form}");
            client.query_one(&statement, &[&key]).unwrap_or_else(|e| panic!("{form} {key}: {e:?}")).get(0)
        };
        for text in texts {
            assert_eq!(ask(&mut past.client, format!("bemi.history('k{place}', $1)"), text), 2, "{kind} {text}");
        }
        let (first, last) = (&texts[0], &texts[texts.len() - 1]);
        assert_eq!(counts(&mut past.client, &format!("k{place}"), last), [2; 4], "{kind} {last}");
        // As jsonb writes it, and with numbers.
        let form = format!("bemi.history(NULL::m{place}, $1)");
        for key in [format!("[{}, \"1\"]", serde_json::json!(last)), format!("[{},1]", serde_json::json!(first))] {
            assert_eq!(ask(&mut past.client, form.clone(), &key), 2, "{kind} {key}");
        }
    }
    // Not cut or rounded to another key.
    for (kind, text) in
        [("char(4)", "bbbbb"), ("varchar(4)", "b    x"), ("numeric(6, 2)", "1.504"), ("citext", "ab "), ("text", "x")]
    {
        let place = keys.iter().position(|key| key.0 == kind).unwrap();
        assert_eq!(counts(&mut past.client, &format!("k{place}"), text), [0; 4], "{kind} {text}");
    }
}

fn refused(server: &Server) {
    let mut past = Past::new(
        server,
        "asked_refused",
        "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TABLE i (id int PRIMARY KEY, v int); CREATE TABLE e (m mood PRIMARY KEY); CREATE TABLE p (a int, b date, PRIMARY KEY (b, a)); SELECT bemi.track_all()",
    );
    past.then("INSERT INTO i VALUES (1, 1); INSERT INTO e VALUES ('ok'); INSERT INTO p VALUES (1, '2026-01-01')");
    for (table, key, column) in [
        ("i", "x", "id"),
        ("i", "", "id"),
        ("i", "99999999999", "id"),
        ("e", "nope", "m"),
        ("p", "1", "b, a"),
        ("p", "[\"2026-01-01\"]", "b, a"),
        ("p", "[\"2026-01-01\", null]", "b, a"),
        ("p", "{\"a\": 1}", "b, a"),
        ("p", "[\"2026-13-01\", 1]", "b"),
        ("p", "[\"2026-01-01\", \"one\"]", "a"),
    ] {
        for form in [
            format!("bemi.history(NULL::{table}, $1)"),
            format!("bemi.history('{table}', $1)"),
            format!("bemi.revert_sql(relation => '{table}', primary_key => $1)"),
            format!("bemi.revert(relation => '{table}', primary_key => $1)"),
        ] {
            let failed = past.client.query(&format!("SELECT * FROM {form}"), &[&key]).expect_err(&form);
            let error = failed.as_db_error().unwrap();
            let detail = error.detail().unwrap_or_default();
            assert_eq!(error.code().code(), "22P02", "{form} {key}: {error:?}");
            assert_eq!(
                error.message(),
                format!("'{key}' cannot be a key of public.{table}").replace(&format!("'{key}'"), &quoted(table, key)),
                "{form}"
            );
            assert!(
                detail.contains(&format!(" {column} ")) || detail.contains(&format!("columns {column}.")),
                "{form} {key}: {detail}"
            );
        }
    }
    // Without a table, it is a key of those that have such keys.
    let count = |past: &mut Past, key: &str| -> i64 {
        let statement = "SELECT count(*) FROM bemi.revert_sql(since => now() - interval '1 hour', primary_key => $1)";
        past.client.query_one(statement, &[&key]).unwrap().get(0)
    };
    assert_eq!((count(&mut past, "01"), count(&mut past, "ok"), count(&mut past, "nothing")), (1, 1, 0));
}

/// The part of a key that an error names.
fn quoted(table: &str, key: &str) -> String {
    match (table, key) {
        ("p", "[\"2026-13-01\", 1]") => "'2026-13-01'".to_owned(),
        ("p", "[\"2026-01-01\", \"one\"]") => "'one'".to_owned(),
        _ => format!("'{key}'"),
    }
}

fn one_history(server: &Server) {
    let mut past = Past::new(
        server,
        "asked_one_history",
        "CREATE EXTENSION citext; CREATE TABLE n (k numeric PRIMARY KEY, v int); CREATE TABLE c (k citext PRIMARY KEY, v int); CREATE TABLE f (k char(3) PRIMARY KEY, v int); SELECT bemi.track_all()",
    );
    past.then("INSERT INTO n VALUES (1.0, 1); DELETE FROM n; INSERT INTO n VALUES (1.00, 2); UPDATE n SET k = 1.000; UPDATE n SET k = 5");
    past.then("INSERT INTO c VALUES ('a', 1); UPDATE c SET k = 'A'; DELETE FROM c; INSERT INTO c VALUES ('A', 2)");
    past.then("INSERT INTO f VALUES ('a', 1); ALTER TABLE f ALTER k TYPE char(5); UPDATE f SET v = 2");
    for (table, key, count) in [("n", "1", 5), ("n", "1.0000", 5), ("c", "a", 4), ("f", "a", 2), ("f", "a    ", 2)] {
        for form in [format!("NULL::{table}"), format!("'{table}'")] {
            let statement = format!("SELECT count(*) FROM bemi.history({form}, $1)");
            let found: i64 = past.client.query_one(&statement, &[&key]).unwrap().get(0);
            assert_eq!(found, count, "{form} {key}");
        }
    }
    // Keys of before that are none of today's do not keep others from being found.
    past.then("CREATE TABLE was (k text PRIMARY KEY, v int); SELECT bemi.track('was'); INSERT INTO was VALUES ('word', 1), ('1.0', 1); DELETE FROM was WHERE k = 'word'");
    past.then("ALTER TABLE was ALTER k TYPE numeric USING k::numeric; UPDATE was SET v = 2; SELECT bemi.sync()");
    let found: i64 = past.client.query_one("SELECT count(*) FROM bemi.history('was', '1')", &[]).unwrap().get(0);
    assert_eq!(found, 2);
}

fn by_name(server: &Server) {
    let mut past = Past::new(
        server,
        "asked_by_name",
        "CREATE SCHEMA \"a b\"; CREATE TABLE todo (id int PRIMARY KEY, task text, secret text); CREATE TABLE \"a b\".\"T.x\" (id int PRIMARY KEY, v int); \
         CREATE TABLE parted (id int PRIMARY KEY, v int) PARTITION BY RANGE (id); CREATE TABLE part PARTITION OF parted FOR VALUES FROM (0) TO (9); \
         SELECT bemi.track('todo', mask_columns => '{secret}'), bemi.track('\"a b\".\"T.x\"'), bemi.track('parted')",
    );
    past.then("INSERT INTO todo VALUES (26, 'Sleep', 's'); UPDATE todo SET task = 'Wake'; INSERT INTO \"a b\".\"T.x\" VALUES (1, 1); INSERT INTO parted VALUES (1, 1)");
    let forms = [
        "'todo', '26'",
        "'todo', 26",
        "'public.todo', '026'",
        "'todo'::regclass, '26'",
        "'todo'::regclass, 26",
        "relation => 'todo', primary_key => '26'",
        "'todo', 26::numeric",
    ];
    let expected = [
        "1 CREATE {\"id\": 26, \"task\": \"Sleep\", \"secret\": null}",
        "2 UPDATE {\"id\": 26, \"task\": \"Wake\", \"secret\": null}",
    ];
    let life = |past: &mut Past, form: &str| {
        past.rows(&format!("SELECT concat_ws(' ', version, operation, \"row\") FROM bemi.history({form})"))
    };
    for form in forms {
        assert_eq!(life(&mut past, form), expected, "{form}");
    }
    assert_eq!(past.rows("SELECT count(*)::text FROM bemi.history(NULL::todo, 26)"), ["2"]);
    assert_eq!(life(&mut past, "'\"a b\".\"T.x\"', 1").len(), 1);
    // Columns that have another name today, and a key that is one no more.
    past.then("ALTER TABLE todo RENAME task TO what");
    assert_eq!(life(&mut past, "'todo', 26")[0], "1 CREATE {\"id\": 26, \"what\": \"Sleep\", \"secret\": null}");
    past.then("SELECT bemi.sync(); ALTER TABLE parted DROP CONSTRAINT parted_pkey; ALTER TABLE todo RENAME TO tasks");
    assert_eq!(life(&mut past, "'parted', '1'").len(), 1);
    assert_eq!(life(&mut past, "'todo', '26'").len(), 2, "by the name that it had last");
    past.then("DROP TABLE tasks, parted, \"a b\".\"T.x\"");
    for (form, count) in
        [("'tasks', '26'", 2), ("'public.todo', 26", 2), ("'parted', '1'", 1), ("'\"a b\".\"T.x\"', '1'", 1)]
    {
        assert_eq!(life(&mut past, form).len(), count, "{form}");
    }
    past.then("CREATE TABLE todo (id int PRIMARY KEY, v text); SELECT bemi.track('todo'); INSERT INTO todo VALUES (26, 'new')");
    assert_eq!(life(&mut past, "'todo', '26'"), ["1 CREATE {\"v\": \"new\", \"id\": 26}"]);
    for (form, state) in [
        ("'nothing', '1'", "42P01"),
        ("'a.b.c', '1'", "42601"),
        ("'bad\"', '1'", "22023"),
        ("'public.pg_class', '1'", "42P01"),
    ] {
        assert_eq!(sqlstate(past.client.query(&format!("SELECT * FROM bemi.history({form})"), &[])), state, "{form}");
    }
}

fn readers(server: &Server) {
    let mut past =
        Past::new(server, "asked_readers", "CREATE TABLE t (id int PRIMARY KEY, v text); SELECT bemi.track('t')");
    past.then("INSERT INTO t VALUES (1, 'a'); CREATE ROLE asked_reader; SET ROLE asked_reader");
    let by_name = "SELECT * FROM bemi.history('t', '1')";
    assert_eq!(sqlstate(past.client.query(by_name, &[])), "42501");
    past.then("RESET ROLE; GRANT SELECT ON bemi.changes TO asked_reader; SET ROLE asked_reader");
    assert_eq!(past.client.query(by_name, &[]).unwrap().len(), 1);
    assert_eq!(sqlstate(past.client.query("SELECT * FROM bemi.history(NULL::t, '1')", &[])), "42501");
    past.then("RESET ROLE; ALTER TABLE bemi.changes ENABLE ROW LEVEL SECURITY; SET ROLE asked_reader");
    assert_eq!(past.client.query(by_name, &[]).unwrap().len(), 0, "policies hold");
    past.then("RESET ROLE; ALTER TABLE bemi.changes DISABLE ROW LEVEL SECURITY; DROP OWNED BY asked_reader; DROP ROLE asked_reader");
}

fn runs_nothing(server: &Server) {
    let mut past = Past::new(server, "asked_runs_nothing", "CREATE EXTENSION citext");
    past.client
        .batch_execute(
            "CREATE ROLE asked_owner; GRANT ALL ON SCHEMA public TO asked_owner; SET ROLE asked_owner;
             CREATE FUNCTION trap() RETURNS void LANGUAGE plpgsql AS $$ BEGIN IF current_user <> 'asked_owner' THEN RAISE 'trapped'; END IF; END $$;
             CREATE TYPE e AS ENUM ('x', 'y'); CREATE DOMAIN d AS numeric CHECK (trap() IS NULL OR true); CREATE DOMAIN ct AS citext CHECK (trap() IS NULL OR true);
             CREATE FUNCTION to_e(text) RETURNS e LANGUAGE plpgsql AS $$ BEGIN PERFORM trap(); RETURN 'x'; END $$; CREATE CAST (text AS e) WITH FUNCTION to_e(text) AS IMPLICIT;
             CREATE FUNCTION from_e(e) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM trap(); RETURN 'x'; END $$; CREATE CAST (e AS text) WITH FUNCTION from_e(e) AS IMPLICIT;
             CREATE FUNCTION json_e(e) RETURNS json LANGUAGE plpgsql AS $$ BEGIN PERFORM trap(); RETURN '1'; END $$; CREATE CAST (e AS json) WITH FUNCTION json_e(e) AS IMPLICIT;
             CREATE FUNCTION same(e, e) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM trap(); RETURN true; END $$; CREATE OPERATOR = (LEFTARG = e, RIGHTARG = e, FUNCTION = same);
             CREATE FUNCTION same(ct, ct) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM trap(); RETURN true; END $$; CREATE OPERATOR = (LEFTARG = ct, RIGHTARG = ct, FUNCTION = same);
             CREATE TABLE te (k e PRIMARY KEY, v int); CREATE TABLE td (k d PRIMARY KEY, v int); CREATE TABLE tc (k ct, a d, v int, PRIMARY KEY (a, k));
             SELECT bemi.track_all();
             INSERT INTO te VALUES ('y'::e, 1); INSERT INTO td VALUES (1.0, 1); INSERT INTO tc VALUES ('Ab', 1.0, 1); RESET ROLE; SELECT bemi.sync()",
        )
        .unwrap();
    for (table, key) in [("te", "y"), ("td", "1"), ("tc", "[1, \"aB\"]")] {
        for form in [
            format!("bemi.history(NULL::{table}, $1)"),
            format!("bemi.history('{table}', $1)"),
            format!("bemi.revert_sql(relation => '{table}', primary_key => $1)"),
        ] {
            let found = past.client.query(&format!("SELECT * FROM {form}"), &[&key]);
            assert_eq!(found.unwrap_or_else(|e| panic!("{form} {key}: {e:?}")).len(), 1, "{form} {key}");
        }
    }
    // A cast of its row type to text leaves the call without a function that is meant, and is not run.
    past.client
        .batch_execute(
            "SET ROLE asked_owner; CREATE FUNCTION row_text(te) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM trap(); RETURN 'td'; END $$;
             CREATE CAST (te AS text) WITH FUNCTION row_text(te) AS IMPLICIT; RESET ROLE",
        )
        .unwrap();
    let state = past
        .client
        .query("SELECT * FROM bemi.history(NULL::te, 'y')", &[])
        .map_or_else(|e| e.code().map(|c| c.code().to_owned()), |_| None);
    assert!(state.is_none() || state.as_deref() == Some("42725"), "{state:?}");
    assert_eq!(past.client.query("SELECT * FROM bemi.history('te', 'y')", &[]).unwrap().len(), 1);
    run(&mut past.client, "DROP OWNED BY asked_owner CASCADE; DROP ROLE asked_owner");
}
