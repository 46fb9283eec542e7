//! Publications: what tracking would break, and what it says before.
use crate::Test;
use crate::server::{Server, wait_until};

pub const TESTS: &[Test] = &[
    ("a_conflict_is_named_exactly_where_the_server_refuses", as_the_server),
    ("tracking_never_has_an_update_of_a_published_table_fail", never_fails),
    ("publications_made_later_are_warned_of_with_the_statement_that_helps", made_later),
    ("untracking_keeps_an_identity_without_which_updates_would_fail", untracked),
    ("partitions_have_the_identity_that_their_publication_bears", partitions),
    ("generated_columns_that_are_not_published_are_seen_before_they_stop_updates", generated),
    ("publications_of_the_tables_of_bemi_are_named_with_their_statement", of_bemi),
    ("a_subscriber_is_told_of_before_it_stops_and_goes_on_by_the_recipe", subscriber),
    ("a_subscriber_that_stopped_goes_on_with_the_tables_that_it_is_given", stopped_subscriber),
];

/// Whether UPDATE and DELETE of a table run; nothing is changed.
fn runs(client: &mut postgres::Client, table: &str, column: &str) -> bool {
    ["UPDATE", "DELETE"].iter().all(|kind| {
        let statement = match *kind {
            "UPDATE" => format!("UPDATE {table} SET {column} = {column}"),
            _ => format!("DELETE FROM {table}"),
        };
        let result = client.batch_execute(&format!("BEGIN; {statement}; ROLLBACK"));
        if result.is_err() {
            client.batch_execute("ROLLBACK").unwrap();
        }
        result.is_ok()
    })
}

fn identity(client: &mut postgres::Client, table: &str) -> String {
    client.query_one(&format!("SELECT bemi.identity('{table}')"), &[]).unwrap().get(0)
}

fn problem(client: &mut postgres::Client, table: &str, identity: &str) -> Option<String> {
    client.query_one(&format!("SELECT bemi.identity_problem('{table}', '{identity}')"), &[]).unwrap().get(0)
}

/// Row of the doctor: whether it is well, and the statement.
fn doctor(client: &mut postgres::Client, check: &str) -> (bool, String) {
    let row = client
        .query_one("SELECT ok, COALESCE(fix, ''), detail FROM bemi.doctor() WHERE \"check\" = $1", &[&check])
        .unwrap();
    (row.get(0), row.get(1))
}

