//! ALTER EXTENSION bemi UPDATE from the version that was released before: afterwards a database has what a new one has, and
//! what it recorded.
use std::collections::BTreeSet;

use postgres::Client;

use crate::Test;
use crate::server::{Database, Server, run, sqlstate, wait_until};

pub const TESTS: &[Test] = &[
    ("an_upgraded_database_has_what_a_new_one_has", objects),
    ("an_upgraded_database_without_a_recorder_has_what_a_new_one_has", objects_without_recorder),
    ("what_was_recorded_before_an_upgrade_is_read_and_recording_goes_on", recorded),
    ("a_gap_that_was_not_recorded_before_an_upgrade_is_recorded_after_it", gap),
    ("rights_that_a_superuser_granted_outlive_an_upgrade", grants),
    ("a_library_that_does_not_fit_the_sql_is_reported", fit),
];

/// The version that is upgraded from.
const FORMER: &str = "0.1.0";

/// Everything that the extension makes, and that bemi.start() makes, one line for each thing. Lists of rights are sorted.
const OBJECTS: &str = r"
WITH acl AS (
  SELECT 'pg_proc'::regclass AS class, oid, COALESCE(proacl, acldefault('f', proowner)) AS acl FROM pg_proc
  UNION ALL SELECT 'pg_class'::regclass, oid, COALESCE(relacl, acldefault('r', relowner)) FROM pg_class
  UNION ALL SELECT 'pg_type'::regclass, oid, COALESCE(typacl, acldefault('T', typowner)) FROM pg_type
  UNION ALL SELECT 'pg_namespace'::regclass, oid, COALESCE(nspacl, acldefault('n', nspowner)) FROM pg_namespace
), rights AS (
  SELECT class, oid, ARRAY(SELECT a::text FROM unnest(acl) a ORDER BY 1)::text AS rights FROM acl
), own AS (
  SELECT c.*, c.oid::regclass::text AS name FROM pg_class c WHERE c.relnamespace = 'bemi'::regnamespace
)
SELECT 'member ' || pg_describe_object(d.classid, d.objid, d.objsubid) FROM pg_extension e
  JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e' WHERE e.extname = 'bemi'
UNION ALL SELECT 'initially ' || pg_describe_object(i.classoid, i.objoid, i.objsubid) || ' ' || i.privtype::text || ARRAY(SELECT a::text FROM unnest(i.initprivs) a ORDER BY 1)::text
  FROM pg_init_privs i WHERE pg_describe_object(i.classoid, i.objoid, i.objsubid) ~ '\mbemi\M'
UNION ALL SELECT format('extension %s %s %s', extversion, extrelocatable, ARRAY(SELECT c::regclass::text || ' ' || w FROM unnest(extconfig, extcondition) AS u (c, w) ORDER BY 1)::text)
  FROM pg_extension WHERE extname = 'bemi'
UNION ALL SELECT format('function %s%s %s %s', pg_get_functiondef(p.oid), p.proowner::regrole, r.rights, obj_description(p.oid, 'pg_proc'))
  FROM pg_proc p JOIN rights r ON r.class = 'pg_proc'::regclass AND r.oid = p.oid WHERE p.pronamespace = 'bemi'::regnamespace
UNION ALL SELECT format('relation %s %s %s %s %s %s %s %s %s %s', c.name, c.relkind, c.relowner::regrole, c.relpersistence, c.relreplident, c.relrowsecurity,
  c.reloptions, pg_get_expr(c.relpartbound, c.oid), r.rights, obj_description(c.oid, 'pg_class'))
  FROM own c LEFT JOIN rights r ON r.class = 'pg_class'::regclass AND r.oid = c.oid
UNION ALL SELECT format('column %s.%s %s %s %s %s %s %s %s', c.name, a.attname, a.attnum, format_type(a.atttypid, a.atttypmod), a.attnotnull,
  pg_get_expr(d.adbin, d.adrelid), a.attcollation::regcollation, a.attstorage, a.attacl)
  FROM own c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
