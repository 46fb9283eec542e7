//! JSON text without white space between its tokens, and what `jsonb` accepts of it.
#![forbid(unsafe_code)]

use std::fmt;

use crate::document::hex;

/// Digits that `numeric`, and so `jsonb`, holds before the decimal point.
const NUMERIC_INTEGER_DIGITS: i64 = 131_072;
/// Digits that `numeric` holds after the decimal point.
const NUMERIC_FRACTION_DIGITS: i64 = 16_383;
/// `numeric` refuses exponents from here on, whatever the digits.
const NUMERIC_EXPONENT: i64 = i32::MAX as i64 / 2;

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
pub(super) fn string_end(json: &[u8], start: usize) -> Result<usize, NotJsonb> {
    let mut at = start + 1;
    let mut high_surrogate = false;
    loop {
        let Some(found) = memchr::memchr2(b'"', b'\\', json.get(at..).unwrap_or_default()) else {
            return Err(NotJsonb::Unterminated);
        };
        let is_escape = json[at + found] == b'\\';
        let unit = if is_escape && json.get(at + found + 1) == Some(&b'u') {
            let digits = json.get(at + found + 2..at + found + 6);
            digits.and_then(hex::read_number)
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

#[cfg(test)]
mod tests {
    use super::super::escape_non_ascii;
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
}