/// Each kind of publication with each replica identity of each table.
fn as_the_server(server: &Server) {
    let database = server.database("as_the_server");
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE SCHEMA aside;
             CREATE TABLE t (gone int, a text, id int PRIMARY KEY, u int NOT NULL, v int NOT NULL, w text); ALTER TABLE t DROP gone; CREATE UNIQUE INDEX t_u ON t (u, v);
             CREATE TABLE none (id int, a text, u int NOT NULL); CREATE UNIQUE INDEX none_u ON none (u);
             CREATE TABLE late (id int, a text, u int NOT NULL, PRIMARY KEY (id) DEFERRABLE); CREATE UNIQUE INDEX late_u ON late (u);
             CREATE TABLE root (id int, k int, a text, u int NOT NULL, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
             CREATE TABLE middle (u int NOT NULL, a text, k int NOT NULL, id int NOT NULL) PARTITION BY LIST (k);
             CREATE TABLE aside.leaf (a text, x int, u int NOT NULL, id int NOT NULL, k int NOT NULL); ALTER TABLE aside.leaf DROP x;
             ALTER TABLE middle ATTACH PARTITION aside.leaf FOR VALUES IN (1); ALTER TABLE root ATTACH PARTITION middle FOR VALUES IN (1, 2);
             CREATE UNIQUE INDEX leaf_u ON aside.leaf (u, k); CREATE UNLOGGED TABLE unlogged (id int, a text)",
        )
        .unwrap();
    let mut publications = vec![
        "FOR TABLE t, none, late, root",
        "FOR TABLE aside.leaf",
        "FOR TABLE middle WITH (publish = 'insert, truncate')",
        "FOR TABLE none, root WITH (publish = 'insert, delete', publish_via_partition_root)",
        "FOR ALL TABLES",
        "FOR ALL TABLES WITH (publish_via_partition_root, publish = 'update')",
    ];
    if server.major >= 15 {
        publications.extend([
            "FOR TABLES IN SCHEMA public",
            "FOR TABLES IN SCHEMA aside WITH (publish = 'update')",
            "FOR TABLE t (id)",
            "FOR TABLE t (id, u, v)",
            "FOR TABLE t (id, a, u, v, w)",
            "FOR TABLE t (u, a, v), none (u)",
            "FOR TABLE t (a, id) WHERE (id > 3)",
            "FOR TABLE t WHERE (id > 3 AND a = ' :varattno 6 ')",
            "FOR TABLE t WHERE (id > 3 AND u IS NOT NULL AND v IN (1, 2))",
            "FOR TABLE t WHERE (false)",
            "FOR TABLE t WHERE (u > v) WITH (publish = 'insert')",
            "FOR TABLE t WHERE (u > v) WITH (publish = 'delete')",
            "FOR TABLE t (a) WITH (publish = 'insert')",
            "FOR TABLE root (id, k) WITH (publish_via_partition_root)",
            "FOR TABLE root (id, k, u), middle (u, id, k), aside.leaf (id, k) WITH (publish_via_partition_root)",
            "FOR TABLE middle (u, id, k) WITH (publish_via_partition_root)",
            "FOR TABLE root WHERE (k > 1), aside.leaf WHERE (u > 1) WITH (publish_via_partition_root)",
            "FOR TABLE root, aside.leaf WHERE (u > 1 AND k > 1)",
            "FOR TABLE aside.leaf (u, k)",
            "FOR TABLE middle WHERE (u > 1 AND k = 1), TABLES IN SCHEMA aside WITH (publish_via_partition_root)",
        ]);
    }
    let virtual_column = if server.major >= 18 {
        "CREATE TABLE virtual (id int PRIMARY KEY, a int, g int GENERATED ALWAYS AS (a) VIRTUAL);"
    } else {
        "CREATE TABLE virtual (id int PRIMARY KEY, a int);"
    };
    client
        .batch_execute(&format!("{virtual_column} CREATE TABLE stored (id int PRIMARY KEY, a int NOT NULL, g int NOT NULL GENERATED ALWAYS AS (a) STORED); CREATE UNIQUE INDEX stored_u ON stored (g)"))
        .unwrap();
    publications.push("FOR TABLE stored, virtual");
    if server.major >= 15 {
        publications.push("FOR TABLE stored WHERE (g > 1)");
    }
    if server.major >= 18 {
        publications.extend([
            "FOR TABLE stored, virtual WITH (publish_generated_columns = stored)",
            "FOR TABLE stored (id, g)",
            "FOR TABLE stored (id, a), virtual (id) WITH (publish_generated_columns = stored)",
            "FOR ALL TABLES WITH (publish_generated_columns = stored)",
        ]);
    }
    let tables = [
        ("stored", "a", &["DEFAULT", "FULL", "NOTHING", "USING INDEX stored_u"][..]),
        ("virtual", "a", &["DEFAULT", "FULL"]),
        ("t", "w", &["DEFAULT", "FULL", "NOTHING", "USING INDEX t_u", "USING INDEX t_pkey"]),
        ("none", "a", &["DEFAULT", "FULL", "USING INDEX none_u"]),
        ("late", "a", &["DEFAULT", "FULL", "USING INDEX late_u"]),
        ("aside.leaf", "a", &["DEFAULT", "FULL", "NOTHING", "USING INDEX aside.leaf_u"]),
        ("unlogged", "a", &["DEFAULT", "FULL"]),
    ];
    let mut refused = 0;
    for publication in &publications {
        client
            .batch_execute(&format!("CREATE PUBLICATION p {publication}"))
            .unwrap_or_else(|e| panic!("{publication}: {e:?}"));
        for (table, column, identities) in tables {
            for wanted in identities {
                let wanted_name = wanted.replace("aside.", "");
                client.batch_execute(&format!("ALTER TABLE {table} REPLICA IDENTITY {wanted_name}")).unwrap();
                let now = identity(&mut client, table);
                let said = problem(&mut client, table, &now);
                let does_run = runs(&mut client, table, column);
                assert_eq!(said.is_none(), does_run, "{publication}: {table} {wanted}: {said:?}");
                refused += usize::from(!does_run);
                // What it would be is the same from whatever there is.
                client.batch_execute(&format!("ALTER TABLE {table} REPLICA IDENTITY FULL")).unwrap();
                assert_eq!(problem(&mut client, table, &now), said, "{publication}: {table} {wanted}");
            }
        }
        client.batch_execute("DROP PUBLICATION p").unwrap();
    }
    assert!(refused >= if server.major >= 15 { 60 } else { 15 }, "{refused}");
}

