//! What a document says of a change, for the table that keeps it.
#![forbid(unsafe_code)]

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

/// A document of a change, as the decoder writes it. Keys that the table has no column for are left out.
#[derive(Debug, Deserialize)]
pub struct Document<'a> {
    #[serde(borrow)]
    position: Cow<'a, str>,
    #[serde(borrow)]
    commit_position: Cow<'a, str>,
    /// Its number in its transaction.
    pub sequence: u32,
    /// The number of its transaction.
    pub transaction_id: u32,
    #[serde(borrow)]
    committed_at: Cow<'a, str>,
    /// The database, as it was named.
    #[serde(borrow)]
    pub database: Cow<'a, str>,
    /// The schema of its table.
    #[serde(borrow)]
    pub schema: Cow<'a, str>,
    /// Its table.
    #[serde(borrow)]
    pub table: Cow<'a, str>,
    /// CREATE, UPDATE, DELETE or TRUNCATE.
    #[serde(borrow)]
    pub operation: Cow<'a, str>,
    /// The row's key as text.
    #[serde(borrow)]
    pub primary_key: Option<Cow<'a, str>>,
    /// The row before, or `{}`.
    #[serde(borrow)]
    pub before: &'a RawValue,
    /// The row after, or `{}`.
    #[serde(borrow)]
    pub after: &'a RawValue,
    /// Who acted, and why.
    #[serde(borrow)]
    pub context: &'a RawValue,
    /// What the decoder left out, and why.
    #[serde(borrow, default)]
    pub omitted: Option<&'a RawValue>,
}

/// Which change it is, for ever: where its transaction committed, and its number there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// Where its transaction committed.
    pub commit_position: u64,
    /// Its number there.
    pub sequence: u32,
}

impl<'a> Document<'a> {
    /// Reads a document of a committed change; gives what is wrong with it otherwise.
    pub fn parse(text: &'a [u8]) -> Result<Self, String> {
        let document: Self = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        for (key, value) in [("position", &document.position), ("commit_position", &document.commit_position)] {
            lsn(value).ok_or_else(|| format!("{key} is {value:?}, which is no position"))?;
        }
        timestamp(&document.committed_at)
            .ok_or_else(|| format!("committed_at is {:?}, which is no time", document.committed_at))?;
        Ok(document)
    }

    /// Which change it is.
    pub fn identity(&self) -> Identity {
        Identity { commit_position: lsn(&self.commit_position).unwrap_or_default(), sequence: self.sequence }
    }

    /// Where in the log it is.
    pub fn position(&self) -> u64 {
        lsn(&self.position).unwrap_or_default()
    }

    /// When its transaction committed, in microseconds since 2000-01-01 UTC.
    pub fn committed_at(&self) -> i64 {
        timestamp(&self.committed_at).unwrap_or_default()
    }
}

/// A log position: `16/B374D848`.
fn lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let part = |digits: &str| u32::from_str_radix(digits, 16).ok();
    Some(u64::from(part(high)?) << 32 | u64::from(part(low)?))
}

/// A time in UTC, in microseconds since 2000-01-01: `2026-11-20T11:38:55.720782+00:00`.
fn timestamp(text: &str) -> Option<i64> {
    let (date, time) = text.strip_suffix("+00:00")?.split_once('T')?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
    let mut time = time.splitn(3, ':').map(|part| part.parse::<i64>().ok());
    let (hours, minutes, seconds) = (time.next()??, time.next()??, time.next()??);
    let micros: i64 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let micros = micros * 10_i64.pow(6_u32.checked_sub(fraction.len() as u32)?);
    let days = days_since_2000(year, month, day);
    days.checked_mul(86_400)?
        .checked_add(hours * 3600 + minutes * 60 + seconds)?
        .checked_mul(1_000_000)?
        .checked_add(micros)
}

/// Days from 2000-01-01 to a day of the Gregorian calendar. Years are counted from March, so that a leap day ends one.
fn days_since_2000(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 730_425
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub const EXAMPLE: &str = r#"{"position":"0/16B3748","commit_position":"1/A0","sequence":7,"transaction_id":745,"committed_at":"2026-11-20T11:38:55.720782+00:00","database":"app","schema":"public","table":"to \"do\"","operation":"UPDATE","primary_key":"26","before":{"id":26},"after":{"id":26,"x":1e400},"context":{"user_id":187234},"unchanged":["body"],"omitted":{"y":"why"}}"#;

    #[test]
    fn a_document_says_which_change_it_is() {
        let document = Document::parse(EXAMPLE.as_bytes()).unwrap();
        assert_eq!(document.identity(), Identity { commit_position: 0x1_0000_00A0, sequence: 7 });
        assert_eq!((document.position(), document.committed_at()), (0x16B_3748, 848_489_935_720_782));
        assert_eq!((&*document.table, document.primary_key.as_deref()), ("to \"do\"", Some("26")));
        assert_eq!(document.after.get(), r#"{"id":26,"x":1e400}"#);
        assert_eq!(document.omitted.map(RawValue::get), Some(r#"{"y":"why"}"#));
    }

    #[test]
    fn what_is_no_document_of_a_committed_change_is_told() {
        for (wrong, sign) in [
            (EXAMPLE.replace("\"1/A0\"", "null"), "null"),
            (EXAMPLE.replace("1/A0", "1-A0"), "commit_position"),
            (EXAMPLE.replace("2026-11-20T11:38:55.720782+00:00", "now"), "committed_at"),
            (EXAMPLE.replace("\"sequence\":7,", ""), "sequence"),
            ("{}".to_owned(), "position"),
            (String::new(), "EOF"),
        ] {
            let error = Document::parse(wrong.as_bytes()).unwrap_err();
            assert!(error.contains(sign), "{error}");
        }
    }

    proptest! {
        #[test]
        fn times_and_positions_are_as_the_decoder_writes_them(
            time in 0i64..300_000_000_000_000_000, position: u64
        ) {
            let mut text = Vec::new();
            crate::decoder::encode::timestamptz(&mut text, time);
            prop_assert_eq!(timestamp(std::str::from_utf8(&text).unwrap()), Some(time));
            prop_assert_eq!(lsn(&crate::decoder::encode::lsn(position)), Some(position));
        }

        #[test]
        fn no_text_stops_it(text: String) {
            let _ = (timestamp(&text), lsn(&text), Document::parse(text.as_bytes()).is_ok());
        }
    }
}
