//! What a document says of a change, for the table that keeps it.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::collections::TryReserveError;

/// A document of a change, as the decoder writes it. Keys that the table has no column for are left out.
#[derive(Debug)]
pub struct Document<'a> {
    /// Which change it is.
    pub identity: Identity,
    /// Where in the log it is.
    pub position: u64,
    /// The number of its transaction.
    pub transaction_id: u32,
    /// When its transaction committed, in microseconds since 2000-01-01 UTC.
    pub committed_at: i64,
    /// The database, as it was named.
    pub database: Cow<'a, str>,
    /// The schema of its table.
    pub schema: Cow<'a, str>,
    /// Its table.
    pub table: Cow<'a, str>,
    /// CREATE, UPDATE, DELETE or TRUNCATE.
    pub operation: Cow<'a, str>,
    /// The row's key as text.
    pub primary_key: Option<Cow<'a, str>>,
    /// The row before, or `{}`: JSON.
    pub before: &'a str,
    /// The row after, or `{}`: JSON.
    pub after: &'a str,
    /// Who acted, and why: JSON; or [`SAME_CONTEXT`].
    pub context: &'a str,
    /// The row's key before, if the change made it another one.
    pub old_primary_key: Option<Cow<'a, str>>,
    /// What the decoder left out, and why: JSON.
    pub omitted: Option<&'a str>,
    /// The OID of its table.
    pub relation: Option<u32>,
}

/// The context of a document whose context is that of the document before it, of the same transaction.
pub const SAME_CONTEXT: &str = "\"=\"";

/// What is wrong with a document if there was no memory to read it.
pub const OUT_OF_MEMORY: &str = "out of memory";

/// Which change it is, for ever: where its transaction committed, and its number there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// Where its transaction committed.
    pub commit_position: u64,
    /// Its number there.
    pub sequence: u32,
}

impl<'a> Document<'a> {
    /// Reads a document of a committed change; gives what is wrong with it otherwise. What is inside of `before`, `after`,
    /// `context` and `omitted` is not looked at: the server reads it, and refuses what is no JSON.
    pub fn parse(text: &'a [u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(text).map_err(|error| error.to_string())?;
        const KEYS: [&str; 16] = [
            "position",
            "commit_position",
            "sequence",
            "transaction_id",
            "committed_at",
            "database",
            "schema",
            "table",
            "operation",
            "primary_key",
            "before",
            "after",
            "context",
            "old_primary_key",
            "relation",
            "omitted",
        ];
        let mut values: [Option<&str>; KEYS.len()] = [None; KEYS.len()];
        // The decoder writes them in this order; others may be between.
        let mut next = 0;
        for member in members(text) {
            let (key, value) = member.ok_or("it is no JSON object")?;
            if let Some(found) = KEYS[next..].iter().position(|known| *known == key) {
                next += found;
                values[next] = Some(value);
            }
        }
        let value = |index: usize| values[index].ok_or_else(|| format!("it has no key {:?} in its place", KEYS[index]));
        let wrong = |index: usize| {
            let value = values[index].unwrap_or("missing");
            format!("{} is {}", KEYS[index], &value[..value.floor_char_boundary(100)])
        };
        let string = |index: usize| {
            self::string(value(index)?).map_err(|_| OUT_OF_MEMORY.to_owned())?.ok_or_else(|| wrong(index))
        };
        let number = |index: usize| value(index)?.parse::<u32>().map_err(|_| wrong(index));
        let position = |index: usize| lsn(&string(index)?).ok_or_else(|| wrong(index));
        Ok(Self {
            identity: Identity { commit_position: position(1)?, sequence: number(2)? },
            position: position(0)?,
            transaction_id: number(3)?,
            committed_at: timestamp(&string(4)?).ok_or_else(|| wrong(4))?,
            database: string(5)?,
            schema: string(6)?,
            table: string(7)?,
            operation: string(8)?,
            primary_key: if value(9)? == "null" { None } else { Some(string(9)?) },
            before: value(10)?,
            after: value(11)?,
            context: value(12)?,
            old_primary_key: values[13].map(|_| string(13)).transpose()?,
            omitted: values[15],
            relation: values[14].map(|_| number(14)).transpose()?,
        })
    }
}

/// The members of a JSON object without white space around them, as keys without their quotes and values as they are
/// written; None, and no more, where it is none.
pub fn members(text: &str) -> impl Iterator<Item = Option<(&str, &str)>> {
    let mut rest = text.strip_prefix('{').unwrap_or_default();
    let mut is_over = false;
    std::iter::from_fn(move || {
        if is_over {
            return None;
        }
        let member = member(rest);
        is_over = match member {
            Some((_, _, behind)) => {
                rest = behind.get(1..).unwrap_or_default();
                !behind.starts_with(',')
            }
            None => true,
        };
        Some(member.filter(|(_, _, behind)| behind.starts_with(',') || *behind == "}").map(|found| (found.0, found.1)))
    })
}

