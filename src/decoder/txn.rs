//! What holds for all changes of one transaction.
#![forbid(unsafe_code)]

use super::encode;
use super::json;
use crate::wire::{Charset, Context};

/// Longest context that is taken as one, in bytes. It stands in each document of its transaction, so what is longer
/// is shown as unreadable. The server's own messages cannot be longer than 1 GiB; ours end far below.
const MAX_CONTEXT: usize = 64 << 20;

/// The transaction that is being decoded.
#[derive(Debug)]
pub struct Transaction {
    /// The keys between position and schema, on both sides of the sequence number.
    before_sequence: Vec<u8>,
    after_sequence: Vec<u8>,
    sequence: u64,
    context: Vec<u8>,
    charset: Charset,
}

impl Transaction {
    /// A transaction without changes and context so far. `committed_at` is in microseconds since 2000-01-01 UTC,
    /// `database` is a JSON string.
    pub fn new(xid: u32, commit_position: u64, committed_at: i64, database: &[u8], charset: Charset) -> Self {
        let mut before_sequence = b"\",\"commit_position\":\"".to_vec();
        encode::lsn(&mut before_sequence, commit_position);
        before_sequence.extend_from_slice(b"\",\"sequence\":");
        let mut after_sequence = format!(",\"transaction_id\":{xid},\"committed_at\":\"").into_bytes();
        encode::timestamptz(&mut after_sequence, committed_at);
        after_sequence.extend_from_slice(b"\",\"database\":");
        after_sequence.extend_from_slice(database);
        Self { before_sequence, after_sequence, sequence: 0, context: b"{}".to_vec(), charset }
    }

    /// Takes the content of a message, in UTF-8, as the context of the changes after it. What is no context is shown
    /// as such.
    pub fn set_context(&mut self, content: &[u8]) {
        let parsed = if content.len() > MAX_CONTEXT { None } else { Context::parse(content).ok() };
        let context = parsed.unwrap_or_else(|| Context::invalid(content));
        self.context = context.to_json(self.charset).into_bytes();
    }

    /// The context in force, a JSON object.
    pub fn context(&self) -> &[u8] {
        &self.context
    }

    /// Begins the document of the next change, up to the key `database`.
    pub fn open_document(&mut self, out: &mut json::Json, position: u64) {
        self.sequence += 1;
        out.raw(b"{\"position\":\"");
        let mut text = Vec::with_capacity(17);
        encode::lsn(&mut text, position);
        out.raw(&text);
        out.raw(&self.before_sequence);
        out.integer(self.sequence);
        out.raw(&self.after_sequence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transaction() -> Transaction {
        Transaction::new(745, 0x16B_3A90, 848_489_935_720_782, b"\"app\"", Charset::Utf8)
    }

    #[test]
    fn documents_are_numbered_from_one() {
        let mut txn = transaction();
        let mut out = json::Json::new(Charset::Utf8);
        txn.open_document(&mut out, 0x16B_3748);
        assert_eq!(
            String::from_utf8_lossy(out.as_bytes()),
            r#"{"position":"0/16B3748","commit_position":"0/16B3A90","sequence":1,"transaction_id":745,"committed_at":"2026-11-20T11:38:55.720782+00:00","database":"app""#
        );
        out.clear(1000);
        txn.open_document(&mut out, 1);
        assert!(out.as_bytes().starts_with(br#"{"position":"0/1","commit_position":"0/16B3A90","sequence":2,"#));
    }

    #[test]
    fn the_last_message_is_the_context() {
        let mut txn = transaction();
        assert_eq!(txn.context(), b"{}");
        txn.set_context(b"{\n \"user_id\" : 1 }");
        assert_eq!(txn.context(), br#"{"user_id":1}"#);
        txn.set_context(b"garbage");
        assert_eq!(txn.context(), br#"{"bemi_invalid_context":"garbage"}"#);
        txn.set_context(b"{}");
        assert_eq!(txn.context(), b"{}");
    }
}
