//! What the stages share: the form in which a context travels through the write-ahead log.
//!
//! A context is a JSON object that `jsonb` accepts. It is written as the content of a logical decoding message with
//! the prefix [`PREFIX`] and read again by the decoder, so both sides judge it by the same rules.
#![forbid(unsafe_code)]

use core::ffi::CStr;
use std::fmt::{self, Write};

use serde_json::{Map, Value};

/// Prefix of the logical decoding messages that carry a context.
pub const PREFIX: &CStr = c"_bemi";

/// Key under which a context that could not be read is kept, so that nothing is lost silently.
pub const INVALID_CONTEXT_KEY: &str = "bemi_invalid_context";

/// Key under which `bemi.capture_query` keeps the text of the statement.
pub const QUERY_KEY: &str = "SQL";

/// As much of an unreadable context as is kept, in bytes.
pub const INVALID_CONTEXT_LIMIT: usize = 1024;

/// Deepest nesting of arrays and objects in a context, its own braces included: the limit of serde_json, which keeps
/// a hostile context from exhausting the stack.
pub const MAX_DEPTH: usize = 127;

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

/// Why a text is no context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContextError {
    /// Not JSON; the reason and place as the parser states them.
    Syntax(String),
    /// JSON, but an array, a string, a number, a boolean or null (named here).
    NotAnObject(&'static str),
    /// Nested deeper than [`MAX_DEPTH`].
    TooDeep,
    /// A string or key holds the character `\u0000`, which `jsonb` cannot hold.
    NulCharacter,
    /// A number beyond what `numeric`, and so `jsonb`, can hold.
    NumberOverflow,
    /// Not valid UTF-8; the offset of the first wrong byte.
    Encoding(usize),
    /// Longer than allowed: its size and the limit, in bytes.
    TooLong(usize, usize),
}

impl fmt::Display for ContextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(reason) => write!(f, "It is not valid JSON: {reason}."),
            Self::NotAnObject(kind) => write!(f, "It is a JSON {kind}, not an object."),
            Self::TooDeep => write!(f, "It is nested deeper than {MAX_DEPTH} levels."),
            Self::NulCharacter => write!(f, "It holds the character \\u0000, which jsonb cannot hold."),
            Self::NumberOverflow => write!(f, "It holds a number that is out of the range of numeric and so of jsonb."),
            Self::Encoding(at) => write!(f, "It is not valid UTF-8 at byte {at}."),
            Self::TooLong(size, limit) => write!(f, "It has {size} bytes; the limit is {limit}."),
        }
    }
}

/// A context: a JSON object that `jsonb` accepts. The keys keep the order in which they were given; of a key given
/// twice the last value counts, as in `jsonb`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Context(Map<String, Value>);

impl Context {
    /// Reads a JSON object, in UTF-8.
    pub fn parse(text: &[u8]) -> Result<Self, ContextError> {
        let text = std::str::from_utf8(text).map_err(|e| ContextError::Encoding(e.valid_up_to()))?;
        let value = serde_json::from_str::<Value>(text).map_err(|e| {
            let reason = e.to_string();
            if reason.starts_with("recursion limit") { ContextError::TooDeep } else { ContextError::Syntax(reason) }
        })?;
        let map = match value {
            Value::Object(map) => map,
            Value::Array(_) => return Err(ContextError::NotAnObject("array")),
            Value::String(_) => return Err(ContextError::NotAnObject("string")),
            Value::Number(_) => return Err(ContextError::NotAnObject("number")),
            Value::Bool(_) => return Err(ContextError::NotAnObject("boolean")),
            Value::Null => return Err(ContextError::NotAnObject("null")),
        };
        map.iter().try_for_each(|(key, value)| check_key(key).and_then(|()| check_value(value)))?;
        Ok(Self(map))
    }

    /// The context that stands for one that could not be read: its text, cut at [`INVALID_CONTEXT_LIMIT`] bytes.
    /// What is not UTF-8, and NUL, is shown as U+FFFD, since `jsonb` could not hold it.
    pub fn invalid(raw: &[u8]) -> Self {
        let mut end = raw.len().min(INVALID_CONTEXT_LIMIT);
        // A character that the cut would halve is left out.
        while end < raw.len() && end > 0 && raw[end] & 0xC0 == 0x80 {
            end -= 1;
        }
        let text = String::from_utf8_lossy(&raw[..end]).replace('\0', "\u{FFFD}");
        let mut map = Map::new();
        map.insert(INVALID_CONTEXT_KEY.to_owned(), Value::String(text));
        Self(map)
    }

    /// Adds the keys of `other`, whose values win.
    pub fn merge(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Sets `key` to a string. NUL, which `jsonb` cannot hold, is shown as U+FFFD.
    pub fn set_text(&mut self, key: &str, text: &str) {
        self.0.insert(key.to_owned(), Value::String(text.replace('\0', "\u{FFFD}")));
    }

    /// Whether it has no keys: then it says the same as no context at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Compact JSON on one line.
    pub fn to_json(&self, charset: Charset) -> String {
        // A map of strings to values has nothing that could fail to become JSON.
        let json = serde_json::to_string(&self.0).unwrap_or_else(|_| "{}".to_owned());
        match charset {
            Charset::Utf8 => json,
            Charset::Ascii => escape_non_ascii(&json),
        }
    }
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
                // Writing to a String does not fail.
                let _ = write!(ascii, "\\u{unit:04x}");
            }
        }
    }
    ascii
}

