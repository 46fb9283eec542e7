//! Masks that hold when names, rights and parents of a table are not as they were.
use crate::Test;
use crate::server::{Server, sqlstate, wait_until};

pub const TESTS: &[Test] = &[
    ("a_mask_holds_by_the_number_of_its_column_too", numbers),
    ("numbers_that_anyone_wrote_break_nothing", hostile_numbers),
    ("a_column_renamed_while_track_waits_is_not_shown", renamed_meanwhile),
    ("tables_and_masks_are_followed_whatever_their_author_may_do", any_author),
    ("what_follows_statements_is_nobodys_to_call", not_callable),
    ("children_have_the_masks_of_all_their_parents", children),
    ("rules_that_others_changed_are_shown_with_the_statement_against_them", rules_by_others),
];

/// A name, `ignore_columns`, `mask_columns` and `missing` of a tracked table.
fn masks(client: &mut postgres::Client, table: &str) -> (Vec<String>, Vec<String>) {
    let statement =
        format!("SELECT mask_columns::text[], missing FROM bemi.tracked WHERE relation = '{table}'::regclass");
    let row = client.query_one(&statement, &[]).unwrap_or_else(|e| panic!("{e}: {statement}"));
    (row.get(0), row.get(1))
}

/// The rule that says the numbers, without the OID, and whether that is the table's.
fn numbers_of(client: &mut postgres::Client, table: &str) -> (String, bool) {
    let statement = format!(
        "SELECT split_part(n, ':', 2), split_part(n, ':', 1) = '{table}'::regclass::oid::text
         FROM bemi.context_triggers t, unnest(bemi.rules(t.arguments, 'numbers')) n WHERE t.relation = '{table}'::regclass"
    );
    let row = client.query_opt(&statement, &[]).unwrap();
    row.map_or((String::new(), true), |row| (row.get(0), row.get(1)))
}

fn fix(client: &mut postgres::Client, check: &str) -> Option<String> {
    client.query_one("SELECT fix FROM bemi.doctor() WHERE \"check\" = $1", &[&check]).unwrap().get(0)
}