fn never_fails(server: &Server) {
    let database = server.database("published_never_fails");
    let (mut client, notices) = server.connect_listening(&database.name, "postgres");
    client
        .batch_execute(
            "CREATE TABLE cl (id int PRIMARY KEY, a int, secret text); INSERT INTO cl VALUES (1, 1, 'x');
             CREATE TABLE bare (id int, a int); CREATE PUBLICATION every FOR ALL TABLES WITH (publish = 'insert, truncate')",
        )
        .unwrap();
    if server.major >= 15 {
        client.batch_execute("CREATE PUBLICATION \"the 'list\" FOR TABLE cl (id, a)").unwrap();
    } else {
        client.batch_execute("CREATE PUBLICATION plain FOR TABLE cl").unwrap();
    }
    notices.take();
    for step in [
        "SELECT 1",
        "SELECT bemi.track('cl')",
        "SELECT bemi.track('cl', 'default')",
        "SELECT bemi.track('cl')",
        "SELECT bemi.track('cl', 'keep')",
        "SELECT bemi.track_again('cl', 'full')",
        "SELECT bemi.untrack('cl')",
        "SELECT bemi.track_all()",
        "SELECT bemi.follow_table('cl', true)",
        "ALTER TABLE cl ADD more int",
        "SELECT bemi.untrack_all()",
        "SELECT bemi.track_all()",
    ] {
        client.batch_execute(step).unwrap();
        assert!(runs(&mut client, "cl", "a") && runs(&mut client, "bare", "a"), "{step}");
        let said = notices.take().concat();
        let is_told = said.contains("the publication \"the 'list\": its column list (id, a)")
            && said.contains("SELECT bemi.track_again('public.cl');");
        let would_be_full =
            ["SELECT bemi.track('cl')", "SELECT bemi.track_again('cl', 'full')", "SELECT bemi.track_all()"];
        assert_eq!(is_told, server.major >= 15 && would_be_full.contains(&step), "{step}: {said}");
    }
    assert_eq!(identity(&mut client, "cl"), if server.major >= 15 { "default" } else { "full" });
    assert_eq!(identity(&mut client, "bare"), "full");
    // The key alone is not enough for a table without one that is published.
    client.batch_execute("CREATE PUBLICATION bare FOR TABLE bare; ALTER TABLE bare REPLICA IDENTITY FULL").unwrap();
    for step in
        ["SELECT bemi.track('bare', 'default')", "SELECT bemi.track('bare', 'keep')", "SELECT bemi.untrack('bare')"]
    {
        client.batch_execute(step).unwrap();
        assert!(runs(&mut client, "bare", "a"), "{step}");
    }
}

