//! Waiting for a condition, instead of sleeping for a time.
use std::time::{Duration, Instant};

/// Waits until a condition holds; fails if it takes too long.
pub fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    assert!(is_soon(condition), "waited too long for {what}");
}

/// For how long tests wait: two minutes, or `BEMI_TEST_PATIENCE` seconds for builds that are slower.
pub fn patience() -> Duration {
    Duration::from_secs(std::env::var("BEMI_TEST_PATIENCE").ok().and_then(|value| value.parse().ok()).unwrap_or(120))
}

/// Waits until a condition holds.
pub fn is_soon(mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() > patience() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}
