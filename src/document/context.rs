//! The form of a context, in the WAL and in a document.
//!
//! A context is a JSON object that `jsonb` accepts. It is written as the content of a logical decoding message with
//! the prefix [`PREFIX`] and read again by the decoder, so both sides judge it by the same rules.
#![forbid(unsafe_code)]

use core::ffi::CStr;
use std::fmt;

use indexmap::IndexMap;
use serde_json::value::RawValue;

use super::json::{self, Charset, NotJsonb};

/// Prefix of the logical decoding messages that carry a context.
pub const PREFIX: &CStr = c"_bemi";

/// Key under which a context that could not be read is kept, so that nothing is lost silently.
pub const INVALID_CONTEXT_KEY: &str = "bemi_invalid_context";

/// Key under which `bemi.capture_query` keeps the text of the statement.
pub const QUERY_KEY: &str = "SQL";

/// As much of an unreadable context as is kept, in bytes.
pub const INVALID_CONTEXT_LIMIT: usize = 1024;

/// Deepest nesting of arrays and objects in a context, its own braces included: as deep as many a reader of the
/// documents can go, serde_json among them.
pub const MAX_DEPTH: usize = 127;

/// Most members of objects and elements of arrays in a context, all levels together: each is an entry of the index on
/// the contexts of `bemi.changes`.
pub const MAX_MEMBERS: usize = 1000;

/// Why a text is no context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContextError {
    /// Not JSON; the reason and place as the parser states them.
    Syntax(String),
    /// JSON, but an array, a string, a number, a boolean or null (named here).
    NotAnObject(&'static str),
    /// Nested deeper than [`MAX_DEPTH`].
    TooDeep,
    /// More members and elements than [`MAX_MEMBERS`].
    TooMany,
    /// JSON that `jsonb` does not accept.
    NotJsonb(NotJsonb),
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
            Self::TooMany => write!(f, "It has more than {MAX_MEMBERS} members and elements."),
            Self::NotJsonb(reason) => write!(f, "It is JSON that jsonb does not accept: {reason}."),
            Self::Encoding(at) => write!(f, "It is not valid UTF-8 at byte {at}."),
            Self::TooLong(size, limit) => write!(f, "It has {size} bytes; the limit is {limit}."),
        }
    }
}

/// A context: a JSON object that `jsonb` accepts. The keys keep the order in which they were given; of a key given
/// twice the last value counts, as in `jsonb`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// Each key, and its value as compact JSON in UTF-8.
    members: IndexMap<String, String>,
}

impl Context {
    /// Reads a JSON object, in UTF-8.
    pub fn parse(text: &[u8]) -> Result<Self, ContextError> {
        let text = std::str::from_utf8(text).map_err(|e| ContextError::Encoding(e.valid_up_to()))?;
        let whole: &RawValue = serde_json::from_str(text).map_err(|e| ContextError::Syntax(e.to_string()))?;
        let mut compact = Vec::with_capacity(text.len());
        let depth = json::compact(&mut compact, whole.get().as_bytes()).map_err(ContextError::NotJsonb)?;
        match compact.first() {
            Some(b'{') => {}
            Some(b'[') => return Err(ContextError::NotAnObject("array")),
            Some(b'"') => return Err(ContextError::NotAnObject("string")),
            Some(b't' | b'f') => return Err(ContextError::NotAnObject("boolean")),
            Some(b'n') => return Err(ContextError::NotAnObject("null")),
            _ => return Err(ContextError::NotAnObject("number")),
        }
        if depth > MAX_DEPTH {
            return Err(ContextError::TooDeep);
        }
        let members: Members = serde_json::from_slice(&compact).map_err(|e| ContextError::Syntax(e.to_string()))?;
        let mut context = Self::default();
        for (key, value) in members.0 {
            context.members.insert(key, value.get().to_owned());
        }
        let count = || context.members().map(|(key, value)| counted_members(key, value)).sum::<usize>();
        if !has_few_members(&compact) && count() > MAX_MEMBERS {
            return Err(ContextError::TooMany);
        }
        Ok(context)
    }

    /// The compact JSON of a context that is written as most are: in ASCII, with few keys, without escapes in them, and
    /// none twice. It is what reading it and writing it again would give, for less. None for all others, valid or not.
    pub fn plain(text: &[u8]) -> Option<String> {
        let text = std::str::from_utf8(text).ok().filter(|text| text.is_ascii())?;
        let whole: &RawValue = serde_json::from_str(text).ok()?;
        let mut compact = Vec::with_capacity(text.len());
        let depth = json::compact(&mut compact, whole.get().as_bytes()).ok()?;
        let is_plain = compact.first() == Some(&b'{')
            && depth <= MAX_DEPTH
            && json::has_plain_keys(&compact)
            && has_few_members(&compact);
        is_plain.then(|| String::from_utf8(compact).ok()).flatten()
    }

