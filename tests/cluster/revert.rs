//! Undoing changes: what is undone, what is refused, and that it is said.
use postgres::Client;

use crate::Test;
use crate::recorder::recording;
use crate::server::{Server, run, sqlstate};

pub const TESTS: &[Test] = &[
    ("changes_of_a_row_are_undone_from_the_newest_to_the_oldest", chain),
    ("all_conflicts_are_told_in_one_error_and_nothing_is_undone", conflicts),
    ("what_conflicts_is_skipped_with_the_older_changes_of_its_row", skipped),
    ("operators_that_others_put_into_the_search_path_are_not_called", operators),
    ("identity_and_generated_columns_are_undone_or_refused_by_name", generated),
    ("masked_and_ignored_columns_are_never_written_over", rules),
    ("a_trigger_that_sets_a_column_is_told_and_no_conflict", triggers),
    ("nobody_undoes_what_he_may_not_change", privileges),
    ("what_the_log_does_not_have_is_refused", refused),
    ("a_revert_carries_its_arguments_and_leaves_the_context_as_it_was", context),
];

/// What `bemi.revert` gives: operation, key, status and detail of each.
pub fn revert(client: &mut Client, arguments: &str) -> Vec<String> {
    let all = format!(
        "SELECT concat_ws(' ', operation, relation, primary_key, status, '(' || detail || ')') FROM bemi.revert({arguments})"
    );
    let rows = client.query(&all, &[]).unwrap_or_else(|error| panic!("{arguments}: {error:?}"));
    rows.iter().map(|row| row.get(0)).collect()
}

/// The last transaction that is recorded.
pub const NEWEST: &str =
    "transaction_id => (SELECT transaction_id FROM bemi.changes ORDER BY commit_position DESC LIMIT 1)";

/// The error that it raises: SQLSTATE, message and detail.
pub fn error(client: &mut Client, arguments: &str) -> (String, String) {
    let error = client.query(&format!("SELECT * FROM bemi.revert({arguments})"), &[]).expect_err(arguments);
    let error = error.as_db_error().unwrap_or_else(|| panic!("{error:?}"));
    let text = format!("{}\n{}", error.message(), error.detail().unwrap_or_default());
    (error.code().code().to_owned(), text)
}

/// Runs statements under a context of their own, in one transaction.
pub fn under(client: &mut Client, name: &str, statements: &str) {
    let all = format!("BEGIN; SELECT bemi.set_context('{{\"x\":\"{name}\"}}', true); {statements}; COMMIT");
    client.batch_execute(&all).unwrap_or_else(|error| panic!("{error:?}: {statements}"));
}

pub fn of(name: &str) -> String {
    format!("context => '{{\"x\":\"{name}\"}}'")
}

pub fn rows(client: &mut Client, table: &str) -> String {
    let all = format!("SELECT COALESCE(string_agg((a.*)::text, ' ' ORDER BY (a.*)::text), '') FROM {table} a");
    client.query_one(&all, &[]).unwrap().get(0)
}

pub fn statements(client: &mut Client, arguments: &str) -> Vec<String> {
    let rows = client.query(&format!("SELECT * FROM bemi.revert_sql({arguments})"), &[]).unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

fn chain(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "revert_chain");
    run(&mut client, "INSERT INTO t VALUES (1, 'a')");
    under(
        &mut client,
        "x",
        "UPDATE t SET v = 'b'; UPDATE t SET v = 'c'; UPDATE t SET id = 2; DELETE FROM t; INSERT INTO t VALUES (2, 'd'); INSERT INTO t VALUES (1, NULL)",
    );
    assert_eq!(
        statements(&mut client, &of("x")),
        [
            "DELETE FROM public.t WHERE id = '1'::integer;",
            "DELETE FROM public.t WHERE id = '2'::integer;",
            "INSERT INTO public.t (id, v) VALUES ('2'::integer, 'c'::text);",
            "UPDATE public.t SET id = '1'::integer WHERE id = '2'::integer;",
            "UPDATE public.t SET v = 'b'::text WHERE id = '1'::integer AND v = 'c'::text;",
            "UPDATE public.t SET v = 'a'::text WHERE id = '1'::integer AND v = 'b'::text;",
        ]
    );
    let done = revert(&mut client, &of("x"));
    assert_eq!(done[3], "UPDATE t 2 reverted");
    assert_eq!((done.len(), rows(&mut client, "t")), (6, "(1,a)".to_owned()));
    // By the key that a row had, and by the one it has; in a range of time.
    under(&mut client, "y", "UPDATE t SET id = 7; UPDATE t SET v = 'e'");
    for key in ["1", "7"] {
        let selected = statements(&mut client, &format!("relation => 't', primary_key => '{key}', {}", of("y")));
        assert_eq!(selected.len(), if key == "1" { 1 } else { 2 }, "{selected:?}");
    }
    let none = format!("{}, since => 'tomorrow'", of("y"));
    assert_eq!(statements(&mut client, &none), <[&str; 0]>::default());
    let all = format!("{}, since => now() - interval '1 hour', until => now()", of("y"));
    assert_eq!(revert(&mut client, &all).len(), 2);
    assert_eq!(rows(&mut client, "t"), "(1,a)");
}

