//! The server's side of stage 1: settings, SQL functions, and the context of the running statement.
use core::ffi::{CStr, c_char, c_void};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, direct_function_call_as_datum, pg_sys};

use super::{comment, value};
use crate::encoding;
use crate::sys;
use crate::wire::{self, Context, ContextError};

const SETTING: &CStr = c"bemi.context";

/// The value of `bemi.context`, kept by the server.
static mut CONTEXT: *mut c_char = core::ptr::null_mut();

/// A megabyte holds what any request has to say, and is far from what a message in the log may have.
static MAX_CONTEXT_SIZE: GucSetting<i32> = GucSetting::<i32>::new(1_000_000);
/// On, since the ORM packages send contexts as comments.
static READ_COMMENTS: GucSetting<bool> = GucSetting::<bool>::new(true);
/// Off, since a statement's text may hold what the log should not.
static CAPTURE_QUERY: GucSetting<bool> = GucSetting::<bool>::new(false);

thread_local! {
    /// Counts the values that `bemi.context` has had, so that the same value is recognised without a look at it.
    static REVISION: Cell<u64> = const { Cell::new(0) };
    /// The value, read once a statement has needed it.
    static SESSION: RefCell<Option<Rc<Session>>> = const { RefCell::new(None) };
    /// The client's statement that was warned of last (its start, in microseconds), to warn once.
    static WARNED: Cell<i64> = const { Cell::new(i64::MIN) };
}

/// A value of `bemi.context`.
struct Session {
    context: Context,
    /// Its compact form; empty for no context.
    content: Rc<str>,
}

/// Defines the settings. A value that was set before the library was loaded is checked here.
pub fn init() {
    GucRegistry::define_int_guc(
        c"bemi.max_context_size",
        c"Sets the maximum size of a context, in bytes.",
        c"A longer context is refused in bemi.context and shown as unreadable in a comment.",
        &MAX_CONTEXT_SIZE,
        2,
        64 << 20,
        GucContext::Suset,
        GucFlags::UNIT_BYTE,
    );
    GucRegistry::define_bool_guc(
        c"bemi.read_comments",
        c"Reads contexts from comments of the form /*Bemi {...} Bemi*/.",
        c"",
        &READ_COMMENTS,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"bemi.capture_query",
        c"Adds the text of the statement to its context, under the key \"SQL\".",
        c"",
        &CAPTURE_QUERY,
        GucContext::Userset,
        GucFlags::default(),
    );
    // SAFETY: the server keeps the address of a static; both hooks are guarded.
    unsafe {
        pg_sys::DefineCustomStringVariable(
            SETTING.as_ptr(),
            c"Sets the context of the changes that follow: a JSON object.".as_ptr(),
            c"Empty for no context.".as_ptr(),
            &raw mut CONTEXT,
            c"".as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            0,
            Some(check_context),
            Some(assign_context),
            None,
        );
    }
}

