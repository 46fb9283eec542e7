//! JSON text under construction.
#![forbid(unsafe_code)]

use std::fmt;

use crate::wire::{self, Charset};

/// Longest document, in bytes: below 1 GiB, which is the most that the server passes on as one text, with room for
/// the headers of the tuple or message that carries it.
pub const MAX_DOCUMENT: usize = 1_000_000_000;

/// Capacity that the buffer keeps from one document to the next, in bytes.
const KEPT_CAPACITY: usize = 1 << 20;

/// Why a value is left out of its document, which names it under `omitted`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Omission {
    /// The document would be longer than [`MAX_DOCUMENT`].
    TooLong,
    /// A value of type `json` that `jsonb` could not hold, and so no consumer could store.
    NotJsonb(&'static str),
    /// The type's output function failed; its message.
    Output(String),
}

impl fmt::Display for Omission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "the document would be longer than {MAX_DOCUMENT} bytes"),
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

    /// Begins a new text that may become `limit` bytes long, and gives back memory that only a giant needed.
    pub fn clear(&mut self, limit: usize) {
        self.out.clear();
        self.out.shrink_to(KEPT_CAPACITY);
        self.limit = limit;
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

    /// Appends JSON that may hold characters beyond ASCII.
    pub fn raw_utf8(&mut self, json: &[u8]) -> Result<(), Omission> {
        self.check_room(json.len())?;
        let start = self.out.len();
        self.out.extend_from_slice(json);
        if self.charset == Charset::Ascii {
            self.escape_from(start);
        }
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

    /// Appends a string, given in UTF-8.
    pub fn string(&mut self, text: &[u8]) -> Result<(), Omission> {
        // At worst each byte becomes a six-byte escape; only where that might matter is it counted.
        if self.check_room(text.len().saturating_mul(6)).is_err() {
            self.check_room(text.iter().map(|&b| escaped_len(b)).sum::<usize>() + 2)?;
        }
        self.out.push(b'"');
        match self.charset {
            Charset::Utf8 => escape(&mut self.out, text),
            Charset::Ascii => {
                let start = self.out.len();
                escape(&mut self.out, text);
                self.escape_from(start);
            }
        }
        self.out.push(b'"');
        Ok(())
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
        self.check_room(json.len())?;
        let start = self.out.len();
        let mut at = 0;
        while let Some(&byte) = json.get(at) {
            let end = match byte {
                b' ' | b'\t' | b'\n' | b'\r' => {
                    at += 1;
                    continue;
                }
                b'"' => string_end(json, at)?,
                b'-' | b'0'..=b'9' => {
                    let end = json[at..].iter().position(|b| !is_number_byte(*b)).map_or(json.len(), |n| at + n);
                    if !wire::fits_numeric(&json[at..end]) {
                        return Err(Omission::NotJsonb("a number is out of the range of numeric"));
                    }
                    end
                }
                _ => at + 1,
            };
            self.out.extend_from_slice(&json[at..end]);
            at = end;
        }
        if self.charset == Charset::Ascii {
            self.escape_from(start);
        }
        self.check_room(0)
    }

    /// Escapes what was written beyond ASCII from `start` on.
    fn escape_from(&mut self, start: usize) {
        if !self.out[start..].is_ascii() {
            let ascii = wire::escape_non_ascii(&String::from_utf8_lossy(&self.out[start..]));
            self.out.truncate(start);
            self.out.extend_from_slice(ascii.as_bytes());
        }
    }
}

/// Finds the end of the string that begins at `start`, and checks its escapes as `jsonb` does.
fn string_end(json: &[u8], start: usize) -> Result<usize, Omission> {
    let mut at = start + 1;
    let mut high_surrogate = false;
    loop {
        let Some(found) = memchr::memchr2(b'"', b'\\', json.get(at..).unwrap_or_default()) else {
            return Err(Omission::NotJsonb("a string does not end"));
        };
        let is_escape = json[at + found] == b'\\';
        let unit = if is_escape && json.get(at + found + 1) == Some(&b'u') {
            let digits = json.get(at + found + 2..at + found + 6);
            digits.and_then(|d| u32::from_str_radix(std::str::from_utf8(d).ok()?, 16).ok())
        } else {
            None
        };
        let is_low = unit.is_some_and(|unit| (0xDC00..0xE000).contains(&unit));
        if is_low != high_surrogate || (high_surrogate && found > 0) {
            return Err(Omission::NotJsonb("a \\u escape is half of a surrogate pair"));
        }
        if unit == Some(0) {
            return Err(Omission::NotJsonb("a string holds \\u0000"));
        }
        high_surrogate = unit.is_some_and(|unit| (0xD800..0xDC00).contains(&unit));
        if !is_escape {
            return Ok(at + found + 1);
        }
        at += found + 2;
        if unit.is_some() {
            at += 4;
        }
    }
}

fn is_number_byte(byte: u8) -> bool {
    matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9')
}

/// What stands for a byte inside of a string: nothing special (0), `\uXXXX` (`u`), or a backslash and this letter.
const ESCAPE: [u8; 256] = {
    let mut table = [0; 256];
    let mut control = 0;
    while control < 0x20 {
        table[control] = b'u';
        control += 1;
    }
    table[0x08] = b'b';
    table[0x09] = b't';
    table[0x0A] = b'n';
    table[0x0C] = b'f';
    table[0x0D] = b'r';
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table
};

fn escaped_len(byte: u8) -> usize {
    match ESCAPE[usize::from(byte)] {
        0 => 1,
        b'u' => 6,
        _ => 2,
    }
}

/// Appends the inside of a string. Runs without special characters are copied whole.
fn escape(out: &mut Vec<u8>, text: &[u8]) {
    let mut copied = 0;
    for (at, &byte) in text.iter().enumerate() {
        let escape = ESCAPE[usize::from(byte)];
        if escape == 0 {
            continue;
        }
        out.extend_from_slice(&text[copied..at]);
        copied = at + 1;
        if escape == b'u' {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xF)]]);
        } else {
            out.extend_from_slice(&[b'\\', escape]);
        }
    }
    out.extend_from_slice(&text[copied..]);
}

