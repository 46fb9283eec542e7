//! What must hold for any input on the way from the log to the table: the rules of a trigger, stored `jsonb`, the
//! document as the decoder writes it and the recorder reads it, and the row that COPY gets.
use bemi::decoder::jsonb_text::jsonb;
use bemi::decoder::txn::Transaction;
use bemi::document::change::{Committed, Draft, column_key, relation_keys};
use bemi::document::json::{Charset, Json};
use bemi::document::moment::Moment;
use bemi::document::operation::Operation;
use bemi::document::{Document, lsn, time};
use bemi::recorder::portion::Reduction;
use bemi::recorder::row::{self, Encoding, Stamp};
use bemi::recorder::spool::Spool;
use bemi::tracking::rules::{self, Kind};
use serde_json::{Map, Value};

use crate::targets::Target;

pub const TARGETS: &[Target] = &[
    ("rules", rules, RULES, RULE_WORDS),
    ("stored jsonb", stored, TREES, TREE_WORDS),
    ("documents", documents, &[DOCUMENT], DOCUMENT_WORDS),
    ("documents of the decoder", written, &[DOCUMENT, "\u{1}\u{2}\u{3}"], DOCUMENT_WORDS),
    ("times and positions", times, TIMES, TIME_WORDS),
];

const RULES: &[&str] = &["ignore=updated_at\0mask=a=b\0identity=index:todo_pkey\0", "mask=\0unknown=x\0"];
const RULE_WORDS: &[&str] = &["\0", "=", "ignore", "mask", "identity", "unknown", "full", "index:", "a", "é", " "];
const TREES: &[&str] = &[
    "{\"a\": [1, -25, 0, \"x\\u00e9\\n\", null, true], \"bb\": {\"a\": {}}, \"\": []}",
    "[[[[1], 2], 3], {\"a\": false}]",
    "\"text\"",
];
const TREE_WORDS: &[&str] =
    &["{", "}", "[", "]", ",", ":", "\"", "\"a\":", "null", "true", "7", "9999", "-1", "\0", "@", "P", "\u{10}"];
const DOCUMENT: &str = "{\"position\":\"0/16B3748\",\"commit_position\":\"1/A0\",\"sequence\":7,\"transaction_id\":745,\
     \"committed_at\":\"2026-11-20T11:38:55.720782+00:00\",\"database\":\"app\",\"schema\":\"public\",\
     \"table\":\"to \\\"do\\\"\",\"operation\":\"UPDATE\",\"primary_key\":\"26\",\"before\":{\"id\":26},\
     \"after\":{\"id\":26,\"x\":1e400},\"context\":{\"user_id\":187234},\"old_primary_key\":\"2\\\"5\",\
     \"relation\":16402,\"unchanged\":[\"body\"],\"omitted\":{\"y\":\"why\"}}";
const DOCUMENT_WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "\\\"",
    "\\u0000",
    "\\ud83d\\ude00",
    "null",
    "\"omitted\":{}",
    "\"unchanged\":[",
    "\"context\":\"=\"",
    "\"relation\":16402",
    "\"old_primary_key\":",
    "é",
    "\u{FFFD}",
    "\n",
    "0",
    "4294967295",
    "infinity",
    " BC",
];
const TIMES: &[&str] = &[
    "2026-11-20T9223372036854775807:00:00+00:00",
    "9223372036854775807-11-20T00:00:00+00:00",
    "2026-11-20T11:38:55.720782+00:00",
    "0044-03-15T00:00:00+00:00 BC",
    "-infinity",
    "16/B374D848",
];
const TIME_WORDS: &[&str] =
    &["9223372036854775807", "-", "+", ":", ".", "T", "+00:00", " BC", "infinity", "0000", "12", "/", "FFFFFFFF", "é"];

/// Takes pieces off an input, which is as long as one likes: zeros follow it.
struct Source<'a>(&'a [u8]);

impl<'a> Source<'a> {
    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (piece, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        piece
    }

    fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    fn number(&mut self) -> u64 {
        let mut bytes = [0; 8];
        let piece = self.bytes(8);
        bytes[..piece.len()].copy_from_slice(piece);
        u64::from_le_bytes(bytes)
    }

    fn text(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte() % 24);
        self.bytes(len)
    }

    /// A time that `timestamptz` can hold.
    fn time(&mut self) -> i64 {
        const FIRST: i64 = -211_813_488_000_000_000;
        const END: i64 = 9_223_371_331_200_000_000;
        match self.byte() % 8 {
            0 => i64::MAX,
            1 => i64::MIN,
            2 => FIRST,
            3 => END - 1,
            // Around the year 1.
            4 => -63_082_281_600_000_000 + (self.number() % 400_000_000_000_000) as i64 - 200_000_000_000_000,
            _ => (i128::from(self.number()) % (i128::from(END) - i128::from(FIRST)) + i128::from(FIRST)) as i64,
        }
    }
}

/// The rules of a trigger: whatever its arguments are, they are read, and no mask is overlooked.
pub fn rules(input: &[u8]) {
    let arguments: Vec<&[u8]> = rules::arguments(input).collect();
    assert!(arguments.iter().all(|argument| !argument.contains(&0)));
    if input.last() == Some(&0) {
        assert_eq!(arguments.concat().len() + arguments.len(), input.len());
    }
    for argument in &arguments {
        let (kind, name) = rules::rule(argument);
        assert!(argument.ends_with(name));
        let found = rules::of_column(arguments.iter().copied(), name);
        assert!(kind != Kind::Mask || found.is_masked);
        assert!(kind != Kind::Ignore || found.is_ignored);
        let is_written = argument.strip_prefix(b"mask=").is_some();
        assert_eq!(kind == Kind::Mask, is_written);
        // No rule of a table above takes a mask away, or puts one on that was not written.
        assert!(found.under(rules::ColumnRules::default()).is_masked == found.is_masked);
    }
    let column = [input, b"no such column"].concat();
    assert_eq!(rules::of_column(arguments.iter().copied(), &column), rules::ColumnRules::default());
}

/// Stored `jsonb`: arbitrary bytes are refused or read, and what the server stores is read as what it is.
pub fn stored(input: &[u8]) {
    let mut json = Json::new(Charset::Utf8);
    let _ = jsonb(&mut json, input);
    let half = input.len() / 2;
    if let Ok(value) = serde_json::from_slice::<Value>(&input[half..]).or_else(|_| serde_json::from_slice(input)) {
        let value = storable(value);
        let mut bytes = stored_form(&value);
        let mut json = Json::new(Charset::Utf8);
        jsonb(&mut json, &bytes).expect("the server stores it like this");
        assert_eq!(serde_json::from_slice::<Value>(json.as_bytes()).expect("it is JSON"), value);
        // Damaged, it is refused or is something else.
        let mut source = Source(&input[..half]);
        while !source.0.is_empty() {
            let (at, byte) = (source.byte(), source.byte());
            let at = usize::from(at) % bytes.len();
            bytes[at] ^= byte;
            let mut json = Json::new(Charset::Ascii);
            if jsonb(&mut json, &bytes).is_ok() {
                let text = std::str::from_utf8(json.as_bytes()).expect("what is written is UTF-8");
                assert!(text.is_ascii());
            }
        }
        bytes.truncate(usize::from(source.byte()) % bytes.len());
        let _ = jsonb(&mut Json::new(Charset::Utf8), &bytes);
    }
}

/// The value with numbers only that [`stored_form`] writes: whole ones of one digit to the base 10,000.
fn storable(value: Value) -> Value {
    match value {
        Value::Number(number) => Value::from(number.as_i64().unwrap_or(7) % 10_000),
        Value::Array(values) => values.into_iter().map(storable).collect(),
        Value::Object(members) => {
            members.into_iter().map(|(key, value)| (key, storable(value))).collect::<Map<_, _>>().into()
        }
        other => other,
    }
}