/// Accepts only JSON objects. The server may call it outside of a transaction.
#[pg_guard]
unsafe extern "C-unwind" fn check_context(
    newval: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: the server passes a C string, or null for a setting without a value.
    let text = unsafe { if (*newval).is_null() { return true } else { CStr::from_ptr(*newval) } };
    match value::check(text.to_bytes(), encoding::charset(), MAX_CONTEXT_SIZE.get() as usize) {
        Ok(()) => true,
        Err(error) => {
            // SAFETY: these are read right after this hook, from memory that lives as long as the error.
            unsafe {
                pg_sys::GUC_check_errmsg_string = error_text(error_message(&error));
                pg_sys::GUC_check_errdetail_string = error_text(&error.to_string());
                pg_sys::GUC_check_errhint_string = error_text(error_hint(&error));
            }
            false
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn assign_context(_newval: *const c_char, _extra: *mut c_void) {
    REVISION.set(REVISION.get() + 1);
    SESSION.set(None);
}

/// Copies a text to where the server keeps the texts of errors.
fn error_text(text: &str) -> *mut c_char {
    // SAFETY: the memory context exists as long as the process; the function copies as many bytes as it is told.
    unsafe {
        let copy: *mut c_char = pg_sys::MemoryContextAlloc(pg_sys::ErrorContext, text.len() + 1).cast();
        core::ptr::copy_nonoverlapping(text.as_ptr().cast(), copy, text.len());
        *copy.add(text.len()) = 0;
        copy
    }
}

fn error_message(error: &ContextError) -> &'static str {
    match error {
        ContextError::TooLong(..) => "the value of \"bemi.context\" is too long",
        ContextError::Syntax(_) | ContextError::NotAnObject(_) => "the value of \"bemi.context\" is not a JSON object",
        _ => "the value of \"bemi.context\" is not a JSON object that jsonb accepts",
    }
}

fn error_hint(error: &ContextError) -> &'static str {
    match error {
        ContextError::TooLong(..) => "Keep less in the context, or have a superuser raise \"bemi.max_context_size\".",
        _ => "Write it like {\"user_id\": 187234, \"endpoint\": \"/todo\"}.",
    }
}

fn raise(error: &ContextError) -> ! {
    let code = PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE;
    let report = ErrorReport::new(code, error_message(error), "raise");
    report.set_detail(error.to_string()).set_hint(error_hint(error)).report(PgLogLevel::ERROR);
    unreachable!("a report at level ERROR does not return")
}

/// The value of `bemi.context`: empty, or JSON in the database's encoding.
fn setting() -> Vec<u8> {
    // SAFETY: the server keeps a C string there from the definition of the setting on.
    unsafe { if CONTEXT.is_null() { Vec::new() } else { CStr::from_ptr(CONTEXT).to_bytes().to_vec() } }
}

/// The session's context.
fn session() -> Rc<Session> {
    if let Some(session) = SESSION.with_borrow(Clone::clone) {
        return session;
    }
    let text = setting();
    let context = if text.is_empty() {
        Context::default()
    } else {
        let text = encoding::to_utf8_lossy(&text);
        Context::parse(&text).unwrap_or_else(|_| Context::invalid(&text))
    };
    let session = Rc::new(Session { content: compact(&context), context });
    SESSION.set(Some(session.clone()));
    session
}

/// Which of its contexts the session has, if that is all of the running statement's context: a number that changes
/// with each new value of the setting. None if the statement adds something of its own.
pub fn session_revision() -> Option<u64> {
    let adds = CAPTURE_QUERY.get() || READ_COMMENTS.get() && comment::may_occur_in(client_text());
    (!adds).then(|| REVISION.get())
}

/// The context of the running statement as compact JSON; empty for none.
pub fn of_statement() -> Rc<str> {
    if session_revision().is_some() {
        return session().content.clone();
    }
    let mut context = session().context.clone();
    add_statement(&mut context);
    compact(&context)
}

fn compact(context: &Context) -> Rc<str> {
    if context.is_empty() { "".into() } else { context.to_json(encoding::charset()).into() }
}

/// Adds what the running statement brings itself.
fn add_statement(context: &mut Context) {
    let sql = client_text();
    let statement = statement_span(sql.len());
    let limit = MAX_CONTEXT_SIZE.get() as usize;
    let mut comments = Vec::new();
    if READ_COMMENTS.get() && comment::may_occur_in(sql) {
        // SAFETY: reads a setting of the process.
        let plain_backslashes = unsafe { pg_sys::standard_conforming_strings };
        comments = comment::of_statement(sql, statement.clone(), plain_backslashes);
    }
    for comment in &comments {
        let content = encoding::to_utf8_lossy(comment.content);
        context.merge(comment::read(&content, comment.is_terminated, limit).unwrap_or_else(|error| {
            warn_once(&error);
            Context::invalid(&content)
        }));
    }
    if CAPTURE_QUERY.get() && !sql.is_empty() {
        let text = comment::text_without(sql, statement, &comments);
        let text = encoding::to_utf8_lossy(&text);
        let mut end = text.len().min(limit);
        while end > 0 && end < text.len() && text[end] & 0xC0 == 0x80 {
            end -= 1;
        }
        context.set_text(wire::QUERY_KEY, &String::from_utf8_lossy(&text[..end]));
    }
}

/// The text that the client sent: one statement or several.
fn client_text<'a>() -> &'a [u8] {
    // SAFETY: null or a C string that lives as long as the client's statement runs.
    unsafe {
        let text = pg_sys::debug_query_string;
        if text.is_null() { b"" } else { CStr::from_ptr(text).to_bytes() }
    }
}

/// Where in the client's text the running statement stands. Inside of a function it is the client's statement that
/// called it. All of the text, where the server does not say.
fn statement_span(len: usize) -> core::ops::Range<usize> {
    // SAFETY: the portal, where there is one, is the one that runs, with a list of planned statements.
    let planned = unsafe {
        pg_sys::ActivePortal
            .as_ref()
            .filter(|portal| portal.sourceText == pg_sys::debug_query_string)
            .and_then(|portal| sys::first_of_list::<pg_sys::PlannedStmt>(portal.stmts))
            .map(|planned| ((*planned).stmt_location, (*planned).stmt_len))
    };
    match planned {
        Some((location, length)) if location >= 0 && location as usize <= len => {
            let start = location as usize;
            let end = if length > 0 { (start + length as usize).min(len) } else { len };
            start..end
        }
        _ => 0..len,
    }
}

fn warn_once(error: &ContextError) {
    // SAFETY: reads a number that the server keeps.
    let statement = unsafe { pg_sys::GetCurrentStatementStartTimestamp() };
    if WARNED.replace(statement) != statement {
        ereport!(
            WARNING,
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            "the context in the comment of this statement cannot be read",
            format!("{error} It is kept under the key \"{}\".", wire::INVALID_CONTEXT_KEY)
        );
    }
}

fn set(text: &[u8], is_local: bool) {
    let mut text = text.to_vec();
    text.push(0);
    let action = if is_local { pg_sys::GucAction::GUC_ACTION_LOCAL } else { pg_sys::GucAction::GUC_ACTION_SET };
    // SAFETY: both are C strings, which the function copies.
    unsafe {
        pg_sys::set_config_option(
            SETTING.as_ptr(),
            text.as_ptr().cast(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            action,
            true,
            0,
            false,
        );
    }
}

/// An argument of a function called from SQL; None for NULL and for one that is not there.
///
/// # Safety
/// `fcinfo` is what the server passed.
unsafe fn argument(fcinfo: pg_sys::FunctionCallInfo, index: usize) -> Option<pg_sys::Datum> {
    // SAFETY: the caller's promise; the array has as many members as the call has arguments.
    unsafe {
        let arguments = (*fcinfo).args.as_slice((*fcinfo).nargs as usize);
        arguments.get(index).filter(|argument| !argument.isnull).map(|argument| argument.value)
    }
}

/// The text of a `text` argument.
///
/// # Safety
/// As [`argument`]; the argument has the type `text`.
unsafe fn text_argument(fcinfo: pg_sys::FunctionCallInfo, index: usize) -> Option<Vec<u8>> {
    // SAFETY: the caller's promise; detoasted, the value is a varlena.
    unsafe {
        let datum = argument(fcinfo, index)?;
        let text = pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr());
        Some(pgrx::varlena::varlena_to_byte_slice(text).to_vec())
    }
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

/// # Safety
/// `fcinfo` is what the server passed.
unsafe fn set_context(fcinfo: pg_sys::FunctionCallInfo, context: Option<Vec<u8>>) -> pg_sys::Datum {
    // SAFETY: the caller's promise.
    let is_local = unsafe { argument(fcinfo, 1) }.is_some_and(|datum| datum.value() != 0);
    let context = context.unwrap_or_default();
    // The empty setting is no context, but the empty text is no JSON object.
    // SAFETY: the caller's promise.
    if context.is_empty() && unsafe { argument(fcinfo, 0) }.is_some() {
        raise(&ContextError::Syntax("it is empty".to_owned()));
    }
    set(&context, is_local);
    pg_sys::Datum::from(0)
}

/// # Safety
/// `fcinfo` is what the server passed.
unsafe fn merge_context(fcinfo: pg_sys::FunctionCallInfo, context: Option<Vec<u8>>) -> pg_sys::Datum {
    let Some(context) = context else { return pg_sys::Datum::from(0) };
    // SAFETY: the caller's promise.
    let is_local = unsafe { argument(fcinfo, 1) }.is_some_and(|datum| datum.value() != 0);
    let limit = MAX_CONTEXT_SIZE.get() as usize;
    if context.len() > limit {
        raise(&ContextError::TooLong(context.len(), limit));
    }
    let mut merged = session().context.clone();
    merged.merge(Context::parse(&encoding::to_utf8_lossy(&context)).unwrap_or_else(|error| raise(&error)));
    set(merged.to_json(encoding::charset()).as_bytes(), is_local);
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
    set(b"", false);
    pg_sys::Datum::from(0)
}

/// `bemi.context()`.
///
/// # Safety
/// Called by the server.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_context(_fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    let mut text = setting();
    if text.is_empty() {
        text.extend_from_slice(b"{}");
    }
    text.push(0);
    // SAFETY: the function takes a C string and gives a jsonb.
    let jsonb = unsafe { direct_function_call_as_datum(pg_sys::jsonb_in, &[Some(pg_sys::Datum::from(text.as_ptr()))]) };
    jsonb.unwrap_or(pg_sys::Datum::from(0))
}

sys::sql_callable!(
    pg_finfo_bemi_set_context_jsonb,
    pg_finfo_bemi_set_context_text,
    pg_finfo_bemi_merge_context_jsonb,
    pg_finfo_bemi_merge_context_text,
    pg_finfo_bemi_clear_context,
    pg_finfo_bemi_context
);
