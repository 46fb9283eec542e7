//! The document of a logical message that a reader asked for.
#![forbid(unsafe_code)]

use super::change::{Document, Finished, NO_TABLE, Operation, column_key};
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

/// Writes the document of a message. It has the keys of a change, and then its own. A content that is too long is left
/// out and named; without memory for it, there is no document.
pub fn write(
    json: &mut Json,
    txn: &Transaction,
    position: u64,
    subtransaction: Option<u32>,
    message: Message,
    charset: Charset,
) -> Result<Finished, Omission> {
    let mut document = Document::open(json, txn, position, subtransaction, NO_TABLE, Operation::Message, charset);
    document.json.raw(b"null,\"before\":{},\"after\":{}");
    document.context();
    document.json.raw(b",\"transactional\":");
    document.json.raw(if message.is_transactional { b"true" } else { b"false" });
    document.json.raw(b",\"prefix\":");
    let written = document.json.string(message.prefix);
    settle(&mut document, b"prefix", written)?;
    let key: &[u8] = match message.content {
        Content::Text(_) => b"content",
        Content::Bytes(_) => b"content_bytes",
    };
    document.json.raw(b",");
    document.json.raw(&column_key(key, charset));
    let written = match message.content {
        Content::Text(text) => document.json.string(text),
        Content::Bytes(bytes) => document.json.hex(bytes),
    };
    settle(&mut document, key, written)?;
    document.close()
}

/// Names what could not be written, unless that is for want of memory.
fn settle(document: &mut Document, key: &[u8], written: Result<(), Omission>) -> Result<(), Omission> {
    match written {
        Err(Omission::OutOfMemory) => return Err(Omission::OutOfMemory),
        Err(omission) => {
            document.json.raw(b"null");
            document.omitted(key, &omission);
        }
        Ok(()) => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decoder::scope::no_file;

    fn text(content: &[u8], as_text: Option<&[u8]>) -> String {
        let mut json = Json::new(Charset::Utf8);
        let txn = Transaction::none(b"\"app\"", Charset::Utf8, no_file);
        let message = Message { prefix: b"au\"dit", content: Content::new(content, as_text), is_transactional: false };
        let written = write(&mut json, &txn, 1, None, message, Charset::Utf8).unwrap();
        String::from_utf8(written.pieces(json.as_bytes(), b"null", b"{}").concat()).unwrap()
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
