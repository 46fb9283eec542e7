//! The functions that make rows, keys and literals of what is recorded.
use core::ffi::CStr;
use std::collections::HashMap;

use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::guard;
use super::home::Home;
use super::image::{Failure, Reader, sound};
use super::table::Table;
use crate::history::stored_jsonb::{self, Container, Value};
use crate::sys::call::Call;
use crate::sys::{arguments, function};

/// `bemi.image_row(anyelement, bigint, jsonb)`: the row of the type of the first argument whose image was recorded at a position
/// of WAL.
///
/// # Safety
/// Called by the server.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_image_row(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the server calls this with the arguments above.
    let mut call = unsafe { Call::new(&fcinfo) };
    let (Some(position), Some(image)) = (call.bigint(1), call.jsonb(2)) else { return call.null() };
    let type_oid = call.type_of(0);
    // SAFETY: looks a type up in the catalogs.
    if unsafe { pg_sys::get_typ_typrelid(type_oid) } == pg_sys::InvalidOid {
        error!("bemi.image_row() makes rows of tables");
    }
    let Value::Object(image) = root(image) else { return call.null() };
    table(&mut call, type_oid).row(position, image)
}

/// `bemi.image_today(regclass, jsonb, bigint)`: an image that was recorded at a position of WAL as it would be recorded today.
///
/// # Safety
/// Called by the server.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_image_today(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the server calls this with the arguments above.
    let mut call = unsafe { Call::new(&fcinfo) };
    let Some((row_type, image, position)) = recorded(&call) else { return call.null() };
    arguments::jsonb(&table(&mut call, row_type).today(position, image))
}

/// `bemi.image_problems(regclass, jsonb, bigint)`: what keeps values of an image from being read exactly.
///
/// # Safety
/// Called by the server.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_image_problems(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the server calls this with the arguments above.
    let mut call = unsafe { Call::new(&fcinfo) };
    let Some((row_type, image, position)) = recorded(&call) else { return call.null() };
    match table(&mut call, row_type).problems(position, image) {
        Some(problems) => arguments::jsonb(&problems),
        None => call.null(),
    }
}

/// The row type of a table, an image of a row and its position, of a call with a table, a jsonb and a bigint. None if one is null,
/// the table is gone, or the image is not one of a row.
fn recorded<'call>(call: &Call<'call>) -> Option<(pg_sys::Oid, Container<'call>, i64)> {
    // SAFETY: looks a relation up in the catalogs; there is no type for one that is gone.
    let row_type = unsafe { pg_sys::get_rel_type_id(call.oid(0)?) };
    let (image, position) = (call.jsonb(1)?, call.bigint(2)?);
    match root(image) {
        Value::Object(image) if row_type != pg_sys::InvalidOid => Some((row_type, image, position)),
        _ => None,
    }
}

/// `bemi.key_value(text, anyelement)`: the value of the type of the second argument whose text the first one is.
///
/// # Safety
/// Called by the server.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_key_value(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the server calls this with the arguments above.
    let mut call = unsafe { Call::new(&fcinfo) };
    let Some(key) = call.text(0) else { return call.null() };
    let type_oid = call.type_of(1);
    // SAFETY: looks a type up in the catalogs.
    if unsafe { pg_sys::get_typtype(type_oid) } as u8 == pg_sys::TYPTYPE_DOMAIN {
        error!("bemi.key_value() makes values of types that are not domains");
    }
    // The expression asks for one type only.
    let home = Home::of(&call);
    let reader = call.kept(|| Reader::new(type_oid, home, None));
    reader.input(key).unwrap_or_else(|failure| refuse(&failure))
}

/// `bemi.value_text(oid, jsonb)`: the text of the value of a type that was recorded so.
///
/// # Safety
/// Called by the server, with arguments that are not null.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_value_text(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the server calls this with the arguments above.
    let mut call = unsafe { Call::new(&fcinfo) };
    let (Some(type_oid), Some(image)) = (call.oid(0), call.jsonb(1)) else { return call.null() };
    let mut reader = Reader::new(type_oid, Home::of_this_call(&call), None);
    let read = guard::with_pinned(|| reader.read(root(image)));
    let Some(value) = read.unwrap_or_else(|failure| refuse(&failure)) else { return call.null() };
    let (mut output, mut is_varlena) = (pg_sys::InvalidOid, false);
    // SAFETY: the value is of the type, or of that of which it is a domain, whose output function is the same and returns a C
    // string.
    unsafe {
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
    // SAFETY: the server calls this with the argument above.
    let mut call = unsafe { Call::new(&fcinfo) };
    call.value(0).unwrap_or_else(|| call.null())
}

fn refuse(failure: &Failure) -> ! {
    let code = PgSqlErrorCode::ERRCODE_INVALID_TEXT_REPRESENTATION;
    ErrorReport::new(code, failure.0.clone(), "bemi").report(PgLogLevel::ERROR);
    unreachable!("a report at level ERROR does not return")
}

/// The value of a `jsonb`.
fn root(image: &[u8]) -> Value<'_> {
    sound(stored_jsonb::root(image))
}

/// The tables whose images a call's expression has read.
type Tables = HashMap<u32, Table>;

/// Returns the table of a row type, which is kept as long as the call's expression, or until a definition changes.
fn table<'a>(call: &'a mut Call, row_type: pg_sys::Oid) -> &'a mut Table {
    let home = Home::of(call);
    let tables: &mut Tables = call.kept(Tables::new);
    let key = row_type.to_u32();
    if tables.get(&key).is_some_and(Table::is_old)
        && let Some(old) = tables.remove(&key)
    {
        old.free();
    }
    tables.entry(key).or_insert_with(|| Table::new(row_type, home))
}

function::sql_callable!(
    pg_finfo_bemi_image_row,
    pg_finfo_bemi_image_today,
    pg_finfo_bemi_image_problems,
    pg_finfo_bemi_key_value,
    pg_finfo_bemi_value_text,
    pg_finfo_bemi_enum_number
);
