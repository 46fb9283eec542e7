//! `bemi.history`, `bemi.diff`, `bemi.changes_diff` and the key that a row had before.
use serde_json::{Value, json};

use crate::Test;
use crate::past::Past;
use crate::server::{Server, run, sqlstate};

pub const TESTS: &[Test] = &[
    ("history_tells_each_version_of_a_row", versions),
    ("history_follows_a_row_through_its_keys", keys),
    ("history_of_keys_of_several_columns_and_odd_texts", odd_keys),
    ("history_shows_versions_in_the_columns_of_today", columns),
    ("history_of_partitioned_tables_crosses_partitions", partitions),
    ("history_of_one_key_reads_no_other_changes", by_index),
    ("the_past_of_one_key_reads_no_other_changes", past_by_index),
    ("diff_tells_what_differs", diff),
    ("changes_diff_tells_what_each_change_changed", changes_diff),
    ("changes_tell_the_key_before", old_keys),
];

impl Past<'_> {
    /// The versions of a row as JSON, newest first.
    fn history(&mut self, table: &str, key: &str) -> Vec<Value> {
        let statement = format!("SELECT to_jsonb(h)::text FROM bemi.history(NULL::{table}, $1) h");
        let rows = self.client.query(&statement, &[&key]).unwrap_or_else(|e| panic!("{e:?}: {statement}"));
        rows.iter().map(|row| serde_json::from_str(row.get(0)).unwrap()).collect()
    }

    /// Operations and rows of the versions, oldest first.
    fn life(&mut self, table: &str, key: &str) -> Vec<String> {
        let mut versions = self.history(table, key);
        versions.reverse();
        let short = |version: &Value| format!("{} {}", version["operation"].as_str().unwrap(), version["row"]);
        versions.iter().map(short).collect()
    }
}

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, v text, n int); SELECT bemi.track('t')";