fn numbers(server: &Server) {
    let database = server.database("masks_by_number");
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE TABLE t (id int PRIMARY KEY, gone int, a text, b text, c text); ALTER TABLE t DROP gone;
             SELECT bemi.track('t', mask_columns => '{c,a}');
             CREATE TABLE root (id int, a text) PARTITION BY LIST (id); CREATE TABLE leaf (a text, id int);
             SELECT bemi.track('root', mask_columns => '{a}'); ALTER TABLE root ATTACH PARTITION leaf FOR VALUES IN (1)",
        )
        .unwrap();
    assert_eq!(numbers_of(&mut client, "t"), ("3,5".to_owned(), true));
    assert_eq!(numbers_of(&mut client, "root"), ("2".to_owned(), true));
    assert_eq!(numbers_of(&mut client, "leaf"), ("1".to_owned(), true));
    // A rename that is followed rewrites the name and keeps the number.
    client.batch_execute("ALTER TABLE t RENAME a TO aa").unwrap();
    assert_eq!(masks(&mut client, "t"), (vec!["aa".into(), "c".into()], vec![]));
    assert_eq!(numbers_of(&mut client, "t").0, "3,5");
    // One that nobody follows: names are those of today, and the doctor's statement writes them.
    client
        .batch_execute(
            "ALTER EVENT TRIGGER bemi_on_ddl DISABLE; ALTER TABLE t RENAME aa TO aaa; ALTER TABLE root RENAME a TO z;
             ALTER EVENT TRIGGER bemi_on_ddl ENABLE ALWAYS",
        )
        .unwrap();
    let problem = |name: &str| format!("the rules do not name the column {name}, which is masked by its number");
    assert_eq!(masks(&mut client, "t"), (vec!["c".into(), "aaa".into()], vec![problem("aaa")]));
    for table in ["root", "leaf"] {
        assert_eq!(masks(&mut client, table), (vec!["z".into()], vec![problem("z")]));
    }
    let statement = fix(&mut client, "rules").unwrap();
    client.batch_execute(&statement).unwrap();
    for (table, names) in [("t", vec!["aaa", "c"]), ("root", vec!["z"]), ("leaf", vec!["z"])] {
        let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        assert_eq!(masks(&mut client, table), (names, vec![]), "{statement}");
    }
    assert_eq!(fix(&mut client, "rules"), None);
    // The name of a dropped column waits; a new column of that name is masked by its number, too, at once.
    client.batch_execute("ALTER TABLE t DROP c").unwrap();
    let (names, missing) = masks(&mut client, "t");
    assert_eq!((names, missing), (vec!["aaa".into(), "c".into()], vec!["there is no column c to mask".to_owned()]));
    client.batch_execute("ALTER TABLE t ADD n int, ADD c text").unwrap();
    assert_eq!(masks(&mut client, "t").1, [""; 0]);
    assert_eq!(numbers_of(&mut client, "t").0, "3,7");
    // Two columns that change names with each other, unseen: both stay masked.
    client
        .batch_execute(
            "ALTER EVENT TRIGGER bemi_on_ddl DISABLE; ALTER TABLE t RENAME c TO x; ALTER TABLE t RENAME b TO c; ALTER TABLE t RENAME x TO b;
             ALTER EVENT TRIGGER bemi_on_ddl ENABLE ALWAYS; SELECT bemi.track_again('t')",
        )
        .unwrap();
    assert_eq!(masks(&mut client, "t"), (vec!["aaa".into(), "b".into(), "c".into()], vec![]));
    assert_eq!(numbers_of(&mut client, "t").0, "3,4,7");
    // A trigger made by hand, or restored into a table of another OID, lacks the numbers, and the doctor adds them.
    client
        .batch_execute(
            "CREATE TABLE hand (id int, v text); CREATE TRIGGER bemi_context BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON hand
               FOR EACH STATEMENT EXECUTE FUNCTION bemi.emit_context('mask=v', 'numbers=1:2')",
        )
        .unwrap();
    assert!(masks(&mut client, "hand").1.contains(&"the column v is masked only by its name".to_owned()));
    let statement = fix(&mut client, "rules").unwrap();
    client.batch_execute(&statement).unwrap();
    assert_eq!(numbers_of(&mut client, "hand"), ("2".to_owned(), true));
    assert_eq!(fix(&mut client, "rules"), None);
}

fn hostile_numbers(server: &Server) {
    let database = server.database("hostile_numbers");
    let mut client = database.connect();
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY, v text, w text); SELECT bemi.track('t')").unwrap();
    let oid: u32 = client.query_one("SELECT 't'::regclass::oid", &[]).unwrap().get(0);
    let long = "9".repeat(3000);
    for (numbers, masked) in [
        (format!("{oid}:2"), "v"),
        (format!("0{oid}:002,3"), "v,w"),
        (format!("{oid}:{long}"), ""),
        (format!("{oid}:0,-1,2"), ""),
        (format!("{long}:2"), ""),
        (format!("{oid}"), ""),
        (format!("{oid}:2; DROP TABLE t"), ""),
    ] {
        client
            .batch_execute(&format!(
                "CREATE OR REPLACE TRIGGER bemi_context BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON t
                 FOR EACH STATEMENT EXECUTE FUNCTION bemi.emit_context('numbers={numbers}')"
            ))
            .unwrap();
        assert_eq!(masks(&mut client, "t").0.join(","), masked, "{numbers}");
        client.batch_execute("SELECT * FROM bemi.doctor(); SELECT bemi.track_again('t')").unwrap();
        assert_eq!(masks(&mut client, "t").0.join(","), masked, "{numbers}");
    }
}

