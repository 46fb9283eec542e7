//! The context of a statement, put together from that of the session, comments and the statement's text, so that what
//! is logged is a context that the reader of the log accepts: never too long, and never with too many members.
#![forbid(unsafe_code)]

use crate::document::context::{
    Context, ContextError, INVALID_CONTEXT_KEY, INVALID_CONTEXT_LIMIT, MAX_MEMBERS, counted_members,
};
use crate::document::json::{self, Charset};

/// A context that grows within its limits.
#[derive(Clone, Debug)]
pub struct Composition {
    context: Context,
    /// Of its members as they are logged, each with the comma or brace behind it.
    bytes: usize,
    /// Those that count for [`MAX_MEMBERS`].
    members: usize,
    limit: usize,
    charset: Charset,
}

impl Composition {
    /// Begins with a context. One that is longer than `limit` bytes, since the limit was lowered, is kept as one that
    /// cannot be read.
    pub fn new(context: Context, limit: usize, charset: Charset) -> Self {
        let mut composition = Self { context: Context::default(), bytes: 0, members: 0, limit, charset };
        let text = context.to_json(Charset::Utf8);
        if composition.merge(context).is_err() {
            composition.add_invalid(text.as_bytes());
        }
        composition
    }

    /// Adds the keys of `other`, whose values win; refuses to if the whole would be too long or have too many members.
    pub fn merge(&mut self, other: Context) -> Result<(), ContextError> {
        let (mut bytes, mut members) = (self.bytes, self.members);
        for (key, value) in other.members() {
            let (old_bytes, old_members) = self.cost(key);
            bytes = bytes - old_bytes + logged_len(key, value, self.charset);
            members = members - old_members + counted_members(key, value);
        }
        if bytes + 1 > self.limit.max(2) {
            return Err(ContextError::TooLong(bytes + 1, self.limit));
        }
        if members > MAX_MEMBERS {
            return Err(ContextError::TooMany);
        }
        (self.bytes, self.members) = (bytes, members);
        self.context.merge(other);
        Ok(())
    }

    /// Sets `key` to as much of a text as has room; leaves the key out if it has none itself.
    pub fn set_text(&mut self, key: &str, text: &[u8]) {
        let (old_bytes, old_members) = self.cost(key);
        let taken = self.bytes - old_bytes + logged_len(key, "\"\"", self.charset) + 1;
        let Some(room) = self.limit.checked_sub(taken) else { return };
        // A byte takes one at least.
        let text = &text[..json::floor_char_boundary(text, room)];
        let text = String::from_utf8_lossy(text).replace('\0', "\u{FFFD}");
        let end = fitting(&text, room, self.charset);
        self.context.set_text(key, &text.as_bytes()[..end]);
        self.bytes -= old_bytes;
        self.members -= old_members;
        let (bytes, members) = self.cost(key);
        self.bytes += bytes;
        self.members += members;
    }

    /// Adds the beginning of a context that cannot be read.
    pub fn add_invalid(&mut self, text: &[u8]) {
        self.set_text(INVALID_CONTEXT_KEY, &text[..json::floor_char_boundary(text, INVALID_CONTEXT_LIMIT)]);
    }

    /// What it has become.
    pub fn finish(self) -> Context {
        self.context
    }

    fn cost(&self, key: &str) -> (usize, usize) {
        self.context
            .value(key)
            .map_or((0, 0), |value| (logged_len(key, value, self.charset), counted_members(key, value)))
    }
}

/// Returns the bytes of a member of a context in the log, with the comma or brace behind it. The value is compact JSON
/// in UTF-8.
fn logged_len(key: &str, value: &str, charset: Charset) -> usize {
    let of_json = |c: char| if c.is_ascii() { 1 } else { 6 * c.len_utf16() };
    let value_len = match charset {
        Charset::Ascii if !value.is_ascii() => value.chars().map(of_json).sum(),
        _ => value.len(),
    };
    json::escaped_len(key.as_bytes(), charset) + "\"\":,".len() + value_len
}

