//! JSON strings: how they are written, and how they are read back.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::collections::TryReserveError;

use super::Charset;
use crate::document::hex;

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

/// Length in bytes of a text as the inside of a JSON string, as [`escape_lossy`] writes it.
pub fn escaped_len(text: &[u8], charset: Charset) -> usize {
    let len_of = |byte: u8| match (ESCAPE[usize::from(byte)], charset) {
        (0, Charset::Ascii) if byte >= 0xF0 => 12,
        (0, Charset::Ascii) if byte >= 0xC0 => 6,
        (0, Charset::Ascii) if byte >= 0x80 => 0,
        (0, _) => 1,
        (b'u', _) => 6,
        _ => 2,
    };
    let len = |text: &[u8]| text.iter().map(|&byte| len_of(byte)).sum::<usize>();
    if text.is_ascii() {
        return len(text);
    }
    text.utf8_chunks().map(|chunk| len(chunk.valid().as_bytes()) + len(shown_of(&chunk))).sum()
}

/// What is shown of the bytes behind the valid part of a chunk.
fn shown_of(chunk: &std::str::Utf8Chunk) -> &'static [u8] {
    if chunk.invalid().is_empty() { b"" } else { "\u{FFFD}".as_bytes() }
}

/// Appends a text as the inside of a JSON string. What is not UTF-8 is shown as U+FFFD; false if there is any.
pub fn escape_lossy(out: &mut Vec<u8>, text: &[u8], charset: Charset) -> bool {
    if text.is_ascii() {
        escape(out, text);
        return true;
    }
    let mut is_utf8 = true;
    for chunk in text.utf8_chunks() {
        is_utf8 &= chunk.invalid().is_empty();
        for part in [chunk.valid().as_bytes(), shown_of(&chunk)] {
            match charset {
                Charset::Utf8 => escape(out, part),
                Charset::Ascii => escape_to_ascii(out, part),
            }
        }
    }
    is_utf8
}

/// As [`escape`], with each character beyond ASCII as an escape too.
fn escape_to_ascii(out: &mut Vec<u8>, mut text: &[u8]) {
    while !text.is_empty() {
        let is_ascii = text[0].is_ascii();
        let end = text.iter().position(|byte| byte.is_ascii() != is_ascii).unwrap_or(text.len());
        let (run, rest) = text.split_at(end);
        if is_ascii {
            escape(out, run)
        } else {
            push_escapes(out, run)
        }
        text = rest;
    }
}

/// Appends characters as `\uXXXX`.
fn push_escapes(out: &mut Vec<u8>, text: &[u8]) {
    let mut units = [0u16; 2];
    for c in text.utf8_chunks().flat_map(|chunk| chunk.valid().chars()) {
        for unit in c.encode_utf16(&mut units) {
            let ([a, b], [c, d]) = (hex::pair((*unit >> 8) as u8), hex::pair(*unit as u8));
            out.extend_from_slice(&[b'\\', b'u', a, b, c, d]);
        }
    }
}

/// Length in bytes of what [`push_ascii`] appends.
pub fn ascii_len(json: &[u8]) -> usize {
    let len_of = |byte: &u8| match byte {
        0xF0.. => 12,
        0xC0.. => 6,
        0x80.. => 0,
        _ => 1,
    };
    json.iter().map(len_of).sum()
}

/// Appends JSON, in UTF-8, with each character beyond ASCII as `\uXXXX`.
pub fn push_ascii(out: &mut Vec<u8>, mut json: &[u8]) {
    while !json.is_empty() {
        let is_ascii = json[0].is_ascii();
        let end = json.iter().position(|byte| byte.is_ascii() != is_ascii).unwrap_or(json.len());
        let (run, rest) = json.split_at(end);
        if is_ascii {
            out.extend_from_slice(run)
        } else {
            push_escapes(out, run)
        }
        json = rest;
    }
}

/// Appends a text, in UTF-8, as the inside of a JSON string. Runs without special characters are copied whole.
pub fn escape(out: &mut Vec<u8>, text: &[u8]) {
    let (mut copied, mut at) = (0, 0);
    loop {
        at += plain_len(&text[at..]);
        let Some(&byte) = text.get(at) else { break };
        let escape = ESCAPE[usize::from(byte)];
        out.extend_from_slice(&text[copied..at]);
        at += 1;
        copied = at;
        if escape == b'u' {
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&hex::pair(byte));
        } else {
            out.extend_from_slice(&[b'\\', escape]);
        }
    }
    out.extend_from_slice(&text[copied..]);
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// Of eight bytes, marks the high bit of each that needs an escape. A borrow can only mark a byte behind one that does.
fn specials(word: u64) -> u64 {
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    (word.wrapping_sub(ONES * 0x20) & !word & HIGH)
        | zeros(word ^ (ONES * u64::from(b'"')))
        | zeros(word ^ (ONES * u64::from(b'\\')))
}

/// Whether a text is ASCII and needs no escape at all, as most are.
pub fn is_plain(text: &[u8]) -> bool {
    let marks = |chunk: &[u8; 8]| {
        let word = u64::from_le_bytes(*chunk);
        specials(word) | (word & HIGH)
    };
    let Some(last) = text.last_chunk() else {
        return text.iter().all(|byte| *byte < 0x80 && ESCAPE[usize::from(*byte)] == 0);
    };
    // What is left behind the whole words is in the last eight bytes.
    text.as_chunks().0.iter().fold(marks(last), |found, chunk| found | marks(chunk)) == 0
}

