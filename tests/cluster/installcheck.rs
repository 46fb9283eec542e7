//! The golden tests for packagers.
use std::process::Command;

use crate::Test;
use crate::server::Server;

pub const TESTS: &[Test] = &[("a_packager_s_golden_tests_pass", golden)];

fn golden(server: &Server) {
    let pg_config = std::env::var("PG_CONFIG").unwrap_or_else(|_| "pg_config".to_owned());
    let mut make = Command::new("make");
    make.args(["-s", "installcheck"]).arg(format!("PG_CONFIG={pg_config}"));
    make.env("PGHOST", server.host()).env("PGUSER", "postgres");
    let output = make.output().expect("make runs");
    let differences = std::fs::read_to_string("target/installcheck/regression.diffs").unwrap_or_default();
    assert!(output.status.success(), "{}{differences}", String::from_utf8_lossy(&output.stderr));
}