fn versions(server: &Server) {
    let mut past = Past::new(server, "history_versions", TABLE);
    past.then("SELECT bemi.set_context('{\"who\":1}'); INSERT INTO t VALUES (1, 'a', NULL); SELECT bemi.set_context('{\"who\":2}')");
    past.then("UPDATE t SET v = 'b'; BEGIN; UPDATE t SET n = 7; UPDATE t SET n = 8, v = NULL; COMMIT; UPDATE t SET n = n; INSERT INTO t VALUES (2, 'other', 1)");
    let versions = past.history("t", "1");
    assert_eq!(versions.len(), 5, "{versions:#?}");
    let keys: std::collections::BTreeSet<&str> = versions[0].as_object().unwrap().keys().map(String::as_str).collect();
    let expected = ["version", "operation", "committed_at", "valid_from", "valid_to", "context", "changed", "row"];
    assert_eq!(keys, expected.into_iter().collect());
    assert_eq!(versions.iter().map(|v| v["version"].as_i64().unwrap()).collect::<Vec<_>>(), [5, 4, 3, 2, 1]);
    assert_eq!(
        versions.iter().map(|v| v["operation"].as_str().unwrap()).collect::<Vec<_>>(),
        ["UPDATE", "UPDATE", "UPDATE", "UPDATE", "CREATE"]
    );
    assert_eq!(versions.iter().map(|v| v["context"]["who"].as_i64().unwrap()).collect::<Vec<_>>(), [2, 2, 2, 2, 1]);
    assert_eq!(versions[4]["changed"], json!({"id": [null, 1], "v": [null, "a"]}));
    assert_eq!(versions[3]["changed"], json!({"v": ["a", "b"]}));
    assert_eq!(versions[2]["changed"], json!({"n": [null, 7]}));
    assert_eq!(versions[1]["changed"], json!({"n": [7, 8], "v": ["b", null]}));
    assert_eq!(versions[0]["changed"], json!({}));
    assert_eq!(versions[1]["row"], json!({"id": 1, "v": null, "n": 8}));
    assert_eq!(versions[4]["row"], json!({"id": 1, "v": "a", "n": null}));
    for (i, version) in versions.iter().enumerate() {
        assert_eq!(version["valid_from"], version["committed_at"]);
        assert_eq!(version["valid_to"], if i == 0 { Value::Null } else { versions[i - 1]["valid_from"].clone() });
    }
    assert_eq!(versions[2]["valid_from"], versions[2]["valid_to"], "a version that no other transaction saw");
    // The end of it, and another row of the key.
    past.then("DELETE FROM t WHERE id = 1");
    let versions = past.history("t", "1");
    assert_eq!(versions[0]["operation"], "DELETE");
    assert_eq!(versions[0]["row"], Value::Null);
    assert_eq!(versions[0]["valid_to"], Value::Null);
    assert_eq!(versions[0]["changed"], json!({"id": [1, null], "n": [8, null]}));
    let none: bool = past
        .client
        .query_one("SELECT \"row\" IS NULL FROM bemi.history(NULL::t, '1') WHERE version = 6", &[])
        .unwrap()
        .get(0);
    assert!(none);
    past.then("BEGIN; INSERT INTO t VALUES (1, 'again', 1); DELETE FROM t WHERE id = 1; INSERT INTO t VALUES (1, 'once more', 1); COMMIT");
    assert_eq!(
        past.history("t", "1").iter().map(|v| v["version"].as_i64().unwrap()).collect::<Vec<_>>(),
        [9, 8, 7, 6, 5, 4, 3, 2, 1]
    );
    assert!(past.history("t", "3").is_empty());
    for text in ["", "no number"] {
        assert_eq!(sqlstate(past.client.query("SELECT * FROM bemi.history(NULL::t, $1)", &[&text])), "22P02", "{text}");
    }
    // The row is one of the table: its columns can be taken, and it can be put back.
    assert_eq!(past.rows("SELECT (h.\"row\").v FROM bemi.history(NULL::t, '1') h WHERE version = 1"), ["a"]);
    past.then("INSERT INTO t SELECT 100 + version, (h.\"row\").v, 0 FROM bemi.history(NULL::t, '1') h WHERE operation <> 'DELETE'");
    // By the type of a column, by itself and beside others.
    let forms = [
        "SELECT count(*)::text FROM bemi.history(NULL::t, '1')",
        "SELECT count(*)::text FROM (SELECT bemi.history(NULL::t, '1')) x",
        "SELECT sum(n)::text FROM (VALUES ('1'), ('2')) k (k), LATERAL (SELECT count(*) - CASE k WHEN '2' THEN 1 ELSE 0 END AS n FROM bemi.history(NULL::t, k)) x",
    ];
    for form in forms {
        assert_eq!(past.rows(form), ["9"], "{form}");
    }
}