    /// The context that stands for one that could not be read: its text, cut at [`INVALID_CONTEXT_LIMIT`] bytes.
    /// What is not UTF-8, and NUL, is shown as U+FFFD, since `jsonb` could not hold it.
    pub fn invalid(raw: &[u8]) -> Self {
        let kept = &raw[..json::floor_char_boundary(raw, INVALID_CONTEXT_LIMIT)];
        let mut context = Self::default();
        context.set_text(INVALID_CONTEXT_KEY, kept);
        context
    }

    /// Adds the keys of `other`, whose values win.
    pub fn merge(&mut self, other: Self) {
        self.members.extend(other.members);
    }

    /// Sets `key` to a string. What is not UTF-8, and NUL, is shown as U+FFFD.
    pub fn set_text(&mut self, key: &str, text: &[u8]) {
        let text = String::from_utf8_lossy(text).replace('\0', "\u{FFFD}");
        let quoted = String::from_utf8_lossy(&json::quoted(text.as_bytes(), Charset::Utf8)).into_owned();
        self.members.insert(key.to_owned(), quoted);
    }

    /// Its keys, and their values as compact JSON in UTF-8.
    pub fn members(&self) -> impl Iterator<Item = (&str, &str)> {
        self.members.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The value of a key.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.members.get(key).map(String::as_str)
    }

    /// Whether it has no keys: then it says the same as no context at all.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Compact JSON on one line.
    pub fn to_json(&self, charset: Charset) -> String {
        let mut json = String::from("{");
        for (i, (key, value)) in self.members.iter().enumerate() {
            if i > 0 {
                json.push(',');
            }
            json.push_str(&String::from_utf8_lossy(&json::quoted(key.as_bytes(), Charset::Utf8)));
            json.push(':');
            json.push_str(value);
        }
        json.push('}');
        if charset == Charset::Ascii { json::escape_non_ascii(&json) } else { json }
    }
}

/// How many members and elements a member of a context is for [`MAX_MEMBERS`]. What is added to contexts here is none,
/// so that it is never too much.
pub fn counted_members(key: &str, value: &str) -> usize {
    let is_ours = [INVALID_CONTEXT_KEY, QUERY_KEY].contains(&key) && value.starts_with('"');
    if is_ours { 0 } else { 1 + count_members(value.as_bytes()) }
}

/// Counts the members of objects and the elements of arrays in compact JSON.
fn count_members(compact: &[u8]) -> usize {
    let (mut count, mut is_in_string, mut at) = (0, false, 0);
    while let Some(&byte) = compact.get(at) {
        match byte {
            b'\\' if is_in_string => at += 1,
            b'"' => is_in_string = !is_in_string,
            b',' if !is_in_string => count += 1,
            b'[' | b'{' if !is_in_string && !matches!(compact.get(at + 1), Some(b']' | b'}')) => count += 1,
            _ => {}
        }
        at += 1;
    }
    count
}

/// Whether compact JSON certainly has no more members and elements than [`MAX_MEMBERS`]: each takes two bytes at least.
fn has_few_members(compact: &[u8]) -> bool {
    compact.len() < 2 * MAX_MEMBERS || count_members(compact) <= MAX_MEMBERS
}

