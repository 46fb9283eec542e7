//! Transactions of the worker, and what ended one that failed.
use std::panic::AssertUnwindSafe;

use pgrx::pg_sys::panic::{CaughtError, ErrorReportWithLevel};
use pgrx::prelude::*;
use pgrx::{PgTryBuilder, pg_sys};

/// An error of the server, or of this library.
#[derive(Debug)]
pub struct Failure {
    pub code: PgSqlErrorCode,
    pub message: String,
    /// SQL that fixes it, if that is known.
    pub hint: Option<String>,
}

impl Failure {
    /// Returns whether the server may never accept what a row holds, whatever is changed in the server.
    pub fn is_of_data(&self) -> bool {
        use PgSqlErrorCode::*;
        let codes = [
            // More than an index, or a value of jsonb, can hold.
            ERRCODE_PROGRAM_LIMIT_EXCEEDED,
            ERRCODE_STATEMENT_TOO_COMPLEX,
            // A character that the encoding of the database does not have.
            ERRCODE_UNTRANSLATABLE_CHARACTER,
            ERRCODE_CHARACTER_NOT_IN_REPERTOIRE,
            ERRCODE_FEATURE_NOT_SUPPORTED,
        ];
        codes.contains(&self.code) || self.message.starts_with("invalid memory alloc request size")
    }
}

/// Runs `work`, and returns the error that ended it. The transaction that it was in is over then.
pub fn guarded<R>(work: impl FnOnce() -> R) -> Result<R, Failure> {
    let failure = |report: &ErrorReportWithLevel, prefix: &str| Failure {
        code: report.sql_error_code(),
        message: format!("{prefix}{}", report.message()),
        hint: report.hint().map(str::to_owned),
    };
    PgTryBuilder::new(AssertUnwindSafe(|| Ok(work())))
        .catch_others(|error| {
            // SAFETY: the server's own loop does the same after an error (PostgresMain), and no frame of the server is
            // left between here and the error.
            unsafe {
                pg_sys::replorigin_session_origin = pg_sys::InvalidRepOriginId as pg_sys::RepOriginId;
                pg_sys::LWLockReleaseAll();
                pg_sys::ConditionVariableCancelSleep();
                pg_sys::AbortCurrentTransaction();
            }
            Err(match &error {
                CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => failure(report, ""),
                CaughtError::RustPanic { ereport, .. } => failure(ereport, "internal error: "),
            })
        })
        .execute()
}

/// Runs `work` in a transaction of its own, whose changes are not decoded again.
pub fn transaction<R>(work: impl FnOnce() -> R) -> Result<R, Failure> {
    // SAFETY: the worker has no other transaction when it starts one, and `guarded` ends this one after an error.
    guarded(|| unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        pg_sys::replorigin_session_origin = pg_sys::DoNotReplicateId as pg_sys::RepOriginId;
        let result = work();
        pg_sys::PopActiveSnapshot();
        pg_sys::CommitTransactionCommand();
        pg_sys::replorigin_session_origin = pg_sys::InvalidRepOriginId as pg_sys::RepOriginId;
        result
    })
}
