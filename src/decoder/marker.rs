//! Documents that say where a transaction begins and how it ends.
#![forbid(unsafe_code)]

use super::encode;
use super::txn::Moment;
use crate::json::{Charset, quoted};

/// What happened to the transaction. The moments are those of its commit or its preparation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Its documents follow; the moment of its commit, if it is known yet.
    Begin(Option<Moment>),
    /// All its documents were sent, and it is committed.
    Commit(Moment),
    /// It was sent while it was in progress, and is committed.
    StreamCommit(Moment),
    /// It, or the subtransaction given, was sent while it was in progress, and is rolled back.
    StreamAbort(Option<u32>),
    /// All its documents were sent, and it is prepared under a name.
    Prepare(&'a [u8], Moment),
    /// As `Prepare`, after it was sent while it was in progress.
    StreamPrepare(&'a [u8], Moment),
    /// It was prepared before, and is committed now.
    CommitPrepared(&'a [u8], Moment),
    /// It was prepared before, and is rolled back now; when it was prepared.
    RollbackPrepared(&'a [u8], Moment),
}

/// The document of an event. `database` is a JSON string; a name of a prepared transaction is in UTF-8.
pub fn document(event: Event, xid: u32, database: &[u8], charset: Charset) -> Vec<u8> {
    let (operation, name) = match event {
        Event::Begin(_) => ("BEGIN", None),
        Event::Commit(_) => ("COMMIT", None),
        Event::StreamCommit(_) => ("STREAM COMMIT", None),
        Event::StreamAbort(_) => ("STREAM ABORT", None),
        Event::Prepare(name, _) => ("PREPARE", Some(name)),
        Event::StreamPrepare(name, _) => ("STREAM PREPARE", Some(name)),
        Event::CommitPrepared(name, _) => ("COMMIT PREPARED", Some(name)),
        Event::RollbackPrepared(name, _) => ("ROLLBACK PREPARED", Some(name)),
    };
    let mut json = format!("{{\"operation\":\"{operation}\",\"transaction_id\":{xid}").into_bytes();
    if let Event::StreamAbort(Some(subtransaction)) = event {
        json.extend_from_slice(format!(",\"subtransaction_id\":{subtransaction}").as_bytes());
    }
    if let Some(name) = name {
        json.extend_from_slice(b",\"gid\":");
        json.extend_from_slice(&quoted(name, charset));
    }
    let moment = match event {
        Event::Begin(moment) => Some(("commit_position", "committed_at", moment)),
        Event::Commit(moment) | Event::StreamCommit(moment) | Event::CommitPrepared(_, moment) => {
            Some(("commit_position", "committed_at", Some(moment)))
        }
        Event::Prepare(_, moment) | Event::StreamPrepare(_, moment) | Event::RollbackPrepared(_, moment) => {
            Some(("prepare_position", "prepared_at", Some(moment)))
        }
        Event::StreamAbort(_) => None,
    };
    if let Some((position_key, time_key, moment)) = moment {
        json.extend_from_slice(format!(",\"{position_key}\":").as_bytes());
        encode::position_or_null(&mut json, moment.map(|moment| moment.position));
        json.extend_from_slice(format!(",\"{time_key}\":").as_bytes());
        encode::time_or_null(&mut json, moment.map(|moment| moment.time));
    }
    json.extend_from_slice(b",\"database\":");
    json.extend_from_slice(database);
    json.push(b'}');
    json
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
                Event::Prepare(b"a\"b", moment),
                format!(r#"{{"operation":"PREPARE","transaction_id":745,"gid":"a\"b",{prepare}"#),
            ),
            (
                Event::StreamPrepare(b"g", moment),
                format!(r#"{{"operation":"STREAM PREPARE","transaction_id":745,"gid":"g",{prepare}"#),
            ),
            (
                Event::CommitPrepared(b"g", moment),
                format!(r#"{{"operation":"COMMIT PREPARED","transaction_id":745,"gid":"g",{commit}"#),
            ),
            (
                Event::RollbackPrepared(b"g", moment),
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
}