fn made_later(server: &Server) {
    if server.major < 15 {
        return older_made_later(server);
    }
    let database = server.database("publications_made_later");
    let (mut client, notices) = server.connect_listening(&database.name, "postgres");
    client
        .batch_execute(
            "CREATE TABLE \"a 't\" (id int PRIMARY KEY, a int, b int); INSERT INTO \"a 't\" VALUES (1, 1, 1);
             CREATE TABLE fulls (id int PRIMARY KEY, a int); ALTER TABLE fulls REPLICA IDENTITY FULL; CREATE SCHEMA aside;
             CREATE TABLE idx (id int PRIMARY KEY, a int, u int NOT NULL UNIQUE); ALTER TABLE idx REPLICA IDENTITY USING INDEX idx_u_key;
             SELECT bemi.track_all()",
        )
        .unwrap();
    for (make, undo, tables) in [
        ("CREATE PUBLICATION p FOR TABLE \"a 't\" (id, a)", "DROP PUBLICATION p", &["\"a 't\""][..]),
        (
            "CREATE PUBLICATION p; ALTER PUBLICATION p ADD TABLE idx (id, a, u), \"a 't\"",
            "DROP PUBLICATION p",
            &["idx"],
        ),
        (
            "CREATE PUBLICATION p FOR TABLE idx; ALTER PUBLICATION p SET TABLE idx (a, u)",
            "DROP PUBLICATION p",
            &["idx"],
        ),
        (
            "CREATE PUBLICATION p FOR TABLE idx (u), fulls (id) WITH (publish = 'insert'); ALTER PUBLICATION p SET (publish = 'insert, delete')",
            "DROP PUBLICATION p",
            &["fulls", "idx"],
        ),
    ] {
        client.batch_execute("SELECT bemi.track_again(relation, 'full') FROM bemi.tracked").unwrap();
        notices.take();
        let (last, first) = make.split_once("; ").map_or((make, ""), |(first, last)| (last, first));
        client.batch_execute(first).unwrap();
        assert_eq!(notices.take(), [""; 0], "{first}");
        client.batch_execute(last).unwrap();
        let said = notices.take();
        assert_eq!(said.len(), tables.len(), "{said:?}");
        for (table, said) in tables.iter().zip(said) {
            assert!(
                said.contains(&format!("of public.{table} will fail now: the publication p: its column list")),
                "{said}"
            );
            let statement = said.split(" HINT: ").nth(1).unwrap();
            assert!(!runs(&mut client, table, "a"), "{make}");
            let missing: Vec<String> = client
                .query_one(
                    &format!(
                        "SELECT missing FROM bemi.tracked WHERE relation = '{}'::regclass",
                        table.replace('\'', "''")
                    ),
                    &[],
                )
                .unwrap()
                .get(0);
            assert!(
                missing.iter().any(|m| m.starts_with("the publication p makes UPDATE and DELETE fail: ")),
                "{missing:?}"
            );
            assert!(!doctor(&mut client, "publications").0);
            client.batch_execute(statement).unwrap();
            assert!(runs(&mut client, table, "a"), "{make}: {statement}");
        }
        assert_eq!(doctor(&mut client, "publications"), (true, String::new()));
        client.batch_execute(undo).unwrap();
    }
    // The doctor's own statement.
    client.batch_execute("SELECT bemi.track_again(relation, 'full') FROM bemi.tracked; CREATE PUBLICATION p FOR TABLE \"a 't\" (id), idx (u), fulls (id)").unwrap();
    let (ok, statement) = doctor(&mut client, "publications");
    assert!(!ok);
    client.batch_execute(&statement).unwrap();
    assert_eq!(doctor(&mut client, "publications"), (true, String::new()), "{statement}");
    for table in ["\"a 't\"", "idx", "fulls"] {
        assert!(runs(&mut client, table, "a"), "{table}");
    }
    assert_eq!(identity(&mut client, "idx"), "index:idx_u_key");
    // The log has no longer the whole row: no statement undoes what a publication hides.
    let (ok, statement) = doctor(&mut client, "images before");
    assert!(!ok && statement.contains("bemi.identity_conflict"), "{statement}");
    client.batch_execute(&statement).unwrap();
    assert!(runs(&mut client, "idx", "a"));
}

