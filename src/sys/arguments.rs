//! The arguments of functions that are called from SQL, and their results.
use core::ffi::CStr;

use pgrx::pg_sys;
use pgrx::prelude::*;

/// An argument of a function called from SQL; None for NULL and for one that is not there.
///
/// # Safety
/// `fcinfo` is what the server passed.
pub unsafe fn argument(fcinfo: pg_sys::FunctionCallInfo, index: usize) -> Option<pg_sys::Datum> {
    // SAFETY: the caller's promise; the array has as many members as the call has arguments.
    unsafe {
        let arguments = (*fcinfo).args.as_slice((*fcinfo).nargs as usize);
        arguments.get(index).filter(|argument| !argument.isnull).map(|argument| argument.value)
    }
}

/// The bytes of a `text` or `bytea` argument.
///
/// # Safety
/// As [`argument`]; the argument has such a type.
pub unsafe fn text_argument(fcinfo: pg_sys::FunctionCallInfo, index: usize) -> Option<Vec<u8>> {
    // SAFETY: the caller's promise.
    unsafe { argument(fcinfo, index).map(|value| bytes(value)) }
}

/// The bytes of a value.
///
/// # Safety
/// The value is of the type `text` or `bytea`.
pub unsafe fn bytes(value: pg_sys::Datum) -> Vec<u8> {
    // SAFETY: the caller's promise; detoasted, the value is a varlena.
    unsafe {
        let text = pg_sys::pg_detoast_datum_packed(value.cast_mut_ptr());
        pgrx::varlena::varlena_to_byte_slice(text).to_vec()
    }
}

/// A value of the type `text`, from text in the database's encoding.
pub fn text(bytes: &[u8]) -> pg_sys::Datum {
    // SAFETY: the function copies as many bytes as it is told.
    pg_sys::Datum::from(unsafe { pg_sys::cstring_to_text_with_len(bytes.as_ptr().cast(), bytes.len() as i32) })
}

/// A value of the type `jsonb`, from its text in the database's encoding, which has no NUL.
pub fn jsonb(text: &[u8]) -> pg_sys::Datum {
    let mut text = text.to_vec();
    text.push(0);
    let (mut input, mut parameter) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
    // SAFETY: the input function of the type takes a C string.
    unsafe {
        pg_sys::getTypeInputInfo(pg_sys::JSONBOID, &mut input, &mut parameter);
        pg_sys::OidInputFunctionCall(input, text.as_mut_ptr().cast(), parameter, -1)
    }
}

/// A value of the type `text[]`.
pub fn text_array(members: &[&[u8]]) -> pg_sys::Datum {
    let mut members: Vec<pg_sys::Datum> = members.iter().map(|member| text(member)).collect();
    let (length, by_value, align) = (-1, false, pg_sys::TYPALIGN_INT as core::ffi::c_char);
    // SAFETY: the members are of the type, whose storage is as told.
    pg_sys::Datum::from(unsafe {
        pg_sys::construct_array(members.as_mut_ptr(), members.len() as i32, pg_sys::TEXTOID, length, by_value, align)
    })
}

/// The statement for which an event trigger is called; None if it is called for another event.
///
/// # Safety
/// `fcinfo` is what the server passed.
pub unsafe fn statement(fcinfo: pg_sys::FunctionCallInfo, event: &CStr) -> Option<*mut pg_sys::Node> {
    // SAFETY: the caller's promise. Called as an event trigger, its context is the trigger's data.
    unsafe {
        let context = (*fcinfo).context;
        if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_EventTriggerData {
            error!("this function can only be called by an event trigger");
        }
        let data: *const pg_sys::EventTriggerData = context.cast();
        let is_wanted = CStr::from_ptr((*data).event) == event && !(*data).parsetree.is_null();
        is_wanted.then_some((*data).parsetree)
    }
}
