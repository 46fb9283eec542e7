//! Decoding from within: what a walsender does, and pgrx does not bind.
use core::ffi::{CStr, c_char, c_int};

use pgrx::pg_sys;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;

mod unbound {
    use super::*;

    unsafe extern "C-unwind" {
        pub fn LogicalDecodingProcessRecord(
            ctx: *mut pg_sys::LogicalDecodingContext,
            record: *mut pg_sys::XLogReaderState,
        );
        pub fn read_local_xlog_page(
            state: *mut pg_sys::XLogReaderState,
            page: pg_sys::XLogRecPtr,
            length: c_int,
            record: pg_sys::XLogRecPtr,
            buffer: *mut c_char,
        ) -> c_int;
        pub fn wal_segment_open(
            state: *mut pg_sys::XLogReaderState,
            segment: pg_sys::XLogSegNo,
            timeline: *mut pg_sys::TimeLineID,
        );
        pub fn wal_segment_close(state: *mut pg_sys::XLogReaderState);
    }
}

/// Reads a page of the log as far as it is on disk: what is not is not waited for.
unsafe extern "C-unwind" fn read_flushed_page(
    state: *mut pg_sys::XLogReaderState,
    page: pg_sys::XLogRecPtr,
    length: c_int,
    record: pg_sys::XLogRecPtr,
    buffer: *mut c_char,
) -> c_int {
    if page + length as u64 > flushed() {
        return -1;
    }
    // SAFETY: the server's call, passed on.
    unsafe { unbound::read_local_xlog_page(state, page, length, record, buffer) }
}

/// Takes a slot that nobody else reads; an error if somebody does, or if there is none.
pub fn acquire_slot(name: &CStr) {
    #[cfg(not(feature = "pg18"))]
    // SAFETY: the name is a C string.
    unsafe {
        pg_sys::ReplicationSlotAcquire(name.as_ptr(), true);
    }
    #[cfg(feature = "pg18")]
    // SAFETY: as above.
    unsafe {
        pg_sys::ReplicationSlotAcquire(name.as_ptr(), true, true);
    }
}

/// Raises an error if the server no longer keeps the log for the slot of this process. CreateDecodingContext does not ask, and
/// on 14 and 15 such a slot has no position to read from.
pub fn require_log() {
    // SAFETY: the slot that this process has taken, or null.
    let position = unsafe { pg_sys::MyReplicationSlot.as_ref().map_or(0, |slot| slot.data.restart_lsn) };
    if position == 0 {
        pgrx::ereport!(
            ERROR,
            pgrx::PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "the server no longer keeps the write-ahead log for the replication slot"
        );
    }
}

/// Makes a slot for the decoder of this library. The server's own function may leave another resource owner and memory
/// context behind, which a function in PL/pgSQL that calls it does not survive (a subtransaction for the invalidations of
/// transactions that were running, ReorderBufferImmediateInvalidation).
///
/// # Safety
/// The name is a value of the type `name`.
pub unsafe fn create_slot(name: pg_sys::Datum) {
    // SAFETY: the caller's promise; the server's function, with the arguments of its version.
    unsafe {
        let (memory, owner) = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
        let function = pg_sys::Oid::from(pg_sys::F_PG_CREATE_LOGICAL_REPLICATION_SLOT);
        let mut plugin = pg_sys::NameData::default();
        for (to, from) in plugin.data.iter_mut().zip(c"bemi_decoder".to_bytes()) {
            *to = *from as c_char;
        }
        let (plugin, off) = (pg_sys::Datum::from(&raw mut plugin), pg_sys::Datum::from(false));
        #[cfg(any(feature = "pg14", feature = "pg15", feature = "pg16"))]
        pg_sys::OidFunctionCall4Coll(function, pg_sys::InvalidOid, name, plugin, off, off);
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        pg_sys::OidFunctionCall5Coll(function, pg_sys::InvalidOid, name, plugin, off, off, off);
        pg_sys::MemoryContextSwitchTo(memory);
        pg_sys::CurrentResourceOwner = owner;
    }
}

/// A context that decodes from where the slot of this process stands, with options of its plugin: DefElems with strings.
///
/// # Safety
/// The list and the current memory context live as long as the context.
pub unsafe fn create_context(
    options: *mut pg_sys::List,
    prepare: pg_sys::LogicalOutputPluginWriterPrepareWrite,
    write: pg_sys::LogicalOutputPluginWriterWrite,
) -> *mut pg_sys::LogicalDecodingContext {
    let mut routine = pg_sys::XLogReaderRoutine {
        page_read: Some(read_flushed_page),
        segment_open: Some(unbound::wal_segment_open),
        segment_close: Some(unbound::wal_segment_close),
    };
    // SAFETY: the caller's promise; the routine is copied.
    unsafe { pg_sys::CreateDecodingContext(0, options, false, &mut routine, prepare, write, None) }
}

/// Decodes the record that the context's reader has read.
///
/// # Safety
/// The context lives, and its reader has read one.
pub unsafe fn process_record(ctx: *mut pg_sys::LogicalDecodingContext) {
    // SAFETY: the caller's promise; nothing with a destructor is in the closure.
    unsafe { pg_guard_ffi_boundary(|| unbound::LogicalDecodingProcessRecord(ctx, (*ctx).reader)) };
}

/// Up to where the log is on disk.
pub fn flushed() -> u64 {
    #[cfg(feature = "pg14")]
    // SAFETY: reads a number that the server keeps.
    unsafe {
        pg_sys::GetFlushRecPtr()
    }
    #[cfg(not(feature = "pg14"))]
    // SAFETY: as above; no timeline is asked for.
    unsafe {
        pg_sys::GetFlushRecPtr(core::ptr::null_mut())
    }
}
