//! Memory that may run out. Rust aborts then, and the server restarts; the server raises an error.
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// Raises the error that the server itself raises: the caller may try again when there is more.
pub fn out_of_memory() -> ! {
    let code = PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY;
    ErrorReport::new(code, "out of memory", "out_of_memory").report(PgLogLevel::ERROR);
    unreachable!("a report at level ERROR does not return")
}

/// Returns a copy of bytes, or raises that error.
pub fn copy(bytes: &[u8]) -> Vec<u8> {
    let mut copy = Vec::new();
    append(&mut copy, bytes);
    copy
}

/// Appends bytes, or raises that error.
pub fn append(out: &mut Vec<u8>, bytes: &[u8]) {
    if out.try_reserve(bytes.len()).is_err() {
        out_of_memory();
    }
    out.extend_from_slice(bytes);
}

/// Frees what was allocated in a memory context, if anything was.
///
/// # Safety
/// The memory context belongs to the caller, and nothing in it is used any more.
pub unsafe fn reset(memory: pg_sys::MemoryContext) {
    // SAFETY: the memory context exists, since the caller owns it; nobody holds a pointer into it.
    unsafe {
        if !(*memory).isReset || !(*memory).firstchild.is_null() {
            pg_sys::MemoryContextReset(memory);
        }
    }
}
