//! Memory that may be lacking. Where Rust has none it aborts, and the server restarts; where the server has none it raises
//! an error.
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// Raises the error that the server itself raises: the caller may try again when there is more.
pub fn out_of_memory() -> ! {
    let code = PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY;
    ErrorReport::new(code, "out of memory", "out_of_memory").report(PgLogLevel::ERROR);
    unreachable!("a report at level ERROR does not return")
}

/// A copy of bytes, or that error.
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
