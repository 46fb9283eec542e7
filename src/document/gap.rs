//! The document that stands for changes that are missing: how it is written, and how it is read back. It is recorded as
//! a change of no table, with what is known of the gap as its context.
#![forbid(unsafe_code)]

use std::borrow::Cow;

use super::change::{Committed, Draft, relation_keys};
use super::head::HeadText;
use super::json::{Charset, Json, members, quoted, read_string};
use super::lsn;
use super::moment::Moment;
use super::omission::Omission;
use super::operation::Operation;

/// Its sequence number: a gap comes before the changes of the transaction that follows it.
const SEQUENCE: &str = "0";

const REASON: &str = "reason";
const FROM: &str = "from";
const FROM_SOURCE: &str = "from_source";
const TO: &str = "to";
const ACCEPTED_BY: &str = "accepted_by";

/// What is known of a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap<'a> {
    /// The database.
    pub database: Cow<'a, str>,
    /// The transaction that accepted the gap.
    pub transaction_id: u32,
    /// When the gap was accepted, in microseconds since 2000-01-01 UTC.
    pub at: i64,
    /// Why changes are missing.
    pub reason: Cow<'a, str>,
    /// Where the gap begins; None if that is unknown.
    pub from: Option<u64>,
    /// The source in whose WAL the gap begins, if that is another one than the source in whose WAL it ends.
    pub from_source: Option<i32>,
    /// Where the gap ends.
    pub to: u64,
    /// Who accepted it.
    pub accepted_by: Option<Cow<'a, str>>,
}

impl Gap<'_> {
    /// Returns the document of the gap, in UTF-8. Fails if there is no memory for it.
    pub fn document(&self) -> Result<Vec<u8>, Omission> {
        let charset = Charset::Utf8;
        let commit = Moment { position: self.to, time: self.at };
        let head = HeadText::new(Some(self.transaction_id), Some(commit), &quoted(self.database.as_bytes(), charset));
        let mut json = Json::new(charset);
        let keys = relation_keys(b"", b"", charset);
        let mut draft = Draft::open(&mut json, &head, self.to, None, &keys, Operation::Gap, charset);
        draft.no_row();
        draft.context();
        let finished = draft.close()?;
        Ok(finished.pieces(json.as_bytes(), SEQUENCE.as_bytes(), self.context().as_bytes()).concat())
    }

    /// Returns what is known of the gap, as a JSON object.
    fn context(&self) -> String {
        let string = |text: &str| String::from_utf8_lossy(&quoted(text.as_bytes(), Charset::Utf8)).into_owned();
        let position = |position: u64| format!("\"{}\"", lsn::text(position));
        let or_null = |value: Option<String>| value.unwrap_or_else(|| "null".to_owned());
        let mut members = vec![(REASON, string(&self.reason)), (FROM, or_null(self.from.map(position)))];
        members.extend(self.from_source.map(|source| (FROM_SOURCE, source.to_string())));
        members.push((TO, position(self.to)));
        members.push((ACCEPTED_BY, or_null(self.accepted_by.as_deref().map(string))));
        let members: Vec<String> = members.into_iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        format!("{{{}}}", members.join(","))
    }
}

impl<'a> Gap<'a> {
    /// Reads the document of a gap. Fails with what is wrong with it.
    pub fn read(text: &'a [u8]) -> Result<Self, String> {
        Self::of(Committed::read(text)?)
    }

    fn of(document: Committed<'a>) -> Result<Self, String> {
        let change = document.change;
        if change.operation != Operation::Gap.name() {
            return Err(format!("operation is {:?}", change.operation));
        }
        let find = |key: &str| members(change.context).flatten().find(|(name, _)| *name == key).map(|(_, value)| value);
        let wrong = |key: &str| format!("{key} of the gap is {}", find(key).unwrap_or("missing"));
        let string =
            |key: &str| find(key).and_then(|value| read_string(value).ok().flatten()).ok_or_else(|| wrong(key));
        let nullable = |key: &str| if find(key) == Some("null") { Ok(None) } else { string(key).map(Some) };
        let from = nullable(FROM)?.map(|text| lsn::read(&text).ok_or_else(|| wrong(FROM))).transpose()?;
        let from_source = find(FROM_SOURCE).map(|value| value.parse().map_err(|_| wrong(FROM_SOURCE))).transpose()?;
        if lsn::read(&string(TO)?) != Some(document.identity.commit_position) {
            return Err(wrong(TO));
        }
        Ok(Self {
            database: change.head.database,
            transaction_id: document.transaction_id,
            at: document.committed_at,
            reason: string(REASON)?,
            from,
            from_source,
            to: document.identity.commit_position,
            accepted_by: nullable(ACCEPTED_BY)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Gap<'static> {
        Gap {
            database: "app".into(),
            transaction_id: 745,
            at: 0,
            reason: "slot lost".into(),
            from: Some(0x16B_3748),
            from_source: None,
            to: 0x1_0000_00A0,
            accepted_by: Some("o\"hara".into()),
        }
    }

    #[test]
    fn a_gap_is_a_change_of_no_table() {
        let start = concat!(
            r#"{"position":"1/A0","commit_position":"1/A0","sequence":0,"transaction_id":745,"#,
            r#""committed_at":"2000-01-01T00:00:00+00:00","database":"app","schema":"","table":"","#,
            r#""operation":"GAP","primary_key":null,"before":{},"after":{},"context":"#,
        );
        let text = |gap: &Gap| String::from_utf8(gap.document().unwrap()).unwrap();
        assert_eq!(
            text(&example()),
            format!(r#"{start}{{"reason":"slot lost","from":"0/16B3748","to":"1/A0","accepted_by":"o\"hara"}}}}"#)
        );
        let unknown = Gap { from: None, from_source: Some(2), accepted_by: None, ..example() };
        assert_eq!(
            text(&unknown),
            format!(r#"{start}{{"reason":"slot lost","from":null,"from_source":2,"to":"1/A0","accepted_by":null}}}}"#)
        );
    }

    #[test]
    fn a_document_that_is_not_of_a_gap_is_refused_with_the_reason() {
        let example = String::from_utf8(example().document().unwrap()).unwrap();
        for (wrong, sign) in [
            (example.replace("GAP", "CREATE"), "operation is \"CREATE\""),
            (example.replace("\"reason\":\"slot lost\",", ""), "reason of the gap is missing"),
            (example.replace("\"from\":\"0/16B3748\"", "\"from\":\"x\""), "from of the gap is \"x\""),
            (example.replace("\"to\":\"1/A0\"", "\"to\":\"1/A8\""), "to of the gap is \"1/A8\""),
            (example.replace("\"to\":", "\"from_source\":x,\"to\":"), "from_source of the gap is x"),
        ] {
            let error = Gap::read(wrong.as_bytes()).unwrap_err();
            assert!(error.contains(sign), "{error}");
        }
    }
}
