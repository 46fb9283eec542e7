//! Whole paths on a real server: sessions, transactions, the log and `pg_recvlogical`. Each test has a database of its
//! own on one server; run with `make test-cluster PG_CONFIG=…`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]
mod as_of;
mod as_of_changed;
mod as_of_forms;
mod as_of_limits;
mod as_of_writers;
mod backtrace;
mod catalogs;
mod comment;
mod context;
mod decoder;
mod differential;
mod doctor;
mod emission;
mod future;
mod history;
mod hostile;
mod keys;
mod memory;
mod options;
mod past;
mod prepared;
mod privileges;
mod questions;
#[path = "../torture/random.rs"]
#[allow(dead_code)]
mod random;
mod recorder;
mod revert;
mod revert_order;
mod revert_random;
mod revert_values;
mod rules;
mod server;
mod streaming;
mod supervision;
mod tracking;
mod types;
mod untriggered;
mod workload;

use libtest_mimic::{Arguments, Trial};
use server::Server;

/// A test has a name, which is the sentence it proves, and the server.
pub type Test = (&'static str, fn(&Server));

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(4));
    let server: &'static Server = Box::leak(Box::new(Server::start("")));
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
        catalogs::TESTS,
        differential::TESTS,
        tracking::TESTS,
        privileges::TESTS,
        rules::TESTS,
        future::TESTS,
        doctor::TESTS,
        questions::TESTS,
        recorder::TESTS,
        revert::TESTS,
        revert_order::TESTS,
        revert_random::TESTS,
        revert_values::TESTS,
        supervision::TESTS,
        as_of::TESTS,
        as_of_changed::TESTS,
        as_of_forms::TESTS,
        as_of_limits::TESTS,
        as_of_writers::TESTS,
        history::TESTS,
        memory::TESTS,
        untriggered::TESTS,
        backtrace::TESTS,
    ];
    let trials = tests.concat().into_iter().map(|(name, test)| {
        Trial::test(name, move || {
            test(server);
            Ok(())
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    println!("PostgreSQL {}", server.major);
    server.stop();
    conclusion.exit();
}