fn conflicts(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "revert_conflicts");
    run(&mut client, "INSERT INTO t SELECT i, 'a' FROM generate_series(1, 5) i");
    under(
        &mut client,
        "x",
        "UPDATE t SET v = 'b' WHERE id < 4; UPDATE t SET v = 'c' WHERE id < 4; DELETE FROM t WHERE id = 4; INSERT INTO t VALUES (6, 'new'), (7, 'new')",
    );
    run(
        &mut client,
        "UPDATE t SET v = 'other' WHERE id IN (1, 6); DELETE FROM t WHERE id IN (2, 7); INSERT INTO t VALUES (4, 'other')",
    );
    let before = rows(&mut client, "t");
    let (state, text) = error(&mut client, &of("x"));
    assert_eq!(state, "27000");
    assert_eq!(
        text.lines().collect::<Vec<_>>(),
        [
            "bemi undid nothing: 5 of the changes cannot be undone",
            "public.t 7 (CREATE): the row is not there",
            "public.t 6 (CREATE): changed since: v",
            "public.t 4 (DELETE): a row with this key is there",
            "public.t 2 (UPDATE): the row is not there",
            "public.t 1 (UPDATE): changed since: v",
        ]
    );
    assert_eq!(rows(&mut client, "t"), before);
    // Not more than anybody reads.
    under(&mut client, "many", "INSERT INTO t SELECT i FROM generate_series(101, 130) i");
    run(&mut client, "UPDATE t SET v = 'other' WHERE id > 100");
    let (_, text) = error(&mut client, &of("many"));
    assert_eq!((text.lines().count(), text.lines().last()), (22, Some("and 10 more")));
    for (arguments, expected) in [("", "22023"), ("transaction_id => 1, on_conflict => 'no'", "22023")] {
        assert_eq!(error(&mut client, arguments).0, expected);
    }
    run(&mut client, "BEGIN ISOLATION LEVEL REPEATABLE READ");
    assert_eq!(error(&mut client, &of("x")).0, "25001");
    run(&mut client, "ROLLBACK");
    // Ids come again after four billion transactions.
    run(&mut client, "UPDATE bemi.changes SET transaction_id = 5");
    let (state, text) = error(&mut client, "transaction_id => 5");
    assert_eq!(state, "42P08", "{text}");
    assert!(text.starts_with("several transactions had the id 5\nThey committed at 2"), "{text}");
}

fn skipped(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "revert_skipped");
    run(&mut client, "INSERT INTO t SELECT i, 'a' FROM generate_series(1, 3) i");
    under(
        &mut client,
        "x",
        "UPDATE t SET v = 'b' WHERE id = 1; UPDATE t SET id = 9 WHERE id = 1; UPDATE t SET v = 'c'",
    );
    run(&mut client, "UPDATE t SET v = 'other' WHERE id = 9");
    let mut done = revert(&mut client, &format!("{}, on_conflict => 'skip'", of("x")));
    done.sort();
    assert_eq!(
        done,
        [
            "UPDATE t 1 skipped (a newer change of the row was not undone)",
            "UPDATE t 2 reverted",
            "UPDATE t 3 reverted",
            "UPDATE t 9 skipped (a newer change of the row was not undone)",
            "UPDATE t 9 skipped (changed since: v)",
        ]
    );
    assert_eq!(rows(&mut client, "t"), "(2,a) (3,a) (9,other)");
    // What a constraint forbids now.
    run(&mut client, "UPDATE t SET v = NULL WHERE id = 2");
    under(&mut client, "y", "UPDATE t SET v = 'd' WHERE id < 4");
    run(&mut client, "ALTER TABLE t ALTER v SET NOT NULL");
    let done = revert(&mut client, &format!("{}, on_conflict => 'skip'", of("y")));
    assert_eq!(done[0], "UPDATE t 3 reverted");
    assert!(done[1].starts_with("UPDATE t 2 skipped (null value in column"), "{done:?}");
}