fn keys(server: &Server) {
    let mut past = Past::new(server, "history_keys", TABLE);
    past.then("INSERT INTO t VALUES (1, 'first', 0), (2, 'second', 0)");
    past.then("UPDATE t SET id = 3 WHERE id = 1; UPDATE t SET n = 1; UPDATE t SET id = 4 WHERE id = 3; UPDATE t SET n = 2 WHERE id = 4");
    let first = [
        "CREATE {\"id\":1,\"n\":0,\"v\":\"first\"}",
        "UPDATE {\"id\":3,\"n\":0,\"v\":\"first\"}",
        "UPDATE {\"id\":3,\"n\":1,\"v\":\"first\"}",
        "UPDATE {\"id\":4,\"n\":1,\"v\":\"first\"}",
        "UPDATE {\"id\":4,\"n\":2,\"v\":\"first\"}",
    ];
    let normal = |life: Vec<String>| -> Vec<String> {
        let sorted = |line: &String| {
            let (operation, row) = line.split_once(' ').unwrap();
            let row: std::collections::BTreeMap<String, Value> = serde_json::from_str(row).unwrap_or_default();
            format!("{operation} {}", serde_json::to_string(&row).unwrap())
        };
        life.iter().map(sorted).collect()
    };
    assert_eq!(normal(past.life("t", "4")), first);
    // Another row takes the key that it had.
    past.then("UPDATE t SET id = 1 WHERE id = 2; INSERT INTO t VALUES (2, 'third', 0)");
    assert_eq!(normal(past.life("t", "4")), first);
    let third = normal(past.life("t", "2"));
    assert_eq!(third.last().unwrap(), "CREATE {\"id\":2,\"n\":0,\"v\":\"third\"}");
    // Two rows change their keys for one another, by way of a third one, in one transaction.
    past.then("BEGIN; UPDATE t SET id = -1 WHERE id = 4; UPDATE t SET id = 4 WHERE id = 2; UPDATE t SET id = 2 WHERE id = -1; COMMIT");
    past.then("UPDATE t SET n = 9 WHERE id IN (2, 4)");
    let of_first = normal(past.life("t", "2"));
    for line in first.iter().copied().chain([
        "UPDATE {\"id\":-1,\"n\":2,\"v\":\"first\"}",
        "UPDATE {\"id\":2,\"n\":2,\"v\":\"first\"}",
        "UPDATE {\"id\":2,\"n\":9,\"v\":\"first\"}",
    ]) {
        assert!(of_first.iter().any(|other| other == line), "{line} is not in {of_first:#?}");
    }
    let of_third = normal(past.life("t", "4"));
    for line in [
        "CREATE {\"id\":2,\"n\":0,\"v\":\"third\"}",
        "UPDATE {\"id\":4,\"n\":0,\"v\":\"third\"}",
        "UPDATE {\"id\":4,\"n\":9,\"v\":\"third\"}",
    ] {
        assert!(of_third.iter().any(|other| other == line), "{line} is not in {of_third:#?}");
    }
    assert_eq!(of_third.last().unwrap(), "UPDATE {\"id\":4,\"n\":9,\"v\":\"third\"}");
    // Many keys, one after another, and in a circle.
    let mut statements = String::from("INSERT INTO t VALUES (1000, 'far', 0)");
    for i in 0..150 {
        statements.push_str(&format!("; UPDATE t SET id = {} WHERE id = {}", 1001 + i, 1000 + i));
    }
    past.then(&statements);
    assert_eq!(past.history("t", "1150").len(), 151);
    past.then("INSERT INTO t VALUES (50, 'circle', 0); UPDATE t SET id = 51 WHERE id = 50; UPDATE t SET id = 50 WHERE id = 51; UPDATE t SET id = 51 WHERE id = 50; UPDATE t SET id = 50 WHERE id = 51");
    assert_eq!(past.history("t", "50").len(), 5);
    // A row that is gone is found by its last key.
    past.then("UPDATE t SET id = 60 WHERE id = 50; DELETE FROM t WHERE id = 60");
    let life = past.life("t", "60");
    assert_eq!((life.len(), life.last().unwrap().as_str()), (7, "DELETE null"));
}

