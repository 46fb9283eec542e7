//! What keeps one value from ending a whole query: the settings under which values are read, whoever reads, and savepoints.
use core::ffi::CStr;
use std::ffi::CString;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use pgrx::PgTryBuilder;
use pgrx::pg_sys;
use pgrx::pg_sys::errcodes::PgSqlErrorCode;
use pgrx::pg_sys::panic::CaughtError;

use crate::pinned::{self, Need};
use crate::sys::guc::{self, Scope};

/// Runs something under the settings under which values were recorded, and are read.
pub fn with_pinned<R>(work: impl FnOnce() -> R) -> R {
    with_settings(pinned::of(Need::Reading), work)
}

/// Runs something under those settings, except for those of the statement that rewrote the values.
pub fn with_those_of<'a, R>(statement: &'a [(CString, CString)], work: impl FnOnce() -> R) -> R {
    let pinned = pinned::of(Need::Reading).map(|(name, value)| -> (&'a CStr, &'a CStr) { (name, value) });
    with_settings(pinned.chain(statement.iter().map(|(name, value)| (&**name, &**value))), work)
}

/// Runs something under settings.
pub fn with_settings<'a, R>(list: impl Iterator<Item = (&'a CStr, &'a CStr)>, work: impl FnOnce() -> R) -> R {
    // SAFETY: a function of the past is called in a transaction. The level that begins here ends here, or with the transaction or
    // savepoint that an error ends.
    unsafe {
        let level = pg_sys::NewGUCNestLevel();
        for (name, value) in list {
            guc::set(name, value, Scope::NestLevel);
        }
        let result = work();
        pg_sys::AtEOXact_GUC(true, level);
        result
    }
}

/// Runs something behind a savepoint, or returns the message of the error that data caused. Other errors are passed on. The result
/// is in the memory context of the caller, not in one of the savepoint.
pub fn data_errors<R>(work: impl FnOnce() -> R) -> Result<R, String> {
    savepoint(is_of_data, || Ok(work()))
}

/// Runs something behind a savepoint. If it returns None, or raises an error that is expected, takes back what it did. Other errors
/// are passed on. The result is as that of [`data_errors`].
pub fn behind_savepoint<R>(is_expected: fn(PgSqlErrorCode) -> bool, work: impl FnOnce() -> Option<R>) -> Option<R> {
    savepoint(is_expected, || work().ok_or_else(String::new)).ok()
}

fn savepoint<R>(
    is_expected: fn(PgSqlErrorCode) -> bool,
    work: impl FnOnce() -> Result<R, String>,
) -> Result<R, String> {
    // SAFETY: a function of the past is called in a transaction; this is what the server's own procedural languages do.
    let (memory, owner) = unsafe {
        let before = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
        pg_sys::BeginInternalSubTransaction(core::ptr::null());
        pg_sys::MemoryContextSwitchTo(before.0);
        before
    };
    let result = catch_unwind(AssertUnwindSafe(work));
    // SAFETY: the savepoint is the innermost one again, since `work` ends those that it begins, and so does an error.
    unsafe {
        match &result {
            Ok(Ok(_)) => pg_sys::ReleaseCurrentSubTransaction(),
            Ok(Err(_)) | Err(_) => {
                pg_sys::MemoryContextSwitchTo(memory);
                pg_sys::RollbackAndReleaseCurrentSubTransaction();
            }
        }
        pg_sys::MemoryContextSwitchTo(memory);
        pg_sys::CurrentResourceOwner = owner;
    }
    let payload = match result {
        Ok(result) => return result,
        Err(payload) => payload,
    };
    PgTryBuilder::new(AssertUnwindSafe(move || resume_unwind(payload)))
        .catch_others(|error| {
            let message = match &error {
                CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => {
                    is_expected(report.sql_error_code()).then(|| report.message().to_owned())
                }
                CaughtError::RustPanic { .. } => None,
            };
            message.map_or_else(|| error.rethrow(), Err)
        })
        .execute()
}

/// Returns the class of an error: of its five characters, which have six bits each, the first two.
fn class(code: PgSqlErrorCode) -> isize {
    code as isize & 0xFFF
}

/// Returns whether a constraint raises such an error: of the class 23.
pub fn is_of_a_constraint(code: PgSqlErrorCode) -> bool {
    class(code) == class(PgSqlErrorCode::ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION)
}

/// Whether a value causes such an error: of the classes 22 (data exception), 42 (syntax error or access rule violation: a
/// name that nothing has), 23 (a constraint), 54 (a limit), and features that are not there. Not what somebody may not run.
fn is_of_data(code: PgSqlErrorCode) -> bool {
    use PgSqlErrorCode::*;
    let of_data = [
        ERRCODE_DATA_EXCEPTION,
        ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION,
        ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION,
        ERRCODE_PROGRAM_LIMIT_EXCEEDED,
        ERRCODE_FEATURE_NOT_SUPPORTED,
        ERRCODE_INVALID_SCHEMA_NAME,
    ];
    of_data.map(class).contains(&class(code)) && code != ERRCODE_INSUFFICIENT_PRIVILEGE
}
