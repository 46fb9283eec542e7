//! `bemi.as_of` wherever SQL may have it, against `kept.as_of`, which answers from images.
use crate::Test;
use crate::as_of::{Said, seed, workload};
use crate::past::Past;
use crate::random::Random;
use crate::server::Server;
use crate::workload::{Kind, Table};

pub const TESTS: &[Test] = &[
    ("the_past_may_stand_wherever_sql_has_a_table", forms),
    ("a_generic_plan_reads_the_past_of_its_parameters", prepared),
    ("the_past_is_explained", explained),
    ("settings_of_the_reader_do_not_change_the_past", settings),
    ("values_of_every_type_come_back", types),
    ("a_row_is_put_back_from_the_past", put_back),
    ("functions_views_and_cursors_read_the_past", objects),
];

/// Queries of one column of text: `{as_of}` is the function, `{t}` the table, `{k}` its key, `{1}`, `{2}` and `{3}` are
/// values of it, `{at}` and `{then}` instants.
const FORMS: &[&str] = &[
    "SELECT to_jsonb(x)::text FROM {as_of}(NULL::{t}, {at}) x WHERE x.{k} = {1}",
    "SELECT to_jsonb(x)::text FROM {as_of}(NULL::{t}, {at}) x WHERE {1} = x.{k}",
    "SELECT to_jsonb(x)::text FROM {as_of}(NULL::{t}, {at}) x WHERE x.{k} IN ({1}, {2}, {3})",
    "SELECT to_jsonb(x)::text FROM {as_of}(NULL::{t}, {at}) x WHERE x.{k} IN ({1}, NULL)",
    "SELECT to_jsonb(x)::text FROM {as_of}(NULL::{t}, {at}) x WHERE x.{k} = ANY (ARRAY[{1}, {2}])",
    "SELECT to_jsonb(x)::text FROM {as_of}(NULL::{t}, {at}) x WHERE x.{k} = {1} OR x.{k} = {2}",
    "SELECT to_jsonb(x)::text FROM {as_of}(NULL::{t}, {at}) x WHERE x.{k} = {1} AND x.{k} = {2}",
    "SELECT to_jsonb(x)::text FROM {as_of}(NULL::{t}, {at}) x WHERE x.{k} = {1} AND x.lane = 0",
    "SELECT to_jsonb(x)::text FROM {as_of}(NULL::{t}, {at}) x WHERE x.{k} = {1} OR x.lane = 0",
    "SELECT to_jsonb(x)::text FROM {as_of}(NULL::{t}, {at}) x WHERE NOT x.{k} = {1}",
    "SELECT to_jsonb(x)::text FROM {as_of}(NULL::{t}, {at}) x WHERE (x.{k} = {1}) IS NOT TRUE",
    "SELECT to_jsonb(x)::text FROM {as_of}(NULL::{t}, {at}) x WHERE x.{k} <> {1}",
    "SELECT to_jsonb(x)::text FROM {as_of}(NULL::{t}, {at}) x WHERE x.{k} >= {1}",
    "SELECT to_jsonb(x)::text FROM {as_of}(NULL::{t}, {at}) x WHERE x.{k} = NULL",
    "SELECT to_jsonb(x)::text FROM {as_of}(NULL::{t}, {at}) x WHERE x.{k} IS NULL",
    "SELECT to_jsonb(x)::text FROM {as_of}(NULL::{t}, {at}) x WHERE x.{k}::text = {1}::text",
    "SELECT to_jsonb(x)::text FROM {as_of}(NULL::{t}, {at}) x WHERE x.{k} = (SELECT {1})",
    "SELECT to_jsonb(x)::text FROM {as_of}(NULL::{t}, {at}) x WHERE x.{k} IN (SELECT y.{k} FROM {as_of}(NULL::{t}, {then}) y)",
    "SELECT to_jsonb(x)::text FROM {as_of}(NULL::{t}, {at}) x WHERE EXISTS (SELECT FROM {as_of}(NULL::{t}, {then}) y WHERE y.{k} = x.{k})",
    "SELECT to_jsonb(x)::text FROM {as_of}(NULL::{t}, {at}) x WHERE NOT EXISTS (SELECT FROM {t} y WHERE y.{k} = x.{k})",
    "SELECT concat(to_jsonb(x), to_jsonb(y)) FROM {as_of}(NULL::{t}, {at}) x JOIN {as_of}(NULL::{t}, {then}) y USING ({k})",
    "SELECT concat(to_jsonb(x), to_jsonb(y)) FROM {as_of}(NULL::{t}, {at}) x FULL JOIN {as_of}(NULL::{t}, {then}) y ON x.{k} = y.{k}",
    "SELECT concat(to_jsonb(x), to_jsonb(y)) FROM {t} x LEFT JOIN {as_of}(NULL::{t}, {at}) y ON x.{k} = y.{k} WHERE x.{k} = {1}",
    "SELECT concat(to_jsonb(x), to_jsonb(y)) FROM {as_of}(NULL::{t}, {at}) x LEFT JOIN {as_of}(NULL::{t}, {then}) y ON x.{k} = y.{k} AND y.{k} = {1}",
    "SELECT concat(v.n, to_jsonb(x)) FROM (VALUES (1, {at}), (2, {then}), (3, {at})) v (n, at), {as_of}(NULL::{t}, v.at) x",
    "SELECT concat(v.n, to_jsonb(x)) FROM (VALUES (1, {at}), (2, {then})) v (n, at) CROSS JOIN LATERAL (SELECT * FROM {as_of}(NULL::{t}, v.at) x WHERE x.{k} = {1}) x",
    "SELECT concat(v, to_jsonb(x)) FROM (VALUES ({1}), ({2}), ({3})) v (v) LEFT JOIN LATERAL (SELECT * FROM {as_of}(NULL::{t}, {at}) x WHERE x.{k} = v.v) x ON true",
    "WITH x AS (SELECT * FROM {as_of}(NULL::{t}, {at})) SELECT to_jsonb(x)::text FROM x WHERE {k} = {1}",
    "WITH x AS MATERIALIZED (SELECT * FROM {as_of}(NULL::{t}, {at})) SELECT concat(to_jsonb(x), to_jsonb(y)) FROM x, x y WHERE x.{k} = y.{k}",
    "SELECT to_jsonb(x)::text FROM (SELECT ({as_of}(NULL::{t}, {at})).*) x",
    "SELECT to_jsonb(x)::text FROM (SELECT {as_of}(NULL::{t}, {at}) AS x) y",
    "SELECT to_jsonb({as_of}(NULL::{t}, {at}))::text",
    "SELECT to_jsonb(x)::text FROM (SELECT ({as_of}(NULL::{t}, {at})).{k}) x WHERE {k} = {1}",
    "SELECT (to_jsonb(x) - 'ordinality')::text FROM {as_of}(NULL::{t}, {at}) WITH ORDINALITY x",
    "SELECT count(DISTINCT ordinality)::text || max(ordinality) FROM {as_of}(NULL::{t}, {at}) WITH ORDINALITY x",
    "SELECT (to_jsonb(x) - 'generate_series' - 'ordinality')::text FROM ROWS FROM ({as_of}(NULL::{t}, {at}), generate_series(1, 200)) WITH ORDINALITY x WHERE {k} IS NOT NULL",
    "SELECT concat(count(*), count(x.generate_series)) FROM ROWS FROM (generate_series(1, 9), {as_of}(NULL::{t}, {at}), {as_of}(NULL::{t}, {then})) x",
    "SELECT concat(x::text IS NULL, to_jsonb(x)) FROM {as_of}(NULL::{t}, {at}) x",
    "SELECT to_jsonb(x)::text FROM {as_of}(NULL::{t}, {at}) AS x",
    "SELECT (SELECT count(*) FROM {as_of}(NULL::{t}, {at}))::text",
    "SELECT (x IS NULL)::text || (x = x)::text FROM (SELECT 1 FROM {as_of}(NULL::{t}, {at})) x",
    "SELECT count(*)::text FROM {as_of}(NULL::{t}, {at}) x",
    "SELECT count(*)::text FROM {as_of}(NULL::{t}, {at}) x WHERE false",
    "SELECT count(*)::text FROM (SELECT FROM {as_of}(NULL::{t}, {at}) LIMIT 3) x",
    "SELECT {k}::text FROM {as_of}(NULL::{t}, {at}) ORDER BY {k} OFFSET 2 LIMIT 5",
    "SELECT concat(lane, count(*), min({k}::text)) FROM {as_of}(NULL::{t}, {at}) GROUP BY lane HAVING count(*) > 0",
    "SELECT concat({k}, row_number() OVER (ORDER BY {k}, lane)) FROM {as_of}(NULL::{t}, {at})",
    "SELECT to_jsonb(x)::text FROM {as_of}(NULL::{t}, {at}) x EXCEPT ALL SELECT to_jsonb(x)::text FROM {as_of}(NULL::{t}, {then}) x",
    "SELECT to_jsonb(x)::text FROM (SELECT * FROM {as_of}(NULL::{t}, {at}) UNION ALL SELECT * FROM {as_of}(NULL::{t}, {then}) UNION ALL SELECT * FROM {t}) x WHERE {k} = {1}",
    "SELECT to_jsonb(x)::text FROM {as_of}((SELECT y FROM {t} y LIMIT 1), {at}) x",
    "SELECT to_jsonb(x)::text FROM {as_of}(NULL::{t}, (SELECT {at} + interval '0')) x",
    "SELECT to_jsonb(x)::text FROM {as_of}(NULL::{t}, 'infinity') x",
    "SELECT to_jsonb(x)::text FROM {as_of}(NULL::{t}, now()) x",
    "SELECT concat(y.{k}, z.n) FROM {t} y, LATERAL (SELECT count(*) AS n FROM {as_of}(NULL::{t}, {at}) x WHERE x.{k} = y.{k}) z",
];

