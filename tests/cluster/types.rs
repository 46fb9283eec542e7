//! Values of every built-in type, against `to_jsonb` as the server itself gives it.
use crate::Test;
use crate::server::Server;

pub const TESTS: &[Test] = &[
    ("values_of_every_type_are_as_to_jsonb_gives_them", every_type),
    ("values_in_every_stored_form_are_as_to_jsonb_gives_them", stored_forms),
    ("every_built_in_type_is_in_the_test_above", no_type_is_missing),
];

/// Each type with values of it; the table of the test has a column of each, and as many rows as the longest list.
const VALUES: &[(&str, &[&str])] = &[
    ("boolean", &["true", "false"]),
    ("smallint", &["-32768", "32767", "0"]),
    ("integer", &["-2147483648", "2147483647", "0"]),
    ("bigint", &["-9223372036854775808", "9223372036854775807", "0"]),
    (
        "real",
        &[
            "0",
            "-0",
            "1e38",
            "1.17549435e-38",
            "0.1",
            "NaN",
            "Infinity",
            "-Infinity",
            "16777216",
            "1e-45",
            "3.4028235e38",
            "123456.7",
        ],
    ),
    (
        "double precision",
        &[
            "0",
            "-0",
            "1e308",
            "2.2250738585072014e-308",
            "0.1",
            "NaN",
            "Infinity",
            "-Infinity",
            "9007199254740993",
            "5e-324",
            "1e23",
            "1e15",
            "1e16",
            "123456789.123456789",
            "1e-5",
        ],
    ),
    (
        "numeric",
        &[
            "0",
            "-0.000",
            "NaN",
            "Infinity",
            "-Infinity",
            "1e1000",
            "1e-1000",
            "123456789012345678901234567890.123456789",
            "100",
            "1.10",
            "0.00001",
        ],
    ),
    ("numeric(12,2)", &["0", "-1234567890.12", "99.90", "NaN"]),
    ("money", &["0", "-1234567.89", "92233720368547758.07", "0.01"]),
    (
        "text",
        &[
            "",
            " ",
            "plain",
            "quo\"te \\ back/slash",
            "tab\tline\nreturn\rform\u{c}back\u{8}",
            "\u{1}\u{1f}\u{7f}",
            "é日本😀",
            "\\u0041 \\n",
            "{\"a\":1}",
            "null",
        ],
    ),
    ("varchar(20)", &["", "abc", "trailing  "]),
    ("character(5)", &["", "ab", "abcde", "é"]),
    ("\"char\"", &["a", "", "\\377", "\""]),
    ("name", &["", "a name", "é\""]),
    ("bytea", &["", "\\x00ff22", "abc"]),
    (
        "date",
        &[
            "2026-11-20",
            "infinity",
            "-infinity",
            "0044-03-15 BC",
            "4714-11-24 BC",
            "5874897-12-31",
            "0001-01-01",
            "0001-12-31 BC",
            "2000-02-29",
            "1900-03-01",
            "99999-01-01",
        ],
    ),
    ("time", &["00:00", "23:59:59.999999", "24:00", "12:00:00.1"]),
    ("time with time zone", &["00:00+00", "23:59:59.999999-15:59:59", "12:00+05:30", "24:00-08"]),
    (
        "timestamp",
        &[
            "2026-11-20 11:38:55.720782",
            "infinity",
            "-infinity",
            "0044-03-15 01:02:03.4 BC",
            "4714-11-24 00:00 BC",
            "294276-12-31 23:59:59.999999",
            "1999-12-31 23:59:59.999999",
            "2000-01-01",
            "0001-12-31 23:59:59.9 BC",
        ],
    ),
    (
        "timestamp with time zone",
        &[
            "2026-11-20 11:38:55.720782+00",
            "infinity",
            "-infinity",
            "0044-03-15 01:02:03.4+00 BC",
            "4714-11-24 00:00+00 BC",
            "294276-12-31 23:59:59.999999+00",
            "2000-01-01 00:00+13",
        ],
    ),
    ("timestamp(0)", &["2026-11-20 11:38:55"]),
    (
        "interval",
        &[
            "0",
            "1 year 2 months -3 days 04:05:06.789",
            "-1 month",
            "178000000 years",
            "1 day -00:00:00.000001",
            "-00:30",
        ],
    ),
    (
        "uuid",
        &[
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            "00000000-0000-0000-0000-000000000000",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
        ],
    ),
    (
        "json",
        &[
            "null",
            "{}",
            "[]",
            " { \"a\" : [1, 2.50, \"x\\u00e9\\n\", true , null] , \"a\" : {\"b\":-1.5E+3} } ",
            "\"\\ud83d\\ude00\"",
            "1e5",
        ],
    ),
    (
        "jsonb",
        &[
            "null",
            "{}",
            "[]",
            "{\"b\": [1, 2.50, \"x\\u00e9\\n\", true, null], \"a\": {\"b\": -1.5E+3}}",
            "\"\\\\\"",
            "1e5",
        ],
    ),
    ("xml", &["<a b=\"c\">d &amp; é</a>", "<?xml version=\"1.0\" encoding=\"UTF-8\"?><a/>", "text only"]),
    ("inet", &["192.168.0.1/24", "::1", "10.0.0.0/8", "2001:db8::/32"]),
    ("cidr", &["192.168.0.0/24", "::/0"]),
    ("macaddr", &["08:00:2b:01:02:03"]),
    ("macaddr8", &["08:00:2b:01:02:03:04:05"]),
    ("bit(3)", &["101", "000"]),
    ("bit varying", &["", "1", "10110011100"]),
    ("tsvector", &["", "'a':1A,2 'quo''te':3", "fat:2 cat:1"]),
    ("tsquery", &["", "'a' & !'b'", "fat:ab & cat:* | 'x y'"]),
    ("point", &["(1.5,-2)", "(Infinity,NaN)", "(1e-5,1e300)"]),
    ("line", &["{1,2,3}"]),
    ("lseg", &["[(1,2),(3,4)]"]),
    ("box", &["(3,4),(1,2)"]),
    ("path", &["((1,2),(3,4))", "[(1,2),(3,4)]"]),
    ("polygon", &["((1,2),(3,4),(5,6))"]),
    ("circle", &["<(1,2),3.5>"]),
    ("oid", &["0", "4294967295"]),
    ("xid", &["4294967295"]),
    ("xid8", &["18446744073709551615"]),
    ("cid", &["7"]),
    ("tid", &["(1,2)"]),
    ("pg_lsn", &["16/B374D848", "0/0"]),
    ("txid_snapshot", &["10:20:10,14,15"]),
    ("pg_snapshot", &["10:20:10,14,15"]),
    ("regclass", &["pg_class", "pg_catalog.pg_type", "0", "1"]),
    ("regtype", &["integer", "text[]"]),
    ("regproc", &["now"]),
    ("regprocedure", &["abs(integer)"]),
    ("regoper", &["0"]),
    ("regoperator", &["+(integer,integer)"]),
    ("regrole", &["postgres"]),
    ("regnamespace", &["pg_catalog"]),
    ("regconfig", &["english"]),
    ("regdictionary", &["simple"]),
    ("regcollation", &["\"C\""]),
    ("refcursor", &["a \"cursor\""]),
    ("aclitem", &["postgres=arwdDxt/postgres"]),
    ("jsonpath", &["$.\"a\"[*]?(@.\"b\" > 1)"]),
    ("int2vector", &["1 2 3", ""]),
    ("oidvector", &["1 2 3"]),
    ("int4range", &["empty", "[1,5)", "(,)", "[1,)"]),
    ("int8range", &["[1,9223372036854775807)"]),
    ("numrange", &["[1.50,NaN]", "(,1e10)"]),
    ("tsrange", &["[\"2026-11-20 11:00\",infinity)", "(,\"0044-03-15 01:00 BC\"]"]),
    ("tstzrange", &["[\"2026-11-20 11:00+00\",infinity)"]),
    ("daterange", &["[2026-11-20,2026-11-22)", "[-infinity,)"]),
    ("int4multirange", &["{}", "{[1,5),[7,9)}"]),
    ("int8multirange", &["{[1,5)}"]),
    ("nummultirange", &["{[1.50,2],(5,)}"]),
    ("tsmultirange", &["{[\"2026-11-20 11:00\",infinity)}"]),
    ("tstzmultirange", &["{[\"2026-11-20 11:00+00\",\"2026-11-21 11:00+05:30\")}"]),
    ("datemultirange", &["{[2026-11-20,2026-11-22)}"]),
    ("integer[]", &["{}", "{1,NULL,3}", "{{1,2},{3,4}}", "[2:3]={5,6}", "{{{1},{2}},{{3},{4}}}"]),
    ("text[]", &["{}", "{\"a b\",\"quo\\\"te\",NULL,\"NULL\",\"é\",\"\"}", "{{a},{b}}"]),
    ("boolean[]", &["{t,f,NULL}"]),
    ("numeric[]", &["{1.50,NaN,-Infinity}"]),
    ("real[]", &["{0.1,NaN}"]),
    ("double precision[]", &["{0.1,Infinity}"]),
    ("timestamptz[]", &["{\"2026-11-20 11:00+00\",infinity}"]),
    ("date[]", &["{2026-11-20,\"0044-03-15 BC\"}"]),
    ("uuid[]", &["{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}"]),
    ("jsonb[]", &["{\"{\\\"a\\\":1}\",\"null\",NULL}"]),
    ("json[]", &["{\"{ \\\"a\\\": 1 }\"}"]),
    ("bytea[]", &["{\"\\\\x00ff\"}"]),
    ("interval[]", &["{\"1 day\",\"-1 mon\"}"]),
    ("money[]", &["{1.50,-2}"]),
    ("\"char\"[]", &["{a,b}"]),
    ("name[]", &["{a,\"b c\"}"]),
    ("character(3)[]", &["{a,bcd}"]),
    ("tstzrange[]", &["{\"[\\\"2026-11-20 11:00+00\\\",)\"}"]),
    ("mood", &["happy", "très \"sad\""]),
    ("mood[]", &["{happy,NULL}"]),
    ("positive", &["5", "1"]),
    ("positive[]", &["{1,2}"]),
    ("moods", &["{happy}"]),
    (
        "nested",
        &["(1,\"a \"\"b\"\" é\",\"{1,2}\",\"2026-11-20 11:00+00\",\"(7,x)\",\"{\"\"(8,y)\"\",NULL}\",t)", "(,,,,,,)"],
    ),
    ("nested[]", &["{\"(1,a,\\\"{}\\\",infinity,,,f)\",NULL}"]),
    ("checked", &["(7,x)"]),
    ("floatrange", &["[0.1,1e23)"]),
    ("floatmultirange", &["{[0.1,1e23)}"]),
    ("documented", &["{\"a\": [1]}"]),
];

