//! As in `takeover.rs`: what others owned for a moment, and what old snapshots do not show.
use postgres::Client;

use crate::Test;
use crate::recorder::wait_until_recording;
use crate::server::{Server, run, sqlstate, wait_until};
use crate::takeover::{fixed, goes_on, hang, is_superuser, owned_database};

pub const TESTS: &[Test] = &[
    ("what_an_owner_for_a_moment_left_behind_is_not_run", moment),
    ("what_an_old_snapshot_does_not_show_is_not_run", old_snapshots),
    ("children_of_the_tables_of_bemi_run_nothing", children),
    ("a_column_with_code_of_another_is_not_run_by_ddl", columns),
    ("no_rule_makes_a_view_of_a_table_of_bemi", views),
];

/// Has a table belong to the role that has the name of the database for as long as the role takes for something.
fn own_for_a_moment(superuser: &mut Client, owner: &mut Client, role: &str, table: &str, code: &str) {
    superuser.batch_execute(&format!("ALTER TABLE {table} OWNER TO {role}")).unwrap();
    owner.batch_execute(code).unwrap_or_else(|error| panic!("{error:?}: {code}"));
    superuser.batch_execute(&format!("ALTER TABLE {table} OWNER TO postgres")).unwrap();
}

fn recording_t(server: &Server, name: &str) -> (Client, Client) {
    let (mut client, owner) = owned_database(server, name);
    run(
        &mut client,
        "CREATE EXTENSION bemi; CREATE TABLE t (id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY, v text); SELECT bemi.track('t'); SELECT bemi.start()",
    );
    wait_until_recording(&mut client);
    (client, owner)
}

fn moment(server: &Server) {
    let role = "takeover_moment";
    let (mut client, mut owner) = recording_t(server, role);
    for (table, code, what) in [
        ("bemi.changes", "CREATE RULE pwn AS ON INSERT TO bemi.changes DO ALSO SELECT public.pwn_of('')", "rule: pwn"),
        (
            "bemi.changes_default",
            "ALTER TABLE bemi.changes_default ADD CONSTRAINT pwn CHECK (public.pwn_if(database)) NOT VALID",
            "constraint pwn",
        ),
        (
            "bemi.recorder",
            "ALTER TABLE bemi.recorder ADD CONSTRAINT pwn CHECK (public.pwn_if(state)) NOT VALID",
            "constraint pwn",
        ),
    ] {
        // The recorder has looked at it just now.
        client
            .batch_execute("SET takeover.is_off = on; INSERT INTO t (v) VALUES ('more'); SELECT bemi.sync()")
            .unwrap();
        own_for_a_moment(&mut client, &mut owner, role, table, code);
        client.batch_execute("INSERT INTO t (v) VALUES ('more')").unwrap();
        wait_until("the recorder to wait", || {
            let row = client.query_one("SELECT state, last_error FROM bemi.status", &[]).unwrap();
            row.get::<_, &str>(0) == "waiting" || is_superuser(&mut client, role)
        });
        assert!(!is_superuser(&mut client, role), "{code}");
        client.batch_execute("RESET takeover.is_off").unwrap();
        let said = fixed(&mut client, "SELECT bemi.require_safe()");
        assert!(said.len() == 1 && said[0].contains(what), "{said:?}");
        client.batch_execute("SELECT bemi.sync()").unwrap();
        assert!(!is_superuser(&mut client, role), "{code}");
    }
    assert_eq!(client.query("SELECT * FROM bemi.changes", &[]).unwrap().len(), 6);
    client.batch_execute("SELECT bemi.stop(drop_slot => true)").unwrap();
}

