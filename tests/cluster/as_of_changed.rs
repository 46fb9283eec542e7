//! Tables that change under those who read their past, and what no answer is given to.
use postgres::Client;

use crate::Test;
use crate::recorder::recording;
use crate::server::{Server, run, sqlstate};

pub const TESTS: &[Test] = &[
    ("a_column_of_another_type_does_not_reach_a_plan_that_was_made_for_the_old_one", retyped),
    ("a_whole_row_of_the_past_may_stand_in_update_and_delete", whole_rows),
    ("a_column_added_since_is_null_in_all_rows", added),
    ("what_was_not_in_the_log_is_refused", not_logged),
    ("writers_under_the_old_name_of_a_schema_are_waited_for", schema),
    ("the_time_means_the_same_under_any_datestyle", datestyle),
    ("a_row_that_had_thousands_of_keys_has_its_history", chain),
    ("only_superusers_note_versions_by_hand", notes),
];

fn now(client: &mut Client) -> String {
    client.query_one("SELECT (clock_timestamp() AT TIME ZONE 'UTC')::text || '+00'", &[]).unwrap().get(0)
}

/// The answer in one text.
fn all(client: &mut Client, from: &str) -> String {
    let query = format!("SELECT COALESCE(string_agg(r::text, ' ' ORDER BY r::text), '') FROM {from} r");
    client.query_one(&query, &[]).unwrap_or_else(|error| panic!("{query}: {error:?}")).get(0)
}

fn retyped(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "past_retyped");
    run(
        &mut client,
        "CREATE TABLE r (id int PRIMARY KEY, v text, n int); SELECT bemi.track('r'); INSERT INTO r VALUES (5, 'v5', 5); \
         SET plan_cache_mode = force_generic_plan; PREPARE q AS SELECT id, v FROM bemi.as_of(NULL::r, now()) WHERE v = 'v5'; EXECUTE q; \
         ALTER TABLE r ALTER v TYPE int USING n",
    );
    assert_eq!(sqlstate(client.batch_execute("EXECUTE q")), "42804");
    assert_eq!(all(&mut client, "bemi.as_of(NULL::r, now())"), "(5,5,5)");
}

fn whole_rows(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "past_whole_rows");
    run(&mut client, "INSERT INTO t (v) VALUES ('a'), ('b')");
    let at = now(&mut client);
    run(&mut client, "UPDATE t SET v = 'c'");
    let mut other = server.connect_with("past_whole_rows", "postgres", "");
    let delete =
        format!("DELETE FROM t USING bemi.as_of(NULL::t, '{at}') x WHERE x.id = t.id AND t.id = 2 RETURNING x::text");
    assert_eq!(other.query_one(&delete, &[]).unwrap().get::<_, &str>(0), "(2,b)");
    let update =
        format!("UPDATE t SET v = (x).v FROM bemi.as_of(NULL::t, '{at}') x WHERE x.id = t.id AND t IS DISTINCT FROM x");
    assert_eq!(client.execute(&update, &[]).unwrap(), 1);
    assert_eq!(all(&mut client, "t"), "(1,a)");
}

fn added(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "past_added");
    run(&mut client, "INSERT INTO t (v) VALUES ('a'), ('b')");
    let at = now(&mut client);
    run(&mut client, "ALTER TABLE t ADD c int NOT NULL DEFAULT 77; UPDATE t SET v = 'x' WHERE id = 1");
    assert_eq!(all(&mut client, &format!("bemi.as_of(NULL::t, '{at}')")), "(1,a,) (2,b,)");
}

fn not_logged(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "past_not_logged");
    run(
        &mut client,
        "CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (9); \
         INSERT INTO p VALUES (2); CREATE TABLE k (id int[] PRIMARY KEY); SELECT bemi.track_all(); INSERT INTO p VALUES (1); INSERT INTO t (v) VALUES ('a'); INSERT INTO k VALUES ('{1}')",
    );
    let at = now(&mut client);
    run(
        &mut client,
        "ALTER TABLE t SET UNLOGGED; UPDATE t SET v = 'b'; ALTER TABLE t SET LOGGED; DROP TABLE p1; DELETE FROM k",
    );
    for table in ["t", "p", "k"] {
        assert_eq!(
            sqlstate(client.batch_execute(&format!("SELECT * FROM bemi.as_of(NULL::{table}, '{at}')"))),
            "55000"
        );
    }
}

