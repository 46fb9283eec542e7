//! Rows of `bemi.changes`, in the binary form of COPY.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::collections::TryReserveError;

use super::portion::Reduction;
use crate::document::change::{Change, Committed};
use crate::document::identity::id;
use crate::document::json::members;
use crate::document::keys::Key;

/// What COPY's binary form begins with: its signature, no flags, and no further header.
pub const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What it ends with.
pub const TRAILER: &[u8] = &(-1_i16).to_be_bytes();

/// The columns that a row has, in its order.
pub const COLUMNS: &str = "id, database, schema, \"table\", operation, primary_key, before, after, context, committed_at, \
                           queued_at, created_at, transaction_id, position, commit_position, sequence, omitted, \
                           old_primary_key, relation, source";
const COLUMN_COUNT: i16 = 20;

/// Why something is left out that a document has.
const REFUSED: &str = "the table cannot hold it";

/// What a row has that its document does not: which log it is of, and when it became a row, in microseconds since
/// 2000-01-01 UTC.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// The number of the source in `bemi.sources`.
    pub source: i32,
    /// It was decoded.
    pub queued_at: i64,
    /// The row was made.
    pub created_at: i64,
}

/// Appends the row of a change, with what is left out of it. Fails, and appends nothing, if there is no memory for it.
pub fn write(
    out: &mut Vec<u8>,
    document: &Committed,
    context: &str,
    stamp: Stamp,
    reduction: Reduction,
    encoding: Encoding,
) -> Result<(), TryReserveError> {
    let change = &document.change;
    let mut omitted = Omitted::default();
    omitted.text.try_reserve(longest(change, context))?;
    out.try_reserve(2 * longest(change, context))?;
    let committed_at = document.committed_at;
    out.extend_from_slice(&COLUMN_COUNT.to_be_bytes());
    field(out, &id(stamp.source, document.identity, committed_at));
    for text in [&change.head.database, &change.schema, &change.table, &change.operation] {
        // Of a name that was made in another encoding, no more is known.
        if encoding == Encoding::Other && text.contains('\u{FFFD}') {
            field(out, text.replace('\u{FFFD}', "?").as_bytes());
        } else {
            field(out, text.as_bytes());
        }
    }
    if !reduction.has_keys() {
        omitted.add(Key::PrimaryKey.name());
        if change.old_primary_key.is_some() {
            omitted.add(Key::OldPrimaryKey.name());
        }
    }
    text(out, change.primary_key.as_deref().filter(|_| reduction.has_keys()));
    for (key, image) in [(Key::Before, change.before), (Key::After, change.after)] {
        if reduction >= Reduction::Images {
            omitted.add(key.name());
            jsonb(out, |out| out.extend_from_slice(b"{}"));
        } else {
            jsonb(out, |out| push_image(out, image, reduction.member_limit(), encoding, &mut omitted));
        }
    }
    if reduction >= Reduction::Context {
        omitted.add(Key::Context.name());
    }
    jsonb(out, |out| push_json(out, if reduction >= Reduction::Context { "{}" } else { context }, encoding));
    for time in [committed_at, stamp.queued_at, stamp.created_at] {
        field(out, &time.to_be_bytes());
    }
    field(out, &i64::from(document.transaction_id).to_be_bytes());
    field(out, &change.head.position.to_be_bytes());
    let identity = document.identity;
    field(out, &identity.commit_position.to_be_bytes());
    field(out, &identity.sequence.to_be_bytes());
    // What the decoder left out is in the images; it may be what is refused.
    let of_decoder = change.omitted.filter(|_| reduction < Reduction::Images);
    let of_decoder = of_decoder.and_then(|omitted| omitted.strip_prefix('{')?.strip_suffix('}')).unwrap_or_default();
    omitted.push(of_decoder);
    if omitted.text.is_empty() {
        null(out)
    } else {
        jsonb(out, |out| {
            out.push(b'{');
            push_json(out, &omitted.text, encoding);
            out.push(b'}');
        });
    }
    text(out, change.old_primary_key.as_deref().filter(|_| reduction.has_keys()));
    match change.relation {
        Some(relation) => field(out, &relation.to_be_bytes()),
        None => null(out),
    }
    field(out, &stamp.source.to_be_bytes());
    Ok(())
}

