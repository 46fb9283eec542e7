//! What tests, the demonstration and the benchmark share: servers of their own, what comes out of their databases, and
//! random values that a seed repeats.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]
pub mod database;
pub mod log;
pub mod process;
pub mod random;
pub mod server;
pub mod wait;
