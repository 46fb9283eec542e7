//! Documents of all kinds are read back as they were written.
#![forbid(unsafe_code)]

use proptest::prelude::*;

use super::Document;
use super::change::{Draft, SAME_CONTEXT, column_key, relation_keys};
use super::gap::Gap;
use super::head::{Head, HeadText};
use super::json::{Charset, Json, quoted};
use super::marker::{self, Event};
use super::message::{self, Content, Message, ShownContent};
use super::moment::Moment;
use super::omission::Omission;
use super::operation::Operation;

fn charset() -> impl Strategy<Value = Charset> {
    prop_oneof![Just(Charset::Utf8), Just(Charset::Ascii)]
}

/// Any time that the server can have, those at its ends more often.
fn moment() -> impl Strategy<Value = Moment> {
    let time =
        prop_oneof![any::<i64>(), Just(i64::MIN), Just(i64::MAX), -1_000_000_000_000_000..1_000_000_000_000_000i64];
    (any::<u64>(), time).prop_map(|(position, time)| Moment { position, time })
}

fn head() -> impl Strategy<Value = Head<'static>> {
    (
        (any::<u64>(), prop::option::of(moment()), any::<Option<u64>>()),
        (any::<Option<u32>>(), any::<Option<u32>>(), any::<String>()),
    )
        .prop_map(|((position, commit, sequence), (transaction_id, subtransaction_id, database))| Head {
            position,
            commit,
            sequence,
            transaction_id,
            subtransaction_id,
            database: database.into(),
        })
}

fn head_text(head: &Head, charset: Charset) -> HeadText {
    HeadText::new(head.transaction_id, head.commit, &quoted(head.database.as_bytes(), charset))
}

fn sequence(head: &Head) -> String {
    head.sequence.map_or_else(|| "null".to_owned(), |number| number.to_string())
}

/// An image, with texts as values.
fn write_image(json: &mut Json, columns: &[(String, String)], charset: Charset) -> String {
    let start = json.len();
    json.raw(b"{");
    for (i, (name, value)) in columns.iter().enumerate() {
        json.raw(if i > 0 { b"," } else { b"" });
        json.raw(&column_key(name.as_bytes(), charset));
        json.string(value.as_bytes()).unwrap();
    }
    json.raw(b"}");
    String::from_utf8(json.as_bytes()[start..].to_vec()).unwrap()
}

fn failed(reason: String, text: &[u8]) -> TestCaseError {
    TestCaseError::fail(format!("{reason}: {}", String::from_utf8_lossy(text)))
}

fn columns() -> impl Strategy<Value = Vec<(String, String)>> {
    prop::collection::vec(any::<(String, String)>(), 0..4)
}