fn old_snapshots(server: &Server) {
    let role = "takeover_snapshot";
    let (mut client, mut owner) = recording_t(server, role);
    run(&mut client, "GRANT EXECUTE ON FUNCTION bemi.start(boolean), bemi.stop(boolean) TO takeover_snapshot");
    owner.batch_execute("CREATE TABLE mine (id int PRIMARY KEY); SELECT bemi.track('mine')").unwrap();
    let trigger = |table: &str| {
        format!(
            "CREATE TRIGGER pwn BEFORE INSERT OR UPDATE OR DELETE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION public.pwn()"
        )
    };
    for (table, statement) in [
        ("bemi.table_versions", "ALTER TABLE mine ADD x int"),
        ("bemi.recorded_versions", "ALTER TABLE mine ADD x int"),
        ("bemi.dropped_triggers", "DROP TRIGGER bemi_context ON mine"),
        ("bemi.recorder", "SELECT bemi.stop()"),
        ("bemi.recorder", "SELECT bemi.start()"),
    ] {
        for isolation in ["REPEATABLE READ", "SERIALIZABLE"] {
            let mut old = server.connect_with(role, role, "");
            old.batch_execute(&format!("BEGIN ISOLATION LEVEL {isolation}; SELECT 1")).unwrap();
            client.batch_execute(&format!("ALTER TABLE {table} OWNER TO {role}")).unwrap();
            owner.batch_execute(&trigger(table)).unwrap();
            if isolation == "SERIALIZABLE" {
                client.batch_execute(&format!("ALTER TABLE {table} OWNER TO postgres")).unwrap();
            }
            // It warns, or is refused.
            let _ = old.batch_execute(statement);
            let _ = old.batch_execute("COMMIT");
            assert!(!is_superuser(&mut client, role), "{table}, {isolation}: {statement}");
            client
                .batch_execute(&format!("ALTER TABLE {table} OWNER TO postgres; DROP TRIGGER pwn ON {table}; ALTER TABLE mine DROP IF EXISTS x"))
                .unwrap();
        }
    }
    // Where there is nothing to be found, they work in such transactions too.
    for isolation in ["REPEATABLE READ", "SERIALIZABLE"] {
        let mut old = server.connect_with(role, role, "");
        old.batch_execute(&format!("BEGIN ISOLATION LEVEL {isolation}; SELECT 1; SELECT bemi.stop(); COMMIT")).unwrap();
        old.batch_execute(&format!("BEGIN ISOLATION LEVEL {isolation}; SELECT bemi.start(); COMMIT")).unwrap();
        old.batch_execute(&format!(
            "BEGIN ISOLATION LEVEL {isolation}; SELECT 1; ALTER TABLE mine ADD c int; ALTER TABLE mine DROP c; COMMIT"
        ))
        .unwrap();
    }
    let noted = "SELECT count(*) FROM bemi.table_versions WHERE relation = 'mine'::regclass";
    assert_eq!(client.query_one(noted, &[]).unwrap().get::<_, i64>(0), 5);
    goes_on(&mut client);
    assert!(!is_superuser(&mut client, role));
}

fn children(server: &Server) {
    let role = "takeover_children";
    let (mut client, mut owner) = recording_t(server, role);
    run(&mut client, "CREATE SCHEMA more; SELECT bemi.track_all('{more}'); SELECT bemi.sync()");
    for (table, copy) in [
        ("bemi.recorder", "INSERT INTO heir SELECT * FROM bemi.recorder; UPDATE heir SET is_wanted = is_wanted"),
        ("bemi.tracked_schemas", "INSERT INTO heir SELECT * FROM bemi.tracked_schemas"),
    ] {
        let heir = format!(
            "SET takeover.is_off = on; CREATE TABLE heir () INHERITS ({table}); {copy};
             CREATE TRIGGER pwn BEFORE UPDATE OR DELETE ON heir FOR EACH ROW EXECUTE FUNCTION public.pwn()"
        );
        own_for_a_moment(&mut client, &mut owner, role, table, &heir);
        client.batch_execute("INSERT INTO t (v) VALUES ('more')").unwrap();
        if table == "bemi.recorder" {
            client.batch_execute("SELECT pg_terminate_backend(bemi.recorder_pid())").unwrap();
            for call in ["SELECT bemi.stop()", "SELECT bemi.start()"] {
                let outcome = client.batch_execute(call);
                assert!(!is_superuser(&mut client, role), "{call}");
                assert_eq!(sqlstate(outcome), "42501", "{call}");
            }
        } else {
            let _ = client.batch_execute("ALTER SCHEMA more RENAME TO less");
            assert!(!is_superuser(&mut client, role));
            let _ = client.batch_execute("SELECT bemi.untrack_all()");
        }
        wait_until("the status", || {
            assert!(!is_superuser(&mut client, role));
            let row = client.query_one("SELECT state, detail FROM bemi.status", &[]).unwrap();
            row.get::<_, &str>(0) == "waiting" && row.get::<_, &str>(1).contains("heir")
        });
        owner.batch_execute("DROP TABLE heir").unwrap();
        run(&mut client, "SELECT bemi.start(); SELECT bemi.sync()");
        wait_until_recording(&mut client);
    }
    assert!(!is_superuser(&mut client, role));
    goes_on(&mut client);
}

