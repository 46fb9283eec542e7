//! Clients change rows in every way there is, while the recorder is killed and its server stopped and starved of room;
//! then every committed change has to be recorded once, in order and under its context, and nothing else.
//!
//! `BEMI_TORTURE_SECONDS` says for how long, `BEMI_TORTURE_SEED` repeats the choices of a run (not their timing), and
//! `BEMI_TORTURE_PRELOAD=1` has the recorder come back with the server by itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]
mod check;
mod clients;
mod ills;
mod transaction;

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use bemi_test_support::{random, server};
use check::Problems;
use clients::{CLIENTS, Shared};
use ills::{Ill, Tormentor};
use random::Random;
use server::Server;

/// Rows of queries stay in memory, so that only the recorder needs room for temporary files.
const SETTINGS: &str = "
max_prepared_transactions = 50
work_mem = 64MB
deadlock_timeout = 50ms
max_wal_size = 512MB
log_min_messages = log
log_checkpoints = off
";
/// A run of so many seconds has to meet everything.
const LONG_ENOUGH: u64 = 20;
/// A big transaction comes so often, besides those that are made when there is no room.
const BIG_EVERY: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seconds = number("BEMI_TORTURE_SECONDS").unwrap_or(30);
    let is_preloaded = std::env::var("BEMI_TORTURE_PRELOAD").is_ok_and(|value| !value.is_empty() && value != "0");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock").as_micros() as u64;
    let seed = number("BEMI_TORTURE_SEED").unwrap_or(now % 1_000_000);
    let preload = if is_preloaded { "shared_preload_libraries = 'bemi'\n" } else { "" };
    println!(
        "BEMI_TORTURE_SEED={seed} for {seconds} s, {CLIENTS} clients, {}",
        match is_preloaded {
            true => "bemi is preloaded",
            false => "bemi is not preloaded",
        }
    );
    let server = Server::start(&format!("{SETTINGS}{preload}"));
    let shared = Shared {
        database: "torture",
        is_over: AtomicBool::new(false),
        wants_big: AtomicBool::new(true),
        is_behind: AtomicBool::new(false),
        problems: Mutex::default(),
        committed: AtomicU64::new(0),
        rolled_back: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        prepared: AtomicU64::new(0),
    };
    let mut tormentor = Tormentor::new(&server, &shared, is_preloaded);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        run(&mut tormentor, &mut Random::new(seed), seconds);
    }));
    let mut problems = std::mem::take(&mut *shared.problems.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
    if outcome.is_err() {
        problems.push("the run ended before its end".to_owned());
    }
    if !problems.is_empty() {
        println!("-- What was done");
        tormentor.history.iter().for_each(|line| println!("{line}"));
        let log = server.log();
        let lines: Vec<&str> = log.lines().collect();
        println!("-- The end of the server's log");
        lines[lines.len().saturating_sub(120)..].iter().for_each(|line| println!("{line}"));
    }
    problems.extend(server.end());
    for problem in &problems {
        eprintln!("WRONG: {problem}");
    }
    if problems.is_empty() {
        println!("\nEvery committed change is recorded once, in order and under its context; nothing else is.");
        ExitCode::SUCCESS
    } else {
        eprintln!("Something was wrong. The same choices again: BEMI_TORTURE_SEED={seed}");
        ExitCode::FAILURE
    }
}

/// Ends the clients, also if the tormentor fails.
struct EndOfClients<'a>(&'a AtomicBool);

