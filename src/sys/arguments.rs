//! Values of the types `text`, `bytea`, `jsonb` and `text[]`.
use pgrx::pg_sys;

/// Returns the bytes of a value.
///
/// # Safety
/// The value is of the type `text` or `bytea`.
pub unsafe fn bytes(value: pg_sys::Datum) -> Vec<u8> {
    // SAFETY: both types are varlenas, and detoasted a varlena is as long as its header states.
    unsafe {
        let text = pg_sys::pg_detoast_datum_packed(value.cast_mut_ptr());
        pgrx::varlena::varlena_to_byte_slice(text).to_vec()
    }
}

/// Returns a value of the type `text`, from text in the database's encoding.
pub fn text(bytes: &[u8]) -> pg_sys::Datum {
    // SAFETY: the function copies the bytes of the slice.
    pg_sys::Datum::from(unsafe { pg_sys::cstring_to_text_with_len(bytes.as_ptr().cast(), bytes.len() as i32) })
}

/// Returns a value of the type `jsonb`, from its text in the database's encoding, which has no NUL.
pub fn jsonb(text: &[u8]) -> pg_sys::Datum {
    let mut text = text.to_vec();
    text.push(0);
    let (mut input, mut parameter) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
    // SAFETY: the input function of the type takes a C string, and the text ends with the only NUL in it.
    unsafe {
        pg_sys::getTypeInputInfo(pg_sys::JSONBOID, &mut input, &mut parameter);
        pg_sys::OidInputFunctionCall(input, text.as_mut_ptr().cast(), parameter, -1)
    }
}

/// Returns a value of the type `text[]`.
pub fn text_array(members: &[&[u8]]) -> pg_sys::Datum {
    let mut members: Vec<pg_sys::Datum> = members.iter().map(|member| text(member)).collect();
    let (length, by_value, align) = (-1, false, pg_sys::TYPALIGN_INT as core::ffi::c_char);
    // SAFETY: the members are of the type `text`, whose length, passing and alignment these are (pg_type.dat).
    pg_sys::Datum::from(unsafe {
        pg_sys::construct_array(members.as_mut_ptr(), members.len() as i32, pg_sys::TEXTOID, length, by_value, align)
    })
}
