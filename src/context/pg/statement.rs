//! The context of the running statement.
use core::ffi::{CStr, c_char};
use core::ops::Range;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::{gucs, session};
use crate::context::comment::{self, Comment, Outline, State, Strings};
use crate::context::composition::Composition;
use crate::document::context::{Context, ContextError, INVALID_CONTEXT_KEY, QUERY_KEY};
use crate::sys::{encoding, guc, node};

/// The text that the client sent: one statement or several.
struct ClientText {
    /// Where it is, and when it arrived, in microseconds: the same place may hold another text later.
    at: *const c_char,
    came: i64,
    len: usize,
    /// Its comments, if it has any.
    outline: Option<Outline>,
}

thread_local! {
    /// The text that was read last, since a text may hold thousands of statements, and one may call thousands more.
    static TEXT: RefCell<Option<Rc<ClientText>>> = const { RefCell::new(None) };
    /// The statement of the last warning: when its text arrived, and where in the text it begins.
    static WARNED: Cell<(i64, usize)> = const { Cell::new((i64::MIN, 0)) };
}

impl ClientText {
    fn bytes(&self) -> &[u8] {
        // SAFETY: `client_text`, which alone makes or returns one, has found that the server still shows this text, and
        // the server keeps it until the statement ends. Its length was measured.
        unsafe { core::slice::from_raw_parts(self.at.cast(), self.len) }
    }
}

/// Returns the text whose statement runs; None in a process that serves no client.
fn client_text() -> Option<Rc<ClientText>> {
    // SAFETY: reads a pointer and a number of the process.
    let (at, came) = unsafe { (pg_sys::debug_query_string, pg_sys::GetCurrentStatementStartTimestamp()) };
    if at.is_null() {
        return None;
    }
    if let Some(known) = TEXT.with_borrow(Clone::clone)
        && core::ptr::eq(known.at, at)
        && known.came == came
    {
        return Some(known);
    }
    // SAFETY: what is not null is a C string, which the server keeps as long as the client's statement runs.
    let text = unsafe { CStr::from_ptr(at) }.to_bytes();
    let outline = comment::may_occur_in(text).then(|| Outline::read(text, strings()));
    let text = Rc::new(ClientText { at, came, len: text.len(), outline });
    TEXT.set(Some(text.clone()));
    Some(text)
}

/// Returns a number for the session's context, which changes with each new value of the setting, if that is all of the
/// running statement's context. None if the statement adds something of its own.
pub fn session_revision() -> Option<u64> {
    let adds =
        gucs::capture_query() || gucs::read_comments() && client_text().is_some_and(|text| text.outline.is_some());
    (!adds).then(session::revision)
}

/// Returns the context of the running statement as compact JSON, at most as long as `bemi.max_context_size` allows;
/// empty for none.
pub fn content() -> Rc<str> {
    let session = session::session();
    let limit = gucs::max_context_size();
    let is_all = session_revision().is_some();
    if is_all && session.content.len() <= limit {
        return session.content.clone();
    }
    if session.context.is_empty()
        && let Some(content) = plain_comment()
    {
        return if content == "{}" { session.content.clone() } else { content.into() };
    }
    let mut context = Composition::new(session.context.clone(), limit, encoding::charset());
    if !is_all {
        add_statement(&mut context, limit);
    }
    session::compact(&context.finish())
}

/// Returns the context of the running statement's comment as compact JSON, if that is all that the statement adds, and
/// written plainly, as most are.
fn plain_comment() -> Option<String> {
    if gucs::capture_query() || !gucs::read_comments() {
        return None;
    }
    let text = client_text()?;
    let sql = text.bytes();
    match text.outline.as_ref()?.comments(statement_span(sql.len())) {
        [Comment { content, state: State::Whole, .. }] if content.len() <= gucs::max_context_size() => {
            Context::plain(&sql[content.clone()])
        }
        _ => None,
    }
}

/// Adds what the running statement itself brings.
fn add_statement(context: &mut Composition, limit: usize) {
    let Some(text) = client_text() else { return };
    let sql = text.bytes();
    let statement = statement_span(sql.len());
    let mut comments: &[Comment] = &[];
    if gucs::read_comments()
        && let Some(outline) = &text.outline
    {
        comments = outline.comments(statement.clone());
    }
    let whole = statement.unwrap_or(0..sql.len());
    for comment in comments {
        let content = encoding::to_utf8_lossy(&sql[comment.content.clone()]);
        let read = comment::read(&content, comment.state, limit);
        if let Err(error) = read.and_then(|read| context.merge(read)) {
            warn_once(&error, text.came, whole.start);
            context.add_invalid(&content);
        }
    }
    if gucs::capture_query() {
        let text = comment::text_without(sql, whole, comments);
        context.set_text(QUERY_KEY, &encoding::to_utf8_lossy(&text));
    }
}

/// Returns how the server read the client's text: by `standard_conforming_strings` as it was then. A statement of the
/// text or a function may have set it since; so the answer is sure only where the setting is on and nobody has set it.
fn strings() -> Strings {
    // SAFETY: reads a setting of the process.
    let is_on = unsafe { pg_sys::standard_conforming_strings };
    if is_on && guc::standard_conforming_strings_is_untouched() { Strings::Standard } else { Strings::Unsure }
}

/// Returns where in the client's text the running statement stands. Inside of a function it is the client's statement
/// that called it. None where the server does not know: in deferred triggers, which run at the end of the transaction.
fn statement_span(len: usize) -> Option<Range<usize>> {
    // What EXECUTE, FETCH and loops in functions run has a portal of its own; the client's statement, if it came in a
    // text of several, is in the unnamed one.
    // SAFETY: a portal that is not null has a list of planned statements, which stays as it is while the portal runs.
    let planned = unsafe {
        let is_the_clients = |portal: pg_sys::Portal| {
            portal.as_ref().filter(|portal| core::ptr::eq(portal.sourceText, pg_sys::debug_query_string))
        };
        is_the_clients(pg_sys::ActivePortal)
            .or_else(|| is_the_clients(pg_sys::GetPortalByName(c"".as_ptr())))
            .into_iter()
            .flat_map(|portal| node::members::<pg_sys::PlannedStmt>(portal.stmts))
            .map(|planned| ((*planned).stmt_location, (*planned).stmt_len))
            // What a rule adds has no place in the text.
            .find(|(location, _)| *location >= 0)
    };
    let (location, length) = planned?;
    let start = usize::try_from(location).ok().filter(|start| *start <= len)?;
    let end = if length > 0 { (start + length as usize).min(len) } else { len };
    Some(start..end)
}

fn warn_once(error: &ContextError, came: i64, start: usize) {
    if WARNED.replace((came, start)) != (came, start) {
        ereport!(
            WARNING,
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            "the context in the comment of this statement cannot be read",
            format!("{error} It is kept under the key \"{}\".", INVALID_CONTEXT_KEY)
        );
    }
}
