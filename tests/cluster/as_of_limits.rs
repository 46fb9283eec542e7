//! What `bemi.as_of` refuses since it cannot be known, what it warns of, and who may ask.
use postgres::error::DbError;

use crate::Test;
use crate::past::Past;
use crate::server::{Server, run, sqlstate};

pub const TESTS: &[Test] = &[
    ("the_past_before_tracking_is_refused", before_tracking),
    ("the_past_without_whole_images_or_a_key_is_refused", no_images),
    ("the_past_across_a_gap_is_refused", gaps),
    ("the_past_of_what_is_no_table_is_refused", no_table),
    ("a_recorder_that_stands_still_is_told", stopped),
    ("a_truncate_is_told_and_what_is_recorded_comes_back", truncated),
    ("masked_columns_are_null_and_told", masked),
    ("who_may_read_the_table_and_its_changes_may_read_its_past", privileges),
    ("a_renamed_table_keeps_its_past_and_a_namesake_has_none_of_it", renamed),
    ("partitions_that_come_and_go_give_no_wrong_past", attached),
    ("columns_added_dropped_renamed_and_retyped_are_read_as_of_today", columns),
    ("keys_that_may_be_swapped_at_once_give_no_wrong_past", deferrable),
    ("names_of_columns_that_come_again_are_told_apart", names_again),
];

const TABLE: &str =
    "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'old'), (2, 'old'); SELECT bemi.track('t')";

const EARLY: &str = "timestamptz '2000-01-01 00:00+00'";

impl Past<'_> {
    /// The rows of `t` at an instant, as text.
    fn at(&mut self, at: &str) -> Vec<String> {
        self.rows(&format!("SELECT x::text FROM bemi.as_of(NULL::t, {at}) x"))
    }

    fn refusal(&mut self, statement: &str) -> DbError {
        let error = self.client.query(statement, &[]).expect_err(statement);
        error.as_db_error().unwrap_or_else(|| panic!("{error:?}")).clone()
    }

    /// Asserts that the past of `t` is refused, with one of these words in what is said.
    fn is_refused(&mut self, at: &str, words: &[&str]) {
        for statement in [
            format!("SELECT * FROM bemi.as_of(NULL::t, {at})"),
            format!("SELECT * FROM bemi.as_of(NULL::t, {at}) WHERE id = 1"),
            format!("SELECT (bemi.as_of(NULL::t, {at})).*"),
        ] {
            let error = self.refusal(&statement);
            let text = format!("{} {} {}", error.message(), error.detail().unwrap_or(""), error.hint().unwrap_or(""))
                .to_lowercase();
            assert_eq!(error.code().code(), "55000", "{statement}: {text}");
            assert!(
                words.iter().any(|word| text.contains(&word.to_lowercase())),
                "{statement}: {text}: none of {words:?}"
            );
        }
    }

    /// Asserts that the past is either refused or right.
    fn is_right_or_refused(&mut self, at: &str, expected: &[&str]) {
        match self.client.query(&format!("SELECT x::text FROM bemi.as_of(NULL::t, {at}) x ORDER BY 1"), &[]) {
            Ok(rows) => {
                assert_eq!(rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>(), expected, "{at}")
            }
            Err(error) => assert_eq!(sqlstate::<()>(Err(error)), "55000"),
        }
    }
}