fn operators(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "revert_operators");
    client
        .batch_execute("CREATE TYPE mood AS ENUM ('a', 'b'); CREATE DOMAIN word AS text; CREATE DOMAIN number AS int")
        .unwrap();
    for (kind, other) in [
        ("varchar", "varchar"),
        ("varchar", "text"),
        ("mood", "mood"),
        ("word", "text"),
        ("int[]", "int[]"),
        ("number", "int"),
    ] {
        client
            .batch_execute(&format!(
                "CREATE FUNCTION called({kind}, {other}) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'called'; END $$;
                 CREATE OPERATOR = (LEFTARG = {kind}, RIGHTARG = {other}, FUNCTION = called)"
            ))
            .unwrap();
    }
    run(
        &mut client,
        "CREATE TABLE o (k varchar PRIMARY KEY, m mood, w word, a int[], n number, t text); SELECT bemi.track('o'); INSERT INTO o VALUES ('a', 'a', 'a', '{1}', 1, 'a')",
    );
    under(&mut client, "x", "UPDATE o SET m = 'b', w = 'b', a = '{2}', n = 2, t = 'b'; DELETE FROM o");
    for statement in statements(&mut client, &of("x")) {
        client.batch_execute(&format!("BEGIN; {statement} COMMIT")).unwrap();
    }
    assert_eq!(rows(&mut client, "o"), "(a,a,a,{1},1,a)");
    run(&mut client, "SELECT bemi.sync()");
    under(&mut client, "y", "UPDATE o SET m = 'b', w = 'b', a = '{2}', n = 2, t = 'b'");
    revert(&mut client, &of("y"));
}

fn generated(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "revert_generated");
    let kept = if server.major >= 18 { ", w int GENERATED ALWAYS AS (a + 2) VIRTUAL" } else { "" };
    run(
        &mut client,
        &format!(
            "CREATE TABLE g (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a int, s int GENERATED ALWAYS AS (a * 2) STORED{kept}); \
             SELECT bemi.track('g'); INSERT INTO g (a) VALUES (1), (2)"
        ),
    );
    let before = rows(&mut client, "g");
    under(&mut client, "x", "UPDATE g SET a = 7; DELETE FROM g WHERE id = 1; INSERT INTO g (a) VALUES (5)");
    let shown = statements(&mut client, &of("x"));
    assert_eq!(shown[1], "INSERT INTO public.g (id, a) OVERRIDING SYSTEM VALUE VALUES ('1'::integer, '7'::integer);");
    revert(&mut client, &of("x"));
    assert_eq!(rows(&mut client, "g"), before);
    under(&mut client, "y", "UPDATE g SET id = DEFAULT WHERE id = 1");
    let (state, text) = error(&mut client, &of("y"));
    assert!(
        state == "0A000" && text.contains("public.g") && text.contains("the column id is GENERATED ALWAYS"),
        "{text}"
    );
}

fn rules(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "revert_rules");
    run(
        &mut client,
        "CREATE TABLE u (id int PRIMARY KEY, name text, iban text, seen int); SELECT bemi.track('u', ignore_columns => '{seen}', mask_columns => '{iban}'); \
         INSERT INTO u VALUES (1, 'a', 'secret', 1), (2, 'b', NULL, 1)",
    );
    under(&mut client, "x", "UPDATE u SET name = 'c', iban = 'other', seen = 2");
    run(&mut client, "UPDATE u SET seen = 9 WHERE id = 1");
    assert_eq!(
        revert(&mut client, &of("x")),
        [
            "UPDATE u 2 partly reverted (masked, and left as they are: iban)",
            "UPDATE u 1 partly reverted (masked, and left as they are: iban)"
        ]
    );
    assert_eq!(rows(&mut client, "u"), "(1,a,other,9) (2,b,other,1)");
    under(&mut client, "y", "DELETE FROM u WHERE id = 1");
    let (state, text) = error(&mut client, &of("y"));
    assert!(state == "55000" && text.contains("the value of iban was masked"), "{text}");
    // Nothing is hidden of a null, and a row can be deleted without it.
    run(&mut client, "UPDATE u SET iban = NULL");
    under(&mut client, "z", "DELETE FROM u WHERE id = 2; INSERT INTO u VALUES (3, 'd', 'secret', 1)");
    run(&mut client, "UPDATE u SET seen = 5 WHERE id = 3");
    assert_eq!(revert(&mut client, &of("z")), ["CREATE u 3 reverted", "DELETE u 2 reverted"]);
    assert_eq!(rows(&mut client, "u"), "(2,b,,1)");
}