const IS_SCALAR: u32 = 0x1000_0000;
const IS_OBJECT: u32 = 0x2000_0000;
const IS_ARRAY: u32 = 0x4000_0000;

/// A value as the server stores it (src/include/utils/jsonb.h), without the header of its varlena.
fn stored_form(value: &Value) -> Vec<u8> {
    match value {
        Value::Array(values) => container(IS_ARRAY | values.len() as u32, values),
        Value::Object(members) => {
            let mut members: Vec<(&String, &Value)> = members.iter().collect();
            members.sort_by_key(|(key, _)| (key.len(), key.as_bytes()));
            let keys = members.iter().map(|(key, _)| Value::from(key.as_str()));
            let all: Vec<Value> = keys.chain(members.iter().map(|(_, value)| (*value).clone())).collect();
            container(IS_OBJECT | members.len() as u32, &all)
        }
        scalar => container(IS_ARRAY | IS_SCALAR | 1, std::slice::from_ref(scalar)),
    }
}

/// A container: its header, an entry for each value, the values. Each 32nd entry has an offset instead of a length.
fn container(header: u32, children: &[Value]) -> Vec<u8> {
    let (mut entries, mut values) = (Vec::new(), Vec::new());
    for (number, child) in children.iter().enumerate() {
        let start = values.len();
        let align = |values: &mut Vec<u8>| values.resize(values.len().next_multiple_of(4), 0);
        let kind: u32 = match child {
            Value::String(text) => {
                values.extend_from_slice(text.as_bytes());
                0x0000_0000
            }
            Value::Number(number) => {
                align(&mut values);
                values.extend(numeric(number.as_i64().expect("it is whole")));
                0x1000_0000
            }
            Value::Bool(is_true) => 0x2000_0000 + 0x1000_0000 * u32::from(*is_true),
            Value::Null => 0x4000_0000,
            Value::Array(_) | Value::Object(_) => {
                align(&mut values);
                values.extend(stored_form(child));
                0x5000_0000
            }
        };
        let entry = match number % 32 {
            0 => kind | 0x8000_0000 | values.len() as u32,
            _ => kind | (values.len() - start) as u32,
        };
        entries.extend(entry.to_ne_bytes());
    }
    [&header.to_ne_bytes()[..], &entries, &values].concat()
}

/// A number of one digit to the base 10,000, as a varlena with a header of four bytes.
fn numeric(number: i64) -> Vec<u8> {
    let header = 0x8000_u16 | if number < 0 { 0x2000 } else { 0 };
    let digits: Vec<u8> = if number == 0 { Vec::new() } else { (number.unsigned_abs() as u16).to_ne_bytes().to_vec() };
    let len = 4 + 2 + digits.len() as u32;
    let varlena = if cfg!(target_endian = "little") { len << 2 } else { len };
    [&varlena.to_ne_bytes()[..], &header.to_ne_bytes(), &digits].concat()
}

/// Documents: any text is read or refused, and what is read becomes a row that COPY can take.
pub fn documents(input: &[u8]) {
    let _ = Document::read(input);
    if let Ok(document) = Committed::read(input) {
        rows(&document);
    }
    let spool_limit = usize::from(Source(input).byte());
    let mut spool = Spool::new(spool_limit, || Err(std::io::ErrorKind::Unsupported.into()));
    let line: Vec<u8> = input.iter().copied().filter(|byte| *byte != b'\n').collect();
    // Without a file it says so, and keeps nothing of it.
    let is_kept = spool.push(1, &line).is_ok();
    assert!(is_kept || line.len() >= spool_limit);
    let (mut lines, mut found) = (spool.lines().expect("no file is read"), Vec::new());
    assert_eq!(lines.next(&mut found).expect("no file is read"), is_kept);
    assert!(!is_kept || found == line);
    assert!(!lines.next(&mut found).expect("no file is read"));
}

