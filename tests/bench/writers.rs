//! What a way of tracking costs those who write.
use std::fs;
use std::io::Write;
use std::process::Stdio;
use std::time::Instant;

use postgres::Client;

use crate::server::Server;
use crate::table::Table;

/// How a table is tracked: its name, and what is done to the table.
const WAYS: &[(&str, &str)] = &[
    ("untracked", ""),
    ("bemi", "SELECT bemi.track('t', 'keep')"),
    // What track() does unless it is told otherwise: the log has the whole row before each change.
    ("bemi, REPLICA IDENTITY FULL", "SELECT bemi.track('t')"),
    // What BemiHQ's packages install: a row trigger that writes the context for each row.
    (
        "row trigger with a message",
        "CREATE FUNCTION message() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           PERFORM pg_logical_emit_message(true, '_bemi', current_setting('bemi.context', true)); RETURN COALESCE(NEW, OLD); END $$;
         CREATE TRIGGER message BEFORE INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION message()",
    ),
    // What audit triggers do.
    (
        "row trigger into a table",
        "CREATE TABLE audit (id bigserial, at timestamptz DEFAULT now(), operation text, before jsonb, after jsonb, context jsonb);
         CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           INSERT INTO audit (operation, before, after, context)
           VALUES (TG_OP, to_jsonb(OLD), to_jsonb(NEW), nullif(current_setting('bemi.context', true), '')::jsonb); RETURN NULL; END $$;
         CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION audit()",
    ),
];

const CONTEXT: &str = "SELECT bemi.set_context('{\"user_id\":187234,\"endpoint\":\"/todo/complete\"}')";
const ROWS: i32 = 300_000;

pub fn run(server: &Server, runs: usize) -> Vec<Table> {
    let databases: Vec<String> = (0..WAYS.len()).map(|number| format!("writers_{number}")).collect();
    for (name, (_, way)) in databases.iter().zip(WAYS) {
        let mut client = server.database(name).connect();
        client.batch_execute("CREATE TABLE t (id int PRIMARY KEY, v int, note text)").unwrap();
        client.batch_execute(way).unwrap();
    }
    let mut tables = bulk(server, &databases, runs);
    tables.extend(single_rows(server, &databases, runs));
    tables.push(small_statements(server, &databases, runs));
    let contexts = long_contexts(server, &databases[1], runs);
    for table in &mut tables {
        let peers: Vec<&'static str> = WAYS[1..].iter().map(|(name, _)| *name).collect();
        for peer in peers {
            table.compare(peer, &["untracked"]);
        }
    }
    tables.extend(contexts);
    tables
}

/// The databases with the names of their ways; each run begins with another one, since what comes first finds the
/// machine as the run before left it.
fn in_turn(databases: &[String], run: usize) -> impl Iterator<Item = (&String, &'static str)> {
    let ways = databases.iter().zip(WAYS).map(|(database, (way, _))| (database, *way));
    ways.cycle().skip(run % databases.len()).take(databases.len())
}

fn bulk(server: &Server, databases: &[String], runs: usize) -> Vec<Table> {
    println!("-- writers: bulk statements");
    let names = ["INSERT", "UPDATE", "DELETE", "COPY"];
    let mut tables: Vec<Table> = names.iter().map(|name| Table::new(format!("{name} of {ROWS} rows"), "ms")).collect();
    let mut wal = Table::new(format!("Log written by INSERT of {ROWS} rows"), "MB");
    let data: String = (1..=ROWS).map(|i| format!("{i}\t{i}\ta note of row {i}\n")).collect();
    for run in 0..runs {
        for (name, way) in in_turn(databases, run) {
            let mut client = server.connect(name);
            client.batch_execute("TRUNCATE t; CHECKPOINT").unwrap();
            client.batch_execute("TRUNCATE audit").ok();
            client.batch_execute(CONTEXT).unwrap();
            let position = |client: &mut Client| -> f64 {
                let row = client.query_one("SELECT (pg_current_wal_insert_lsn() - '0/0')::float8 / 1e6", &[]).unwrap();
                row.get(0)
            };
            let before = position(&mut client);
            let insert = format!("INSERT INTO t SELECT i, i, 'a note of row ' || i FROM generate_series(1, {ROWS}) i");
            for (table, statement) in tables.iter_mut().zip([&insert[..], "UPDATE t SET v = v + 1", "DELETE FROM t"]) {
                let start = Instant::now();
                client.batch_execute(statement).unwrap();
                table.add(way, start.elapsed().as_secs_f64() * 1000.0);
                if statement.starts_with("INSERT") {
                    wal.add(way, position(&mut client) - before);
                }
            }
            client.batch_execute("TRUNCATE t").unwrap();
            let start = Instant::now();
            let mut writer = client.copy_in("COPY t FROM STDIN").unwrap();
            writer.write_all(data.as_bytes()).unwrap();
            writer.finish().unwrap();
            tables[3].add(way, start.elapsed().as_secs_f64() * 1000.0);
        }
    }
    tables.push(wal);
    tables
}

