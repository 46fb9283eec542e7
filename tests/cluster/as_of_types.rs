//! The rows of the past have exactly the types of the table's columns, whatever those are and wherever the call stands.
use postgres::{Client, SimpleQueryMessage};

use crate::Test;
use crate::recorder::recording;
use crate::server::{Server, run, sqlstate};

pub const TESTS: &[Test] = &[
    ("columns_of_any_type_and_modifier_may_be_added", added),
    ("generated_columns_of_any_type_and_modifier_are_computed", generated),
    ("a_virtual_column_that_came_later_is_null_before", virtual_later),
    ("a_virtual_column_that_cannot_be_computed_of_an_old_version_is_null_and_said", virtual_failing),
    ("a_virtual_column_of_a_partition_is_computed_as_the_table_that_is_read_does", virtual_partitions),
    ("errors_of_the_past_show_no_generated_query", contexts),
];

/// Types with a value of each.
const TYPES: &[(&str, &str)] = &[
    ("varchar(7)", "'ab'"),
    ("char(4)", "'ab'"),
    ("bpchar", "'ab '"),
    ("\"char\"", "'x'"),
    ("text COLLATE \"C\"", "'ab'"),
    ("varchar(3) COLLATE \"POSIX\"", "'ab'"),
    ("bit(3)", "B'101'"),
    ("varbit(5)", "B'11'"),
    ("numeric", "1.25"),
    ("numeric(6,2)", "1.25"),
    ("numeric(7)", "125"),
    ("timestamp(0)", "'2026-01-02 03:04:05'"),
    ("timestamptz(2)", "'2026-01-02 03:04:05.67+00'"),
    ("time(1)", "'03:04:05.6'"),
    ("timetz(3)", "'03:04:05.678+02'"),
    ("interval(1)", "'1 day 2.3 seconds'"),
    ("interval year", "'3 years'"),
    ("interval day to second(2)", "'1 day 2.34 seconds'"),
    ("varchar(3)[]", "'{ab,NULL}'"),
    ("char(3)[]", "'{ab}'"),
    ("numeric(4,1)[]", "'{{1.5},{2.5}}'"),
    ("bit(2)[]", "'{10,01}'"),
    ("timestamp(0)[]", "'{2026-01-02 03:04:05}'"),
    ("interval hour to minute[]", "'{03:04}'"),
    ("int", "7"),
    ("jsonb", "'{\"a\":[1]}'"),
    ("bytea", "'\\x00ff'"),
    ("inet", "'10.0.0.1'"),
    ("point", "'(1,2)'"),
    ("int4range", "'[1,5)'"),
    ("uuid", "'11111111-2222-3333-4444-555555555555'"),
    ("tsvector", "'a b'"),
];

fn now(client: &mut Client) -> String {
    client.query_one("SELECT (clock_timestamp() AT TIME ZONE 'UTC')::text || '+00'", &[]).unwrap().get(0)
}

/// The rows of a query in one text, by their column `id`, without what is null.
fn rows(client: &mut Client, query: &str) -> String {
    let query = format!(
        "SELECT COALESCE(jsonb_agg(jsonb_strip_nulls(to_jsonb(x)) ORDER BY x.id), '[]')::text FROM ({query}) x"
    );
    client.query_one(&query, &[]).unwrap_or_else(|error| panic!("{query}: {error:?}")).get(0)
}

/// Makes what stays from before the columns are added: a view, a function, and prepared statements.
fn prepare(client: &mut Client, table: &str, suffix: &str) {
    run(
        client,
        &format!(
            "CREATE VIEW view{suffix} AS SELECT * FROM bemi.as_of(NULL::{table}, current_setting('test.at')::timestamptz); \
             CREATE VIEW call{suffix} AS SELECT x.* FROM same(current_setting('test.at')::timestamptz) s, bemi.as_of(NULL::{table}, s) x; \
             PREPARE statement{suffix}(timestamptz) AS SELECT * FROM bemi.as_of(NULL::{table}, $1); \
             PREPARE row{suffix}(timestamptz) AS SELECT to_jsonb(x)::text FROM bemi.as_of(NULL::{table}, $1) x ORDER BY id"
        ),
    );
}