fn before_tracking(server: &Server) {
    let mut past = Past::new(
        server,
        "past_before",
        "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE other (id int PRIMARY KEY); SELECT bemi.track('other')",
    );
    let untracked = past.then("INSERT INTO t VALUES (1, 'a')");
    past.is_refused(&untracked, &["track"]);
    past.then("UPDATE t SET v = 'b'; SELECT bemi.track('t')");
    let tracked = past.then("SELECT bemi.sync()");
    let changed = past.then("UPDATE t SET v = 'c'");
    for at in [EARLY, "'-infinity'", &untracked] {
        past.is_refused(at, &["track", "recorded since"]);
    }
    assert_eq!(past.at(&tracked), ["(1,b)"]);
    assert_eq!(past.at(&changed), ["(1,c)"]);
    assert_eq!(past.at("'infinity'"), ["(1,c)"]);
    assert_eq!(past.at("'2999-01-01'"), ["(1,c)"]);
    // What was changed while it was not tracked is not recorded.
    past.then("SELECT bemi.untrack('t'); UPDATE t SET v = 'd'; SELECT bemi.track('t')");
    let again = past.then("SELECT bemi.sync()");
    past.then("UPDATE t SET v = 'e'");
    past.is_refused(&tracked, &["track"]);
    past.is_refused(&changed, &["track"]);
    assert_eq!(past.at(&again), ["(1,d)"]);
    // Nor is what was changed while a trigger was not there, or not at work.
    past.then("ALTER TABLE t DISABLE TRIGGER ALL; UPDATE t SET v = 'f'; ALTER TABLE t ENABLE TRIGGER ALL; UPDATE t SET v = 'g'");
    past.is_right_or_refused(&again, &["(1,d)"]);
    // Tracked before it was recorded.
    let mut late = Past::new(server, "past_before_recorder", TABLE);
    late.then("UPDATE t SET v = 'new' WHERE id = 1");
    late.is_refused("now() - interval '1 hour'", &["record", "track"]);
    // A table that is made under the eyes of the recorder had no rows before.
    past.then("SELECT bemi.track_all(); CREATE TABLE made (id int PRIMARY KEY); INSERT INTO made VALUES (1)");
    let result = past.client.query(&format!("SELECT * FROM bemi.as_of(NULL::made, {changed})"), &[]);
    match result {
        Ok(rows) => assert!(rows.is_empty()),
        Err(error) => assert_eq!(sqlstate::<()>(Err(error)), "55000"),
    }
    assert_eq!(past.rows("SELECT id::text FROM bemi.as_of(NULL::made, now())"), ["1"]);
}

fn no_images(server: &Server) {
    let mut past = Past::new(
        server,
        "past_no_images",
        "CREATE TABLE t (id int PRIMARY KEY, v text); SELECT bemi.track('t', 'default')",
    );
    let at = past.then("INSERT INTO t VALUES (1, 'a')");
    past.then("UPDATE t SET v = 'b'");
    past.is_refused(&at, &["REPLICA IDENTITY"]);
    let tracked = past.then("SELECT bemi.track('t')");
    past.then("UPDATE t SET v = 'c'");
    past.is_refused(&at, &["REPLICA IDENTITY"]);
    assert_eq!(past.at(&tracked), ["(1,b)"]);
    past.then("ALTER TABLE t REPLICA IDENTITY NOTHING; UPDATE t SET v = 'd'; ALTER TABLE t REPLICA IDENTITY FULL");
    past.is_refused(&tracked, &["REPLICA IDENTITY"]);
    past.then("DROP TABLE t; CREATE TABLE t (id int, v text); SELECT bemi.track('t')");
    let at = past.then("INSERT INTO t VALUES (1, 'a')");
    past.then("DELETE FROM t");
    past.is_refused(&at, &["key"]);
    // A key that comes, goes or becomes another one.
    past.then("ALTER TABLE t ADD PRIMARY KEY (id)");
    past.is_right_or_refused(&at, &["(1,a)"]);
    let at = past.then("INSERT INTO t VALUES (2, 'b')");
    past.then("UPDATE t SET v = 'c'; ALTER TABLE t DROP CONSTRAINT t_pkey; UPDATE t SET v = 'd'; ALTER TABLE t ADD PRIMARY KEY (v); UPDATE t SET v = 'e'");
    past.is_right_or_refused(&at, &["(2,b)"]);
}

fn gaps(server: &Server) {
    let mut past = Past::new(server, "past_gaps", TABLE);
    let before = past.then("UPDATE t SET v = 'a'; SELECT bemi.sync()");
    past.then("SELECT bemi.stop(drop_slot => true); UPDATE t SET v = 'missing' WHERE id = 1; SELECT bemi.start(); SELECT bemi.sync()");
    let after = past.then("SELECT bemi.sync()");
    past.then("UPDATE t SET v = 'c'");
    past.is_refused(&before, &["gap", "missing"]);
    assert_eq!(past.at(&after), ["(1,missing)", "(2,a)"]);
    past.then("SELECT bemi.stop(); SELECT pg_drop_replication_slot(slot_name) FROM bemi.recorder_slots(); UPDATE t SET v = 'missing'; SELECT bemi.start(accept_gap => true); SELECT bemi.sync()");
    let last = past.then("SELECT bemi.sync()");
    past.then("DELETE FROM t WHERE id = 2");
    past.is_refused(&before, &["gap", "missing"]);
    past.is_refused(&after, &["gap", "missing"]);
    assert_eq!(past.at(&last), ["(1,missing)", "(2,missing)"]);
    // A stop that keeps the slot leaves no gap.
    past.then("SELECT bemi.stop(); UPDATE t SET v = 'd'");
    let meanwhile = past.now();
    past.then("UPDATE t SET v = 'e'; SELECT bemi.start()");
    assert_eq!(past.at(&meanwhile), ["(1,d)"]);
    assert_eq!(past.at(&last), ["(1,missing)", "(2,missing)"]);
}

