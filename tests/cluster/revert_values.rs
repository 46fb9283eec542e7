//! Names and values of any kind, undone: what was there comes back, and nothing else is run.
use std::process::Stdio;

use crate::Test;
use crate::recorder::recording;
use crate::revert::{NEWEST, of, revert, rows, statements, under};
use crate::server::{Server, run};

pub const TESTS: &[Test] = &[
    ("statements_of_any_names_and_values_run_in_psql_as_they_are", hostile),
    ("every_value_that_is_undone_comes_back", types),
    ("values_of_types_of_extensions_come_back", extensions),
];

fn hostile(server: &Server) {
    let (database, mut client, _stop) = recording(server, "revert_hostile");
    let names = ["a\"b'c;--", "/* */", "$$x$$", "new\nline", "caf\u{e9} :v", "back\\slash", "%s %I %L", "SELECT"];
    for name in names {
        let quoted = format!("\"{}\"", name.replace('"', "\"\""));
        let kind = format!("{quoted}.\"{} kind\"", name.replace('"', "\"\""));
        let values = names.map(|value| format!("'{}'", value.replace('\'', "''")));
        client
            .batch_execute(&format!(
                "CREATE SCHEMA {quoted}; CREATE TYPE {kind} AS ENUM ({});
                 CREATE TABLE {quoted}.{quoted} (key text, {quoted} text, e {kind}, a text[], j jsonb, PRIMARY KEY (key, {quoted}))",
                values.join(", ")
            ))
            .unwrap();
        let table = format!("{quoted}.{quoted}");
        client.query("SELECT bemi.track($1::text::regclass)", &[&table]).unwrap();
        let insert = format!(
            "INSERT INTO {table} SELECT n, n || ';', n::{kind}, ARRAY[n, NULL, '\"'], to_jsonb(n) FROM unnest(ARRAY[{}]) n",
            values.join(", ")
        );
        client.batch_execute(&insert).unwrap();
        let before = rows(&mut client, &table);
        for run_it in 0..2 {
            let context = format!("{run_it} {}", names.iter().position(|n| *n == name).unwrap());
            under(
                &mut client,
                &context,
                &format!(
                    "UPDATE {table} SET e = '/* */', a = NULL, j = 'null'; UPDATE {table} SET {quoted} = key; DELETE FROM {table}"
                ),
            );
            if run_it == 0 {
                assert_eq!(revert(&mut client, &of(&context)).len(), 24, "{name}");
            } else {
                let ask = format!("SELECT * FROM bemi.revert_sql({}) \\gexec\n", of(&context));
                let mut command = server.program("psql", &database.name);
                command.args(["-qXAt", "-v", "ON_ERROR_STOP=1", "-v", "v=broken", "-f", "-"]);
                let mut psql = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
                std::io::Write::write_all(psql.stdin.as_mut().unwrap(), ask.as_bytes()).unwrap();
                let output = psql.wait_with_output().unwrap();
                assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
            }
            assert_eq!(rows(&mut client, &table), before, "{name}");
        }
    }
}

