//! Floating-point numbers as text.
use core::ffi::{c_char, c_int};

unsafe extern "C-unwind" {
    fn double_to_shortest_decimal_buf(value: f64, result: *mut c_char) -> c_int;
    fn float_to_shortest_decimal_buf(value: f32, result: *mut c_char) -> c_int;
}

/// Longest decimal form of a floating-point number, with the terminating NUL (common/shortest_dec.h).
const SHORTEST_DECIMAL_LEN: usize = 25;

/// Passes the shortest decimal form of a number, as the server's own output function writes it, to `write`.
pub fn with_shortest_float8<R>(value: f64, write: impl FnOnce(&[u8]) -> R) -> R {
    let mut buffer = [0u8; SHORTEST_DECIMAL_LEN];
    // SAFETY: the function writes at most SHORTEST_DECIMAL_LEN bytes, which the buffer has, and raises no error.
    let len = unsafe { double_to_shortest_decimal_buf(value, buffer.as_mut_ptr().cast()) };
    write(&buffer[..len as usize])
}

/// As [`with_shortest_float8`], for single precision.
pub fn with_shortest_float4<R>(value: f32, write: impl FnOnce(&[u8]) -> R) -> R {
    let mut buffer = [0u8; SHORTEST_DECIMAL_LEN];
    // SAFETY: a number of single precision takes fewer bytes than the buffer has; the function raises no error.
    let len = unsafe { float_to_shortest_decimal_buf(value, buffer.as_mut_ptr().cast()) };
    write(&buffer[..len as usize])
}