/// The column has its new name before track() has its lock.
fn renamed_meanwhile(server: &Server) {
    let database = server.database("renamed_meanwhile");
    let mut client = database.connect();
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY, password text)").unwrap();
    let mut other = database.connect();
    other.batch_execute("BEGIN; ALTER TABLE t RENAME password TO pw").unwrap();
    std::thread::scope(|scope| {
        let tracker =
            scope.spawn(|| database.connect().batch_execute("SELECT bemi.track('t', mask_columns => '{password}')"));
        let waits =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = 'renamed_meanwhile' AND wait_event_type = 'Lock'";
        wait_until("the tracker", || client.query_one(waits, &[]).unwrap().get::<_, i64>(0) == 1);
        other.batch_execute("COMMIT").unwrap();
        assert_eq!(sqlstate(tracker.join().unwrap()), "42703");
    });
    let tracked: i64 = client.query_one("SELECT count(*) FROM bemi.tracked", &[]).unwrap().get(0);
    assert_eq!(tracked, 0);
}

fn any_author(server: &Server) {
    let mut admin = server.connect("postgres");
    admin.batch_execute("CREATE DATABASE any_author").unwrap();
    admin
        .batch_execute(
            "CREATE ROLE any_author LOGIN; CREATE ROLE any_member LOGIN IN ROLE any_author;
             CREATE ROLE any_setter LOGIN NOINHERIT IN ROLE any_author",
        )
        .unwrap();
    let mut client = server.connect("any_author");
    client
        .batch_execute(
            "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC; CREATE EXTENSION bemi;
             GRANT ALL ON SCHEMA public TO any_author; SELECT bemi.track_all()",
        )
        .unwrap();
    let spoils = [
        "SELECT 1",
        "REVOKE USAGE ON SCHEMA bemi FROM PUBLIC",
        "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA bemi FROM PUBLIC; REVOKE SELECT ON ALL TABLES IN SCHEMA bemi FROM PUBLIC",
    ];
    for spoil in spoils {
        client.batch_execute(spoil).unwrap();
        for (role, before) in [
            ("any_author", ""),
            ("any_member", ""),
            ("any_member", "SET ROLE any_author"),
            ("any_setter", "SET ROLE any_author"),
            ("postgres", ""),
        ] {
            let (mut author, notices) = server.connect_listening("any_author", role);
            author
                .batch_execute(&format!(
                    "{before}; CREATE TABLE t (id int PRIMARY KEY, password text, seen int, CONSTRAINT u UNIQUE (id));
                     CREATE TABLE root (id int, v text) PARTITION BY LIST (id); CREATE TABLE leaf PARTITION OF root FOR VALUES IN (1);
                     CREATE TABLE heir () INHERITS (t)"
                ))
                .unwrap();
            client
                .batch_execute(
                    "SELECT bemi.track('t', 'full', '{seen}', '{password}'), bemi.track('root', mask_columns => '{v}')",
                )
                .unwrap();
            // The owner has taken TRIGGER from himself.
            let owner: String = client
                .query_one("SELECT relowner::regrole::text FROM pg_class WHERE relname = 't'", &[])
                .unwrap()
                .get(0);
            client.batch_execute(&format!("REVOKE TRIGGER ON t, root, leaf, heir FROM {owner}")).unwrap();
            author
                .batch_execute(
                    "ALTER TABLE t RENAME password TO pw; ALTER TABLE t RENAME seen TO seen_at; ALTER TABLE root RENAME v TO w;
                     CREATE TABLE second PARTITION OF root FOR VALUES IN (2); CREATE TABLE third (id int, w text);
                     ALTER TABLE root ATTACH PARTITION third FOR VALUES IN (3)",
                )
                .unwrap();
            let warned: Vec<String> = notices.take().into_iter().filter(|n| n.starts_with("WARNING")).collect();
            assert_eq!(warned, [""; 0], "{spoil}: {role} {before}");
            let rows = client
                .query("SELECT relation::text || ignore_columns::text || mask_columns::text FROM bemi.tracked ORDER BY relation::text", &[])
                .unwrap();
            let rules: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
            assert_eq!(
                rules,
                ["heir{}{pw}", "leaf{}{w}", "root{}{w}", "second{}{w}", "t{seen_at}{pw}", "third{}{w}"],
                "{spoil}: {role} {before}"
            );
            client.batch_execute("DROP TABLE heir, t, root").unwrap();
        }
    }
    drop(client);
    admin.batch_execute("DROP DATABASE any_author WITH (FORCE)").unwrap();
    admin.batch_execute("DROP ROLE any_setter, any_member, any_author").unwrap();
}