/// The key and the value that a text begins with, and what is behind them.
fn member(text: &str) -> Option<(&str, &str, &str)> {
    let key_len = string_len(text)?;
    let value = text[key_len..].strip_prefix(':')?;
    let len = match value.as_bytes().first()? {
        b'"' => string_len(value)?,
        b'{' => object_len(value)?,
        // Numbers and literals; the document has no arrays but `unchanged`, of strings.
        b'[' => array_len(value)?,
        _ => value.find([',', '}'])?,
    };
    Some((&text[1..key_len - 1], &value[..len], &value[len..]))
}

/// How long the string is that a text begins with, with its quotes.
fn string_len(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = if bytes.first() == Some(&b'"') { 1 } else { return None };
    loop {
        at += memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// How long the object is that a text begins with.
fn object_len(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0_usize);
    loop {
        at += memchr::memchr3(b'"', b'{', b'}', bytes.get(at..)?)?;
        match bytes[at] {
            b'"' => at += string_len(text.get(at..)?)?,
            b'{' => {
                depth += 1;
                at += 1;
            }
            _ => {
                depth -= 1;
                at += 1;
                if depth == 0 {
                    return Some(at);
                }
            }
        }
    }
}

/// How long the array is that a text begins with.
fn array_len(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0_usize);
    loop {
        match bytes.get(at)? {
            b'"' => at += string_len(text.get(at..)?)? - 1,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
}

/// The text of a JSON string; None if it is none. Fails if there is no memory for it.
fn string(value: &str) -> Result<Option<Cow<'_, str>>, TryReserveError> {
    let Some(inside) = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')) else { return Ok(None) };
    if !inside.contains('\\') {
        return Ok(Some(Cow::Borrowed(inside)));
    }
    let mut text = String::new();
    text.try_reserve(inside.len())?;
    let mut rest = inside;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        text.push_str(&rest[..at]);
        let Some((c, behind)) = escape(&rest[at + 1..]) else { return Ok(None) };
        text.push(c);
        rest = behind;
    }
    text.push_str(rest);
    Ok(Some(Cow::Owned(text)))
}

/// The character of an escape, whose backslash is read already, and what is behind it.
fn escape(text: &str) -> Option<(char, &str)> {
    let c = match text.as_bytes().first()? {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => {
            let unit = |text: &str| u16::from_str_radix(text.get(..4)?, 16).ok();
            let first = unit(&text[1..])?;
            let second = text.get(5..).and_then(|rest| unit(rest.strip_prefix("\\u")?));
            let c = char::decode_utf16([Some(first), second].into_iter().flatten()).next()?.ok()?;
            return Some((c, text.get(if c.len_utf16() == 2 { 11 } else { 5 }..)?));
        }
        _ => return None,
    };
    Some((c, &text[1..]))
}

/// A log position: `16/B374D848`.
pub fn lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let part = |digits: &str| u32::from_str_radix(digits, 16).ok();
    Some(u64::from(part(high)?) << 32 | u64::from(part(low)?))
}