fn no_table(server: &Server) {
    let mut past = Past::new(
        server,
        "past_no_table",
        &format!(
            "{TABLE}; CREATE VIEW v AS SELECT * FROM t; CREATE TYPE c AS (id int); CREATE TEMP TABLE temp (id int PRIMARY KEY); CREATE DOMAIN d AS c"
        ),
    );
    for base in [
        "1",
        "NULL::int",
        "NULL::text[]",
        "NULL::v",
        "NULL::c",
        "NULL::d",
        "NULL::temp",
        "NULL::record",
        "ROW(1)",
        "NULL::pg_class",
        "NULL::t[]",
    ] {
        for statement in [
            format!("SELECT * FROM bemi.as_of({base}, now()) x"),
            format!("SELECT bemi.as_of({base}, now())"),
            format!("SELECT bemi.history({base}, '1')"),
        ] {
            let result = past.client.batch_execute(&statement);
            // The history of a table that is not tracked may be empty.
            if statement.contains("history") && ["NULL::temp", "NULL::pg_class"].contains(&base) && result.is_ok() {
                continue;
            }
            assert!(result.is_err(), "{statement} is refused");
            let code = sqlstate(result);
            assert!(
                ["55000", "42809", "42804", "42601", "0A000", "22023", "42P18", "42883", "42725"]
                    .contains(&code.as_str()),
                "{statement}: {code}"
            );
        }
    }
    assert!(past.client.batch_execute("SELECT * FROM bemi.as_of(NULL::t, NULL)").is_err());
    assert!(past.client.batch_execute("SELECT * FROM bemi.as_of(NULL, now())").is_err());
    assert!(past.client.batch_execute("SELECT * FROM bemi.as_of(NULL::t, 'yesterday noon or so')").is_err());
}

fn stopped(server: &Server) {
    let mut past = Past::new(server, "past_stopped", TABLE);
    let at = past.then("UPDATE t SET v = 'a'");
    past.then("UPDATE t SET v = 'b'; SELECT bemi.stop(); UPDATE t SET v = 'c'");
    past.is_refused(&at, &["not recorded"]);
    let never = server.database("past_never_started");
    let mut client = never.connect();
    client.batch_execute(TABLE).unwrap();
    assert_eq!(sqlstate(client.batch_execute("SELECT * FROM bemi.as_of(NULL::t, now())")), "55000");
    assert_eq!(sqlstate(client.batch_execute("SELECT * FROM bemi.history(NULL::t, '1')")), "55000");
}

