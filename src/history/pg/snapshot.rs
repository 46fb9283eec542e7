//! What is read of the catalogs, and of what was recorded a moment ago, is read as it is now, whatever the transaction's own
//! snapshot sees. The functions that are called are STABLE, so they read under the snapshot that is active.
use core::ffi::CStr;

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::sys::catalog;

/// Runs something under a snapshot that sees all that was committed, and what the transaction itself has done.
///
/// # Safety
/// A transaction is active.
pub unsafe fn latest<R>(work: impl FnOnce() -> R) -> R {
    // SAFETY: the caller's promise. An error takes the snapshot away with the transaction, or the savepoint, that it ends.
    unsafe {
        pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
        let result = work();
        pg_sys::PopActiveSnapshot();
        result
    }
}

/// The function of a name in the schema of the one that is called.
///
/// # Safety
/// `fcinfo` is what the server passed.
pub unsafe fn function(fcinfo: pg_sys::FunctionCallInfo, name: &CStr, types: &[pg_sys::Oid]) -> pg_sys::Oid {
    // SAFETY: the caller's promise.
    let caller = unsafe { (*(*fcinfo).flinfo).fn_oid };
    let Some(found) = catalog::function_beside(caller, name, types) else {
        error!("a function of the extension bemi is missing: {}", name.to_string_lossy());
    };
    found
}
