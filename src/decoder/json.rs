//! JSON text under construction.
#![forbid(unsafe_code)]

use std::fmt;

use crate::json::{self, Charset, NotJsonb};

/// Longest document without its context, in bytes. With the longest context it is still below 1 GiB, which is the
/// most that the server passes on as one text, with room for the headers of the tuple or message that carries it.
pub const MAX_DOCUMENT: usize = 1_000_000_000;

/// Capacity that the buffer keeps from one document to the next, in bytes.
const KEPT_CAPACITY: usize = 1 << 20;

/// Texts below this length, in bytes, are written without asking for memory first, which Rust does by aborting.
const UNCOUNTED: usize = 1 << 16;

/// Why a value is left out of its document, which names it under `omitted`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Omission {
    /// The document would be longer than [`MAX_DOCUMENT`].
    TooLong,
    /// There is no memory for it: no fault of the value, so the server has to hear of it.
    OutOfMemory,
    /// A value of type `json` that `jsonb` could not hold, and so no consumer could store.
    NotJsonb(NotJsonb),
    /// The type's output function failed; its message.
    Output(String),
}

impl fmt::Display for Omission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "the document would be longer than {MAX_DOCUMENT} bytes"),
            Self::OutOfMemory => f.write_str("out of memory"),
            Self::NotJsonb(reason) => write!(f, "json that jsonb cannot hold: {reason}"),
            Self::Output(message) => f.write_str(message),
        }
    }
}

/// A JSON text that grows at its end, up to a limit.
#[derive(Debug)]
pub struct Json {
    out: Vec<u8>,
    charset: Charset,
    limit: usize,
}

impl Json {
    /// An empty text. Strings beyond ASCII are written in the given way.
    pub fn new(charset: Charset) -> Self {
        Self { out: Vec::new(), charset, limit: MAX_DOCUMENT }
    }

    /// Empties the text, and gives back memory that only a giant needed.
    pub fn clear(&mut self) {
        self.out.clear();
        self.out.shrink_to(KEPT_CAPACITY);
    }

    /// Lets the text become `more` bytes longer than it is now.
    pub fn allow(&mut self, more: usize) {
        self.limit = self.out.len().saturating_add(more);
    }

    /// The text so far.
    pub fn as_bytes(&self) -> &[u8] {
        &self.out
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// Goes back to an earlier length.
    pub fn truncate(&mut self, len: usize) {
        self.out.truncate(len);
    }

    /// Appends text that is JSON already and in the right charset. It counts for the limit but is not refused: the
    /// fixed parts of a document are small.
    pub fn raw(&mut self, text: &[u8]) {
        self.out.extend_from_slice(text);
    }

    /// Appends what `write` does: JSON of plain ASCII, which counts as with [`Json::raw`].
    pub fn append<R>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        write(&mut self.out)
    }

    /// Appends a copy of a part of the text.
    pub fn copy(&mut self, part: std::ops::Range<usize>) -> Result<(), Omission> {
        self.check_room(part.len())?;
        self.out.extend_from_within(part);
        Ok(())
    }

    /// Appends JSON in UTF-8.
    pub fn raw_utf8(&mut self, json: &[u8]) -> Result<(), Omission> {
        self.check_escaped(json, 0)?;
        let start = self.out.len();
        self.out.extend_from_slice(json);
        self.escape_from(start);
        Ok(())
    }

