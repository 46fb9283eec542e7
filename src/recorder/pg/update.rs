//! Between the installation of a new library and ALTER EXTENSION UPDATE the worker meets the SQL of another version,
//! and waits.
use std::time::Duration;

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::failure::{Failure, transaction};
use super::statement::one;
use super::{report, worker_session};
use crate::recorder::state::State;
use crate::sys::process;

/// How often the worker looks whether the extension was updated.
const PAUSE: Duration = Duration::from_secs(1);
/// The version of this library.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Returns when the extension has the version of this library, or is not there. Reports once, in the server's log and
/// in pg_stat_activity, what it waits for: what it might write into `bemi.recorder` is not known to be safe by then.
pub fn wait_for() -> Result<(), Failure> {
    let mut is_reported = false;
    loop {
        let found =
            transaction(|| one::<String>("SELECT extversion::text FROM pg_extension WHERE extname = 'bemi'::name"))?;
        let Some(version) = found.filter(|version| version != VERSION) else { return Ok(()) };
        if !is_reported {
            let message = format!(
                "the recorder of bemi waits: the extension has version {version}, the library version {VERSION}"
            );
            report::show(State::Waiting, Some(&format!("{message}; ALTER EXTENSION bemi UPDATE")), None);
            ErrorReport::new(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, message, "wait_for")
                .set_hint("ALTER EXTENSION bemi UPDATE;")
                .report(PgLogLevel::LOG);
            is_reported = true;
        }
        process::sleep(PAUSE);
        if process::reload_configuration() {
            transaction(worker_session::read_again)?;
        }
    }
}