fn older_made_later(server: &Server) {
    let database = server.database("publications_made_later");
    let (mut client, notices) = server.connect_listening(&database.name, "postgres");
    client
        .batch_execute("CREATE TABLE t (id int, a int); SELECT bemi.track('t'); CREATE PUBLICATION p FOR TABLE t; ALTER PUBLICATION p SET (publish = 'update')")
        .unwrap();
    assert_eq!(notices.take(), [""; 0]);
    assert!(runs(&mut client, "t", "a"));
    client.batch_execute("SELECT bemi.track('t', 'default')").unwrap();
    assert!(runs(&mut client, "t", "a"));
    assert!(notices.take().concat().contains("the publication p: the table has no replica identity"));
}

fn untracked(server: &Server) {
    let database = server.database("untracked_published");
    let (mut client, notices) = server.connect_listening(&database.name, "postgres");
    let (make, reason) = if server.major >= 15 {
        (
            "CREATE PUBLICATION p FOR TABLE t WHERE (a > 1)",
            "its row filter uses columns that the replica identity lacks (a)",
        )
    } else {
        ("ALTER TABLE t DROP CONSTRAINT t_pkey; CREATE PUBLICATION p FOR TABLE t", "the table has no replica identity")
    };
    client
        .batch_execute(&format!(
            "CREATE TABLE t (id int PRIMARY KEY, a int); CREATE TABLE u (id int PRIMARY KEY, a int); SELECT bemi.track_all(); {make}"
        ))
        .unwrap();
    for call in ["SELECT bemi.untrack('t')", "SELECT bemi.track('t')", "SELECT bemi.untrack_all()"] {
        notices.take();
        client.batch_execute(call).unwrap();
        assert!(runs(&mut client, "t", "a"), "{call}");
        assert_eq!(identity(&mut client, "t"), "full");
        let said = notices.take().concat();
        assert_eq!(
            said.contains(&format!(
                "stays full: with the former one (default), UPDATE and DELETE would fail: the publication p: {reason}"
            )),
            call == "SELECT bemi.untrack('t')",
            "{said}"
        );
    }
    assert_eq!(identity(&mut client, "u"), "default");
}

fn partitions(server: &Server) {
    if server.major < 15 {
        return;
    }
    let database = server.database("published_partitions");
    let (mut client, notices) = server.connect_listening(&database.name, "postgres");
    client
        .batch_execute(
            "CREATE TABLE root (id int PRIMARY KEY, a int) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF root FOR VALUES FROM (0) TO (10);
             CREATE TABLE p2 PARTITION OF root FOR VALUES FROM (10) TO (20); CREATE PUBLICATION p FOR TABLE p1 (id)",
        )
        .unwrap();
    client.batch_execute("SELECT bemi.track('root')").unwrap();
    assert_eq!((identity(&mut client, "p1"), identity(&mut client, "p2")), ("default".into(), "full".into()));
    assert!(runs(&mut client, "root", "a"));
    // Through the root, with its list: those made and attached later, too.
    client.batch_execute("DROP PUBLICATION p; SELECT bemi.track_again('p1', 'full'); CREATE PUBLICATION p FOR TABLE root (id) WITH (publish_via_partition_root)").unwrap();
    let said = notices.take().concat();
    assert!(said.contains("of public.p1 will fail now") && said.contains("of public.p2 will fail now"), "{said}");
    client.batch_execute("SELECT bemi.track('root')").unwrap();
    assert!(runs(&mut client, "root", "a"));
    client.batch_execute("CREATE TABLE p3 PARTITION OF root FOR VALUES FROM (20) TO (30)").unwrap();
    assert!(runs(&mut client, "root", "a"));
    assert!(notices.take().concat().contains("the replica identity of public.p3 is default, not full"));
    client.batch_execute("CREATE TABLE p4 (id int PRIMARY KEY, a int); SELECT bemi.track('p4')").unwrap();
    notices.take();
    client.batch_execute("ALTER TABLE root ATTACH PARTITION p4 FOR VALUES FROM (30) TO (40)").unwrap();
    let said = notices.take();
    assert!(!runs(&mut client, "root", "a") || identity(&mut client, "p4") == "default");
    if !runs(&mut client, "root", "a") {
        assert!(said.concat().contains("UPDATE and DELETE of public.p4 will fail now"), "{said:?}");
        let (_, statement) = doctor(&mut client, "publications");
        client.batch_execute(&statement).unwrap();
    }
    assert!(runs(&mut client, "root", "a"));
    // A table moved into a schema whose tables are published has the list of none.
    client.batch_execute("CREATE SCHEMA s; CREATE PUBLICATION q FOR TABLES IN SCHEMA s; CREATE TABLE m (id int, a int); SELECT bemi.track('m'); ALTER TABLE m SET SCHEMA s").unwrap();
    assert!(runs(&mut client, "s.m", "a"));
}

