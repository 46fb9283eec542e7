//! The interface of output plugins: what their callbacks are passed, and how they send.
use core::ffi::{c_int, c_void};

use pgrx::pg_sys;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;

unsafe extern "C-unwind" {
    fn OutputPluginPrepareWrite(ctx: *mut pg_sys::LogicalDecodingContext, last_write: bool);
    fn OutputPluginWrite(ctx: *mut pg_sys::LogicalDecodingContext, last_write: bool);
    fn appendBinaryStringInfo(out: pg_sys::StringInfo, data: *const c_void, length: c_int);
}

/// Returns the row before and after a change; null where WAL does not contain it.
///
/// # Safety
/// `change` is an insertion, update or deletion that the server passed to the change callback.
pub unsafe fn tuples(change: *mut pg_sys::ReorderBufferChange) -> (pg_sys::HeapTuple, pg_sys::HeapTuple) {
    // SAFETY: of the members of the union, insertions, updates and deletions have `tp`.
    let tp = unsafe { (*change).data.tp };
    #[cfg(any(feature = "pg14", feature = "pg15", feature = "pg16"))]
    {
        let tuple_of = |buffer: *mut pg_sys::ReorderBufferTupleBuf| {
            if buffer.is_null() {
                core::ptr::null_mut()
            } else {
                // SAFETY: it is not null, and the buffer begins with its tuple.
                unsafe { &raw mut (*buffer).tuple }
            }
        };
        (tuple_of(tp.oldtuple), tuple_of(tp.newtuple))
    }
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    {
        (tp.oldtuple, tp.newtuple)
    }
}

/// Returns when the transaction committed, in microseconds since 2000-01-01 UTC.
///
/// # Safety
/// `txn` is a committed transaction that the server passed to a callback.
pub unsafe fn commit_time(txn: *const pg_sys::ReorderBufferTXN) -> i64 {
    #[cfg(feature = "pg14")]
    // SAFETY: the server keeps the transaction until the callback returns.
    unsafe {
        (*txn).commit_time
    }
    #[cfg(not(feature = "pg14"))]
    // SAFETY: the server keeps the transaction until the callback returns; of a committed one, this member of the union
    // is set.
    unsafe {
        (*txn).xact_time.commit_time
    }
}

/// Reports to the server how far the plugin is, so that a waiting client hears of it. A plugin calls this now and then
/// while it sends nothing because it filters everything away, and at the end of a transaction, with whether it sent
/// nothing of it.
///
/// # Safety
/// `ctx` is the context of the callback that is running.
pub unsafe fn update_progress(ctx: *mut pg_sys::LogicalDecodingContext, is_skipped: bool) {
    #[cfg(feature = "pg14")]
    // SAFETY: the context of a running callback is alive, and the server lets every callback report.
    unsafe {
        let _ = is_skipped;
        pg_sys::OutputPluginUpdateProgress(ctx);
    }
    #[cfg(not(feature = "pg14"))]
    // SAFETY: the context of a running callback is alive, and the server lets every callback report.
    unsafe {
        pg_sys::OutputPluginUpdateProgress(ctx, is_skipped);
    }
}

/// Sends one message to the reader, given in pieces, with a position that the reader may confirm. Sends nothing while a
/// slot is being created, since nobody reads then.
///
/// # Safety
/// `ctx` is the context of the callback that is running; together the pieces are shorter than an int can count.
pub unsafe fn send(ctx: *mut pg_sys::LogicalDecodingContext, position: u64, pieces: &[&[u8]]) {
    // One guard for all of it, since each costs as much as a short piece.
    // SAFETY: the context of a running callback is alive, and its buffer takes what fits into an int. The server copies
    // the pieces; nothing with a destructor is in the closure, so an error may pass through it.
    unsafe {
        if (*ctx).prepare_write.is_none() || (*ctx).write.is_none() {
            return;
        }
        let reached = core::mem::replace(&mut (*ctx).write_location, position);
        pg_guard_ffi_boundary(|| {
            OutputPluginPrepareWrite(ctx, true);
            for piece in pieces {
                appendBinaryStringInfo((*ctx).out, piece.as_ptr().cast(), piece.len() as c_int);
            }
            OutputPluginWrite(ctx, true);
        });
        (*ctx).write_location = reached;
    }
}

/// Has transactions decoded when they are prepared. Returns false if the slot does not allow that: on 14 it has to be
/// created for it.
///
/// # Safety
/// `ctx` is the context of the startup callback that is running, and not for a new slot.
pub unsafe fn decode_at_prepare(ctx: *mut pg_sys::LogicalDecodingContext) -> bool {
    #[cfg(feature = "pg14")]
    // SAFETY: while the startup callback runs, the context holds the slot that is read.
    unsafe {
        (*(*ctx).slot).data.two_phase
    }
    #[cfg(not(feature = "pg14"))]
    // SAFETY: while the startup callback runs, the plugin may write this member of the context.
    unsafe {
        (*ctx).twophase_opt_given = true;
        true
    }
}

/// Returns the (sub)transaction of the change or message that is being decoded, while transactions are decoded in
/// progress. None if it has committed, and so cannot be rolled back.
pub fn transaction_in_progress() -> Option<u32> {
    // SAFETY: reads a number that only this process writes.
    let xid = unsafe { pg_sys::CheckXidAlive };
    (xid != pg_sys::InvalidTransactionId).then(|| xid.into_inner())
}
