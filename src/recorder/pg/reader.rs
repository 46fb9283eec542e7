//! Decodes the log in this process, with the slot of the recorder and the decoder of this library.
use core::ffi::{CStr, c_char};
use std::ffi::CString;
use std::io;

use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::recorder::spool::{KEPT, Spool};
use crate::sys::decoding;

/// A slot that is being read. What is decoded goes into a spool.
pub struct Reader {
    ctx: *mut pg_sys::LogicalDecodingContext,
    position: u64,
    confirmed: u64,
}

impl Reader {
    /// Begins where the slot of this process stands, which it has taken. In a transaction. Raises the server's errors.
    pub fn open(options: &[(&CStr, CString)]) -> Self {
        decoding::require_log();
        // SAFETY: what is made lives as long as the process.
        unsafe {
            let caller = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
            let mut list: *mut pg_sys::List = core::ptr::null_mut();
            for (name, value) in options {
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

    /// Everything in the log up to there was decoded.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Decodes the next record. Documents of the transaction that it ends, if it ends one, go into the spool. False if no
    /// more is on disk as a whole.
    pub fn step(&mut self, spool: &mut Spool) -> bool {
        spool.begin();
        // SAFETY: the context lives as long as this; the spool lives as long as the call.
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

    /// Lets the server drop what is before a position, since it is recorded.
    pub fn confirm(&mut self, position: u64) {
        if position > self.confirmed {
            // SAFETY: this process has the slot.
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
    // SAFETY: the server's call; the buffer is the context's.
    unsafe { pg_sys::resetStringInfo((*ctx).out) };
}

#[pg_guard]
unsafe extern "C-unwind" fn write(
    ctx: *mut pg_sys::LogicalDecodingContext,
    _position: pg_sys::XLogRecPtr,
    xid: pg_sys::TransactionId,
    _is_last: bool,
) {
    // SAFETY: the server's call, within `step`, which lends the spool; the buffer holds as many bytes as it says.
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
