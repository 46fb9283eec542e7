//! The SQL functions.
use core::ffi::CStr;

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{direct_function_call_as_datum, pg_sys};

use super::settings;
use crate::document::context::{Context, ContextError};
use crate::document::json::Charset;
use crate::sys::arguments::{argument, text_argument};
use crate::sys::{self, encoding};

fn raise(error: &ContextError) -> ! {
    let code = PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE;
    let report = ErrorReport::new(code, settings::error_message(error), "raise");
    report.set_detail(error.to_string()).set_hint(settings::error_hint(error)).report(PgLogLevel::ERROR);
    unreachable!("a report at level ERROR does not return")
}

/// The text of a `jsonb` argument.
///
/// # Safety
/// As [`argument`]; the argument has the type `jsonb`.
unsafe fn jsonb_argument(fcinfo: pg_sys::FunctionCallInfo, index: usize) -> Option<Vec<u8>> {
    // SAFETY: the caller's promise; detoasted, the value is a Jsonb, whose text is a C string.
    unsafe {
        let datum = argument(fcinfo, index)?;
        let jsonb: *mut pg_sys::Jsonb = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast();
        let size = pgrx::varlena::varsize(jsonb.cast());
        let text = pg_sys::JsonbToCString(core::ptr::null_mut(), &raw mut (*jsonb).root, size as i32);
        Some(CStr::from_ptr(text).to_bytes().to_vec())
    }
}

/// Raises the server's own error for what is no `jsonb` in this database: in one that is not in UTF-8, an escape like
/// `\u65e5` may stand for a character that it does not have.
fn check_as_jsonb(text: &[u8]) {
    if encoding::charset() == Charset::Ascii && memchr::memmem::find(text, b"\\u").is_some() {
        as_jsonb(text);
    }
}

fn as_jsonb(text: &[u8]) -> pg_sys::Datum {
    let text = [text, b"\0"].concat();
    // SAFETY: the function takes a C string and gives a jsonb.
    let jsonb = unsafe { direct_function_call_as_datum(pg_sys::jsonb_in, &[Some(pg_sys::Datum::from(text.as_ptr()))]) };
    jsonb.unwrap_or(pg_sys::Datum::from(0))
}

/// # Safety
/// `fcinfo` is what the server passed.
unsafe fn set_context(fcinfo: pg_sys::FunctionCallInfo, context: Option<Vec<u8>>) -> pg_sys::Datum {
    // SAFETY: the caller's promise.
    let is_local = unsafe { argument(fcinfo, 1) }.is_some_and(|datum| datum.value() != 0);
    let is_null = context.is_none();
    let context = context.unwrap_or_default();
    // The empty setting is no context, but the empty text is no JSON object.
    if context.is_empty() && !is_null {
        raise(&ContextError::Syntax("it is empty".to_owned()));
    }
    check_as_jsonb(&context);
    settings::set(&context, is_local);
    pg_sys::Datum::from(0)
}

/// # Safety
/// `fcinfo` is what the server passed.
unsafe fn merge_context(fcinfo: pg_sys::FunctionCallInfo, context: Option<Vec<u8>>) -> pg_sys::Datum {
    let Some(context) = context else { return pg_sys::Datum::from(0) };
    // SAFETY: the caller's promise.
    let is_local = unsafe { argument(fcinfo, 1) }.is_some_and(|datum| datum.value() != 0);
    let limit = settings::max_context_size();
    if context.len() > limit {
        raise(&ContextError::TooLong(context.len(), limit));
    }
    check_as_jsonb(&context);
    let mut merged = settings::session().context.clone();
    merged.merge(Context::parse(&encoding::to_utf8_lossy(&context)).unwrap_or_else(|error| raise(&error)));
    settings::set(&encoding::from_utf8(&merged.to_json(Charset::Utf8)), is_local);
    pg_sys::Datum::from(0)
}

/// `bemi.set_context(jsonb, boolean)`.
///
/// # Safety
/// Called by the server.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_set_context_jsonb(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the server's call.
    unsafe { set_context(fcinfo, jsonb_argument(fcinfo, 0)) }
}

/// `bemi.set_context(text, boolean)`.
///
/// # Safety
/// Called by the server.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_set_context_text(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the server's call.
    unsafe { set_context(fcinfo, text_argument(fcinfo, 0)) }
}

/// `bemi.merge_context(jsonb, boolean)`.
///
/// # Safety
/// Called by the server.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_merge_context_jsonb(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the server's call.
    unsafe { merge_context(fcinfo, jsonb_argument(fcinfo, 0)) }
}

/// `bemi.merge_context(text, boolean)`.
///
/// # Safety
/// Called by the server.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_merge_context_text(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the server's call.
    unsafe { merge_context(fcinfo, text_argument(fcinfo, 0)) }
}

/// `bemi.clear_context()`.
///
/// # Safety
/// Called by the server.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_clear_context(_fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    settings::set(b"", false);
    pg_sys::Datum::from(0)
}

/// `bemi.context()`.
///
/// # Safety
/// Called by the server.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_context(_fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    as_jsonb(&encoding::from_utf8(&settings::session().context.to_json(Charset::Utf8)))
}

sys::sql_callable!(
    pg_finfo_bemi_set_context_jsonb,
    pg_finfo_bemi_set_context_text,
    pg_finfo_bemi_merge_context_jsonb,
    pg_finfo_bemi_merge_context_text,
    pg_finfo_bemi_clear_context,
    pg_finfo_bemi_context
);
