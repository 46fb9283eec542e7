//! The document of a logical message that a reader asked for: how it is written, and how it is read back.
#![forbid(unsafe_code)]

use std::borrow::Cow;

use super::change::{Draft, Finished, NO_TABLE};
use super::fields::{OUT_OF_MEMORY, Values};
use super::head::{Head, HeadText};
use super::hex;
use super::json::{Charset, Json};
use super::keys::Key;
use super::omission::Omission;
use super::operation::Operation;

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
    head: &HeadText,
    position: u64,
    subtransaction: Option<u32>,
    message: Message,
    charset: Charset,
) -> Result<Finished, Omission> {
    let mut draft = Draft::open(json, head, position, subtransaction, NO_TABLE, Operation::Message, charset);
    draft.no_row();
    draft.context();
    draft.json.raw(member!(Transactional).as_bytes());
    draft.json.raw(if message.is_transactional { b"true" } else { b"false" });
    draft.json.raw(member!(Prefix).as_bytes());
    let written = draft.json.string(message.prefix);
    settle(&mut draft, Key::Prefix, written)?;
    let (key, written) = match message.content {
        Content::Text(text) => {
            draft.json.raw(member!(Content).as_bytes());
            (Key::Content, draft.json.string(text))
        }
        Content::Bytes(bytes) => {
            draft.json.raw(member!(ContentBytes).as_bytes());
            (Key::ContentBytes, draft.json.hex(bytes))
        }
    };
    settle(&mut draft, key, written)?;
    draft.close()
}

/// Names what could not be written, unless that is for want of memory.
fn settle(draft: &mut Draft, key: Key, written: Result<(), Omission>) -> Result<(), Omission> {
    match written {
        Err(Omission::OutOfMemory) => return Err(Omission::OutOfMemory),
        Err(omission) => {
            draft.json.raw(b"null");
            draft.omitted(key.name().as_bytes(), &omission);
        }
        Ok(()) => {}
    }
    Ok(())
}

/// A message as its document shows it.
#[derive(Debug)]
pub struct Shown<'a> {
    /// Where it is, and the transaction that it belongs to.
    pub head: Head<'a>,
    /// The context in force, as JSON; or [`super::change::SAME_CONTEXT`].
    pub context: &'a str,
    /// Whether it belongs to a transaction.
    pub is_transactional: bool,
    /// Its prefix; None if it was left out.
    pub prefix: Option<Cow<'a, str>>,
    /// Its content; None if it was left out.
    pub content: Option<ShownContent<'a>>,
    /// What the decoder left out, and why, as JSON.
    pub omitted: Option<&'a str>,
}

/// The content of a message, as a document shows it.
#[derive(Debug, PartialEq, Eq)]
pub enum ShownContent<'a> {
    /// Text.
    Text(Cow<'a, str>),
    /// Anything else.
    Bytes(Vec<u8>),
}

impl<'a> Shown<'a> {
    /// Reads the document of a message. Fails with what is wrong with it.
    pub fn read(text: &'a [u8]) -> Result<Self, String> {
        Self::of(&Values::read(text, Key::ALL)?)
    }

    pub(super) fn of(values: &Values<'a>) -> Result<Self, String> {
        if values.string(Key::Operation)? != Operation::Message.name() {
            return Err(values.wrong(Key::Operation));
        }
        let content = match values.find(Key::ContentBytes) {
            Some(_) => values.nullable(Key::ContentBytes, bytes)?.map(ShownContent::Bytes),
            None => values.nullable(Key::Content, Values::string)?.map(ShownContent::Text),
        };
        Ok(Self {
            head: Head::read(values)?,
            context: values.value(Key::Context)?,
            is_transactional: match values.value(Key::Transactional)? {
                "true" => true,
                "false" => false,
                _ => return Err(values.wrong(Key::Transactional)),
            },
            prefix: values.nullable(Key::Prefix, Values::string)?,
            content,
            omitted: values.find(Key::Omitted),
        })
    }
}

/// Reads bytes in the hexadecimal form that `bytea` has.
fn bytes(values: &Values, key: Key) -> Result<Vec<u8>, String> {
    let text = values.string(key)?;
    let digits = text.strip_prefix("\\x").ok_or_else(|| values.wrong(key))?;
    hex::read(digits.as_bytes()).map_err(|_| OUT_OF_MEMORY.to_owned())?.ok_or_else(|| values.wrong(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(content: &[u8], as_text: Option<&[u8]>) -> String {
        let mut json = Json::new(Charset::Utf8);
        let head = HeadText::new(None, None, b"\"app\"");
        let message = Message { prefix: b"au\"dit", content: Content::new(content, as_text), is_transactional: false };
        let written = write(&mut json, &head, 1, None, message, Charset::Utf8).unwrap();
        String::from_utf8(written.pieces(json.as_bytes(), b"null", b"{}").concat()).unwrap()
    }

    #[test]
    fn a_message_has_the_keys_of_a_change_and_its_own() {
        let start = concat!(
            r#"{"position":"0/1","commit_position":null,"sequence":null,"transaction_id":null,"committed_at":null,"#,
            r#""database":"app","schema":null,"table":null,"operation":"MESSAGE","primary_key":null,"before":{},"#,
            r#""after":{},"context":{},"transactional":false,"prefix":"au\"dit","#,
        );
        assert_eq!(text(b"a\"b", Some(b"a\"b")), format!(r#"{start}"content":"a\"b"}}"#));
        assert_eq!(text(b"\xff\0", None), format!(r#"{start}"content_bytes":"\\xff00"}}"#));
        assert_eq!(text(b"a\0b", Some(b"a\0b")), format!(r#"{start}"content_bytes":"\\x610062"}}"#));
        assert_eq!(text(b"", Some(b"")), format!(r#"{start}"content":""}}"#));
    }

    #[test]
    fn a_document_that_is_not_of_a_message_is_refused_with_the_reason() {
        let example = text(b"\xff\0", None);
        for (wrong, sign) in [
            (example.replace("MESSAGE", "CREATE"), "operation is \"CREATE\""),
            (example.replace("\"transactional\":false", "\"transactional\":0"), "transactional is 0"),
            (example.replace("\"prefix\":", "\"suffix\":"), "no key \"prefix\""),
            (example.replace("\\\\xff00", "\\\\xff0"), "content_bytes is"),
            (example.replace("\\\\xff00", "ff00"), "content_bytes is"),
            (example.replace("content_bytes", "bytes"), "no key \"content\""),
        ] {
            let error = Shown::read(wrong.as_bytes()).unwrap_err();
            assert!(error.contains(sign), "{error}");
        }
    }
}
