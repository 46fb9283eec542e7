//! What the recorder is doing.
#![forbid(unsafe_code)]

use std::time::Duration;

/// The states of the recorder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It takes its slot.
    Starting,
    /// It reads what was written before it started.
    CatchingUp,
    /// It records changes as they are committed.
    Recording,
    /// It could not write, and tries again after a while.
    Waiting,
    /// It was told to stop.
    Stopped,
}

impl State {
    /// As the view `bemi.status` shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::CatchingUp => "catching up",
            Self::Recording => "recording",
            Self::Waiting => "waiting",
            Self::Stopped => "stopped",
        }
    }
}

/// How long to wait after one failure and the next: twice as long each time, up to a minute.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(500);
    const LONGEST: Duration = Duration::from_secs(60);

    /// The time to wait after one more failure.
    pub fn next_delay(&mut self) -> Duration {
        let delay = Self::FIRST.saturating_mul(1 << self.failures.min(16)).min(Self::LONGEST);
        self.failures += 1;
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_up_to_a_minute() {
        let mut backoff = Backoff::default();
        let delays: Vec<u128> = (0..10).map(|_| backoff.next_delay().as_millis()).collect();
        assert_eq!(delays, [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000, 60_000]);
        assert_eq!(Backoff { failures: u32::MAX - 1 }.next_delay(), Backoff::LONGEST);
    }
}