fn truncated(server: &Server) {
    let mut past = Past::new(server, "past_truncated", TABLE);
    let first = past.then("INSERT INTO t VALUES (3, 'a'), (4, 'a')");
    let second = past.then("UPDATE t SET v = 'b' WHERE id IN (2, 3); DELETE FROM t WHERE id = 4; BEGIN; TRUNCATE t; ROLLBACK; UPDATE t SET id = 5 WHERE id = 3");
    past.then("TRUNCATE t");
    let empty = past.then("SELECT bemi.sync()");
    past.then("INSERT INTO t VALUES (5, 'again'), (1, 'again')");
    let last = past.then("SELECT bemi.sync()");
    let time: String = past
        .rows("SELECT to_char(committed_at, 'YYYY-MM-DD HH24:MI:SS') FROM bemi.changes WHERE operation = 'TRUNCATE'")
        .remove(0);
    let (mut client, notices) = server.connect_listening("past_truncated", "postgres");
    let mut look = |at: &str| {
        let rows = client.query(&format!("SELECT x::text FROM bemi.as_of(NULL::t, {at}) x ORDER BY 1"), &[]).unwrap();
        let warnings: Vec<String> = notices.take().into_iter().filter(|notice| notice.starts_with("WARNING")).collect();
        (rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>(), warnings)
    };
    // Row 1 was never changed since tracking began.
    for (at, expected) in [(&second, vec!["(2,b)", "(5,b)"]), (&first, vec!["(2,old)", "(3,a)", "(4,a)"])] {
        let (rows, warnings) = look(at);
        assert_eq!(rows, expected, "{at}");
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].to_lowercase().contains("truncate") && warnings[0].contains(&time), "{warnings:?}");
    }
    for (at, expected) in [(&empty, vec![]), (&last, vec!["(1,again)", "(5,again)"])] {
        let (rows, warnings) = look(at);
        assert_eq!((rows, warnings), (expected.into_iter().map(str::to_owned).collect(), vec![]), "{at}");
    }
    // In the middle of a transaction, and twice.
    past.then("BEGIN; UPDATE t SET v = 'c'; TRUNCATE t; INSERT INTO t VALUES (7, 'd'); TRUNCATE t; INSERT INTO t VALUES (7, 'e'), (1, 'e'); COMMIT");
    let end = past.then("UPDATE t SET v = 'f'");
    assert_eq!(look(&last).0, ["(1,again)", "(5,again)"]);
    assert_eq!(look(&second).0, ["(2,b)", "(5,b)"]);
    assert_eq!(look(&empty).0, Vec::<String>::new());
    assert_eq!(look(&end).0, ["(1,f)", "(7,f)"]);
    assert_eq!(look("'infinity'").0, ["(1,f)", "(7,f)"]);
    // Not of another table.
    past.then("CREATE TABLE u (id int PRIMARY KEY); SELECT bemi.track('u'); TRUNCATE u; SELECT bemi.sync()");
    let (rows, warnings) = look(&end);
    assert_eq!((rows.len(), warnings.len()), (2, 0));
}

fn masked(server: &Server) {
    let mut past = Past::new(
        server,
        "past_masked",
        "CREATE TABLE t (id int PRIMARY KEY, secret text, code int, v text); SELECT bemi.track('t', mask_columns => '{secret,code}')",
    );
    let first = past.then("INSERT INTO t VALUES (1, 's', 7, 'a'), (2, NULL, NULL, 'a')");
    past.then("UPDATE t SET v = 'b', secret = 'u'");
    let (mut client, notices) = server.connect_listening("past_masked", "postgres");
    let rows = client.query(&format!("SELECT x::text FROM bemi.as_of(NULL::t, {first}) x ORDER BY 1"), &[]).unwrap();
    assert_eq!(rows.iter().map(|row| row.get::<_, &str>(0)).collect::<Vec<_>>(), ["(1,,,a)", "(2,,,a)"]);
    let said = notices.take();
    assert!(
        said.iter().any(|notice| notice.starts_with("NOTICE") && notice.contains("mask") && notice.contains("secret")),
        "{said:?}"
    );
    let row = client
        .query_one("SELECT \"row\"::text, changed::text FROM bemi.history(NULL::t, '1') WHERE version = 1", &[])
        .unwrap();
    assert_eq!(row.get::<_, Option<&str>>(0), Some("(1,,,a)"));
    assert!(!row.get::<_, &str>(1).contains("\"s\""));
    // What was masked while it was recorded stays unknown.
    past.then("SELECT bemi.track('t')");
    let unmasked = past.then("UPDATE t SET secret = 'known', code = 9 WHERE id = 1");
    past.then("UPDATE t SET v = 'c'");
    assert_eq!(past.at(&first), ["(1,,,a)", "(2,,,a)"]);
    let rows = past.at(&unmasked);
    assert!([["(1,known,9,b)", "(2,u,,b)"], ["(1,,,b)", "(2,,,b)"]].iter().any(|right| rows == *right), "{rows:?}");
}