/// Single-row transactions by pgbench, two clients.
fn single_rows(server: &Server, databases: &[String], runs: usize) -> Vec<Table> {
    println!("-- writers: single rows");
    let update = "\\set id random(1, 100000)\nUPDATE t SET v = v + 1 WHERE id = :id";
    let comment = format!("{update} /*Bemi {{\"user_id\":187234,\"endpoint\":\"/todo/complete\"}} Bemi*/;\n");
    let scripts = [("a setting", format!("{update};\n")), ("a comment", comment)];
    scripts
        .into_iter()
        .map(|(name, script)| {
            let mut table = Table::new(format!("Single-row updates, context by {name}"), "transactions/s");
            let file = server.host().join("script.sql");
            fs::write(&file, script).unwrap();
            for run in 0..runs * 4 {
                for (database, way) in in_turn(databases, run) {
                    let mut client = server.connect(database);
                    client.batch_execute("TRUNCATE t; INSERT INTO t SELECT i, i, 'a note' FROM generate_series(1, 100000) i; CHECKPOINT").unwrap();
                    let mut command = server.program("pgbench", database);
                    if name == "a setting" {
                        command.env("PGOPTIONS", "-c bemi.context={\"user_id\":187234}");
                    }
                    command.args(["-n", "-c", "2", "-j", "2", "-T", "1", "-f"]).arg(&file).arg(database);
                    let output = command.stdin(Stdio::null()).output().unwrap();
                    let text = String::from_utf8(output.stdout).unwrap();
                    let rate = text.lines().find_map(|line| line.strip_prefix("tps = ")).expect("a rate");
                    table.add(way, rate.split(' ').next().unwrap().parse().unwrap());
                }
            }
            table
        })
        .collect()
}

/// Contexts of several lengths, set once for a session; the log has it once for each transaction.
fn long_contexts(server: &Server, database: &str, runs: usize) -> Vec<Table> {
    println!("-- writers: long contexts");
    let mut table = Table::new("1,000 single-row transactions, tracked, under one context".to_owned(), "ms");
    let mut within = Table::new("1,000 statements in one transaction, tracked, under one context".to_owned(), "ms");
    let lengths = [("none", 0), ("1 kB", 1_000), ("100 kB", 100_000), ("1 MB", 999_900)];
    for _ in 0..runs * 2 {
        for (name, length) in lengths {
            let mut client = server.connect(database);
            client.batch_execute("CHECKPOINT").unwrap();
            if length > 0 {
                let statement = "SELECT bemi.set_context(jsonb_build_object('x', repeat('x', $1::int - 9)))";
                client.execute(statement, &[&length]).unwrap();
            }
            let update = client.prepare("UPDATE t SET v = v + 1 WHERE id = $1").unwrap();
            let start = Instant::now();
            for i in 1..=1000 {
                client.execute(&update, &[&i]).unwrap();
            }
            table.add(name, start.elapsed().as_secs_f64() * 1000.0);
            client.batch_execute("BEGIN").unwrap();
            let start = Instant::now();
            for i in 1..=1000 {
                client.execute(&update, &[&i]).unwrap();
            }
            within.add(name, start.elapsed().as_secs_f64() * 1000.0);
            client.batch_execute("COMMIT").unwrap();
        }
    }
    for (name, _) in &lengths[1..] {
        table.compare(name, &["none"]);
        within.compare(name, &["none"]);
    }
    vec![table, within]
}

fn small_statements(server: &Server, databases: &[String], runs: usize) -> Table {
    println!("-- writers: small statements");
    let mut table = Table::new("1,000 small statements in one transaction".to_owned(), "ms");
    let statements: String = (1..=1000).map(|i| format!("UPDATE t SET v = v + 1 WHERE id = {i};")).collect();
    for run in 0..runs * 4 {
        for (database, way) in in_turn(databases, run) {
            let mut client = server.connect(database);
            client.batch_execute(CONTEXT).unwrap();
            client.batch_execute(&statements).unwrap();
            let start = Instant::now();
            client.batch_execute(&format!("BEGIN; {statements} COMMIT")).unwrap();
            table.add(way, start.elapsed().as_secs_f64() * 1000.0);
        }
    }
    table
}
