//! As in `takeover.rs`: what others owned for a moment, and what old snapshots do not show.
use postgres::Client;

use crate::Test;
use crate::recorder::wait_until_recording;
use crate::server::{Server, run, sqlstate, wait_until};
use crate::takeover::{fixed, goes_on, hang, is_superuser, owned_database};
use crate::takeover_later::LEFT;

pub const TESTS: &[Test] = &[
    ("what_an_owner_for_a_moment_left_behind_is_not_run", moment),
    ("what_an_old_snapshot_does_not_show_is_not_run", old_snapshots),
    ("children_of_the_tables_of_bemi_run_nothing", children),
    ("a_column_with_code_of_another_is_not_run_by_ddl", columns),
    ("no_rule_makes_a_view_of_a_table_of_bemi", views),
    ("no_expression_of_another_is_run_by_writing_or_planning", expressions),
    ("no_foreign_key_or_parent_of_another_reaches_the_tables_of_bemi", relatives),
    ("a_view_in_place_of_a_table_or_view_of_bemi_is_not_read", in_place),
    ("a_recorder_whose_state_was_moved_away_keeps_its_slot", moved_away),
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
    for (table, code, what) in LEFT {
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
        // Where the recorder has written its state meanwhile, such a transaction is to be tried again.
        for call in ["bemi.stop()", "bemi.start()"] {
            wait_until(call, || {
                let all = format!("BEGIN ISOLATION LEVEL {isolation}; SELECT 1; SELECT {call}; COMMIT");
                let outcome = old.batch_execute(&all);
                if outcome.is_err() {
                    old.batch_execute("ROLLBACK").unwrap();
                    assert_eq!(sqlstate(outcome), "40001", "{call}");
                    return false;
                }
                true
            });
        }
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

/// Does everything that may have a superuser run what was left, and tells whether somebody was made superuser.
fn taken_over(server: &Server, client: &mut Client, role: &str, column: &mut i32) -> bool {
    let mut app = server.connect_with(role, role, "-c constraint_exclusion=on");
    *column += 1;
    for statement in [
        &format!("ALTER TABLE mine ADD c{column} int"),
        &format!("CREATE TABLE made{column} (id int PRIMARY KEY); SELECT bemi.track('made{column}')"),
        &format!("DROP TRIGGER bemi_context ON made{column}"),
        "SELECT bemi.recorder_slot()",
        "SELECT bemi.recorded_since()",
        "SELECT bemi.recorded_position()",
        "SELECT bemi.sync('100 ms')",
    ] {
        let _ = app.batch_execute(statement);
    }
    let _ = client.batch_execute("INSERT INTO t (v) VALUES ('more')");
    for statement in
        ["SELECT * FROM bemi.status", "SELECT pg_terminate_backend(bemi.recorder_pid())", "SELECT pg_sleep(0.3)"]
    {
        let _ = client.batch_execute(statement);
    }
    is_superuser(client, role)
}

fn expressions(server: &Server) {
    let role = "takeover_expressions";
    let (mut client, mut owner) = recording_t(server, role);
    owner.batch_execute("CREATE TABLE mine (id int PRIMARY KEY); SELECT bemi.track('mine')").unwrap();
    // A function of the server that runs SQL, and one that the planner computes.
    let rewrite = "ts_rewrite('a'::tsquery, 'select ''a''::tsquery, public.pwn_of('''')::tsquery') IS NOT NULL";
    let folded = "public.pwn_of('a') IS NOT NULL";
    let mut column = 0;
    for name in ["recorder", "table_versions", "recorded_versions", "sources", "dropped_triggers"] {
        let table = format!("bemi.{name}");
        for (code, end) in [
            (
                format!("ALTER TABLE {table} ADD CONSTRAINT pwn CHECK ({rewrite}) NOT VALID"),
                format!("ALTER TABLE {table} DROP CONSTRAINT pwn"),
            ),
            (
                format!("ALTER TABLE {table} ADD CONSTRAINT pwn CHECK ({folded})"),
                format!("ALTER TABLE {table} DROP CONSTRAINT pwn"),
            ),
            (
                format!(
                    "CREATE TRIGGER pwn AFTER INSERT OR UPDATE ON {table} FOR EACH ROW WHEN ({rewrite})
                     EXECUTE FUNCTION suppress_redundant_updates_trigger()"
                ),
                format!("DROP TRIGGER pwn ON {table}"),
            ),
            (
                format!("CREATE STATISTICS public.pwn ON (public.pwn_of('a')) FROM {table}"),
                "DROP STATISTICS public.pwn".to_owned(),
            ),
        ] {
            own_for_a_moment(&mut client, &mut owner, role, &table, &code);
            assert!(!taken_over(server, &mut client, role, &mut column), "{code}");
            let found = client.query("SELECT detail FROM bemi.unsafe()", &[]).unwrap();
            assert!(!found.is_empty(), "{code}");
            client.batch_execute(&end).unwrap_or_else(|error| panic!("{error:?}: {end}"));
            assert!(client.query("SELECT detail FROM bemi.unsafe()", &[]).unwrap().is_empty());
        }
        // What a superuser makes for somebody. CREATE INDEX alone waits for no reader, so the recorder could plan a query with
        // the index between its look at the table and the query; what a change of the owner allows it cannot, as that waits.
        let index = format!("CREATE INDEX pwn ON {table} ((1)) WHERE public.pwn_of('a') = 'a'");
        hang(&mut client, &format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE; {index}; COMMIT"));
        assert!(!taken_over(server, &mut client, role, &mut column), "{index}");
        client.batch_execute("DROP INDEX bemi.pwn").unwrap();
    }
    goes_on(&mut client);
    assert!(!is_superuser(&mut client, role));
}

fn relatives(server: &Server) {
    let role = "takeover_relatives";
    let (mut client, mut owner) = recording_t(server, role);
    owner
        .batch_execute(
            "CREATE TABLE mine (id int PRIMARY KEY); SELECT bemi.track('mine'); CREATE TABLE old (id int PRIMARY KEY); SELECT bemi.track('old')",
        )
        .unwrap();
    owner.batch_execute("DROP TRIGGER bemi_context ON old").unwrap();
    let mut column = 0;
    // A foreign key that refers to the table, and what is done with its rows when those go that they refer to.
    run(&mut client, "GRANT REFERENCES, SELECT ON bemi.dropped_triggers TO takeover_relatives");
    owner
        .batch_execute(
            "CREATE TABLE fk (r oid REFERENCES bemi.dropped_triggers ON DELETE CASCADE); INSERT INTO fk SELECT relation FROM bemi.dropped_triggers;
             CREATE FUNCTION public.pwn_gone() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM public.take(); RETURN OLD; END$$;
             CREATE TRIGGER a AFTER DELETE ON fk FOR EACH ROW EXECUTE FUNCTION public.pwn_gone()",
        )
        .unwrap();
    run(&mut client, "REVOKE REFERENCES, SELECT ON bemi.dropped_triggers FROM takeover_relatives");
    owner.batch_execute("DROP TABLE old").unwrap();
    assert!(!taken_over(server, &mut client, role, &mut column));
    let said = fixed(&mut client, "SELECT bemi.require_safe()");
    assert!(said.len() == 1 && said[0].contains("foreign key"), "{said:?}");
    // One that refers to a table of the role.
    own_for_a_moment(
        &mut client,
        &mut owner,
        role,
        "bemi.tracked_schemas",
        "CREATE TABLE sch (s name PRIMARY KEY);
         ALTER TABLE bemi.tracked_schemas ADD FOREIGN KEY (schema) REFERENCES sch ON UPDATE CASCADE ON DELETE CASCADE",
    );
    assert!(!taken_over(server, &mut client, role, &mut column));
    let said = fixed(&mut client, "SELECT bemi.require_safe()");
    assert!(said.len() == 1 && said[0].contains("foreign key"), "{said:?}");
    // A parent, whose owner has all rights to what is below it, and its check.
    client.batch_execute("SELECT bemi.sync()").unwrap();
    own_for_a_moment(
        &mut client,
        &mut owner,
        role,
        "bemi.recorder",
        "CREATE TABLE public.par (state text NOT NULL, transactions bigint NOT NULL, CONSTRAINT pwn CHECK (public.pwn_if(state)));
         ALTER TABLE bemi.recorder ADD CONSTRAINT pwn CHECK (public.pwn_if(state)); ALTER TABLE bemi.recorder INHERIT public.par",
    );
    assert!(!taken_over(server, &mut client, role, &mut column));
    let said = fixed(&mut client, "SELECT bemi.require_safe()");
    assert!(said.iter().any(|said| said.contains("inherits from")), "{said:?}");
    assert!(said.iter().any(|said| said.contains("constraint pwn")), "{said:?}");
    goes_on(&mut client);
    assert!(!is_superuser(&mut client, role));
}

fn in_place(server: &Server) {
    let role = "takeover_in_place";
    let (mut client, mut owner) = owned_database(server, role);
    run(
        &mut client,
        "CREATE EXTENSION bemi; CREATE TABLE t (id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY, v text); SELECT bemi.track('t')",
    );
    owner.batch_execute("CREATE TABLE mine (id int PRIMARY KEY); SELECT bemi.track('mine')").unwrap();
    let mut column = 0;
    // Before there are such tables.
    run(&mut client, "GRANT CREATE, USAGE ON SCHEMA bemi TO takeover_in_place");
    owner
        .batch_execute(
            "CREATE VIEW bemi.recorder AS
               SELECT public.pwn_of('x')::name AS slot, true AS is_wanted, now() AS since, 1 AS source, '0/0'::pg_lsn AS commit_position;
             CREATE VIEW bemi.sources AS SELECT NULL::int AS source, public.pwn_of('x') AS name, 1::bigint AS system_identifier,
               1::oid AS database_oid, '{}'::oid[] AS tables WHERE public.pwn_if('')",
        )
        .unwrap();
    run(&mut client, "REVOKE CREATE ON SCHEMA bemi FROM takeover_in_place");
    for view in ["recorder", "sources"] {
        assert!(!taken_over(server, &mut client, role, &mut column), "{view}");
        run(&mut client, &format!("ALTER VIEW bemi.{view} OWNER TO postgres"));
        assert!(!taken_over(server, &mut client, role, &mut column), "{view}");
    }
    run(&mut client, "DROP VIEW bemi.recorder; DROP VIEW bemi.sources");
    // In place of the view that the extension made.
    run(
        &mut client,
        "GRANT CREATE ON SCHEMA bemi TO takeover_in_place; ALTER VIEW bemi.context_triggers OWNER TO takeover_in_place",
    );
    let definition = "SELECT rtrim(pg_get_viewdef('bemi.context_triggers'), ';')";
    let definition: String = client.query_one(definition, &[]).unwrap().get(0);
    let other = format!("SELECT v.* FROM ({definition}) v WHERE public.pwn_if('')");
    owner.batch_execute(&format!("CREATE OR REPLACE VIEW bemi.context_triggers AS {other}")).unwrap();
    run(
        &mut client,
        "ALTER VIEW bemi.context_triggers OWNER TO postgres; REVOKE CREATE ON SCHEMA bemi FROM takeover_in_place",
    );
    assert!(!taken_over(server, &mut client, role, &mut column));
    let found = client.query("SELECT detail FROM bemi.unsafe()", &[]).unwrap();
    assert!(found.iter().any(|row| row.get::<_, &str>(0).contains("was replaced")), "{found:?}");
    run(&mut client, "DROP EXTENSION bemi CASCADE; CREATE EXTENSION bemi");
    goes_on(&mut client);
    assert!(!is_superuser(&mut client, role));
}

fn moved_away(server: &Server) {
    let (mut client, _owner) = recording_t(server, "takeover_moved");
    client.batch_execute("SELECT bemi.sync()").unwrap();
    client.batch_execute("ALTER TABLE bemi.recorder SET SCHEMA public").unwrap();
    client
        .batch_execute(
            "INSERT INTO t (v) VALUES ('more'); SELECT pg_terminate_backend(bemi.recorder_pid()); SELECT bemi.launch()",
        )
        .unwrap();
    wait_until("the worker to end", || client.query_one("SELECT bemi.recorder_pid() IS NULL", &[]).unwrap().get(0));
    let slots = "SELECT count(*) FROM bemi.recorder_slots()";
    assert_eq!(client.query_one(slots, &[]).unwrap().get::<_, i64>(0), 1);
    run(&mut client, "ALTER TABLE public.recorder SET SCHEMA bemi; SELECT bemi.start(); SELECT bemi.sync()");
    assert_eq!(client.query("SELECT * FROM bemi.changes", &[]).unwrap().len(), 1);
    goes_on(&mut client);
}
