//! Errors that a value causes. An ERROR while decoding would occur again at each attempt, so one that comes from data is
//! caught and named in the document. One that comes from the server's state is passed on.
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use pgrx::PgTryBuilder;
use pgrx::pg_sys;
use pgrx::pg_sys::errcodes::PgSqlErrorCode;
use pgrx::pg_sys::panic::CaughtError;

/// Runs `work`, or returns the message of the error that its data caused.
///
/// The transaction is not aborted: it is one of decoding, which is rolled back at its end in any case, and that releases
/// what the error left behind.
pub fn data_errors<R>(work: impl FnOnce() -> R) -> Result<R, String> {
    // SAFETY: reads a pointer of the process.
    let memory = unsafe { pg_sys::CurrentMemoryContext };
    // Nearly all work succeeds, and then this costs nothing. What pgrx needs to take an error apart is made only when
    // there is one.
    let payload = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => return Ok(result),
        Err(payload) => payload,
    };
    PgTryBuilder::new(AssertUnwindSafe(move || resume_unwind(payload)))
        .catch_others(move |error| {
            let message = match &error {
                CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => {
                    if !is_of_data(report.sql_error_code()) {
                        error.rethrow();
                    }
                    report.message().to_owned()
                }
                CaughtError::RustPanic { ereport, .. } => format!("internal error: {}", ereport.message()),
            };
            // SAFETY: the server itself does this after an error. The callbacks of a plugin are called without lightweight
            // locks, so those that are held are of what failed.
            unsafe {
                pg_sys::LWLockReleaseAll();
                pg_sys::CurrentMemoryContext = memory;
            }
            Err(message)
        })
        .execute()
}

/// Whether an error may come from a value rather than from the server: all but those of the classes 40 (transaction
/// rollback), 53 (insufficient resources), 55 (object not in prerequisite state), 57 (operator intervention: the
/// server or the client wants the decoding to end), I/O errors, and corrupted indexes. Corrupted data may be a single
/// value that was compressed.
fn is_of_data(code: PgSqlErrorCode) -> bool {
    use PgSqlErrorCode::*;
    // A code holds five characters of six bits each; the first two are the class.
    let class = |code: PgSqlErrorCode| code as isize & 0xFFF;
    let of_the_server = [
        ERRCODE_TRANSACTION_ROLLBACK,
        ERRCODE_INSUFFICIENT_RESOURCES,
        ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        ERRCODE_OPERATOR_INTERVENTION,
    ];
    !of_the_server.map(class).contains(&class(code)) && !matches!(code, ERRCODE_IO_ERROR | ERRCODE_INDEX_CORRUPTED)
}