/// How many bytes from the first on need no escape.
fn plain_len(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(chunk) = text.get(at..).and_then(|rest| rest.first_chunk()) {
        let special = specials(u64::from_le_bytes(*chunk));
        if special != 0 {
            return at + special.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    at + text[at..].iter().take_while(|byte| ESCAPE[usize::from(**byte)] == 0).count()
}

/// Copies JSON text, with each character beyond ASCII as `\uXXXX`: valid wherever such a character can stand in JSON,
/// which is inside of strings only.
pub fn escape_non_ascii(json: &str) -> String {
    let mut ascii = Vec::with_capacity(json.len());
    push_ascii(&mut ascii, json.as_bytes());
    String::from_utf8_lossy(&ascii).into_owned()
}

/// A text with U+FFFD for what is not UTF-8 in it. Fails without memory.
pub fn utf8_lossy(text: &[u8]) -> Result<Cow<'_, [u8]>, TryReserveError> {
    if std::str::from_utf8(text).is_ok() {
        return Ok(Cow::Borrowed(text));
    }
    let len = text.utf8_chunks().map(|chunk| chunk.valid().len() + shown_of(&chunk).len()).sum();
    let mut shown = Vec::new();
    shown.try_reserve_exact(len)?;
    for chunk in text.utf8_chunks() {
        shown.extend_from_slice(chunk.valid().as_bytes());
        shown.extend_from_slice(shown_of(&chunk));
    }
    Ok(Cow::Owned(shown))
}

/// The largest length up to `limit` at which a text can be cut without halving a character of UTF-8.
pub fn floor_char_boundary(text: &[u8], limit: usize) -> usize {
    let mut end = text.len().min(limit);
    while end > 0 && end < text.len() && text[end] & 0xC0 == 0x80 {
        end -= 1;
    }
    end
}

/// A text, in UTF-8, as a JSON string.
pub fn quoted(text: &[u8], charset: Charset) -> Vec<u8> {
    let mut json = vec![b'"'];
    escape_lossy(&mut json, text, charset);
    json.push(b'"');
    json
}

/// Reads a JSON string; None if the text is not one. Fails if there is no memory for it.
pub fn read_string(value: &str) -> Result<Option<Cow<'_, str>>, TryReserveError> {
    let Some(inside) = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')) else { return Ok(None) };
    if !inside.contains('\\') {
        return Ok(Some(Cow::Borrowed(inside)));
    }
    let mut text = String::new();
    text.try_reserve(inside.len())?;
    let mut rest = inside;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        text.push_str(&rest[..at]);
        let Some((c, behind)) = read_escape(&rest[at + 1..]) else { return Ok(None) };
        text.push(c);
        rest = behind;
    }
    text.push_str(rest);
    Ok(Some(Cow::Owned(text)))
}

/// Reads an escape, whose backslash is read already: returns its character, and what is behind it.
fn read_escape(text: &str) -> Option<(char, &str)> {
    let c = match text.as_bytes().first()? {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => {
            let unit = |text: &str| hex::read_number(text.get(..4)?.as_bytes()).map(|unit| unit as u16);
            let first = unit(&text[1..])?;
            let second = text.get(5..).and_then(|rest| unit(rest.strip_prefix("\\u")?));
            let c = char::decode_utf16([Some(first), second].into_iter().flatten()).next()?.ok()?;
            return Some((c, text.get(if c.len_utf16() == 2 { 11 } else { 5 }..)?));
        }
        _ => return None,
    };
    Some((c, &text[1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_that_are_no_strings_are_refused() {
        for malformed in
            ["", "\"", "a", "\"a", "a\"", "\"\\\"", "\"\\q\"", "\"\\u12\"", "\"\\u+123\"", "\"\\ud800\"", "\"\\udc00\""]
        {
            assert_eq!(read_string(malformed), Ok(None), "{malformed}");
        }
    }

    proptest! {
        #[test]
        fn strings_parse_and_round_trip(text: String) {
            for charset in [Charset::Utf8, Charset::Ascii] {
                let json = quoted(text.as_bytes(), charset);
                prop_assert!(charset == Charset::Utf8 || json.is_ascii());
                prop_assert!(!json.contains(&b'\n'));
                prop_assert_eq!(json.len(), escaped_len(text.as_bytes(), charset) + 2);
                prop_assert_eq!(serde_json::from_slice::<String>(&json).unwrap(), text.clone());
            }
        }

        #[test]
        fn what_is_written_is_read_back(text: String) {
            for charset in [Charset::Utf8, Charset::Ascii] {
                let json = String::from_utf8(quoted(text.as_bytes(), charset)).unwrap();
                prop_assert_eq!(read_string(&json).unwrap().map(Cow::into_owned), Some(text.clone()));
            }
        }

        #[test]
        fn strings_are_those_that_serde_reads(
            text: String,
            escaped in "([a-z]|\\\\[\"\\\\/bfnrtu]|\\\\u(00[0-9a-f]{2}|d[8-9a-f][0-9a-f]{2})){0,6}",
        ) {
            let quoted = serde_json::to_string(&text).unwrap();
            let read = |value: &str| read_string(value).unwrap().map(Cow::into_owned);
            prop_assert_eq!(read(&quoted), Some(text));
            let escaped = format!("\"{escaped}\"");
            prop_assert_eq!(read(&escaped), serde_json::from_str::<String>(&escaped).ok());
        }
    }
}