fn check_key(key: &str) -> Result<(), ContextError> {
    if key.contains('\0') { Err(ContextError::NulCharacter) } else { Ok(()) }
}

fn check_value(value: &Value) -> Result<(), ContextError> {
    match value {
        Value::String(text) => check_key(text),
        Value::Number(number) if !fits_numeric(number.as_str().as_bytes()) => Err(ContextError::NumberOverflow),
        Value::Array(items) => items.iter().try_for_each(check_value),
        Value::Object(map) => map.iter().try_for_each(|(k, v)| check_key(k).and_then(|()| check_value(v))),
        _ => Ok(()),
    }
}

/// Whether `numeric` can hold this JSON number. It is judged by its digits, as the server judges it.
pub fn fits_numeric(number: &[u8]) -> bool {
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
    use super::*;

    fn error(text: &str) -> ContextError {
        Context::parse(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn only_objects_are_contexts() {
        assert_eq!(error("[1]"), ContextError::NotAnObject("array"));
        assert_eq!(error("\"x\""), ContextError::NotAnObject("string"));
        assert_eq!(error("1"), ContextError::NotAnObject("number"));
        assert_eq!(error("null"), ContextError::NotAnObject("null"));
        assert_eq!(error("true"), ContextError::NotAnObject("boolean"));
        assert!(matches!(error("nonsense"), ContextError::Syntax(_)));
        assert!(matches!(error("{\"a\":1} x"), ContextError::Syntax(_)));
        assert!(matches!(error(""), ContextError::Syntax(_)));
        assert!(Context::parse(b" {} ").unwrap().is_empty());
    }

    #[test]
    fn what_jsonb_refuses_is_refused() {
        assert_eq!(error(r#"{"a":"\u0000"}"#), ContextError::NulCharacter);
        assert_eq!(error(r#"{"\u0000":1}"#), ContextError::NulCharacter);
        assert_eq!(error(r#"{"a":[{"b":"x\u0000"}]}"#), ContextError::NulCharacter);
        assert!(matches!(error(r#"{"a":"\ud800"}"#), ContextError::Syntax(_)));
        assert!(matches!(error("{\"a\":\"\u{1}\"}"), ContextError::Syntax(_)));
        assert_eq!(error(r#"{"a":1e131072}"#), ContextError::NumberOverflow);
        assert_eq!(Context::parse(b"{\"a\":\"\xff\"}").unwrap_err(), ContextError::Encoding(6));
        assert!(Context::parse(br#"{"a":1e131071,"b":0.00001e-16378,"c":-1.5E+3}"#).is_ok());
    }

    #[test]
    fn nesting_ends_at_the_stated_depth() {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        assert!(Context::parse(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert_eq!(error(&nested(MAX_DEPTH + 1)), ContextError::TooDeep);
        assert_eq!(error(&"[".repeat(100_000)), ContextError::TooDeep);
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

    #[test]
    fn keys_keep_their_order_and_the_last_value_of_a_key_counts() {
        let context = Context::parse(br#"{"z": 1, "a": {"y":2,"b":3}, "z": 1.50}"#).unwrap();
        assert_eq!(context.to_json(Charset::Utf8), r#"{"z":1.50,"a":{"y":2,"b":3}}"#);
    }

    #[test]
    fn merging_replaces_top_level_keys() {
        let mut context = Context::parse(br#"{"a":{"x":1},"b":2}"#).unwrap();
        context.merge(Context::parse(br#"{"a":3,"c":4}"#).unwrap());
        assert_eq!(context.to_json(Charset::Utf8), r#"{"a":3,"b":2,"c":4}"#);
    }

    #[test]
    fn an_invalid_context_keeps_its_text_up_to_the_limit() {
        assert_eq!(
            Context::invalid(b"not \"json\"\xff\0").to_json(Charset::Utf8),
            "{\"bemi_invalid_context\":\"not \\\"json\\\"\u{FFFD}\u{FFFD}\"}"
        );
        let long = "é".repeat(INVALID_CONTEXT_LIMIT);
        let kept = format!("x{long}");
        let json = Context::invalid(kept.as_bytes()).to_json(Charset::Utf8);
        assert_eq!(json, format!("{{\"bemi_invalid_context\":\"x{}\"}}", "é".repeat((INVALID_CONTEXT_LIMIT - 1) / 2)));
    }

    #[test]
    fn ascii_output_says_the_same() {
        let context = Context::parse("{\"é\":\"😀日\"}".as_bytes()).unwrap();
        let ascii = context.to_json(Charset::Ascii);
        assert_eq!(ascii, r#"{"\u00e9":"\ud83d\ude00\u65e5"}"#);
        assert_eq!(Context::parse(ascii.as_bytes()).unwrap(), context);
    }
}
