//! The past of tables whose partitions come and go, of tables that were made with rows, and of heirs.
use postgres::Client;

use crate::Test;
use crate::as_of::seed;
use crate::random::Random;
use crate::recorder::recording;
use crate::server::{Server, run, sqlstate};

pub const TESTS: &[Test] = &[
    ("rows_of_partitions_that_were_dropped_come_from_their_changes", dropped),
    ("rows_of_partitions_that_were_detached_are_there_as_long_as_they_were", detached),
    ("partitions_whose_rows_were_not_all_recorded_are_named_for_the_times_when_they_were_there", unknown),
    ("a_partition_that_is_there_has_its_past_whatever_became_of_the_others", siblings),
    ("the_past_of_rolling_partitions_is_as_it_was_seen", rolling),
    ("rows_that_create_table_as_made_are_said_to_be_missing", made_with_rows),
    ("heirs_that_are_not_tracked_are_said_to_be_missing", heirs),
];

fn now(client: &mut Client) -> String {
    let now =
        "SELECT pg_sleep(0.002)::text, (clock_timestamp() AT TIME ZONE 'UTC')::text || '+00', pg_sleep(0.002)::text";
    client.query_one(now, &[]).unwrap().get(1)
}

/// The rows of a table at a time in one text, in both forms.
fn all(client: &mut Client, table: &str, at: &str) -> Result<String, postgres::Error> {
    let mut found = Vec::new();
    for call in [
        format!("SELECT * FROM bemi.as_of(NULL::{table}, '{at}')"),
        format!("SELECT (bemi.as_of(NULL::{table}, '{at}')).*"),
    ] {
        let query = format!("SELECT COALESCE(string_agg(x::text, ' ' ORDER BY x::text), '') FROM ({call}) x");
        found.push(client.query_one(&query, &[])?.get::<_, String>(0));
    }
    assert_eq!(found[0], found[1]);
    Ok(found.remove(0))
}

const ROLLING: &str = "CREATE TABLE p (id int, d int, v text, PRIMARY KEY (id, d)) PARTITION BY RANGE (d); \
    CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (10) TO (20); CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (20) TO (30); SELECT bemi.track('p')";

