//! What holds for all changes of one transaction.
#![forbid(unsafe_code)]

use super::encode;
use crate::json::Charset;
use crate::wire::Context;

/// Longest context that is taken as one, in bytes. It stands in each document of its transaction, so what is longer
/// is shown as unreadable. The server's own messages cannot be longer than 1 GiB; ours end far below.
const MAX_CONTEXT: usize = 64 << 20;

/// The transaction that is being decoded.
#[derive(Debug)]
pub struct Transaction {
    /// The part of its documents between position and sequence number.
    pub before_sequence: Vec<u8>,
    /// The part of its documents between sequence number and schema.
    pub after_sequence: Vec<u8>,
    sequence: u64,
    context: Vec<u8>,
    charset: Charset,
}

impl Transaction {
    /// A transaction without changes and context so far. `committed_at` is in microseconds since 2000-01-01 UTC,
    /// `database` is a JSON string.
    pub fn new(xid: u32, commit_position: u64, committed_at: i64, database: &[u8], charset: Charset) -> Self {
        let mut before_sequence = b"\",\"commit_position\":\"".to_vec();
        before_sequence.extend_from_slice(encode::lsn(commit_position).as_bytes());
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
        let context = Context::parse(content).map(|context| context.to_json(self.charset));
        let context = context.ok().filter(|context| context.len() <= MAX_CONTEXT);
        self.context = context.unwrap_or_else(|| Context::invalid(content).to_json(self.charset)).into_bytes();
    }

    /// The context in force, a JSON object.
    pub fn context(&self) -> &[u8] {
        &self.context
    }

    /// Counts the next change; gives its number.
    pub fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transaction() -> Transaction {
        Transaction::new(745, 0x16B_3A90, 848_489_935_720_782, b"\"app\"", Charset::Utf8)
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