/// Keys whose values sort and compare, a partitioned table among the tables, and instants of each.
fn each(server: &Server, name: &str, mut look: impl FnMut(&mut Past, &Table, &mut Random, &str, &str)) {
    let seed = seed();
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let kinds = [Kind::Plain, Kind::Plain, Kind::List];
    let (mut past, tables, log) = workload(server, name, &kinds, false, &mut random, 40);
    let _said = Said::new(seed, name, &log);
    let commits = past.commits();
    for table in &tables {
        let [at, then] =
            [commits.len() / 3, commits.len() - 3].map(|place| past.instants(&commits[place..=place])[0].clone());
        look(&mut past, table, &mut random, &at, &then);
    }
}

fn filled(form: &str, table: &Table, random: &mut Random, at: &str, then: &str) -> String {
    let mut query =
        form.replace("{t}", &table.name).replace("{k}", &table.key()).replace("{at}", at).replace("{then}", then);
    for place in ["{1}", "{2}", "{3}"] {
        query = query.replace(place, &table.value(random.below(24)));
    }
    query
}

fn forms(server: &Server) {
    let mut wrong = Vec::new();
    each(server, "past_forms", |past, table, random, at, then| {
        for form in FORMS {
            // Several values of the key: of a row then, of one that is gone, of one that never was.
            let times = if form.contains("{1}") { 3 } else { 1 };
            let mut differences = (0..times).filter_map(|_| past.difference(&filled(form, table, random, at, then)));
            wrong.extend(differences.next());
        }
    });
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n\n"));
}