/// The document as the decoder writes it of random contents, which the recorder reads as they were.
pub fn written(input: &[u8]) {
    let mut source = Source(input);
    let charset = if source.byte() % 2 == 0 { Charset::Utf8 } else { Charset::Ascii };
    let (position, commit) = (source.number(), Moment { position: source.number(), time: source.time() });
    // Names are UTF-8 when they come here, values need not be.
    let names = [(); 3].map(|()| String::from_utf8_lossy(source.text()).into_owned().into_bytes());
    let mut json = Json::new(charset);
    json.string(&names[0]).expect("it is short");
    let database = json.as_bytes().to_vec();
    json.clear();
    let transaction_id = source.number() as u32;
    let mut txn = Transaction::new(transaction_id, Some(commit), &database, charset, || {
        Err(std::io::ErrorKind::Unsupported.into())
    });
    let is_context = txn.set_context(source.text(), None).expect("no file is needed");
    let context = txn.context().to_vec();
    let subtransaction = (source.byte() % 3 == 0).then_some(7);
    let operation = match source.byte() % 4 {
        0 => Operation::Create,
        1 => Operation::Update,
        2 => Operation::Delete,
        _ => Operation::Truncate,
    };
    let keys = relation_keys(&names[1], &names[2], charset);
    let mut document = Draft::open(&mut json, &txn.head, position, subtransaction, &keys, operation, charset);
    let key = (source.byte() % 2 == 0).then(|| source.text());
    match key {
        Some(key) => document.json.string(key).expect("it is short"),
        None => document.json.raw(b"null"),
    }
    let mut images = Vec::new();
    for is_before in [true, false] {
        if is_before {
            document.before()
        } else {
            document.after()
        }
        let start = document.json.len();
        image(document.json, &mut source, charset);
        images.push(document.json.as_bytes()[start..].to_vec());
    }
    document.context();
    let old_key = (source.byte() % 2 == 0).then(|| source.text());
    if let Some(key) = old_key {
        document.old_primary_key();
        document.json.string(key).expect("it is short");
    }
    for _ in 0..source.byte() % 3 {
        document.unchanged(String::from_utf8_lossy(source.text()).as_bytes());
    }
    let finished = document.close().expect("it is short");
    let number = txn.count(subtransaction).expect("there is memory");
    let text = finished.pieces(json.as_bytes(), number.to_string().as_bytes(), &context).concat();
    assert!(!text.contains(&b'\n'));
    let committed =
        Committed::read(&text).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&text)));
    let found = &committed.change;
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(
        [&found.head.database, &found.schema, &found.table],
        names.each_ref().map(|name| lossy(name)).each_ref()
    );
    assert_eq!((found.head.position, committed.identity.commit_position), (position, commit.position));
    assert_eq!((committed.transaction_id, u64::from(committed.identity.sequence)), (transaction_id, number));
    assert_eq!(committed.committed_at, commit.time);
    assert_eq!(found.primary_key.as_deref(), key.map(lossy).as_deref());
    assert_eq!(found.old_primary_key.as_deref(), old_key.map(lossy).as_deref());
    assert_eq!([found.before.as_bytes(), found.after.as_bytes()], [&images[0][..], &images[1]]);
    assert_eq!(found.context.as_bytes(), context);
    assert!(is_context || found.context.starts_with("{\"bemi_invalid_context\":"));
    for json in [found.before, found.after, found.context] {
        assert!(serde_json::from_str::<Map<String, Value>>(json).is_ok(), "{json}");
    }
    rows(&committed);
}

/// The image of a row: columns with values of all kinds.
fn image(json: &mut Json, source: &mut Source, charset: Charset) {
    json.raw(b"{");
    for number in 0..source.byte() % 5 {
        if number > 0 {
            json.raw(b",");
        }
        json.raw(&column_key(String::from_utf8_lossy(source.text()).as_bytes(), charset));
        match source.byte() % 6 {
            0 => json.raw(b"null"),
            1 => json.integer(source.number()),
            2 => json.hex(source.text()).expect("it is short"),
            3 => json.number(b"-1.50").expect("it is short"),
            4 => {
                let text = String::from_utf8_lossy(source.text()).replace('\0', "");
                let value = serde_json::json!({"a": [text, {"b": text}]}).to_string();
                json.compact(value.as_bytes()).expect("it is JSON");
            }
            _ => json.string(source.text()).expect("it is short"),
        }
    }
    json.raw(b"}");
}