fn odd_keys(server: &Server) {
    let mut past = Past::new(
        server,
        "history_odd",
        "CREATE SCHEMA \"o'd\"; CREATE TABLE \"o'd\".\"t\"\"x\" (\"a b\" int, v text, \"b'\" text, PRIMARY KEY (\"b'\", \"a b\")); SELECT bemi.track('\"o''d\".\"t\"\"x\"');
         CREATE TABLE texts (k text PRIMARY KEY, v int); SELECT bemi.track('texts')",
    );
    past.then("INSERT INTO \"o'd\".\"t\"\"x\" VALUES (7, 'v', 'a\"é'); UPDATE \"o'd\".\"t\"\"x\" SET v = 'w'; UPDATE \"o'd\".\"t\"\"x\" SET \"b'\" = ''");
    past.then("SELECT bemi.sync()");
    let key: String = past
        .rows("SELECT primary_key FROM (SELECT * FROM bemi.changes ORDER BY commit_position DESC LIMIT 1) c")
        .remove(0);
    assert_eq!(key, "[\"\",\"7\"]");
    assert_eq!(past.history("\"o'd\".\"t\"\"x\"", &key).len(), 3);
    for text in ["", " ", "'", "\\", "\"", "[\"a\",\"b\"]", "null", "%", "_", "é", "$1", "{}", "a\nb"] {
        past.client.execute("INSERT INTO texts VALUES ($1, 1)", &[&text]).unwrap();
        past.client.execute("UPDATE texts SET v = 2 WHERE k = $1", &[&text]).unwrap();
        assert_eq!(past.history("texts", text).len(), 2, "{text:?}");
    }
    assert!(
        past.client.query("SELECT * FROM bemi.history(NULL::texts, NULL)", &[]).map_or(true, |rows| rows.is_empty())
    );
}

fn columns(server: &Server) {
    let mut past = Past::new(server, "history_columns", TABLE);
    past.then("INSERT INTO t VALUES (1, 'a', 5); UPDATE t SET n = 6; ALTER TABLE t RENAME n TO amount; UPDATE t SET amount = 7");
    past.then("ALTER TABLE t ADD added int; UPDATE t SET added = 1; ALTER TABLE t ALTER amount TYPE text; ALTER TABLE t DROP v; UPDATE t SET amount = 'eight'");
    let rows: Vec<Value> = past.history("t", "1").iter().map(|version| version["row"].clone()).collect();
    let row = |amount: &str, added: Value| json!({"id": 1, "amount": amount, "added": added});
    assert_eq!(
        rows,
        [
            row("eight", json!(1)),
            row("7", json!(1)),
            row("7", json!(null)),
            row("6", json!(null)),
            row("5", json!(null))
        ]
    );
}

fn partitions(server: &Server) {
    let mut past = Past::new(
        server,
        "history_partitions",
        "CREATE TABLE t (id int PRIMARY KEY, v text, n int) PARTITION BY RANGE (id); CREATE TABLE t0 PARTITION OF t FOR VALUES FROM (0) TO (10);
         CREATE TABLE t1 (n int, v text, id int NOT NULL); ALTER TABLE t ATTACH PARTITION t1 DEFAULT; SELECT bemi.track('t')",
    );
    past.then("INSERT INTO t VALUES (1, 'a', 0), (11, 'b', 0); UPDATE t SET v = 'c'; UPDATE t SET n = 1 WHERE id = 11");
    assert_eq!(past.history("t", "1").len(), 2);
    assert_eq!(past.history("t", "11").len(), 3);
    // To another partition a row goes by a DELETE and an INSERT, as the log has it.
    past.then("UPDATE t SET id = 12 WHERE id = 1; UPDATE t SET id = 1 WHERE id = 12");
    let life = past.life("t", "1");
    assert_eq!(life.last().map(|line| line.contains("\"c\"")), Some(true), "{life:#?}");
    assert_eq!(
        past.rows("SELECT count(DISTINCT version)::text || max(version) FROM bemi.history(NULL::t, '1')"),
        [format!("{0}{0}", life.len())]
    );
}

