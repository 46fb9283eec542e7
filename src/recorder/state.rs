//! What the recorder is doing.
#![forbid(unsafe_code)]

use std::time::Duration;

/// Bytes of WAL without changes to record that are confirmed at once; less is confirmed with each housekeeping, so that the
/// server keeps little WAL and the recorder writes little. `bemi.recorder_lag()` knows it too.
pub const CONFIRM: u64 = 1 << 20;

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
    /// It cannot go on: the log that it needs is gone, or the slot is.
    SlotLost,
    /// Nobody wants it any more.
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
            Self::SlotLost => "slot lost",
            Self::Stopped => "stopped",
        }
    }
}

/// How long to wait before trying again after so many failures in a row: twice as long each time, up to half a minute.
pub fn delay(failures: u32) -> Duration {
    const FIRST: Duration = Duration::from_millis(500);
    const LONGEST: Duration = Duration::from_secs(30);
    match failures {
        0 => Duration::ZERO,
        _ => FIRST.saturating_mul(1 << (failures - 1).min(16)).min(LONGEST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_up_to_half_a_minute() {
        let delays: Vec<u128> = (0..9).map(|failures| delay(failures).as_millis()).collect();
        assert_eq!(delays, [0, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        assert_eq!(delay(u32::MAX), Duration::from_secs(30));
    }
}
