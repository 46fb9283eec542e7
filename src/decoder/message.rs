//! The document of a logical message that a reader asked for.
#![forbid(unsafe_code)]

use super::change::{Document, Finished, NO_TABLE, Operation};
use super::json::{Json, Omission};
use super::txn::Transaction;
use crate::json::Charset;

/// A message, `pg_logical_emit_message(is_transactional, prefix, content)`.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// In UTF-8.
    pub prefix: &'a [u8],
    /// Its content.
    pub content: Content<'a>,
    /// Whether it belongs to a transaction.
    pub is_transactional: bool,
}

/// What a message holds: any bytes.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// Text in UTF-8, without NUL.
    Text(&'a [u8]),
    /// Anything else.
    Bytes(&'a [u8]),
}

impl<'a> Content<'a> {
    /// The content as text if it is any: `text` is its form in UTF-8, if it has one.
    pub fn new(bytes: &'a [u8], text: Option<&'a [u8]>) -> Self {
        match text {
            Some(text) if !text.contains(&0) => Self::Text(text),
            _ => Self::Bytes(bytes),
        }
    }
}

/// Writes the document of a message. It has the keys of a change, and then its own.
pub fn write(
    json: &mut Json,
    txn: &mut Transaction,
    position: u64,
    subtransaction: Option<u32>,
    message: Message,
    charset: Charset,
) -> Finished {
    let mut document = Document::open(json, txn, position, subtransaction, NO_TABLE, Operation::Message, charset);
    document.json.raw(b"null,\"before\":{},\"after\":{}");
    document.context();
    document.json.raw(b",\"transactional\":");
    document.json.raw(if message.is_transactional { b"true" } else { b"false" });
    let written = write_prefix_and_content(document.json, message);
    if let Err(omission) = written {
        document.json.raw(b"null");
        document.omitted(b"content", &omission);
    }
    document.close()
}

/// On failure, what is written ends where the content's value is missing.
fn write_prefix_and_content(json: &mut Json, message: Message) -> Result<(), Omission> {
    json.raw(b",\"prefix\":");
    json.raw(&crate::json::quoted(message.prefix, json.charset()));
    match message.content {
        Content::Text(text) => {
            json.raw(b",\"content\":");
            json.string(text)
        }
        Content::Bytes(bytes) => {
            json.raw(b",\"content_bytes\":");
            json.hex(bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(content: &[u8], as_text: Option<&[u8]>) -> String {
        let mut json = Json::new(Charset::Utf8);
        let mut txn = Transaction::none(b"\"app\"", Charset::Utf8);
        let message = Message { prefix: b"au\"dit", content: Content::new(content, as_text), is_transactional: false };
        let Finished { context_at, .. } = write(&mut json, &mut txn, 1, None, message, Charset::Utf8);
        let text = [&json.as_bytes()[..context_at], b"{}", &json.as_bytes()[context_at..]].concat();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn a_message_has_the_keys_of_a_change_and_its_own() {
        let start = r#"{"position":"0/1","commit_position":null,"sequence":null,"transaction_id":null,"committed_at":null,"database":"app","schema":null,"table":null,"operation":"MESSAGE","primary_key":null,"before":{},"after":{},"context":{},"transactional":false,"prefix":"au\"dit","#;
        assert_eq!(text(b"a\"b", Some(b"a\"b")), format!(r#"{start}"content":"a\"b"}}"#));
        assert_eq!(text(b"\xff\0", None), format!(r#"{start}"content_bytes":"\\xff00"}}"#));
        assert_eq!(text(b"a\0b", Some(b"a\0b")), format!(r#"{start}"content_bytes":"\\x610062"}}"#));
        assert_eq!(text(b"", Some(b"")), format!(r#"{start}"content":""}}"#));
    }
}