/// PostgreSQL 18 publishes stored ones if asked, and virtual ones never.
fn generated(server: &Server) {
    let database = server.database("published_generated");
    let (mut client, notices) = server.connect_listening(&database.name, "postgres");
    let kinds: &[&str] = if server.major >= 18 { &["STORED", "VIRTUAL"] } else { &["STORED"] };
    client.batch_execute("CREATE PUBLICATION p FOR ALL TABLES; SELECT bemi.track_all()").unwrap();
    for kind in kinds {
        client
            .batch_execute(&format!("CREATE TABLE made (id int PRIMARY KEY, a int, g int GENERATED ALWAYS AS (a * 2) {kind}); CREATE TABLE t (id int PRIMARY KEY, a int)"))
            .unwrap();
        assert!(runs(&mut client, "made", "a"), "{kind}");
        let said = notices.take().concat();
        assert_eq!(
            said.contains("it does not publish generated columns of the replica identity (g)"),
            server.major >= 18,
            "{said}"
        );
        client.batch_execute(&format!("ALTER TABLE t ADD g int GENERATED ALWAYS AS (a * 2) {kind}")).unwrap();
        let said = notices.take().concat();
        if server.major >= 18 {
            assert!(said.contains("UPDATE and DELETE of public.t will fail now: the publication p:"), "{said}");
            assert!(!runs(&mut client, "t", "a"));
            let (ok, statement) = doctor(&mut client, "publications");
            assert!(!ok);
            client.batch_execute(&statement).unwrap();
        }
        assert!(runs(&mut client, "t", "a"), "{kind}");
        if *kind == "STORED" && server.major >= 18 {
            // Published, they are in the log's whole row.
            client
                .batch_execute("ALTER PUBLICATION p SET (publish_generated_columns = stored); SELECT bemi.track('t')")
                .unwrap();
            assert_eq!(identity(&mut client, "t"), "full");
            assert!(runs(&mut client, "t", "a"));
            notices.take();
            client.batch_execute("ALTER PUBLICATION p SET (publish_generated_columns = none)").unwrap();
            assert!(notices.take().concat().contains("of public.t will fail now"));
            client.batch_execute("SELECT bemi.track_again('t')").unwrap();
            assert!(runs(&mut client, "t", "a"));
        }
        client.batch_execute("DROP TABLE t, made").unwrap();
    }
}