/// Fills `bemi.changes` with changes of `t`, 50 of each key, and of another table.
fn fill(past: &mut Past) {
    past.then("INSERT INTO t VALUES (1, 'a', 0); UPDATE t SET v = 'b'; UPDATE t SET id = 2; UPDATE t SET v = 'c'; SELECT bemi.sync(); INSERT INTO t SELECT i, 'x', 0 FROM generate_series(10, 4010) i");
    let columns = "database, schema, {table}, operation, {key}, {old}, before || jsonb_build_object('id', {key}::int), after || jsonb_build_object('id', {key}::int), context,
        committed_at, queued_at, created_at, transaction_id, position, commit_position, 1000 + i, omitted";
    let columns = columns.replace("{key}", "(10 + i % 4000)::text");
    for (table, old) in [("\"table\"", "NULL"), ("'another'", "CASE WHEN i % 2 = 0 THEN '3' END")] {
        let columns = columns.replace("{table}", table).replace("{old}", old);
        let statement = format!(
            "INSERT INTO bemi.changes (id, database, schema, \"table\", operation, primary_key, old_primary_key, before, after, context,
               committed_at, queued_at, created_at, transaction_id, position, commit_position, sequence, omitted)
             SELECT gen_random_uuid(), {columns} FROM (SELECT * FROM bemi.changes WHERE operation = 'UPDATE' ORDER BY commit_position, sequence LIMIT 1) c, generate_series(1, 100000) i"
        );
        past.client.batch_execute(&statement).unwrap();
    }
    past.client.batch_execute("ANALYZE bemi.changes; ANALYZE t").unwrap();
}

/// The plans of a statement and of all that run inside it, once it was run.
fn plans(server: &Server, database: &str, statement: &str) -> String {
    let (mut client, notices) = server.connect_listening(database, "postgres");
    run(
        &mut client,
        "LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_nested_statements = on; SET auto_explain.log_analyze = on; SET client_min_messages = log",
    );
    notices.take();
    client.query(statement, &[]).unwrap_or_else(|e| panic!("{e:?}: {statement}"));
    let plans = notices.take().join("\n");
    assert!(plans.contains("Query Text"), "{plans}");
    plans
}

/// Asserts that the partition that holds the changes, and nothing that is as large, was read as a whole.
fn assert_no_scan(past: &mut Past, plans: &str) {
    let filled = past.rows("SELECT DISTINCT relname::text FROM bemi.changes c JOIN pg_class r ON r.oid = c.tableoid");
    for name in filled.iter().map(String::as_str).chain(["t"]) {
        let scan = format!("Seq Scan on {name} ");
        let wrong: Vec<&str> =
            plans.lines().filter(|line| line.contains(&scan) && !line.contains("never executed")).collect();
        assert!(wrong.is_empty(), "{wrong:#?}\n{plans}");
    }
}

fn by_index(server: &Server) {
    let mut past = Past::new(server, "history_by_index", TABLE);
    fill(&mut past);
    assert_eq!(past.history("t", "2").len(), 4);
    for key in ["2", "1", "77", "-5"] {
        let plans = plans(server, "history_by_index", &format!("SELECT * FROM bemi.history(NULL::t, '{key}')"));
        assert_no_scan(&mut past, &plans);
    }
    let start = std::time::Instant::now();
    assert!(past.history("t", "77").len() >= 25);
    assert!(start.elapsed().as_millis() < 1000, "{:?}", start.elapsed());
}

fn past_by_index(server: &Server) {
    let mut past = Past::new(server, "history_past_index", TABLE);
    let begin = past.now();
    fill(&mut past);
    for condition in ["id = 2", "1 = id", "id IN (1, 2, 77)", "id = 77 AND v = 'x'", "id = ANY ('{1,2}')"] {
        let plans = plans(
            server,
            "history_past_index",
            &format!("SELECT * FROM bemi.as_of(NULL::t, {begin}) WHERE {condition}"),
        );
        assert_no_scan(&mut past, &plans);
    }
}