UNION ALL SELECT format('constraint %s %s %s', c.name, k.conname, pg_get_constraintdef(k.oid)) FROM own c JOIN pg_constraint k ON k.conrelid = c.oid
UNION ALL SELECT format('index %s %s', pg_get_indexdef(i.indexrelid), (SELECT inhparent::regclass FROM pg_inherits WHERE inhrelid = i.indexrelid)) FROM own c JOIN pg_index i ON i.indrelid = c.oid
UNION ALL SELECT format('trigger %s %s', pg_get_triggerdef(t.oid), t.tgenabled) FROM own c JOIN pg_trigger t ON t.tgrelid = c.oid
UNION ALL SELECT format('policy %s %s %s %s %s', c.name, p.polname, p.polcmd, p.polroles, pg_get_expr(p.polqual, p.polrelid)) FROM own c JOIN pg_policy p ON p.polrelid = c.oid
UNION ALL SELECT format('view %s %s', c.name, pg_get_viewdef(c.oid)) FROM own c WHERE c.relkind = 'v'
UNION ALL SELECT format('type %s %s %s %s', t.oid::regtype, t.typowner::regrole, r.rights, obj_description(t.oid, 'pg_type'))
  FROM pg_type t JOIN rights r ON r.class = 'pg_type'::regclass AND r.oid = t.oid WHERE t.typnamespace = 'bemi'::regnamespace
UNION ALL SELECT format('event trigger %s %s %s %s %s %s', e.evtname, e.evtevent, e.evtfoid::regprocedure, e.evtenabled, e.evttags, obj_description(e.oid, 'pg_event_trigger'))
  FROM pg_event_trigger e WHERE e.evtname LIKE 'bemi%'
UNION ALL SELECT format('schema %s %s', n.nspname, r.rights) FROM pg_namespace n JOIN rights r ON r.class = 'pg_namespace'::regclass AND r.oid = n.oid WHERE n.nspname = 'bemi'";

/// A database with the SQL of the former version, and the new library.
fn former<'a>(server: &'a Server, name: &str) -> Database<'a> {
    let database = server.database_with(name, "TEMPLATE template0");
    let mut client = database.connect();
    run(&mut client, "DROP EXTENSION bemi; DROP SCHEMA IF EXISTS bemi CASCADE");
    client.batch_execute(&format!("CREATE EXTENSION bemi VERSION '{FORMER}'")).expect("the former version");
    database
}

fn values(client: &mut Client, query: &str) -> Vec<String> {
    client.query(query, &[]).unwrap().iter().map(|row| row.get::<_, Option<String>>(0).unwrap_or_default()).collect()
}

fn value(client: &mut Client, query: &str) -> String {
    values(client, query).join(" ")
}

fn differences(one: &mut Client, other: &mut Client) -> Vec<String> {
    let [one, other]: [BTreeSet<String>; 2] = [one, other].map(|client| values(client, OBJECTS).into_iter().collect());
    assert!(one.len() > 600 && other.len() > 600, "{} and {} things", one.len(), other.len());
    let only = |sign: &'static str, these: &BTreeSet<String>, those: &BTreeSet<String>| -> Vec<String> {
        these.difference(those).map(|line| format!("{sign} {line}")).collect()
    };
    [only("upgraded:", &one, &other), only("new:", &other, &one)].concat()
}

