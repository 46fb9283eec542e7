//! The document of a change: how it is written, and how it is read back.
#![forbid(unsafe_code)]

use std::borrow::Cow;

use super::fields::Values;
use super::head::{Head, HeadText};
use super::identity::Identity;
use super::json::{Charset, Json, quoted};
use super::keys::Key;
use super::omission::{Limit, MAX_DOCUMENT, Omission};
use super::operation::Operation;

/// The context of a document whose context is that of the document before it, of the same transaction.
pub const SAME_CONTEXT: &str = "\"=\"";

/// What [`relation_keys`] returns for what belongs to no table.
pub const NO_TABLE: &[u8] =
    concat!(member!(Schema), "null", member!(Table), "null", member!(Operation), "\"").as_bytes();

/// Returns the part of its documents that a relation fixes: `,"schema":"public","table":"todo","operation":"`.
pub fn relation_keys(schema: &[u8], table: &[u8], charset: Charset) -> Vec<u8> {
    let [schema_key, table_key, operation_key] =
        [member!(Schema), member!(Table), concat!(member!(Operation), "\"")].map(str::as_bytes);
    [schema_key, &quoted(schema, charset), table_key, &quoted(table, charset), operation_key].concat()
}

/// Returns the part of a row image that a column fixes: `"task":`.
pub fn column_key(name: &[u8], charset: Charset) -> Vec<u8> {
    let mut key = quoted(name, charset);
    key.push(b':');
    key
}

/// A document under construction. [`Draft::open`] begins it; then come the text of the row's key, [`Draft::before`] and
/// an image, [`Draft::after`] and an image, [`Draft::context`], and what not every document has; [`Draft::close`] ends
/// it. The values of its sequence number and its context are put in when it is sent.
pub struct Draft<'a> {
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
    /// Returns the document, of which `text` is the part that was written.
    pub fn pieces<'a>(&self, text: &'a [u8], sequence: &'a [u8], context: &'a [u8]) -> [&'a [u8]; 5] {
        let part = |from: usize, to: usize| text.get(from..to).unwrap_or_default();
        let (sequence_at, context_at) = (self.sequence_at, self.context_at);
        [part(self.start, sequence_at), sequence, part(sequence_at, context_at), context, part(context_at, self.end)]
    }
}

impl<'a> Draft<'a> {
    /// Begins the document of a change of a relation, whose part is made by [`relation_keys`].
    pub fn open(
        json: &'a mut Json,
        head: &HeadText,
        position: u64,
        subtransaction: Option<u32>,
        relation_keys: &[u8],
        operation: Operation,
        charset: Charset,
    ) -> Self {
        let start = json.len();
        json.allow(MAX_DOCUMENT, Limit::Document);
        let sequence_at = head.write(json, position, subtransaction);
        json.raw(relation_keys);
        json.raw(operation.name().as_bytes());
        json.raw(concat!("\"", member!(PrimaryKey)).as_bytes());
        let (unchanged, omissions, omitted) = (Vec::new(), Vec::new(), Vec::new());
        Self { json, charset, start, sequence_at, context_at: start, unchanged, omitted, omissions }
    }

    /// Writes null for the row's key and empty images, for what has no row.
    pub fn no_row(&mut self) {
        self.json.raw(concat!("null", member!(Before), "{}", member!(After), "{}").as_bytes());
    }

    /// Begins the row before the change.
    #[inline]
    pub fn before(&mut self) {
        self.json.raw(member!(Before).as_bytes());
    }

    /// Begins the row after the change.
    #[inline]
    pub fn after(&mut self) {
        self.json.raw(member!(After).as_bytes());
    }

    /// Leaves room for the context, behind the row images.
    #[inline]
    pub fn context(&mut self) {
        self.json.raw(member!(Context).as_bytes());
        self.context_at = self.json.len();
    }

    /// Begins the text of the row's key before the change.
    pub fn old_primary_key(&mut self) {
        self.json.raw(member!(OldPrimaryKey).as_bytes());
    }

    /// Writes the replication origin, given as JSON.
    pub fn origin(&mut self, origin: &[u8]) {
        self.json.raw(member!(Origin).as_bytes());
        self.json.raw(origin);
    }

