//! What the documents of a transaction have in common: their keys from `position` to `database`.
#![forbid(unsafe_code)]

use std::borrow::Cow;

use super::fields::Values;
use super::json::Json;
use super::keys::Key;
use super::lsn;
use super::moment::{Moment, push_position, push_time};

/// These keys as they are written, but for those that each document has of its own.
#[derive(Debug)]
pub struct HeadText {
    /// Between position and sequence number.
    before_sequence: Vec<u8>,
    /// Between sequence number and the number of the subtransaction.
    transaction_id: Vec<u8>,
    /// Behind that.
    rest: Vec<u8>,
}

impl HeadText {
    /// Makes those of a transaction, or of none if it has no number. `commit` is None while the transaction is in
    /// progress or only prepared; `database` is a JSON string.
    pub fn new(transaction_id: Option<u32>, commit: Option<Moment>, database: &[u8]) -> Self {
        let mut before_sequence = concat!("\"", member!(CommitPosition)).as_bytes().to_vec();
        push_position(&mut before_sequence, commit);
        before_sequence.extend_from_slice(member!(Sequence).as_bytes());
        let number = transaction_id.map_or_else(|| "null".to_owned(), |number| number.to_string());
        let transaction_id = [member!(TransactionId), &number].concat().into_bytes();
        let mut rest = member!(CommittedAt).as_bytes().to_vec();
        push_time(&mut rest, commit);
        rest.extend_from_slice(member!(Database).as_bytes());
        rest.extend_from_slice(database);
        Self { before_sequence, transaction_id, rest }
    }

    /// Appends them, with a brace before them. Returns where the sequence number goes, which is known when the document
    /// is sent.
    pub fn write(&self, json: &mut Json, position: u64, subtransaction: Option<u32>) -> usize {
        json.raw(concat!("{\"", name!(Position), "\":\"").as_bytes());
        json.append(lsn::MAX_LEN, |out| lsn::push(out, position));
        json.raw(&self.before_sequence);
        let sequence_at = json.len();
        json.raw(&self.transaction_id);
        if let Some(subtransaction) = subtransaction {
            json.raw(member!(SubtransactionId).as_bytes());
            json.integer(subtransaction);
        }
        json.raw(&self.rest);
        sequence_at
    }
}

/// These keys as they are read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head<'a> {
    /// Where the change or message is in the WAL.
    pub position: u64,
    /// When its transaction committed; None while it is in progress or only prepared.
    pub commit: Option<Moment>,
    /// Its number in the transaction; None for a message that belongs to none.
    pub sequence: Option<u64>,
    /// The number of the transaction; None for a message that belongs to none.
    pub transaction_id: Option<u32>,
    /// The number of the subtransaction, if the transaction was in progress.
    pub subtransaction_id: Option<u32>,
    /// The database.
    pub database: Cow<'a, str>,
}

impl<'a> Head<'a> {
    /// Reads them. Fails with what is wrong with them.
    pub fn read(values: &Values<'a>) -> Result<Self, String> {
        Ok(Self {
            position: values.position(Key::Position)?,
            commit: values.moment(Key::CommitPosition, Key::CommittedAt)?,
            sequence: values.nullable(Key::Sequence, Values::number)?,
            transaction_id: values.nullable(Key::TransactionId, Values::number)?,
            subtransaction_id: values.optional(Key::SubtransactionId, Values::number)?,
            database: values.string(Key::Database)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::json::Charset;
    use super::*;

    #[test]
    fn what_is_known_of_the_transaction_is_shown() {
        let text = |head: &HeadText, subtransaction| {
            let mut json = Json::new(Charset::Utf8);
            let at = head.write(&mut json, 1, subtransaction);
            String::from_utf8([&json.as_bytes()[..at], b"2", &json.as_bytes()[at..]].concat()).unwrap()
        };
        let commit = Moment { position: 0x16B_3A90, time: 848_489_935_720_782 };
        let committed = HeadText::new(Some(745), Some(commit), b"\"app\"");
        assert_eq!(
            text(&committed, None),
            concat!(
                r#"{"position":"0/1","commit_position":"0/16B3A90","sequence":2,"transaction_id":745,"#,
                r#""committed_at":"2026-11-20T11:38:55.720782+00:00","database":"app""#,
            )
        );
        let open = HeadText::new(Some(745), None, b"\"app\"");
        assert_eq!(
            text(&open, Some(747)),
            concat!(
                r#"{"position":"0/1","commit_position":null,"sequence":2,"transaction_id":745,"#,
                r#""subtransaction_id":747,"committed_at":null,"database":"app""#,
            )
        );
        assert_eq!(
            text(&HeadText::new(None, None, b"\"app\""), None),
            concat!(
                r#"{"position":"0/1","commit_position":null,"sequence":2,"transaction_id":null,"#,
                r#""committed_at":null,"database":"app""#,
            )
        );
    }
}