const TYPES: &str = "
    CREATE TYPE mood AS ENUM ('happy', 'très \"sad\"');
    CREATE DOMAIN positive AS integer CHECK (VALUE > 0);
    CREATE DOMAIN moods AS mood[];
    CREATE DOMAIN documented AS jsonb;
    CREATE TYPE leaf AS (n positive, t varchar(5));
    CREATE TYPE nested AS (i int, \"te xt\" text, a int[], at timestamptz, l leaf, ls leaf[], b boolean);
    CREATE DOMAIN checked AS leaf CHECK ((VALUE).n IS DISTINCT FROM 3);
    CREATE TYPE floatrange AS RANGE (subtype = float8, multirange_type_name = floatmultirange);
";

fn every_type(server: &Server) {
    let mut database = server.database("every_type");
    let mut client = database.connect();
    // What the server itself says is taken with plain defaults, in the time zone UTC.
    client.batch_execute("SET TimeZone = 'UTC'; SET lc_monetary = 'C'").unwrap();
    client.batch_execute(TYPES).unwrap();
    let columns: Vec<String> = VALUES.iter().enumerate().map(|(i, (name, _))| format!("c{i} {name}")).collect();
    client
        .batch_execute(&format!(
            "CREATE TABLE every (id int PRIMARY KEY, {}); ALTER TABLE every REPLICA IDENTITY FULL",
            columns.join(", ")
        ))
        .unwrap();
    database.create_slot();
    let rows = VALUES.iter().map(|(_, values)| values.len()).max().unwrap();
    for row in 0..rows {
        let values: Vec<String> = VALUES
            .iter()
            .map(|(name, values)| {
                values.get(row).map_or("NULL".to_owned(), |v| format!("'{}'::{name}", v.replace('\'', "''")))
            })
            .collect();
        let statement = format!("INSERT INTO every VALUES ({row}, {})", values.join(", "));
        client.batch_execute(&statement).unwrap_or_else(|e| panic!("{e:?}: {statement}"));
    }
    client.batch_execute("CREATE TABLE expected AS SELECT id, to_jsonb(every) AS image FROM every; UPDATE every SET id = id + 1000; DELETE FROM every").unwrap();

    // The reader has other settings, in its session as by its role.
    let reader = "CREATE ROLE reader LOGIN REPLICATION SUPERUSER";
    client.batch_execute(reader).unwrap();
    let settings = [
        ("DateStyle", "German"),
        ("TimeZone", "Asia/Kolkata"),
        ("bytea_output", "escape"),
        ("extra_float_digits", "-15"),
        ("IntervalStyle", "iso_8601"),
        ("xmlbinary", "hex"),
        ("search_path", "public"),
        ("quote_all_identifiers", "on"),
    ];
    for (name, value) in settings {
        client.batch_execute(&format!("ALTER ROLE reader SET {name} = '{value}'")).unwrap();
    }
    let mut command = database.recvlogical(&["-U", "reader"]);
    let lines = String::from_utf8(server.check(&mut command).stdout).unwrap();
    client.batch_execute("CREATE TABLE documents (document jsonb)").unwrap();
    let insert = client.prepare("INSERT INTO documents VALUES ($1::text::jsonb)").unwrap();
    for line in lines.lines() {
        assert!(!line.contains("\"omitted\""), "{line}");
        client.execute(&insert, &[&line]).unwrap_or_else(|e| panic!("{e:?}: {line}"));
    }
    // Each image of each change, column by column.
    let compared = "
        SELECT document->>'operation', e.id, key, e.image->key AS expected, shown->key AS got
        FROM documents,
             LATERAL (VALUES ('before', document->'before'), ('after', document->'after')) images (kind, shown),
             LATERAL (SELECT expected.id, expected.image - 'id' AS image FROM expected WHERE id = (images.shown->>'id')::int % 1000) e,
             LATERAL jsonb_object_keys(e.image || (images.shown - 'id')) key
        WHERE document->>'table' = 'every' AND images.shown <> '{}'";
    let wrong = client.query(&format!("SELECT format('%s of row %s, %s: expected %s, got %s', c.*) FROM ({compared}) c WHERE expected IS DISTINCT FROM got"), &[]).unwrap();
    let wrong: Vec<String> = wrong
        .iter()
        .map(|row| {
            let text: String = row.get(0);
            let column =
                text.split(", c").nth(1).and_then(|rest| rest.split(':').next()).and_then(|n| n.parse::<usize>().ok());
            format!("{} {text}", column.map_or("", |c| VALUES[c].0))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let count: i64 = client.query_one(&format!("SELECT count(*) FROM ({compared}) c"), &[]).unwrap().get(0);
    assert_eq!(count as usize, VALUES.len() * rows * 4);
}

/// The catalog says which types there are; those that no table can have, or that hold what only the server can make,
/// are left out.
fn no_type_is_missing(server: &Server) {
    let mut client = server.connect("postgres");
    let rows = client
        .query(
            "SELECT oid::regtype::text FROM pg_type
             WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype IN ('b', 'r', 'm') AND typelem = 0 OR oid IN ('name'::regtype, 'point'::regtype)
             ORDER BY 1",
            &[],
        )
        .unwrap();
    let made_by_the_server = [
        "pg_node_tree",
        "pg_ndistinct",
        "pg_dependencies",
        "pg_mcv_list",
        "pg_brin_bloom_summary",
        "pg_brin_minmax_multi_summary",
        "gtsvector",
    ];
    let aliases = [
        ("bit", "bit(3)"),
        ("character", "character(5)"),
        ("character varying", "varchar(20)"),
        ("time without time zone", "time"),
        ("timestamp without time zone", "timestamp"),
    ];
    let missing: Vec<String> = rows
        .iter()
        .map(|row| row.get::<_, String>(0))
        .filter(|name| !made_by_the_server.contains(&name.as_str()))
        .filter(|name| {
            let name = aliases.iter().find(|(alias, _)| alias == name).map_or(name.as_str(), |(_, ours)| ours);
            !VALUES.iter().any(|(ours, _)| *ours == name)
        })
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// Expressions whose values lie in the row in different forms: with short and long headers, compressed, aligned to
/// each size, with and without nulls, deep and wide.
const STORED: &[&str] = &[
    "(repeat('[', 400) || '1' || repeat(']', 400))::jsonb",
    "(repeat('{\"a\":', 700) || '1' || repeat('}', 700))::jsonb",
    "(SELECT jsonb_object_agg('key ' || i, i) FROM generate_series(1, 500) i)",
    "(SELECT jsonb_agg(CASE i % 7 WHEN 0 THEN 'null' WHEN 1 THEN to_jsonb(i) WHEN 2 THEN to_jsonb(i / 7.0) WHEN 3 THEN '\"\\n\\u0001é\\\\\"' WHEN 4 THEN '{}' WHEN 5 THEN '[true,false]' ELSE to_jsonb(repeat('x', i)) END) FROM generate_series(1, 300) i)",
    "jsonb_build_object('a', 'x', 'b', 1.5, 'c', jsonb_build_array(1, 'y', jsonb_build_object('d', 123456789012345678901234567890.5)), 'e', '')",
    "to_jsonb(('1' || repeat('0', 1000) || '.' || repeat('1', 300))::numeric)",
    "'\"alone\"'::jsonb",
    "'-0.00000000000000000000000001'::jsonb",
    "'{}'::jsonb",
    "'[[], {}, [[]], \"\"]'::jsonb",
    "10::numeric ^ 100",
    "10::numeric ^ -100",
    "-12345678901234567890.123456789",
    "1e131071::numeric",
    "(1::numeric / 3)::numeric(1000,900)",
    "0.0001::numeric",
    "10000::numeric",
    "99999999.9999::numeric(20,4)",
    "(SELECT array_agg(i) FROM generate_series(1, 20000) i)",
    "(SELECT array_agg(CASE WHEN i % 3 > 0 THEN i END) FROM generate_series(1, 100) i)",
    "ARRAY[1]",
    "ARRAY[1, NULL]",
    "ARRAY[1::bigint, 2]",
    "ARRAY[NULL, 1::bigint]",
    "ARRAY[1::smallint, NULL, 3]",
    "ARRAY[true, NULL, false, true, true, true, true, true, true, NULL]",
    "ARRAY[repeat('x', 126), repeat('y', 127), '', 'z']",
    "ARRAY[repeat('long', 5000), NULL, 'short']",
    "ARRAY[[1.5, 2.25], [NULL, 10::numeric ^ 30]]",
    "ARRAY[[[1], [2]], [[3], [4]]]::float8[]",
    "'[0:1][-1:0]={{a,b},{c,NULL}}'::text[]",
    "ARRAY[point(1, 2), NULL, point(3, 4)]",
    "ARRAY['2026-11-20 11:00+00'::timestamptz, NULL]",
    "ARRAY['a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid, NULL]",
    "ARRAY['1 day'::interval, '-1 mon']",
    "ARRAY['{\"a\": [1]}'::jsonb, NULL, '2']",
    "ARRAY['a'::\"char\", 'b']",
    "ARRAY['n'::name, NULL]",
    "ARRAY[ROW(1, 'x', '{1,2}', 2.5, ROW(1, 'y', NULL, NULL, NULL)::text, NULL)::text, NULL]",
    "repeat('compress me', 10000)",
    "repeat('x', 126)",
    "repeat('y', 127)",
    "'plain'::char(200)",
    "'2026-11-20'::date",
    "'23:59:59.999999'::time",
];

fn stored_forms(server: &Server) {
    let mut database = server.database("stored_forms");
    let mut client = database.connect();
    client.batch_execute("SET TimeZone = 'UTC'").unwrap();
    database.create_slot();
    for (i, expression) in STORED.iter().enumerate() {
        // A column before it, so that it is not aligned by chance; one behind it, which must be found.
        client
            .batch_execute(&format!(
                "CREATE TABLE s{i} AS SELECT 1 AS id, 'a'::text AS before, {expression} AS v, 'z'::text AS behind;
                 ALTER TABLE s{i} REPLICA IDENTITY FULL; UPDATE s{i} SET id = 2; UPDATE s{i} SET before = 'ab'; UPDATE s{i} SET v = NULL, behind = NULL;
                 UPDATE s{i} SET v = {expression}; DELETE FROM s{i}"
            ))
            .unwrap_or_else(|e| panic!("{expression}: {e:?}"));
    }
    let lines = database.lines();
    assert_eq!(lines.len(), STORED.len() * 6);
    // Compared by the server, since some nest deeper than serde_json reads.
    let compared = |expression: &str| {
        format!(
            "SELECT bool_and(image->'behind' = '\"z\"' AND image->'v' = to_jsonb({expression}) OR image->'behind' = 'null' AND image->'v' = 'null'
                             OR image->'behind' = 'null' AND image->'v' = to_jsonb({expression})),
                    count(*), count(nullif(image->'v', 'null')), bool_or(document ? 'omitted')
             FROM unnest($1::text[]) line, LATERAL (SELECT line::jsonb) d (document),
                  LATERAL (VALUES (document->'before'), (document->'after')) i (image)
             WHERE image <> '{{}}'"
        )
    };
    for (expression, lines) in STORED.iter().zip(lines.chunks(6)) {
        let row = client.query_one(&compared(expression), &[&lines]).unwrap();
        let found: (bool, i64, i64, bool) = (row.get(0), row.get(1), row.get(2), row.get(3));
        assert_eq!(found, (true, 10, 8, false), "{expression}: {:.1000}", lines[0]);
    }
}
