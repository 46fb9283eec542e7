//! Log positions start over where a dump is restored into another server: what was recorded there comes first all the same.
use std::path::PathBuf;

use postgres::Client;

use crate::Test;
use crate::server::{Server, sqlstate, wait_until};

pub const TESTS: &[Test] = &[
    ("after_a_restore_into_a_younger_server_the_past_is_in_order", younger),
    ("after_a_restore_into_a_server_that_is_further_on_the_past_is_in_order", older),
    ("several_restores_in_a_row_keep_all_versions_in_order", chain),
    ("a_restore_into_another_database_of_the_same_server_is_another_source", same_server),
    ("a_copy_of_a_database_is_another_source_with_the_same_tables", template),
    ("versions_of_tables_whose_oids_are_those_of_others_now_stay_with_their_tables", swapped),
    ("what_was_noted_of_tables_is_there_again_after_the_extension_was_dropped_and_made_again", dropped_extension),
    ("a_change_of_a_table_that_had_the_oid_before_is_not_written_into_a_later_one_of_its_name", dropped_after_restore),
    ("a_recorder_that_finds_itself_on_another_server_begins_a_source_by_itself", upgraded),
    ("a_dump_restored_over_a_recorded_database_is_noticed_and_what_follows_is_recorded", replaced),
    ("rows_that_a_restore_brings_before_the_key_are_named_by_history", before_the_key),
    ("labels_and_attributes_that_changed_places_before_a_dump_are_followed_behind_it", changed_places),
    ("who_may_not_bypass_policies_can_dump_a_tracked_database", owner),
];

/// A table with a dropped column, a renamed one, another name, and two rows with a past.
const PAST: &str = "
    CREATE TYPE nothing AS ENUM (); CREATE TABLE filler (id int PRIMARY KEY, n nothing); CREATE TABLE todo (gone int, id int PRIMARY KEY, task text); SELECT bemi.track_all();
    SELECT bemi.start();
    INSERT INTO todo (id, task) VALUES (1, 'a'), (2, 'gone'); ALTER TABLE todo DROP gone; UPDATE todo SET task = 'b' WHERE id = 1;
    ALTER TABLE todo RENAME TO tasks; ALTER TABLE tasks RENAME task TO title; UPDATE tasks SET title = 'c' WHERE id = 1;
    DELETE FROM tasks WHERE id = 2; SELECT bemi.sync()";

const LATER: &str = "
    SELECT bemi.start(accept_gap => true); UPDATE tasks SET title = 'd' WHERE id = 1; INSERT INTO tasks (id, title) VALUES (2, 'new');
    UPDATE tasks SET title = 'e' WHERE id = 1; SELECT bemi.sync()";

/// Values of types whose names meant something else when they were recorded.
const CHANGED_PLACES: &str = "
    CREATE TYPE mood AS ENUM ('calm', 'wild'); CREATE TYPE pair AS (gone int, a mood, b text); CREATE TABLE moods (id int PRIMARY KEY, m mood, p pair);
    SELECT bemi.track_all(); SELECT bemi.start(); INSERT INTO moods VALUES (1, 'calm', ROW(7, 'wild', 'x')), (2, NULL, NULL); SELECT bemi.sync();
    ALTER TYPE mood RENAME VALUE 'calm' TO 'x'; ALTER TYPE mood RENAME VALUE 'wild' TO 'calm'; ALTER TYPE mood RENAME VALUE 'x' TO 'wild';
    ALTER TYPE pair DROP ATTRIBUTE gone; ALTER TYPE pair RENAME ATTRIBUTE a TO c; ALTER TYPE pair RENAME ATTRIBUTE b TO a;
    UPDATE moods SET m = NULL, p = NULL WHERE id = 1; SELECT bemi.sync()";

