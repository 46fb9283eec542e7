//! Who reads the past runs nothing that the owners of tables wrote: no constraint of a domain, no cast.
use postgres::Client;

use crate::Test;
use crate::recorder::recording;
use crate::server::{Server, run, sqlstate};

pub const TESTS: &[Test] = &[
    ("reading_the_past_runs_no_constraint_of_a_domain", domains),
    ("reading_the_past_runs_no_cast_of_a_key", keys),
    ("reading_the_past_runs_no_cast_to_text_or_json", casts),
    ("what_only_a_domains_input_could_read_is_refused_with_a_hint", refused),
    ("domains_that_refuse_null_or_older_values_do_not_keep_the_past_from_being_read", stricter_today),
    ("hstore_within_arrays_domains_and_composite_types_is_read_back", nested_hstore),
];

/// A role that owns tables, and functions that note who runs them.
const SETUP: &str = "
    DO $$BEGIN CREATE ROLE trap_owner; EXCEPTION WHEN duplicate_object OR unique_violation THEN END$$;
    GRANT ALL ON SCHEMA public TO trap_owner;
    CREATE TABLE ran (who name, what text); GRANT INSERT ON ran TO PUBLIC;
    SET ROLE trap_owner;
    CREATE FUNCTION trap(what text) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN
      IF current_user <> 'trap_owner' THEN INSERT INTO public.ran VALUES (current_user, what); END IF; RETURN true; END$$;
    CREATE FUNCTION still(what text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$BEGIN
      IF current_user <> 'trap_owner' THEN RAISE EXCEPTION 'trap: % runs %', current_user, what; END IF; RETURN true; END$$;";

/// The rows of `ran`, as text.
fn ran(client: &mut Client) -> Vec<String> {
    client.query("SELECT who || ' ' || what FROM ran", &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

fn one(client: &mut Client, statement: &str) -> String {
    let result = client.query_one(statement, &[]);
    result.unwrap_or_else(|error| panic!("{statement}: {error:?}")).get::<_, Option<String>>(0).unwrap_or_default()
}

/// Reads the past of a table in all forms, as the superuser that the client is.
fn read_all(client: &mut Client, table: &str, key: &str, moment: &str, expected: &str) {
    let rows = format!("SELECT string_agg(q::text, ' ' ORDER BY q::text) FROM bemi.as_of(NULL::{table}, '{moment}') q");
    assert_eq!(one(client, &rows), expected, "{table}");
    let rows = format!(
        "SELECT string_agg(q::text, ' ' ORDER BY q::text) FROM (SELECT bemi.as_of(NULL::{table}, '{moment}') AS q) x"
    );
    assert_eq!(one(client, &rows), expected, "{table}");
    let count = |client: &mut Client, from: &str| one(client, &format!("SELECT count(*)::text FROM {from}"));
    let whole = count(client, &format!("bemi.as_of(NULL::{table}, '{moment}')"));
    assert_eq!(
        count(client, &format!("(VALUES ('{moment}'::timestamptz)) m (at), LATERAL bemi.as_of(NULL::{table}, m.at)")),
        whole
    );
    run(
        client,
        &format!(
            "CREATE VIEW past_of AS SELECT * FROM bemi.as_of(NULL::{table}, '{moment}');
             CREATE FUNCTION past_in() RETURNS bigint LANGUAGE sql AS $$SELECT count(*) FROM bemi.as_of(NULL::{table}, '{moment}')$$;
             PREPARE past_by(timestamptz) AS SELECT count(*)::text FROM bemi.as_of(NULL::{table}, $1)"
        ),
    );
    assert_eq!(count(client, "past_of"), whole);
    assert_eq!(one(client, "SELECT past_in()::text"), whole);
    run(client, &format!("EXECUTE past_by('{moment}')"));
    run(client, "DROP VIEW past_of; DROP FUNCTION past_in(); DEALLOCATE past_by");
    assert_eq!(
        one(client, &format!("SELECT count(\"row\")::text FROM bemi.history(NULL::{table}, '{key}')")),
        "2",
        "{table}"
    );
    assert!(count(client, &format!("bemi.revert_sql(relation => '{table}'::regclass)")).parse::<u32>().unwrap() > 1);
}

/// Records two versions of a row of a table that the trap's owner makes; gives a time between them.
fn two_versions(client: &mut Client, table: &str, columns: &str, insert: &str, update: &str) -> String {
    run(
        client,
        &format!(
            "SET ROLE trap_owner; CREATE TABLE {table} ({columns}); SELECT bemi.track('{table}'); INSERT INTO {table} VALUES ({insert})"
        ),
    );
    let moment = one(client, "SELECT clock_timestamp()::text");
    run(client, &format!("UPDATE {table} SET {update}; RESET ROLE; SELECT bemi.sync()"));
    moment
}

fn domains(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "reading_domains");
    client.batch_execute(SETUP).unwrap();
    run(
        &mut client,
        "CREATE DOMAIN d AS text CHECK (trap('check ' || value)) CHECK (still('constant'));
         CREATE DOMAIN dd AS d CHECK (trap('upper check'));
         CREATE DOMAIN later AS int; ALTER DOMAIN later ADD CHECK (trap('not valid')) NOT VALID;
         CREATE TYPE c AS (a d, l later, n d[]);
         CREATE DOMAIN dc AS c CHECK (trap('composite'));
         CREATE DOMAIN ds AS d[] CHECK (trap('array'))",
    );
    let cases = [
        ("plain", "d", "'a'", "'b'", "(1,a)"),
        ("upper", "dd", "'a'", "'b'", "(1,a)"),
        ("unvalidated", "later", "1", "2", "(1,1)"),
        ("listed", "d[]", "'{a,NULL,\"b c\"}'", "'{}'", "(1,\"{a,NULL,\"\"b c\"\"}\")"),
        ("matrix", "dd[]", "'{{a,b},{c,d}}'", "'{}'", "(1,\"{{a,b},{c,d}}\")"),
        ("composed", "c", "ROW('a', 1, '{x,y}')", "ROW('b', 2, NULL)", "(1,\"(a,1,\"\"{x,y}\"\")\")"),
        ("composed_more", "dc[]", "ARRAY[ROW('a', 1, '{x}')]::dc[]", "'{}'", "(1,\"{\"\"(a,1,{x})\"\"}\")"),
        ("composed_less", "dc", "ROW('a', NULL, NULL)", "NULL", "(1,\"(a,,)\")"),
        ("listed_less", "ds", "'{a}'", "NULL", "(1,{a})"),
    ];
    for (table, kind, old, new, expected) in cases {
        let moment = two_versions(
            &mut client,
            table,
            &format!("id int PRIMARY KEY, v {kind}"),
            &format!("1, {old}"),
            &format!("v = {new}"),
        );
        read_all(&mut client, table, "1", &moment, expected);
    }
    // A partition of it, and a column that was added later, which was null then.
    run(
        &mut client,
        "SET ROLE trap_owner; CREATE TABLE parted (id int PRIMARY KEY, v dd) PARTITION BY RANGE (id); CREATE TABLE part PARTITION OF parted FOR VALUES FROM (0) TO (9);
         SELECT bemi.track('parted'); INSERT INTO parted VALUES (1, 'a')",
    );
    let moment = one(&mut client, "SELECT clock_timestamp()::text");
    run(&mut client, "UPDATE parted SET v = 'b'; RESET ROLE; SELECT bemi.sync()");
    read_all(&mut client, "parted", "1", &moment, "(1,a)");
    read_all(&mut client, "part", "1", &moment, "(1,a)");
    let moment = two_versions(&mut client, "grown", "id int PRIMARY KEY", "1", "id = 1");
    run(
        &mut client,
        "SET ROLE trap_owner; INSERT INTO grown VALUES (2); ALTER TABLE grown ADD v d; UPDATE grown SET v = 'x' WHERE id = 2; RESET ROLE",
    );
    assert_eq!(
        one(&mut client, &format!("SELECT string_agg(q::text, ' ') FROM bemi.as_of(NULL::grown, '{moment}') q")),
        "(1,)"
    );
    assert_eq!(ran(&mut client), Vec::<String>::new());
}

fn keys(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "reading_keys");
    client.batch_execute(SETUP).unwrap();
    client.batch_execute(
        "CREATE TYPE e AS ENUM ('x', 'y');
         CREATE FUNCTION to_e(text) RETURNS e LANGUAGE plpgsql AS $$BEGIN PERFORM trap('cast to enum'); RETURN 'x'; END$$;
         CREATE CAST (text AS e) WITH FUNCTION to_e(text) AS IMPLICIT;
         CREATE DOMAIN k AS text CHECK (trap('key')); CREATE DOMAIN n AS numeric(6, 2) CHECK (trap('key'));
         CREATE DOMAIN b AS char(5) CHECK (trap('key')); CREATE DOMAIN ke AS e CHECK (trap('key'));
         CREATE TYPE r AS RANGE (subtype = text); CREATE DOMAIN kr AS r CHECK (trap('key'))",
    ).unwrap();
    let cases = [
        ("enums", "e", "y"),
        ("texts", "k", "a b"),
        ("numbers", "n", "1.50"),
        ("padded", "b", "ab   "),
        ("labels", "ke", "y"),
        ("ranges", "r", "[a,b)"),
        ("range_domains", "kr", "[a,b)"),
    ];
    for (table, kind, key) in cases {
        let moment =
            two_versions(&mut client, table, &format!("id {kind} PRIMARY KEY, v int"), &format!("'{key}', 1"), "v = 2");
        let shown = one(&mut client, &format!("SELECT (q.id, 1)::text FROM {table} q"));
        read_all(&mut client, table, key, &moment, &shown);
    }
    let moment = two_versions(&mut client, "pairs", "a e, b k, v int, PRIMARY KEY (a, b)", "'y', 'z', 1", "v = 2");
    read_all(&mut client, "pairs", "[\"y\",\"z\"]", &moment, "(y,z,1)");
    assert_eq!(ran(&mut client), Vec::<String>::new());
}

fn casts(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "reading_casts");
    client.batch_execute(SETUP).unwrap();
    client.batch_execute(
        "CREATE TYPE e AS ENUM ('x', 'y'); CREATE TYPE c AS (a e, n int);
         CREATE FUNCTION e_text(e) RETURNS text LANGUAGE plpgsql AS $$BEGIN PERFORM trap('cast to text'); RETURN 'lie'; END$$;
         CREATE FUNCTION e_json(e) RETURNS json LANGUAGE plpgsql AS $$BEGIN PERFORM trap('cast to json'); RETURN '[1]'; END$$;
         CREATE FUNCTION c_text(c) RETURNS text LANGUAGE plpgsql AS $$BEGIN PERFORM trap('cast to text'); RETURN 'lie'; END$$;
         CREATE FUNCTION j_c(jsonb) RETURNS c LANGUAGE plpgsql AS $$BEGIN PERFORM trap('cast of jsonb'); RETURN NULL; END$$;
         CREATE CAST (e AS text) WITH FUNCTION e_text(e) AS IMPLICIT; CREATE CAST (e AS json) WITH FUNCTION e_json(e) AS IMPLICIT;
         CREATE CAST (c AS text) WITH FUNCTION c_text(c) AS IMPLICIT; CREATE CAST (jsonb AS c) WITH FUNCTION j_c(jsonb) AS IMPLICIT",
    ).unwrap();
    let moment = two_versions(
        &mut client,
        "t1",
        "id e PRIMARY KEY, v c, w c[], u e[]",
        "'y', ROW('x', 1), ARRAY[ROW('y', 2)]::c[], '{x,y}'",
        "v = NULL, w = NULL, u = NULL",
    );
    read_all(&mut client, "t1", "y", &moment, "(y,\"(x,1)\",\"{\"\"(y,2)\"\"}\",\"{x,y}\")");
    let statement = one(&mut client, "SELECT s FROM bemi.revert_sql(relation => 't1') s WHERE s LIKE 'UPDATE%'");
    assert!(statement.contains("'(x,1)'::public.c") && statement.contains("'{\"(y,2)\"}'::public.c[]"), "{statement}");
    assert_eq!(ran(&mut client), Vec::<String>::new());
}

