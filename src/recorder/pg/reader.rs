//! Decodes WAL in this process, with the slot of the recorder and the decoder of this library.
use core::ffi::{CStr, c_char};
use std::ffi::CString;
use std::io;

use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::gucs;
use crate::recorder::spool::{KEPT, Spool};
use crate::sys::{decoding, slot};

/// A slot that is being read. The documents go into a spool.
pub struct Reader {
    ctx: *mut pg_sys::LogicalDecodingContext,
    position: u64,
    confirmed: u64,
}

impl Reader {
    /// Begins where the slot stands that this process has taken. In a transaction. Raises the server's errors.
    pub fn open() -> Self {
        slot::require_wal();
        // SAFETY: the list and the context are allocated in TopMemoryContext, so they live as long as the process; the
        // context points to the slot that this process has taken.
        unsafe {
            let caller = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
            let mut list: *mut pg_sys::List = core::ptr::null_mut();
            for (name, value) in options() {
                let value = pg_sys::makeString(pg_sys::pstrdup(value.as_ptr()));
                let option = pg_sys::makeDefElem(pg_sys::pstrdup(name.as_ptr()), value.cast(), -1);
                list = pg_sys::lappend(list, option.cast());
            }
            let ctx = decoding::create_context(list, Some(prepare), Some(write));
            pg_sys::MemoryContextSwitchTo(caller);
            let (position, confirmed) = ((*(*ctx).slot).data.restart_lsn, (*(*ctx).slot).data.confirmed_flush);
            pg_sys::XLogBeginRead((*ctx).reader, position);
            Self { ctx, position, confirmed }
        }
    }

    /// Returns the position up to which WAL is decoded.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Decodes the next record. Documents of the transaction that it ends, if it ends one, go into the spool. Returns
    /// false if no further record is on disk as a whole.
    pub fn step(&mut self, spool: &mut Spool) -> bool {
        spool.begin();
        // SAFETY: the context lives as long as the process. The pointer to the spool is only used by `write`, which the
        // server calls only while the record is processed here.
        unsafe {
            (*self.ctx).output_writer_private = core::ptr::from_mut(spool).cast();
            let mut message: *mut c_char = core::ptr::null_mut();
            let record = pg_sys::XLogReadRecord((*self.ctx).reader, &mut message);
            if !message.is_null() {
                let reason = CStr::from_ptr(message).to_string_lossy().into_owned();
                let text = format!("could not read the write-ahead log: {reason}");
                ErrorReport::new(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, text, "step").report(PgLogLevel::ERROR);
            }
            if record.is_null() {
                return false;
            }
            decoding::process_record(self.ctx);
            (*self.ctx).output_writer_private = core::ptr::null_mut();
            self.position = (*(*self.ctx).reader).EndRecPtr;
            true
        }
    }

    /// Lets the server remove WAL before a position, since it is recorded.
    pub fn confirm(&mut self, position: u64) {
        if position > self.confirmed {
            // SAFETY: this process holds the slot that it reads.
            unsafe { pg_sys::LogicalConfirmReceivedLocation(position) };
            self.confirmed = position;
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn prepare(
    ctx: *mut pg_sys::LogicalDecodingContext,
    _position: pg_sys::XLogRecPtr,
    _xid: pg_sys::TransactionId,
    _is_last: bool,
) {
    // SAFETY: the server passes the context that it decodes with, whose buffer lives as long as it does.
    unsafe { pg_sys::resetStringInfo((*ctx).out) };
}

#[pg_guard]
unsafe extern "C-unwind" fn write(
    ctx: *mut pg_sys::LogicalDecodingContext,
    _position: pg_sys::XLogRecPtr,
    xid: pg_sys::TransactionId,
    _is_last: bool,
) {
    // SAFETY: the server calls this only within `step`, which has set the pointer to its spool; the buffer of the
    // context holds `len` bytes, and is the server's own memory, which may be made smaller.
    let result = unsafe {
        let spool: *mut Spool = (*ctx).output_writer_private.cast();
        let out = &mut *(*ctx).out;
        let documents = core::slice::from_raw_parts(out.data.cast(), out.len as usize);
        let result = (*spool).push(transaction_id(xid), documents);
        if out.maxlen as usize > KEPT {
            out.data = pg_sys::repalloc(out.data.cast(), KEPT).cast();
            (out.len, out.maxlen) = (0, KEPT as core::ffi::c_int);
        }
        result
    };
    if let Err(error) = result {
        file_failed(&error);
    }
}

fn transaction_id(xid: pg_sys::TransactionId) -> u32 {
    xid.into_inner()
}

/// Returns the options of the decoder: they leave out the recorder's own rows, and untracked tables if
/// `bemi.tracked_only` is on.
fn options() -> Vec<(&'static CStr, CString)> {
    let own = CString::new(pg_sys::DoNotReplicateId.to_string()).unwrap_or_default();
    let mut options = vec![(c"filter-origins", own), (c"batch-bytes", c"65536".to_owned())];
    if gucs::tracked_only() {
        options.push((c"tracked-only", c"true".to_owned()));
    } else {
        // The rows that bemi.start() writes.
        options.push((c"filter-tables", c"bemi.*".to_owned()));
    }
    options.extend(compact_options());
    options
}

/// Returns the options that have documents name their relation, and their context only where it is not that of the
/// document before.
fn compact_options() -> [(&'static CStr, CString); 2] {
    [(c"include-relation", c"true".to_owned()), (c"repeat-context", c"false".to_owned())]
}

/// Raises an error of the temporary file, or of memory.
pub fn file_failed(error: &io::Error) -> ! {
    if error.kind() == io::ErrorKind::OutOfMemory {
        out_of_memory();
    }
    let code = match error.raw_os_error() {
        Some(28) => PgSqlErrorCode::ERRCODE_DISK_FULL,
        _ => PgSqlErrorCode::ERRCODE_IO_ERROR,
    };
    let message = format!("could not keep documents in a temporary file: {error}");
    ErrorReport::new(code, message, "file_failed").report(PgLogLevel::ERROR);
    unreachable!("a report at level ERROR does not return")
}

/// Raises the error that a document does not fit into memory.
pub fn out_of_memory() -> ! {
    let message = "out of memory for the document of a change";
    ErrorReport::new(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, message, "out_of_memory").report(PgLogLevel::ERROR);
    unreachable!("a report at level ERROR does not return")
}