/// The members of an object, with their values as they stand there.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> serde::Deserialize<'de> for Members<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
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
        assert_eq!(error(r#"{"a":"\u0000"}"#), ContextError::NotJsonb(NotJsonb::NulCharacter));
        assert_eq!(error(r#"{"\u0000":1}"#), ContextError::NotJsonb(NotJsonb::NulCharacter));
        assert_eq!(error(r#"{"a":[{"b":"x\u0000"}]}"#), ContextError::NotJsonb(NotJsonb::NulCharacter));
        assert_eq!(error(r#"{"a":"\ud800"}"#), ContextError::NotJsonb(NotJsonb::Surrogate));
        assert!(matches!(error("{\"a\":\"\u{1}\"}"), ContextError::Syntax(_)));
        assert_eq!(error(r#"{"a":1e131072}"#), ContextError::NotJsonb(NotJsonb::NumberOverflow));
        assert_eq!(Context::parse(b"{\"a\":\"\xff\"}").unwrap_err(), ContextError::Encoding(6));
        assert!(Context::parse(br#"{"a":1e131071,"b":0.00001e-16378,"c":-1.5E+3}"#).is_ok());
    }

    #[test]
    fn nesting_ends_at_the_stated_depth() {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        assert!(Context::parse(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert_eq!(error(&nested(MAX_DEPTH + 1)), ContextError::TooDeep);
        assert_eq!(error(&nested(100_000)), ContextError::TooDeep);
    }

    #[test]
    fn members_are_counted_at_all_levels() {
        let array = |elements: usize| format!("{{\"a\":[{}]}}", vec!["1"; elements].join(","));
        assert!(Context::parse(array(MAX_MEMBERS - 1).as_bytes()).is_ok());
        assert_eq!(error(&array(MAX_MEMBERS)), ContextError::TooMany);
        let keys = |count: usize| (0..count).map(|i| format!("\"k{i}\":{{}}")).collect::<Vec<_>>().join(",");
        assert!(Context::parse(format!("{{{}}}", keys(MAX_MEMBERS)).as_bytes()).is_ok());
        assert_eq!(error(&format!("{{{}}}", keys(MAX_MEMBERS + 1))), ContextError::TooMany);
        assert_eq!(error(&format!("{{\"a\":{{{}}}}}", keys(MAX_MEMBERS))), ContextError::TooMany);
        // Commas and brackets inside of strings are text.
        let text = format!("{{\"a\":\"{}\"}}", ",[{\\\"".repeat(2000));
        assert_eq!(Context::plain(text.as_bytes()), Some(text.clone()));
        assert_eq!(Context::plain(array(MAX_MEMBERS).as_bytes()), None);
        // A key that is given again is one member, and what is added to contexts is none.
        assert!(Context::parse(format!("{{{}\"a\":1}}", "\"a\":1,".repeat(MAX_MEMBERS)).as_bytes()).is_ok());
        let added = format!("{{{},\"SQL\":\"x\",\"bemi_invalid_context\":\"y\"}}", keys(MAX_MEMBERS));
        assert!(Context::parse(added.as_bytes()).is_ok());
        assert_eq!(error(&added.replace("\"x\"", "[1]")), ContextError::TooMany);
    }

    #[test]
    fn keys_keep_their_order_and_the_last_value_of_a_key_counts() {
        let context = Context::parse(br#"{"z": 1, "a": {"y":2,"b":3}, "z": 1.50}"#).unwrap();
        assert_eq!(context.to_json(Charset::Utf8), r#"{"z":1.50,"a":{"y":2,"b":3}}"#);
        // Keys that a parser gives a meaning of its own are keys like any other.
        for key in ["$serde_json::private::Number", "$serde_json::private::RawValue", "", "a\"b", "\\u0061"] {
            let text = format!(r#"{{"{}":{{"{0}":"1"}}}}"#, key.replace('"', "\\\""));
            let context = Context::parse(text.as_bytes()).unwrap();
            assert_eq!(context.to_json(Charset::Utf8), text.replacen("\\u0061", "a", 1));
        }
    }

    #[test]
    fn a_plain_context_is_what_reading_it_and_writing_it_gives() {
        for plain in ["{}", " { } ", r#"{ "a": 1 }"#, r#"{"a":{"a":"}\"{"},"b":[1,{"a":2}],"":null,"ab":"\u00e9"}"#] {
            let read = Context::parse(plain.as_bytes()).unwrap();
            for charset in [Charset::Utf8, Charset::Ascii] {
                assert_eq!(Context::plain(plain.as_bytes()), Some(read.to_json(charset)), "{plain}");
            }
        }
        let many = format!("{{{}}}", (0..17).map(|i| format!("\"{i}\":1")).collect::<Vec<_>>().join(","));
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
        for other in [
            r#"{"a":1,"a":2}"#,
            r#"{"\u0061":1}"#,
            r#"{"é":1}"#,
            r#"{"a":"é"}"#,
            "[]",
            "{",
            "",
            r#"{"a":"\u0000"}"#,
            &many,
            &deep,
        ] {
            assert_eq!(Context::plain(other.as_bytes()), None, "{other}");
        }
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
        let parsed = |json: &str| serde_json::from_str::<serde_json::Value>(json).unwrap();
        assert_eq!(parsed(&ascii), parsed(&context.to_json(Charset::Utf8)));
    }
}