fn refused(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "reading_refused");
    client.batch_execute(SETUP).unwrap();
    client.batch_execute(
        "CREATE DOMAIN d AS text CHECK (trap('bound')); CREATE DOMAIN calm AS text; CREATE TYPE r AS RANGE (subtype = d); CREATE TYPE q AS RANGE (subtype = calm);
         CREATE TYPE c AS (v r, n int);",
    ).unwrap();
    for (table, kind, value) in
        [("ranges", "r", "'[a,b)'"), ("lists", "r[]", "'{\"[a,b)\"}'"), ("members", "c", "ROW('[a,b)', 1)")]
    {
        let moment = two_versions(
            &mut client,
            table,
            &format!("id int PRIMARY KEY, v {kind}"),
            &format!("1, {value}"),
            "v = NULL",
        );
        for read in [format!("bemi.as_of(NULL::{table}, '{moment}')"), format!("bemi.history(NULL::{table}, '1')")] {
            let failed = client.query(&format!("SELECT * FROM {read} q"), &[]).unwrap_err();
            let error = failed.as_db_error().unwrap();
            assert_eq!(
                (error.code().code(), error.hint().map(|hint| hint.starts_with("SET ROLE trap_owner;"))),
                ("42501", Some(true)),
                "{error:?}"
            );
        }
        // Who wrote it may run it.
        run(&mut client, "GRANT SELECT ON bemi.changes TO trap_owner; SET ROLE trap_owner");
        assert_eq!(
            one(&mut client, &format!("SELECT count(v)::text FROM bemi.as_of(NULL::{table}, '{moment}')")),
            "1",
            "{table}"
        );
        run(&mut client, "RESET ROLE");
    }
    let moment = two_versions(&mut client, "calmly", "id q PRIMARY KEY, v int", "'[a,b)', 1", "v = 2");
    read_all(&mut client, "calmly", "[a,b)", &moment, "(\"[a,b)\",1)");
    assert_eq!(sqlstate(client.query("SELECT bemi.image_row(1, 0, '{}')", &[])), "XX000");
    assert_eq!(ran(&mut client), Vec::<String>::new());
}