/// How much of a text makes the inside of a JSON string of at most `room` bytes.
fn fitting(text: &str, room: usize, charset: Charset) -> usize {
    let mut used = 0;
    for (at, c) in text.char_indices() {
        used += json::escaped_len(c.encode_utf8(&mut [0; 4]).as_bytes(), charset);
        if used > room {
            return at;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::context::QUERY_KEY;
    use proptest::prelude::*;

    fn context(text: &str) -> Context {
        Context::parse(text.as_bytes()).unwrap()
    }

    fn composed(session: &str, limit: usize, charset: Charset) -> Composition {
        Composition::new(context(session), limit, charset)
    }

    #[test]
    fn what_has_no_room_is_refused_and_changes_nothing() {
        let mut composition = composed(r#"{"a":1}"#, 13, Charset::Utf8);
        assert_eq!(composition.merge(context(r#"{"b":22}"#)), Err(ContextError::TooLong(14, 13)));
        assert_eq!(composition.merge(context(r#"{"b":2}"#)), Ok(()));
        assert_eq!(composition.merge(context(r#"{"a":3}"#)), Ok(()));
        assert_eq!(composition.finish().to_json(Charset::Utf8), r#"{"a":3,"b":2}"#);
    }

    #[test]
    fn what_counts_is_the_length_in_the_log() {
        let mut composition = composed("{}", 16, Charset::Ascii);
        assert_eq!(composition.merge(context("{\"aaa\":\"éé\"}")), Err(ContextError::TooLong(22, 16)));
        assert_eq!(composition.merge(context("{\"é\":\"\"}")), Ok(()));
        composition.add_invalid(b"no room");
        composition.set_text("", "aé".as_bytes());
        assert_eq!(composition.finish().to_json(Charset::Ascii), "{\"\\u00e9\":\"\"}");
    }

    #[test]
    fn the_session_keeps_its_context_where_a_comment_has_no_room() {
        let members = |from: usize, to: usize| {
            let members: Vec<String> = (from..to).map(|i| format!("\"k{i}\":0")).collect();
            context(&format!("{{{}}}", members.join(",")))
        };
        let mut composition = Composition::new(members(0, MAX_MEMBERS), 1 << 20, Charset::Utf8);
        assert_eq!(composition.merge(members(MAX_MEMBERS, MAX_MEMBERS + 1)), Err(ContextError::TooMany));
        composition.add_invalid(b"{}");
        composition.set_text(QUERY_KEY, b"UPDATE t");
        let text = composition.finish().to_json(Charset::Utf8);
        // What is added here is no reason for the reader to refuse it.
        assert!(context(&text).value("k999").is_some());
        assert!(text.ends_with(r#","bemi_invalid_context":"{}","SQL":"UPDATE t"}"#));
    }

    #[test]
    fn a_context_beyond_a_lowered_limit_is_kept_as_one_that_cannot_be_read() {
        let session = r#"{"who":"a \"name\"","more":"xxxxxxxxxxxxxxxxxxxxxxxx"}"#;
        let json = |limit| composed(session, limit, Charset::Utf8).finish().to_json(Charset::Utf8);
        assert_eq!(json(40), r#"{"bemi_invalid_context":"{\"who\":\"a "}"#);
        assert_eq!(json(2), "{}");
    }

    proptest! {
        #[test]
        fn what_is_logged_is_a_context_within_its_limits(
            parts in prop::collection::vec(("[a-cé\"]{0,3}", "[a\\\\\"\\n\u{0}é😀]{0,30}", 0u8..3), 0..8),
            limit in 2usize..200, ascii: bool,
        ) {
            let charset = if ascii { Charset::Ascii } else { Charset::Utf8 };
            let mut composition = Composition::new(Context::default(), limit, charset);
            for (key, text, how) in &parts {
                match how {
                    0 => composition.set_text(key, text.as_bytes()),
                    1 => composition.add_invalid(text.as_bytes()),
                    _ => {
                        let mut other = Context::default();
                        other.set_text(key, text.as_bytes());
                        let before = composition.clone().finish();
                        match composition.merge(other.clone()) {
                            Ok(()) => prop_assert_eq!(composition.context.value(key), other.value(key)),
                            Err(_) => {
                                prop_assert_eq!(composition.clone().finish(), before.clone());
                                let mut whole = before;
                                whole.merge(other);
                                prop_assert!(whole.to_json(charset).len() > limit);
                            }
                        }
                    }
                }
            }
            let (bytes, context) = (composition.bytes, composition.finish());
            let json = context.to_json(charset);
            prop_assert!(json.len() <= limit);
            prop_assert_eq!(json.len(), (bytes + 1).max(2));
            prop_assert!(Context::parse(json.as_bytes()).is_ok());
        }
    }
}
