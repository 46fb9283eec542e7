//! What the worker is told, what it tells, and how it is started.
use core::ffi::CStr;
use std::ffi::CString;
use std::time::Duration;

use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::store;
use crate::recorder::document::Identity;
use crate::recorder::state::State;
use crate::sys::arguments::argument;
use crate::sys::{self, process};

/// How far the log is recorded, and by which slot.
#[derive(Debug)]
pub struct Progress {
    pub slot: String,
    pub recorded: Identity,
}

/// Waits until the transaction that started this worker has ended; None if it was rolled back, or if nobody wants the
/// worker any more.
pub fn begin() -> Option<Progress> {
    let found = store::transaction(|| {
        // bemi.start() holds it until its transaction ends.
        run("SELECT pg_advisory_xact_lock(hashtextextended('bemi.start', 0))");
        let is_there: Option<bool> = one("SELECT to_regclass('bemi.recorder') IS NOT NULL");
        if is_there != Some(true) {
            return None;
        }
        let slot: Option<String> = one("SELECT slot::text FROM bemi.recorder WHERE is_wanted");
        let position: Option<i64> = one("SELECT (commit_position - '0/0')::bigint FROM bemi.recorder");
        let sequence: Option<i32> = one("SELECT sequence FROM bemi.recorder");
        let recorded = Identity {
            commit_position: position.unwrap_or_default() as u64,
            sequence: sequence.unwrap_or_default() as u32,
        };
        slot.map(|slot| Progress { slot, recorded })
    });
    found.unwrap_or_else(|message| error!("{message}"))
}

/// Whether the worker is wanted still.
pub fn is_wanted() -> bool {
    let found = store::transaction(|| one::<bool>("SELECT is_wanted FROM bemi.recorder"));
    matches!(found, Ok(Some(true)))
}

/// Says what the worker does: in `bemi.recorder`, as far as it can be written, and in pg_stat_activity.
pub fn report(state: State, error: Option<&str>) {
    let text = match error {
        None => format!("bemi recorder: {}", state.name()),
        Some(error) => format!("bemi recorder: {}: {error}", state.name()),
    };
    let shown = CString::new(text.replace('\0', " ")).unwrap_or_default();
    // SAFETY: the text is copied.
    unsafe { pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, shown.as_ptr()) };
    let written = store::transaction(|| {
        let statement =
            "UPDATE bemi.recorder SET state = $1, state_since = now(), last_error = COALESCE($2, last_error),
                         last_error_at = CASE WHEN $2 IS NULL THEN last_error_at ELSE now() END";
        Spi::run_with_args(statement, &[state.name().into(), error.into()]).unwrap_or_else(|error| error!("{error}"));
    });
    if let Err(message) = written {
        log!("the recorder of bemi could not say that it is {}: {message}", state.name());
    }
}

/// Options of the decoder: only the recorder's own rows are left out, and untracked tables.
pub fn decoder_options() -> Vec<(&'static CStr, CString)> {
    let own = CString::new(pg_sys::DoNotReplicateId.to_string()).unwrap_or_default();
    vec![(c"filter-origins", own), (c"batch-bytes", c"65536".to_owned()), (c"tracked-only", c"true".to_owned())]
}

/// How long the worker waits for more when it has recorded all.
pub fn flush_interval() -> Duration {
    Duration::from_millis(100)
}

fn run(statement: &str) {
    Spi::run(statement).unwrap_or_else(|error| error!("{error}"));
}

fn one<T: FromDatum + IntoDatum>(statement: &str) -> Option<T> {
    match Spi::get_one::<T>(statement) {
        Ok(found) => found,
        // No row.
        Err(pgrx::spi::Error::InvalidPosition) => None,
        Err(error) => error!("{error}"),
    }
}

/// `bemi.launch()`: starts the worker of this database; gives its process id.
///
/// # Safety
/// Called by the server.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_launch(_fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: reads a number of the process.
    let database = unsafe { pg_sys::MyDatabaseId };
    match process::launch(database) {
        Some(pid) => pg_sys::Datum::from(pid),
        None => {
            let code = PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED;
            ErrorReport::new(code, "the recorder cannot be started: no background worker is free", "bemi_launch")
                .set_hint("ALTER SYSTEM SET max_worker_processes = …; and restart the server.")
                .report(PgLogLevel::ERROR);
            unreachable!("a report at level ERROR does not return")
        }
    }
}

/// `bemi.wake(integer)`: has a process look whether there is something to do.
///
/// # Safety
/// Called by the server.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_wake(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the server's call; to wake a process does no harm.
    unsafe {
        if let Some(pid) = argument(fcinfo, 0) {
            let process = pg_sys::BackendPidGetProc(pid.value() as i32);
            if !process.is_null() {
                pg_sys::SetLatch(&raw mut (*process).procLatch);
            }
        }
    }
    pg_sys::Datum::from(0)
}

sys::sql_callable!(pg_finfo_bemi_launch, pg_finfo_bemi_wake);
