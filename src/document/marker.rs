//! Documents that say where a transaction begins and how it ends: how they are written, and how they are read back.
#![forbid(unsafe_code)]

use std::borrow::Cow;

use super::fields::Values;
use super::json::{Charset, quoted};
use super::keys::{IN_MARKERS, Key};
use super::moment::{Moment, push_position, push_time};

/// What happened to the transaction. The moments are those of its commit or its preparation; `Gid` is the name under
/// which it is prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<Gid> {
    /// Its documents follow; the moment of its commit, if it is known yet.
    Begin(Option<Moment>),
    /// All its documents were sent, and it is committed.
    Commit(Moment),
    /// It was sent while it was in progress, and is committed.
    StreamCommit(Moment),
    /// It, or the subtransaction given, was sent while it was in progress, and is rolled back.
    StreamAbort(Option<u32>),
    /// All its documents were sent, and it is prepared under a name.
    Prepare(Gid, Moment),
    /// As `Prepare`, after it was sent while it was in progress.
    StreamPrepare(Gid, Moment),
    /// It was prepared before, and is committed now.
    CommitPrepared(Gid, Moment),
    /// It was prepared before, and is rolled back now; when it was prepared.
    RollbackPrepared(Gid, Moment),
}

impl<Gid> Event<Gid> {
    /// Returns its name in a document.
    fn name(&self) -> &'static str {
        match self {
            Self::Begin(_) => "BEGIN",
            Self::Commit(_) => "COMMIT",
            Self::StreamCommit(_) => "STREAM COMMIT",
            Self::StreamAbort(_) => "STREAM ABORT",
            Self::Prepare(..) => "PREPARE",
            Self::StreamPrepare(..) => "STREAM PREPARE",
            Self::CommitPrepared(..) => "COMMIT PREPARED",
            Self::RollbackPrepared(..) => "ROLLBACK PREPARED",
        }
    }

    /// Returns the name under which the transaction is prepared.
    fn gid(&self) -> Option<&Gid> {
        match self {
            Self::Prepare(gid, _)
            | Self::StreamPrepare(gid, _)
            | Self::CommitPrepared(gid, _)
            | Self::RollbackPrepared(gid, _) => Some(gid),
            Self::Begin(_) | Self::Commit(_) | Self::StreamCommit(_) | Self::StreamAbort(_) => None,
        }
    }
}

/// Returns the document of an event. `database` is a JSON string; the name of a prepared transaction is in UTF-8.
pub fn document(event: Event<&[u8]>, xid: u32, database: &[u8], charset: Charset) -> Vec<u8> {
    let mut json = concat!("{\"", name!(Operation), "\":\"").as_bytes().to_vec();
    let mut push = |part: &str| json.extend_from_slice(part.as_bytes());
    push(event.name());
    push(concat!("\"", member!(TransactionId)));
    push(itoa::Buffer::new().format(xid));
    if let Event::StreamAbort(Some(subtransaction)) = event {
        push(member!(SubtransactionId));
        push(itoa::Buffer::new().format(subtransaction));
    }
    if let Some(gid) = event.gid() {
        push(member!(Gid));
        json.extend_from_slice(&quoted(gid, charset));
    }
    let moment = match event {
        Event::Begin(moment) => Some((member!(CommitPosition), member!(CommittedAt), moment)),
        Event::Commit(moment) | Event::StreamCommit(moment) | Event::CommitPrepared(_, moment) => {
            Some((member!(CommitPosition), member!(CommittedAt), Some(moment)))
        }
        Event::Prepare(_, moment) | Event::StreamPrepare(_, moment) | Event::RollbackPrepared(_, moment) => {
            Some((member!(PreparePosition), member!(PreparedAt), Some(moment)))
        }
        Event::StreamAbort(_) => None,
    };
    if let Some((position_key, time_key, moment)) = moment {
        json.extend_from_slice(position_key.as_bytes());
        push_position(&mut json, moment);
        json.extend_from_slice(time_key.as_bytes());
        push_time(&mut json, moment);
    }
    json.extend_from_slice(member!(Database).as_bytes());
    json.extend_from_slice(database);
    json.push(b'}');
    json
}

/// A marker as it is read back.
#[derive(Debug, PartialEq, Eq)]
pub struct Marker<'a> {
    /// What happened to the transaction.
    pub event: Event<Cow<'a, str>>,
    /// The number of the transaction.
    pub transaction_id: u32,
    /// The database.
    pub database: Cow<'a, str>,
}

