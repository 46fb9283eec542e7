//! Decoding WAL in this process, as a walsender does.
use core::ffi::{c_char, c_int};

use pgrx::pg_sys;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;

use super::wal;

unsafe extern "C-unwind" {
    fn LogicalDecodingProcessRecord(ctx: *mut pg_sys::LogicalDecodingContext, record: *mut pg_sys::XLogReaderState);
    fn read_local_xlog_page(
        state: *mut pg_sys::XLogReaderState,
        page: pg_sys::XLogRecPtr,
        length: c_int,
        record: pg_sys::XLogRecPtr,
        buffer: *mut c_char,
    ) -> c_int;
    fn wal_segment_open(
        state: *mut pg_sys::XLogReaderState,
        segment: pg_sys::XLogSegNo,
        timeline: *mut pg_sys::TimeLineID,
    );
    fn wal_segment_close(state: *mut pg_sys::XLogReaderState);
}

/// Reads a page of WAL if all of it is on disk; does not wait for it.
unsafe extern "C-unwind" fn read_flushed_page(
    state: *mut pg_sys::XLogReaderState,
    page: pg_sys::XLogRecPtr,
    length: c_int,
    record: pg_sys::XLogRecPtr,
    buffer: *mut c_char,
) -> c_int {
    if page + length as u64 > wal::flushed() {
        return -1;
    }
    // SAFETY: the reader calls this with its own state and buffer, and the server's function is made for that call.
    unsafe { read_local_xlog_page(state, page, length, record, buffer) }
}

/// Returns a context that decodes from where the slot of this process stands, with options of its plugin: DefElems with
/// strings.
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
        segment_open: Some(wal_segment_open),
        segment_close: Some(wal_segment_close),
    };
    // SAFETY: the context copies the routine, and keeps the list, which lives as long as it does.
    unsafe { pg_sys::CreateDecodingContext(0, options, false, &mut routine, prepare, write, None) }
}

/// Decodes the record that the context's reader has read.
///
/// # Safety
/// The context is alive, and its reader has read a record.
pub unsafe fn process_record(ctx: *mut pg_sys::LogicalDecodingContext) {
    // SAFETY: the reader of a living context lives too, and holds the record; nothing with a destructor is in the
    // closure.
    unsafe { pg_guard_ffi_boundary(|| LogicalDecodingProcessRecord(ctx, (*ctx).reader)) };
}