proptest! {
    #[test]
    fn changes(
        (charset, head, operation) in (charset(), head(), 0usize..4), (schema, table) in any::<(String, String)>(),
        keys in any::<(Option<String>, Option<String>)>(), (before, after) in (columns(), columns()),
        context in prop_oneof![Just("{}"), Just(r#"{"a":{"}":["]"]}}"#), Just(SAME_CONTEXT)],
        (origin, relation) in any::<(Option<u16>, Option<u32>)>(),
        unchanged in prop::collection::vec(any::<String>(), 0..3),
        omitted in prop::collection::hash_map(any::<String>(), any::<String>(), 0..3),
    ) {
        let operation = Operation::ALL[operation];
        let mut json = Json::new(charset);
        let relation_keys = relation_keys(schema.as_bytes(), table.as_bytes(), charset);
        let head_text = head_text(&head, charset);
        let (position, subtransaction) = (head.position, head.subtransaction_id);
        let mut draft =
            Draft::open(&mut json, &head_text, position, subtransaction, &relation_keys, operation, charset);
        match &keys.0 {
            Some(key) => draft.json.string(key.as_bytes()).unwrap(),
            None => draft.json.raw(b"null"),
        }
        draft.before();
        let before = write_image(draft.json, &before, charset);
        draft.after();
        let after = write_image(draft.json, &after, charset);
        draft.context();
        if let Some(key) = &keys.1 {
            draft.old_primary_key();
            draft.json.string(key.as_bytes()).unwrap();
        }
        let origin = origin.map(|origin| origin.to_string());
        if let Some(origin) = &origin {
            draft.origin(origin.as_bytes());
        }
        if let Some(oid) = relation {
            draft.relation(oid);
        }
        unchanged.iter().for_each(|name| draft.unchanged(name.as_bytes()));
        omitted.iter().for_each(|(name, reason)| draft.omitted(name.as_bytes(), &Omission::output(reason)));
        let finished = draft.close().unwrap();
        let text = finished.pieces(json.as_bytes(), sequence(&head).as_bytes(), context.as_bytes()).concat();
        let Document::Change(read) = Document::read(&text).map_err(|reason| failed(reason, &text))? else {
            return Err(failed("it is no change".to_owned(), &text));
        };
        prop_assert_eq!(&read.head, &head);
        prop_assert_eq!((&*read.schema, &*read.table, &*read.operation), (&*schema, &*table, operation.name()));
        prop_assert_eq!(read.primary_key.as_deref(), keys.0.as_deref());
        prop_assert_eq!(read.old_primary_key.as_deref(), keys.1.as_deref());
        prop_assert_eq!((read.before, read.after, read.context), (&*before, &*after, context));
        prop_assert_eq!((read.origin, read.relation), (origin.as_deref(), relation));
        let names: Vec<String> = read.unchanged.map_or_else(Vec::new, |list| serde_json::from_str(list).unwrap());
        prop_assert_eq!(names, unchanged);
        let reasons = read.omitted.map_or_else(Default::default, |reasons| serde_json::from_str(reasons).unwrap());
        prop_assert_eq!(omitted, reasons);
    }

    #[test]
    fn messages(
        charset in charset(), head in head(), prefix: String, is_transactional: bool,
        text in any::<String>(), bytes in any::<Option<Vec<u8>>>(),
    ) {
        let content = match &bytes {
            Some(bytes) => Content::new(bytes, None),
            None => Content::new(text.as_bytes(), Some(text.as_bytes())),
        };
        let mut json = Json::new(charset);
        let message = Message { prefix: prefix.as_bytes(), content, is_transactional };
        let head_text = head_text(&head, charset);
        let (position, subtransaction) = (head.position, head.subtransaction_id);
        let finished = message::write(&mut json, &head_text, position, subtransaction, message, charset).unwrap();
        let document = finished.pieces(json.as_bytes(), sequence(&head).as_bytes(), SAME_CONTEXT.as_bytes()).concat();
        let Document::Message(read) = Document::read(&document).map_err(|reason| failed(reason, &document))? else {
            return Err(failed("it is no message".to_owned(), &document));
        };
        prop_assert_eq!(&read.head, &head);
        prop_assert_eq!((read.context, read.is_transactional), (SAME_CONTEXT, is_transactional));
        prop_assert_eq!(read.prefix.as_deref(), Some(&*prefix));
        let expected = match content {
            Content::Text(_) => ShownContent::Text(text.into()),
            Content::Bytes(bytes) => ShownContent::Bytes(bytes.to_vec()),
        };
        prop_assert_eq!((read.content, read.omitted), (Some(expected), None));
    }

    #[test]
    fn markers(
        charset in charset(), (at, begun) in (moment(), prop::option::of(moment())),
        xid: u32, subtransaction: Option<u32>,
        (gid, database) in any::<(String, String)>(),
    ) {
        let name = gid.as_bytes();
        let events = [
            (Event::Begin(begun), Event::Begin(begun)),
            (Event::Commit(at), Event::Commit(at)),
            (Event::StreamCommit(at), Event::StreamCommit(at)),
            (Event::StreamAbort(subtransaction), Event::StreamAbort(subtransaction)),
            (Event::Prepare(name, at), Event::Prepare(gid.as_str().into(), at)),
            (Event::StreamPrepare(name, at), Event::StreamPrepare(gid.as_str().into(), at)),
            (Event::CommitPrepared(name, at), Event::CommitPrepared(gid.as_str().into(), at)),
            (Event::RollbackPrepared(name, at), Event::RollbackPrepared(gid.as_str().into(), at)),
        ];
        for (event, expected) in events {
            let text = marker::document(event, xid, &quoted(database.as_bytes(), charset), charset);
            let Document::Marker(read) = Document::read(&text).map_err(|reason| failed(reason, &text))? else {
                return Err(failed("it is no marker".to_owned(), &text));
            };
            prop_assert_eq!((read.event, read.transaction_id, &*read.database), (expected, xid, &*database));
        }
    }

    #[test]
    fn gaps(
        (database, reason, accepted_by) in any::<(String, String, Option<String>)>(), transaction_id: u32,
        end in moment(), from: Option<u64>, from_source: Option<i32>,
    ) {
        let (database, reason, accepted_by) = (database.into(), reason.into(), accepted_by.map(Into::into));
        let (at, to) = (end.time, end.position);
        let gap = Gap { database, transaction_id, at, reason, from, from_source, to, accepted_by };
        let text = gap.document().unwrap();
        let Document::Gap(read) = Document::read(&text).map_err(|reason| failed(reason, &text))? else {
            return Err(failed("it is no gap".to_owned(), &text));
        };
        prop_assert_eq!(read, gap);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>, text: String) {
        let _ = (Document::read(&bytes).is_ok(), Document::read(text.as_bytes()).is_ok());
    }
}