fn dropped(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "past_dropped");
    run(
        &mut client,
        &format!("{ROLLING}; INSERT INTO p VALUES (1, 10, 'a'), (2, 11, 'b'), (3, 20, 'c'), (9, 12, 'z')"),
    );
    let first = now(&mut client);
    run(
        &mut client,
        "UPDATE p SET v = 'bb' WHERE id = 2; UPDATE p SET id = 7 WHERE id = 1; DELETE FROM p WHERE id = 9; UPDATE p SET d = 21 WHERE id = 2",
    );
    let second = now(&mut client);
    // What the transaction itself changed before it dropped the partition is gone with it.
    run(
        &mut client,
        "BEGIN; UPDATE p SET v = 'late' WHERE id = 7; INSERT INTO p VALUES (8, 19, 'late'); DROP TABLE p1; COMMIT",
    );
    let third = now(&mut client);
    run(
        &mut client,
        "ALTER TABLE p RENAME v TO w; ALTER TABLE p ADD extra varchar(5) DEFAULT 'new'; CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (10) TO (20); \
         INSERT INTO p VALUES (7, 10, 'other'), (3, 20, 'c') ON CONFLICT DO NOTHING",
    );
    let fourth = now(&mut client);
    assert_eq!(all(&mut client, "p", &first).unwrap(), "(1,10,a,) (2,11,b,) (3,20,c,) (9,12,z,)");
    assert_eq!(all(&mut client, "p", &second).unwrap(), "(2,21,bb,) (3,20,c,) (7,10,a,)");
    assert_eq!(all(&mut client, "p", &third).unwrap(), "(2,21,bb,) (3,20,c,)");
    assert_eq!(all(&mut client, "p", &fourth).unwrap(), "(2,21,bb,new) (3,20,c,new) (7,10,other,new)");
    // By a key that two partitions had.
    let by_key = |client: &mut Client, at: &str| -> String {
        let query =
            format!("SELECT string_agg(x::text, ' ') FROM bemi.as_of(NULL::p, '{at}') x WHERE id = 7 AND d = 10");
        client.query_one(&query, &[]).unwrap().get(0)
    };
    assert_eq!(by_key(&mut client, &second), "(7,10,a,)");
    assert_eq!(by_key(&mut client, &fourth), "(7,10,other,new)");
    // With no partition left at all, and a TRUNCATE between.
    run(&mut client, "TRUNCATE p1; INSERT INTO p VALUES (6, 10, 'again', NULL)");
    let fifth = now(&mut client);
    run(&mut client, "DROP TABLE p1, p2");
    let (mut listening, notices) = server.connect_listening("past_dropped", "postgres");
    assert_eq!(all(&mut listening, "p", &first).unwrap(), "(1,10,a,) (2,11,b,) (3,20,c,) (9,12,z,)");
    let said = notices.take();
    assert!(!said.iter().any(|notice| notice.contains("extra")), "{said:?}");
    // What ADD COLUMN gave to rows is in no change of theirs: that is said.
    assert_eq!(all(&mut listening, "p", &fourth).unwrap(), "(2,21,bb,) (3,20,c,) (7,10,other,new)");
    assert_eq!(all(&mut listening, "p", &fifth).unwrap(), "(2,21,bb,) (3,20,c,) (6,10,again,)");
    let said = notices.take();
    assert!(
        said.iter()
            .filter(|notice| notice.contains("columns of public.p that were added are null")
                && notice.contains("extra (since"))
            .count()
            == 4,
        "{said:?}"
    );
    let last = now(&mut client);
    assert_eq!(all(&mut client, "p", &last).unwrap(), "");
}

fn detached(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "past_detached");
    run(&mut client, &format!("{ROLLING}; INSERT INTO p VALUES (1, 10, 'a'), (2, 20, 'b')"));
    let first = now(&mut client);
    run(
        &mut client,
        "ALTER TABLE p DETACH PARTITION p1; ALTER TABLE p1 RENAME v TO elsewhere; UPDATE p1 SET elsewhere = 'changed'; INSERT INTO p1 VALUES (5, 5, 'own')",
    );
    let second = now(&mut client);
    assert_eq!(all(&mut client, "p", &first).unwrap(), "(1,10,a) (2,20,b)");
    assert_eq!(all(&mut client, "p", &second).unwrap(), "(2,20,b)");
    // The table itself keeps its rows.
    assert_eq!(all(&mut client, "p1", &first).unwrap(), "(1,10,a)");
    assert_eq!(all(&mut client, "p1", &second).unwrap(), "(1,10,changed) (5,5,own)");
    // A tree of its own is gone as a whole.
    run(
        &mut client,
        "CREATE TABLE p3 PARTITION OF p FOR VALUES FROM (30) TO (40) PARTITION BY RANGE (id); CREATE TABLE p3a PARTITION OF p3 FOR VALUES FROM (0) TO (100); \
         INSERT INTO p VALUES (3, 30, 'c')",
    );
    let third = now(&mut client);
    run(&mut client, "ALTER TABLE p DETACH PARTITION p3; UPDATE p3 SET v = 'changed'; DROP TABLE p1, p3");
    assert_eq!(all(&mut client, "p", &first).unwrap(), "(1,10,a) (2,20,b)");
    assert_eq!(all(&mut client, "p", &second).unwrap(), "(2,20,b)");
    assert_eq!(all(&mut client, "p", &third).unwrap(), "(2,20,b) (3,30,c)");
}