impl<'a> Marker<'a> {
    /// Reads a marker. Fails with what is wrong with it.
    pub fn read(text: &'a [u8]) -> Result<Self, String> {
        let values = Values::read(text, IN_MARKERS)?;
        let gid = || values.string(Key::Gid);
        let commit = || values.moment(Key::CommitPosition, Key::CommittedAt);
        let committed = || commit()?.ok_or_else(|| values.wrong(Key::CommitPosition));
        let prepared = || {
            let moment = values.moment(Key::PreparePosition, Key::PreparedAt)?;
            moment.ok_or_else(|| values.wrong(Key::PreparePosition))
        };
        let event = match &*values.string(Key::Operation)? {
            "BEGIN" => Event::Begin(commit()?),
            "COMMIT" => Event::Commit(committed()?),
            "STREAM COMMIT" => Event::StreamCommit(committed()?),
            "STREAM ABORT" => Event::StreamAbort(values.optional(Key::SubtransactionId, Values::number)?),
            "PREPARE" => Event::Prepare(gid()?, prepared()?),
            "STREAM PREPARE" => Event::StreamPrepare(gid()?, prepared()?),
            "COMMIT PREPARED" => Event::CommitPrepared(gid()?, committed()?),
            "ROLLBACK PREPARED" => Event::RollbackPrepared(gid()?, prepared()?),
            _ => return Err(values.wrong(Key::Operation)),
        };
        let transaction_id = values.number(Key::TransactionId)?;
        Ok(Self { event, transaction_id, database: values.string(Key::Database)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_say_what_is_known_of_the_transaction() {
        let moment = Moment { position: 0x1_0000_0002, time: 0 };
        let text = |event| String::from_utf8(document(event, 745, b"\"app\"", Charset::Utf8)).unwrap();
        let commit = r#""commit_position":"1/2","committed_at":"2000-01-01T00:00:00+00:00","database":"app"}"#;
        let prepare = r#""prepare_position":"1/2","prepared_at":"2000-01-01T00:00:00+00:00","database":"app"}"#;
        let expected = [
            (Event::Begin(Some(moment)), format!(r#"{{"operation":"BEGIN","transaction_id":745,{commit}"#)),
            (Event::Commit(moment), format!(r#"{{"operation":"COMMIT","transaction_id":745,{commit}"#)),
            (Event::StreamCommit(moment), format!(r#"{{"operation":"STREAM COMMIT","transaction_id":745,{commit}"#)),
            (
                Event::Prepare(&b"a\"b"[..], moment),
                format!(r#"{{"operation":"PREPARE","transaction_id":745,"gid":"a\"b",{prepare}"#),
            ),
            (
                Event::StreamPrepare(&b"g"[..], moment),
                format!(r#"{{"operation":"STREAM PREPARE","transaction_id":745,"gid":"g",{prepare}"#),
            ),
            (
                Event::CommitPrepared(&b"g"[..], moment),
                format!(r#"{{"operation":"COMMIT PREPARED","transaction_id":745,"gid":"g",{commit}"#),
            ),
            (
                Event::RollbackPrepared(&b"g"[..], moment),
                format!(r#"{{"operation":"ROLLBACK PREPARED","transaction_id":745,"gid":"g",{prepare}"#),
            ),
        ];
        for (event, document) in expected {
            assert_eq!(text(event), document);
        }
        assert_eq!(
            text(Event::StreamAbort(Some(7))),
            r#"{"operation":"STREAM ABORT","transaction_id":745,"subtransaction_id":7,"database":"app"}"#
        );
        assert_eq!(
            text(Event::StreamAbort(None)),
            r#"{"operation":"STREAM ABORT","transaction_id":745,"database":"app"}"#
        );
        assert!(text(Event::Begin(None)).contains(r#""commit_position":null,"committed_at":null"#));
    }

    #[test]
    fn a_document_that_is_not_a_marker_is_refused_with_the_reason() {
        let prepared = Event::Prepare(&b"g"[..], Moment { position: 1, time: 2 });
        let example = String::from_utf8(document(prepared, 745, b"\"app\"", Charset::Utf8)).unwrap();
        for (wrong, sign) in [
            (example.replace("PREPARE", "CREATE"), "operation is \"CREATE\""),
            (example.replace("\"PREPARE\"", "\"BEGIN\""), "no key \"commit_position\""),
            (example.replace("\"0/1\"", "null"), "prepare_position is null"),
            (example.replace("0/1", "0-1"), "prepare_position is \"0-1\""),
            (example.replace("\"gid\":\"g\"", "\"gid\":7"), "gid is 7"),
            (example.replace("745", "-745"), "transaction_id is -745"),
            (example.replace(",\"database\":\"app\"", ""), "no key \"database\""),
        ] {
            let error = Marker::read(wrong.as_bytes()).unwrap_err();
            assert!(error.contains(sign), "{error}");
        }
    }
}
