//! How values are stored in a tuple or an array.
use core::ffi::{CStr, c_char};

use pgrx::{pg_sys, varlena};

/// The first byte of a varlena that only points elsewhere.
pub const EXTERNAL: u8 = if cfg!(target_endian = "little") { 0x01 } else { 0x80 };

/// How the values of a type are stored.
#[derive(Clone, Copy, Debug)]
pub struct Attribute {
    /// In bytes; -1 for a varlena, -2 for a C string.
    pub length: i16,
    /// In bytes.
    pub alignment: usize,
    /// Whether a value stands in place of a pointer to it.
    pub by_value: bool,
}

impl Attribute {
    /// Takes what the catalogs say about a type.
    pub fn new(length: i16, by_value: bool, align: c_char) -> Self {
        let alignment = match align as u8 {
            b'c' => 1,
            b's' => 2,
            b'i' => 4,
            _ => 8,
        };
        Self { length, alignment, by_value }
    }

    /// Takes what the catalogs say about a column.
    pub fn of(column: &pg_sys::FormData_pg_attribute) -> Self {
        Self::new(column.attlen, column.attbyval, column.attalign)
    }

    /// Returns the value that begins there.
    ///
    /// # Safety
    /// `start` points to a value of the attribute.
    pub unsafe fn fetch(&self, start: *const u8) -> pg_sys::Datum {
        if !self.by_value {
            return pg_sys::Datum::from(start);
        }
        // SAFETY: a value that is passed by value has as many bytes as its type's length says, and is aligned.
        unsafe {
            match self.length {
                1 => pg_sys::Datum::from(*start.cast::<i8>()),
                2 => pg_sys::Datum::from(*start.cast::<i16>()),
                4 => pg_sys::Datum::from(*start.cast::<i32>()),
                _ => pg_sys::Datum::from(*start.cast::<i64>()),
            }
        }
    }

    /// Returns the size in bytes of the value that begins there.
    ///
    /// # Safety
    /// `start` points to a value of the attribute.
    pub unsafe fn size(&self, start: *const u8) -> usize {
        // SAFETY: a value of such a type begins there: a varlena says how long it is, a C string ends with a NUL.
        unsafe {
            match self.length {
                -1 => varlena::varsize_any(start.cast()),
                -2 => CStr::from_ptr(start.cast()).to_bytes_with_nul().len(),
                length => length as usize,
            }
        }
    }
}
