//! What the setting `bemi.context` may be set to.
#![forbid(unsafe_code)]

use crate::json::Charset;
use crate::wire::{Context, ContextError};

/// Checks a value for `bemi.context`: empty, which stands for no context, or a context of at most `limit` bytes.
///
/// This is asked before the database is known to be reachable, so a text in another encoding than UTF-8 cannot be
/// converted first. In all encodings that a database can have, bytes below 0x80 are ASCII characters; so for
/// [`Charset::Ascii`] every other byte is taken as some character, which changes nothing in the judgement.
pub fn check(value: &[u8], charset: Charset, limit: usize) -> Result<(), ContextError> {
    if value.is_empty() {
        return Ok(());
    }
    if value.len() > limit {
        return Err(ContextError::TooLong(value.len(), limit));
    }
    let context = match charset {
        Charset::Utf8 => Context::parse(value)?,
        Charset::Ascii => Context::parse(value.iter().map(|&b| char::from(b)).collect::<String>().as_bytes())?,
    };
    // In the log, each character beyond ASCII may be an escape.
    match context.to_json(charset).len() {
        size if size > limit => Err(ContextError::TooLong(size, limit)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::NotJsonb;

    #[test]
    fn the_empty_value_is_no_context() {
        assert_eq!(check(b"", Charset::Utf8, 10), Ok(()));
    }

    #[test]
    fn what_is_longer_in_the_log_is_limited_as_it_is_there() {
        assert_eq!(check("{\"a\":\"é\"}".as_bytes(), Charset::Utf8, 10), Ok(()));
        assert_eq!(check(b"{\"a\":\"\xe9\"}", Charset::Ascii, 10), Err(ContextError::TooLong(14, 10)));
    }

    #[test]
    fn size_is_limited_in_bytes() {
        assert_eq!(check(b"{\"a\":1}", Charset::Utf8, 7), Ok(()));
        assert_eq!(check(b"{\"a\":12}", Charset::Utf8, 7), Err(ContextError::TooLong(8, 7)));
    }

    #[test]
    fn other_encodings_pass_where_utf8_does_not() {
        let latin1 = b"{\"name\":\"Ren\xe9\"}";
        assert_eq!(check(latin1, Charset::Ascii, 100), Ok(()));
        assert_eq!(check(latin1, Charset::Utf8, 100), Err(ContextError::Encoding(12)));
        assert_eq!(
            check(b"{\"name\":\"\\u0000\xe9\"}", Charset::Ascii, 100),
            Err(ContextError::NotJsonb(NotJsonb::NulCharacter))
        );
    }
}
