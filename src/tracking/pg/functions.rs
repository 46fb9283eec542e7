//! The functions that the SQL of this stage calls.
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::TRACKING;
use crate::sys::function::{Text, sql_functions};
use crate::sys::{arguments, catalog};
use crate::tracking::rules::{self, Kind};

sql_functions! {
    bemi_rules => rules_of_kind,
    bemi_lock => lock,
    bemi_try_lock_tracking => try_lock_tracking,
    bemi_library_version => library_version,
    bemi_library_checksum => library_checksum,
}

/// `bemi.rules(bytea, text)`: returns the arguments of a trigger that are of a kind, or `every` one with its kind.
/// (There is no type of Rust for the result, `text[]`.)
fn rules_of_kind(stored: Text, kind: Text) -> pg_sys::Datum {
    let (stored, kind) = (stored.0, kind.0);
    let found: Vec<&[u8]> = if kind == b"every" {
        rules::arguments(&stored).collect()
    } else {
        let Some(kind) = Kind::named(&kind) else { refuse(&kind) };
        rules::arguments(&stored).map(rules::rule).filter(|rule| rule.0 == kind).map(|rule| rule.1).collect()
    };
    for text in &found {
        // What is in the catalogs is valid in the database's encoding; what a caller passes may not be.
        // SAFETY: the function reads the bytes of the slice, and raises an error for what is not valid.
        unsafe { pg_sys::pg_verifymbstr(text.as_ptr().cast(), text.len() as i32, false) };
    }
    arguments::text_array(&found)
}

fn refuse(kind: &[u8]) -> ! {
    let message = format!("unknown kind of rule: {:?}", String::from_utf8_lossy(kind));
    ErrorReport::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message, "bemi_rules")
        .set_hint("The kinds are ignore, mask, numbers, identity, unknown and every.")
        .report(PgLogLevel::ERROR);
    unreachable!("a report at level ERROR does not return")
}

/// `bemi.lock(regclass, boolean)`: locks a table of the caller until the transaction ends, as ALTER TABLE does if the
/// second argument is true, as CREATE TRIGGER does if it is not.
fn lock(relation: pg_sys::Oid, is_exclusive: bool) {
    if !catalog::owns_relation(relation) {
        ErrorReport::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, "must be owner of the table", "bemi_lock")
            .set_hint("The owner of the table, or a superuser, can track it.")
            .report(PgLogLevel::ERROR);
    }
    let mode = if is_exclusive { pg_sys::AccessExclusiveLock } else { pg_sys::ShareRowExclusiveLock };
    // SAFETY: the lock manager takes any number for a relation, and nothing of the relation is read here.
    unsafe { pg_sys::LockRelationOid(relation, mode as pg_sys::LOCKMODE) };
}

/// `bemi.try_lock_tracking()`: has those who create tables wait until the transaction ends. Returns false if somebody
/// has created one in a transaction that has not ended; the caller never waits for them, so nobody else waits behind
/// the caller.
fn try_lock_tracking() -> bool {
    // SAFETY: reads who the current role is.
    if !unsafe { pg_sys::superuser() } {
        ErrorReport::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, "must be superuser", "bemi_try_lock_tracking")
            .report(PgLogLevel::ERROR);
    }
    TRACKING.try_lock(pg_sys::ExclusiveLock)
}

/// `bemi.library_version()`.
fn library_version() -> Text {
    Text(env!("CARGO_PKG_VERSION").as_bytes().to_vec())
}

/// `bemi.library_checksum()`.
fn library_checksum() -> Text {
    Text(crate::tracking::sql_checksum().as_bytes().to_vec())
}
