//! Values of variable length, as they stand in a row.
use pgrx::{pg_sys, varlena};

/// Returns how many bytes a varlena has when it is detoasted, without detoasting it.
///
/// # Safety
/// `value` is a varlena whose data is in the row.
pub unsafe fn raw_len(value: pg_sys::Datum) -> usize {
    let pointer: *mut pg_sys::varlena = value.cast_mut_ptr();
    // SAFETY: the value points to a varlena, whose header says how long it is; that of a compressed one how long it becomes.
    unsafe {
        if is_in_place(value) {
            varlena::varsize_any_exhdr(pointer)
        } else {
            pg_sys::toast_raw_datum_size(value).saturating_sub(size_of::<i32>())
        }
    }
}

/// Whether the bytes of a varlena stand behind its header as they are.
///
/// # Safety
/// `value` is a varlena.
#[inline]
pub unsafe fn is_in_place(value: pg_sys::Datum) -> bool {
    let pointer: *mut pg_sys::varlena = value.cast_mut_ptr();
    // SAFETY: the value points to a varlena, whose first byte says of which kind it is.
    unsafe { varlena::varatt_is_4b_u(pointer) || varlena::varatt_is_1b(pointer) && !varlena::varatt_is_1b_e(pointer) }
}

/// Returns the bytes of a varlena, detoasted. They are in the value itself or in the current memory context.
///
/// # Safety
/// `value` is a varlena whose data is in the row.
#[inline]
pub unsafe fn varlena_bytes<'a>(value: pg_sys::Datum) -> &'a [u8] {
    let pointer: *mut pg_sys::varlena = value.cast_mut_ptr();
    // SAFETY: the value points to a varlena, which is as long as its header says. Only a compressed value, or one that was put
    // together from WAL, is copied.
    unsafe {
        if varlena::varatt_is_1b(pointer) && !varlena::varatt_is_1b_e(pointer) {
            // Most are as short as that.
            let length = varlena::varsize_1b(pointer).saturating_sub(1);
            return core::slice::from_raw_parts(varlena::vardata_1b(pointer).cast(), length);
        }
        let is_there = varlena::varatt_is_4b_u(pointer);
        varlena::varlena_to_byte_slice(if is_there { pointer } else { pg_sys::pg_detoast_datum_packed(pointer) })
    }
}