fn changed_places(server: &Server) {
    let database = server.database("sources_changed_places");
    let mut client = database.connect();
    each(&mut client, CHANGED_PLACES);
    let first = "SELECT (\"row\")::text FROM bemi.history(NULL::moods, '1') ORDER BY version LIMIT 1";
    assert_eq!(value(&mut client, first), "(1,wild,\"(calm,x)\")");
    let mut restored = restore(server, "sources_changed_places_copy", &dump(server, "sources_changed_places"));
    each(&mut restored, "SELECT bemi.start(accept_gap => true); SELECT bemi.sync()");
    assert_eq!(value(&mut restored, first), "(1,wild,\"(calm,x)\")");
    // Names that change here are followed too.
    each(&mut restored, "ALTER TYPE mood RENAME VALUE 'wild' TO 'tame'; ALTER TYPE pair RENAME ATTRIBUTE c TO d");
    assert_eq!(value(&mut restored, first), "(1,tame,\"(calm,x)\")");
    end(&mut restored);
    end(&mut client);
}

/// Runs statements each in a transaction of its own.
fn each(client: &mut Client, statements: &str) {
    for statement in statements.split(';') {
        client.batch_execute(statement).unwrap_or_else(|error| panic!("{error:?}: {statement}"));
    }
}

fn values(client: &mut Client, query: &str) -> Vec<String> {
    client.query(query, &[]).unwrap().iter().map(|row| row.get::<_, Option<String>>(0).unwrap_or_default()).collect()
}

fn value(client: &mut Client, query: &str) -> String {
    values(client, query).join(" ")
}

/// The versions of a row from the oldest on, where each is over before the next one begins.
fn life(client: &mut Client, key: &str) -> Vec<String> {
    let times = format!(
        "SELECT (valid_to < valid_from)::text FROM bemi.history(NULL::tasks, '{key}') WHERE valid_to < valid_from"
    );
    assert_eq!(values(client, &times), Vec::<String>::new());
    let versions =
        format!("SELECT COALESCE((\"row\").title, operation) FROM bemi.history(NULL::tasks, '{key}') ORDER BY version");
    values(client, &versions)
}

/// Moves the log on by some files.
fn move_on(server: &Server, files: usize) {
    let mut client = server.connect("postgres");
    for _ in 0..files {
        client.batch_execute("SELECT pg_logical_emit_message(false, 'x', 'x'); SELECT pg_switch_wal()").unwrap();
    }
}

pub fn dump(server: &Server, database: &str) -> PathBuf {
    let file = server.host().join(format!("{database}.dump"));
    server.check(server.program("pg_dump", database).arg("-Fc").arg("-f").arg(&file));
    file
}

pub fn restore(server: &Server, database: &str, file: &PathBuf) -> Client {
    server.connect("postgres").batch_execute(&format!("CREATE DATABASE {database}")).unwrap();
    server.check(server.program("pg_restore", database).args(["-e", "-j", "2", "-d", database]).arg(file));
    server.connect(database)
}

fn end(client: &mut Client) {
    client.batch_execute("SELECT bemi.stop(drop_slot => true)").unwrap();
}

/// Whether the position of the last change is beyond the log of another server.
fn is_beyond(client: &mut Client, other: &mut Client) -> bool {
    let last = value(client, "SELECT max(commit_position)::text FROM bemi.changes");
    value(other, &format!("SELECT (pg_current_wal_insert_lsn() < '{last}')::text")) == "true"
}

