//! The functions that the SQL of this stage calls.
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::sys;
use crate::sys::arguments::{self, argument, text_argument};
use crate::sys::extension_lock::{self, Part};
use crate::tracking::rules::{self, Kind};

/// `bemi.rules(bytea, text)`: the arguments of a trigger that are of a kind, or `every` one with its kind.
///
/// # Safety
/// Called by the server, with arguments that are not null.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_rules(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the server's call.
    let (stored, kind) = unsafe { (text_argument(fcinfo, 0), text_argument(fcinfo, 1)) };
    let (stored, kind) = (stored.unwrap_or_default(), kind.unwrap_or_default());
    let found: Vec<&[u8]> = if kind == b"every" {
        rules::arguments(&stored).collect()
    } else {
        let Some(kind) = Kind::named(&kind) else { refuse(&kind) };
        rules::arguments(&stored).map(rules::rule).filter(|rule| rule.0 == kind).map(|rule| rule.1).collect()
    };
    for text in &found {
        // What is in the catalogs is valid in the database's encoding; what anyone gives may not be.
        // SAFETY: the function reads as many bytes as it is told.
        unsafe { pg_sys::pg_verifymbstr(text.as_ptr().cast(), text.len() as i32, false) };
    }
    arguments::text_array(&found)
}

fn refuse(kind: &[u8]) -> ! {
    let message = format!("there is no kind of rule {:?}", String::from_utf8_lossy(kind));
    ErrorReport::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message, "bemi_rules")
        .set_hint("The kinds are ignore, mask, numbers, identity, unknown and every.")
        .report(PgLogLevel::ERROR);
    unreachable!("a report at level ERROR does not return")
}

/// `bemi.lock(regclass, boolean)`: locks a table of the caller until the transaction ends, as ALTER TABLE does if the
/// second argument is true, as CREATE TRIGGER does if it is not.
///
/// # Safety
/// Called by the server, with arguments that are not null.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_lock(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the server's call; any number may be locked.
    unsafe {
        let relation = argument(fcinfo, 0).map_or(pg_sys::InvalidOid, |datum| pg_sys::Oid::from(datum.value() as u32));
        let is_exclusive = argument(fcinfo, 1).is_some_and(|datum| datum.value() != 0);
        if !sys::owns_relation(relation) {
            ErrorReport::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, "must be owner of the table", "bemi_lock")
                .set_hint("The owner of the table, or a superuser, can track it.")
                .report(PgLogLevel::ERROR);
        }
        let mode = if is_exclusive { pg_sys::AccessExclusiveLock } else { pg_sys::ShareRowExclusiveLock };
        pg_sys::LockRelationOid(relation, mode as pg_sys::LOCKMODE);
    }
    pg_sys::Datum::from(0)
}

/// `bemi.try_lock_tracking()`: has those who make tables wait until the transaction ends. False if somebody has made one
/// in a transaction that has not ended; the caller never waits for him, so nobody else waits behind the caller.
///
/// # Safety
/// Called by the server.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_try_lock_tracking(_fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: asks who the current role is.
    if !unsafe { pg_sys::superuser() } {
        ErrorReport::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, "must be superuser", "bemi_try_lock_tracking")
            .report(PgLogLevel::ERROR);
    }
    pg_sys::Datum::from(extension_lock::try_take(Part::Tracking, pg_sys::ExclusiveLock))
}

/// `bemi.library_version()`.
///
/// # Safety
/// Called by the server.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_library_version(_fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    arguments::text(env!("CARGO_PKG_VERSION").as_bytes())
}

/// `bemi.library_checksum()`.
///
/// # Safety
/// Called by the server.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_library_checksum(_fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    arguments::text(crate::tracking::sql_checksum().as_bytes())
}

sys::sql_callable!(
    pg_finfo_bemi_rules,
    pg_finfo_bemi_lock,
    pg_finfo_bemi_try_lock_tracking,
    pg_finfo_bemi_library_version,
    pg_finfo_bemi_library_checksum
);
