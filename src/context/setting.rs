//! What the setting `bemi.context` may be set to.
#![forbid(unsafe_code)]

use crate::document::context::{Context, ContextError};
use crate::document::json::Charset;

/// A value for `bemi.context`.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// In UTF-8, the database's encoding.
    Utf8(&'a [u8]),
    /// In another encoding, and converted to UTF-8. In the log, its characters beyond ASCII are escapes.
    Converted(&'a [u8], &'a [u8]),
    /// In another encoding, when the database cannot be asked for a conversion yet. In all encodings that a database
    /// can have, bytes below 0x80 are ASCII characters; so every other byte is taken as some character, which changes
    /// nothing in the judgement but the length in the log.
    Unconverted(&'a [u8]),
}

/// Checks a value for `bemi.context`: empty, which stands for no context, or a context of at most `limit` bytes, both
/// as it is given and in the log.
pub fn check(value: Value<'_>, limit: usize) -> Result<(), ContextError> {
    let (Value::Utf8(given) | Value::Converted(given, _) | Value::Unconverted(given)) = value;
    if given.is_empty() {
        return Ok(());
    }
    if given.len() > limit {
        return Err(ContextError::TooLong(given.len(), limit));
    }
    match value {
        // In the log it is no longer than it is here.
        Value::Utf8(text) => Context::parse(text).map(drop),
        Value::Converted(_, text) => match Context::parse(text)?.to_json(Charset::Ascii).len() {
            size if size > limit => Err(ContextError::TooLong(size, limit)),
            _ => Ok(()),
        },
        Value::Unconverted(text) => {
            Context::parse(text.iter().map(|&b| char::from(b)).collect::<String>().as_bytes()).map(drop)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::json::NotJsonb;
    use proptest::prelude::*;

    #[test]
    fn the_empty_value_is_no_context() {
        assert_eq!(check(Value::Utf8(b""), 10), Ok(()));
    }

    #[test]
    fn size_is_limited_in_bytes() {
        assert_eq!(check(Value::Utf8(b"{\"a\":1}"), 7), Ok(()));
        assert_eq!(check(Value::Utf8(b"{\"a\":12}"), 7), Err(ContextError::TooLong(8, 7)));
    }

    #[test]
    fn what_is_longer_in_the_log_is_limited_as_it_is_there() {
        assert_eq!(check(Value::Utf8("{\"a\":\"é\"}".as_bytes()), 10), Ok(()));
        let value = Value::Converted(b"{\"a\":\"\xe9\"}", "{\"a\":\"é\"}".as_bytes());
        assert_eq!(check(value, 14), Ok(()));
        assert_eq!(check(value, 13), Err(ContextError::TooLong(14, 13)));
    }

    #[test]
    fn other_encodings_pass_where_utf8_does_not() {
        let latin1 = b"{\"name\":\"Ren\xe9\"}";
        assert_eq!(check(Value::Unconverted(latin1), 100), Ok(()));
        assert_eq!(check(Value::Utf8(latin1), 100), Err(ContextError::Encoding(12)));
        assert_eq!(
            check(Value::Unconverted(b"{\"name\":\"\\u0000\xe9\"}"), 100),
            Err(ContextError::NotJsonb(NotJsonb::NulCharacter))
        );
    }

    proptest! {
        #[test]
        fn in_utf8_a_context_is_no_longer_in_the_log_than_it_was_given(
            text in "[ {}\":,a1]{0,20}", key in "(\\\\u00[0-9a-f]{2}|\\\\[\"/bfnrt\\\\]|[aé]){0,4}",
        ) {
            for text in [text, format!("{{\"{key}\" : \"{key}\" }}")] {
                if let Ok(context) = Context::parse(text.as_bytes()) {
                    prop_assert!(context.to_json(Charset::Utf8).len() <= text.len());
                }
            }
        }
    }
}