fn stricter_today(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "reading_stricter");
    run(
        &mut client,
        "CREATE DOMAIN email AS text NOT NULL; CREATE TABLE masked (id int PRIMARY KEY, m email, n int); SELECT bemi.track('masked', mask_columns => '{m}'); INSERT INTO masked VALUES (1, 'a@b', 1)",
    );
    let moment = one(&mut client, "SELECT clock_timestamp()::text");
    run(&mut client, "UPDATE masked SET n = 2; SELECT bemi.sync()");
    assert_eq!(one(&mut client, &format!("SELECT q::text FROM bemi.as_of(NULL::masked, '{moment}') q")), "(1,,1)");
    assert_eq!(
        one(&mut client, "SELECT string_agg(\"row\"::text, ' ') FROM bemi.history(NULL::masked, '1')"),
        "(1,,2) (1,,1)"
    );
    run(
        &mut client,
        "CREATE TABLE added (id int PRIMARY KEY, n int); SELECT bemi.track('added'); INSERT INTO added VALUES (1, 1), (2, 2)",
    );
    let moment = one(&mut client, "SELECT clock_timestamp()::text");
    run(
        &mut client,
        "UPDATE added SET n = 3 WHERE id = 1; ALTER TABLE added ADD m email DEFAULT 'x@y'; SELECT bemi.sync()",
    );
    assert_eq!(
        one(
            &mut client,
            &format!("SELECT string_agg(q::text, ' ' ORDER BY id) FROM bemi.as_of(NULL::added, '{moment}') q")
        ),
        "(1,1,) (2,2,)"
    );
    assert_eq!(
        one(&mut client, "SELECT string_agg(\"row\"::text, ' ') FROM bemi.history(NULL::added, '1')"),
        "(1,3,) (1,1,)"
    );
    // A constraint that older values would not meet.
    run(
        &mut client,
        "CREATE DOMAIN small AS int; CREATE TABLE was_big (id int PRIMARY KEY, v small); SELECT bemi.track('was_big'); INSERT INTO was_big VALUES (1, 1000)",
    );
    let moment = one(&mut client, "SELECT clock_timestamp()::text");
    run(&mut client, "UPDATE was_big SET v = 1; ALTER DOMAIN small ADD CHECK (value < 10); SELECT bemi.sync()");
    assert_eq!(one(&mut client, &format!("SELECT q::text FROM bemi.as_of(NULL::was_big, '{moment}') q")), "(1,1000)");
    assert_eq!(
        one(&mut client, "SELECT string_agg(\"row\"::text, ' ') FROM bemi.history(NULL::was_big, '1')"),
        "(1,1) (1,1000)"
    );
}

