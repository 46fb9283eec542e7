//! The document of one change: which keys it has, and in which order.
#![forbid(unsafe_code)]

use super::json::{Json, Limit, MAX_DOCUMENT, Omission};
use super::txn::Transaction;
use crate::json::{Charset, quoted};

/// What happened to the row, or to the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// INSERT, COPY.
    Create,
    /// UPDATE.
    Update,
    /// DELETE.
    Delete,
    /// TRUNCATE; one document for each table.
    Truncate,
    /// A logical message that the reader asked for.
    Message,
}

impl Operation {
    fn name(self) -> &'static [u8] {
        match self {
            Self::Create => b"CREATE",
            Self::Update => b"UPDATE",
            Self::Delete => b"DELETE",
            Self::Truncate => b"TRUNCATE",
            Self::Message => b"MESSAGE",
        }
    }
}

/// What [`relation_keys`] makes for what belongs to no table.
pub const NO_TABLE: &[u8] = b",\"schema\":null,\"table\":null,\"operation\":\"";

/// The part of its documents that a relation fixes: `,"schema":"public","table":"todo","operation":"`.
pub fn relation_keys(schema: &[u8], table: &[u8], charset: Charset) -> Vec<u8> {
    [b",\"schema\":", &quoted(schema, charset)[..], b",\"table\":", &quoted(table, charset), b",\"operation\":\""]
        .concat()
}

/// The part of a row image that a column fixes: `"task":`.
pub fn column_key(name: &[u8], charset: Charset) -> Vec<u8> {
    let mut key = quoted(name, charset);
    key.push(b':');
    key
}

/// A document under construction: begun with [`Document::open`], filled in the order of its keys, with
/// [`Document::context`] where the context goes, ended with [`Document::close`]. Its context is put in when it is sent.
pub struct Document<'a> {
    /// The text so far.
    pub json: &'a mut Json,
    charset: Charset,
    start: usize,
    sequence_at: usize,
    context_at: usize,
    /// Names of columns whose value was not in the log since it had not changed, as JSON strings.
    unchanged: Vec<u8>,
    /// Columns that were left out, as keys in JSON.
    omitted: Vec<Vec<u8>>,
    /// These columns, and why they were, as members of a JSON object.
    omissions: Vec<u8>,
}

/// Where in the text a finished document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Its first byte.
    pub start: usize,
    /// Where the value of its sequence number goes.
    pub sequence_at: usize,
    /// Where the value of its context goes.
    pub context_at: usize,
    /// Behind its last byte.
    pub end: usize,
}

impl Finished {
    /// The document, of which `text` is the part that was written.
    pub fn pieces<'a>(&self, text: &'a [u8], sequence: &'a [u8], context: &'a [u8]) -> [&'a [u8]; 5] {
        let part = |from: usize, to: usize| text.get(from..to).unwrap_or_default();
        let (sequence_at, context_at) = (self.sequence_at, self.context_at);
        [part(self.start, sequence_at), sequence, part(sequence_at, context_at), context, part(context_at, self.end)]
    }
}

impl<'a> Document<'a> {
    /// Begins the document of a change of a relation, whose part is made by [`relation_keys`].
    pub fn open(
        json: &'a mut Json,
        txn: &Transaction,
        position: u64,
        subtransaction: Option<u32>,
        relation_keys: &[u8],
        operation: Operation,
        charset: Charset,
    ) -> Self {
        let start = json.len();
        json.allow(MAX_DOCUMENT, Limit::Document);
        let sequence_at = txn.write_keys(json, position, subtransaction);
        json.raw(relation_keys);
        json.raw(operation.name());
        json.raw(b"\",\"primary_key\":");
        let (unchanged, omissions, omitted) = (Vec::new(), Vec::new(), Vec::new());
        Self { json, charset, start, sequence_at, context_at: start, unchanged, omitted, omissions }
    }

    /// Leaves room for the context, behind the row images.
    pub fn context(&mut self) {
        self.json.raw(b",\"context\":");
        self.context_at = self.json.len();
    }

    /// Names a column that is left out of `after`, since its value is not in the log.
    pub fn unchanged(&mut self, name: &[u8]) {
        if !self.unchanged.is_empty() {
            self.unchanged.push(b',');
        }
        self.unchanged.extend_from_slice(&quoted(name, self.charset));
    }

    /// Names a column whose value is shown as null, and says why.
    pub fn omitted(&mut self, name: &[u8], reason: &Omission) {
        let key = column_key(name, self.charset);
        // A column of both images is named once.
        if !self.omitted.contains(&key) {
            if !self.omitted.is_empty() {
                self.omissions.push(b',');
            }
            self.omissions.extend_from_slice(&key);
            self.omissions.extend_from_slice(&quoted(reason.to_string().as_bytes(), self.charset));
            self.omitted.push(key);
        }
    }

    /// The columns that are left out, and why, as members of a JSON object; empty if there are none.
    pub fn omissions(&self) -> &[u8] {
        &self.omissions
    }

    /// Ends the document. Fails if there was no memory for a part of it.
    pub fn close(self) -> Result<Finished, Omission> {
        if !self.unchanged.is_empty() {
            self.json.raw(b",\"unchanged\":[");
            self.json.raw(&self.unchanged);
            self.json.raw(b"]");
        }
        if !self.omissions.is_empty() {
            self.json.raw(b",\"omitted\":{");
            self.json.raw(&self.omissions);
            self.json.raw(b"}");
        }
        self.json.raw(b"}");
        self.json.allow(0, Limit::Document);
        self.json.check_room(0)?;
        let (start, sequence_at, context_at) = (self.start, self.sequence_at, self.context_at);
        Ok(Finished { start, sequence_at, context_at, end: self.json.len() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decoder::scope::no_file;
    use crate::decoder::txn::Moment;

    #[test]
    fn keys_stand_in_the_order_of_the_contract() {
        let commit = Moment { position: 2, time: 0 };
        let txn = Transaction::new(745, Some(commit), b"\"app\"", Charset::Utf8, no_file);
        let mut json = Json::new(Charset::Utf8);
        let keys = relation_keys(b"public", b"a \"b\"", Charset::Utf8);
        let mut document = Document::open(&mut json, &txn, 1, None, &keys, Operation::Update, Charset::Utf8);
        document.json.raw(b"null,\"before\":{},\"after\":{}");
        document.context();
        document.unchanged(b"body");
        document.unchanged(b"more");
        for column in [&b"a\"x"[..], b"x", b"x"] {
            document.omitted(column, &Omission::TooLong(Limit::Document));
        }
        let text = document.close().unwrap().pieces(json.as_bytes(), b"1", br#"{"user_id":1}"#).concat();
        assert_eq!(
            String::from_utf8_lossy(&text),
            concat!(
                r#"{"position":"0/1","commit_position":"0/2","sequence":1,"transaction_id":745,"#,
                r#""committed_at":"2000-01-01T00:00:00+00:00","database":"app","schema":"public","table":"a \"b\"","#,
                r#""operation":"UPDATE","primary_key":null,"before":{},"after":{},"context":{"user_id":1},"#,
                r#""unchanged":["body","more"],"omitted":{"a\"x":"the document would be longer than 1000000000 bytes","#,
                r#""x":"the document would be longer than 1000000000 bytes"}}"#
            )
        );
    }
}