fn privileges(server: &Server) {
    let setup = format!("{TABLE}; INSERT INTO t VALUES (3, 'old')");
    let mut past = Past::new(server, "past_privileges", &setup);
    let at = past.then(
        "UPDATE t SET v = 'new' WHERE id < 3; CREATE ROLE past_reader LOGIN; GRANT USAGE ON SCHEMA bemi TO past_reader",
    );
    past.then("DELETE FROM t WHERE id = 2");
    let mut reader = server.connect_with("past_privileges", "past_reader", "");
    let statements = [
        format!("SELECT * FROM bemi.as_of(NULL::t, {at})"),
        format!("SELECT * FROM bemi.as_of(NULL::t, {at}) WHERE id = 1"),
        format!("SELECT count(*) FROM bemi.as_of(NULL::t, {at})"),
        format!("SELECT bemi.as_of(NULL::t, {at})"),
        "SELECT * FROM bemi.history(NULL::t, '1')".to_owned(),
    ];
    for (grant, revoke) in [
        ("", ""),
        ("GRANT SELECT ON t TO past_reader", "REVOKE SELECT ON t FROM past_reader"),
        ("GRANT SELECT ON bemi.changes TO past_reader", ""),
    ] {
        past.client.batch_execute(grant).unwrap();
        for statement in &statements {
            assert_eq!(sqlstate(reader.batch_execute(statement)), "42501", "{grant}: {statement}");
        }
        past.client.batch_execute(revoke).unwrap();
    }
    // A part of the columns is not enough: the past shows all of them.
    past.client.batch_execute("GRANT SELECT (id) ON t TO past_reader").unwrap();
    for statement in &statements {
        assert_eq!(sqlstate(reader.batch_execute(statement)), "42501", "{statement}");
    }
    past.client.batch_execute("GRANT SELECT ON t TO past_reader").unwrap();
    for statement in &statements {
        assert!(!reader.query(statement, &[]).unwrap_or_else(|e| panic!("{e:?}: {statement}")).is_empty());
    }
    // Of the table, what policies hide is not shown; of bemi.changes it may read all.
    past.client
        .batch_execute(
            "CREATE POLICY mine ON t FOR SELECT TO past_reader USING (id = 1); ALTER TABLE t ENABLE ROW LEVEL SECURITY",
        )
        .unwrap();
    for form in ["SELECT id FROM bemi.as_of(NULL::t, {at})", "SELECT (bemi.as_of(NULL::t, {at})).id"] {
        if let Ok(rows) = reader.query(&form.replace("{at}", &at), &[]) {
            let ids: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
            assert!(ids.contains(&1) && !ids.contains(&3), "{form} shows what a policy hides: {ids:?}");
        }
    }
    past.client.batch_execute("REVOKE ALL ON t FROM past_reader; REVOKE ALL ON bemi.changes FROM past_reader; REVOKE USAGE ON SCHEMA bemi FROM past_reader; DROP POLICY mine ON t; DROP ROLE past_reader").unwrap();
}

fn renamed(server: &Server) {
    let mut past = Past::new(
        server,
        "past_renamed",
        "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE SCHEMA s; SELECT bemi.track('t')",
    );
    let first = past.then("INSERT INTO t VALUES (1, 'a')");
    let second = past.then("UPDATE t SET v = 'b'; ALTER TABLE t RENAME TO u; UPDATE u SET v = 'c'");
    past.then("ALTER TABLE u SET SCHEMA s; UPDATE s.u SET v = 'd'; ALTER SCHEMA s RENAME TO r; UPDATE r.u SET v = 'e'");
    for (at, expected) in [(&first, "(1,a)"), (&second, "(1,c)")] {
        assert_eq!(past.rows(&format!("SELECT x::text FROM bemi.as_of(NULL::r.u, {at}) x")), [expected]);
    }
    assert_eq!(
        past.rows("SELECT \"row\"::text FROM bemi.history(NULL::r.u, '1')"),
        ["(1,a)", "(1,b)", "(1,c)", "(1,d)", "(1,e)"]
    );
    // Another table of the name.
    past.then("CREATE TABLE t (id int PRIMARY KEY, v text); SELECT bemi.track('t')");
    let third = past.then("INSERT INTO t VALUES (1, 'other')");
    past.then("DELETE FROM t");
    past.is_right_or_refused(&first, &[]);
    assert_eq!(past.at(&third), ["(1,other)"]);
    assert_eq!(
        past.rows("SELECT coalesce(\"row\"::text, operation) FROM bemi.history(NULL::t, '1')"),
        ["(1,other)", "DELETE"]
    );
    past.then("DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, v text); SELECT bemi.track('t')");
    past.is_right_or_refused(&third, &[]);
    assert!(past.at("now()").is_empty());
    assert!(past.rows("SELECT \"row\"::text FROM bemi.history(NULL::t, '1')").is_empty());
    // Two tables change their names.
    past.then("CREATE TABLE w (id int PRIMARY KEY, v text); SELECT bemi.track('w'); INSERT INTO t VALUES (1, 't'); INSERT INTO w VALUES (1, 'w')");
    let fourth = past.now();
    past.then("UPDATE t SET v = 't2'; UPDATE w SET v = 'w2'; ALTER TABLE t RENAME TO x; ALTER TABLE w RENAME TO t; ALTER TABLE x RENAME TO w; UPDATE t SET v = 'w3'; UPDATE w SET v = 't3'");
    assert_eq!(past.at(&fourth), ["(1,w)"]);
    assert_eq!(past.rows(&format!("SELECT x::text FROM bemi.as_of(NULL::w, {fourth}) x")), ["(1,t)"]);
}