fn restored_past(server: &Server, name: &str, is_younger: bool) {
    let database = server.database(name);
    let mut client = database.connect();
    let fresh = Server::start("");
    move_on(if is_younger { server } else { &fresh }, 4);
    each(&mut client, PAST);
    let mut restored = restore(&fresh, "restored", &dump(server, name));
    assert_eq!(is_beyond(&mut client, &mut restored), is_younger);
    assert_eq!(value(&mut restored, "SELECT state FROM bemi.status"), "slot lost");
    assert_eq!(sqlstate(restored.batch_execute("SELECT bemi.start()")), "55000");
    each(&mut restored, LATER);
    assert_eq!(life(&mut restored, "1"), ["a", "b", "c", "d", "e"]);
    assert_eq!(life(&mut restored, "2"), ["gone", "DELETE", "new"]);
    let order = "SELECT source || ' ' || operation FROM bemi.changes ORDER BY source, commit_position, sequence";
    assert_eq!(
        values(&mut restored, order),
        ["1 CREATE", "1 CREATE", "1 UPDATE", "1 UPDATE", "1 DELETE", "2 GAP", "2 UPDATE", "2 CREATE", "2 UPDATE"]
    );
    let order = "SELECT (committed_at >= lag(committed_at, 1, '-infinity') OVER (ORDER BY source, commit_position, sequence))::text FROM bemi.changes_diff";
    assert!(values(&mut restored, order).iter().all(|is_later| is_later == "true"));
    let sources =
        "SELECT concat_ws(' ', s.source, s.database, s.system_identifier = c.system_identifier, s.until IS NULL)
        FROM bemi.sources s, pg_control_system() c ORDER BY source";
    assert_eq!(values(&mut restored, sources), [format!("1 {name} f f"), "2 restored t t".to_owned()]);
    // Today's rows, and none of an earlier time where changes are missing.
    assert_eq!(values(&mut restored, "SELECT title FROM bemi.as_of(NULL::tasks, now()) ORDER BY id"), ["e", "new"]);
    let before = "SELECT * FROM bemi.as_of(NULL::tasks, (SELECT min(committed_at) FROM bemi.changes))";
    assert_eq!(sqlstate(restored.batch_execute(before)), "55000");
    let plan = values(&mut restored, "SELECT * FROM bemi.revert_sql(relation => 'tasks', primary_key => '1')");
    assert!(plan[0].contains("SET title = 'd'") && plan[1].contains("SET title = 'c'"), "{plan:?}");
    assert!(plan.last().unwrap().starts_with("DELETE"), "{plan:?}");
    let undone = "SELECT string_agg(status, ' ') FROM bemi.revert(relation => 'tasks', primary_key => '1', since => (SELECT committed_at FROM bemi.changes WHERE after ->> 'title' = 'c'))";
    assert_eq!(value(&mut restored, undone), "reverted reverted reverted");
    assert_eq!(values(&mut restored, "SELECT title FROM tasks ORDER BY id"), ["b", "new"]);
    let ids = "SELECT count(*)::text FROM bemi.changes WHERE id <> bemi.change_id(committed_at, commit_position, sequence, source)";
    assert_eq!(value(&mut restored, ids), "0");
    end(&mut restored);
    fresh.stop();
    end(&mut client);
}

fn younger(server: &Server) {
    restored_past(server, "sources_younger", true);
}

fn older(_: &Server) {
    // The log of the server that the tests share is of any length.
    restored_past(&Server::start(""), "sources_older", false);
}

fn chain(server: &Server) {
    let database = server.database("sources_chain");
    let mut client = database.connect();
    each(&mut client, PAST);
    end(&mut client);
    let mut file = dump(server, "sources_chain");
    for round in 1..=3 {
        let fresh = Server::start("");
        // Other tables came first, so that the OIDs are others too.
        let mut restored = restore(&fresh, "restored", &file);
        let value = format!("round {round}");
        each(
            &mut restored,
            &format!(
                "SELECT bemi.start(accept_gap => true); UPDATE tasks SET title = '{value}' WHERE id = 1;
                 ALTER TABLE tasks ADD column_{round} int; ALTER TABLE tasks RENAME TO tasks_{round}; UPDATE tasks_{round} SET column_{round} = 1;
                 ALTER TABLE tasks_{round} RENAME TO tasks; ALTER TABLE tasks DROP column_{round}; SELECT bemi.sync()"
            ),
        );
        let mut expected = vec!["a".to_owned(), "b".to_owned(), "c".to_owned()];
        expected.extend((1..=round).flat_map(|past| [format!("round {past}"), format!("round {past}")]));
        assert_eq!(life(&mut restored, "1"), expected);
        let last = "SELECT string_agg(DISTINCT source::text, ' ') FROM bemi.changes WHERE committed_at = (SELECT max(committed_at) FROM bemi.changes)";
        assert_eq!(values(&mut restored, last), [(round + 1).to_string()]);
        end(&mut restored);
        let next = dump(&fresh, "restored");
        file = server.host().join(format!("chain_{round}.dump"));
        std::fs::copy(next, &file).unwrap();
        fresh.stop();
    }
}