fn expect_same(mut upgraded: Client, mut new: Client) {
    let found = differences(&mut upgraded, &mut new);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

fn objects(server: &Server) {
    let (upgraded, new) = (former(server, "upgrade_objects"), server.database("upgrade_new"));
    let tables = "SELECT bemi.make_changes(), bemi.make_changes_diff(), bemi.keep_partitions(NULL)";
    let mut client = upgraded.connect();
    run(&mut client, &format!("CREATE TABLE todo (id int PRIMARY KEY); SELECT bemi.track('todo'); {tables}"));
    run(&mut client, "ALTER EXTENSION bemi UPDATE");
    new.connect().batch_execute(tables).unwrap();
    // Sessions that were there before go on too.
    run(&mut client, "INSERT INTO todo VALUES (1); SELECT bemi.untrack_all()");
    expect_same(client, new.connect());
}

fn objects_without_recorder(server: &Server) {
    let (upgraded, new) = (former(server, "upgrade_bare"), server.database("upgrade_bare_new"));
    run(&mut upgraded.connect(), "ALTER EXTENSION bemi UPDATE");
    expect_same(upgraded.connect(), new.connect());
    // An empty one can be recorded as a new one can.
    let mut client = upgraded.connect();
    run(&mut client, "CREATE TABLE todo (id int PRIMARY KEY); SELECT bemi.track('todo'); SELECT bemi.start()");
    run(&mut client, "INSERT INTO todo VALUES (1); SELECT bemi.sync()");
    assert_eq!(value(&mut client, "SELECT concat(source, operation) FROM bemi.changes"), "1CREATE");
    run(&mut client, "SELECT bemi.stop(drop_slot => true)");
}

/// What bemi.start() of the former version makes; it refuses a library of another version.
const START: &str = "
    SELECT bemi.make_changes(), bemi.make_changes_diff(), bemi.keep_partitions(NULL);
    DO $$ BEGIN PERFORM set_config('test.slot', bemi.new_recorder_slot(), false); PERFORM bemi.create_slot(current_setting('test.slot')::name); END $$;
    UPDATE bemi.recorder SET slot = current_setting('test.slot'), is_wanted = true, state = 'recording', since = clock_timestamp(),
        read_position = (SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = current_setting('test.slot'))";

/// What the recorder of the former version does: its columns of what the decoder gives, and what it knows then.
const RECORD: &str = "
    WITH documents AS (SELECT data::jsonb AS d FROM pg_logical_slot_get_changes(current_setting('test.slot'), NULL, NULL, 'filter-tables', 'bemi.*')
    ), rows AS (
        INSERT INTO bemi.changes SELECT bemi.change_id((d ->> 'committed_at')::timestamptz, (d ->> 'commit_position')::pg_lsn, (d ->> 'sequence')::int),
            d ->> 'database', d ->> 'schema', d ->> 'table', d ->> 'operation', d ->> 'primary_key', d -> 'before', d -> 'after', d -> 'context',
            (d ->> 'committed_at')::timestamptz, now(), now(), (d ->> 'transaction_id')::bigint, bemi.position_number((d ->> 'position')::pg_lsn),
            (d ->> 'commit_position')::pg_lsn, (d ->> 'sequence')::int, d -> 'omitted', d ->> 'old_primary_key'
        FROM documents WHERE d ->> 'operation' <> 'MESSAGE' RETURNING *
    ) UPDATE bemi.recorder SET changes = changes + (SELECT count(*) FROM rows), commit_position = (SELECT max(commit_position) FROM rows),
        sequence = (SELECT sequence FROM rows ORDER BY commit_position DESC, sequence DESC LIMIT 1), committed_at = (SELECT max(committed_at) FROM rows)";

fn recorded(server: &Server) {
    let database = former(server, "upgrade_recorded");
    let mut client = database.connect();
    run(
        &mut client,
        "CREATE TABLE todo (id int PRIMARY KEY, task text, secret text, seen int); CREATE TABLE later () INHERITS (todo); CREATE SCHEMA app; \
         CREATE TABLE app.parts (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); \
         CREATE TABLE app.parts_1 PARTITION OF app.parts FOR VALUES FROM (0) TO (10); \
         SELECT bemi.track('todo', ignore_columns => '{seen}', mask_columns => '{secret}'), bemi.track('later'), bemi.track_all('{app}')",
    );
    for statement in START.split(";\n") {
        client.batch_execute(statement).unwrap_or_else(|error| panic!("{error:?}: {statement}"));
    }
    run(
        &mut client,
        "SELECT bemi.set_context('{\"user_id\": 1}'); INSERT INTO todo VALUES (1, 'a', 'x', 0), (2, 'b', 'y', 0); INSERT INTO app.parts VALUES (1, 'p'); \
         UPDATE todo SET task = 'oops' WHERE id = 1; UPDATE todo SET seen = 1; ALTER TABLE todo ADD COLUMN note text; ALTER TABLE todo RENAME TO tasks",
    );
    client.batch_execute(RECORD).unwrap();
    let moment = value(&mut client, "SELECT clock_timestamp()::text");
    run(
        &mut client,
        "SELECT bemi.set_context('{\"user_id\": 2}'); DELETE FROM tasks WHERE id = 2; UPDATE app.parts SET v = 'q'; SELECT bemi.launch()",
    );
    // The worker of the new library does not write what the former SQL would read.
    let activity =
        "SELECT query FROM pg_stat_activity WHERE backend_type = 'bemi recorder' AND datname = current_database()";
    wait_until("the recorder says what it waits for", || {
        value(&mut client, activity)
            .ends_with("the extension has version 0.1.0, the library version 0.2.0; ALTER EXTENSION bemi UPDATE")
    });
    assert_eq!(
        value(&mut client, "SELECT fix FROM bemi.doctor() WHERE \"check\" = 'library' AND NOT ok"),
        "ALTER EXTENSION bemi UPDATE; -- in a new session, with the new library installed"
    );
    assert_eq!(sqlstate(client.batch_execute("SELECT bemi.latest_query('tasks'::regclass)")), "55000");

    run(&mut client, "ALTER EXTENSION bemi UPDATE; SELECT bemi.sync()");
    let changes =
        "SELECT concat_ws(' ', source, \"table\", operation, primary_key, context ->> 'user_id') FROM bemi.changes
        ORDER BY source, commit_position, sequence";
    let all = [
        "1 todo CREATE 1 1",
        "1 todo CREATE 2 1",
        "1 parts_1 CREATE 1 1",
        "1 todo UPDATE 1 1",
        "1 tasks DELETE 2 2",
        "1 parts_1 UPDATE 1 2",
    ];
    assert_eq!(values(&mut client, changes), all);
    let status = "SELECT concat_ws(' ', state, changes, last_error) FROM bemi.status";
    wait_until("the recorder records", || value(&mut client, status) == "recording 6");
    let here =
        "SELECT concat_ws(' ', source, name, s.database, s.system_identifier = c.system_identifier, first_position = (
        SELECT min(commit_position) FROM bemi.changes), until) FROM bemi.sources s, pg_control_system() c";
    assert_eq!(value(&mut client, here), "1 upgrade_recorded upgrade_recorded t t");
    // Tests beside this one make roles that may write everything.
    assert_eq!(
        values(
            &mut client,
            "SELECT concat(\"check\", detail) FROM bemi.doctor() WHERE NOT ok AND \"check\" <> 'max_slot_wal_keep_size'
              AND detail NOT LIKE 'members of pg\\_write\\_all\\_data may write %'"
        ),
        [""; 0]
    );
    assert_eq!(values(&mut client, "SELECT detail FROM bemi.unsafe()"), [""; 0]);

    // Rules, masked by number and below now.
    let rules = "SELECT concat_ws(' ', relation, ignore_columns, mask_columns, missing) FROM bemi.tracked ORDER BY relation::text";
    assert_eq!(
        values(&mut client, rules),
        ["app.parts {} {} {}", "app.parts_1 {} {} {}", "later {} {secret} {}", "tasks {seen} {secret} {}"]
    );
    run(
        &mut client,
        "SELECT bemi.set_context('{\"user_id\": 3}'); CREATE TABLE app.more (id int PRIMARY KEY); INSERT INTO app.more VALUES (5); \
        UPDATE tasks SET task = 'c', secret = 'z' WHERE id = 1; UPDATE tasks SET seen = 9; SELECT bemi.sync()",
    );
    let after = [&all[..], &["1 more CREATE 5 3", "1 tasks UPDATE 1 3"]].concat();
    assert_eq!(values(&mut client, changes), after);
    assert_eq!(
        value(
            &mut client,
            "SELECT after ->> 'secret' FROM bemi.changes WHERE \"table\" = 'tasks' AND operation = 'UPDATE'"
        ),
        "[masked]"
    );

    // The past, from before the upgrade.
    let then =
        format!("SELECT concat_ws(' ', id, task, seen, note) FROM bemi.as_of(NULL::tasks, '{moment}') ORDER BY id");
    assert_eq!(values(&mut client, &then), ["1 oops 1", "2 b 1"]);
    assert_eq!(values(&mut client, &format!("SELECT v FROM bemi.as_of(NULL::app.parts, '{moment}')")), ["p"]);
    let history = "SELECT concat_ws(' ', operation, (\"row\").task, context ->> 'user_id') FROM bemi.history(NULL::tasks, '1') ORDER BY version";
    assert_eq!(values(&mut client, history), ["CREATE a 1", "UPDATE oops 1", "UPDATE c 3"]);
    let undone = "SELECT concat_ws(' ', status, operation, primary_key) FROM bemi.revert(relation => 'app.parts', context => '{\"user_id\": 2}')";
    assert_eq!(value(&mut client, undone), "reverted UPDATE 1");
    let undone = "SELECT concat_ws(' ', status, operation, primary_key) FROM bemi.revert(relation => 'app.parts', context => '{\"user_id\": 1}')";
    assert_eq!(value(&mut client, undone), "reverted CREATE 1");
    assert_eq!(value(&mut client, "SELECT count(*)::text FROM app.parts"), "0");
    run(&mut client, "SELECT bemi.stop(drop_slot => true)");
}

