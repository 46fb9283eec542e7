//! `bemi.as_of` after random transactions: at random instants each table is what it was, row for row.
//!
//! The seed is printed. `BEMI_FUZZ_SEED` repeats one, `BEMI_FUZZ_SECONDS` goes on for longer.
use std::time::{Duration, Instant};

use crate::Test;
use crate::differential::SETUP;
use crate::past::Past;
use crate::random::Random;
use crate::server::Server;
use crate::workload::{Kind, Table, older_rows, run};

pub const TESTS: &[Test] = &[
    ("the_past_of_random_tables_is_as_it_was_seen", plain),
    ("the_past_of_random_partitioned_tables_is_as_it_was_seen", partitioned),
    ("the_past_of_altered_tables_has_the_columns_of_today", altered),
];

/// So many databases at least.
const ROUNDS: u64 = 1;
/// Instants at which the tables of a round are looked at.
const INSTANTS: usize = 200;

fn plain(server: &Server) {
    rounds(server, "past_plain", &[Kind::Plain; 5], false);
}

fn partitioned(server: &Server) {
    rounds(server, "past_partitioned", &[Kind::Range, Kind::List, Kind::Range, Kind::List], false);
}

fn altered(server: &Server) {
    rounds(server, "past_altered", &[Kind::Plain, Kind::Plain, Kind::List, Kind::Range], true);
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

/// A seed that the clock or `BEMI_FUZZ_SEED` gives.
pub fn seed() -> u64 {
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |d| d.as_secs());
    number("BEMI_FUZZ_SEED").unwrap_or(clock)
}

/// What is to be known of a test that fails: its seed, and what was run, in a file under `target`.
pub struct Said {
    seed: u64,
    file: String,
    text: String,
}

impl Said {
    pub fn new(seed: u64, name: &str, log: &[String]) -> Self {
        Self { seed, file: format!("target/{name}.sql"), text: log.join("\n") }
    }
}

impl Drop for Said {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = std::fs::write(&self.file, &self.text);
            eprintln!("BEMI_FUZZ_SEED={} repeats it; what was run is in {}", self.seed, self.file);
        }
    }
}

fn rounds(server: &Server, name: &str, kinds: &[Kind], alters: bool) {
    let seed = seed();
    println!("seed {seed}");
    let end = Instant::now() + Duration::from_secs(number("BEMI_FUZZ_SECONDS").unwrap_or(0));
    let mut rounds = 0;
    while rounds < ROUNDS || Instant::now() < end {
        round(server, &format!("{name}_{rounds}"), kinds, alters, seed, rounds);
        rounds += 1;
    }
    println!("seed {seed}: {rounds} rounds");
}

fn round(server: &Server, name: &str, kinds: &[Kind], alters: bool, seed: u64, round: u64) {
    let mut random = Random::new(seed.wrapping_add(round << 32));
    let (mut past, mut tables, log) = workload(server, name, kinds, alters, &mut random, 60);
    let _said = Said::new(seed, name, &log);
    let commits = past.commits();
    let instants = instants(&mut random, &commits);
    let instants = past.instants(&instants);
    for (i, at) in instants.iter().enumerate() {
        let table = &mut tables[i % kinds.len()];
        let query = format!("SELECT to_jsonb(x)::text FROM {{as_of}}(NULL::{}, {at}) x", table.name);
        past.check(&query);
        // And of one row, or of some.
        let numbers: Vec<u64> = (0..3).map(|_| random.below(25)).collect();
        let condition = match random.below(4) {
            0 => table.is_key("x", numbers[0]),
            1 => format!("{} = x.{}", table.value(numbers[0]), table.key()),
            2 => {
                let values: Vec<String> = numbers.iter().map(|number| table.value(*number)).collect();
                format!("x.{} IN ({})", table.key(), values.join(", "))
            }
            _ => format!("({}) OR ({})", table.is_key("x", numbers[0]), table.is_key("x", numbers[1])),
        };
        past.check(&format!("{query} WHERE {condition}"));
    }
}

/// A database with random tables, of which random transactions left images; the statements.
pub fn workload<'a>(
    server: &'a Server,
    name: &str,
    kinds: &[Kind],
    alters: bool,
    random: &mut Random,
    count: u64,
) -> (Past<'a>, Vec<Table>, Vec<String>) {
    let mut setup = format!("{SETUP};\nSELECT setseed({});\n", random.below(1_000_000) as f64 / 1_000_000.0);
    let mut tables = Vec::new();
    for (number, kind) in kinds.iter().enumerate() {
        let (table, text) = Table::make(random, number as u64, *kind);
        setup.push_str(&text);
        tables.push(table);
    }
    setup.push_str(&older_rows(random, &tables));
    let mut past = Past::new(server, name, &setup);
    let mut log = vec![setup];
    run(&mut past, &mut tables, random, count, alters, &mut log);
    (past, tables, log)
}

/// Exactly when something committed, a microsecond before, in between, after the last and before the first.
fn instants(random: &mut Random, commits: &[i64]) -> Vec<i64> {
    let pick = |random: &mut Random| {
        let place = random.below(commits.len() as u64) as usize;
        let this = commits[place];
        let next = commits.get(place + 1).copied().unwrap_or(this + 1_000_000);
        match random.below(8) {
            0..=2 => this,
            3..=4 => this - 1,
            _ => this + random.below((next - this) as u64) as i64,
        }
    };
    let mut instants: Vec<i64> = (0..INSTANTS - 8).map(|_| pick(random)).collect();
    let (Some(first), Some(last)) = (commits.first(), commits.last()) else { panic!("something committed") };
    instants.extend([first - 1; 4]);
    instants.extend([last + 1_000_000; 4]);
    instants
}