fn of_bemi(server: &Server) {
    let mut admin = server.connect("postgres");
    admin.batch_execute("CREATE DATABASE publications_of_bemi").unwrap();
    let (mut client, notices) = server.connect_listening("publications_of_bemi", "postgres");
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY); CREATE SCHEMA \"the 'other\"; CREATE TABLE \"the 'other\".t (id int PRIMARY KEY); CREATE PUBLICATION \"all 'of it\" FOR ALL TABLES WITH (publish = 'insert, delete')").unwrap();
    notices.take();
    let warning = "a subscriber without the tables of bemi will stop: the publication \"all 'of it\" is FOR ALL TABLES HINT: CREATE PUBLICATION \"all 'of it_without_bemi\"";
    for step in ["CREATE EXTENSION bemi", "SELECT bemi.track_all()", "SELECT bemi.warn_of_publications()"] {
        client.batch_execute(step).unwrap();
        let said = notices.take().concat();
        assert!(said.contains(warning) && said.contains("ALTER SUBSCRIPTION"), "{step}: {said}");
    }
    // Each statement of the doctor is a step.
    let (ok, statement) = doctor(&mut client, "subscribers");
    assert!(!ok && statement.starts_with("CREATE PUBLICATION \"all 'of it_without_bemi\""), "{statement}");
    client.batch_execute(&statement).unwrap();
    let rows = client
        .query(
            "SELECT schemaname || '.' || tablename FROM pg_publication_tables WHERE pubname ~ 'without' ORDER BY 1",
            &[],
        )
        .unwrap();
    assert_eq!(rows.iter().map(|row| row.get(0)).collect::<Vec<String>>(), ["public.t", "the 'other.t"]);
    let actions: String = client
        .query_one("SELECT string_agg(concat(pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot), ' ') FROM pg_publication", &[])
        .unwrap()
        .get(0);
    assert_eq!(actions, "tftff tftff");
    let (ok, statement) = doctor(&mut client, "subscribers");
    assert_eq!((ok, &*statement), (false, "DROP PUBLICATION \"all 'of it\";"));
    client.batch_execute(&statement).unwrap();
    assert_eq!(doctor(&mut client, "subscribers"), (true, String::new()));
    notices.take();
    // Made later.
    client.batch_execute("CREATE PUBLICATION later FOR ALL TABLES").unwrap();
    assert!(notices.take().concat().contains("the publication later is FOR ALL TABLES"));
    client.batch_execute("DROP PUBLICATION later").unwrap();
    if server.major >= 15 {
        client.batch_execute("CREATE PUBLICATION s FOR TABLES IN SCHEMA public, bemi").unwrap();
        assert!(notices.take().concat().contains(
            "the publication s is FOR TABLES IN SCHEMA bemi HINT: ALTER PUBLICATION s DROP TABLES IN SCHEMA bemi;"
        ));
        let (_, statement) = doctor(&mut client, "subscribers");
        client.batch_execute(&statement).unwrap();
        assert_eq!(doctor(&mut client, "subscribers"), (true, String::new()));
    }
    drop(client);
    admin.batch_execute("DROP DATABASE publications_of_bemi WITH (FORCE)").unwrap();
}

/// A publisher with a table `acc`, and a subscriber that has it, too, and no bemi. Both on servers of their own.
fn pair() -> (Server, Server) {
    let (publisher, subscriber) = (Server::start(""), Server::start(""));
    publisher
        .connect("postgres")
        .batch_execute("CREATE TABLE acc (id int PRIMARY KEY, n int); INSERT INTO acc VALUES (1, 1)")
        .unwrap();
    subscriber.connect("postgres").batch_execute("CREATE TABLE acc (id int PRIMARY KEY, n int)").unwrap();
    publisher.connect("postgres").batch_execute("CREATE PUBLICATION pall FOR ALL TABLES").unwrap();
    let host = publisher.host().display().to_string();
    let statement =
        format!("CREATE SUBSCRIPTION s CONNECTION 'host={host} user=postgres dbname=postgres' PUBLICATION pall");
    subscriber.connect("postgres").batch_execute(&statement).unwrap();
    (publisher, subscriber)
}

fn arrives(publisher: &Server, subscriber: &Server, id: i32) {
    publisher.connect("postgres").batch_execute(&format!("INSERT INTO acc VALUES ({id}, {id})")).unwrap();
    let mut there = subscriber.connect("postgres");
    wait_until(&format!("row {id}"), || {
        there.query_one("SELECT count(*) FROM acc WHERE id = $1", &[&id]).unwrap().get::<_, i64>(0) == 1
    });
}