    /// Writes the OID of the table.
    #[inline]
    pub fn relation(&mut self, oid: u32) {
        self.json.raw(member!(Relation).as_bytes());
        self.json.integer(oid);
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

    /// Returns the columns that are left out, and why, as members of a JSON object; empty if there are none.
    pub fn omissions(&self) -> &[u8] {
        &self.omissions
    }

    /// Ends the document. Fails if there was no memory for a part of it.
    pub fn close(self) -> Result<Finished, Omission> {
        if !self.unchanged.is_empty() {
            self.json.raw(concat!(member!(Unchanged), "[").as_bytes());
            self.json.raw(&self.unchanged);
            self.json.raw(b"]");
        }
        if !self.omissions.is_empty() {
            self.json.raw(concat!(member!(Omitted), "{").as_bytes());
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

/// A change as its document shows it. The images, the context and the lists of columns are JSON, which is not read:
/// that they are JSON is for the reader of the change to check.
#[derive(Debug)]
pub struct Change<'a> {
    /// Where it is, and the transaction that it belongs to.
    pub head: Head<'a>,
    /// The schema of its table.
    pub schema: Cow<'a, str>,
    /// Its table.
    pub table: Cow<'a, str>,
    /// The name of an [`Operation`].
    pub operation: Cow<'a, str>,
    /// The text of the row's key.
    pub primary_key: Option<Cow<'a, str>>,
    /// The row before, or `{}`.
    pub before: &'a str,
    /// The row after, or `{}`.
    pub after: &'a str,
    /// Who made it, and why; or [`SAME_CONTEXT`].
    pub context: &'a str,
    /// The text of the row's key before, if the change made it another one.
    pub old_primary_key: Option<Cow<'a, str>>,
    /// The replication origin that it came from.
    pub origin: Option<&'a str>,
    /// The OID of its table.
    pub relation: Option<u32>,
    /// The columns whose values did not change and are not in the WAL.
    pub unchanged: Option<&'a str>,
    /// What the decoder left out, and why.
    pub omitted: Option<&'a str>,
}

impl<'a> Change<'a> {
    /// Reads the document of a change. Fails with what is wrong with it.
    pub fn read(text: &'a [u8]) -> Result<Self, String> {
        Self::of(&Values::read(text, Key::ALL)?)
    }

    pub(super) fn of(values: &Values<'a>) -> Result<Self, String> {
        Ok(Self {
            head: Head::read(values)?,
            schema: values.string(Key::Schema)?,
            table: values.string(Key::Table)?,
            operation: values.string(Key::Operation)?,
            primary_key: values.nullable(Key::PrimaryKey, Values::string)?,
            before: values.value(Key::Before)?,
            after: values.value(Key::After)?,
            context: values.value(Key::Context)?,
            old_primary_key: values.optional(Key::OldPrimaryKey, Values::string)?,
            origin: values.find(Key::Origin),
            relation: values.optional(Key::Relation, Values::number)?,
            unchanged: values.find(Key::Unchanged),
            omitted: values.find(Key::Omitted),
        })
    }
}

/// A change of a committed transaction, or a gap.
#[derive(Debug)]
pub struct Committed<'a> {
    /// Which change it is.
    pub identity: Identity,
    /// The number of its transaction.
    pub transaction_id: u32,
    /// When its transaction committed, in microseconds since 2000-01-01 UTC.
    pub committed_at: i64,
    /// What it says.
    pub change: Change<'a>,
}

impl<'a> Committed<'a> {
    /// Reads the document of a change of a committed transaction. Fails with what is wrong with it.
    pub fn read(text: &'a [u8]) -> Result<Self, String> {
        let values = Values::read(text, Key::ALL)?;
        let change = Change::of(&values)?;
        let commit = change.head.commit.ok_or_else(|| values.wrong(Key::CommitPosition))?;
        let sequence = change.head.sequence.and_then(|number| u32::try_from(number).ok());
        let sequence = sequence.ok_or_else(|| values.wrong(Key::Sequence))?;
        let transaction_id = change.head.transaction_id.ok_or_else(|| values.wrong(Key::TransactionId))?;
        let identity = Identity { commit_position: commit.position, sequence };
        Ok(Self { identity, transaction_id, committed_at: commit.time, change })
    }
}

#[cfg(test)]
mod tests {
    use super::super::moment::Moment;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_stand_in_the_order_of_the_contract() {
        let commit = Moment { position: 2, time: 0 };
        let head = HeadText::new(Some(745), Some(commit), b"\"app\"");
        let mut json = Json::new(Charset::Utf8);
        let keys = relation_keys(b"public", b"a \"b\"", Charset::Utf8);
        let mut document = Draft::open(&mut json, &head, 1, None, &keys, Operation::Update, Charset::Utf8);
        document.no_row();
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
                concat!(
                    r#""unchanged":["body","more"],"#,
                    r#""omitted":{"a\"x":"the document would be longer than 1000000000 bytes","#,
                ),
                r#""x":"the document would be longer than 1000000000 bytes"}}"#
            )
        );
    }

