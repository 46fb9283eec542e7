//! Replication slots.
use core::ffi::{CStr, c_char};

use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// Takes a slot for this process. Raises an error if it does not exist, or if another process has it.
pub fn acquire(name: &CStr) {
    #[cfg(not(feature = "pg18"))]
    // SAFETY: the function only reads the C string.
    unsafe {
        pg_sys::ReplicationSlotAcquire(name.as_ptr(), true);
    }
    #[cfg(feature = "pg18")]
    // SAFETY: the function only reads the C string; the last argument refuses an invalidated slot.
    unsafe {
        pg_sys::ReplicationSlotAcquire(name.as_ptr(), true, true);
    }
}

/// Raises an error if the server no longer keeps WAL for the slot of this process. CreateDecodingContext does not check
/// that, and on 14 and 15 such a slot has no position to read from.
pub fn require_wal() {
    // SAFETY: null, or the slot in shared memory that this process has taken.
    let position = unsafe { pg_sys::MyReplicationSlot.as_ref().map_or(0, |slot| slot.data.restart_lsn) };
    if position == 0 {
        let code = PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
        let message = "the server no longer keeps the write-ahead log for the replication slot";
        ErrorReport::new(code, message, "require_wal").report(PgLogLevel::ERROR);
    }
}

/// Creates a logical slot. The server's own function may leave another resource owner and memory context behind, which
/// a function in PL/pgSQL that calls it does not survive (a subtransaction for the invalidations of transactions that
/// were running, ReorderBufferImmediateInvalidation).
pub fn create(mut name: pg_sys::NameData, plugin: &CStr) {
    let mut plugin_name = pg_sys::NameData::default();
    for (to, from) in plugin_name.data.iter_mut().zip(plugin.to_bytes()) {
        *to = *from as c_char;
    }
    // SAFETY: the function takes two names, which outlive the call, and as many booleans as its version has.
    unsafe {
        let (memory, owner) = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
        let function = pg_sys::Oid::from(pg_sys::F_PG_CREATE_LOGICAL_REPLICATION_SLOT);
        let (name, plugin) = (pg_sys::Datum::from(&raw mut name), pg_sys::Datum::from(&raw mut plugin_name));
        let off = pg_sys::Datum::from(false);
        #[cfg(any(feature = "pg14", feature = "pg15", feature = "pg16"))]
        pg_sys::OidFunctionCall4Coll(function, pg_sys::InvalidOid, name, plugin, off, off);
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        pg_sys::OidFunctionCall5Coll(function, pg_sys::InvalidOid, name, plugin, off, off, off);
        pg_sys::MemoryContextSwitchTo(memory);
        pg_sys::CurrentResourceOwner = owner;
    }
}