fn triggers(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "revert_triggers");
    client
        .batch_execute(
            "CREATE TABLE s (id int PRIMARY KEY, v text, version int); CREATE TABLE seen (v text);
             CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               INSERT INTO seen VALUES (current_setting('search_path')); NEW.version := NEW.version + 100; RETURN NEW; END $$;
             CREATE TRIGGER touch BEFORE INSERT OR UPDATE ON s FOR EACH ROW EXECUTE FUNCTION touch();
             SELECT bemi.track('s'); INSERT INTO s VALUES (1, 'a', 0)",
        )
        .unwrap();
    under(&mut client, "x", "UPDATE s SET v = 'b'; UPDATE s SET v = 'c'; DELETE FROM s");
    assert_eq!(
        revert(&mut client, &of("x")),
        [
            "DELETE s 1 partly reverted (a trigger changed: version)",
            "UPDATE s 1 partly reverted (a trigger changed: version)",
            "UPDATE s 1 partly reverted (a trigger changed: version)",
        ]
    );
    assert_eq!(rows(&mut client, "s"), "(1,a,200)");
    let paths: i64 = client.query_one("SELECT count(*) FROM seen WHERE v = '\"$user\", public'", &[]).unwrap().get(0);
    assert_eq!(paths, 6);
    // One that stops it.
    under(&mut client, "y", "UPDATE s SET v = 'd'");
    client
        .batch_execute(
            "CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
             CREATE TRIGGER stop BEFORE UPDATE ON s FOR EACH ROW EXECUTE FUNCTION stop()",
        )
        .unwrap();
    let (_, text) = error(&mut client, &of("y"));
    assert!(text.contains("a trigger, a rule or a policy kept it"), "{text}");
}

fn privileges(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "revert_privileges");
    run(
        &mut client,
        "INSERT INTO t VALUES (1, 'a'); CREATE ROLE revert_clerk LOGIN; CREATE TABLE c (id int PRIMARY KEY, t int REFERENCES t ON DELETE CASCADE)",
    );
    under(&mut client, "x", "UPDATE t SET v = 'b'; INSERT INTO t VALUES (2, 'c')");
    let mut clerk = server.connect_with("revert_privileges", "revert_clerk", "");
    let mut states = Vec::new();
    for grant in [
        "SELECT ON bemi.changes",
        "SELECT, UPDATE ON t",
        "DELETE ON t",
        // Whether rows of it would go too.
        "SELECT ON c",
    ] {
        states.push(error(&mut clerk, &of("x")).1);
        run(&mut client, &format!("GRANT {grant} TO revert_clerk"));
    }
    for (text, table) in states.iter().zip(["bemi.changes", "public.t", "public.t", "c"]) {
        assert!(text.starts_with(&format!("permission denied for table {table}")), "{text}");
    }
    run(&mut client, "ALTER TABLE c ENABLE ROW LEVEL SECURITY");
    assert_eq!(error(&mut clerk, &of("x")).0, "42501");
    run(&mut client, "ALTER TABLE c DISABLE ROW LEVEL SECURITY; ALTER TABLE t ENABLE ROW LEVEL SECURITY");
    assert!(error(&mut clerk, &of("x")).1.contains("the row is not there"));
    run(&mut client, "ALTER TABLE t DISABLE ROW LEVEL SECURITY");
    assert_eq!(revert(&mut clerk, &of("x")).len(), 2);
    assert_eq!(rows(&mut client, "t"), "(1,a)");
    run(&mut client, "DROP OWNED BY revert_clerk; DROP ROLE revert_clerk");
}