/// A JSON string.
pub fn quoted(text: &[u8], charset: Charset) -> Vec<u8> {
    let mut json = Json::new(charset);
    // Names and the like are far below the limit.
    let _ = json.string(text);
    json.out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn compacted(json: &str) -> Result<String, Omission> {
        let mut out = Json::new(Charset::Utf8);
        out.compact(json.as_bytes())?;
        Ok(String::from_utf8(out.out).unwrap())
    }

    #[test]
    fn white_space_goes_between_tokens_only() {
        assert_eq!(
            compacted(" { \"a b\" : [ 1 , \"x \\\" y\" ,\n true ] }\r\n").unwrap(),
            r#"{"a b":[1,"x \" y",true]}"#
        );
    }

    #[test]
    fn json_that_jsonb_refuses_is_refused() {
        for json in [
            r#""\u0000""#,
            r#"{"a\u0000":1}"#,
            r#""\ud800""#,
            r#""\udc00""#,
            r#""\ud800x\udc00""#,
            r#""\ud800\n""#,
            r#""\ud800\ud800""#,
            "1e999999",
            r#"[1,2e131072]"#,
        ] {
            assert!(matches!(compacted(json), Err(Omission::NotJsonb(_))), "{json}");
        }
        for json in [r#""\\u0000""#, r#""\ud83d\ude00""#, r#""\u00e9\u0001""#, "1e1000", r#"{"a":-1.5E-3}"#] {
            assert_eq!(compacted(json).unwrap(), json);
        }
    }

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
        out.clear(10);
        assert_eq!(out.string(b"12345678"), Ok(()));
        assert_eq!(out.len(), 10);
        out.clear(10);
        assert_eq!(out.string(b"1234567\n"), Err(Omission::TooLong));
        assert_eq!(out.string(b"123456789"), Err(Omission::TooLong));
        assert_eq!(out.number(b"12345678901"), Err(Omission::TooLong));
        assert!(out.is_empty());
    }

    proptest! {
        #[test]
        fn strings_parse_and_round_trip(text: String) {
            for charset in [Charset::Utf8, Charset::Ascii] {
                let json = quoted(text.as_bytes(), charset);
                prop_assert!(charset == Charset::Utf8 || json.is_ascii());
                prop_assert!(!json.contains(&b'\n'));
                prop_assert_eq!(serde_json::from_slice::<String>(&json).unwrap(), text.clone());
            }
        }

        #[test]
        fn compact_json_says_the_same(text in "[\\[\\]{}:,\"a\\\\u0d8c -1.e\n]{0,30}", strings: Vec<String>) {
            let _ = compacted(&text);
            let value = serde_json::json!({"a": strings, "b": [1, null, {"c": strings}]});
            let pretty = serde_json::to_string_pretty(&value).unwrap().replace("\\u0000", "");
            let value: serde_json::Value = serde_json::from_str(&pretty).unwrap();
            for charset in [Charset::Utf8, Charset::Ascii] {
                let mut out = Json::new(charset);
                out.compact(pretty.as_bytes()).unwrap();
                prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(out.as_bytes()).unwrap(), value.clone());
            }
        }
    }
}