/// Looks at a table at a time in every form.
fn look(client: &mut Client, table: &str, at: &str, expected: &str, suffixes: &[&str]) {
    let forms = [
        "SELECT * FROM bemi.as_of(NULL::{t}, {at})",
        "SELECT (a).* FROM (SELECT bemi.as_of(NULL::{t}, {at}) AS a OFFSET 0) x",
        "SELECT (bemi.as_of(NULL::{t}, {at})).*",
        "SELECT x.* FROM (VALUES ({at})) v (at), bemi.as_of(NULL::{t}, v.at) x",
        "SELECT x.* FROM (VALUES ({at})) v (at) LEFT JOIN LATERAL (SELECT * FROM bemi.as_of(NULL::{t}, v.at) x OFFSET 0) x ON true WHERE x.id IS NOT NULL",
        "SELECT * FROM bemi.as_of(NULL::{t}, same({at}))",
        "SELECT (x).* FROM bemi.as_of(NULL::{t}, {at}) x",
        "SELECT (x).* FROM bemi.as_of(NULL::{t}, same({at})) x",
        "SELECT * FROM bemi.as_of((SELECT t FROM {t} t LIMIT 1), {at})",
        "SELECT * FROM ROWS FROM (bemi.as_of(NULL::{t}, {at}))",
        "SELECT * FROM bemi.as_of(NULL::{t}, {at}) WHERE id IN (1, 2, 3)",
        "SELECT * FROM bemi.as_of(NULL::{t}, {at}) UNION ALL SELECT * FROM {t} WHERE false",
        "WITH x AS MATERIALIZED (SELECT * FROM bemi.as_of(NULL::{t}, same({at}))) SELECT * FROM x",
        "SELECT (x).* FROM (SELECT unnest(array_agg(whole)) AS x FROM bemi.as_of(NULL::{t}, {at}) whole) x",
        "SELECT * FROM returned({at})",
        "SELECT * FROM looped({at})",
    ];
    let at = format!("'{at}'::timestamptz");
    for form in forms {
        let query = form.replace("{t}", table).replace("{at}", &at);
        assert_eq!(rows(client, &query), expected, "{query}");
    }
    run(client, &format!("SET test.at = {}", at.replace("::timestamptz", "")));
    for suffix in suffixes {
        for view in ["view", "call"] {
            assert_eq!(rows(client, &format!("SELECT * FROM {view}{suffix}")), expected, "{view}{suffix}");
        }
        for mode in ["force_custom_plan", "force_generic_plan"] {
            run(client, &format!("SET plan_cache_mode = {mode}"));
            let shown = client.simple_query(&format!("EXECUTE row{suffix}({at})")).unwrap();
            let shown: Vec<&str> = shown
                .iter()
                .filter_map(|message| match message {
                    SimpleQueryMessage::Row(row) => row.get(0),
                    _ => None,
                })
                .collect();
            let query =
                "SELECT COALESCE(jsonb_agg(jsonb_strip_nulls(j)), '[]')::text FROM unnest($1::text[]::jsonb[]) j";
            let shown: String = client.query_one(query, &[&shown]).unwrap().get(0);
            assert_eq!(shown, expected, "EXECUTE row{suffix}, {mode}");
            client.batch_execute(&format!("EXECUTE statement{suffix}({at})")).unwrap();
        }
    }
    client
        .batch_execute(&format!(
            "RESET plan_cache_mode; BEGIN; DECLARE c SCROLL CURSOR FOR SELECT * FROM bemi.as_of(NULL::{table}, {at}) ORDER BY id; \
             FETCH ALL FROM c; FETCH BACKWARD ALL FROM c; COMMIT; \
             BEGIN; CREATE TEMP TABLE made ON COMMIT DROP AS SELECT * FROM bemi.as_of(NULL::{table}, {at}); \
             CREATE TEMP TABLE called ON COMMIT DROP AS SELECT (bemi.as_of(NULL::{table}, {at})).*"
        ))
        .unwrap_or_else(|error| panic!("{table} at {at}: {error:?}"));
    let types = "SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod) || ' ' || attcollation, ', ' ORDER BY attnum) \
                 FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped";
    let own: String = client.query_one(types, &[&table]).unwrap().get(0);
    for made in ["made", "called"] {
        assert_eq!(client.query_one(types, &[&made]).unwrap().get::<_, String>(0), own);
        assert_eq!(rows(client, &format!("SELECT * FROM {made}")), expected, "{made}");
    }
    run(client, "COMMIT");
}

fn functions(client: &mut Client, table: &str) {
    client
        .batch_execute(&format!(
            "CREATE FUNCTION same(at timestamptz) RETURNS timestamptz LANGUAGE plpgsql VOLATILE AS $$ BEGIN RETURN at; END $$;
             CREATE FUNCTION returned(at timestamptz) RETURNS SETOF {table} LANGUAGE plpgsql AS $$
             BEGIN RETURN QUERY SELECT * FROM bemi.as_of(NULL::{table}, at); END $$;
             CREATE FUNCTION looped(at timestamptz) RETURNS SETOF {table} LANGUAGE plpgsql AS $$
             DECLARE one {table}; BEGIN FOR one IN SELECT * FROM bemi.as_of(NULL::{table}, same(at)) LOOP RETURN NEXT one; END LOOP; END $$"
        ))
        .unwrap();
}

