//! The functions that make rows, keys and literals of what is recorded.
use core::ffi::CStr;

use pgrx::memcxt::PgMemoryContexts;
use pgrx::pg_sys;
use pgrx::prelude::*;

use super::image::Reader;
use crate::history::jsonb::{self, Value};
use crate::sys::{self, arguments, arguments::argument};

/// `bemi.image_row(anyelement, jsonb)`: the row of the type of the first argument whose image the second one is.
///
/// # Safety
/// Called by the server.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_image_row(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the server's call, whose second argument is jsonb.
    unsafe {
        let Some(image) = argument(fcinfo, 1) else { return null(fcinfo) };
        let type_oid = pg_sys::get_fn_expr_argtype((*fcinfo).flinfo, 0);
        if pg_sys::get_typtype(type_oid) as u8 != pg_sys::TYPTYPE_COMPOSITE {
            error!("bemi.image_row() makes rows of tables");
        }
        read(fcinfo, type_oid, image)
    }
}

/// `bemi.key_value(text, anyelement)`: the value of the type of the second argument whose text the first one is.
///
/// # Safety
/// Called by the server.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_key_value(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the server's call, whose first argument is text.
    unsafe {
        let Some(key) = argument(fcinfo, 0) else { return null(fcinfo) };
        let type_oid = pg_sys::get_fn_expr_argtype((*fcinfo).flinfo, 1);
        if pg_sys::get_typtype(type_oid) as u8 == pg_sys::TYPTYPE_DOMAIN {
            error!("bemi.key_value() makes values of types that are not domains");
        }
        let text = pg_sys::text_to_cstring(key.cast_mut_ptr());
        reader(fcinfo, type_oid).input(text)
    }
}

/// `bemi.value_text(oid, jsonb)`: the text of the value of a type that was recorded so.
///
/// # Safety
/// Called by the server, with arguments that are not null.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_value_text(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the server's call; the value that is read is of the type, or of that of which it is a domain, whose output
    // function is the same.
    unsafe {
        let type_oid = argument(fcinfo, 0).map_or(pg_sys::InvalidOid, |datum| pg_sys::Oid::from(datum.value() as u32));
        let image = argument(fcinfo, 1).unwrap_or(pg_sys::Datum::from(0));
        let mut reader = Reader::new(type_oid, -1, pg_sys::CurrentMemoryContext, (*(*fcinfo).flinfo).fn_oid);
        let image = pg_sys::pg_detoast_datum(image.cast_mut_ptr());
        let Some(value) = reader.read(root(image)) else { return null(fcinfo) };
        let (mut output, mut is_varlena) = (pg_sys::InvalidOid, false);
        pg_sys::getTypeOutputInfo(type_oid, &mut output, &mut is_varlena);
        arguments::text(CStr::from_ptr(pg_sys::OidOutputFunctionCall(output, value)).to_bytes())
    }
}

/// `bemi.enum_number(anyenum)`: the OID that a label of an enum is stored as. Unlike labels, OIDs are compared by an operator that
/// no cast of the enum's owner can lead to another one.
///
/// # Safety
/// Called by the server, with an argument that is not null.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_enum_number(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the server's call; an enum is stored as an OID.
    unsafe { argument(fcinfo, 0).unwrap_or_else(|| null(fcinfo)) }
}

/// # Safety
/// `fcinfo` is what the server passed.
unsafe fn null(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the caller's promise.
    unsafe { (*fcinfo).isnull = true };
    pg_sys::Datum::from(0)
}

/// # Safety
/// `fcinfo` is what the server passed; the value is a `jsonb`.
unsafe fn read(fcinfo: pg_sys::FunctionCallInfo, type_oid: pg_sys::Oid, image: pg_sys::Datum) -> pg_sys::Datum {
    // SAFETY: the caller's promise; what is detoasted so has a header of four bytes.
    unsafe {
        let image = pg_sys::pg_detoast_datum(image.cast_mut_ptr());
        reader(fcinfo, type_oid).read(root(image)).unwrap_or_else(|| null(fcinfo))
    }
}

/// # Safety
/// The value is a `jsonb` with a header of four bytes, and stays as it is meanwhile.
unsafe fn root<'a>(image: *const pg_sys::varlena) -> Value<'a> {
    // SAFETY: the caller's promise.
    let stored = unsafe { pgrx::varlena::varlena_to_byte_slice(image) };
    let Some(value) = jsonb::root(stored) else { error!("an image could not be read from jsonb") };
    value
}

/// The reader of a type, which is kept as long as the call's expression.
///
/// # Safety
/// `fcinfo` is what the server passed; the expression asks for one type only.
unsafe fn reader<'a>(fcinfo: pg_sys::FunctionCallInfo, type_oid: pg_sys::Oid) -> &'a mut Reader {
    // SAFETY: the caller's promise; `fn_extra` is ours, and is null or what was put there, which lives as long as `fn_mcxt`.
    unsafe {
        let function = &mut *(*fcinfo).flinfo;
        if function.fn_extra.is_null() {
            let reader = Reader::new(type_oid, -1, function.fn_mcxt, function.fn_oid);
            function.fn_extra = PgMemoryContexts::For(function.fn_mcxt).leak_and_drop_on_delete(reader).cast();
        }
        &mut *function.fn_extra.cast::<Reader>()
    }
}

sys::sql_callable!(
    pg_finfo_bemi_image_row,
    pg_finfo_bemi_key_value,
    pg_finfo_bemi_value_text,
    pg_finfo_bemi_enum_number
);