fn same_server(server: &Server) {
    let database = server.database("sources_same");
    let mut client = database.connect();
    each(&mut client, PAST);
    let file = dump(server, "sources_same");
    let mut restored = restore(server, "sources_same_restored", &file);
    // The other goes on meanwhile.
    each(&mut client, "UPDATE tasks SET title = 'other' WHERE id = 1; SELECT bemi.sync()");
    each(&mut restored, LATER);
    assert_eq!(life(&mut restored, "1"), ["a", "b", "c", "d", "e"]);
    assert_eq!(life(&mut client, "1"), ["a", "b", "c", "other"]);
    assert_eq!(
        value(&mut restored, "SELECT string_agg(source || database, ' ' ORDER BY source) FROM bemi.sources"),
        "1sources_same 2sources_same_restored"
    );
    assert_eq!(value(&mut client, "SELECT count(*)::text FROM bemi.sources"), "1");
    // A new name is no new database.
    end(&mut restored);
    end(&mut client);
    drop(client);
    server.connect("postgres").batch_execute("ALTER DATABASE sources_same RENAME TO sources_renamed").unwrap();
    let mut client = server.connect("sources_renamed");
    each(&mut client, "SELECT bemi.start(); UPDATE tasks SET title = 'renamed' WHERE id = 1; SELECT bemi.sync()");
    assert_eq!(life(&mut client, "1"), ["a", "b", "c", "other", "renamed"]);
    assert_eq!(value(&mut client, "SELECT count(*)::text FROM bemi.sources"), "1");
    end(&mut client);
}

fn template(server: &Server) {
    let database = server.database("sources_template");
    let mut client = database.connect();
    each(&mut client, PAST);
    client.batch_execute("SELECT bemi.stop()").unwrap();
    drop(client);
    let copy = "CREATE DATABASE sources_copy TEMPLATE sources_template";
    wait_until("nobody to be connected", || server.connect("postgres").batch_execute(copy).is_ok());
    let mut copied = server.connect("sources_copy");
    assert_eq!(value(&mut copied, "SELECT state FROM bemi.status"), "slot lost");
    each(&mut copied, LATER);
    assert_eq!(life(&mut copied, "1"), ["a", "b", "c", "d", "e"]);
    assert_eq!(value(&mut copied, "SELECT max(source)::text FROM bemi.changes"), "2");
    end(&mut copied);
    end(&mut server.connect("sources_template"));
}

