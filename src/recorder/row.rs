//! Rows of `bemi.changes`, in the binary form of COPY.
#![forbid(unsafe_code)]

use std::borrow::Cow;

use super::document::{Document, Identity};
use super::portion::Reduction;

/// What COPY's binary form begins with: its signature, no flags, and no further header.
pub const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What it ends with.
pub const TRAILER: &[u8] = &(-1_i16).to_be_bytes();

/// The columns that a row has, in its order.
pub const COLUMNS: &str = "id, database, schema, \"table\", operation, primary_key, before, after, context, committed_at, \
                           queued_at, created_at, transaction_id, position, commit_position, sequence, omitted, \
                           old_primary_key";
const COLUMN_COUNT: i16 = 18;

/// Why something is left out that a document has.
const REFUSED: &str = "the table cannot hold it";

/// Microseconds from 1970-01-01 to 2000-01-01.
const UNIX_EPOCH: i64 = -946_684_800_000_000;

/// When a document became a row, in microseconds since 2000-01-01 UTC.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// It was decoded.
    pub queued_at: i64,
    /// The row was made.
    pub created_at: i64,
}

/// Appends the row of a change, with what is left out of it.
pub fn write(out: &mut Vec<u8>, document: &Document, times: Times, reduction: Reduction, encoding: Encoding) {
    let committed_at = document.committed_at;
    out.extend_from_slice(&COLUMN_COUNT.to_be_bytes());
    field(out, &id(document.identity, committed_at));
    for text in [&document.database, &document.schema, &document.table, &document.operation] {
        // Of a name that was made in another encoding, no more is known.
        if encoding == Encoding::Other && text.contains('\u{FFFD}') {
            field(out, text.replace('\u{FFFD}', "?").as_bytes());
        } else {
            field(out, text.as_bytes());
        }
    }
    let has_keys = [Reduction::None, Reduction::Images].contains(&reduction);
    text(out, document.primary_key.as_deref().filter(|_| has_keys));
    for (json, at) in [
        (document.before, Reduction::Images),
        (document.after, Reduction::Images),
        (document.context, Reduction::Context),
    ] {
        jsonb(out, if reduction < at { json } else { "{}" }, encoding);
    }
    for time in [committed_at, times.queued_at, times.created_at] {
        field(out, &time.to_be_bytes());
    }
    field(out, &i64::from(document.transaction_id).to_be_bytes());
    field(out, &document.position.to_be_bytes());
    let identity = document.identity;
    field(out, &identity.commit_position.to_be_bytes());
    field(out, &identity.sequence.to_be_bytes());
    let keys: &[&str] = match &document.old_primary_key {
        _ if has_keys => &[],
        None => &["primary_key"],
        Some(_) => &["primary_key", "old_primary_key"],
    };
    let others: &[&str] = match reduction {
        Reduction::None | Reduction::Key => &[],
        Reduction::Images => &["before", "after"],
        Reduction::Context => &["before", "after", "context"],
    };
    // What the decoder left out is in the images; it may be what is refused.
    let omitted = document.omitted.filter(|_| reduction < Reduction::Images);
    let members = omitted.and_then(|omitted| omitted.strip_prefix('{')?.strip_suffix('}')).unwrap_or_default();
    let members: Vec<String> = keys
        .iter()
        .chain(others)
        .map(|key| format!("\"{key}\":\"{REFUSED}\""))
        .chain((!members.is_empty()).then(|| members.to_owned()))
        .collect();
    if members.is_empty() {
        null(out)
    } else {
        jsonb(out, &format!("{{{}}}", members.join(",")), encoding)
    }
    text(out, document.old_primary_key.as_deref().filter(|_| has_keys));
}

fn text(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => field(out, text.as_bytes()),
        None => null(out),
    }
}

fn field(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn null(out: &mut Vec<u8>) {
    out.extend_from_slice(&(-1_i32).to_be_bytes());
}

/// The binary form of `jsonb` is a version and its text.
fn jsonb(out: &mut Vec<u8>, json: &str, encoding: Encoding) {
    let json = if encoding == Encoding::Unknown { unescaped(json) } else { Cow::Borrowed(json) };
    out.extend_from_slice(&(json.len() as i32 + 1).to_be_bytes());
    out.push(1);
    out.extend_from_slice(json.as_bytes());
}

/// The encoding of the database that has the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// UTF-8.
    Utf8,
    /// One that has not all characters.
    Other,
    /// The server does not know which (SQL_ASCII), and so cannot read `\uXXXX` in JSON: it gets UTF-8.
    Unknown,
}