fn schema(server: &Server) {
    let (database, mut client, _stop) = recording(server, "past_schema");
    run(
        &mut client,
        "CREATE SCHEMA st; CREATE TABLE st.s (id int PRIMARY KEY, v text); SELECT bemi.track('st.s'); INSERT INTO st.s VALUES (1, 'orig')",
    );
    let at = now(&mut client);
    let mut writer = database.connect();
    run(&mut writer, "BEGIN; UPDATE st.s SET v = 'before'");
    let renamed = std::thread::scope(|scope| {
        let rename = scope.spawn(|| client.batch_execute("ALTER SCHEMA st RENAME TO st2"));
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert!(!rename.is_finished());
        run(&mut writer, "UPDATE st.s SET v = 'meanwhile'; COMMIT");
        rename.join().unwrap()
    });
    renamed.unwrap();
    run(&mut client, "UPDATE st2.s SET v = 'after'");
    assert_eq!(all(&mut client, &format!("bemi.as_of(NULL::st2.s, '{at}')")), "(1,orig)");
    let versions: i64 = client.query_one("SELECT count(*) FROM bemi.history(NULL::st2.s, '1')", &[]).unwrap().get(0);
    assert_eq!(versions, 4);
}

fn datestyle(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "past_datestyle");
    run(&mut client, "INSERT INTO t (v) VALUES ('a')");
    let at = now(&mut client);
    run(&mut client, "UPDATE t SET v = 'b'; SET timezone = 'Asia/Kolkata'; SET datestyle = 'SQL, DMY'");
    assert_eq!(all(&mut client, &format!("bemi.as_of(NULL::t, '{at}')")), "(1,a)");
}

fn chain(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "past_chain");
    run(&mut client, "SET statement_timeout = 0; INSERT INTO t VALUES (1, 'a'), (100000, 'b')");
    client
        .batch_execute(
            "DO $$ BEGIN FOR i IN 2..1500 LOOP UPDATE t SET id = i WHERE id < 100000; UPDATE t SET id = 100000 + i % 2 WHERE id >= 100000; COMMIT; END LOOP; END $$",
        )
        .unwrap();
    for (key, versions) in [("1500", 1500), ("700", 1500), ("100000", 1500)] {
        let query = format!("SELECT count(*) FROM bemi.history(NULL::t, '{key}')");
        assert_eq!(client.query_one(&query, &[]).unwrap().get::<_, i64>(0), versions, "{key}");
    }
}

fn notes(server: &Server) {
    let (database, mut client, _stop) = recording(server, "past_notes");
    run(&mut client, "CREATE ROLE past_noter LOGIN; INSERT INTO t (v) VALUES ('a')");
    let at = now(&mut client);
    let mut noter = server.connect_with(&database.name, "past_noter", "");
    assert_eq!(sqlstate(noter.batch_execute("SELECT bemi.note_versions(ARRAY['t'::regclass::oid])")), "42501");
    assert_eq!(sqlstate(noter.batch_execute("DELETE FROM bemi.table_versions")), "42501");
    run(
        &mut client,
        "ALTER EVENT TRIGGER bemi_versions DISABLE; ALTER TABLE t RENAME v TO w; ALTER EVENT TRIGGER bemi_versions ENABLE ALWAYS",
    );
    let past = format!("SELECT * FROM bemi.as_of(NULL::t, '{at}')");
    assert_eq!(sqlstate(client.batch_execute(&past)), "55000");
    run(&mut client, "SELECT bemi.note_versions(ARRAY['t'::regclass::oid])");
    assert_eq!(sqlstate(client.batch_execute(&past)), "55000");
    assert_eq!(all(&mut client, "bemi.as_of(NULL::t, now())"), "(1,a)");
}
