//! The functions that the SQL of reading the past calls.
use core::ffi::CStr;

use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::home::Home;
use crate::sys::call::Call;
use crate::sys::function;

/// `bemi.latest_changes(oid, timestamptz, pg_snapshot, integer, pg_lsn)`: calls `bemi.read_latest_changes` of the same arguments
/// under the latest snapshot.
///
/// # Safety
/// Called by the server, with arguments that are not null.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_latest_changes(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    let types = [pg_sys::OIDOID, pg_sys::TIMESTAMPTZOID, pg_sys::PG_SNAPSHOTOID, pg_sys::INT4OID, pg_sys::PG_LSNOID];
    // SAFETY: the server calls this with the arguments above, which are passed on as they are.
    unsafe { pass_on(Call::new(&fcinfo), c"read_latest_changes", &types) }
}

/// Calls a function of the same arguments under the latest snapshot.
///
/// # Safety
/// The arguments of the call are of these types, and not null.
unsafe fn pass_on(call: Call, name: &CStr, types: &[pg_sys::Oid]) -> pg_sys::Datum {
    let value = |index| call.value(index).unwrap_or(pg_sys::Datum::from(0));
    let arguments: Vec<_> = types.iter().enumerate().map(|(index, type_oid)| (*type_oid, value(index))).collect();
    // SAFETY: they are values of these types, as the SQL of the function that is called declares them.
    unsafe { Home::of(&call).call_latest(name, &arguments) }
}

/// `bemi.latest_versions(oid[], oid[])`: calls `bemi.read_new_versions` under the latest snapshot. In version 0.1.0 both have
/// one argument, with which they are called until ALTER EXTENSION.
///
/// # Safety
/// Called by the server, with arguments that are not null.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_latest_versions(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the server calls this with the arguments above, which are passed on as they are.
    unsafe {
        let types = [pg_sys::OIDARRAYOID; 2];
        let count = usize::try_from((*fcinfo).nargs).unwrap_or_default().min(types.len());
        pass_on(Call::new(&fcinfo), c"read_new_versions", &types[..count])
    }
}

/// `bemi.latest_query(oid)` of version 0.1.0, whose SQL can be installed, and restored by pg_upgrade, only if the library has
/// all of its functions.
///
/// # Safety
/// Called by the server.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_latest_query(_fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    let code = PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
    ErrorReport::new(code, "the extension bemi is older than its library", "bemi_latest_query")
        .set_hint("ALTER EXTENSION bemi UPDATE;")
        .report(PgLogLevel::ERROR);
    pg_sys::Datum::from(0)
}

/// `bemi.lock_writers(oid)`: locks a table, if it is there still, as CREATE TRIGGER does.
///
/// # Safety
/// Called by the server, with an argument that is not null.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_lock_writers(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the server calls this with the argument above.
    let call = unsafe { Call::new(&fcinfo) };
    // SAFETY: any number may be locked, and nothing of the relation is read here.
    unsafe {
        let mode = pg_sys::ShareRowExclusiveLock as pg_sys::LOCKMODE;
        pg_sys::LockRelationOid(call.oid(0).unwrap_or(pg_sys::InvalidOid), mode);
    }
    pg_sys::Datum::from(0)
}

/// `bemi.current_command()`: the number of the command of its own transaction up to which the running statement sees changes.
///
/// # Safety
/// Called by the server.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_current_command(_fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the server runs the statement that calls this under a snapshot, which is active.
    let command = unsafe { (*pg_sys::GetActiveSnapshot()).curcid };
    pg_sys::Datum::from(i32::try_from(command).unwrap_or(i32::MAX))
}

function::sql_callable!(
    pg_finfo_bemi_latest_changes,
    pg_finfo_bemi_latest_versions,
    pg_finfo_bemi_latest_query,
    pg_finfo_bemi_lock_writers,
    pg_finfo_bemi_current_command
);
