//! JSON text under construction.
#![forbid(unsafe_code)]

use super::Charset;
use super::compact::{compact, next_token};
use super::strings::{ascii_len, escape_lossy, escaped_len, is_plain, push_ascii};
use crate::document::hex;
use crate::document::omission::{Limit, MAX_DOCUMENT, MAX_IMAGE, MAX_VALUE, Omission};

/// What is kept free in an image for each member that is still to come, in bytes: a name and a small value, so that
/// large ones do not take the room of small ones behind them.
const KEPT_FREE: usize = 2048;

/// Capacity that the buffer keeps from one document to the next, in bytes.
const KEPT_CAPACITY: usize = 1 << 20;

/// Texts below this length, in bytes, are not counted before they are written: at worst each byte becomes six.
const UNCOUNTED: usize = 1 << 16;

/// A JSON text that grows at its end, up to a limit.
///
/// Where there is no memory for a part, it is not written, and [`Json::check_room`] says so from then on: what writes
/// small parts need not ask each time.
#[derive(Debug)]
pub struct Json {
    out: Vec<u8>,
    charset: Charset,
    limit: usize,
    kind: Limit,
    is_out_of_memory: bool,
}

impl Json {
    /// An empty text. Strings beyond ASCII are written in the given way.
    pub fn new(charset: Charset) -> Self {
        Self { out: Vec::new(), charset, limit: MAX_DOCUMENT, kind: Limit::Document, is_out_of_memory: false }
    }

    /// Empties the text, and gives back memory that only a giant needed.
    pub fn clear(&mut self) {
        self.out.clear();
        self.out.shrink_to(KEPT_CAPACITY);
        self.is_out_of_memory = false;
    }

    /// Lets the text become `more` bytes longer than it is now, which is a limit of this kind.
    pub fn allow(&mut self, more: usize, kind: Limit) {
        self.limit = self.out.len().saturating_add(more);
        self.kind = kind;
    }

    /// Lets the text become longer by what one value may have: less than an image of any number of columns may have.
    pub fn allow_small_image(&mut self) {
        self.allow(MAX_VALUE, Limit::Value);
    }