fn not_callable(server: &Server) {
    let database = server.database("not_callable");
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE ROLE nc_other; CREATE ROLE nc_maker LOGIN NOINHERIT IN ROLE nc_other; GRANT CREATE ON DATABASE not_callable TO nc_other, nc_maker;
             CREATE TABLE mine (id int PRIMARY KEY, v text); CREATE SCHEMA s; SELECT bemi.track_all('{s}'); DROP SCHEMA s",
        )
        .unwrap();
    let (mut maker, notices) = server.connect_listening(&database.name, "nc_maker");
    for call in [
        "bemi.follow_ddl('partition', 'mine'::regclass::oid::text, '', 10)",
        "bemi.follow_ddl('schema', 's', 't', 10)",
        "bemi.follow_ddl('publication', '', '', 10)",
        "bemi.try_lock_tracking()",
        "bemi.await_makers()",
        // Whoever says that he is somebody else gains nothing.
        "bemi.track_one('mine', 'full', '{}', '{}')",
    ] {
        assert_eq!(sqlstate(maker.batch_execute(&format!("SELECT {call}"))), "42501", "{call}");
    }
    let result = maker.batch_execute("SELECT bemi.follow_table('mine', true, false, 10)");
    assert_eq!(sqlstate(result), "42501");
    let result = maker.batch_execute("CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION bemi.on_ddl()");
    assert_eq!(sqlstate(result), "42501");
    // Granted by mistake, it still asks who the caller is.
    client.batch_execute("GRANT EXECUTE ON FUNCTION bemi.try_lock_tracking() TO nc_maker").unwrap();
    assert_eq!(sqlstate(maker.batch_execute("SELECT bemi.try_lock_tracking()")), "42501");
    // A table that its maker does not own: the rights of the function are not his.
    notices.take();
    maker.batch_execute("CREATE SCHEMA s AUTHORIZATION nc_other CREATE TABLE theirs (id int)").unwrap();
    let said = notices.take().concat();
    assert!(
        said.contains("WARNING: bemi does not track s.theirs, because you do not own it HINT: As its owner or a superuser: SELECT bemi.follow_table('s.theirs', true);"),
        "{said}"
    );
    let tracked: i64 = client.query_one("SELECT count(*) FROM bemi.tracked", &[]).unwrap().get(0);
    assert_eq!(tracked, 0);
    client.batch_execute("DROP OWNED BY nc_maker, nc_other CASCADE; DROP ROLE nc_maker; DROP ROLE nc_other").unwrap();
}

