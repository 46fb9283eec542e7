//! JSON text: what `jsonb` accepts of it, and how strings are written.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::collections::TryReserveError;
use std::fmt;

/// Spaces for each level of an indented text, up to so many levels: a text that nests deep would be made of spaces.
const INDENTATION: usize = 4;
const INDENTED_LEVELS: usize = 32;

/// Digits that `numeric`, and so `jsonb`, holds before the decimal point.
const NUMERIC_INTEGER_DIGITS: i64 = 131_072;
/// Digits that `numeric` holds after the decimal point.
const NUMERIC_FRACTION_DIGITS: i64 = 16_383;
/// `numeric` refuses exponents from here on, whatever the digits.
const NUMERIC_EXPONENT: i64 = i32::MAX as i64 / 2;

/// How text beyond ASCII is written to JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charset {
    /// As it is: the database's encoding is UTF-8.
    Utf8,
    /// As `\uXXXX` escapes: the result is valid in every encoding that a database can have, and as UTF-8.
    Ascii,
}

/// Why `jsonb` does not accept a JSON text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotJsonb {
    /// A string or key holds the character `\u0000`.
    NulCharacter,
    /// An escape is half of a surrogate pair.
    Surrogate,
    /// A number is beyond what `numeric` can hold.
    NumberOverflow,
    /// A string does not end.
    Unterminated,
}

impl fmt::Display for NotJsonb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NulCharacter => "a string holds the character \\u0000",
            Self::Surrogate => "a \\u escape is half of a surrogate pair",
            Self::NumberOverflow => "a number is out of the range of numeric",
            Self::Unterminated => "a string does not end",
        })
    }
}

/// Appends a JSON text on one line, without the white space between its tokens; gives how deep arrays and objects
/// nest in it. The text is in UTF-8 and has been found to be JSON before; what `jsonb` does not accept is refused. What
/// is appended is no longer than the text: a caller that must not run out of memory reserves as much.
pub fn compact(out: &mut Vec<u8>, json: &[u8]) -> Result<usize, NotJsonb> {
    let mut at = 0;
    let (mut depth, mut deepest) = (0usize, 0);
    while let Some(token) = next_token(json, &mut at)? {
        match token.first() {
            Some(b'[' | b'{') => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            Some(b']' | b'}') => depth = depth.saturating_sub(1),
            _ => {}
        }
        out.extend_from_slice(token);
    }
    Ok(deepest)
}

/// The token of a JSON text that begins at `at` or behind white space there, and sets `at` behind it; None at the end.
/// A word comes as one token for each of its letters. As for [`compact`], what `jsonb` does not accept is refused.
pub fn next_token<'a>(json: &'a [u8], at: &mut usize) -> Result<Option<&'a [u8]>, NotJsonb> {
    while let Some(b' ' | b'\t' | b'\n' | b'\r') = json.get(*at) {
        *at += 1;
    }
    let start = *at;
    let Some(&byte) = json.get(start) else { return Ok(None) };
    let end = match byte {
        b'"' => string_end(json, start)?,
        b'-' | b'0'..=b'9' => {
            let end = json[start..].iter().position(|b| !is_number_byte(*b)).map_or(json.len(), |n| start + n);
            if !fits_numeric(&json[start..end]) {
                return Err(NotJsonb::NumberOverflow);
            }
            end
        }
        _ => start + 1,
    };
    *at = end;
    Ok(json.get(start..end))
}

/// Whether the keys of an object, which is compact and has been found to be JSON, are few, have no escapes, and differ
/// from one another.
pub fn has_plain_keys(object: &[u8]) -> bool {
    const FEW: usize = 16;
    let mut keys: [&[u8]; FEW] = [b""; FEW];
    let (mut count, mut at) = (0, 1);
    while object.get(at) == Some(&b'"') {
        let Some(found) = memchr::memchr2(b'"', b'\\', &object[at + 1..]) else { return false };
        let key = &object[at + 1..at + 1 + found];
        at += found + 1;
        if object[at] == b'\\' || count == FEW || keys[..count].contains(&key) {
            return false;
        }
        keys[count] = key;
        count += 1;
        // Its value, up to the comma or brace behind it.
        let mut depth = 0usize;
        loop {
            at += 1;
            match object.get(at) {
                None => return false,
                Some(b'"') => match string_end(object, at) {
                    Ok(end) => at = end - 1,
                    Err(_) => return false,
                },
                Some(b'{' | b'[') => depth += 1,
                Some(b'}' | b']') if depth > 0 => depth -= 1,
                Some(b',') if depth == 0 => break,
                Some(b'}') => return at + 1 == object.len(),
                Some(_) => {}
            }
        }
        at += 1;
    }
    object == b"{}"
}