fn prepared(server: &Server) {
    each(server, "past_prepared", |past, table, _, at, then| {
        for mode in ["auto", "force_generic_plan", "force_custom_plan"] {
            past.client.batch_execute(&format!("SET plan_cache_mode = {mode}")).unwrap();
            let kind = past.rows(&format!("SELECT format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = '{}'::regclass AND attname = '{}'",
                table.name.replace('\'', "''"), table.keys[0].name.replace('\'', "''")));
            for function in ["kept", "bemi"] {
                past.client
                    .batch_execute(&format!(
                        "PREPARE of_{function} ({}, timestamptz) AS SELECT to_jsonb(x)::text FROM {function}.as_of(NULL::{}, $2) x WHERE x.{} = $1",
                        kind[0], table.name, table.key()
                    ))
                    .unwrap();
            }
            for number in 0..14 {
                let at = if number % 2 == 0 { at } else { then };
                let rows = ["kept", "bemi"]
                    .map(|function| past.rows(&format!("EXECUTE of_{function} ({}, {at})", table.value(number))));
                assert_eq!(rows[0], rows[1], "{mode} {} {number} {at}", table.name);
            }
            past.client.batch_execute("DEALLOCATE ALL; RESET plan_cache_mode").unwrap();
            // By the protocol of a driver, with the key as text.
            let statement = format!(
                "SELECT to_jsonb(x)::text FROM bemi.as_of(NULL::{}, $2::text::timestamptz) x WHERE x.{}::text = $1",
                table.name,
                table.key()
            );
            let statement = past.client.prepare(&statement).unwrap();
            let keys = past.rows(&format!("SELECT {}::text FROM kept.as_of(NULL::{}, {at})", table.key(), table.name));
            let at = at.trim_start_matches("timestamptz ").trim_matches('\'');
            for key in keys.iter().take(7) {
                let found = past.client.query(&statement, &[key, &at]).unwrap();
                assert_eq!(found.len(), keys.iter().filter(|other| *other == key).count(), "{key} {at}");
            }
        }
    });
}