    const EXAMPLE: &str = concat!(
        r#"{"position":"0/16B3748","commit_position":"1/A0","sequence":7,"transaction_id":745,"#,
        r#""committed_at":"2026-11-20T11:38:55.720782+00:00","database":"app","schema":"public","#,
        r#""table":"to \"do\"","operation":"UPDATE","primary_key":"26","before":{"id":26},"after":{"id":26,"#,
        r#""x":1e400},"context":{"user_id":187234},"old_primary_key":"2\"5","relation":16402,"unchanged":["body"],"#,
        r#""omitted":{"y":"why"}}"#,
    );

    #[test]
    fn a_document_says_which_change_it_is() {
        let document = Committed::read(EXAMPLE.as_bytes()).unwrap();
        assert_eq!(document.identity, Identity { commit_position: 0x1_0000_00A0, sequence: 7 });
        assert_eq!((document.change.head.position, document.committed_at), (0x16B_3748, 848_489_935_720_782));
        assert_eq!((&*document.change.table, document.change.primary_key.as_deref()), ("to \"do\"", Some("26")));
        assert_eq!((document.change.before, document.change.after), (r#"{"id":26}"#, r#"{"id":26,"x":1e400}"#));
        assert_eq!(
            (document.change.old_primary_key.as_deref(), document.change.relation),
            (Some("2\"5"), Some(16_402))
        );
        let without = EXAMPLE.replace(",\"relation\":16402", "").replace("{\"user_id\":187234}", SAME_CONTEXT);
        let without = Committed::read(without.as_bytes()).unwrap();
        assert_eq!((without.change.context, without.change.relation), (SAME_CONTEXT, None));
        let unmoved = EXAMPLE.replace(r#""old_primary_key":"2\"5","#, "");
        assert_eq!(Committed::read(unmoved.as_bytes()).unwrap().change.old_primary_key, None);
        assert_eq!(
            (document.change.context, document.change.omitted),
            (r#"{"user_id":187234}"#, Some(r#"{"y":"why"}"#))
        );
    }

    #[test]
    fn what_is_no_document_of_a_committed_change_is_refused_with_the_reason() {
        for (wrong, sign) in [
            (EXAMPLE.replace("\"1/A0\"", "null"), "commit_position is null"),
            (EXAMPLE.replace("1/A0", "1-A0"), "commit_position"),
            (EXAMPLE.replace("2026-11-20T11:38:55.720782+00:00", "now"), "committed_at"),
            (EXAMPLE.replace("\"sequence\":7,", ""), "\"sequence\""),
            (
                EXAMPLE.replace("\"1/A0\"", "null").replace("\"2026-11-20T11:38:55.720782+00:00\"", "null"),
                "commit_position is null",
            ),
            (EXAMPLE.replace("\"2026-11-20T11:38:55.720782+00:00\"", "null"), "committed_at is null"),
            (EXAMPLE.replace("\"sequence\":7", "\"sequence\":null"), "sequence is null"),
            (EXAMPLE.replace("\"sequence\":7", "\"sequence\":4294967296"), "sequence is 4294967296"),
            (EXAMPLE.replace("\"transaction_id\":745", "\"transaction_id\":null"), "transaction_id is null"),
            (EXAMPLE.replace("\"sequence\":7", "\"sequence\":-7"), "sequence is -7"),
            (EXAMPLE.replace("\"2\\\"5\"", "25"), "old_primary_key is 25"),
            (EXAMPLE.replace("16402", "\"t\""), "relation is \"t\""),
            (EXAMPLE.replace("\"table\":\"to ", "\"table\":\"\\qo "), "table is"),
            (EXAMPLE[..EXAMPLE.len() - 1].to_owned(), "no JSON object"),
            (EXAMPLE[..EXAMPLE.len() - 20].to_owned(), "no JSON object"),
            (format!("{EXAMPLE}x"), "no JSON object"),
            ("{}".to_owned(), "no JSON object"),
            (String::new(), "no JSON object"),
        ] {
            let error = Committed::read(wrong.as_bytes()).unwrap_err();
            assert!(error.contains(sign), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_stops_it(text: String, bytes: Vec<u8>, cut in 0..EXAMPLE.len(), put in 0..EXAMPLE.len()) {
            let _ = (Committed::read(text.as_bytes()).is_ok(), Committed::read(&bytes).is_ok());
            let broken = format!("{}{text}{}", &EXAMPLE[..cut], &EXAMPLE[put..]);
            let _ = Committed::read(broken.as_bytes());
        }
    }
}