/// A gap waits for the recorder as its document in the former version.
fn gap(server: &Server) {
    let database = former(server, "upgrade_gap");
    let mut client = database.connect();
    run(&mut client, "CREATE TABLE todo (id int PRIMARY KEY); SELECT bemi.track('todo')");
    for statement in START.split(";\n") {
        client.batch_execute(statement).unwrap_or_else(|error| panic!("{error:?}: {statement}"));
    }
    let document = |from: &str, reason: &str| {
        format!("to_json(json_build_object('position', read_position, 'transaction_id', 7, 'committed_at', now(), 'operation', 'GAP',
            'context', json_build_object('reason', '{reason}', 'from', '{from}', 'to', read_position, 'accepted_by', 'ada')))::text")
    };
    run(
        &mut client,
        &format!(
            "UPDATE bemi.recorder SET gap = concat({}, chr(10), {})",
            document("0/10", "slot lost"),
            document("0/20", "stopped")
        ),
    );
    run(
        &mut client,
        "ALTER EXTENSION bemi UPDATE; SELECT bemi.start(); INSERT INTO todo VALUES (1); SELECT bemi.sync()",
    );
    let found = "SELECT concat_ws(' ', operation, context ->> 'reason', context ->> 'from', context ->> 'accepted_by') FROM bemi.changes
        ORDER BY source, commit_position, sequence";
    assert_eq!(values(&mut client, found), ["GAP slot lost 0/10 ada", "CREATE"]);
    run(&mut client, "SELECT bemi.stop(drop_slot => true)");
}

