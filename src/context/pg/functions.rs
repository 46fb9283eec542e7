//! The SQL functions.
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{direct_function_call_as_datum, pg_sys};

use super::{gucs, session};
use crate::document::context::{Context, ContextError};
use crate::document::json::Charset;
use crate::sys::encoding;
use crate::sys::function::{Jsonb, Text, sql_functions};

sql_functions! {
    bemi_set_context_jsonb => set_context_jsonb,
    bemi_set_context_text => set_context_text,
    bemi_merge_context_jsonb => merge_context_jsonb,
    bemi_merge_context_text => merge_context_text,
    bemi_clear_context => clear_context,
    bemi_context => context,
}

/// `bemi.set_context(jsonb, boolean)`.
fn set_context_jsonb(context: Option<Jsonb>, is_local: Option<bool>) {
    set_context(context.map(|context| context.0), is_local.unwrap_or_default());
}

/// `bemi.set_context(text, boolean)`.
fn set_context_text(context: Option<Text>, is_local: Option<bool>) {
    set_context(context.map(|context| context.0), is_local.unwrap_or_default());
}

/// `bemi.merge_context(jsonb, boolean)`.
fn merge_context_jsonb(context: Option<Jsonb>, is_local: Option<bool>) {
    merge_context(context.map(|context| context.0), is_local.unwrap_or_default());
}

/// `bemi.merge_context(text, boolean)`.
fn merge_context_text(context: Option<Text>, is_local: Option<bool>) {
    merge_context(context.map(|context| context.0), is_local.unwrap_or_default());
}

/// `bemi.clear_context()`.
fn clear_context() {
    session::set(b"", false);
}

/// `bemi.context()`.
fn context() -> pg_sys::Datum {
    as_jsonb(&encoding::from_utf8(&session::session().context.to_json(Charset::Utf8)))
}

fn set_context(context: Option<Vec<u8>>, is_local: bool) {
    // The empty setting means no context, but the empty text is no JSON object.
    if context.as_ref().is_some_and(Vec::is_empty) {
        raise(&ContextError::Syntax("it is empty".to_owned()));
    }
    let context = context.unwrap_or_default();
    check_as_jsonb(&context);
    session::set(&context, is_local);
}

fn merge_context(context: Option<Vec<u8>>, is_local: bool) {
    let Some(context) = context else { return };
    let limit = gucs::max_context_size();
    if context.len() > limit {
        raise(&ContextError::TooLong(context.len(), limit));
    }
    check_as_jsonb(&context);
    let mut merged = session::session().context.clone();
    merged.merge(Context::parse(&encoding::to_utf8_lossy(&context)).unwrap_or_else(|error| raise(&error)));
    session::set(&encoding::from_utf8(&merged.to_json(Charset::Utf8)), is_local);
}

fn raise(error: &ContextError) -> ! {
    let code = PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE;
    let report = ErrorReport::new(code, session::error_message(error), "raise");
    report.set_detail(error.to_string()).set_hint(session::error_hint(error)).report(PgLogLevel::ERROR);
    unreachable!("a report at level ERROR does not return")
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
    // SAFETY: the function takes a C string, as which the text ends, and returns a jsonb.
    let jsonb = unsafe { direct_function_call_as_datum(pg_sys::jsonb_in, &[Some(pg_sys::Datum::from(text.as_ptr()))]) };
    jsonb.unwrap_or(pg_sys::Datum::from(0))
}