/// More than half of the longest row of a document.
fn longest(change: &Change, context: &str) -> usize {
    let key = |key: &Option<Cow<str>>| key.as_ref().map_or(0, |key| key.len());
    let names = change.head.database.len() + change.schema.len() + change.table.len() + change.operation.len();
    let omitted = change.omitted.map_or(0, str::len);
    let rest = names + key(&change.primary_key) + key(&change.old_primary_key) + omitted + context.len();
    (change.before.len() + change.after.len()) / 2 + rest + 512
}

/// What is left out, as members of a JSON object.
#[derive(Default)]
struct Omitted {
    text: String,
}

impl Omitted {
    /// Adds a member, named by JSON without its quotes, that the table cannot hold. A column of both images is named
    /// once.
    fn add(&mut self, name: &str) {
        let (known, start) = (self.text.len(), self.text.len() + usize::from(!self.text.is_empty()));
        self.push("\"");
        for part in [name, "\":\"", REFUSED, "\""] {
            self.text.push_str(part);
        }
        let added = &self.text[start..];
        // A quote in a name has a backslash before it.
        let mut found = self.text[..known].match_indices(added).map(|(at, _)| at);
        if found.any(|at| at == 0 || self.text.as_bytes()[at - 1] == b',') {
            self.text.truncate(known);
        }
    }

    fn push(&mut self, members: &str) {
        if !self.text.is_empty() && !members.is_empty() {
            self.text.push(',');
        }
        self.text.push_str(members);
    }
}

/// Appends an image without its members that are longer than that, which become null and are named.
fn push_image(out: &mut Vec<u8>, image: &str, limit: usize, encoding: Encoding, omitted: &mut Omitted) {
    if image.len() <= limit {
        return push_json(out, image, encoding);
    }
    out.push(b'{');
    for (i, (key, value)) in members(image).flatten().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.push(b'"');
        push_json(out, key, encoding);
        out.extend_from_slice(b"\":");
        if value.len() > limit {
            omitted.add(key);
            out.extend_from_slice(b"null");
        } else {
            push_json(out, value, encoding);
        }
    }
    out.push(b'}');
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

/// Appends a field with the binary form of `jsonb`: a version and its text, which `write` appends.
fn jsonb(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0, 0, 0, 0, 1]);
    write(out);
    let len = (out.len() - start - 4) as i32;
    out[start..start + 4].copy_from_slice(&len.to_be_bytes());
}