fn refused(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "revert_refused");
    run(
        &mut client,
        "CREATE TABLE keyed (id int PRIMARY KEY, v text); SELECT bemi.track('keyed', 'default'); CREATE TABLE keyless (v text); SELECT bemi.track('keyless'); \
         CREATE TABLE gone (id int PRIMARY KEY); SELECT bemi.track('gone'); CREATE TABLE j (id int PRIMARY KEY, j json, v text, old text); SELECT bemi.track('j'); \
         INSERT INTO keyed VALUES (1, 'a'), (2, 'b'); INSERT INTO t VALUES (1, 'a'), (2, 'b'); INSERT INTO j VALUES (1, '\"\\u0000\"', 'a', 'x'), (2, '1', 'a', 'x')",
    );
    let cases = [
        ("update", "UPDATE keyed SET v = 'c' WHERE id = 1", "the row before it was not recorded", "55000"),
        ("delete", "DELETE FROM keyed WHERE id = 2", "the row before it was not recorded", "55000"),
        ("keyless", "INSERT INTO keyless VALUES ('a')", "nothing names the row", "55000"),
        ("gone", "INSERT INTO gone VALUES (1)", "public.gone: it is no longer there", "42P01"),
        ("omitted", "UPDATE j SET v = 'b' WHERE id = 1", "the value of j was omitted", "55000"),
        ("dropped", "UPDATE j SET old = 'y' WHERE id = 2", "no longer has the column old", "42703"),
        ("key", "INSERT INTO t VALUES (3, 'key')", "no longer has the key", "55000"),
    ];
    for (name, statement, _, _) in cases {
        under(&mut client, name, statement);
    }
    under(&mut client, "other column", "UPDATE j SET v = 'c' WHERE id = 2");
    under(&mut client, "deleted", "DELETE FROM j WHERE id = 2");
    under(&mut client, "made", "INSERT INTO j VALUES (3, '\"\\u0000\"', 'a', 'x')");
    run(
        &mut client,
        "SELECT bemi.sync(); DROP TABLE gone; ALTER TABLE j DROP old; ALTER TABLE j ADD added int DEFAULT 5; ALTER TABLE t DROP CONSTRAINT t_pkey",
    );
    for (name, _, what, expected) in cases {
        let (state, text) = error(&mut client, &of(name));
        assert!(state == expected && text.contains(what), "{name}: {state} {text}");
        assert_eq!(sqlstate(client.query(&format!("SELECT bemi.revert_sql({})", of(name)), &[])), expected, "{name}");
    }
    assert_eq!(revert(&mut client, &of("made")), ["CREATE j 3 reverted"]);
    assert_eq!(revert(&mut client, &of("deleted")), ["DELETE j 2 reverted (no longer columns, and left out: old)"]);
    assert_eq!(revert(&mut client, &of("other column")), ["UPDATE j 2 reverted"]);
    assert_eq!(rows(&mut client, "j"), "(1,\"\"\"\\\\u0000\"\"\",b,5) (2,1,a,5)");
}

fn context(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "revert_context");
    under(&mut client, "x", "INSERT INTO t VALUES (1, 'a')");
    run(&mut client, "SELECT bemi.set_context('{\"user\":1}')");
    let _ = error(&mut client, "");
    let now = |client: &mut Client| client.query_one("SELECT bemi.context()::text", &[]).unwrap().get::<_, String>(0);
    assert_eq!(now(&mut client), "{\"user\": 1}");
    run(&mut client, "BEGIN");
    revert(&mut client, &format!("{}, relation => 't'", of("x")));
    assert_eq!(now(&mut client), "{\"user\": 1}");
    run(&mut client, "INSERT INTO t VALUES (2, 'b'); COMMIT; SELECT bemi.sync()");
    assert_eq!(now(&mut client), "{\"user\": 1}");
    let contexts =
        client.query("SELECT context::text FROM bemi.changes ORDER BY commit_position, sequence", &[]).unwrap();
    let contexts: Vec<String> = contexts.iter().map(|row| row.get(0)).collect();
    assert_eq!(
        contexts,
        [
            "{\"x\": \"x\"}",
            "{\"user\": 1, \"reverts\": {\"context\": {\"x\": \"x\"}, \"relation\": \"public.t\"}}",
            "{\"user\": 1}"
        ]
    );
}