fn explained(server: &Server) {
    let mut wrong = Vec::new();
    each(server, "past_explained", |past, table, random, at, then| {
        for form in FORMS {
            let query = filled(form, table, random, at, then).replace("{as_of}", "bemi.as_of");
            for how in ["", "(ANALYZE, VERBOSE, BUFFERS)", "(COSTS OFF, FORMAT JSON)"] {
                match past.client.query(&format!("EXPLAIN {how} {query}"), &[]) {
                    Ok(rows) => assert!(!rows.is_empty(), "{query}"),
                    Err(error) => wrong.push(format!("EXPLAIN {how} {query}\n{:?}", error.as_db_error())),
                }
            }
        }
    });
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n\n"));
}

/// Values are compared as a table holds them, not as the settings show them.
fn settings(server: &Server) {
    each(server, "past_settings", |past, table, _, at, _| {
        for setting in [
            "TimeZone = 'Asia/Kathmandu'",
            "DateStyle = 'SQL, DMY'",
            "DateStyle = 'German'",
            "IntervalStyle = 'iso_8601'",
            "IntervalStyle = 'sql_standard'",
            "extra_float_digits = -3",
            "bytea_output = 'escape'",
            "search_path = pg_catalog",
            "search_path = ''",
            "xmloption = document",
            "enable_seqscan = off",
            "enable_hashjoin = off",
            "enable_hashagg = off",
            "work_mem = '64kB'",
            "row_security = off",
            "jit = on; SET jit_above_cost = 0",
            "standard_conforming_strings = off",
            "quote_all_identifiers = on",
            "default_transaction_isolation = 'serializable'",
            "plan_cache_mode = force_generic_plan",
            "array_nulls = off",
            "transform_null_equals = on",
            "max_parallel_workers_per_gather = 4; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0",
            "check_function_bodies = off",
            "lc_monetary = 'C'",
            "client_min_messages = error",
            "backslash_quote = off",
            "escape_string_warning = off",
        ] {
            past.client
                .batch_execute(&format!(
                    "SET {setting}; CREATE TEMP TABLE looked AS SELECT * FROM {} LIMIT 0;",
                    table.name
                ))
                .unwrap();
            past.client
                .batch_execute(&format!("INSERT INTO looked SELECT * FROM bemi.as_of(NULL::{}, {at})", table.name))
                .unwrap_or_else(|e| panic!("{setting}: {e:?}"));
            past.client.batch_execute("RESET ALL; SET TimeZone = 'UTC'").unwrap();
            let rows = [format!("kept.as_of(NULL::{}, {at})", table.name), "pg_temp.looked".to_owned()]
                .map(|source| past.rows(&format!("SELECT to_jsonb(x)::text FROM {source} x")));
            assert_eq!(rows[0], rows[1], "{setting}");
            past.client.batch_execute("DROP TABLE pg_temp.looked").unwrap();
        }
    });
}

