//! Rows of `bemi.changes`, in the binary form of COPY.
#![forbid(unsafe_code)]

use serde_json::value::RawValue;

use super::document::{Document, Identity};

/// What COPY's binary form begins with: its signature, no flags, and no further header.
pub const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What it ends with.
pub const TRAILER: &[u8] = &(-1_i16).to_be_bytes();

/// The columns that a row has, in its order.
pub const COLUMNS: &str = "id, database, schema, \"table\", operation, primary_key, before, after, context, committed_at, \
                           queued_at, created_at, transaction_id, position, commit_position, sequence, omitted";
const COLUMN_COUNT: i16 = 17;

/// Longest JSON that is kept: `jsonb` holds no more than 256 MB of strings and nested values.
const MAX_JSON: usize = 250_000_000;
const TOO_LONG: &str = r#""longer than jsonb can hold""#;

/// Microseconds from 1970-01-01 to 2000-01-01.
const UNIX_EPOCH: i64 = -946_684_800_000_000;

/// Appends the row of a change. The times are in microseconds since 2000-01-01 UTC: when the document was decoded, and when
/// the row is made.
pub fn write(out: &mut Vec<u8>, document: &Document, queued_at: i64, created_at: i64) {
    let committed_at = document.committed_at();
    out.extend_from_slice(&COLUMN_COUNT.to_be_bytes());
    field(out, &id(document.identity(), committed_at));
    for text in [&document.database, &document.schema, &document.table, &document.operation] {
        field(out, text.as_bytes());
    }
    match &document.primary_key {
        Some(key) => field(out, key.as_bytes()),
        None => null(out),
    }
    let images = [("before", document.before), ("after", document.after), ("context", document.context)];
    for (_, json) in images {
        jsonb(out, if json.get().len() > MAX_JSON { "{}" } else { json.get() });
    }
    for time in [committed_at, queued_at, created_at] {
        field(out, &time.to_be_bytes());
    }
    field(out, &i64::from(document.transaction_id).to_be_bytes());
    field(out, &document.position().to_be_bytes());
    let identity = document.identity();
    field(out, &identity.commit_position.to_be_bytes());
    field(out, &identity.sequence.to_be_bytes());
    let long: Vec<String> = images
        .iter()
        .filter(|(_, json)| json.get().len() > MAX_JSON)
        .map(|(key, _)| format!("\"{key}\":{TOO_LONG}"))
        .collect();
    match (document.omitted.map(RawValue::get), long.is_empty()) {
        (None, true) => null(out),
        (Some(omitted), true) => jsonb(out, omitted),
        (_, false) => jsonb(out, &format!("{{{}}}", long.join(","))),
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
fn jsonb(out: &mut Vec<u8>, json: &str) {
    out.extend_from_slice(&(json.len() as i32 + 1).to_be_bytes());
    out.push(1);
    out.extend_from_slice(json.as_bytes());
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

    #[test]
    fn a_row_has_its_columns_in_their_order() {
        assert_eq!(COLUMNS.split(',').count(), COLUMN_COUNT as usize);
        let text = r#"{"position":"0/10","commit_position":"0/20","sequence":3,"transaction_id":4,"committed_at":"2000-01-01T00:00:00.000005+00:00","database":"d","schema":"s","table":"t","operation":"CREATE","primary_key":null,"before":{},"after":{"a":1},"context":{}}"#;
        let mut out = Vec::new();
        write(&mut out, &Document::parse(text.as_bytes()).unwrap(), 6, 7);
        let mut fields = Vec::new();
        let mut rest = &out[2..];
        while !rest.is_empty() {
            let len = i32::from_be_bytes(rest[..4].try_into().unwrap());
            rest = &rest[4..];
            fields.push((len >= 0).then(|| rest[..len as usize].to_vec()));
            rest = &rest[len.max(0) as usize..];
        }
        assert_eq!(fields.len(), COLUMN_COUNT as usize);
        let number = |n: i64| Some(n.to_be_bytes().to_vec());
        assert_eq!(fields[1..5], [b"d".to_vec(), b"s".to_vec(), b"t".to_vec(), b"CREATE".to_vec()].map(Some));
        assert_eq!(
            fields[5..9],
            [None, Some(b"\x01{}".to_vec()), Some(b"\x01{\"a\":1}".to_vec()), Some(b"\x01{}".to_vec())]
        );
        assert_eq!(fields[9..15], [5, 6, 7, 4, 16, 32].map(number));
        assert_eq!(fields[15..], [Some(3_u32.to_be_bytes().to_vec()), None]);
    }

    proptest! {
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