    /// Appends an integer.
    pub fn integer(&mut self, value: impl itoa::Integer) {
        self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    /// Fails if the text has become too long, or would by `more` bytes.
    pub fn check_room(&self, more: usize) -> Result<(), Omission> {
        if more > self.limit.saturating_sub(self.out.len()) { Err(Omission::TooLong) } else { Ok(()) }
    }

    /// Fails if a text would become too long as the inside of a string, with `more` bytes around it.
    fn check_escaped(&mut self, text: &[u8], more: usize) -> Result<(), Omission> {
        // At worst each byte becomes a six-byte escape; only where that might matter is it counted.
        if text.len() < UNCOUNTED && self.check_room(text.len() * 6 + more).is_ok() {
            return Ok(());
        }
        let len = json::escaped_len(text, self.charset) + more;
        self.check_room(len)?;
        self.out.try_reserve(len).map_err(|_| Omission::OutOfMemory)
    }

    /// Appends a string, given in UTF-8. What is none is shown as U+FFFD.
    pub fn string(&mut self, text: &[u8]) -> Result<(), Omission> {
        if json::is_plain(text) {
            self.check_room(text.len() + 2)?;
            self.out.try_reserve(text.len() + 2).map_err(|_| Omission::OutOfMemory)?;
            self.quoted(|out| out.extend_from_slice(text));
            return Ok(());
        }
        self.check_escaped(text, 2)?;
        self.out.push(b'"');
        if text.is_ascii() {
            json::escape(&mut self.out, text);
        } else {
            let start = self.out.len();
            json::escape(&mut self.out, String::from_utf8_lossy(text).as_bytes());
            self.escape_from(start);
        }
        self.out.push(b'"');
        Ok(())
    }

    /// Appends bytes as a string, in the hexadecimal form that `bytea` has: `"\\x00ff"`.
    pub fn hex(&mut self, bytes: &[u8]) -> Result<(), Omission> {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let len = bytes.len().saturating_mul(2).saturating_add(5);
        self.check_room(len)?;
        self.out.try_reserve(len).map_err(|_| Omission::OutOfMemory)?;
        self.out.extend_from_slice(b"\"\\\\x");
        for byte in bytes {
            self.out.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
        self.out.push(b'"');
        Ok(())
    }

    /// Appends what `write` does, plain ASCII, as a string.
    pub fn quoted(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.out.push(b'"');
        write(&mut self.out);
        self.out.push(b'"');
    }

    /// Puts what was written from `start` on into quotes, unless it is a string already.
    pub fn quote_from(&mut self, start: usize) {
        if self.out.get(start) != Some(&b'"') {
            self.out.insert(start.min(self.out.len()), b'"');
            self.out.push(b'"');
        }
    }

    /// Appends the text form of a number as a JSON number; what JSON has no number for (`NaN`, `Infinity`) as a
    /// string, as `to_jsonb` does.
    pub fn number(&mut self, text: &[u8]) -> Result<(), Omission> {
        let digits = text.strip_prefix(b"-").unwrap_or(text);
        if !digits.first().is_some_and(u8::is_ascii_digit) {
            return self.string(text);
        }
        self.check_room(text.len())?;
        self.out.extend_from_slice(text);
        Ok(())
    }

    /// Appends a JSON text, given in UTF-8, that the server has accepted as `json` or `jsonb`: on one line, without
    /// the white space between its tokens. Refuses what `jsonb` does not accept of `json`.
    pub fn compact(&mut self, json: &[u8]) -> Result<(), Omission> {
        self.check_escaped(json, 0)?;
        let start = self.out.len();
        json::compact(&mut self.out, json).map_err(Omission::NotJsonb)?;
        self.escape_from(start);
        Ok(())
    }

    /// Escapes what was written beyond ASCII from `start` on, if the charset asks for it.
    fn escape_from(&mut self, start: usize) {
        if self.charset == Charset::Ascii && !self.out[start..].is_ascii() {
            let ascii = json::escape_non_ascii(&String::from_utf8_lossy(&self.out[start..]));
            self.out.truncate(start);
            self.out.extend_from_slice(ascii.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_without_a_json_form_are_strings() {
        let mut out = Json::new(Charset::Utf8);
        for text in ["-1.5", "NaN", "-Infinity", "1e+20"] {
            out.number(text.as_bytes()).unwrap();
            out.raw(b" ");
        }
        assert_eq!(out.as_bytes(), br#"-1.5 "NaN" "-Infinity" 1e+20 "#);
    }

    #[test]
    fn a_text_beyond_the_limit_is_refused_before_it_is_written() {
        let mut out = Json::new(Charset::Utf8);
        out.clear();
        out.allow(10);
        assert_eq!(out.string(b"12345678"), Ok(()));
        assert_eq!(out.len(), 10);
        out.clear();
        out.allow(10);
        assert_eq!(out.string(b"1234567\n"), Err(Omission::TooLong));
        assert_eq!(out.string(b"123456789"), Err(Omission::TooLong));
        assert_eq!(out.number(b"12345678901"), Err(Omission::TooLong));
        assert!(out.is_empty());
        for (text, len) in [("é", 8), ("日", 8), ("😀", 14)] {
            let mut out = Json::new(Charset::Ascii);
            out.clear();
            out.allow(len - 1);
            assert_eq!(out.string(text.as_bytes()), Err(Omission::TooLong));
            out.clear();
            out.allow(len);
            assert_eq!(out.string(text.as_bytes()), Ok(()));
            assert_eq!(out.len(), len);
            out.clear();
            out.allow(len - 1);
            assert_eq!(out.compact(format!("\"{text}\"").as_bytes()), Err(Omission::TooLong));
        }
    }
}