/// Those of which the random tables have some at a time, and `hstore`, whose JSON is an object.
fn types(server: &Server) {
    let types = crate::differential::TYPES;
    let columns: Vec<String> = types.iter().enumerate().map(|(i, (kind, _))| format!("c{i} {kind}")).collect();
    let values: Vec<&str> = types.iter().map(|(_, value)| *value).collect();
    let setup = format!(
        "{};\nCREATE TABLE every (id int PRIMARY KEY, {}); SELECT bemi.track('every')",
        crate::differential::SETUP,
        columns.join(", ")
    );
    let mut past = Past::new(server, "past_types", &setup);
    past.then("SELECT setseed(0.5)");
    let insert = format!("INSERT INTO every SELECT i, {} FROM generate_series(1, 60) i", values.join(", "));
    let at = past.then(&format!("{insert}; CREATE TABLE images_of AS SELECT * FROM every"));
    past.then("DELETE FROM every");
    let mut wrong = Vec::new();
    for (i, (kind, _)) in types.iter().enumerate() {
        // As the table holds them: not by way of JSON.
        let rows = [format!("bemi.as_of(NULL::every, {at})"), "images_of".to_owned()].map(|source| {
            past.client.query(
                &format!("SELECT concat(id, ' ', to_jsonb(c{i}), ' ', c{i} IS NULL) FROM {source} x ORDER BY id"),
                &[],
            )
        });
        match rows {
            [Ok(found), Ok(expected)] => {
                let pairs = found.iter().zip(&expected).map(|(a, b)| (a.get::<_, String>(0), b.get::<_, String>(0)));
                wrong.extend(pairs.filter(|(a, b)| a != b).take(1).map(|(a, b)| format!("{kind}: {a} instead of {b}")));
                assert_eq!(found.len(), 60, "{kind}");
            }
            [found, _] => wrong.push(format!("{kind}: {:?}", found.err())),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// As somebody would who deleted too much.
fn put_back(server: &Server) {
    let mut past = Past::new(
        server,
        "past_put_back",
        "CREATE TABLE todo (id int PRIMARY KEY, gone int, task text, done bool DEFAULT false); ALTER TABLE todo DROP gone; SELECT bemi.track('todo')",
    );
    let at = past.then("INSERT INTO todo SELECT i, 'task ' || i FROM generate_series(1, 20) i");
    past.then(
        "DELETE FROM todo WHERE id > 5; UPDATE todo SET task = 'overwritten'; INSERT INTO todo VALUES (30, 'new')",
    );
    let rows = past.rows("SELECT t::text FROM todo t");
    let then = past.then(&format!("INSERT INTO todo SELECT * FROM bemi.as_of(NULL::todo, {at}) WHERE id = 7"));
    assert_eq!(past.rows("SELECT t::text FROM todo t WHERE id = 7"), ["(7,\"task 7\",f)"]);
    past.then(&format!(
        "UPDATE todo t SET task = p.task FROM bemi.as_of(NULL::todo, {at}) p WHERE p.id = t.id; \
         INSERT INTO todo SELECT * FROM bemi.as_of(NULL::todo, {at}) ON CONFLICT DO NOTHING; \
         DELETE FROM todo WHERE id NOT IN (SELECT id FROM bemi.as_of(NULL::todo, {at})); \
         CREATE TABLE copy AS SELECT * FROM bemi.as_of(NULL::todo, {then}) WHERE id <> 7"
    ));
    assert_eq!(
        past.rows("SELECT t::text FROM todo t"),
        past.rows(&format!("SELECT t::text FROM bemi.as_of(NULL::todo, {at}) t"))
    );
    assert_eq!(past.rows("SELECT t::text FROM copy t"), rows);
}

fn objects(server: &Server) {
    each(server, "past_objects", |past, table, random, at, then| {
        let value = table.value(random.below(24));
        for function in ["kept", "bemi"] {
            let text = "
              CREATE VIEW v_{f} AS SELECT * FROM {f}.as_of(NULL::{t}, {at});
              CREATE MATERIALIZED VIEW m_{f} AS SELECT * FROM {f}.as_of(NULL::{t}, {then});
              CREATE FUNCTION p_{f}(until timestamptz) RETURNS SETOF {t} LANGUAGE plpgsql AS $$
              DECLARE r {t};
              BEGIN
                FOR r IN SELECT * FROM {f}.as_of(NULL::{t}, until) LOOP RETURN NEXT r; END LOOP;
              END $$;
              CREATE FUNCTION q_{f}(until timestamptz) RETURNS bigint LANGUAGE plpgsql AS $$
              BEGIN
                RETURN (SELECT count(*) FROM {f}.as_of(NULL::{t}, until) x WHERE x.{k} = {1});
              EXCEPTION WHEN division_by_zero THEN RETURN NULL;
              END $$;
              CREATE FUNCTION s_{f}(until timestamptz) RETURNS SETOF {t} LANGUAGE sql AS $$ SELECT * FROM {f}.as_of(NULL::{t}, until) $$;
              CREATE TABLE c_{f} AS TABLE v_{f} WITH NO DATA; INSERT INTO c_{f} SELECT * FROM {f}.as_of(NULL::{t}, {at});";
            let text = text
                .replace("{f}", function)
                .replace("{t}", &table.name)
                .replace("{k}", &table.key())
                .replace("{1}", &value);
            let text = text.replace("{at}", at).replace("{then}", then);
            past.client.batch_execute(&text).unwrap_or_else(|e| panic!("{e:?}: {text}"));
        }
        let mut queries = vec![
            "SELECT to_jsonb(x)::text FROM v_{f} x".to_owned(),
            format!("SELECT to_jsonb(x)::text FROM v_{{f}} x WHERE {} = {value}", table.key()),
            "SELECT to_jsonb(x)::text FROM m_{f} x".to_owned(),
            "SELECT to_jsonb(x)::text FROM c_{f} x".to_owned(),
        ];
        for at in [at, then, "'infinity'"].iter().cycle().take(18) {
            queries.extend(["p_{f}", "s_{f}"].map(|name| format!("SELECT to_jsonb(x)::text FROM {name}({at}) x")));
            queries.push(format!("SELECT q_{{f}}({at})::text"));
        }
        for query in queries {
            let rows = ["kept", "bemi"].map(|function| past.rows(&query.replace("{f}", function)));
            assert_eq!(rows[0], rows[1], "{query}");
        }
        // A cursor goes back and forth, and stays when its transaction has ended.
        past.client
            .batch_execute(&format!(
                "BEGIN; DECLARE c SCROLL CURSOR WITH HOLD FOR SELECT to_jsonb(x)::text FROM bemi.as_of(NULL::{}, {at}) x; FETCH 2 FROM c; FETCH BACKWARD 1 FROM c; MOVE ABSOLUTE 0 IN c; COMMIT",
                table.name
            ))
            .unwrap();
        let expected = past.rows(&format!("SELECT to_jsonb(x)::text FROM kept.as_of(NULL::{}, {at}) x", table.name));
        assert_eq!(past.rows("FETCH ALL FROM c"), expected);
        past.client.batch_execute("CLOSE c").unwrap();
        for function in ["kept", "bemi"] {
            let text =
                "DROP VIEW v_{f}; DROP MATERIALIZED VIEW m_{f}; DROP FUNCTION p_{f}, q_{f}, s_{f}; DROP TABLE c_{f}";
            past.client.batch_execute(&text.replace("{f}", function)).unwrap();
        }
    });
}
