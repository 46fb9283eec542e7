//! Finished documents, until it is sure which context they have.
//!
//! The server hands over the changes of a transaction in the order of their log positions, and merges those of its
//! savepoints by nothing but these. A message is queued at the end of its record, which is where the record of the
//! change after it begins; so of a message and a change at one position, the message came first, whichever of them is
//! handed over first. Documents of one position therefore wait until the next one is reached. Within one
//! (sub)transaction the order is kept, so a transaction without savepoints does not wait. What is sent is numbered
//! then, so that the numbers follow the order.
#![forbid(unsafe_code)]

use std::collections::{TryReserveError, VecDeque};

use super::txn::Transaction;
use crate::document::change::Finished;
use crate::document::json::{Charset, Json};

/// Whether there was memory.
pub type Memory = Result<(), TryReserveError>;

/// The documents that wait. They are those of one log record, and of a message before it: at most the rows that fit on
/// a page.
#[derive(Debug)]
pub struct Outbox {
    /// Takes the next document.
    pub json: Json,
    /// Each with its subtransaction.
    documents: VecDeque<(Finished, Option<u32>)>,
    position: u64,
}

impl Outbox {
    /// An empty one.
    pub fn new(charset: Charset) -> Self {
        Self { json: Json::new(charset), documents: VecDeque::new(), position: 0 }
    }

    /// Takes the document of a change, which is written to `json`. Fails without memory.
    pub fn push(&mut self, position: u64, document: Finished, subtransaction: Option<u32>) -> Memory {
        self.documents.try_reserve(1)?;
        self.position = position;
        self.documents.push_back((document, subtransaction));
        Ok(())
    }

    /// Takes the document of a message, which came before the changes at its position. Fails without memory.
    pub fn push_message(&mut self, position: u64, document: Finished, subtransaction: Option<u32>) -> Memory {
        self.documents.try_reserve(1)?;
        self.position = position;
        self.documents.push_front((document, subtransaction));
        Ok(())
    }

    /// Whether no documents wait.
    pub fn is_empty(&self) -> bool {
        self.documents.is_empty()
    }

    /// The position of those that wait.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Whether documents wait that are settled, now that `position` is reached.
    pub fn is_settled_at(&self, position: u64) -> bool {
        !self.is_empty() && self.position != position
    }

    /// Counts each document and passes it to `send`, in pieces; with its context each time, or only where it is another
    /// one than that of the document before. Fails without memory.
    pub fn send(&mut self, txn: &mut Transaction, repeats_context: bool, mut send: impl FnMut(&[&[u8]])) -> Memory {
        for (document, subtransaction) in &self.documents {
            let mut number = itoa::Buffer::new();
            let number = number.format(txn.count(*subtransaction)?).as_bytes();
            send(&document.pieces(self.json.as_bytes(), number, txn.next_context(repeats_context)));
        }
        self.clear();
        Ok(())
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.documents.clear();
        self.json.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decoder::scope::no_file;
    use crate::document::change::{Draft, relation_keys};
    use crate::document::operation::Operation;

    /// What is handed over at a position.
    enum Step {
        Message(u64, &'static str),
        Row(u64),
    }

    /// The contexts of the rows, as the plugin has them sent.
    fn contexts(steps: &[Step]) -> Vec<String> {
        let mut outbox = Outbox::new(Charset::Utf8);
        let mut txn = Transaction::new(1, None, b"\"app\"", Charset::Utf8, no_file);
        let mut sent = Vec::new();
        let mut settle = |outbox: &mut Outbox, txn: &mut Transaction, position| {
            if outbox.is_settled_at(position) {
                outbox.send(txn, true, |pieces| sent.push(serde_json::from_slice(&pieces.concat()).unwrap())).unwrap();
            }
        };
        let keys = relation_keys(b"public", b"t", Charset::Utf8);
        for step in steps {
            match *step {
                Step::Message(position, context) => {
                    settle(&mut outbox, &mut txn, position);
                    txn.set_context(context.as_bytes(), None).unwrap();
                }
                Step::Row(position) => {
                    settle(&mut outbox, &mut txn, position);
                    let create = Operation::Create;
                    let json = &mut outbox.json;
                    let mut document = Draft::open(json, &txn.head, position, None, &keys, create, Charset::Utf8);
                    document.no_row();
                    document.context();
                    let document = document.close().unwrap();
                    outbox.push(position, document, None).unwrap();
                }
            }
        }
        settle(&mut outbox, &mut txn, u64::MAX);
        let numbers = sent.iter().map(|document: &serde_json::Value| document["sequence"].as_u64().unwrap());
        assert!(numbers.eq(1..=sent.len() as u64));
        sent.iter().map(|document| document["context"]["c"].as_str().unwrap_or("-").to_owned()).collect()
    }

    #[test]
    fn of_a_message_and_rows_at_one_position_the_message_came_first() {
        let (a, b) = ("{\"c\":\"A\"}", "{\"c\":\"B\"}");
        use Step::*;
        assert_eq!(contexts(&[Row(1), Message(2, a), Row(2), Row(2)]), ["-", "A", "A"]);
        assert_eq!(contexts(&[Row(1), Row(2), Row(2), Message(2, a), Row(2)]), ["-", "A", "A", "A"]);
        assert_eq!(contexts(&[Message(1, a), Row(1), Row(2), Message(2, b), Row(3)]), ["A", "B", "B"]);
        assert_eq!(contexts(&[Message(1, a), Row(1), Message(3, b), Row(4)]), ["A", "B"]);
    }

    #[test]
    fn a_context_that_is_not_repeated_is_told_after_each_message() {
        let mut txn = Transaction::new(1, None, b"\"app\"", Charset::Utf8, no_file);
        let mut shown = Vec::new();
        let mut send = |txn: &mut Transaction, repeats: bool, count: usize| {
            let mut outbox = Outbox::new(Charset::Utf8);
            for _ in 0..count {
                let keys = relation_keys(b"public", b"t", Charset::Utf8);
                let json = &mut outbox.json;
                let mut document = Draft::open(json, &txn.head, 1, None, &keys, Operation::Create, Charset::Utf8);
                document.no_row();
                document.context();
                let document = document.close().unwrap();
                outbox.push(1, document, None).unwrap();
            }
            let send = |pieces: &[&[u8]]| shown.push(String::from_utf8(pieces[3].to_vec()).unwrap());
            outbox.send(txn, repeats, send).unwrap();
        };
        send(&mut txn, false, 2);
        txn.set_context(br#"{"a":1}"#, None).unwrap();
        send(&mut txn, false, 3);
        // The same again, and one that is taken back.
        txn.set_context(br#"{"a":1}"#, Some(7)).unwrap();
        send(&mut txn, false, 2);
        txn.roll_back(7).unwrap();
        send(&mut txn, false, 1);
        txn.show_context();
        send(&mut txn, false, 2);
        send(&mut txn, true, 2);
        let (a, same) = (r#"{"a":1}"#, r#""=""#);
        assert_eq!(shown, ["{}", same, a, same, same, a, same, a, a, same, a, a]);
    }
}