fn attached(server: &Server) {
    let mut past = Past::new(
        server,
        "past_attached",
        "CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
         CREATE TABLE t0 PARTITION OF t FOR VALUES FROM (0) TO (10); SELECT bemi.track('t')",
    );
    let first = past.then("INSERT INTO t VALUES (1, 'a')");
    past.then("CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (10) TO (20)");
    let second = past.then("INSERT INTO t VALUES (11, 'b')");
    past.then("UPDATE t SET v = 'c'; UPDATE t SET id = 12 WHERE id = 1");
    past.is_right_or_refused(&first, &["(1,a)"]);
    past.is_right_or_refused(&second, &["(1,a)", "(11,b)"]);
    past.then("CREATE TABLE t2 (v text, id int NOT NULL PRIMARY KEY); INSERT INTO t2 VALUES ('own', 21); ALTER TABLE t ATTACH PARTITION t2 FOR VALUES FROM (20) TO (30)");
    let third = past.then("SELECT bemi.sync()");
    past.then("UPDATE t SET v = 'd' WHERE id = 21");
    past.is_right_or_refused(&first, &["(1,a)"]);
    past.is_right_or_refused(&second, &["(1,a)", "(11,b)"]);
    assert_eq!(past.at(&third), ["(11,c)", "(12,c)", "(21,own)"]);
    past.then("ALTER TABLE t DETACH PARTITION t1; UPDATE t SET v = 'e'; UPDATE t1 SET v = 'e'");
    past.is_right_or_refused(&third, &["(11,c)", "(12,c)", "(21,own)"]);
    past.then("DROP TABLE t1; DROP TABLE t2");
    past.is_right_or_refused(&third, &["(11,c)", "(12,c)", "(21,own)"]);
    assert!(past.at("now()").is_empty());
}

fn columns(server: &Server) {
    let mut past =
        Past::new(server, "past_columns", "CREATE TABLE t (id int PRIMARY KEY, a int, b text); SELECT bemi.track('t')");
    let first = past.then("INSERT INTO t VALUES (1, 10, 'x'), (2, 20, 'y')");
    past.then("UPDATE t SET a = a + 1");
    past.then("ALTER TABLE t ADD c text; UPDATE t SET c = 'new' WHERE id = 1");
    assert_eq!(past.at(&first), ["(1,10,x,)", "(2,20,y,)"]);
    past.then("ALTER TABLE t RENAME a TO amount; UPDATE t SET amount = 0");
    assert_eq!(past.at(&first), ["(1,10,x,)", "(2,20,y,)"]);
    let second = past.now();
    past.then(
        "ALTER TABLE t ALTER amount TYPE numeric(10,2) USING amount / 2.0; UPDATE t SET amount = 5.25 WHERE id = 2",
    );
    assert_eq!(past.at(&first), ["(1,10.00,x,)", "(2,20.00,y,)"]);
    past.then("ALTER TABLE t DROP b; UPDATE t SET c = 'newer'");
    assert_eq!(past.at(&first), ["(1,10.00,)", "(2,20.00,)"]);
    assert_eq!(past.at(&second), ["(1,0.00,new)", "(2,0.00,)"]);
    past.then("ALTER TABLE t RENAME id TO number; UPDATE t SET number = number + 10");
    assert_eq!(past.at(&first), ["(1,10.00,)", "(2,20.00,)"]);
    past.then("ALTER TABLE t ALTER number TYPE bigint; UPDATE t SET c = 'newest'");
    assert_eq!(past.at(&first), ["(1,10.00,)", "(2,20.00,)"]);
    assert_eq!(
        past.rows(&format!("SELECT x::text FROM bemi.as_of(NULL::t, {first}) x WHERE number = 2")),
        ["(2,20.00,)"]
    );
    // A value that the new type cannot have is null.
    past.then("UPDATE t SET c = 'no number'; UPDATE t SET c = '5'; ALTER TABLE t ALTER c TYPE int USING c::int");
    assert_eq!(past.rows("SELECT c::text FROM bemi.as_of(NULL::t, now()) x"), ["5", "5"]);
    assert_eq!(past.at(&second), ["(1,0.00,)", "(2,0.00,)"]);
    // A column that was added with a default was not there before.
    past.then("ALTER TABLE t DROP c; ALTER TABLE t ADD d int DEFAULT 7");
    let third = past.then("UPDATE t SET d = 8 WHERE number = 11");
    assert_eq!(past.at(&third), ["(11,0.00,8)", "(12,5.25,7)"]);
    assert_eq!(past.at(&second), ["(1,0.00,)", "(2,0.00,)"]);
    // Generated ones are as the table computes them.
    past.then("ALTER TABLE t ADD g int GENERATED ALWAYS AS (d * 2) STORED");
    let fourth = past.then("UPDATE t SET d = 9");
    past.then("DELETE FROM t");
    assert_eq!(past.at(&fourth), ["(11,0.00,9,18)", "(12,5.25,9,18)"]);
}

