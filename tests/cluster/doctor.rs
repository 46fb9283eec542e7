//! What `bemi.doctor()` finds, and whether its statements mend it.
use crate::Test;
use crate::server::Server;

pub const TESTS: &[Test] = &[
    ("each_illness_is_named_and_its_statement_mends_it", illnesses),
    ("settings_that_take_a_restart_are_named_with_their_statement", restarts),
    ("no_name_gets_out_of_the_statements_of_the_doctor", hostile_names),
    ("an_ordinary_role_is_told_what_it_may_not_see", ordinary_role),
];

/// The row of a check: whether it is well, the detail, and the statement.
fn check(client: &mut postgres::Client, name: &str) -> (Option<bool>, String, Option<String>) {
    let row = client.query_one("SELECT ok, detail, fix FROM bemi.doctor() WHERE \"check\" = $1", &[&name]).unwrap();
    (row.get(0), row.get(1), row.get(2))
}

/// On a server of its own, whose settings are spoilt.
fn illnesses(_: &Server) {
    let server = Server::start("max_slot_wal_keep_size = 100MB\nmax_wal_size = 100MB\n");
    let mut database = server.database("illnesses");
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE TABLE \"a 'b\" (id int PRIMARY KEY, v text, w text, x text); CREATE TABLE root (id int) PARTITION BY LIST (id);
             CREATE TABLE leaf PARTITION OF root FOR VALUES IN (1); SELECT bemi.track_all(); SELECT bemi.track('\"a ''b\"', ignore_columns => '{v,w}', mask_columns => '{x}')",
        )
        .unwrap();
    database.create_slot();
    let ill = |client: &mut postgres::Client| -> Vec<String> {
        client
            .query("SELECT \"check\" || ': ' || detail FROM bemi.doctor() WHERE ok IS NOT TRUE OR fix IS NOT NULL OR detail IS NULL", &[])
            .unwrap()
            .iter()
            .map(|row| row.get(0))
            .collect()
    };
    assert_eq!(ill(&mut client), [""; 0]);
    let all = client.query("SELECT * FROM bemi.doctor()", &[]).unwrap().len();
    let has_ownership: bool =
        client.query_one("SELECT to_regprocedure('bemi.unsafe()') IS NOT NULL", &[]).unwrap().get(0);
    assert_eq!(all, 23 + usize::from(has_ownership));
    let knows_allow_list: bool = client
        .query_one("SELECT count(*) = 1 FROM pg_settings WHERE name = 'output_plugin_libraries'", &[])
        .unwrap()
        .get(0);
    let mut cases = vec![
        (
            "max_slot_wal_keep_size",
            "ALTER SYSTEM SET max_slot_wal_keep_size = -1; SELECT pg_reload_conf()",
            "there is no limit",
        ),
        ("session_replication_role", "SET session_replication_role = replica", "triggers do not fire"),
        ("event trigger", "ALTER EVENT TRIGGER bemi_on_ddl DISABLE", "does not fire"),
        ("untracked tables", "SELECT bemi.untrack('leaf'); SELECT bemi.untrack('\"a ''b\"')", "\"a 'b\", public.leaf"),
        ("tracked tables", "SELECT bemi.untrack_all()", "0 tables"),
        (
            "images before",
            "ALTER TABLE \"a 'b\" REPLICA IDENTITY DEFAULT; ALTER TABLE leaf REPLICA IDENTITY NOTHING",
            "public.leaf",
        ),
        (
            "triggers",
            "ALTER TABLE \"a 'b\" DISABLE TRIGGER bemi_context; ALTER TABLE leaf ENABLE REPLICA TRIGGER bemi_context",
            "public.leaf",
        ),
        (
            "rules",
            "SELECT bemi.track('\"a ''b\"', ignore_columns => '{v,w}', mask_columns => '{x}'); ALTER TABLE \"a 'b\" DROP v",
            "there is no column v to ignore",
        ),
        (
            "rules",
            "CREATE TRIGGER other BEFORE INSERT ON leaf FOR EACH STATEMENT EXECUTE FUNCTION bemi.emit_context('what')",
            "another trigger",
        ),
        (
            "rules",
            "SELECT bemi.track('\"a ''b\"', 'default', '{w}', '{x}'); ALTER TABLE \"a 'b\" REPLICA IDENTITY NOTHING",
            "ignored columns are not ignored",
        ),
        (
            "event trigger",
            "ALTER EXTENSION bemi DROP EVENT TRIGGER bemi_on_ddl; DROP EVENT TRIGGER bemi_on_ddl",
            "does not exist",
        ),
        (
            "event trigger",
            "ALTER EXTENSION bemi DROP EVENT TRIGGER bemi_before_ddl; DROP EVENT TRIGGER bemi_before_ddl",
            "rules can turn tables of bemi into views",
        ),
        ("event trigger", "ALTER EVENT TRIGGER bemi_before_drop DISABLE", "does not fire"),
        (
            "event trigger",
            "ALTER EXTENSION bemi DROP EVENT TRIGGER bemi_before_drop; DROP EVENT TRIGGER bemi_before_drop",
            "can be dropped",
        ),
        (
            "ownership",
            "CREATE ROLE loader; CREATE ROLE \"an 'other\"; GRANT pg_write_all_data TO loader, \"an 'other\"",
            "\"an 'other\", loader",
        ),
    ];
    if knows_allow_list {
        cases.extend([
            (
                "output_plugin_libraries",
                "ALTER SYSTEM SET output_plugin_libraries = pgoutput, test_decoding; SELECT pg_reload_conf()",
                "the server does not load bemi_decoder",
            ),
            (
                "output_plugin_libraries",
                "ALTER SYSTEM SET output_plugin_libraries = 'pgoutput, bemi_decoder'; SELECT pg_reload_conf()",
                "the server does not load bemi_decoder",
            ),
            (
                "output_plugin_libraries",
                "ALTER SYSTEM SET output_plugin_libraries = ''; SELECT pg_reload_conf()",
                "it is empty",
            ),
        ]);
    }
    for (name, spoil, sign) in cases {
        for statement in spoil.split("; ") {
            client.batch_execute(statement).unwrap_or_else(|e| panic!("{statement}: {e:?}"));
        }
        crate::server::wait_until(spoil, || check(&mut client, name).0 == Some(false));
        let (_, detail, fix) = check(&mut client, name);
        assert!(detail.contains(sign), "{name}: {detail}");
        let fix = fix.unwrap_or_else(|| panic!("{name}: no statement for {detail}"));
        for statement in fix.split("; ") {
            client.batch_execute(statement).unwrap_or_else(|e| panic!("{name}: {statement}: {e:?}"));
        }
        crate::server::wait_until(&fix, || check(&mut client, name).0 == Some(true));
        assert_eq!(ill(&mut client), [""; 0], "after {spoil}, mended by {fix}");
        if name == "output_plugin_libraries" {
            // The list holds what it held, name by name, and the slot can be read.
            client.batch_execute("SELECT count(*) FROM pg_logical_slot_peek_changes('illnesses', NULL, NULL)").unwrap();
        }
    }
    client.batch_execute("DROP EVENT TRIGGER bemi_on_ddl").unwrap_err();
    // No statement takes a mask away.
    for spoil in
        ["DROP x", "ADD x text NOT NULL DEFAULT '', ADD UNIQUE (x), REPLICA IDENTITY USING INDEX \"a 'b_x_key\""]
    {
        client.batch_execute(&format!("ALTER TABLE \"a 'b\" {}", spoil.split(", R").next().unwrap())).unwrap();
        if spoil.contains("USING") {
            client.batch_execute("ALTER TABLE \"a 'b\" REPLICA IDENTITY USING INDEX \"a 'b_x_key\"").unwrap();
        }
        let (ok, detail, fix) = check(&mut client, "rules");
        assert!(ok == Some(false) && detail.contains("x to mask"), "{detail}");
        client.batch_execute(&fix.unwrap()).unwrap();
        let masks: String = client
            .query_one("SELECT mask_columns::text FROM bemi.tracked WHERE mask_columns <> '{}'", &[])
            .unwrap()
            .get(0);
        assert_eq!(masks, "{x}");
    }
    // A slot that keeps too much, and one that lost its log.
    client.batch_execute("ALTER SYSTEM RESET max_slot_wal_keep_size").unwrap();
    client.batch_execute("SELECT pg_reload_conf()").unwrap();
    crate::server::wait_until("the setting", || check(&mut client, "max_slot_wal_keep_size").1.contains("100 MB"));
    client
        .batch_execute("SELECT pg_logical_emit_message(false, 'x', repeat('x', 1000000)) FROM generate_series(1, 95)")
        .unwrap();
    let (ok, detail, fix) = check(&mut client, "slot illnesses");
    assert_eq!(
        (ok, fix.as_deref()),
        (Some(false), Some("SELECT pg_drop_replication_slot('illnesses'); -- or read it"))
    );
    assert!(detail.contains("it is not active"), "{detail}");
    client.batch_execute("SELECT pg_switch_wal()").unwrap();
    client
        .batch_execute("SELECT pg_logical_emit_message(false, 'x', repeat('x', 1000000)) FROM generate_series(1, 100)")
        .unwrap();
    client.batch_execute("SELECT pg_switch_wal()").unwrap();
    client.batch_execute("CHECKPOINT").unwrap();
    let (ok, detail, _) = check(&mut client, "slot illnesses");
    assert_eq!(ok, Some(false));
    assert!(detail.contains("changes are missing"), "{detail}");
    server.stop();
}