fn swapped(server: &Server) {
    let database = server.database("sources_swapped");
    let mut client = database.connect();
    each(&mut client, PAST);
    each(
        &mut client,
        "INSERT INTO filler VALUES (7); ALTER TABLE filler RENAME TO filling; UPDATE filling SET id = 8;
         CREATE TABLE tmp (id int PRIMARY KEY); DROP TABLE tmp; SELECT bemi.sync(); SELECT bemi.stop()",
    );
    // As if both tables had been restored from a dump, where each had the OID of the other.
    each(
        &mut client,
        "UPDATE bemi.table_versions v SET relation = o.new, root = o.new, recorded = o.new FROM (VALUES ('tasks'::regclass::oid, 4200000000::oid), ('filling'::regclass, 'tasks'::regclass)) o (old, new)
           WHERE v.relation = o.old AND o.old = 'tasks'::regclass;
         UPDATE bemi.table_versions v SET relation = 'tasks'::regclass, root = 'tasks'::regclass, recorded = 'tasks'::regclass WHERE v.relation = 'filling'::regclass;
         UPDATE bemi.table_versions v SET relation = 'filling'::regclass, root = 'filling'::regclass, recorded = 'filling'::regclass WHERE v.relation = 4200000000::oid;
         UPDATE bemi.changes c SET relation = CASE c.relation WHEN 'tasks'::regclass THEN 'filling'::regclass ELSE 'tasks'::regclass END::oid;
         DELETE FROM bemi.recorded_versions; UPDATE bemi.sources SET tables = '{1,2,3}', database_oid = 1",
    );
    each(&mut client, "ALTER TABLE tasks SET (fillfactor = 90)");
    assert_eq!(value(&mut client, "SELECT count(*)::text FROM bemi.sources"), "2");
    each(
        &mut client,
        "SELECT bemi.start(accept_gap => true); UPDATE tasks SET title = 'd' WHERE id = 1; SELECT bemi.sync()",
    );
    assert_eq!(life(&mut client, "1"), ["a", "b", "c", "d"]);
    let filling = "SELECT (\"row\").id::text FROM bemi.history(NULL::filling, '8') ORDER BY version";
    assert_eq!(values(&mut client, filling), ["7", "8"]);
    // Which table a change is of is known by the OID that it had then.
    let plan = values(&mut client, "SELECT * FROM bemi.revert_sql(relation => 'filling')");
    assert_eq!(plan.len(), 2, "{plan:?}");
    // The table that is gone has the versions of no other.
    let gone = "SELECT count(*)::text FROM bemi.table_versions v WHERE v.\"table\" = 'tmp' AND EXISTS (SELECT FROM pg_class c WHERE c.oid = v.relation)";
    assert_eq!(value(&mut client, gone), "0");
    end(&mut client);
}

fn dropped_extension(server: &Server) {
    let database = server.database("sources_extension");
    let mut client = database.connect();
    each(&mut client, PAST);
    each(
        &mut client,
        "SELECT bemi.stop(drop_slot => true); SELECT bemi.untrack_all(); DROP EXTENSION bemi; CREATE EXTENSION bemi; SELECT bemi.track_all();
         SELECT bemi.start(); UPDATE tasks SET title = 'd' WHERE id = 1; SELECT bemi.sync()",
    );
    assert_eq!(life(&mut client, "1"), ["a", "b", "c", "d"]);
    assert_eq!(value(&mut client, "SELECT count(*)::text FROM bemi.sources"), "1");
    end(&mut client);
}

fn dropped_after_restore(server: &Server) {
    let database = server.database("sources_dropped");
    let mut client = database.connect();
    each(&mut client, PAST);
    let fresh = Server::start("");
    let mut restored = restore(&fresh, "restored", &dump(server, "sources_dropped"));
    end(&mut client);
    each(
        &mut restored,
        "SELECT bemi.start(accept_gap => true); DROP TABLE tasks; CREATE TABLE tasks (id int PRIMARY KEY, title text);
         INSERT INTO tasks VALUES (1, 'of the new one'); SELECT bemi.sync()",
    );
    assert_eq!(life(&mut restored, "1"), ["of the new one"]);
    let selected = "SELECT count(*)::text FROM bemi.revert_sql(relation => 'tasks')";
    assert_eq!(value(&mut restored, selected), "1");
    let old =
        "SELECT * FROM bemi.revert_sql(until => (SELECT min(committed_at) FROM bemi.changes WHERE operation = 'GAP'))";
    assert_eq!(sqlstate(restored.batch_execute(old)), "42P01");
    end(&mut restored);
    fresh.stop();
}

