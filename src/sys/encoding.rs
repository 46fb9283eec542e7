//! The encoding of the database: what the pure half reads and writes is UTF-8.
use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicI32, Ordering};

use pgrx::pg_sys::errcodes::PgSqlErrorCode;
use pgrx::{PgTryBuilder, pg_sys};

use super::{memory, transaction};
use crate::document::json::Charset;

/// Returns the encoding of the database. It is kept once the process is connected, and not looked up for every value.
#[inline]
fn database_encoding() -> i32 {
    let known = KNOWN.load(Ordering::Relaxed);
    if known >= 0 { known } else { ask_encoding() }
}

static KNOWN: AtomicI32 = AtomicI32::new(-1);

#[cold]
fn ask_encoding() -> i32 {
    // SAFETY: both read a number of the process, which is there before it is connected too.
    let (encoding, database) = unsafe { (pg_sys::GetDatabaseEncoding(), pg_sys::MyDatabaseId) };
    if database != pg_sys::InvalidOid {
        KNOWN.store(encoding, Ordering::Relaxed);
    }
    encoding
}

/// Returns how text beyond ASCII is written so that it is valid in this database.
pub fn charset() -> Charset {
    if database_encoding() == pg_sys::pg_enc::PG_UTF8 as i32 { Charset::Utf8 } else { Charset::Ascii }
}

/// Returns whether the database knows what its bytes beyond ASCII mean.
pub fn is_known() -> bool {
    database_encoding() != pg_sys::pg_enc::PG_SQL_ASCII as i32
}

/// Converts text of this database to UTF-8. Raises the server's error if a character has no such form.
///
/// It needs a transaction, in which the server finds the conversion.
pub fn to_utf8(text: &[u8]) -> Cow<'_, [u8]> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    if [pg_sys::pg_enc::PG_UTF8, pg_sys::pg_enc::PG_SQL_ASCII].contains(&(database_encoding() as u32)) {
        // In SQL_ASCII the database does not know what its bytes mean; UTF-8 is the most likely. In UTF-8, names of
        // databases, roles and origins may come from a database in another encoding.
        return crate::document::json::utf8_lossy(text).unwrap_or_else(|_| memory::out_of_memory());
    }
    // SAFETY: the function reads the bytes of the slice, and returns the text itself or a new C string, which is copied
    // before it is freed.
    unsafe {
        let utf8 = pg_sys::pg_server_to_any(text.as_ptr().cast(), text.len() as i32, pg_sys::pg_enc::PG_UTF8 as i32);
        if core::ptr::eq(utf8.cast(), text.as_ptr()) {
            return Cow::Borrowed(text);
        }
        let copy = memory::copy(core::ffi::CStr::from_ptr(utf8).to_bytes());
        pg_sys::pfree(utf8.cast());
        Cow::Owned(copy)
    }
}

/// Converts bytes to UTF-8 that may not be text of this database; None if they are not.
pub fn to_utf8_if_text(bytes: &[u8]) -> Option<Cow<'_, [u8]>> {
    if bytes.is_ascii() {
        return Some(Cow::Borrowed(bytes));
    }
    if [pg_sys::pg_enc::PG_UTF8, pg_sys::pg_enc::PG_SQL_ASCII].contains(&(database_encoding() as u32)) {
        return std::str::from_utf8(bytes).ok().map(|_| Cow::Borrowed(bytes));
    }
    // What a conversion raises because of the text, or because it does not exist; anything else is passed on.
    let of_text = [
        PgSqlErrorCode::ERRCODE_CHARACTER_NOT_IN_REPERTOIRE,
        PgSqlErrorCode::ERRCODE_UNTRANSLATABLE_CHARACTER,
        PgSqlErrorCode::ERRCODE_UNDEFINED_FUNCTION,
        // In UTF-8 it is longer than the server can hold.
        PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
    ];
    transaction::in_transaction(|| {
        let mut attempt = PgTryBuilder::new(AssertUnwindSafe(|| Some(to_utf8(bytes))));
        for code in of_text {
            attempt = attempt.catch_when(code, |_| None);
        }
        attempt.execute()
    })
}

/// As [`to_utf8`], but where the server cannot convert a text, what is beyond ASCII is shown as U+FFFD.
pub fn to_utf8_lossy(text: &[u8]) -> Cow<'_, [u8]> {
    if [pg_sys::pg_enc::PG_UTF8, pg_sys::pg_enc::PG_SQL_ASCII].contains(&(database_encoding() as u32)) {
        return to_utf8(text);
    }
    to_utf8_if_text(text).unwrap_or_else(|| {
        let mut shown = Vec::new();
        for part in text.chunk_by(|one, next| one.is_ascii() && next.is_ascii()) {
            memory::append(&mut shown, if part.is_ascii() { part } else { "\u{FFFD}".as_bytes() });
        }
        Cow::Owned(shown)
    })
}

/// Returns text in UTF-8 as a message of the server may hold it, whatever the database's encoding.
pub fn message_text(text: &str) -> String {
    if charset() == Charset::Utf8 { text.to_owned() } else { crate::document::json::escape_non_ascii(text) }
}

/// Converts text in UTF-8 to the encoding of this database. Raises the server's error if a character has no such form.
pub fn from_utf8(text: &str) -> Vec<u8> {
    if text.is_ascii() || charset() == Charset::Utf8 {
        return text.as_bytes().to_vec();
    }
    // The result is in the current memory context, or it is the text itself, which then has the given length.
    // SAFETY: the function reads the bytes of the slice; a result of its own is a C string.
    unsafe {
        let ours = pg_sys::pg_any_to_server(text.as_ptr().cast(), text.len() as i32, pg_sys::pg_enc::PG_UTF8 as i32);
        if core::ptr::eq(ours.cast(), text.as_ptr()) {
            return text.as_bytes().to_vec();
        }
        core::ffi::CStr::from_ptr(ours).to_bytes().to_vec()
    }
}