fn restarts(_: &Server) {
    let server = Server::start(
        "wal_level = replica\nmax_replication_slots = 1\nmax_wal_senders = 1\nsession_preload_libraries = 'bemi'\n",
    );
    server.database("restarts");
    let mut client = server.connect("restarts");
    client.batch_execute("SELECT pg_create_physical_replication_slot('other')").unwrap();
    for (name, part) in [("wal_level", "wal_level = logical"), ("max_replication_slots", "max_replication_slots = 11")]
    {
        let (ok, _, fix) = check(&mut client, name);
        let fix = fix.unwrap();
        assert_eq!(ok, Some(false), "{name}");
        assert!(fix.contains(part), "{fix}");
        client.batch_execute(&fix).unwrap();
    }
    assert!(check(&mut client, "preload").1.contains("is preloaded"));
    assert_eq!(check(&mut client, "max_wal_senders").0, Some(true));
    drop(client);
    server.pg_ctl("restart");
    let mut client = server.connect("restarts");
    for name in ["wal_level", "max_replication_slots"] {
        assert_eq!(check(&mut client, name).0, Some(true), "{name}");
    }
    server.stop();
}

/// Anyone names his tables as he likes; whoever runs the doctor's statements may be a superuser.
fn hostile_names(server: &Server) {
    let database = server.database("doctor_hostile_names");
    let mut client = database.connect();
    client.batch_execute("CREATE TABLE harmed (id int)").unwrap();
    for name in [
        "x*/ DROP TABLE harmed; --",
        "x'); DROP TABLE harmed; --",
        "x\"; DROP TABLE harmed; --",
        "x\\'); DROP TABLE harmed; --",
    ] {
        let table = format!("\"{}\"", name.replace('"', "\"\""));
        client
            .batch_execute(&format!(
                "CREATE TABLE {table} (id int, {table} text); DO $$ DECLARE t regclass := (SELECT max(oid) FROM pg_class WHERE relkind = 'r'); c name[] := (SELECT array_agg(attname) FROM pg_attribute WHERE attrelid = t AND attnum = 2);
                 BEGIN PERFORM bemi.track(t, 'full', '{{}}', c); END $$; ALTER TABLE {table} DROP COLUMN {table};
                 ALTER TABLE {table} REPLICA IDENTITY DEFAULT; ALTER TABLE {table} DISABLE TRIGGER bemi_context;
                 CREATE TRIGGER {table} BEFORE INSERT ON {table} FOR EACH STATEMENT EXECUTE FUNCTION bemi.emit_context()"
            ))
            .unwrap_or_else(|e| panic!("{name}: {e:?}"));
        for row in client
            .query("SELECT fix FROM bemi.doctor() WHERE \"check\" IN ('rules', 'triggers', 'images before')", &[])
            .unwrap()
        {
            client.batch_execute(row.get(0)).unwrap();
        }
        client.batch_execute(&format!("TABLE harmed; DROP TABLE {table}")).unwrap_or_else(|e| panic!("{name}: {e:?}"));
    }
}

fn ordinary_role(server: &Server) {
    let database = server.database("ordinary_role");
    database
        .connect()
        .batch_execute("CREATE TABLE t (id int); SELECT bemi.track('t'); CREATE ROLE ordinary_role LOGIN")
        .unwrap();
    let mut client = server.connect_with(&database.name, "ordinary_role", "");
    let (ok, detail, fix) = check(&mut client, "preload");
    assert_eq!((ok, fix), (None, None));
    assert!(detail.contains("the role ordinary_role may not see it"), "{detail}");
    for row in client.query("SELECT \"check\", ok, detail FROM bemi.doctor()", &[]).unwrap() {
        let (name, ok, detail): (String, Option<bool>, Option<String>) = (row.get(0), row.get(1), row.get(2));
        assert!(
            detail.is_some() && (ok.is_some() || ["preload", "recorder"].contains(&name.as_str())),
            "{name}: {detail:?}"
        );
    }
    database.connect().batch_execute("DROP ROLE ordinary_role").unwrap();
}
