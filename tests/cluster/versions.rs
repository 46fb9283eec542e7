//! What is noted of tables, who may read it, and whose the changes of a name are.
use crate::Test;
use crate::recorder::recording;
use crate::server::{Server, is_soon, run, sqlstate};

pub const TESTS: &[Test] = &[
    ("names_of_tables_and_columns_are_for_those_who_may_read_them", readers),
    ("a_table_dropped_beside_the_rename_of_its_schema_does_not_stop_the_notes_of_the_others", dropped_beside),
    ("a_version_says_which_role_ran_the_statement", noted_by),
    ("changes_of_an_earlier_table_of_a_name_are_not_written_into_a_later_one", earlier_table),
    ("a_statement_that_cannot_wait_for_writers_fails_and_is_not_left_without_a_note", lock_timeout),
];

fn count(client: &mut postgres::Client, from: &str) -> i64 {
    client.query_one(&format!("SELECT count(*) FROM {from}"), &[]).unwrap().get(0)
}

fn readers(server: &Server) {
    let (database, mut client, _stop) = recording(server, "versions_readers");
    run(
        &mut client,
        "CREATE ROLE versions_low LOGIN; CREATE TABLE secret_plans (id int PRIMARY KEY, takeover text); SELECT bemi.track('secret_plans'); \
         DROP TABLE secret_plans; GRANT SELECT ON t TO versions_low",
    );
    let secret = "bemi.table_versions WHERE \"table\" = 'secret_plans' OR columns::text LIKE '%takeover%'";
    let own = "bemi.table_versions WHERE relation = 't'::regclass";
    let mut low = server.connect_with(&database.name, "versions_low", "");
    assert_eq!(count(&mut client, secret), 1);
    assert_eq!(count(&mut low, secret), 0);
    assert_eq!(count(&mut low, own), count(&mut client, own));
    run(&mut client, "REVOKE SELECT ON t FROM versions_low");
    assert_eq!(count(&mut low, own), 0);
    // Who reads all changes has the names there.
    run(&mut client, "GRANT SELECT ON bemi.changes TO versions_low");
    assert_eq!(count(&mut low, secret), 1);
}

fn dropped_beside(server: &Server) {
    let (database, mut client, _stop) = recording(server, "versions_dropped");
    run(
        &mut client,
        "CREATE SCHEMA s; CREATE TABLE s.a (id int PRIMARY KEY); CREATE TABLE s.b (id int PRIMARY KEY); SELECT bemi.track('s.a'); SELECT bemi.track('s.b')",
    );
    let mut dropper = database.connect();
    dropper.batch_execute("BEGIN; DROP TABLE s.a").unwrap();
    let (mut renamer, notices) = server.connect_listening(&database.name, "postgres");
    let pid: i32 = renamer.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    let renaming = std::thread::spawn(move || renamer.batch_execute("ALTER SCHEMA s RENAME TO s2"));
    let waits = format!("pg_locks WHERE pid = {pid} AND NOT granted");
    assert!(is_soon(|| count(&mut client, &waits) > 0), "the rename waits for nobody");
    dropper.batch_execute("COMMIT").unwrap();
    renaming.join().unwrap().unwrap();
    let warnings: Vec<_> = notices.take().into_iter().filter(|notice| notice.contains("could not note")).collect();
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(count(&mut client, "bemi.table_versions WHERE relation = 's2.b'::regclass AND schema = 's2'"), 1);
}

fn noted_by(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "versions_noted_by");
    run(
        &mut client,
        "CREATE ROLE versions_owner; ALTER TABLE t OWNER TO versions_owner; GRANT ALL ON SCHEMA public TO versions_owner; SET ROLE versions_owner; \
         ALTER TABLE t ADD w int; RESET ROLE; ALTER TABLE t ADD x int",
    );
    let by = "SELECT string_agg(noted_by, ' ' ORDER BY position) FROM (SELECT * FROM bemi.table_versions WHERE relation = 't'::regclass ORDER BY position DESC LIMIT 2) v";
    assert_eq!(client.query_one(by, &[]).unwrap().get::<_, String>(0), "versions_owner postgres");
    // Another role alone makes no version.
    let before = count(&mut client, "bemi.table_versions");
    run(&mut client, "SET ROLE versions_owner; ALTER TABLE t SET (fillfactor = 90)");
    assert_eq!(count(&mut client, "bemi.table_versions"), before);
}

fn earlier_table(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "versions_earlier");
    run(
        &mut client,
        "ALTER DATABASE versions_earlier SET bemi.context = ''; CREATE TABLE pay (id int PRIMARY KEY, who text); SELECT bemi.track('pay'); \
         INSERT INTO pay VALUES (1, 'attacker'); DELETE FROM pay; SELECT bemi.sync()",
    );
    // As if it had been recorded without being tracked.
    run(
        &mut client,
        "UPDATE bemi.changes SET relation = 'pay'::regclass WHERE \"table\" = 'pay'; DROP TABLE pay; DELETE FROM bemi.table_versions; \
         CREATE TABLE pay (id int PRIMARY KEY, who text)",
    );
    let id: i64 = client
        .query_one("SELECT max(transaction_id) FROM bemi.changes WHERE \"table\" = 'pay' AND operation = 'DELETE'", &[])
        .unwrap()
        .get(0);
    for call in ["revert_sql", "revert"] {
        let failed = client.batch_execute(&format!("SELECT * FROM bemi.{call}({id})")).unwrap_err();
        let error = failed.as_db_error().unwrap();
        assert_eq!(error.code().code(), "42P01", "{call}: {error:?}");
        assert!(error.message().contains("of an earlier table of that name"), "{error:?}");
    }
    let selected = count(&mut client, "bemi.revert_sql(relation => 'pay')");
    assert_eq!((selected, count(&mut client, "pay")), (0, 0));
    // The table that is meant takes them back.
    run(&mut client, "UPDATE bemi.changes SET relation = 'pay'::regclass WHERE \"table\" = 'pay'");
    assert_eq!(count(&mut client, &format!("bemi.revert_sql({id})")), 1);
}

fn lock_timeout(server: &Server) {
    let (database, mut client, _stop) = recording(server, "versions_lock_timeout");
    run(&mut client, "CREATE SCHEMA s; CREATE TABLE s.a (id int PRIMARY KEY); SELECT bemi.track('s.a')");
    let mut writer = database.connect();
    writer.batch_execute("BEGIN; INSERT INTO s.a VALUES (1)").unwrap();
    assert_eq!(sqlstate(client.batch_execute("SET lock_timeout = '100ms'; ALTER SCHEMA s RENAME TO s2")), "55P03");
    writer.batch_execute("COMMIT").unwrap();
    run(&mut client, "ALTER SCHEMA s RENAME TO s2");
    assert_eq!(count(&mut client, "bemi.table_versions WHERE relation = 's2.a'::regclass AND schema = 's2'"), 1);
}
