//! What the worker reports: in `bemi.recorder`, and in pg_stat_activity.
use pgrx::prelude::*;

use super::failure::{Failure, transaction};
use super::progress::REQUIRE_SAFE;
use super::statement::run;
use crate::document::lsn;
use crate::recorder::state::State;
use crate::sys::{encoding, process};

/// Writes into `bemi.recorder` what the worker does, as far as that can be written. A failure adds to their number.
pub fn report(state: State, failure: Option<&Failure>) {
    let error = failure.map(|failure| encoding::message_text(&failure.message));
    let fix = failure.and_then(|failure| failure.hint.as_deref()).map(encoding::message_text);
    let written = transaction(|| {
        run(REQUIRE_SAFE);
        let statement = "
            UPDATE bemi.recorder SET state = $1, state_since = now(), last_error = COALESCE($2, last_error),
                last_fix = CASE WHEN $2 IS NULL THEN last_fix ELSE $3 END,
                last_error_at = CASE WHEN $2 IS NULL THEN last_error_at ELSE now() END,
                failures = CASE WHEN $2 IS NOT NULL THEN failures + 1 WHEN $1 = 'recording' THEN 0 ELSE failures END";
        Spi::run_with_args(statement, &[state.name().into(), error.clone().into(), fix.clone().into()])
            .unwrap_or_else(|error| error!("{error}"));
    });
    if let Err(failure) = written {
        log!("the recorder of bemi could not report that it is {}: {}", state.name(), failure.message);
    }
    show(state, error.as_deref(), None);
}

/// Shows in pg_stat_activity what the worker does; when it is idle, also the position up to which it has recorded
/// everything, which bemi.sync() reads there.
pub fn show(state: State, error: Option<&str>, recorded: Option<u64>) {
    let mut activity = format!("bemi recorder: {}", state.name());
    if let Some(error) = error {
        activity += &format!(": {error}");
    }
    if let Some(position) = recorded {
        activity += &format!(" up to {}", lsn::text(position));
    }
    process::show(&activity, recorded.is_none());
}