fn children(server: &Server) {
    let mut database = server.database("masked_children");
    let (mut client, notices) = server.connect_listening(&database.name, "postgres");
    client
        .batch_execute(
            "CREATE TABLE par (id int, password text, n int); CREATE TABLE par2 (id int, iban text);
             SELECT bemi.track('par', mask_columns => '{password}'), bemi.track('par2', mask_columns => '{iban}');
             CREATE TABLE there () INHERITS (par); SELECT bemi.track_all(); CREATE TABLE made (w text) INHERITS (par, par2);
             CREATE TABLE grand () INHERITS (made); CREATE TABLE later (id int, password text, n int); ALTER TABLE later INHERIT par;
             CREATE TABLE own (id int, iban text, extra text); SELECT bemi.track('own', 'keep', '{id}', '{extra}'); ALTER TABLE own INHERIT par2;
             CREATE TABLE below () INHERITS (own)",
        )
        .unwrap();
    notices.take();
    let of = |client: &mut postgres::Client, table: &str| masks(client, table).0.join(",");
    for (table, expected) in [
        ("there", "password"),
        ("made", "iban,password"),
        ("grand", "iban,password"),
        ("later", "password"),
        ("own", "extra,iban"),
        ("below", "extra,iban"),
    ] {
        assert_eq!(of(&mut client, table), expected, "{table}");
    }
    // Those of a child are more by itself, and say so.
    client.batch_execute("SELECT bemi.track('made', mask_columns => '{w}')").unwrap();
    let said = notices.take();
    let expected = "NOTICE: columns of public.made are masked as in the tables that it inherits from: iban, password";
    assert!(said.iter().any(|notice| notice == expected), "{said:?}");
    assert_eq!(
        (of(&mut client, "made"), of(&mut client, "grand")),
        ("iban,password,w".into(), "iban,password,w".into())
    );
    // More masks of a parent reach all below it that are tracked; fewer take none away.
    client
        .batch_execute("SELECT bemi.untrack('later'); SELECT bemi.track('par', mask_columns => '{password,n}')")
        .unwrap();
    assert_eq!((of(&mut client, "there"), of(&mut client, "grand")), ("n,password".into(), "iban,n,password,w".into()));
    client.batch_execute("SELECT bemi.track('par', mask_columns => '{password}'), bemi.track('later')").unwrap();
    assert_eq!((of(&mut client, "there"), of(&mut client, "later")), ("n,password".into(), "password".into()));
    // A child that is tracked in spite of an event trigger that did not run.
    client
        .batch_execute(
            "CREATE TABLE unseen (id int, iban text); ALTER EVENT TRIGGER bemi_on_ddl DISABLE; ALTER TABLE unseen INHERIT par2;
             ALTER EVENT TRIGGER bemi_on_ddl ENABLE ALWAYS",
        )
        .unwrap();
    assert_eq!(
        masks(&mut client, "unseen"),
        (vec![], vec!["iban is masked in a table that it inherits from".to_owned()])
    );
    let statement = fix(&mut client, "rules").unwrap();
    client.batch_execute(&statement).unwrap();
    assert_eq!(masks(&mut client, "unseen"), (vec!["iban".into()], vec![]));
    database.create_slot();
    let lines = {
        database
            .connect()
            .batch_execute(
                "INSERT INTO made VALUES (1, 'hidden', 1, 'hidden', 'hidden'); INSERT INTO grand VALUES (1, 'hidden', 1, 'hidden', 'hidden');
                 INSERT INTO own VALUES (1, 'hidden', 'hidden'); INSERT INTO there VALUES (1, 'hidden', 2); UPDATE par SET password = 'hidden too'",
            )
            .unwrap();
        database.lines()
    };
    assert!(lines.len() >= 7 && lines.iter().all(|line| !line.contains("hidden")), "{lines:?}");
    // A parent in a tracked schema that is no table of ours to track, and one above that is not tracked.
    client.batch_execute("SELECT bemi.untrack('par2')").unwrap();
    let above = "statements that name public.par2 carry no context, because it is not tracked";
    for table in ["made", "grand", "own", "below", "unseen"] {
        let missing = masks(&mut client, table).1;
        assert!(missing.contains(&above.replace("public.", "")) || missing.contains(&above.to_owned()), "{missing:?}");
    }
    let statement = fix(&mut client, "rules").unwrap();
    assert!(statement.contains("bemi.follow_table('public.par2', true);"), "{statement}");
    client.batch_execute(&statement).unwrap();
    assert_eq!(fix(&mut client, "rules"), None);
    // So does a partition whose root is not tracked.
    client
        .batch_execute(
            "CREATE SCHEMA aside; CREATE TABLE aside.root (id int) PARTITION BY LIST (id); CREATE TABLE aside.middle PARTITION OF aside.root FOR VALUES IN (1, 2) PARTITION BY LIST (id);
             CREATE TABLE aside.leaf PARTITION OF aside.middle FOR VALUES IN (1); SELECT bemi.track('aside.leaf')",
        )
        .unwrap();
    let missing = masks(&mut client, "aside.leaf").1;
    assert_eq!(
        missing,
        ["middle", "root"]
            .map(|above| format!("statements that name aside.{above} carry no context, because it is not tracked"))
    );
    let statement = fix(&mut client, "rules").unwrap();
    client.batch_execute(&statement).unwrap();
    assert_eq!((masks(&mut client, "aside.leaf").1, fix(&mut client, "rules")), (vec![], None));
}