fn upgraded(server: &Server) {
    let database = server.database("sources_upgraded");
    let mut client = database.connect();
    each(&mut client, PAST);
    client.batch_execute("SELECT bemi.stop()").unwrap();
    // As pg_upgrade leaves it from PostgreSQL 17 on: with the slot, under another system identifier.
    each(&mut client, "UPDATE bemi.sources SET system_identifier = 1");
    each(&mut client, "SELECT bemi.start(); UPDATE tasks SET title = 'd' WHERE id = 1; SELECT bemi.sync()");
    assert_eq!(life(&mut client, "1"), ["a", "b", "c", "d"]);
    let sources = "SELECT string_agg(DISTINCT concat(source, operation), ' ') FROM bemi.changes WHERE after ->> 'title' IN ('c', 'd')";
    assert_eq!(value(&mut client, sources), "1UPDATE 2UPDATE");
    // Nothing is missing, so that each time can be read.
    let then = "SELECT string_agg(title, ' ') FROM bemi.as_of(NULL::tasks, (SELECT committed_at FROM bemi.changes WHERE after ->> 'title' = 'c'))";
    assert!(value(&mut client, then).contains('c'));
    assert_eq!(value(&mut client, "SELECT count(*)::text FROM bemi.changes WHERE operation = 'GAP'"), "0");
    end(&mut client);
}

fn replaced(server: &Server) {
    let database = server.database("sources_replaced");
    let mut client = database.connect();
    each(&mut client, PAST);
    let file = dump(server, "sources_replaced");
    each(&mut client, "UPDATE tasks SET title = 'lost' WHERE id = 1; SELECT bemi.sync()");
    drop(client);
    // It says that keys of partitions cannot be dropped by themselves, and goes on.
    let mut restoring = server.program("pg_restore", "sources_replaced");
    restoring.args(["--clean", "--if-exists", "-d", "sources_replaced"]).arg(&file);
    restoring.output().unwrap();
    let mut client = database.connect();
    let state = "SELECT concat_ws(' ', state, detail) FROM bemi.status";
    wait_until("the recorder to notice", || {
        value(&mut client, state).starts_with("replaced bemi.changes was replaced")
    });
    wait_until("the recorder to say so", || {
        value(&mut client, "SELECT last_error FROM bemi.status").contains("bemi.changes was replaced")
    });
    assert_eq!(sqlstate(client.batch_execute("SELECT bemi.sync()")), "55000");
    assert_eq!(sqlstate(client.batch_execute("SELECT bemi.start()")), "55000");
    // What is changed until somebody accepts it is in the log still.
    each(&mut client, "UPDATE tasks SET title = 'between' WHERE id = 1");
    each(&mut client, LATER);
    assert_eq!(life(&mut client, "1"), ["a", "b", "c", "between", "d", "e"]);
    let gap = "SELECT concat_ws(' ', context ->> 'reason', context ->> 'from_source', source) FROM bemi.changes WHERE operation = 'GAP'";
    assert_eq!(values(&mut client, gap), ["replaced 1 2"]);
    wait_until("the recorder", || value(&mut client, "SELECT state FROM bemi.status") == "recording");
    end(&mut client);
}

fn before_the_key(server: &Server) {
    let database = server.database("sources_key");
    let mut client = database.connect();
    each(&mut client, "SELECT bemi.track_all(); SELECT bemi.start()");
    // What a restore does.
    each(
        &mut client,
        "CREATE TABLE tasks (id int NOT NULL, title text); INSERT INTO tasks VALUES (1, 'a'), (2, 'b'); ALTER TABLE tasks ADD PRIMARY KEY (id);
         UPDATE tasks SET title = 'c' WHERE id = 1; SELECT bemi.sync()",
    );
    let (mut listener, notices) = server.connect_listening(&database.name, "postgres");
    assert_eq!(life(&mut listener, "1"), ["c"]);
    let said = notices.take().join("\n");
    assert!(said.contains("changes of public.tasks until ") && said.contains("without a key"), "{said}");
    end(&mut client);
}

fn owner(server: &Server) {
    let mut admin = server.connect("postgres");
    each(&mut admin, "CREATE ROLE sources_owner LOGIN; CREATE DATABASE sources_owned OWNER sources_owner");
    each(
        &mut server.connect("sources_owned"),
        "CREATE EXTENSION bemi; SET ROLE sources_owner; CREATE SCHEMA app; CREATE TABLE app.t (id int PRIMARY KEY); SELECT bemi.track('app.t')",
    );
    server.check(server.program("pg_dump", "sources_owned").args(["-U", "sources_owner", "-f", "/dev/null"]));
}