fn push_json(out: &mut Vec<u8>, json: &str, encoding: Encoding) {
    if encoding == Encoding::Unknown { push_unescaped(out, json) } else { out.extend_from_slice(json.as_bytes()) }
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

/// Appends JSON with the characters that escapes beyond ASCII stand for, which is never longer. Half of a surrogate
/// pair stays as it is.
fn push_unescaped(out: &mut Vec<u8>, json: &str) {
    let unit = |at: usize| {
        let escape = json.get(at..at + 6).filter(|escape| escape.starts_with("\\u"))?;
        u16::from_str_radix(&escape[2..], 16).ok()
    };
    let (mut copied, mut at) = (0, 0);
    while let Some(found) = memchr::memchr(b'\\', &json.as_bytes()[at..]) {
        let start = at + found;
        let units = unit(start).into_iter().chain(unit(start + 6)).take(unit(start).map_or(0, |_| 2));
        let first = char::decode_utf16(units).next().and_then(Result::ok);
        match first.filter(|c| !c.is_ascii()) {
            Some(c) => {
                out.extend_from_slice(&json.as_bytes()[copied..start]);
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                at = start + 6 * c.len_utf16();
                copied = at;
            }
            // The backslash and what it escapes, which may be another one, or half of a pair.
            None => at = (start + 2).min(json.len()),
        }
    }
    out.extend_from_slice(&json.as_bytes()[copied..]);
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
        let unmoved = concat!(
            r#"{"position":"0/10","commit_position":"0/20","sequence":3,"transaction_id":4,"#,
            r#""committed_at":"2000-01-01T00:00:00.000005+00:00","database":"d","schema":"s","table":"t","#,
            r#""operation":"CREATE","primary_key":"k","before":{"b":1},"after":{"a":1},"context":{"c":1},"#,
            r#""omitted":{"x":"why"}}"#,
        );
        let moved = unmoved.replace(",\"omitted\"", ",\"old_primary_key\":\"o\",\"omitted\"");
        let stamp = Stamp { source: 3, queued_at: 6, created_at: 7 };
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
            let document = Committed::read(text.as_bytes()).unwrap();
            let mut out = Vec::new();
            write(&mut out, &document, document.change.context, stamp, reduction, Encoding::Utf8).unwrap();
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
        let text = concat!(
            r#"{"position":"0/10","commit_position":"0/20","sequence":3,"transaction_id":4,"#,
            r#""committed_at":"2000-01-01T00:00:00.000005+00:00","database":"d","schema":"s","table":"t","#,
            r#""operation":"CREATE","primary_key":null,"before":{},"after":{"a":1},"context":{},"relation":16402}"#,
        );
        let mut out = Vec::new();
        let stamp = Stamp { source: 3, queued_at: 6, created_at: 7 };
        let document = Committed::read(text.as_bytes()).unwrap();
        write(&mut out, &document, document.change.context, stamp, Reduction::None, Encoding::Utf8).unwrap();
        let fields = fields(&out);
        assert_eq!(fields.len(), COLUMN_COUNT as usize);
        let number = |n: i64| Some(n.to_be_bytes().to_vec());
        assert_eq!(fields[1..5], [b"d".to_vec(), b"s".to_vec(), b"t".to_vec(), b"CREATE".to_vec()].map(Some));
        assert_eq!(
            fields[5..9],
            [None, Some(b"\x01{}".to_vec()), Some(b"\x01{\"a\":1}".to_vec()), Some(b"\x01{}".to_vec())]
        );
        assert_eq!(fields[9..15], [5, 6, 7, 4, 16, 32].map(number));
        let source = Some(vec![0, 0, 0, 3]);
        assert_eq!(
            fields[15..],
            [Some(3_u32.to_be_bytes().to_vec()), None, None, Some(vec![0, 0, 0x40, 0x12]), source]
        );
    }

    proptest! {
        #[test]
        fn long_members_are_left_out_and_named_and_the_others_stay(
            before in prop::collection::vec(("[a-f\"é]{1,3}", 0usize..3000), 0..8), after in prop::collection::vec(("[a-f\"é]{1,3}", 0usize..3000), 0..8)
        ) {
            use serde_json::{Map, Value, json};
            let image = |members: &[(String, usize)]| -> Map<String, Value> {
                members.iter().map(|(key, len)| (key.clone(), if len % 3 == 0 { json!([[*len], "x".repeat(*len)]) } else { json!("x".repeat(*len)) })).collect()
            };
            let (before, after) = (image(&before), image(&after));
            let text = format!(
                concat!(
                    r#"{{"position":"0/10","commit_position":"0/20","sequence":3,"transaction_id":4,"#,
                    r#""committed_at":"2000-01-01T00:00:00+00:00","database":"d","schema":"s","table":"t","#,
                    r#""operation":"CREATE","primary_key":"k","before":{},"after":{},"context":{{}},"#,
                    r#""omitted":{{"zz":"why"}}}}"#,
                ),
                json!(before), json!(after)
            );
            let document = Committed::read(text.as_bytes()).unwrap();
            let mut out = Vec::new();
            let stamp = Stamp { source: 3, queued_at: 6, created_at: 7 };
            write(&mut out, &document, "{}", stamp, Reduction::MembersOver1K, Encoding::Utf8).unwrap();
            let fields = fields(&out);
            let read = |field: usize| -> Value { serde_json::from_slice(&fields[field].as_ref().unwrap()[1..]).unwrap() };
            let mut named = Map::new();
            for (field, image) in [(6, &before), (7, &after)] {
                let mut expected = image.clone();
                for (key, value) in &mut expected {
                    if value.to_string().len() > 1024 {
                        *value = Value::Null;
                        named.insert(key.clone(), json!(REFUSED));
                    }
                }
                prop_assert_eq!(read(field), Value::Object(expected));
            }
            named.insert("zz".to_owned(), json!("why"));
            prop_assert_eq!(read(16), Value::Object(named));
            let longest = 2 * longest(&document.change, "{}");
            prop_assert!(out.len() <= longest);
        }

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
            let unescaped = |json: &str| {
                let mut out = Vec::new();
                push_unescaped(&mut out, json);
                assert!(out.len() <= json.len());
                String::from_utf8(out).unwrap()
            };
            prop_assert_eq!(unescaped(&ascii), json);
            // Whatever it is given, it gives something.
            unescaped(&other);
            unescaped(&format!("\\u{other}"));
        }
    }
}