fn subscriber(_: &Server) {
    let (publisher, subscriber) = pair();
    arrives(&publisher, &subscriber, 2);
    let (mut client, notices) = publisher.connect_listening("postgres", "postgres");
    client.batch_execute("CREATE EXTENSION bemi").unwrap();
    // Before anything of bemi is published, the user knows the statements.
    let said = notices.take().concat();
    let statement = said.split(" HINT: ").nth(1).unwrap().split(" Then, ").next().unwrap().to_owned();
    client.batch_execute(&statement).unwrap();
    // What was written before has to have been read: the new publication is not known there.
    let has_read =
        "SELECT bool_and(confirmed_flush_lsn >= $1::text::pg_lsn) FROM pg_replication_slots WHERE slot_name = 's'";
    let position: String = client.query_one("SELECT pg_current_wal_lsn()::text", &[]).unwrap().get(0);
    arrives(&publisher, &subscriber, 3);
    wait_until("the subscriber", || client.query_one(has_read, &[&position]).unwrap().get(0));
    subscriber.connect("postgres").batch_execute("ALTER SUBSCRIPTION s SET PUBLICATION pall_without_bemi").unwrap();
    client.batch_execute("DROP PUBLICATION pall").unwrap();
    notices.take();
    client.batch_execute("SELECT bemi.track_all()").unwrap();
    assert!(!notices.take().concat().contains("a subscriber without"));
    arrives(&publisher, &subscriber, 4);
    client.batch_execute("COMMIT").unwrap();
    client.batch_execute("SELECT bemi.start()").unwrap();
    arrives(&publisher, &subscriber, 5);
    client.batch_execute("SELECT bemi.sync()").unwrap();
    client.batch_execute("SELECT bemi.add_partition(now() + interval '3 months')").unwrap();
    client.batch_execute("UPDATE acc SET n = 7").unwrap();
    client.batch_execute("SELECT bemi.sync()").unwrap();
    arrives(&publisher, &subscriber, 6);
    let row = client.query_one("SELECT ok FROM bemi.doctor() WHERE \"check\" = 'subscribers'", &[]).unwrap();
    assert!(row.get::<_, bool>(0));
    client.batch_execute("SELECT bemi.stop(drop_slot => true)").unwrap();
    subscriber.connect("postgres").batch_execute("ALTER SUBSCRIPTION s DISABLE").unwrap();
    subscriber.stop();
    publisher.stop();
}

/// Nobody heeded the warning.
fn stopped_subscriber(_: &Server) {
    let (publisher, subscriber) = pair();
    arrives(&publisher, &subscriber, 2);
    let (mut client, notices) = publisher.connect_listening("postgres", "postgres");
    client.batch_execute("CREATE EXTENSION bemi; SELECT bemi.track_all(); INSERT INTO acc VALUES (3, 3)").unwrap();
    assert!(notices.take().concat().contains("SELECT bemi.tables_for_subscribers();"));
    let tables: String = client.query_one("SELECT bemi.tables_for_subscribers()", &[]).unwrap().get(0);
    subscriber.connect("postgres").batch_execute(&tables).unwrap();
    arrives(&publisher, &subscriber, 4);
    let count = "SELECT count(*) FROM bemi.tracked_schemas";
    assert_eq!(subscriber.connect("postgres").query_one(count, &[]).unwrap().get::<_, i64>(0), 0);
    // And then the recipe, before the next month.
    let statement: String =
        client.query_one("SELECT fix FROM bemi.doctor() WHERE \"check\" = 'subscribers'", &[]).unwrap().get(0);
    client.batch_execute(&statement).unwrap();
    let has_read =
        "SELECT bool_and(confirmed_flush_lsn >= $1::text::pg_lsn) FROM pg_replication_slots WHERE slot_name = 's'";
    let position: String = client.query_one("SELECT pg_current_wal_lsn()::text", &[]).unwrap().get(0);
    arrives(&publisher, &subscriber, 5);
    wait_until("the subscriber", || client.query_one(has_read, &[&position]).unwrap().get(0));
    subscriber.connect("postgres").batch_execute("ALTER SUBSCRIPTION s SET PUBLICATION pall_without_bemi").unwrap();
    client.batch_execute("SELECT bemi.start()").unwrap();
    arrives(&publisher, &subscriber, 6);
    client.batch_execute("SELECT bemi.stop(drop_slot => true)").unwrap();
    subscriber.connect("postgres").batch_execute("ALTER SUBSCRIPTION s DISABLE").unwrap();
    subscriber.stop();
    publisher.stop();
}