fn unknown(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "past_unknown_partitions");
    run(
        &mut client,
        "CREATE TABLE p (id int, d int, v text, PRIMARY KEY (id, d)) PARTITION BY RANGE (d); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (10) TO (20); \
         CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (20) TO (30); INSERT INTO p VALUES (1, 10, 'before'); SELECT bemi.track('p'); INSERT INTO p VALUES (2, 20, 'b')",
    );
    let first = now(&mut client);
    run(&mut client, "DROP TABLE p1");
    let second = now(&mut client);
    let error = all(&mut client, "p", &first).unwrap_err();
    assert_eq!(error.code().unwrap().code(), "55000");
    let said = error.as_db_error().unwrap().message().to_owned();
    assert!(said.contains("public.p1") && said.contains("is gone"), "{said}");
    assert_eq!(all(&mut client, "p", &second).unwrap(), "(2,20,b)");
    // One that was not tracked for a while, or had no whole images.
    for statement in ["SELECT bemi.untrack('p3')", "ALTER TABLE p3 REPLICA IDENTITY DEFAULT"] {
        run(
            &mut client,
            "CREATE TABLE p3 PARTITION OF p FOR VALUES FROM (30) TO (40); INSERT INTO p VALUES (3, 30, 'c')",
        );
        let third = now(&mut client);
        run(&mut client, &format!("{statement}; INSERT INTO p3 VALUES (4, 30, 'unseen')"));
        let fourth = now(&mut client);
        run(&mut client, "DROP TABLE p3");
        let fifth = now(&mut client);
        for at in [&third, &fourth] {
            assert_eq!(sqlstate(all(&mut client, "p", at)), "55000", "{statement}");
        }
        for at in [&second, &fifth] {
            assert_eq!(all(&mut client, "p", at).unwrap(), "(2,20,b)", "{statement}");
        }
    }
    // One that came with rows.
    run(
        &mut client,
        "CREATE TABLE p4 (LIKE p INCLUDING ALL); INSERT INTO p4 VALUES (4, 40, 'd'); SELECT bemi.track('p4'); ALTER TABLE p ATTACH PARTITION p4 FOR VALUES FROM (40) TO (50)",
    );
    let sixth = now(&mut client);
    run(&mut client, "ALTER TABLE p DETACH PARTITION p4");
    assert_eq!(sqlstate(all(&mut client, "p", &sixth)), "55000");
    // One that nobody saw go.
    run(
        &mut client,
        "CREATE TABLE p5 PARTITION OF p FOR VALUES FROM (50) TO (60); ALTER EVENT TRIGGER bemi_versions_dropped DISABLE; DROP TABLE p5; ALTER EVENT TRIGGER bemi_versions_dropped ENABLE ALWAYS",
    );
    let seventh = now(&mut client);
    assert_eq!(sqlstate(all(&mut client, "p", &seventh)), "55000");
    assert_eq!(all(&mut client, "p", &second).unwrap(), "(2,20,b)");
}

fn siblings(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "past_siblings");
    run(
        &mut client,
        "CREATE TABLE p (id int, d int, v text, PRIMARY KEY (id, d)) PARTITION BY RANGE (d); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (10) TO (20); \
         CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (20) TO (30); INSERT INTO p VALUES (1, 10, 'before'); SELECT bemi.track('p'); INSERT INTO p VALUES (2, 20, 'b')",
    );
    let first = now(&mut client);
    run(&mut client, "UPDATE p SET v = 'bb'; DROP TABLE p1");
    assert_eq!(sqlstate(all(&mut client, "p", &first)), "55000");
    assert_eq!(all(&mut client, "p2", &first).unwrap(), "(2,20,b)");
}