fn diff(server: &Server) {
    let database = server.database("history_diff");
    let mut client = database.connect();
    for (before, after, expected) in [
        ("{}", "{}", "{}"),
        ("{\"a\":1}", "{\"a\":1}", "{}"),
        ("{\"a\":1}", "{\"a\":2}", "{\"a\":[1,2]}"),
        ("{\"a\":1}", "{}", "{\"a\":[1,null]}"),
        ("{}", "{\"a\":1}", "{\"a\":[null,1]}"),
        ("{\"a\":null}", "{}", "{}"),
        ("{}", "{\"a\":null}", "{}"),
        ("{\"a\":null}", "{\"a\":0}", "{\"a\":[null,0]}"),
        ("{\"a\":\"null\"}", "{\"a\":null}", "{\"a\":[\"null\",null]}"),
        ("{\"a\":\"1\"}", "{\"a\":1}", "{\"a\":[\"1\",1]}"),
        ("{\"a\":{\"b\":1,\"c\":2}}", "{\"a\":{\"c\":2,\"b\":1}}", "{}"),
        ("{\"a\":{\"b\":1}}", "{\"a\":{\"b\":2}}", "{\"a\":[{\"b\":1},{\"b\":2}]}"),
        ("{\"a\":[1,2]}", "{\"a\":[2,1]}", "{\"a\":[[1,2],[2,1]]}"),
        (
            "{\"a\":1,\"é \\\"q\\\"\":true,\"c\":3}",
            "{\"a\":1,\"é \\\"q\\\"\":false,\"d\":3}",
            "{\"é \\\"q\\\"\":[true,false],\"c\":[3,null],\"d\":[null,3]}",
        ),
        ("{\"\":1}", "{\"\":2}", "{\"\":[1,2]}"),
        ("{\"a\":1}", "{\"A\":1}", "{\"a\":[1,null],\"A\":[null,1]}"),
        ("{\"a\":1e400}", "{\"a\":1e400}", "{}"),
    ] {
        let row = client.query_one("SELECT bemi.diff($1::text::jsonb, $2::text::jsonb) = $3::text::jsonb, bemi.diff($1::text::jsonb, $2::text::jsonb)::text", &[&before, &after, &expected]).unwrap();
        assert_eq!(row.get::<_, Option<bool>>(0), Some(true), "{before} {after}: {:?}", row.get::<_, Option<&str>>(1));
        // The other way round, the values change their places.
        let there_and_back = "
          SELECT COALESCE(bool_and(o.value = jsonb_build_array(n.value->1, n.value->0)), true)
          FROM jsonb_each(bemi.diff($1::text::jsonb, $2::text::jsonb)) o FULL JOIN jsonb_each(bemi.diff($2::text::jsonb, $1::text::jsonb)) n USING (key)";
        assert!(client.query_one(there_and_back, &[&before, &after]).unwrap().get::<_, bool>(0), "{before} {after}");
    }
    assert!(
        client
            .query_one("SELECT bemi.diff(NULL, NULL) IS NULL OR bemi.diff(NULL, NULL) = '{}'", &[])
            .unwrap()
            .get::<_, bool>(0)
    );
    // What is no row has no columns: an error, or nothing, but no crash.
    for value in ["1", "[]", "\"a\"", "null"] {
        let _ = client.query("SELECT bemi.diff($1::text::jsonb, '{}')", &[&value]);
    }
    client.batch_execute("CREATE ROLE diff_reader; SET ROLE diff_reader").unwrap();
    let result = client.query("SELECT bemi.diff('{}', '{}')", &[]);
    assert!(result.is_ok() || sqlstate(result) == "42501");
    client.batch_execute("RESET ROLE; DROP ROLE diff_reader").unwrap();
}