/// A time in UTC, in microseconds since 2000-01-01: `2026-11-20T11:38:55.720782+00:00`, `0044-03-15T12:00:00+00:00 BC`,
/// `infinity`.
fn timestamp(text: &str) -> Option<i64> {
    match text {
        "infinity" => return Some(i64::MAX),
        "-infinity" => return Some(i64::MIN),
        _ => {}
    }
    let (text, is_bc) = text.strip_suffix(" BC").map_or((text, false), |text| (text, true));
    let (date, time) = text.strip_suffix("+00:00")?.split_once('T')?;
    // No time of the server has a longer part.
    let number = |part: &str| part.parse::<u32>().ok().filter(|_| part.len() <= 7).map(i64::from);
    let mut date = date.splitn(3, '-').map(number);
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
    let mut time = time.splitn(3, ':').map(number);
    let (hours, minutes, seconds) = (time.next()??, time.next()??, time.next()??);
    let micros = if fraction.is_empty() { 0 } else { number(fraction)? };
    let micros = micros * 10_i64.pow(6_u32.checked_sub(fraction.len() as u32)?);
    // The year before 1 is 1 BC.
    let days = days_since_2000(if is_bc { 1 - year } else { year }, month, day);
    let seconds = days * 86_400 + hours * 3600 + minutes * 60 + seconds;
    // The sum may be within the range where the product is not.
    i64::try_from(i128::from(seconds) * 1_000_000 + i128::from(micros)).ok()
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

    pub const EXAMPLE: &str = r#"{"position":"0/16B3748","commit_position":"1/A0","sequence":7,"transaction_id":745,"committed_at":"2026-11-20T11:38:55.720782+00:00","database":"app","schema":"public","table":"to \"do\"","operation":"UPDATE","primary_key":"26","before":{"id":26},"after":{"id":26,"x":1e400},"context":{"user_id":187234},"old_primary_key":"2\"5","relation":16402,"unchanged":["body"],"omitted":{"y":"why"}}"#;

    #[test]
    fn a_document_says_which_change_it_is() {
        let document = Document::parse(EXAMPLE.as_bytes()).unwrap();
        assert_eq!(document.identity, Identity { commit_position: 0x1_0000_00A0, sequence: 7 });
        assert_eq!((document.position, document.committed_at), (0x16B_3748, 848_489_935_720_782));
        assert_eq!((&*document.table, document.primary_key.as_deref()), ("to \"do\"", Some("26")));
        assert_eq!((document.before, document.after), (r#"{"id":26}"#, r#"{"id":26,"x":1e400}"#));
        assert_eq!((document.old_primary_key.as_deref(), document.relation), (Some("2\"5"), Some(16_402)));
        let without = EXAMPLE.replace(",\"relation\":16402", "").replace("{\"user_id\":187234}", SAME_CONTEXT);
        let without = Document::parse(without.as_bytes()).unwrap();
        assert_eq!((without.context, without.relation), (SAME_CONTEXT, None));
        let unmoved = EXAMPLE.replace(r#""old_primary_key":"2\"5","#, "");
        assert_eq!(Document::parse(unmoved.as_bytes()).unwrap().old_primary_key, None);
        assert_eq!((document.context, document.omitted), (r#"{"user_id":187234}"#, Some(r#"{"y":"why"}"#)));
    }

    #[test]
    fn what_is_no_document_of_a_committed_change_is_told() {
        for (wrong, sign) in [
            (EXAMPLE.replace("\"1/A0\"", "null"), "commit_position is null"),
            (EXAMPLE.replace("1/A0", "1-A0"), "commit_position"),
            (EXAMPLE.replace("2026-11-20T11:38:55.720782+00:00", "now"), "committed_at"),
            (EXAMPLE.replace("\"sequence\":7,", ""), "\"sequence\""),
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
            let error = Document::parse(wrong.as_bytes()).unwrap_err();
            assert!(error.contains(sign), "{error}");
        }
    }

    proptest! {
        #[test]
        fn times_and_positions_are_as_the_decoder_writes_them(
            time: i64, near in -200_000_000_000_000_000i64..300_000_000_000_000_000, position: u64
        ) {
            for time in [time, near, i64::MIN, i64::MIN + 1, i64::MAX - 1, i64::MAX] {
                let mut text = Vec::new();
                crate::decoder::encode::timestamptz(&mut text, time);
                prop_assert_eq!(timestamp(std::str::from_utf8(&text).unwrap()), Some(time));
            }
            prop_assert_eq!(lsn(&crate::decoder::encode::lsn(position)), Some(position));
        }

        #[test]
        fn members_are_those_that_serde_finds(
            keys in prop::collection::hash_set("\\PC{0,8}", 0..8), texts in prop::collection::vec("\\PC{0,12}", 16), shape in 0usize..1 << 24
        ) {
            use serde_json::{Map, Value, json};
            let texts: Vec<Value> = texts.into_iter().map(Value::from).collect();
            let object: Map<String, Value> = keys.into_iter().enumerate().map(|(i, key)| {
                let (one, other) = (&texts[2 * i], &texts[2 * i + 1]);
                let value = match shape >> (3 * i) & 7 {
                    0 => one.clone(),
                    1 => json!({"a": one, one.as_str().unwrap(): [other, {"b": {}}]}),
                    2 => json!([one, [other, [], {"a]": [[one]]}], 1]),
                    3 => json!([]),
                    4 => json!(shape),
                    5 => json!(true),
                    6 => json!({}),
                    _ => Value::Null,
                };
                (key, value)
            }).collect();
            let text = serde_json::to_string(&object).unwrap();
            let found: Option<Vec<(Value, Value)>> = members(&text)
                .map(|member| {
                    let (key, value) = member?;
                    Some((string(&format!("\"{key}\"")).unwrap().unwrap().into(), serde_json::from_str(value).unwrap()))
                })
                .collect();
            let expected: Vec<(Value, Value)> = object.into_iter().map(|(key, value)| (key.into(), value)).collect();
            prop_assert_eq!(found, (!expected.is_empty()).then_some(expected));
        }

        #[test]
        fn strings_are_those_that_serde_reads(text: String, escaped in "([a-z]|\\\\[\"\\\\/bfnrtu]|\\\\u(00[0-9a-f]{2}|d[8-9a-f][0-9a-f]{2})){0,6}") {
            let quoted = serde_json::to_string(&text).unwrap();
            let read = |value: &str| string(value).unwrap().map(Cow::into_owned);
            prop_assert_eq!(read(&quoted), Some(text));
            let escaped = format!("\"{escaped}\"");
            prop_assert_eq!(read(&escaped), serde_json::from_str::<String>(&escaped).ok());
        }

        #[test]
        fn no_text_stops_it(text: String, bytes: Vec<u8>, cut in 0..EXAMPLE.len(), put in 0..EXAMPLE.len()) {
            let _ = (timestamp(&text), lsn(&text), Document::parse(text.as_bytes()).is_ok(), Document::parse(&bytes).is_ok());
            let broken = format!("{}{text}{}", &EXAMPLE[..cut], &EXAMPLE[put..]);
            let _ = Document::parse(broken.as_bytes());
        }
    }
}