fn rolling(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "past_rolling");
    let seed = seed();
    println!("seed {seed}");
    let mut random = Random::new(seed);
    run(
        &mut client,
        "CREATE TABLE p (id int, d int, v text, PRIMARY KEY (d, id)) PARTITION BY RANGE (d); SELECT bemi.track('p'); SET client_min_messages = error",
    );
    let (mut oldest, mut newest, mut column, mut added) = (0u64, 0u64, "v".to_owned(), 0);
    let mut seen: Vec<(String, String)> = Vec::new();
    for step in 0..60 {
        if newest == oldest || newest - oldest < 4 && random.once_in(6) {
            let (from, to) = (newest * 10, newest * 10 + 10);
            // Made as a partition, or by itself and attached while it is empty.
            let made = if random.once_in(2) {
                format!("CREATE TABLE p_{newest} PARTITION OF p FOR VALUES FROM ({from}) TO ({to})")
            } else {
                format!(
                    "CREATE TABLE p_{newest} (LIKE p INCLUDING ALL); ALTER TABLE p ATTACH PARTITION p_{newest} FOR VALUES FROM ({from}) TO ({to})"
                )
            };
            run(&mut client, &made);
            newest += 1;
        }
        let id = random.below(6);
        let d = random.between(oldest * 10, newest * 10 - 1);
        let to = random.between(oldest * 10, newest * 10 - 1);
        let statement = match random.below(14) {
            0..=4 => format!(
                "INSERT INTO p (id, d, {column}) SELECT i, {d}, 'v{step}' FROM generate_series(0, {id}) i ON CONFLICT DO NOTHING"
            ),
            5..=6 => format!("UPDATE p SET {column} = 'u{step}' WHERE id = {id}"),
            7 => format!(
                "UPDATE p SET d = {to} WHERE id = {id} AND d = {d} AND NOT EXISTS (SELECT FROM p o WHERE o.id = {id} AND o.d = {to})"
            ),
            8 => format!("DELETE FROM p WHERE id = {id} AND d % 2 = {}", random.below(2)),
            9 => format!("TRUNCATE p_{}", random.between(oldest, newest - 1)),
            10..=11 if newest - oldest > 1 => {
                oldest += 1;
                let old = oldest - 1;
                match random.below(3) {
                    0 => format!("DROP TABLE p_{old}"),
                    1 => format!(
                        "BEGIN; DELETE FROM p WHERE id = {id}; INSERT INTO p_{old} (id, d) VALUES (77, {}); DROP TABLE p_{old}; COMMIT",
                        old * 10
                    ),
                    _ => format!(
                        "ALTER TABLE p DETACH PARTITION p_{old}; UPDATE p_{old} SET {column} = 'later'; DELETE FROM p_{old} WHERE id = {id}"
                    ),
                }
            }
            12 => {
                let old = std::mem::replace(&mut column, format!("v{step}"));
                format!("ALTER TABLE p RENAME {old} TO {column}")
            }
            _ => {
                added += 1;
                format!("ALTER TABLE p ADD a{added} varchar(3) DEFAULT 'x{added}'")
            }
        };
        run(&mut client, &statement);
        if step % 3 > 0 {
            continue;
        }
        // By the columns that are there from the beginning, whatever they are called.
        let shown = format!(
            "SELECT COALESCE(string_agg(id || '/' || d || '/' || COALESCE({column}, ''), ' ' ORDER BY d, id), '') FROM p"
        );
        let rows = client.query_one(&shown, &[]).unwrap().get(0);
        seen.push((now(&mut client), rows));
    }
    let mut wrong = Vec::new();
    for (at, expected) in &seen {
        for call in
            [format!("bemi.as_of(NULL::p, '{at}')"), format!("(SELECT (bemi.as_of(NULL::p, '{at}')).* OFFSET 0)")]
        {
            let query = format!(
                "SELECT COALESCE(string_agg(id || '/' || d || '/' || COALESCE({column}, ''), ' ' ORDER BY d, id), '') FROM {call} p"
            );
            match client.query_one(&query, &[]) {
                Ok(row) if row.get::<_, &str>(0) == expected => {}
                Ok(row) => wrong.push(format!("{query}\n  {}\n  {expected}", row.get::<_, &str>(0))),
                Err(error) => wrong.push(format!("{query}\n  {error:?}")),
            }
        }
    }
    assert!(wrong.is_empty(), "seed {seed}: {} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// What is missing of a table's trail.
fn missing(client: &mut Client, table: &str) -> Vec<String> {
    client.query_one("SELECT missing FROM bemi.tracked WHERE relation = $1::text::regclass", &[&table]).unwrap().get(0)
}

fn made_with_rows(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "past_made_with_rows");
    run(
        &mut client,
        "SELECT bemi.track_all(); CREATE TABLE made AS SELECT i AS id, 'v' || i AS v FROM generate_series(1, 3) i; SELECT * INTO into_made FROM made; \
         CREATE TABLE empty AS SELECT * FROM made WHERE false; CREATE TABLE unlike AS SELECT * FROM made WITH NO DATA; CREATE TABLE IF NOT EXISTS t AS SELECT 1 AS id; \
         CREATE TABLE plain (id int); INSERT INTO plain VALUES (1); ALTER TABLE made ADD PRIMARY KEY (id)",
    );
    for table in ["made", "into_made"] {
        assert_eq!(missing(&mut client, table), ["WAL contains no changes that created its first rows"]);
    }
    for table in ["empty", "unlike", "plain", "t"] {
        assert_eq!(missing(&mut client, table), [""; 0], "{table}");
    }
    let at = now(&mut client);
    run(&mut client, "UPDATE made SET v = 'x' WHERE id = 1; DELETE FROM made WHERE id = 2");
    assert_eq!(all(&mut client, "made", &at).unwrap(), "(1,v1) (2,v2) (3,v3)");
    // A row that never changed is recorded nowhere: that is said.
    run(&mut client, "TRUNCATE made; SELECT bemi.sync()");
    let (mut listening, notices) = server.connect_listening("past_made_with_rows", "postgres");
    assert_eq!(all(&mut listening, "made", &at).unwrap(), "(1,v1) (2,v2)");
    let said = notices.take();
    assert!(said.iter().any(|notice| notice.contains("public.made was truncated")), "{said:?}");
    assert_eq!(
        sqlstate(client.batch_execute(&format!("SELECT * FROM bemi.revert(relation => 'made', since => '{at}')"))),
        "55000"
    );
    let doctor = "SELECT ok FROM bemi.doctor() WHERE \"check\" = 'rules'";
    assert!(client.query_one(doctor, &[]).unwrap().get::<_, bool>(0));
}