    /// Lets a value follow behind a key of this length, and be as long as one may be, in an image that began at `image`
    /// and in which `left` members come behind it.
    pub fn allow_value(&mut self, key: usize, image: usize, left: usize) {
        let value = (self.out.len() + key).saturating_add(MAX_VALUE);
        let image = image + MAX_IMAGE.saturating_sub((left + 1) * KEPT_FREE);
        // A small value has its room anyway.
        let image = image.max(self.out.len() + key + KEPT_FREE / 2);
        (self.limit, self.kind) = if value <= image { (value, Limit::Value) } else { (image, Limit::Image) };
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

    /// Makes room in memory; false if there is none.
    #[inline]
    fn reserve(&mut self, more: usize) -> bool {
        self.out.capacity() - self.out.len() >= more || self.grow(more)
    }

    #[cold]
    fn grow(&mut self, more: usize) -> bool {
        self.is_out_of_memory |= self.out.try_reserve(more).is_err();
        !self.is_out_of_memory
    }

    /// Makes room for text that counts for the limit.
    fn make_room(&mut self, more: usize) -> Result<(), Omission> {
        self.check_room(more)?;
        if self.reserve(more) { Ok(()) } else { Err(Omission::OutOfMemory) }
    }

    /// Appends text that is JSON already and in the right charset. It counts for the limit but is not refused: the
    /// fixed parts of a document are small.
    pub fn raw(&mut self, text: &[u8]) {
        if self.reserve(text.len()) {
            self.out.extend_from_slice(text);
        }
    }

    /// Appends what `write` does: JSON of plain ASCII, of at most `max_len` bytes, which counts as with [`Json::raw`].
    /// None if there is no memory.
    pub fn append<R>(&mut self, max_len: usize, write: impl FnOnce(&mut Vec<u8>) -> R) -> Option<R> {
        self.reserve(max_len).then(|| write(&mut self.out))
    }

    /// Appends a copy of a part of the text.
    pub fn copy(&mut self, part: std::ops::Range<usize>) -> Result<(), Omission> {
        self.make_room(part.len())?;
        self.out.extend_from_within(part);
        Ok(())
    }

    /// Appends JSON in UTF-8.
    pub fn raw_utf8(&mut self, json: &[u8]) -> Result<(), Omission> {
        if self.charset == Charset::Utf8 || json.is_ascii() {
            self.make_room(json.len())?;
            self.out.extend_from_slice(json);
        } else {
            self.make_room(ascii_len(json))?;
            push_ascii(&mut self.out, json);
        }
        Ok(())
    }

    /// Appends an integer.
    pub fn integer(&mut self, value: impl itoa::Integer) {
        self.raw(itoa::Buffer::new().format(value).as_bytes());
    }

    /// Fails if the text has become too long, or would by `more` bytes, or if there was no memory for a part of it.
    pub fn check_room(&self, more: usize) -> Result<(), Omission> {
        if self.is_out_of_memory {
            Err(Omission::OutOfMemory)
        } else if more > self.limit.saturating_sub(self.out.len()) {
            Err(Omission::TooLong(self.kind))
        } else {
            Ok(())
        }
    }

    /// Appends a string, given in UTF-8. What is none is shown as U+FFFD.
    pub fn string(&mut self, text: &[u8]) -> Result<(), Omission> {
        self.string_lossy(text).map(|_| ())
    }

    /// Appends a string, given in UTF-8; fails if it is not.
    pub fn utf8_string(&mut self, text: &[u8]) -> Result<(), Omission> {
        if self.string_lossy(text)? { Ok(()) } else { Err(Omission::NotUtf8) }
    }

    /// Whether the string was UTF-8.
    fn string_lossy(&mut self, text: &[u8]) -> Result<bool, Omission> {
        // No text is shorter as a string.
        self.check_room(text.len().saturating_add(2))?;
        if is_plain(text) {
            if !self.reserve(text.len() + 2) {
                return Err(Omission::OutOfMemory);
            }
            self.out.push(b'"');
            self.out.extend_from_slice(text);
            self.out.push(b'"');
            return Ok(true);
        }
        let at_worst = text.len().saturating_mul(6).saturating_add(2);
        if text.len() < UNCOUNTED && self.check_room(at_worst).is_ok() {
            self.make_room(at_worst)?;
        } else {
            self.make_room(escaped_len(text, self.charset) + 2)?;
        }
        self.out.push(b'"');
        let is_utf8 = escape_lossy(&mut self.out, text, self.charset);
        self.out.push(b'"');
        Ok(is_utf8)
    }

    /// Appends bytes as a string, in the hexadecimal form that `bytea` has: `"\\x00ff"`.
    pub fn hex(&mut self, bytes: &[u8]) -> Result<(), Omission> {
        self.make_room(hex_len(bytes.len()))?;
        self.out.extend_from_slice(b"\"\\\\x");
        hex::push(&mut self.out, bytes);
        self.out.push(b'"');
        Ok(())
    }

    /// Appends what `write` does, plain ASCII of less than 100 bytes, as a string.
    pub fn quoted(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.append(102, |out| {
            out.push(b'"');
            write(out);
            out.push(b'"');
        });
    }

    /// Puts what was written from `start` on into quotes, unless it is a string already.
    pub fn quote_from(&mut self, start: usize) {
        if self.out.get(start) != Some(&b'"') && self.reserve(2) {
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
        self.make_room(text.len())?;
        self.out.extend_from_slice(text);
        Ok(())
    }

    /// Appends a JSON text, given in UTF-8, that the server has accepted as `json` or `jsonb`: on one line, without
    /// the white space between its tokens. Refuses what `jsonb` does not accept of `json`.
    pub fn compact(&mut self, json: &[u8]) -> Result<(), Omission> {
        let is_as_it_is = self.charset == Charset::Utf8 || json.is_ascii();
        if is_as_it_is && self.check_room(json.len()).is_ok() {
            self.make_room(json.len())?;
            return compact(&mut self.out, json).map(|_| ()).map_err(Omission::NotJsonb);
        }
        let mut at = 0;
        while let Some(token) = next_token(json, &mut at).map_err(Omission::NotJsonb)? {
            self.raw_utf8(token)?;
        }
        Ok(())
    }
}

/// Length in bytes of what [`Json::hex`] appends.
pub fn hex_len(bytes: usize) -> usize {
    bytes.saturating_mul(2).saturating_add(5)
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
        out.allow(10, Limit::Document);
        assert_eq!(out.string(b"12345678"), Ok(()));
        assert_eq!(out.len(), 10);
        out.clear();
        out.allow(10, Limit::Document);
        assert_eq!(out.string(b"1234567\n"), Err(Omission::TooLong(Limit::Document)));
        assert_eq!(out.string(b"123456789"), Err(Omission::TooLong(Limit::Document)));
        assert_eq!(out.number(b"12345678901"), Err(Omission::TooLong(Limit::Document)));
        assert!(out.is_empty());
        for (text, len) in [("é", 8), ("日", 8), ("😀", 14)] {
            let mut out = Json::new(Charset::Ascii);
            out.clear();
            out.allow(len - 1, Limit::Document);
            assert_eq!(out.string(text.as_bytes()), Err(Omission::TooLong(Limit::Document)));
            out.clear();
            out.allow(len, Limit::Document);
            assert_eq!(out.string(text.as_bytes()), Ok(()));
            assert_eq!(out.len(), len);
            out.clear();
            out.allow(len - 1, Limit::Document);
            assert_eq!(out.compact(format!("\"{text}\"").as_bytes()), Err(Omission::TooLong(Limit::Document)));
        }
    }

    #[test]
    fn white_space_that_goes_does_not_count() {
        for charset in [Charset::Utf8, Charset::Ascii] {
            let mut out = Json::new(charset);
            out.allow(7, Limit::Value);
            assert_eq!(out.compact(b"[ 1 , 2 ,\n\t 3 ]      "), Ok(()));
            assert_eq!(out.as_bytes(), b"[1,2,3]");
            out.clear();
            out.allow(6, Limit::Value);
            assert_eq!(out.compact(b"[ 1 , 2 ,\n\t 3 ]"), Err(Omission::TooLong(Limit::Value)));
        }
    }

    #[test]
    fn what_is_no_utf8_is_shown_as_such_within_the_limit() {
        for (charset, shown) in
            [(Charset::Utf8, "\"a\u{FFFD}\u{E9}\u{FFFD}\""), (Charset::Ascii, r#""a\ufffd\u00e9\ufffd""#)]
        {
            let mut out = Json::new(charset);
            out.allow(shown.len(), Limit::Value);
            assert_eq!(out.string(b"a\xff\xc3\xa9\xf0\x9f"), Ok(()));
            assert_eq!(out.as_bytes(), shown.as_bytes());
            out.clear();
            out.allow(shown.len() - 1, Limit::Value);
            assert_eq!(out.string(b"a\xff\xc3\xa9\xf0\x9f"), Err(Omission::TooLong(Limit::Value)));
        }
    }

    #[test]
    fn a_string_that_has_to_be_utf8_is_refused_if_it_is_not() {
        for charset in [Charset::Utf8, Charset::Ascii] {
            let mut out = Json::new(charset);
            for text in ["", "plain", "a \"quoted\" one", "\u{E9}\u{1F600}"] {
                assert_eq!(out.utf8_string(text.as_bytes()), Ok(()), "{text}");
            }
            for text in [&b"\xff"[..], b"a\xc3", b"\xc3\xa9 \xed\xa0\x80", b"long enough for a word \x80 and a rest"] {
                assert_eq!(out.utf8_string(text), Err(Omission::NotUtf8), "{text:?}");
            }
        }
    }

    #[test]
    fn large_values_leave_room_for_small_ones_behind_them() {
        let mut out = Json::new(Charset::Utf8);
        let half = vec![b'x'; MAX_VALUE - 4096];
        let mut omitted = Vec::new();
        // Of 1,600 members all but the first two are small, or far too large for what is left.
        for member in 0..1600 {
            out.allow_value(0, 0, 1599 - member);
            let value = match member {
                0 | 1 => &half[..half.len() - 2_000_000],
                2 | 700 => &half[..],
                _ => &half[..1000],
            };
            match out.check_room(value.len()).map(|()| out.raw(value)) {
                Ok(()) => {}
                Err(omission) => omitted.push((member, omission)),
            }
        }
        let too_long = Omission::TooLong(Limit::Image);
        assert_eq!(omitted, [(2, too_long.clone()), (700, too_long)]);
        assert!(out.len() <= MAX_IMAGE);
        out.clear();
        out.allow_value(0, 0, 5);
        assert_eq!(out.check_room(MAX_VALUE + 1), Err(Omission::TooLong(Limit::Value)));
        assert_eq!(out.check_room(MAX_VALUE), Ok(()));
    }
}