/// The rows of a document: as COPY's binary form has them, whatever is left out.
fn rows(document: &Committed) {
    let change = &document.change;
    const COLUMNS: usize = 20;
    assert_eq!(row::COLUMNS.split(',').count(), COLUMNS);
    let stamp = Stamp { source: 1, queued_at: 1, created_at: 2 };
    for encoding in [Encoding::Utf8, Encoding::Other, Encoding::Unknown] {
        for reduction in
            [Reduction::None, Reduction::Key, Reduction::MembersOver1K, Reduction::Images, Reduction::Context]
        {
            let mut out = Vec::new();
            row::write(&mut out, document, change.context, stamp, reduction, encoding).expect("there is memory");
            let fields = fields(&out);
            assert_eq!(fields.len(), COLUMNS);
            let text = |at: usize| fields[at].map(|bytes| std::str::from_utf8(bytes).expect("texts are UTF-8"));
            assert_eq!(fields[0].map(<[u8]>::len), Some(16));
            assert!(
                (1..=5).all(|at| text(at).is_some() || at == 5) && text(17).is_none_or(|text| text.len() < 1 << 20)
            );
            for at in [6, 7, 8, 16] {
                let Some(jsonb) = fields[at] else { continue };
                assert_eq!(jsonb.first(), Some(&1));
                assert!(std::str::from_utf8(&jsonb[1..]).is_ok());
            }
            if reduction == Reduction::None && encoding == Encoding::Utf8 {
                let [before, after, context] = [6, 7, 8].map(|at| &fields[at].expect("it is there")[1..]);
                assert_eq!([before, after, context], [change.before, change.after, change.context].map(str::as_bytes));
            }
        }
    }
}

/// The fields of the one row that there is; None where a field is null.
fn fields(row: &[u8]) -> Vec<Option<&[u8]>> {
    let (count, mut rest) = row.split_first_chunk().expect("it has a number of fields");
    let mut found = Vec::new();
    for _ in 0..i16::from_be_bytes(*count) {
        let (len, behind) = rest.split_first_chunk().expect("a field has a length");
        let field = match i32::from_be_bytes(*len) {
            -1 => None,
            len => Some(&behind[..usize::try_from(len).expect("no length is negative")]),
        };
        rest = &behind[field.map_or(0, <[u8]>::len)..];
        found.push(field);
    }
    assert!(rest.is_empty());
    found
}

/// Times and positions: any text is read or refused, and what the decoder writes is read as it was.
pub fn times(input: &[u8]) {
    let with = |position: &str, time: &str| {
        let quoted = |text: &str| Value::from(text).to_string();
        DOCUMENT
            .replace("\"0/16B3748\"", &quoted(position))
            .replace("\"2026-11-20T11:38:55.720782+00:00\"", &quoted(time))
    };
    let any = String::from_utf8_lossy(input);
    let _ = Committed::read(with("0/0", &any).as_bytes()).is_ok();
    let _ = Committed::read(with(&any, "2026-11-20T11:38:55+00:00").as_bytes()).is_ok();
    let mut source = Source(input);
    let (position, at) = (source.number(), source.time());
    let mut text = Vec::new();
    time::push_timestamptz(&mut text, at);
    let text = String::from_utf8(text).expect("it is ASCII");
    let document = with(&lsn::text(position), &text);
    let found = Committed::read(document.as_bytes()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(found.change.head.position, position);
    if !matches!(at, i64::MIN | i64::MAX) {
        assert_eq!(found.committed_at, at, "{text}");
    }
}