fn grants(server: &Server) {
    let database = former(server, "upgrade_grants");
    let mut client = database.connect();
    run(
        &mut client,
        "CREATE ROLE upgrade_reader; GRANT EXECUTE ON FUNCTION bemi.start(boolean) TO upgrade_reader; GRANT SELECT ON bemi.status TO upgrade_reader; \
        SELECT bemi.make_changes(), bemi.make_changes_diff(); GRANT SELECT ON bemi.changes TO upgrade_reader; ALTER EXTENSION bemi UPDATE",
    );
    let rights = "SELECT concat_ws(' ', has_function_privilege('upgrade_reader', 'bemi.start(boolean)', 'EXECUTE'),
        has_table_privilege('upgrade_reader', 'bemi.status', 'SELECT'), has_table_privilege('upgrade_reader', 'bemi.changes', 'SELECT'),
        has_function_privilege('upgrade_reader', 'bemi.stop(boolean)', 'EXECUTE'))";
    assert_eq!(value(&mut client, rights), "t t t f");
    // A dump gives them again: they are not taken for those of the extension.
    let dump = server.check(&mut server.program("pg_dump", "upgrade_grants")).stdout;
    let dump = String::from_utf8(dump).unwrap();
    for right in [
        "ALL ON FUNCTION bemi.start(accept_gap boolean)",
        "SELECT ON TABLE bemi.status",
        "SELECT ON TABLE bemi.changes",
    ] {
        assert!(dump.contains(&format!("GRANT {right} TO upgrade_reader;")), "{right}: {dump}");
    }
    run(&mut client, "DROP OWNED BY upgrade_reader; DROP ROLE upgrade_reader");
}

fn fit(server: &Server) {
    let mut client = server.database("upgrade_fit").connect();
    let row = "SELECT concat_ws(' | ', ok, detail, fix) FROM bemi.doctor() WHERE \"check\" = 'library'";
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(value(&mut client, row), format!("t | the library has version {version}, the extension {version}"));
    let built = value(&mut client, "SELECT bemi.library_checksum()");
    assert_eq!(built.len(), 16);
    assert_eq!(value(&mut client, "SELECT bemi.sql_checksum()"), built);

    let other = "CREATE OR REPLACE FUNCTION bemi.sql_checksum() RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS \
        $$ SELECT 'fedcba9876543210'::text $$";
    run(&mut client, other);
    assert_eq!(
        value(&mut client, row),
        format!(
            "f | the library has version {version}, the extension {version}, but the library was built with other SQL \
        ({built}, not fedcba9876543210) | -- install the library and the SQL of the same build, and restart the server"
        )
    );
    assert_eq!(sqlstate(client.batch_execute("SELECT bemi.start()")), "55000");

    for (extension, rest) in [
        ("0.1.9", ": the library is newer | ALTER EXTENSION bemi UPDATE;"),
        ("0.10", ": the extension is newer | -- install the library of version 0.10, and restart the server"),
        ("1-beta", " | ALTER EXTENSION bemi UPDATE;"),
    ] {
        run(&mut client, &format!("UPDATE pg_extension SET extversion = '{extension}' WHERE extname = 'bemi'"));
        assert_eq!(
            value(&mut client, row),
            format!("f | the library has version {version}, the extension {extension}{rest}")
        );
    }
}