fn types(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "revert_types");
    client
        .batch_execute(
            "CREATE TYPE mood AS ENUM ('sad', 'it''s'); CREATE TYPE pair AS (a int, b text[]); CREATE DOMAIN small AS int CHECK (value < 9);
             CREATE TYPE odd AS (p point, j json); CREATE DOMAIN pairs AS pair[];
             CREATE TABLE v (id int PRIMARY KEY, a int[][], b bytea, c pair, d small, e mood, f float8, g numeric, h tstzrange, i interval, j jsonb, k json,
               l timestamptz, m money, n char(5), o varbit, p point, q odd[], r inet, s uuid, t tsvector, u \"char\", v varchar(3), w int4multirange, x xml, y pairs, z bit(3), jn jsonb NOT NULL);
             SELECT bemi.track('v');
             SET timezone = 'Asia/Kathmandu'; SET datestyle = 'German'; SET intervalstyle = 'iso_8601'; SET bytea_output = 'escape'; SET extra_float_digits = -5;
             INSERT INTO v VALUES (1, '{{1,NULL},{3,4}}', '\\x00ff27', '(1,\"{a,\"\"b c\"\"}\")', 8, 'it''s', 'NaN', 'NaN', '[2026-01-01 00:00+00,)', '1 mon -2 days',
               '{\"a\": [null, \"\\u00e9\"]}', '[1, {}]', '2026-11-20 11:00+00', 12.34, 'ab', '1010', '(1,2)',
               ARRAY[ROW('(3,4)', '{\"x\": 1}')::odd], '10.0.0.1/8', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'a:1 b:2', 'x', 'abc', '{[1,3),[5,7)}', '<a>1</a>',
               ARRAY['(2,{})'::pair], '101', 'null'),
              (2, '{}', '', '(,)', NULL, NULL, '-Infinity', 1.100, 'empty', NULL, 'null', 'null', 'infinity', NULL, NULL, '', NULL, '{}', NULL, NULL, '', NULL, '', '{}', NULL, NULL, NULL, '1'),
              (3, NULL, NULL, NULL, NULL, NULL, 1e-300, 1e40, NULL, NULL, NULL, NULL, '4713-01-01 BC', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '{}')",
        )
        .unwrap();
    // A null of JSON and one of SQL look the same in an image, but for a column that can hold only one of them.
    run(&mut client, "UPDATE v SET j = NULL, k = NULL WHERE id = 2");
    let before = rows(&mut client, "v");
    let columns = "a b c d e f g h i j k l m n o p q r s t u v w x y z";
    let sets = columns.split(' ').map(|c| format!("{c} = NULL")).collect::<Vec<_>>().join(", ");
    for (name, statement) in [
        ("deleted", "DELETE FROM v".to_owned()),
        ("set to null", format!("UPDATE v SET {sets}")),
        ("scaled", "UPDATE v SET g = 1.10 WHERE id = 2".to_owned()),
    ] {
        under(&mut client, name, &statement);
        assert_ne!(rows(&mut client, "v"), before, "{name}");
        revert(&mut client, &of(name));
        assert_eq!(rows(&mut client, "v"), before, "{name}");
        run(&mut client, "SELECT bemi.sync()");
        revert(&mut client, NEWEST);
        assert_ne!(rows(&mut client, "v"), before, "{name}");
        // In a session with other settings than those of the log.
        for statement in statements(&mut client, &of(name)) {
            assert_eq!(client.execute(statement.as_str(), &[]).unwrap(), 1, "{statement}");
        }
        assert_eq!(rows(&mut client, "v"), before, "{name}");
    }
}

/// Types whose operators no search_path finds.
fn extensions(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "revert_extensions");
    run(
        &mut client,
        "CREATE SCHEMA away; CREATE EXTENSION hstore SCHEMA away; CREATE EXTENSION citext SCHEMA away; CREATE EXTENSION ltree SCHEMA away; \
         CREATE TABLE e (k away.citext PRIMARY KEY, h away.hstore, l away.ltree, i away.citext[]); SELECT bemi.track('e'); \
         INSERT INTO e VALUES ('A', 'a=>\"b, c\", n=>NULL', 'x.y', '{A,b}'), ('b', '', '', '{}'), ('c', NULL, NULL, NULL)",
    );
    let before = rows(&mut client, "e");
    for (name, statement) in [
        ("deleted", "DELETE FROM e"),
        ("updated", "UPDATE e SET k = k || k::text, h = away.hstore('x', 'y'), l = 'q', i = '{z}'"),
    ] {
        under(&mut client, name, statement);
        revert(&mut client, &of(name));
        assert_eq!(rows(&mut client, "e"), before, "{name}");
        under(&mut client, "again", statement);
        for statement in statements(&mut client, &of(name)) {
            assert_eq!(client.execute(statement.as_str(), &[]).unwrap(), 1, "{statement}");
        }
        assert_eq!(rows(&mut client, "e"), before, "{name}");
    }
}
