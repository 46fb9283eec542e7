//! The functions that make rows, keys and literals of what is recorded.
use core::ffi::CStr;
use std::collections::HashMap;

use pgrx::memcxt::PgMemoryContexts;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::guard;
use super::image::{Failure, Reader};
use super::table::Table;
use crate::history::jsonb::{self, Value};
use crate::sys::{arguments, arguments::argument, function};

/// `bemi.image_row(anyelement, bigint, jsonb)`: the row of the type of the first argument whose image was recorded at a position
/// of the log.
///
/// # Safety
/// Called by the server.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_image_row(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the server's call, whose third argument is jsonb.
    unsafe {
        let (Some(position), Some(image)) = (argument(fcinfo, 1), argument(fcinfo, 2)) else { return null(fcinfo) };
        let type_oid = pg_sys::get_fn_expr_argtype((*fcinfo).flinfo, 0);
        if pg_sys::get_typ_typrelid(type_oid) == pg_sys::InvalidOid {
            error!("bemi.image_row() makes rows of tables");
        }
        let image = pg_sys::pg_detoast_datum(image.cast_mut_ptr());
        let Value::Object(image) = root(image) else { return null(fcinfo) };
        table(fcinfo, type_oid).row(position.value() as i64, image)
    }
}

/// `bemi.image_today(regclass, jsonb, bigint)`: an image that was recorded at a position of the log as it would be recorded today.
///
/// # Safety
/// Called by the server.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_image_today(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the server's call, whose second argument is jsonb.
    unsafe {
        let Some((row_type, image, position)) = recorded(fcinfo) else { return null(fcinfo) };
        let image = pg_sys::pg_detoast_datum(image.cast_mut_ptr());
        let Value::Object(image) = root(image) else { return null(fcinfo) };
        arguments::jsonb(&table(fcinfo, row_type).today(position, image))
    }
}

/// `bemi.image_problems(regclass, jsonb, bigint)`: what keeps values of an image from being read exactly.
///
/// # Safety
/// Called by the server.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_image_problems(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the server's call, whose second argument is jsonb.
    unsafe {
        let Some((row_type, image, position)) = recorded(fcinfo) else { return null(fcinfo) };
        let image = pg_sys::pg_detoast_datum(image.cast_mut_ptr());
        let Value::Object(image) = root(image) else { return null(fcinfo) };
        match table(fcinfo, row_type).problems(position, image) {
            Some(problems) => arguments::jsonb(&problems),
            None => null(fcinfo),
        }
    }
}

/// The row type of a table, an image and its position. None if one is null, or the table is gone.
///
/// # Safety
/// `fcinfo` is what the server passed to a function of a table, a jsonb and a bigint.
unsafe fn recorded(fcinfo: pg_sys::FunctionCallInfo) -> Option<(pg_sys::Oid, pg_sys::Datum, i64)> {
    // SAFETY: the caller's promise; the type is looked up in the catalogs.
    unsafe {
        let relation = pg_sys::Oid::from(argument(fcinfo, 0)?.value() as u32);
        let row_type = pg_sys::get_rel_type_id(relation);
        let is_there = row_type != pg_sys::InvalidOid;
        Some((row_type, argument(fcinfo, 1)?, argument(fcinfo, 2)?.value() as i64)).filter(|_| is_there)
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
        reader(fcinfo, type_oid).input(text).unwrap_or_else(|failure| refuse(&failure))
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
        let mut reader = Reader::new(type_oid, pg_sys::CurrentMemoryContext, (*(*fcinfo).flinfo).fn_oid, None);
        let image = pg_sys::pg_detoast_datum(image.cast_mut_ptr());
        let read = guard::with_pinned(|| reader.read(root(image)));
        let Some(value) = read.unwrap_or_else(|failure| refuse(&failure)) else { return null(fcinfo) };
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

fn refuse(failure: &Failure) -> ! {
    let code = PgSqlErrorCode::ERRCODE_INVALID_TEXT_REPRESENTATION;
    ErrorReport::new(code, failure.0.clone(), "bemi").report(PgLogLevel::ERROR);
    unreachable!("a report at level ERROR does not return")
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
            let reader = Reader::new(type_oid, function.fn_mcxt, function.fn_oid, None);
            function.fn_extra = PgMemoryContexts::For(function.fn_mcxt).leak_and_drop_on_delete(reader).cast();
        }
        &mut *function.fn_extra.cast::<Reader>()
    }
}

/// The tables whose images a call's expression has read.
type Tables = HashMap<u32, Table>;

/// The table of a row type, which is kept as long as the call's expression, or until a definition changes.
///
/// # Safety
/// `fcinfo` is what the server passed.
unsafe fn table<'a>(fcinfo: pg_sys::FunctionCallInfo, row_type: pg_sys::Oid) -> &'a mut Table {
    // SAFETY: the caller's promise; `fn_extra` is ours, and is null or what was put there, which lives as long as `fn_mcxt`.
    unsafe {
        let function = &mut *(*fcinfo).flinfo;
        if function.fn_extra.is_null() {
            function.fn_extra = PgMemoryContexts::For(function.fn_mcxt).leak_and_drop_on_delete(Tables::new()).cast();
        }
        let tables = &mut *function.fn_extra.cast::<Tables>();
        let key = row_type.to_u32();
        if tables.get(&key).is_some_and(Table::is_old)
            && let Some(old) = tables.remove(&key)
        {
            old.free();
        }
        tables.entry(key).or_insert_with(|| Table::new(row_type, function.fn_mcxt, function.fn_oid))
    }
}

function::sql_callable!(
    pg_finfo_bemi_image_row,
    pg_finfo_bemi_image_today,
    pg_finfo_bemi_image_problems,
    pg_finfo_bemi_key_value,
    pg_finfo_bemi_value_text,
    pg_finfo_bemi_enum_number
);
