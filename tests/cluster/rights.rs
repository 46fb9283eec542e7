//! Who may do what, in one page: rights.txt says for each function, table, view, sequence and type of the extension and of
//! bemi.start() which of five roles may use it. What is new has no line there until somebody has decided.
use std::collections::BTreeSet;
use std::fs;

use postgres::Client;

use crate::Test;
use crate::server::{Server, run, sqlstate};

pub const TESTS: &[Test] =
    &[("who_may_do_what_is_as_rights_txt_says", matrix), ("what_a_role_may_not_call_it_cannot_call", calls)];

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/rights.txt");
const HEAD: &str = "\
# What each of five roles may do with each object of bemi: a superuser, the database's owner, an application's role, a member of
# pg_monitor, and a member of pg_write_all_data with REPLICATION. Written by BEMI_RIGHTS_WRITE=1; see rights.rs and src/grants.sql.
";

/// The roles, and what the page calls them.
const ROLES: [(&str, &str); 5] = [
    ("postgres", "superuser"),
    ("rights_owner", "owner"),
    ("rights_app", "application"),
    ("rights_monitor", "monitor"),
    ("rights_writer", "writer"),
];

fn database(server: &Server, name: &str) -> Client {
    let mut client = server.connect("postgres");
    client
        .batch_execute(
            "DO $$BEGIN CREATE ROLE rights_owner LOGIN; CREATE ROLE rights_app LOGIN; CREATE ROLE rights_monitor LOGIN IN ROLE pg_monitor;
             CREATE ROLE rights_writer LOGIN REPLICATION IN ROLE pg_write_all_data; EXCEPTION WHEN duplicate_object OR unique_violation THEN END$$",
        )
        .unwrap();
    run(&mut client, &format!("CREATE DATABASE {name} OWNER rights_owner"));
    let mut client = server.connect(name);
    run(&mut client, "CREATE EXTENSION bemi; SELECT bemi.start(); SELECT bemi.stop(drop_slot => true)");
    client
}

/// A line for each object: its kind, its name with its arguments, and who may do what with it.
fn rights(client: &mut Client) -> BTreeSet<String> {
    let statement = "
        WITH roles AS (SELECT * FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS r (name, title, place)),
        objects AS (
            SELECT CASE p.prokind WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate' ELSE 'function' END AS kind,
                p.proname || '(' || pg_get_function_identity_arguments(p.oid) || ')' AS name, p.oid, '{EXECUTE}'::text[] AS rights
            FROM pg_proc p WHERE p.pronamespace = 'bemi'::regnamespace
            UNION ALL
            SELECT CASE c.relkind WHEN 'S' THEN 'sequence' WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' ELSE 'table' END,
                regexp_replace(c.relname, '_[0-9]{4}_[0-9]{2}$', '_YYYY_MM'), c.oid,
                CASE c.relkind WHEN 'S' THEN '{USAGE,SELECT,UPDATE}' ELSE '{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}' END::text[]
            FROM pg_class c WHERE c.relnamespace = 'bemi'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
            UNION ALL
            SELECT 'type', t.typname, t.oid, '{USAGE}' FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid
            WHERE t.typnamespace = 'bemi'::regnamespace AND COALESCE(c.relkind, 'c') = 'c' AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid)
            UNION ALL
            SELECT 'schema', 'bemi', 'bemi'::regnamespace::oid, '{USAGE,CREATE}'
        ),
        found AS (
            SELECT o.kind, o.name, r.title, r.place, string_agg(DISTINCT p, ',' ORDER BY p) AS rights FROM objects o CROSS JOIN roles r CROSS JOIN unnest(o.rights) p
            WHERE CASE o.kind
                WHEN 'function' THEN has_function_privilege(r.name::name, o.oid, p)
                WHEN 'procedure' THEN has_function_privilege(r.name::name, o.oid, p)
                WHEN 'aggregate' THEN has_function_privilege(r.name::name, o.oid, p)
                WHEN 'sequence' THEN has_sequence_privilege(r.name::name, o.oid, p)
                WHEN 'type' THEN has_type_privilege(r.name::name, o.oid, p)
                WHEN 'schema' THEN has_schema_privilege(r.name::name, o.oid, p)
                ELSE has_table_privilege(r.name::name, o.oid, p) END
              AND has_schema_privilege(r.name::name, 'bemi', 'USAGE')
            GROUP BY o.kind, o.name, r.title, r.place
        )
        SELECT format('%s %s: %s', kind, name, string_agg(title || CASE rights WHEN 'EXECUTE' THEN '' ELSE ' ' || rights END, '; ' ORDER BY place))
        FROM found GROUP BY kind, name";
    let (names, titles): (Vec<&str>, Vec<&str>) = ROLES.into_iter().unzip();
    client.query(statement, &[&names, &titles]).unwrap().iter().map(|row| row.get(0)).collect()
}

fn matrix(server: &Server) {
    let mut client = database(server, "rights_matrix");
    run(&mut client, "SELECT bemi.add_partition('2001-01-01')");
    let found = rights(&mut client);
    if std::env::var_os("BEMI_RIGHTS_WRITE").is_some() {
        let lines: Vec<&str> = found.iter().map(String::as_str).collect();
        fs::write(FILE, format!("{HEAD}{}\n", lines.join("\n"))).unwrap();
    }
    let expected = fs::read_to_string(FILE).unwrap_or_default();
    let expected: BTreeSet<String> =
        expected.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
    let new: Vec<String> = found.difference(&expected).map(|line| format!("+ {line}")).collect();
    let gone: Vec<String> = expected.difference(&found).map(|line| format!("- {line}")).collect();
    assert!(
        new.is_empty() && gone.is_empty(),
        "rights are not as tests/cluster/rights.txt says:\n{}\n{}\nIf that is meant, BEMI_RIGHTS_WRITE=1 has this test write the file anew: read what changes in it.",
        gone.join("\n"),
        new.join("\n"),
    );
}

/// The page is of what the catalogs say; here it is tried, for those functions that an application may not call. (A strict
/// function of a constant NULL is not called at all.)
fn calls(server: &Server) {
    let mut client = database(server, "rights_calls");
    let statement = "
        SELECT format('SELECT bemi.%I(%s)', p.proname, (SELECT string_agg('(SELECT NULL::' || format_type(t, NULL) || ')', ', ' ORDER BY place) FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY AS a (t, place)))
        FROM pg_proc p WHERE p.pronamespace = 'bemi'::regnamespace AND NOT has_function_privilege('rights_app', p.oid, 'EXECUTE')
          AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype, 'internal'::regtype) ORDER BY 1";
    let calls: Vec<String> = client.query(statement, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    assert!(calls.len() > 10, "{calls:?}");
    for (role, _) in &ROLES[1..] {
        let mut session = server.connect_with("rights_calls", role, "");
        for call in &calls {
            if *role == "rights_monitor" && call.contains("recorder_status") {
                session.batch_execute(call).unwrap();
            } else {
                let result = session.batch_execute(call);
                assert!(result.is_err(), "{role}: {call}");
                assert_eq!(sqlstate(result), "42501", "{role}: {call}");
            }
        }
    }
}