/// What the history of a key has, from the oldest version on.
fn history(client: &mut Client, table: &str, key: &str) -> Vec<String> {
    let query = format!(
        "SELECT jsonb_build_array(jsonb_strip_nulls(to_jsonb(h.\"row\")))::text FROM bemi.history(NULL::{table}, '{key}') h ORDER BY version"
    );
    client.query(&query, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

fn added(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "past_added_types");
    // A few at a time: the columns of a row are many as it is.
    for (part, types) in TYPES.chunks(11).enumerate() {
        added_columns(&mut client, &format!("s{part}"), types);
    }
}

/// Alters a table. Newer minor versions refuse to write it anew while a view uses its row type: then the views are dropped
/// before, and it is false.
fn alter(client: &mut Client, suffix: &str, statement: &str) -> bool {
    let Err(error) = client.batch_execute(statement) else { return true };
    assert!(format!("{error:?}").contains("uses its row type"), "{error:?}");
    run(client, &format!("DROP VIEW view{suffix}, call{suffix}; {statement}"));
    false
}

fn added_columns(client: &mut Client, table: &str, types: &[(&str, &str)]) {
    run(
        client,
        &format!(
            "DROP FUNCTION IF EXISTS same, returned, looped CASCADE; CREATE TABLE {table} (id int PRIMARY KEY, n int); SELECT bemi.track('{table}'); \
             INSERT INTO {table} VALUES (1, 1), (2, 2), (3, 3)"
        ),
    );
    functions(client, table);
    let (earlier, later) = (format!("_before_{table}"), format!("_after_{table}"));
    prepare(client, table, &earlier);
    let first = now(client);
    let at_first = rows(client, &format!("SELECT * FROM {table}"));
    run(client, &format!("UPDATE {table} SET n = 20 WHERE id = 2; DELETE FROM {table} WHERE id = 3"));
    let mut has_views = true;
    for (number, (name, value)) in types.iter().enumerate() {
        let domain = format!("{table}_{number}");
        let array = if name.ends_with(']') { name.to_string() } else { format!("d{domain}[]") };
        run(
            client,
            &format!(
                "CREATE DOMAIN d{domain} AS {name}; CREATE DOMAIN e{domain} AS d{domain}; CREATE DOMAIN f{domain} AS e{domain} NOT NULL; \
                 ALTER TABLE {table} ADD a{number} {name}"
            ),
        );
        has_views &= alter(
            client,
            &earlier,
            &format!(
                "ALTER TABLE {table} ADD b{number} {name} DEFAULT {value}, ADD c{number} d{domain} DEFAULT {value}, \
                 ADD d{number} e{domain}, ADD e{number} f{domain} DEFAULT {value}, ADD f{number} {array}, ADD g{number} {name} NOT NULL DEFAULT {value}"
            ),
        );
    }
    prepare(client, table, &later);
    let second = now(client);
    let at_second = rows(client, &format!("SELECT * FROM {table}"));
    let sets: Vec<String> = types
        .iter()
        .enumerate()
        .map(|(number, (name, value))| {
            let array =
                if name.ends_with(']') { value.to_string() } else { format!("ARRAY[{value}::d{table}_{number}]") };
            format!("a{number} = {value}, d{number} = {value}, f{number} = {array}")
        })
        .collect();
    run(client, &format!("UPDATE {table} SET {} WHERE id = 2", sets.join(", ")));
    let third = now(client);
    let at_third = rows(client, &format!("SELECT * FROM {table}"));
    let last = rows(client, &format!("SELECT * FROM {table} WHERE id = 2"));
    run(client, &format!("DELETE FROM {table} WHERE id = 2; UPDATE {table} SET n = 100"));
    for (at, expected) in [(&first, &at_first), (&second, &at_second), (&third, &at_third)] {
        look(client, table, at, expected, &[&later]);
    }
    // A view and a statement that were made before have the columns of before, as those of a table have.
    run(client, &format!("SET test.at = '{third}'"));
    let narrow = rows(client, &format!("SELECT id, n FROM bemi.as_of(NULL::{table}, '{third}')"));
    for view in ["view", "call"].iter().filter(|_| has_views) {
        assert_eq!(rows(client, &format!("SELECT * FROM {view}{earlier}")), narrow);
    }
    // The server analyzes the statement again only if something else made it do so, and then refuses it as one of a table.
    let outcome = client.simple_query(&format!("EXECUTE statement{earlier}('{third}')"));
    match outcome {
        Ok(shown) => {
            let width = |message: &SimpleQueryMessage| match message {
                SimpleQueryMessage::Row(row) => row.len(),
                _ => 2,
            };
            assert!(shown.iter().all(|message| width(message) == 2), "{shown:?}");
        }
        outcome => assert_eq!(sqlstate(outcome), "0A000"),
    }
    client.batch_execute(&format!("EXECUTE row{earlier}('{third}')")).unwrap();
    let versions = history(client, table, "2");
    assert_eq!(versions.len(), 4);
    assert_eq!((&versions[0][..], &versions[2]), (r#"[{"n": 2, "id": 2}]"#, &last));
}

/// Expressions of columns of the table, and types that they are assigned to.
const GENERATED: &[(&str, &str)] = &[
    ("varchar(7)", "b"),
    ("char(4)", "b"),
    ("text COLLATE \"C\"", "b"),
    ("varchar(9) COLLATE \"POSIX\"", "b COLLATE \"C\""),
    ("numeric", "a / 3"),
    ("numeric(6,2)", "a / 3"),
    ("int", "a / 3"),
    ("smallint", "a"),
    ("double precision", "a / 3"),
    ("timestamp(0)", "ts"),
    ("date", "ts"),
    ("time(0)", "ts::time"),
    ("interval day to second(1)", "iv"),
    ("interval hour", "iv"),
    ("bit(3)", "B'101'"),
    ("varbit(5)", "bb"),
    ("numeric(4,1)[]", "ARRAY[a]"),
    ("varchar(4)[]", "ARRAY[b, NULL]"),
    ("int[]", "ARRAY[a, 1]"),
    ("boolean", "tableoid > 5::oid"),
];

fn generated(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "past_generated_types");
    let kinds: &[&str] = if server.major >= 18 { &["STORED", "VIRTUAL"] } else { &["STORED"] };
    for kind in kinds {
        let table = format!("g_{}", kind.to_lowercase());
        let columns: Vec<String> = GENERATED
            .iter()
            .enumerate()
            .map(|(number, (name, expression))| format!(", c{number} {name} GENERATED ALWAYS AS ({expression}) {kind}"))
            .collect();
        run(
            &mut client,
            &format!(
                "DROP FUNCTION IF EXISTS same, returned, looped CASCADE; CREATE TABLE {table} (id int PRIMARY KEY, a numeric, b text, ts timestamp, iv interval, bb varbit{}); \
                 SELECT bemi.track('{table}'); INSERT INTO {table} (id, a, b, ts, iv, bb) VALUES (1, 2, 'ab', '2026-01-02 03:04:05.678', '1 day 02:03:04.567', B'11'), \
                 (2, 7, 'x', 'infinity', '5 years', B''), (3, NULL, NULL, NULL, NULL, NULL)",
                columns.concat()
            ),
        );
        functions(&mut client, &table);
        prepare(&mut client, &table, &format!("_{kind}"));
        let first = now(&mut client);
        let at_first = rows(&mut client, &format!("SELECT * FROM {table}"));
        let version = rows(&mut client, &format!("SELECT * FROM {table} WHERE id = 1"));
        run(&mut client, &format!("UPDATE {table} SET a = 100 WHERE id = 1; DELETE FROM {table} WHERE id = 2"));
        look(&mut client, &table, &first, &at_first, &[&format!("_{kind}")]);
        let current = rows(&mut client, &format!("SELECT * FROM {table} WHERE id = 1"));
        assert_eq!(history(&mut client, &table, "1"), [version, current]);
        let again = now(&mut client);
        let at_again = rows(&mut client, &format!("SELECT * FROM {table}"));
        look(&mut client, &table, &again, &at_again, &[&format!("_{kind}")]);
    }
}

fn virtual_later(server: &Server) {
    if server.major < 18 {
        return;
    }
    let (_database, mut client, _stop) = recording(server, "past_virtual_later");
    run(&mut client, "INSERT INTO t (v) VALUES ('a'), ('b'), ('c')");
    let first = now(&mut client);
    run(
        &mut client,
        "UPDATE t SET v = 'aa' WHERE id = 1; ALTER TABLE t ADD g varchar(4) GENERATED ALWAYS AS (v || '!') VIRTUAL; DELETE FROM t WHERE id = 2",
    );
    let second = now(&mut client);
    run(&mut client, "UPDATE t SET v = 'z'");
    let all = |client: &mut Client, at: &str| rows(client, &format!("SELECT id, g FROM bemi.as_of(NULL::t, '{at}')"));
    assert_eq!(all(&mut client, &first), r#"[{"id": 1}, {"id": 2}, {"id": 3}]"#);
    assert_eq!(all(&mut client, &second), r#"[{"g": "aa!", "id": 1}, {"g": "c!", "id": 3}]"#);
    assert_eq!(
        history(&mut client, "t", "1"),
        [r#"[{"v": "a", "id": 1}]"#, r#"[{"v": "aa", "id": 1}]"#, r#"[{"g": "z!", "v": "z", "id": 1}]"#]
    );
}

fn virtual_failing(server: &Server) {
    if server.major < 18 {
        return;
    }
    let (_database, mut client, _stop) = recording(server, "past_virtual_failing");
    let (mut listening, notices) = server.connect_listening("past_virtual_failing", "postgres");
    run(
        &mut client,
        "CREATE TABLE q (id int PRIMARY KEY, a int, g int GENERATED ALWAYS AS (10 / a) VIRTUAL); SELECT bemi.track('q'); \
         INSERT INTO q VALUES (1, 0), (2, 5); UPDATE q SET a = 2",
    );
    let shown = history(&mut listening, "q", "1");
    assert_eq!(shown, [r#"[{"a": 0, "id": 1}]"#, r#"[{"a": 2, "g": 5, "id": 1}]"#]);
    let said = notices.take();
    assert!(matches!(&said[..], [one] if one.contains("public.q") && one.contains("division by zero")), "{said:?}");
}

fn virtual_partitions(server: &Server) {
    if server.major < 18 {
        return;
    }
    let (_database, mut client, _stop) = recording(server, "past_virtual_partitions");
    run(
        &mut client,
        "CREATE TABLE p (id int PRIMARY KEY, a int, g int GENERATED ALWAYS AS (a * 2) VIRTUAL) PARTITION BY RANGE (id); \
         CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10); \
         CREATE TABLE p2 (a int, id int NOT NULL, g int GENERATED ALWAYS AS (a * 3) VIRTUAL); ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (10) TO (20); \
         SELECT bemi.track('p'); INSERT INTO p VALUES (1, 5), (11, 5)",
    );
    let at = now(&mut client);
    let expected = ["p", "p2"].map(|table| rows(&mut client, &format!("SELECT * FROM {table}")));
    run(&mut client, "UPDATE p SET a = 100");
    for (table, expected) in ["p", "p2"].iter().zip(expected) {
        for query in ["SELECT * FROM bemi.as_of(NULL::{t}, '{at}')", "SELECT (bemi.as_of(NULL::{t}, '{at}')).*"] {
            let query = query.replace("{t}", table).replace("{at}", &at);
            assert_eq!(rows(&mut client, &query), expected, "{query}");
        }
    }
}

/// Whoever reads the error is to see what went wrong, not pages of SQL.
fn contexts(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "past_contexts");
    run(
        &mut client,
        "CREATE TABLE h (id int PRIMARY KEY, v text); SELECT bemi.track('h'); INSERT INTO h VALUES (1, '1')",
    );
    let at = now(&mut client);
    // Damaged, so that no type can read it.
    run(
        &mut client,
        "UPDATE h SET v = '2'; SELECT bemi.sync(); UPDATE bemi.changes SET before = before || '{\"id\":\"no number\"}', after = after || '{\"id\":\"no number\"}' WHERE \"table\" = 'h'",
    );
    for query in [
        format!("SELECT * FROM bemi.as_of(NULL::h, '{at}')"),
        format!("SELECT bemi.as_of(NULL::h, '{at}')"),
        format!("SELECT x.* FROM (VALUES ('{at}'::timestamptz)) v (at), bemi.as_of(NULL::h, v.at) x"),
        "SELECT * FROM bemi.history(NULL::h, '1')".to_owned(),
    ] {
        let Err(error) = client.query(&query, &[]) else { continue };
        let said = error.as_db_error().unwrap();
        let context = said.where_().unwrap_or_default();
        assert!(context.len() < 400 && !context.contains("bemi.changes"), "{query}: {context}");
        assert!(!matches!(said.position(), Some(postgres::error::ErrorPosition::Internal { .. })), "{query}: {said:?}");
    }
    for query in ["SELECT * FROM bemi.as_of(NULL::h, '2000-01-01')", "SELECT bemi.as_of(NULL::h, '2000-01-01')"] {
        let error = client.query(query, &[]).expect_err("nobody knows");
        let context = error.as_db_error().unwrap().where_().unwrap_or_default().to_owned();
        assert!(context.len() < 1000 && !context.contains("WITH late"), "{query}: {context}");
    }
}
