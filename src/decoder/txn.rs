//! What holds for all changes of one transaction.
#![forbid(unsafe_code)]

use std::collections::{HashSet, TryReserveError};
use std::io;

use super::scope::{MakeFile, Scope};
use crate::document::change::SAME_CONTEXT;
use crate::document::context::Context;
use crate::document::head::HeadText;
use crate::document::json::Charset;
use crate::document::moment::Moment;

/// The transaction that is being decoded.
#[derive(Debug)]
pub struct Transaction {
    /// Its number; 0 in what stands for none.
    pub xid: u32,
    /// None while it is in progress, or only prepared.
    pub commit: Option<Moment>,
    /// Whether a document of it was sent.
    pub is_sent: bool,
    /// The keys that its documents have in common.
    pub head: HeadText,
    sequence: u64,
    scope: Scope,
    /// Whether the document that was sent last has the context in force.
    has_shown_context: bool,
    /// Subtransactions of which a document was sent.
    subtransactions: HashSet<u32>,
    charset: Charset,
}

impl Transaction {
    /// A transaction without changes and context so far. `database` is a JSON string.
    pub fn new(xid: u32, commit: Option<Moment>, database: &[u8], charset: Charset, make_file: MakeFile) -> Self {
        Self::with_head(HeadText::new(Some(xid), commit, database), xid, commit, charset, make_file)
    }

    /// What stands for a transaction in the document of a message that belongs to none.
    pub fn none(database: &[u8], charset: Charset, make_file: MakeFile) -> Self {
        Self::with_head(HeadText::new(None, None, database), 0, None, charset, make_file)
    }

    fn with_head(head: HeadText, xid: u32, commit: Option<Moment>, charset: Charset, make_file: MakeFile) -> Self {
        Self {
            xid,
            commit,
            is_sent: false,
            head,
            sequence: 0,
            scope: Scope::new(make_file),
            has_shown_context: false,
            subtransactions: HashSet::new(),
            charset,
        }
    }

    /// Takes the content of a message, in UTF-8, as the context of the changes after it, until a subtransaction is
    /// rolled back if one is given. What is no context is shown as such; returns whether it is one. Fails if a file of
    /// contexts does.
    pub fn set_context(&mut self, content: &[u8], subtransaction: Option<u32>) -> io::Result<bool> {
        let context = Context::parse(content).map(|context| context.to_json(self.charset));
        match context {
            Ok(context) => self.set(&context, subtransaction).map(|()| true),
            Err(_) => self.set_invalid_context(content, subtransaction).map(|()| false),
        }
    }

    /// As [`Transaction::set_context`], with content that is known to be no context, or its beginning.
    pub fn set_invalid_context(&mut self, content: &[u8], subtransaction: Option<u32>) -> io::Result<()> {
        self.set(&Context::invalid(content).to_json(self.charset), subtransaction)
    }

    fn set(&mut self, context: &str, subtransaction: Option<u32>) -> io::Result<()> {
        self.has_shown_context = false;
        match subtransaction {
            Some(subtransaction) => self.scope.set_in(subtransaction, context.as_bytes()),
            None => self.scope.set(context.as_bytes()),
        }
    }

    /// The context in force, a JSON object.
    pub fn context(&self) -> &[u8] {
        self.scope.current()
    }

    /// The context for the next document that is sent: `"="` if it is that of the document sent before it, and may be
    /// told so.
    pub fn next_context(&mut self, is_repeated: bool) -> &[u8] {
        if std::mem::replace(&mut self.has_shown_context, true) && !is_repeated {
            SAME_CONTEXT.as_bytes()
        } else {
            self.scope.current()
        }
    }

    /// Has the next document that is sent show its context, whatever was sent before.
    pub fn show_context(&mut self) {
        self.has_shown_context = false;
    }

    /// Takes back the contexts of a subtransaction; returns whether a document of it was sent. Fails if a file of
    /// contexts does.
    pub fn roll_back(&mut self, subtransaction: u32) -> io::Result<bool> {
        self.has_shown_context = false;
        self.scope.roll_back(subtransaction)?;
        Ok(self.subtransactions.remove(&subtransaction))
    }

    /// Counts a change whose document is sent; gives its number. Fails without memory.
    pub fn count(&mut self, subtransaction: Option<u32>) -> Result<u64, TryReserveError> {
        if let Some(subtransaction) = subtransaction {
            self.subtransactions.try_reserve(1)?;
            self.subtransactions.insert(subtransaction);
        }
        self.sequence += 1;
        Ok(self.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decoder::scope::no_file;
    use crate::document::json::Json;

    fn keys(txn: &mut Transaction, subtransaction: Option<u32>) -> String {
        let mut json = Json::new(Charset::Utf8);
        let at = txn.head.write(&mut json, 1, subtransaction);
        let number = txn.count(subtransaction).unwrap().to_string();
        String::from_utf8([&json.as_bytes()[..at], number.as_bytes(), &json.as_bytes()[at..]].concat()).unwrap()
    }

    fn transaction() -> Transaction {
        let commit = Moment { position: 0x16B_3A90, time: 848_489_935_720_782 };
        Transaction::new(745, Some(commit), b"\"app\"", Charset::Utf8, no_file)
    }

    #[test]
    fn the_last_message_is_the_context() {
        let mut txn = transaction();
        assert_eq!(txn.context(), b"{}");
        assert!(txn.set_context(b"{\n \"user_id\" : 1 }", None).unwrap());
        assert_eq!(txn.context(), br#"{"user_id":1}"#);
        assert!(!txn.set_context(b"garbage", None).unwrap());
        assert_eq!(txn.context(), br#"{"bemi_invalid_context":"garbage"}"#);
        // Even if it looks like one.
        txn.set_invalid_context(b"{\"a\":1}", None).unwrap();
        assert_eq!(txn.context(), br#"{"bemi_invalid_context":"{\"a\":1}"}"#);
        txn.set_context(b"{}", None).unwrap();
        assert_eq!(txn.context(), b"{}");
    }

    #[test]
    fn keys_say_what_is_known_of_the_transaction() {
        let mut txn = transaction();
        let first = concat!(
            r#"{"position":"0/1","commit_position":"0/16B3A90","sequence":1,"transaction_id":745,"#,
            r#""committed_at":"2026-11-20T11:38:55.720782+00:00","database":"app""#,
        );
        assert_eq!(keys(&mut txn, None), first);
        assert_eq!(keys(&mut txn, None), first.replace("\"sequence\":1", "\"sequence\":2"));
        let mut open = Transaction::new(745, None, b"\"app\"", Charset::Utf8, no_file);
        let sub = concat!(
            r#"{"position":"0/1","commit_position":null,"sequence":1,"transaction_id":745,"subtransaction_id":747,"#,
            r#""committed_at":null,"database":"app""#,
        );
        assert_eq!(keys(&mut open, Some(747)), sub);
        assert_eq!([746, 747, 747].map(|sub| open.roll_back(sub).unwrap()), [false, true, false]);
        let mut none = Transaction::none(b"\"app\"", Charset::Utf8, no_file);
        let nothing = concat!(
            r#"{"position":"0/1","commit_position":null,"sequence":1,"transaction_id":null,"committed_at":null,"#,
            r#""database":"app""#,
        );
        assert_eq!(keys(&mut none, None), nothing);
    }
}