fn columns(server: &Server) {
    let role = "takeover_columns";
    let (mut client, mut owner) = recording_t(server, role);
    owner
        .batch_execute("CREATE TABLE mine (id int PRIMARY KEY); SELECT bemi.track('mine'); SET takeover.is_off = on")
        .unwrap();
    let mut app = server.connect_with(role, role, "");
    let mut number = 0;
    for table in ["bemi.table_versions", "bemi.recorded_versions"] {
        for (code, end) in [
            ("ADD pwn text DEFAULT public.pwn_of('')", "DROP pwn"),
            ("ADD pwn text GENERATED ALWAYS AS (public.pwn_of(\"table\"::text)) STORED", "DROP pwn"),
            ("ADD pwn public.pwn_text", "DROP pwn"),
            ("ADD CONSTRAINT pwn CHECK (public.pwn_if(\"table\"::text))", "DROP CONSTRAINT pwn"),
            ("ALTER has_images SET DEFAULT public.pwn_if('')", "ALTER has_images DROP DEFAULT"),
        ] {
            own_for_a_moment(&mut client, &mut owner, role, table, &format!("ALTER TABLE {table} {code}"));
            number += 1;
            app.batch_execute(&format!("ALTER TABLE mine ADD c{number} int")).unwrap();
            assert!(!is_superuser(&mut client, role), "{table} {code}");
            client.batch_execute(&format!("ALTER TABLE {table} {end}")).unwrap();
        }
        let index = format!("CREATE INDEX pwn ON {table} (public.pwn_of(schema::text))");
        hang(&mut client, &index);
        number += 1;
        app.batch_execute(&format!("ALTER TABLE mine ADD c{number} int")).unwrap();
        assert!(!is_superuser(&mut client, role), "{index}");
        client.batch_execute("DROP INDEX bemi.pwn").unwrap();
    }
    goes_on(&mut client);
    assert!(!is_superuser(&mut client, role));
}

fn views(server: &Server) {
    let role = "takeover_views";
    let (mut client, mut owner) = recording_t(server, role);
    client.batch_execute("SELECT bemi.sync(); SELECT bemi.stop(drop_slot => true)").unwrap();
    for table in ["recorder", "sources", "table_versions", "dropped_triggers", "tracked_schemas"] {
        client.batch_execute(&format!("ALTER TABLE bemi.{table} OWNER TO {role}")).unwrap();
        let bare = format!(
            "DELETE FROM bemi.{table};
             DO $$DECLARE c name; BEGIN
               FOR c IN SELECT conname FROM pg_constraint WHERE conrelid = 'bemi.{table}'::regclass AND contype <> 'n' LOOP
                 EXECUTE format('ALTER TABLE bemi.{table} DROP CONSTRAINT %I', c);
               END LOOP;
               FOR c IN SELECT indexrelid::regclass FROM pg_index WHERE indrelid = 'bemi.{table}'::regclass LOOP
                 EXECUTE format('DROP INDEX %s', c);
               END LOOP;
               FOR c IN SELECT attname FROM pg_attribute WHERE attrelid = 'bemi.{table}'::regclass AND attnum > 0 AND attnotnull LOOP
                 EXECUTE format('ALTER TABLE bemi.{table} ALTER %I DROP NOT NULL', c);
               END LOOP; END$$"
        );
        owner.batch_execute(&bare).unwrap();
        if client
            .query_opt(
                "SELECT FROM pg_trigger WHERE tgname = 'bemi_keep' AND tgrelid = $1::text::regclass",
                &[&format!("bemi.{table}")],
            )
            .unwrap()
            .is_some()
        {
            owner.batch_execute(&format!("SET bemi.allow_drop = on; DROP TRIGGER bemi_keep ON bemi.{table}")).unwrap();
        }
        owner.batch_execute(&format!("VACUUM bemi.{table}")).unwrap();
        let columns: String = client
            .query_one(
                "SELECT string_agg(format('CASE WHEN public.pwn_if('''') THEN NULL::%s END AS %I', format_type(atttypid, atttypmod), attname), ', ' ORDER BY attnum)
                 FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped",
                &[&format!("bemi.{table}")],
            )
            .unwrap()
            .get(0);
        for name in ["_RETURN".to_owned(), format!("_RET{table}")] {
            let rule = format!("CREATE RULE \"{name}\" AS ON SELECT TO bemi.{table} DO INSTEAD SELECT {columns}");
            assert_eq!(sqlstate(owner.batch_execute(&rule)), "42501", "{rule}");
        }
    }
    for view in ["tracked", "context_triggers", "status", "changes_diff"] {
        client.batch_execute(&format!("ALTER VIEW bemi.{view} OWNER TO {role}")).unwrap();
        let rule = format!(
            "CREATE OR REPLACE RULE \"_RETURN\" AS ON SELECT TO bemi.{view} DO INSTEAD SELECT * FROM bemi.{view}"
        );
        assert_eq!(sqlstate(owner.batch_execute(&rule)), "42501", "{rule}");
    }
    owner.batch_execute("SELECT bemi.recorder_slot(); SELECT * FROM bemi.doctor()").unwrap();
    client.batch_execute("SELECT * FROM bemi.status; SELECT * FROM bemi.doctor()").unwrap();
    assert!(!is_superuser(&mut client, role));
}