fn changes_diff(server: &Server) {
    let mut past = Past::new(server, "history_changes_diff", TABLE);
    past.then("SELECT bemi.set_context('{\"who\":1}'); INSERT INTO t VALUES (1, 'a', NULL); UPDATE t SET v = 'b'; UPDATE t SET n = 1; DELETE FROM t; TRUNCATE t; SELECT bemi.sync()");
    let rows = past.client.query("SELECT operation, primary_key, \"table\", schema, context::text, committed_at::text, diff::text FROM bemi.changes_diff ORDER BY committed_at", &[]).unwrap();
    let found: Vec<(String, Value)> =
        rows.iter().map(|row| (row.get(0), serde_json::from_str(row.get(6)).unwrap())).collect();
    let expected = [
        ("CREATE", json!({"id": [null, 1], "v": [null, "a"]})),
        ("UPDATE", json!({"v": ["a", "b"]})),
        ("UPDATE", json!({"n": [null, 1]})),
        ("DELETE", json!({"id": [1, null], "v": ["b", null], "n": [1, null]})),
        ("TRUNCATE", json!({})),
    ];
    assert_eq!(found, expected.map(|(operation, diff)| (operation.to_owned(), diff)));
    let wrong: i64 = past
        .client
        .query_one("SELECT count(*) FROM bemi.changes_diff d FULL JOIN bemi.changes c USING (id) WHERE (d.diff = bemi.diff(c.before, c.after)) IS NOT TRUE", &[])
        .unwrap()
        .get(0);
    assert_eq!(wrong, 0);
    // It shows no more than the table does.
    past.client
        .batch_execute(
            "CREATE ROLE history_nobody; GRANT USAGE ON SCHEMA bemi TO history_nobody; SET ROLE history_nobody",
        )
        .unwrap();
    let read = past.client.query("SELECT * FROM bemi.changes_diff", &[]);
    if server.major == 14 {
        // A view has the rights of its owner there, so it shows nothing.
        assert!(read.unwrap().is_empty());
    } else {
        assert_eq!(sqlstate(read), "42501");
    }
    past.client
        .batch_execute("RESET ROLE; REVOKE USAGE ON SCHEMA bemi FROM history_nobody; DROP ROLE history_nobody")
        .unwrap();
}

fn old_keys(server: &Server) {
    let mut past = Past::new(
        server,
        "history_old_keys",
        "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE c (a int, b text, v text, PRIMARY KEY (a, b)); CREATE TABLE n (id numeric PRIMARY KEY);
         CREATE TABLE d (id int PRIMARY KEY, v text); SELECT bemi.track(r) FROM unnest('{t,c,n}'::regclass[]) r; SELECT bemi.track('d', 'default')",
    );
    past.then("INSERT INTO t VALUES (1, 'a'); UPDATE t SET v = 'b'; UPDATE t SET id = id; UPDATE t SET id = 2; UPDATE t SET id = 3, v = 'c'; DELETE FROM t");
    past.then("INSERT INTO c VALUES (1, 'x', 'v'); UPDATE c SET v = 'w'; UPDATE c SET b = 'y'; UPDATE c SET a = 2, b = '\"'; DELETE FROM c");
    past.then("INSERT INTO n VALUES (1.0); UPDATE n SET id = 1.00; DELETE FROM n; INSERT INTO d VALUES (1, 'a'); UPDATE d SET v = 'b'; UPDATE d SET id = 2; TRUNCATE t; SELECT bemi.sync()");
    let rows = past.client.query("SELECT concat_ws(' ', \"table\", operation, old_primary_key, '>', primary_key) FROM bemi.changes ORDER BY commit_position, sequence", &[]).unwrap();
    let found: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let expected = [
        "t CREATE > 1",
        "t UPDATE > 1",
        "t UPDATE > 1",
        "t UPDATE 1 > 2",
        "t UPDATE 2 > 3",
        "t DELETE > 3",
        "c CREATE > [\"1\",\"x\"]",
        "c UPDATE > [\"1\",\"x\"]",
        "c UPDATE [\"1\",\"x\"] > [\"1\",\"y\"]",
        "c UPDATE [\"1\",\"y\"] > [\"2\",\"\\\"\"]",
        "c DELETE > [\"2\",\"\\\"\"]",
        "n CREATE > 1.0",
        "n UPDATE 1.0 > 1.00",
        "n DELETE > 1.00",
        "d CREATE > 1",
        "d UPDATE > 1",
        "d UPDATE 1 > 2",
        "t TRUNCATE >",
    ];
    assert_eq!(found, expected);
}