fn nested_hstore(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "reading_hstore");
    run(
        &mut client,
        "CREATE SCHEMA away; CREATE EXTENSION hstore SCHEMA away; CREATE DOMAIN hs AS away.hstore; CREATE TYPE ch AS (h away.hstore, n int); CREATE DOMAIN dch AS ch",
    );
    let value = r#"'"a\"b"=>"c\\d", "e"=>NULL, "f"=>""'::away.hstore"#;
    let cases = [
        ("away.hstore", value.to_owned()),
        ("hs", value.to_owned()),
        ("away.hstore[]", format!("ARRAY[{value}, NULL]")),
        ("hs[]", format!("ARRAY[{value}]::hs[]")),
        ("ch", format!("ROW({value}, 1)::ch")),
        ("ch[]", format!("ARRAY[ROW({value}, 1)]::ch[]")),
        ("dch", format!("ROW({value}, 1)::ch")),
    ];
    for (index, (kind, value)) in cases.iter().enumerate() {
        let table = format!("h{index}");
        run(
            &mut client,
            &format!(
                "CREATE TABLE {table} (id int PRIMARY KEY, v {kind}); SELECT bemi.track('{table}'); INSERT INTO {table} VALUES (1, {value})"
            ),
        );
        let (seen, moment) = (
            one(&mut client, &format!("SELECT v::text FROM {table}")),
            one(&mut client, "SELECT clock_timestamp()::text"),
        );
        run(&mut client, &format!("UPDATE {table} SET v = NULL; SELECT bemi.sync()"));
        assert_eq!(
            one(&mut client, &format!("SELECT v::text FROM bemi.as_of(NULL::{table}, '{moment}')")),
            seen,
            "{kind}"
        );
        assert_eq!(
            one(&mut client, &format!("SELECT max(((\"row\").v)::text) FROM bemi.history(NULL::{table}, '1')")),
            seen,
            "{kind}"
        );
        run(&mut client, &format!("SELECT bemi.revert(relation => '{table}', since => '{moment}')"));
        assert_eq!(one(&mut client, &format!("SELECT v::text FROM {table}")), seen, "{kind}");
    }
}
