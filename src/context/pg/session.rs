//! The session's context, which is the setting `bemi.context`.
use core::ffi::{CStr, c_char, c_void};
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::gucs;
use crate::context::setting::{self, Value};
use crate::document::context::{Context, ContextError};
use crate::document::json::Charset;
use crate::sys::encoding;
use crate::sys::guc::{self, Scope};

const SETTING: &CStr = c"bemi.context";

/// The value of `bemi.context`, kept by the server.
static mut CONTEXT: *mut c_char = core::ptr::null_mut();

thread_local! {
    /// Counts the values that `bemi.context` has had, so that the same value is recognised without a look at it.
    static REVISION: Cell<u64> = const { Cell::new(0) };
    /// The value, once a statement has needed it.
    static SESSION: RefCell<Option<Rc<Session>>> = const { RefCell::new(None) };
}

/// A value of `bemi.context`.
pub struct Session {
    /// The value as it was read.
    pub context: Context,
    /// Its compact form; empty for no context.
    pub content: Rc<str>,
}

/// Defines the setting. The server checks here a value that was set before the library was loaded.
pub fn define() {
    // SAFETY: CONTEXT is a static, so the server may write there as long as the process lives. The hooks are guarded,
    // and the server copies the texts.
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
    // A parallel worker takes over values that its leader has checked, in an order of its own.
    // SAFETY: reads a flag of the process.
    let limit = if unsafe { pg_sys::InitializingParallelWorker } { usize::MAX } else { gucs::max_context_size() };
    let text = text.to_bytes();
    let converted: Cow<'_, [u8]>;
    let value = if encoding::charset() == Charset::Utf8 {
        Value::Utf8(text)
    // SAFETY: reads the state of the process.
    } else if unsafe { pg_sys::IsTransactionState() } {
        converted = encoding::to_utf8_lossy(text);
        Value::Converted(text, &converted)
    } else {
        Value::Unconverted(text)
    };
    match setting::check(value, limit) {
        Ok(()) => true,
        Err(error) => {
            // SAFETY: the server reads these right after this hook, from memory that lives as long as the error.
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
    // SAFETY: ErrorContext exists as long as the process, and the new memory has room for the text and a NUL.
    unsafe {
        let copy: *mut c_char = pg_sys::MemoryContextAlloc(pg_sys::ErrorContext, text.len() + 1).cast();
        core::ptr::copy_nonoverlapping(text.as_ptr().cast(), copy, text.len());
        *copy.add(text.len()) = 0;
        copy
    }
}

/// Returns the primary message of an error.
pub fn error_message(error: &ContextError) -> &'static str {
    match error {
        ContextError::TooLong(..) => "the value of \"bemi.context\" is too long",
        ContextError::TooMany => "the value of \"bemi.context\" has too many members",
        ContextError::TooDeep => "the value of \"bemi.context\" is nested too deep",
        ContextError::Syntax(_) | ContextError::NotAnObject(_) => "the value of \"bemi.context\" is not a JSON object",
        _ => "the value of \"bemi.context\" is not a JSON object that jsonb accepts",
    }
}

/// Returns the hint of an error.
pub fn error_hint(error: &ContextError) -> &'static str {
    match error {
        ContextError::TooLong(..) => "Keep less in the context, or have a superuser raise \"bemi.max_context_size\".",
        ContextError::TooMany => "Keep less in the context: identifiers rather than whole objects.",
        _ => "Write it like {\"user_id\": 187234, \"endpoint\": \"/todo\"}.",
    }
}

/// Returns a number that changes with each new value of `bemi.context`.
pub fn revision() -> u64 {
    REVISION.get()
}

/// Returns the value of `bemi.context`: empty, or JSON in the database's encoding.
fn value() -> Vec<u8> {
    // SAFETY: the server stores only null or a C string there, and changes it only by running a statement.
    unsafe { if CONTEXT.is_null() { Vec::new() } else { CStr::from_ptr(CONTEXT).to_bytes().to_vec() } }
}

/// Returns the session's context.
pub fn session() -> Rc<Session> {
    if let Some(session) = SESSION.with_borrow(Clone::clone) {
        return session;
    }
    let text = value();
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

/// Returns the compact form of a context; empty for none.
pub fn compact(context: &Context) -> Rc<str> {
    if context.is_empty() { "".into() } else { context.to_json(encoding::charset()).into() }
}

/// Sets `bemi.context`, for the session or for the transaction.
pub fn set(text: &[u8], is_local: bool) {
    let text = [text, b"\0"].concat();
    // No `text` or `jsonb` contains a NUL.
    let value = CStr::from_bytes_until_nul(&text).unwrap_or_default();
    guc::set(SETTING, value, if is_local { Scope::Transaction } else { Scope::Session });
}