impl Drop for EndOfClients<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn run(tormentor: &mut Tormentor, random: &mut Random, seconds: u64) {
    let (server, shared) = (tormentor.server, tormentor.shared);
    let mut connection = server.database(shared.database).connect();
    connection.batch_execute(clients::SETUP).expect("the tables");
    connection.batch_execute("SELECT bemi.start()").expect("the recorder starts");
    drop(connection);
    tormentor.start = Instant::now();
    std::thread::scope(|scope| {
        let _end = EndOfClients(&shared.is_over);
        for me in 0..CLIENTS {
            let random = Random::new(random.next());
            scope.spawn(move || clients::run(server, shared, me, random));
        }
        torment(tormentor, random, seconds);
    });
    let mut problems = Problems::default();
    let mut connection = tormentor.connect();
    let seconds_of_torture = tormentor.start.elapsed();
    let start = Instant::now();
    // What was to do so may have been interrupted.
    let reset = "ALTER SYSTEM RESET temp_file_limit";
    connection.batch_execute(reset).and_then(|()| connection.batch_execute("SELECT pg_reload_conf()")).expect("room");
    if tormentor.is_lost || tormentor.recorder().is_none() {
        println!("Without the recorder there is nothing to check.");
        return;
    }
    let figures = match check::run(&mut connection, &mut problems) {
        Ok(figures) => figures,
        Err(error) => {
            problems.add("the checks failed", || format!("{error:?}"));
            check::Figures::default()
        }
    };
    report(tormentor, &figures, seconds_of_torture, start.elapsed());
    if seconds >= LONG_ENOUGH {
        for ill in Ill::ALL.iter().filter(|ill| !tormentor.counts.contains_key(ill)) {
            problems.add("the run met too little", || format!("no {}", ill.name()));
        }
        if figures.spilled == 0 {
            problems.add("the run met too little", || "nothing was spilled to a temporary file".to_owned());
        }
    }
    shared.problems.lock().unwrap().extend(problems.finish());
}

/// Does all ills in random order, again and again; a long run meets each of them at least once.
fn torment(tormentor: &mut Tormentor, random: &mut Random, seconds: u64) {
    let (start, length) = (Instant::now(), Duration::from_secs(seconds));
    let mut last_big = start;
    let mut ills = Ill::ALL.to_vec();
    let mut is_first = seconds >= LONG_ENOUGH;
    while !tormentor.is_lost && (is_first || start.elapsed() < length) {
        random.shuffle(&mut ills);
        for ill in &ills {
            if tormentor.is_lost || !is_first && start.elapsed() >= length {
                break;
            }
            std::thread::sleep(Duration::from_millis(random.between(100, if is_first { 1200 } else { 3000 })));
            if last_big.elapsed() > BIG_EVERY {
                last_big = Instant::now();
                tormentor.shared.wants_big.store(true, Relaxed);
            }
            if !is_first {
                tormentor.rest();
            }
            tormentor.inflict(*ill, random);
        }
        is_first = false;
    }
}

fn report(tormentor: &Tormentor, figures: &check::Figures, tortured_for: Duration, checked_in: Duration) {
    let shared = tormentor.shared;
    let seconds = |duration: Duration| format!("{:.1}", duration.as_secs_f64());
    let mut lines = vec![
        ("seconds of torture", seconds(tortured_for), ""),
        ("transactions in the ledger", figures.transactions.to_string(), ""),
        ("changes recorded", figures.changes.to_string(), ""),
        ("tables compared", figures.tables.to_string(), ""),
        ("transactions that clients saw committed", shared.committed.load(Relaxed).to_string(), ""),
        ("transactions rolled back", shared.rolled_back.load(Relaxed).to_string(), ""),
        ("transactions prepared", shared.prepared.load(Relaxed).to_string(), ""),
        ("  of them pending at the end", figures.pending.to_string(), ""),
        ("transactions that failed", shared.failed.load(Relaxed).to_string(), "the server went away, or a lock"),
    ];
    for ill in Ill::ALL {
        lines.push((ill.name(), tormentor.counts.get(&ill).copied().unwrap_or(0).to_string(), ""));
    }
    lines.extend([
        ("back-offs seen", tormentor.backoffs.to_string(), "the recorder waited for room"),
        ("seconds waited for the recorder", seconds(tormentor.waited), "when it had been ended"),
        ("  at most", seconds(tormentor.longest), "at a time"),
        ("bytes of log left to record", figures.lag.to_string(), "at the end"),
        ("seconds bemi.sync took", seconds(figures.synced_in), "for them"),
        ("seconds the checks took", seconds(checked_in), ""),
        ("bytes spilled", figures.spilled.to_string(), ""),
    ]);
    println!();
    for (name, value, note) in lines {
        println!("{name:<40} {value:>12}  {note}");
    }
}