fn heirs(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "past_heirs");
    run(
        &mut client,
        "CREATE SCHEMA elsewhere; CREATE TABLE above (id int PRIMARY KEY, v text); CREATE TABLE elsewhere.below (PRIMARY KEY (id)) INHERITS (above); \
         CREATE TABLE elsewhere.\"far below\" (PRIMARY KEY (id)) INHERITS (elsewhere.below); CREATE UNLOGGED TABLE elsewhere.unlogged () INHERITS (above); \
         CREATE TEMP TABLE passing () INHERITS (above); SELECT bemi.track('above')",
    );
    assert_eq!(
        missing(&mut client, "above"),
        [
            "the table elsewhere.\"far below\", which inherits from it, is not tracked",
            "the table elsewhere.below, which inherits from it, is not tracked"
        ]
    );
    let row = client.query_one("SELECT ok, detail, fix FROM bemi.doctor() WHERE \"check\" = 'rules'", &[]).unwrap();
    assert!(!row.get::<_, bool>(0));
    assert!(row.get::<_, &str>(1).contains("elsewhere.below, which inherits from it"), "{}", row.get::<_, &str>(1));
    client.batch_execute(row.get(2)).unwrap();
    assert_eq!(missing(&mut client, "above"), [""; 0]);
    assert_eq!(missing(&mut client, "elsewhere.\"far below\""), [""; 0]);
    assert!(client.query_one("SELECT ok FROM bemi.doctor() WHERE \"check\" = 'rules'", &[]).unwrap().get::<_, bool>(0));
}