fn rules_by_others(server: &Server) {
    let database = server.database("rules_by_others");
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE ROLE rbo_owner LOGIN; CREATE ROLE rbo_mallory LOGIN; GRANT CREATE ON SCHEMA public TO rbo_owner;
             CREATE TABLE t (id int PRIMARY KEY, pw text, v text, \"the 'x\" text); ALTER TABLE t OWNER TO rbo_owner; GRANT TRIGGER ON t TO rbo_mallory",
        )
        .unwrap();
    let notes_roles: bool = client
        .query_one("SELECT count(*) = 1 FROM pg_attribute WHERE attrelid = 'bemi.table_versions'::regclass AND attname = 'noted_by'", &[])
        .unwrap()
        .get(0);
    // What notes them is a thing of its own; without it, they are noted here.
    let (note, forget) = if notes_roles {
        ("", "")
    } else {
        client.batch_execute("CREATE TEMP TABLE noted (relation oid, position pg_lsn, role text)").unwrap();
        (
            "ALTER TABLE bemi.table_versions ADD noted_by name;
             UPDATE bemi.table_versions v SET noted_by = n.role FROM noted n WHERE (n.relation, n.position) = (v.relation, v.position)",
            "ALTER TABLE bemi.table_versions DROP noted_by",
        )
    };
    let mut by = |role: &str, statements: &str| {
        server.connect_with("rules_by_others", role, "").batch_execute(statements).unwrap();
        if !notes_roles {
            client
                .execute("INSERT INTO noted SELECT v.relation, v.position, $1 FROM bemi.table_versions v WHERE (v.relation, v.position) NOT IN (SELECT relation, position FROM noted)", &[&role])
                .unwrap();
        }
        client.batch_execute(note).unwrap();
        let row = client
            .query_one("SELECT ok, detail, fix FROM bemi.doctor() WHERE \"check\" = 'rules by others'", &[])
            .unwrap();
        client.batch_execute(forget).unwrap();
        (row.get::<_, bool>(0), row.get::<_, String>(1), row.get::<_, Option<String>>(2))
    };
    let trigger = |arguments: &str| {
        format!(
            "CREATE OR REPLACE TRIGGER bemi_context BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON t FOR EACH STATEMENT EXECUTE FUNCTION bemi.emit_context({arguments})"
        )
    };
    assert!(by("rbo_owner", "SELECT bemi.track('t', 'full', '{v}', '{pw,\"the ''x\"}')").0);
    assert!(by("rbo_owner", "ALTER TABLE t RENAME v TO w").0);
    let (ok, detail, fix) = by("rbo_mallory", &trigger("'ignore=w', 'ignore=pw'"));
    assert!(!ok && detail.contains("public.t (rbo_mallory)"), "{detail}");
    // What others do to the table later does not hide it.
    let (ok, _, again) =
        by("rbo_owner", "ALTER TABLE t ADD more int; ALTER TABLE t RENAME w TO v; ALTER TABLE t DROP more");
    assert!(!ok);
    assert_ne!(fix, again);
    let (ok, detail, none) = by("postgres", &again.unwrap());
    assert!(ok && none.is_none(), "{detail}");
    // One that nobody had tracked.
    assert!(by("rbo_owner", "SELECT bemi.untrack('t')").0);
    let (ok, _, fix) = by("rbo_mallory", &trigger("'ignore=v'"));
    assert!(!ok);
    assert!(by("postgres", &fix.unwrap()).0);
    let row = client.query_one("SELECT ignore_columns::text || mask_columns::text FROM bemi.tracked", &[]).unwrap();
    assert_eq!(row.get::<_, &str>(0), "{}{}");
    client.batch_execute("DROP OWNED BY rbo_owner, rbo_mallory CASCADE; DROP ROLE rbo_owner, rbo_mallory").unwrap();
}