/// Finds the end of the string that begins at `start`, and checks its escapes as `jsonb` does.
fn string_end(json: &[u8], start: usize) -> Result<usize, NotJsonb> {
    let mut at = start + 1;
    let mut high_surrogate = false;
    loop {
        let Some(found) = memchr::memchr2(b'"', b'\\', json.get(at..).unwrap_or_default()) else {
            return Err(NotJsonb::Unterminated);
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
            return Err(NotJsonb::Surrogate);
        }
        if unit == Some(0) {
            return Err(NotJsonb::NulCharacter);
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

/// Whether `numeric` can hold this JSON number. It is judged by its digits, as the server judges it.
fn fits_numeric(number: &[u8]) -> bool {
    let (mut digits, mut integer_digits, mut first_nonzero) = (0i64, None, None);
    let mut exponent = 0i64;
    for (i, &byte) in number.iter().enumerate() {
        match byte {
            b'0'..=b'9' => {
                if byte != b'0' && first_nonzero.is_none() {
                    first_nonzero = Some(digits);
                }
                digits += 1;
            }
            b'.' => integer_digits = Some(digits),
            b'e' | b'E' => {
                // Too many digits for an i64 are beyond any limit, in either direction.
                let text = std::str::from_utf8(&number[i + 1..]).unwrap_or_default();
                exponent = text.parse().unwrap_or(if text.starts_with('-') { i64::MIN / 2 } else { i64::MAX / 2 });
                break;
            }
            _ => {}
        }
    }
    let integer_digits = integer_digits.unwrap_or(digits);
    let fraction_digits = (digits - integer_digits - exponent).max(0);
    // Without a nonzero digit the number is 0, which needs no digit before the point.
    let integer_digits = first_nonzero.map_or(0, |at| integer_digits - at + exponent);
    exponent.abs() < NUMERIC_EXPONENT
        && fraction_digits <= NUMERIC_FRACTION_DIGITS
        && integer_digits <= NUMERIC_INTEGER_DIGITS
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
            let digit = |shift: u16| b"0123456789abcdef"[usize::from(*unit >> shift & 0xF)];
            out.extend_from_slice(&[b'\\', b'u', digit(12), digit(8), digit(4), digit(0)]);
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
            const HEX: &[u8; 16] = b"0123456789abcdef";
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xF)]]);
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
    let mut ascii = String::with_capacity(json.len());
    let mut units = [0u16; 2];
    for c in json.chars() {
        if c.is_ascii() {
            ascii.push(c);
        } else {
            for unit in c.encode_utf16(&mut units) {
                ascii.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    ascii
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

/// Appends a compact JSON text with each member and element on a line of its own; false if that would make it longer
/// than `limit` bytes, or if there is no memory for it, and then what was appended is of no use.
pub fn indent(out: &mut Vec<u8>, json: &[u8], limit: usize) -> bool {
    let (mut at, mut depth) = (0, 0usize);
    let break_line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.resize(out.len() + depth.min(INDENTED_LEVELS) * INDENTATION, b' ');
    };
    while let Some(&byte) = json.get(at) {
        let end = if byte == b'"' { string_end(json, at).unwrap_or(json.len()) } else { at + 1 };
        let more = (end - at) + (depth + 1).min(INDENTED_LEVELS) * INDENTATION + 2;
        if out.len() + more > limit || out.try_reserve(more).is_err() {
            return false;
        }
        match byte {
            b'{' | b'[' => {
                out.push(byte);
                if matches!(json.get(end), Some(b'}' | b']')) {
                    out.push(json[end]);
                    at = end + 1;
                    continue;
                }
                depth += 1;
                break_line(out, depth);
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                break_line(out, depth);
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                break_line(out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            _ => out.extend_from_slice(&json[at..end]),
        }
        at = end;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn compacted(json: &str) -> Result<String, NotJsonb> {
        let mut out = Vec::new();
        compact(&mut out, json.as_bytes())?;
        Ok(String::from_utf8(out).unwrap())
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
        for (json, error) in [
            (r#""\u0000""#, NotJsonb::NulCharacter),
            (r#"{"a\u0000":1}"#, NotJsonb::NulCharacter),
            (r#""\ud800""#, NotJsonb::Surrogate),
            (r#""\udc00""#, NotJsonb::Surrogate),
            (r#""\ud800x\udc00""#, NotJsonb::Surrogate),
            (r#""\ud800\n""#, NotJsonb::Surrogate),
            (r#""\ud800\ud800""#, NotJsonb::Surrogate),
            ("1e999999", NotJsonb::NumberOverflow),
            (r#"[1,2e131072]"#, NotJsonb::NumberOverflow),
        ] {
            assert_eq!(compacted(json), Err(error), "{json}");
        }
        for json in [r#""\\u0000""#, r#""\ud83d\ude00""#, r#""\u00e9\u0001""#, "1e1000", r#"{"a":-1.5E-3}"#] {
            assert_eq!(compacted(json).unwrap(), json);
        }
    }

    #[test]
    fn depth_counts_arrays_and_objects() {
        for (json, depth) in [("1", 0), ("[]", 1), (r#"{"a":[1,{"b":"[[["}],"c":{}}"#, 3)] {
            assert_eq!(compact(&mut Vec::new(), json.as_bytes()), Ok(depth), "{json}");
        }
    }

    #[test]
    fn numbers_are_judged_as_numeric_judges_them() {
        for number in
            ["0", "-0", "1e131071", "10e131070", "0.1e131072", "1e-16383", "0e100000", "123.456", "0.0001e131075"]
        {
            assert!(fits_numeric(number.as_bytes()), "{number}");
        }
        for number in [
            "1e131072",
            "10e131071",
            "1e-16384",
            "0e-16384",
            "1e99999999999999999999",
            "0e1073741823",
            "1e-99999999999999999999",
        ] {
            assert!(!fits_numeric(number.as_bytes()), "{number}");
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
        fn compact_json_says_the_same(text in "[\\[\\]{}:,\"a\\\\u0d8c -1.e\n]{0,30}", strings: Vec<String>) {
            let _ = compacted(&text);
            let value = serde_json::json!({"a": strings, "b": [1, null, {"c": strings}]});
            let pretty = serde_json::to_string_pretty(&value).unwrap().replace("\\u0000", "");
            let value: serde_json::Value = serde_json::from_str(&pretty).unwrap();
            let compact = compacted(&pretty).unwrap();
            prop_assert_eq!(&compact, &value.to_string());
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&escape_non_ascii(&compact)).unwrap(), value);
        }
    }

    #[test]
    fn an_indented_text_says_the_same_on_more_lines() {
        let compact = r#"{"a":[1,{"b":"x,{\"y\":[]}"}],"c":{},"d":[],"e":null}"#;
        let mut out = Vec::new();
        assert!(indent(&mut out, compact.as_bytes(), 1000));
        let expected = [
            "{",
            "    \"a\": [",
            "        1,",
            "        {",
            r#"            "b": "x,{\"y\":[]}""#,
            "        }",
            "    ],",
            "    \"c\": {},",
            "    \"d\": [],",
            "    \"e\": null",
            "}",
        ];
        assert_eq!(String::from_utf8(out.clone()).unwrap(), expected.join("\n"));
        let mut again = Vec::new();
        super::compact(&mut again, &out).unwrap();
        assert_eq!(again, compact.as_bytes());
        assert!(!indent(&mut Vec::new(), compact.as_bytes(), out.len() - 1));
        let nested = ["[".repeat(50_000), "]".repeat(50_000)].concat();
        let mut short = Vec::new();
        assert!(!indent(&mut short, nested.as_bytes(), 1_000_000));
        assert!(short.len() <= 1_000_000);
    }
}
