//! WAL.
use core::ffi::{CStr, c_char};

use pgrx::pg_sys;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;

unsafe extern "C-unwind" {
    #[cfg(any(feature = "pg14", feature = "pg15", feature = "pg16"))]
    fn LogLogicalMessage(prefix: *const c_char, message: *const c_char, size: usize, transactional: bool) -> u64;
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    fn LogLogicalMessage(
        prefix: *const c_char,
        message: *const c_char,
        size: usize,
        transactional: bool,
        flush: bool,
    ) -> u64;
}

/// Writes a transactional logical decoding message. Assigns a transaction id if there is none yet, and passes on an
/// error that the server raises.
pub fn log_logical_message(prefix: &CStr, content: &[u8]) {
    let (prefix, message, size) = (prefix.as_ptr(), content.as_ptr().cast::<c_char>(), content.len());
    #[cfg(any(feature = "pg14", feature = "pg15", feature = "pg16"))]
    // SAFETY: the server copies `size` bytes and the C string `prefix`; nothing with a destructor is in the closure.
    unsafe {
        pg_guard_ffi_boundary(|| LogLogicalMessage(prefix, message, size, true));
    }
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    // SAFETY: the server copies `size` bytes and the C string `prefix`; nothing with a destructor is in the closure.
    // `flush` is for messages outside of transactions.
    unsafe {
        pg_guard_ffi_boundary(|| LogLogicalMessage(prefix, message, size, true, false));
    }
}

/// Returns the position up to which WAL is on disk.
pub fn flushed() -> u64 {
    #[cfg(feature = "pg14")]
    // SAFETY: reads a number in shared memory, to which every process of the server is attached.
    unsafe {
        pg_sys::GetFlushRecPtr()
    }
    #[cfg(not(feature = "pg14"))]
    // SAFETY: reads a number in shared memory, to which every process of the server is attached; null asks for no
    // timeline.
    unsafe {
        pg_sys::GetFlushRecPtr(core::ptr::null_mut())
    }
}

/// Waits until WAL is on disk up to a position, at which a record or a page ends.
pub fn flush(until: u64) {
    // SAFETY: the function takes any position, and raises an error for one that WAL has not reached.
    unsafe { pg_sys::XLogFlush(until) };
}
