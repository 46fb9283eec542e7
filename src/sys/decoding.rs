//! Decoding and COPY from within: what a walsender and the synchronisation of tables do, and pgrx does not bind.
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

/// Takes a slot that nobody else reads; an error if somebody does, or if there is none.
pub fn acquire_slot(name: &CStr) {
    // SAFETY: the name is a C string.
    #[cfg(not(feature = "pg18"))]
    unsafe {
        pg_sys::ReplicationSlotAcquire(name.as_ptr(), true);
    }
    // SAFETY: as above.
    #[cfg(feature = "pg18")]
    unsafe {
        pg_sys::ReplicationSlotAcquire(name.as_ptr(), true, true);
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
        page_read: Some(unbound::read_local_xlog_page),
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
    // SAFETY: reads a number that the server keeps.
    #[cfg(feature = "pg14")]
    unsafe {
        pg_sys::GetFlushRecPtr()
    }
    // SAFETY: as above; no timeline is asked for.
    #[cfg(not(feature = "pg14"))]
    unsafe {
        pg_sys::GetFlushRecPtr(core::ptr::null_mut())
    }
}

/// Runs COPY FROM into columns of a table, with what `rows` gives in the binary form. In a transaction.
pub fn copy_from(schema: &CStr, table: &CStr, columns: &str, rows: pg_sys::copy_data_source_cb) {
    // SAFETY: in a transaction, which gives back what an error leaves behind. Names are copied.
    unsafe {
        let copy = |name: &CStr| pg_sys::pstrdup(name.as_ptr());
        let name = pg_sys::makeRangeVar(copy(schema), copy(table), -1);
        let relation = pg_sys::table_openrv(name, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE);
        let state = pg_sys::make_parsestate(core::ptr::null_mut());
        let mode = pg_sys::RowExclusiveLock as c_int;
        pg_sys::addRangeTableEntryForRelation(state, relation, mode, core::ptr::null_mut(), false, false);
        let string = |text: &str| {
            let text = std::ffi::CString::new(text).unwrap_or_default();
            pg_sys::makeString(copy(&text))
        };
        let mut names: *mut pg_sys::List = core::ptr::null_mut();
        for column in columns.split(',') {
            names = pg_sys::lappend(names, string(column.trim().trim_matches('"')).cast());
        }
        let format = pg_sys::makeDefElem(copy(c"format"), string("binary").cast(), -1);
        let options = pg_sys::lappend(core::ptr::null_mut(), format.cast());
        let nothing = (core::ptr::null_mut(), core::ptr::null());
        let copying = pg_sys::BeginCopyFrom(state, relation, nothing.0, nothing.1, false, rows, names, options);
        pg_sys::CopyFrom(copying);
        pg_sys::EndCopyFrom(copying);
        pg_sys::table_close(relation, pg_sys::NoLock as pg_sys::LOCKMODE);
    }
}
