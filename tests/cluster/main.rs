//! Whole paths on a real server: sessions, transactions, the log and `pg_recvlogical`. Each test has a database of its
//! own on one server; run with `make test-cluster PG_CONFIG=…`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]
mod as_of;
mod as_of_changed;
mod as_of_forms;
mod as_of_limits;
mod as_of_partitions;
mod as_of_types;
mod as_of_writers;
mod asked_keys;
mod backtrace;
mod catalogs;
mod comment;
mod context;
mod ddl;
mod decoder;
mod differential;
mod doctor;
mod drops;
mod emission;
mod functions;
mod future;
mod history;
mod hostile;
mod installcheck;
mod keys;
mod limits;
mod lock_queue;
mod long;
mod masks;
mod masks_decoded;
mod memory;
mod not_utf8;
mod options;
mod pages;
mod past;
mod past_random;
mod past_types;
mod prepared;
mod privileges;
mod progress;
mod publications;
mod questions;
mod reading_runs_nothing;
mod recorder;
mod relcache;
mod revert;
mod revert_order;
mod revert_random;
mod revert_true;
mod revert_values;
mod rights;
mod rule_views;
mod rules;
mod sources;
mod standby;
mod streaming;
mod supervision;
mod takeover;
mod takeover_later;
mod takeover_while;
mod tracking;
mod types;
mod untriggered;
mod upgrade;
mod versions;
mod workload;

use bemi_test_support::{random, server};
use libtest_mimic::{Arguments, Failed, Trial};
use server::Server;

/// A test has a name, which is the sentence it proves, and the server.
pub type Test = (&'static str, fn(&Server));

/// The tests of what reads the log.
const DECODER: &[&[Test]] = &[
    decoder::TESTS,
    keys::TESTS,
    options::TESTS,
    streaming::TESTS,
    prepared::TESTS,
    hostile::TESTS,
    types::TESTS,
    catalogs::TESTS,
    differential::TESTS,
    rules::TESTS,
    recorder::TESTS,
    ddl::TESTS,
];

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(4));
    let server: &'static Server = Box::leak(Box::new(Server::start("").with_template()));
    let tests = [
        context::TESTS,
        comment::TESTS,
        emission::TESTS,
        decoder::TESTS,
        keys::TESTS,
        options::TESTS,
        streaming::TESTS,
        prepared::TESTS,
        hostile::TESTS,
        types::TESTS,
        versions::TESTS,
        catalogs::TESTS,
        differential::TESTS,
        tracking::TESTS,
        privileges::TESTS,
        rights::TESTS,
        rules::TESTS,
        future::TESTS,
        doctor::TESTS,
        drops::TESTS,
        masks::TESTS,
        lock_queue::TESTS,
        publications::TESTS,
        questions::TESTS,
        pages::TESTS,
        progress::TESTS,
        reading_runs_nothing::TESTS,
        recorder::TESTS,
        revert::TESTS,
        revert_order::TESTS,
        revert_random::TESTS,
        revert_true::TESTS,
        revert_values::TESTS,
        sources::TESTS,
        supervision::TESTS,
        takeover::TESTS,
        takeover_later::TESTS,
        takeover_while::TESTS,
        as_of::TESTS,
        as_of_changed::TESTS,
        past_types::TESTS,
        past_random::TESTS,
        as_of_forms::TESTS,
        as_of_limits::TESTS,
        as_of_partitions::TESTS,
        as_of_types::TESTS,
        functions::TESTS,
        not_utf8::TESTS,
        rule_views::TESTS,
        standby::TESTS,
        as_of_writers::TESTS,
        history::TESTS,
        installcheck::TESTS,
        asked_keys::TESTS,
        memory::TESTS,
        limits::TESTS,
        masks_decoded::TESTS,
        relcache::TESTS,
        untriggered::TESTS,
        upgrade::TESTS,
        backtrace::TESTS,
        ddl::TESTS,
        &[("a_crash_or_a_leak_in_the_log_is_found", |_| bemi_test_support::log::test())],
    ];
    // `BEMI_TEST_ONLY=decoder` runs what reads the log, for settings of the server under which the rest takes hours.
    let is_chosen = |test: &Test| match std::env::var("BEMI_TEST_ONLY").as_deref() {
        Err(_) => true,
        Ok("decoder") => DECODER.iter().any(|tests| tests.iter().any(|(name, _)| *name == test.0)),
        Ok(other) => panic!("BEMI_TEST_ONLY is {other}"),
    };
    let tests = tests.concat();
    for name in long::names() {
        assert!(tests.iter().any(|test| test.0 == name), "tests/cluster/long.rs names {name}, which is no test");
    }
    let trials = tests
        .into_iter()
        .filter(is_chosen)
        .filter(|test| long::is_run(test.0, server.major))
        .map(|(name, test)| Trial::test(name, move || server.run(name, test).map_err(Failed::from)));
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    println!("PostgreSQL {}", server.major);
    let ills = server.end();
    ills.iter().for_each(|line| println!("In the log behind the last test: {line}"));
    assert!(ills.is_empty(), "the server's log has what must not be there");
    conclusion.exit();
}