fn deferrable(server: &Server) {
    let mut past = Past::new(
        server,
        "past_deferrable",
        "CREATE TABLE t (id int PRIMARY KEY DEFERRABLE, v text); SELECT bemi.track('t')",
    );
    let first = past.then("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')");
    let second = past.then("UPDATE t SET id = 3 - id WHERE id < 3");
    past.then("UPDATE t SET id = id + 1; UPDATE t SET v = 'x' WHERE id = 3; DELETE FROM t WHERE id = 2");
    past.is_right_or_refused(&first, &["(1,a)", "(2,b)", "(3,c)"]);
    past.is_right_or_refused(&second, &["(1,b)", "(2,a)", "(3,c)"]);
}

fn names_again(server: &Server) {
    let mut past = Past::new(
        server,
        "past_names_again",
        "CREATE TABLE t (id int PRIMARY KEY, a int, b int); SELECT bemi.track('t')",
    );
    let first = past.then("INSERT INTO t VALUES (1, 10, 20)");
    past.then("UPDATE t SET a = 11, b = 21");
    // The names of two are changed for one another.
    past.then("ALTER TABLE t RENAME a TO c; ALTER TABLE t RENAME b TO a; ALTER TABLE t RENAME c TO b");
    assert_eq!(
        past.rows(&format!("SELECT to_jsonb(x)::text FROM bemi.as_of(NULL::t, {first}) x")),
        ["{\"a\": 20, \"b\": 10, \"id\": 1}"]
    );
    past.then("UPDATE t SET a = 22, b = 12; ALTER TABLE t DROP a; ALTER TABLE t ADD a text; UPDATE t SET a = 'other'");
    assert_eq!(
        past.rows(&format!("SELECT to_jsonb(x)::text FROM bemi.as_of(NULL::t, {first}) x")),
        ["{\"a\": null, \"b\": 10, \"id\": 1}"]
    );
    // In one transaction with changes before and after.
    let second = past.now();
    let mut client = past.database.connect();
    client.batch_execute("BEGIN; UPDATE t SET b = 13, a = 'x'; ALTER TABLE t RENAME a TO x; ALTER TABLE t RENAME b TO a; ALTER TABLE t RENAME x TO b; UPDATE t SET a = 14, b = 'y'; COMMIT").unwrap();
    run(&mut client, "UPDATE t SET a = 15");
    assert_eq!(
        past.rows(&format!("SELECT to_jsonb(x)::text FROM bemi.as_of(NULL::t, {second}) x")),
        ["{\"a\": 12, \"b\": \"other\", \"id\": 1}"]
    );
    assert_eq!(
        past.rows("SELECT to_jsonb(\"row\")::text FROM bemi.history(NULL::t, '1') WHERE version = 5"),
        ["{\"a\": 13, \"b\": \"x\", \"id\": 1}"]
    );
}
