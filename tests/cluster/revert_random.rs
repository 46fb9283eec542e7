//! Random transactions, reverted one by one: each time the tables are as they were before. `BEMI_FUZZ_SEED` repeats a run.
use postgres::Client;

use crate::Test;
use crate::random::Random;
use crate::recorder::recording;
use crate::server::{Server, run};

pub const TESTS: &[Test] = &[("random_transactions_can_be_reverted_and_so_can_the_reverts", property)];

const TABLES: [&str; 6] = ["single", "composite", "parent", "child", "orphan", "tree"];

const SCHEMA: &str = "CREATE TABLE single (id int PRIMARY KEY, v text, n numeric UNIQUE); \
     CREATE TABLE composite (a int, b text, v jsonb, PRIMARY KEY (b, a)); \
     CREATE TABLE parent (id int PRIMARY KEY, v int); \
     CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE, v int); \
     CREATE TABLE orphan (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE SET NULL ON UPDATE SET NULL, v int); \
     CREATE TABLE tree (id int PRIMARY KEY, up int REFERENCES tree ON DELETE CASCADE CHECK (up <= id), v int); \
     SELECT bemi.track_all()";

/// One statement; keys are few, so that rows meet.
fn statement(random: &mut Random) -> String {
    let table = *random.one_of(&TABLES);
    let (k, l, v) = (random.below(8), random.below(8), random.below(5));
    let reference = if random.once_in(4) { "NULL".to_owned() } else { l.to_string() };
    match (table, random.below(6)) {
        ("single", 0 | 1) => format!("INSERT INTO single VALUES ({k}, 'v{v}', {v}.{l}0)"),
        ("single", 2) => format!("UPDATE single SET v = 'w{v}' WHERE id % 3 = {k} % 3"),
        ("single", 3) => format!("UPDATE single SET id = {l}, n = NULL WHERE id = {k}"),
        ("composite", 0 | 1) => format!("INSERT INTO composite VALUES ({k}, 'k{v}', '{{\"a\":[{l},null]}}')"),
        ("composite", 2) => format!("UPDATE composite SET v = NULL WHERE a = {k}"),
        ("composite", 3) => format!("UPDATE composite SET a = {l}, b = 'k{v}' WHERE a = {k}"),
        ("parent", 0 | 1) => format!("INSERT INTO parent VALUES ({k}, {v})"),
        ("parent", 2) => format!("UPDATE parent SET v = v + 1 WHERE id <= {k}"),
        ("parent", 3) => format!("UPDATE parent SET id = {l} WHERE id = {k}"),
        ("child" | "orphan", 0 | 1) => format!("INSERT INTO {table} VALUES ({k}, {reference}, {v})"),
        ("child" | "orphan", 2) => format!("UPDATE {table} SET v = v + 1, parent = {reference} WHERE id = {k}"),
        ("child" | "orphan", 3) => format!("UPDATE {table} SET id = {l} WHERE id = {k}"),
        ("tree", 0 | 1) => format!("INSERT INTO tree VALUES ({k}, {reference}, {v})"),
        ("tree", 2) => format!("UPDATE tree SET up = {reference} WHERE id = {k}"),
        ("tree", 3) => format!("UPDATE tree SET v = v + 1 WHERE up = {k}"),
        _ => match table {
            "composite" => format!("DELETE FROM composite WHERE a = {k}"),
            _ => format!("DELETE FROM {table} WHERE id = {k}"),
        },
    }
}

fn images(client: &mut Client) -> Vec<Option<String>> {
    TABLES
        .iter()
        .map(|table| {
            let all = format!("SELECT string_agg(t::text, ' ' ORDER BY t::text) FROM {table} t");
            client.query_one(&all, &[]).unwrap().get(0)
        })
        .collect()
}

/// Runs one transaction and gives its id, if it has one.
fn transaction(client: &mut Client, random: &mut Random, number: usize, done: &mut Vec<String>) -> Option<i64> {
    run(client, &format!("BEGIN; SELECT bemi.set_context('{{\"tx\":{number}}}', true)"));
    done.clear();
    for _ in 0..random.between(1, 10) {
        let statement = statement(random);
        client.batch_execute("SAVEPOINT s").unwrap();
        let is_kept = client.batch_execute(&statement).is_ok() && !random.once_in(8);
        client.batch_execute(if is_kept { "RELEASE s" } else { "ROLLBACK TO s" }).unwrap();
        if is_kept {
            done.push(statement);
        }
    }
    let id = client.query_one("SELECT pg_current_xact_id_if_assigned()::text::bigint", &[]).unwrap().get(0);
    client.batch_execute("COMMIT").unwrap();
    id
}

fn revert(client: &mut Client, arguments: &str, what: &str) {
    let rows = client
        .query(&format!("SELECT status, detail FROM bemi.revert({arguments})"), &[])
        .unwrap_or_else(|error| panic!("{what}: {error:?}"));
    for row in rows {
        assert_eq!(row.get::<_, &str>(0), "reverted", "{what}: {:?}", row.get::<_, Option<&str>>(1));
    }
}

fn property(server: &Server) {
    let seed: u64 = match std::env::var("BEMI_FUZZ_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs(),
    };
    println!("revert: BEMI_FUZZ_SEED={seed}");
    let mut random = Random::new(seed);
    let (_database, mut client, _stop) = recording(server, "revert_random");
    run(&mut client, SCHEMA);
    for round in 0..12 {
        let mut states = vec![images(&mut client)];
        let mut transactions = Vec::new();
        for i in 0..random.between(3, 12) as usize {
            let number = round * 100 + i;
            let mut done = Vec::new();
            let id = transaction(&mut client, &mut random, number, &mut done);
            transactions.push((number, id, done));
            states.push(images(&mut client));
        }
        let first = random.below(transactions.len() as u64) as usize;
        for (i, (number, id, done)) in transactions.iter().enumerate().skip(first).rev() {
            let what = format!("seed {seed}, round {round}, transaction {number}: {done:#?} on {:#?}", states[i]);
            match id {
                Some(id) if random.once_in(2) => revert(&mut client, &format!("transaction_id => {id}"), &what),
                _ => revert(&mut client, &format!("context => '{{\"tx\":{number}}}'"), &what),
            }
            assert_eq!(images(&mut client), states[i], "{what}");
        }
        // The reverts were made newest first, so the last of them was that of the oldest.
        if random.once_in(2) {
            for (i, (number, id, done)) in transactions.iter().enumerate().skip(first) {
                let what = format!("seed {seed}, round {round}, revert of {number}: {done:#?} on {:#?}", states[i]);
                let by_id = id.map_or(String::new(), |id| {
                    format!(" OR context @> '{{\"reverts\":{{\"transaction_id\":{id}}}}}'")
                });
                let ids = format!(
                    "SELECT DISTINCT transaction_id FROM bemi.changes WHERE context @> '{{\"reverts\":{{\"context\":{{\"tx\":{number}}}}}}}'{by_id}"
                );
                run(&mut client, "SELECT bemi.sync()");
                let ids = client.query(&ids, &[]).unwrap();
                assert!(ids.len() <= 1, "{what}");
                for row in ids {
                    revert(&mut client, &format!("transaction_id => {}", row.get::<_, i64>(0)), &what);
                }
                assert_eq!(images(&mut client), states[i + 1], "{what}");
            }
        }
    }
}
