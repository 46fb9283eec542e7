//! The functions that the SQL of reading the past calls.
use pgrx::pg_sys;
use pgrx::prelude::*;

use super::snapshot;
use crate::sys::{arguments::argument, function};

/// `bemi.latest_changes(oid, timestamptz, pg_snapshot, integer, pg_lsn)`: calls `bemi.read_latest_changes` of the same arguments
/// under the latest snapshot.
///
/// # Safety
/// Called by the server, with arguments that are not null.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_latest_changes(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    let types = [pg_sys::OIDOID, pg_sys::TIMESTAMPTZOID, pg_sys::PG_SNAPSHOTOID, pg_sys::INT4OID, pg_sys::PG_LSNOID];
    // SAFETY: the server's call, whose arguments are passed on as they are.
    unsafe {
        let read = snapshot::function(fcinfo, c"read_latest_changes", &types);
        let argument = |index| argument(fcinfo, index).unwrap_or(pg_sys::Datum::from(0));
        let [base, moment, seen, command, recorded] = [0, 1, 2, 3, 4].map(argument);
        let none = pg_sys::InvalidOid;
        snapshot::latest(|| pg_sys::OidFunctionCall5Coll(read, none, base, moment, seen, command, recorded))
    }
}

/// `bemi.latest_versions(oid[], oid[])`: calls `bemi.read_new_versions` under the latest snapshot.
///
/// # Safety
/// Called by the server, with arguments that are not null.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_latest_versions(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the server's call, whose arguments are passed on as they are.
    unsafe {
        let read = snapshot::function(fcinfo, c"read_new_versions", &[pg_sys::OIDARRAYOID, pg_sys::OIDARRAYOID]);
        let [relations, rewritten] = [0, 1].map(|index| argument(fcinfo, index).unwrap_or(pg_sys::Datum::from(0)));
        snapshot::latest(|| pg_sys::OidFunctionCall2Coll(read, pg_sys::InvalidOid, relations, rewritten))
    }
}

/// `bemi.lock_writers(oid)`: locks a table, if it is there still, as CREATE TRIGGER does.
///
/// # Safety
/// Called by the server, with an argument that is not null.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_lock_writers(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the server's call; any number may be locked, and nothing of the relation is read here.
    unsafe {
        let relation = argument(fcinfo, 0).map_or(pg_sys::InvalidOid, |datum| pg_sys::Oid::from(datum.value() as u32));
        pg_sys::LockRelationOid(relation, pg_sys::ShareRowExclusiveLock as pg_sys::LOCKMODE);
    }
    pg_sys::Datum::from(0)
}

/// `bemi.current_command()`: how many of its own transaction's commands that changed something the running statement sees.
///
/// # Safety
/// Called by the server.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_current_command(_fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: a function is called under a snapshot.
    let command = unsafe { (*pg_sys::GetActiveSnapshot()).curcid };
    pg_sys::Datum::from(i32::try_from(command).unwrap_or(i32::MAX))
}

function::sql_callable!(
    pg_finfo_bemi_latest_changes,
    pg_finfo_bemi_latest_versions,
    pg_finfo_bemi_lock_writers,
    pg_finfo_bemi_current_command
);