/// JSON with the characters that escapes beyond ASCII stand for. Half of a surrogate pair stays as it is.
fn unescaped(json: &str) -> Cow<'_, str> {
    if !json.contains("\\u") {
        return Cow::Borrowed(json);
    }
    let unit = |at: usize| {
        let escape = json.get(at..at + 6).filter(|escape| escape.starts_with("\\u"))?;
        u16::from_str_radix(&escape[2..], 16).ok()
    };
    let (mut out, mut copied, mut at) = (String::with_capacity(json.len()), 0, 0);
    while let Some(found) = memchr::memchr(b'\\', &json.as_bytes()[at..]) {
        let start = at + found;
        let units = unit(start).into_iter().chain(unit(start + 6)).take(unit(start).map_or(0, |_| 2));
        let first = char::decode_utf16(units).next().and_then(Result::ok);
        match first.filter(|c| !c.is_ascii()) {
            Some(c) => {
                out.push_str(&json[copied..start]);
                out.push(c);
                at = start + 6 * c.len_utf16();
                copied = at;
            }
            // The backslash and what it escapes, which may be another one, or half of a pair.
            None => at = (start + 2).min(json.len()),
        }
    }
    out.push_str(&json[copied..]);
    Cow::Owned(out)
}

/// The id of a change: a UUID of version 8 (RFC 9562) that is made of what identifies it, so that it is the same whenever
/// it is recorded, and sorts by time. From the left: milliseconds since 1970 (48 bits), version (4), microseconds of the
/// millisecond (12), variant (2), the commit position in units of eight bytes (30, as no log has gigabytes for a
/// microsecond), and the number in the transaction (32).
pub fn id(identity: Identity, committed_at: i64) -> [u8; 16] {
    let unix = committed_at.saturating_sub(UNIX_EPOCH).max(0);
    let (millis, micros) = ((unix / 1000) as u128, (unix % 1000) as u128);
    let position = u128::from(identity.commit_position >> 3) & 0x3FFF_FFFF;
    let bits = (millis & 0xFFFF_FFFF_FFFF) << 80
        | 8 << 76
        | micros << 64
        | 2 << 62
        | position << 32
        | u128::from(identity.sequence);
    bits.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fields(row: &[u8]) -> Vec<Option<Vec<u8>>> {
        let (mut fields, mut rest) = (Vec::new(), &row[2..]);
        while !rest.is_empty() {
            let len = i32::from_be_bytes(rest[..4].try_into().unwrap());
            rest = &rest[4..];
            fields.push((len >= 0).then(|| rest[..len as usize].to_vec()));
            rest = &rest[len.max(0) as usize..];
        }
        fields
    }

    #[test]
    fn what_is_left_out_of_a_row_is_named() {
        let unmoved = r#"{"position":"0/10","commit_position":"0/20","sequence":3,"transaction_id":4,"committed_at":"2000-01-01T00:00:00.000005+00:00","database":"d","schema":"s","table":"t","operation":"CREATE","primary_key":"k","before":{"b":1},"after":{"a":1},"context":{"c":1},"omitted":{"x":"why"}}"#;
        let moved = unmoved.replace(",\"omitted\"", ",\"old_primary_key\":\"o\",\"omitted\"");
        let times = Times { queued_at: 6, created_at: 7 };
        for (text, reduction, names) in [
            (unmoved, Reduction::None, &["x"][..]),
            (unmoved, Reduction::Key, &["primary_key", "x"]),
            (unmoved, Reduction::Images, &["before", "after"]),
            (unmoved, Reduction::Context, &["primary_key", "before", "after", "context"]),
            (&moved, Reduction::None, &["x"]),
            (&moved, Reduction::Key, &["primary_key", "old_primary_key", "x"]),
            (&moved, Reduction::Images, &["before", "after"]),
            (&moved, Reduction::Context, &["primary_key", "old_primary_key", "before", "after", "context"]),
        ] {
            let document = Document::parse(text.as_bytes()).unwrap();
            let mut out = Vec::new();
            write(&mut out, &document, times, reduction, Encoding::Utf8);
            let fields = fields(&out);
            let omitted: serde_json::Value = serde_json::from_slice(&fields[16].as_ref().unwrap()[1..]).unwrap();
            assert_eq!(omitted.as_object().unwrap().keys().collect::<Vec<_>>(), names);
            let is_whole = [
                fields[5].is_some(),
                fields[6].as_ref().unwrap() != b"\x01{}",
                fields[7].as_ref().unwrap() != b"\x01{}",
                fields[8].as_ref().unwrap() != b"\x01{}",
            ];
            for (name, is_whole) in ["primary_key", "before", "after", "context"].iter().zip(is_whole) {
                assert_eq!(is_whole, !names.contains(name), "{name} {reduction:?}");
            }
            let is_told = text == moved && !names.contains(&"primary_key");
            assert_eq!(fields[17], is_told.then(|| b"o".to_vec()), "{reduction:?}");
        }
    }

    #[test]
    fn a_row_has_its_columns_in_their_order() {
        assert_eq!(COLUMNS.split(',').count(), COLUMN_COUNT as usize);
        let text = r#"{"position":"0/10","commit_position":"0/20","sequence":3,"transaction_id":4,"committed_at":"2000-01-01T00:00:00.000005+00:00","database":"d","schema":"s","table":"t","operation":"CREATE","primary_key":null,"before":{},"after":{"a":1},"context":{}}"#;
        let mut out = Vec::new();
        let times = Times { queued_at: 6, created_at: 7 };
        write(&mut out, &Document::parse(text.as_bytes()).unwrap(), times, Reduction::None, Encoding::Utf8);
        let fields = fields(&out);
        assert_eq!(fields.len(), COLUMN_COUNT as usize);
        let number = |n: i64| Some(n.to_be_bytes().to_vec());
        assert_eq!(fields[1..5], [b"d".to_vec(), b"s".to_vec(), b"t".to_vec(), b"CREATE".to_vec()].map(Some));
        assert_eq!(
            fields[5..9],
            [None, Some(b"\x01{}".to_vec()), Some(b"\x01{\"a\":1}".to_vec()), Some(b"\x01{}".to_vec())]
        );
        assert_eq!(fields[9..15], [5, 6, 7, 4, 16, 32].map(number));
        assert_eq!(fields[15..], [Some(3_u32.to_be_bytes().to_vec()), None, None]);
    }

    proptest! {
        #[test]
        fn escapes_are_read_as_json_reads_them(text: String, other: String) {
            let json = serde_json::to_string(&text).unwrap();
            let mut ascii = String::new();
            for c in json.chars() {
                match c {
                    c if c.is_ascii() => ascii.push(c),
                    c => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| ascii.push_str(&format!("\\u{unit:04x}"))),
                }
            }
            prop_assert_eq!(unescaped(&ascii), json);
            // Whatever it is given, it gives something.
            unescaped(&other);
            unescaped(&format!("\\u{other}"));
        }

        #[test]
        fn ids_differ_and_sort_by_time(
            changes in prop::collection::vec((0i64..1 << 57, 0u64..1 << 33, 1u32..), 2..20)
        ) {
            // Positions of commits are multiples of eight, and grow with time as far as clocks do.
            let id = |&(time, position, sequence): &(i64, u64, u32)| id(Identity { commit_position: position << 3, sequence }, time);
            for (one, other) in changes.iter().zip(&changes[1..]) {
                let is_one = one.0 == other.0 && (one.1 & 0x3FFF_FFFF) == (other.1 & 0x3FFF_FFFF) && one.2 == other.2;
                prop_assert_eq!(id(one) == id(other), is_one);
                if one.0 != other.0 {
                    prop_assert_eq!(id(one) < id(other), one.0 < other.0);
                }
                prop_assert_eq!((id(one)[6] >> 4, id(one)[8] >> 6), (8, 2));
            }
        }
    }
}
