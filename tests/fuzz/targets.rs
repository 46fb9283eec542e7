//! What must hold for any input at all, of the parsers and writers that see what users wrote. Run by the seeded loop
//! beside this file, and by cargo-fuzz (see `cargo-fuzz/`).
use bemi::context::comment::{self, Outline, State, Strings};
use bemi::decoder::filter::{self, Prefixes, Tables};
use bemi::decoder::options::{OptionError, Options};
use bemi::document::context::Context;
use bemi::document::json::{self, Charset, Json};
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// A target: its name, what it does with an input, first inputs, and words that inputs are made of.
pub type Target = (&'static str, fn(&[u8]), &'static [&'static str], &'static [&'static str]);

pub const TARGETS: [Target; 4] = [
    ("comments", comments, SQL, SQL_WORDS),
    ("options", options, OPTIONS, OPTION_WORDS),
    ("filters", filters, LISTS, LIST_WORDS),
    ("json", json, JSON, JSON_WORDS),
];

const SQL: &[&str] = &[
    "UPDATE todo SET done = true /*Bemi {\"user_id\":1} Bemi*/;",
    "SELECT '/*Bemi {} Bemi*/', E'\\'/*', $a$ /*Bemi $a$ -- /*Bemi\n; INSERT INTO t VALUES (1) /*Bemi {\"a\":\"*\\/\"} Bemi*/",
    "/*Bemi %7B%22a%22%3A1%7D Bemi*/ SELECT U&\"a\"\"b\", /* /*Bemi {} Bemi*/ */ 1; SELECT 2",
];
const SQL_WORDS: &[&str] = &[
    "/*Bemi",
    "Bemi*/",
    "/*",
    "*/",
    "'",
    "\"",
    "$$",
    "$a$",
    "E'",
    "U&'",
    "\\",
    "--",
    "\n",
    ";",
    "{\"a\":1}",
    "%7B",
    "BEGIN ATOMIC",
    "END",
    " ",
];
const OPTIONS: &[&str] =
    &["add-tables\0public.todo,*.t", "actions\0insert,update\0batch-bytes\x0065536", "pretty-print\0true\0two-phase"];
const OPTION_WORDS: &[&str] = &[
    "\0",
    "add-tables",
    "filter-tables",
    "actions",
    "tracked-only",
    "add-msg-prefixes",
    "filter-msg-prefixes",
    "filter-origins",
    "only-local",
    "include-transaction",
    "include-origin",
    "numeric-data-types-as-string",
    "publish-via-partition-root",
    "pretty-print",
    "stream-changes",
    "two-phase",
    "batch-bytes",
    "true",
    "off",
    "insert",
    "truncate",
    ",",
    ".",
    "*",
    "\\",
    "7",
    "é",
];
const LISTS: &[&str] = &["public.Foo\\ bar, *.t, s.*", "a\\.b.c\\,d", "\\*.t,é.日"];
const LIST_WORDS: &[&str] = &[".", ",", "*", "\\", " ", "\"", "\t", "a", "é", "public", "\\\\", "\\."];
const JSON: &[&str] = &[
    "{\"a\": [1, 2.50, -1e-3, \"x\\u00e9\\n\", null, true], \"b\": {\"a\": {}}, \"a\": 2}",
    "\"\\ud83d\\ude00 \\u0000 \\ud800 é日😀\"",
    "[1e131072, 1e999999, 0.1e-16390]",
];
const JSON_WORDS: &[&str] = &[
    "1e400", "{", "}", "[", "]", ",", ":", "\"", "\\", "\\u00", "\\ud83d", "\\ude00", "1e", "99999", "-", ".", "null",
    "\"a\":", "é", "\u{1}", "\n", " ",
];

/// The comment parser: never trusts what is inside of a string, and never leaves the text.
pub fn comments(input: &[u8]) {
    for strings in [Strings::Standard, Strings::Unsure] {
        let outline = Outline::read(input, strings);
        let mut statements = vec![None, Some(0..input.len())];
        if let Some(&cut) = input.first() {
            let cut = usize::from(cut).min(input.len());
            statements.extend([Some(0..cut), Some(cut..input.len())]);
        }
        for statement in statements {
            let found = outline.comments(statement.clone());
            for one in found {
                assert!(
                    one.span.start <= one.content.start
                        && one.content.end <= one.span.end
                        && one.span.end <= input.len()
                );
                let content = &input[one.content.clone()];
                if let Ok(context) = comment::read(content, one.state, 1 << 16) {
                    assert_eq!(one.state, State::Whole);
                    let json = context.to_json(Charset::Utf8);
                    assert_eq!(Context::parse(json.as_bytes()).unwrap(), context);
                }
            }
            let text = comment::text_without(input, statement.unwrap_or(0..input.len()), found);
            assert!(text.len() <= input.len());
        }
    }
    // As the content of a string, quoted as every driver does, it is no comment.
    let quoted = [
        b"SELECT '".to_vec(),
        input.iter().flat_map(|b| vec![*b; if *b == b'\'' { 2 } else { 1 }]).collect(),
        b"'".to_vec(),
    ];
    assert_eq!(Outline::read(&quoted.concat(), Strings::Standard).comments(None), []);
    let with_comment = [&quoted.concat()[..], b" /*Bemi {\"a\":1} Bemi*/"].concat();
    let outline = Outline::read(&with_comment, Strings::Standard);
    let [one] = outline.comments(None) else { panic!("one comment") };
    assert_eq!((&with_comment[one.content.clone()], one.state), (&b"{\"a\":1}"[..], State::Whole));
    if memchr::memmem::find(input, b"$q$").is_none() && !input.ends_with(b"$q") && !input.ends_with(b"$") {
        let dollars = [b"SELECT $q$", input, b"$q$"].concat();
        assert_eq!(Outline::read(&dollars, Strings::Standard).comments(None), []);
    }
}

/// The option parser: what it refuses it names, and it can say what it takes.
pub fn options(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut words = text.split('\0');
    let mut pairs = Vec::new();
    while let Some(name) = words.next() {
        pairs.push((name, words.next()));
    }
    match Options::parse(pairs.iter().copied()) {
        Ok(options) => {
            assert!(pairs.iter().all(|(name, _)| !name.is_empty()));
            assert_eq!(Options::parse(pairs.iter().rev().copied()), Ok(options.clone()));
            assert!(
                !options.shows_table(b"", b"") || options.add_tables.is_empty() || options.add_tables.contain(b"", b"")
            );
            options.shows_message(input, false);
        }
        Err(error) => {
            assert!(!error.hint().is_empty() && error.to_string().contains("bemi_decoder"));
            let name = match &error {
                OptionError::Unknown(name) => name,
                OptionError::Twice(name) => *name,
                OptionError::Value { name, .. } => *name,
            };
            assert!(pairs.iter().any(|(given, _)| *given == name), "{name}");
        }
    }
}

/// Lists of tables: every name can be written and is found again.
pub fn filters(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if let Ok(tables) = Tables::parse(&text) {
        assert!(tables.is_empty() == text.trim_ascii().is_empty());
        let _ = tables.contain(input, input);
    }
    if let Ok(names) = filter::names(&text) {
        let escaped: Vec<String> = names.iter().map(|name| name.chars().flat_map(|c| ['\\', c]).collect()).collect();
        assert_eq!(filter::names(&escaped.join(" , ")), Ok(names.clone()));
        if let Ok(prefixes) = Prefixes::parse(&escaped.join(",")) {
            assert!(names.iter().all(|name| prefixes.contain(name.as_bytes()) && prefixes.name(name.as_bytes())));
        }
    }
    let (schema, table) = text.split_at(text.char_indices().nth(text.chars().count() / 2).map_or(0, |(at, _)| at));
    if !schema.is_empty() && !table.is_empty() {
        let escape = |name: &str| name.chars().flat_map(|c| ['\\', c]).collect::<String>();
        let tables = Tables::parse(&format!("{}.{}", escape(schema), escape(table))).unwrap();
        assert!(tables.contain(schema.as_bytes(), table.as_bytes()));
        assert!(!tables.contain(schema.as_bytes(), schema.as_bytes()) || schema == table);
    }
}

/// The JSON writers: what they write parses, and says what was put in.
pub fn json(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    for charset in [Charset::Utf8, Charset::Ascii] {
        let mut out = Json::new(charset);
        out.string(text.as_bytes()).unwrap();
        assert!(charset == Charset::Utf8 || out.as_bytes().is_ascii());
        assert_eq!(serde_json::from_slice::<String>(out.as_bytes()).unwrap(), text);
        assert_eq!(json::escaped_len(text.as_bytes(), charset) + 2, out.len());
        out.clear();
        out.hex(input).unwrap();
        assert_eq!(serde_json::from_slice::<String>(out.as_bytes()).unwrap().len(), 2 + 2 * input.len());

        let parsed: Result<Value, _> = serde_json::from_str(&text);
        if let Ok(value) = &parsed {
            out.clear();
            if out.compact(text.as_bytes()).is_ok() {
                assert!(!out.as_bytes().contains(&b'\n'));
                assert_eq!(&serde_json::from_slice::<Value>(out.as_bytes()).unwrap(), value);
                let mut indented = Vec::new();
                assert!(json::indent(&mut indented, out.as_bytes(), 1 << 30));
                assert_eq!(&serde_json::from_slice::<Value>(&indented).unwrap(), value);
                let mut again = Vec::new();
                json::compact(&mut again, &indented).unwrap();
                assert_eq!(again, out.as_bytes());
                let mut limited = Vec::new();
                if json::indent(&mut limited, out.as_bytes(), input.len()) {
                    assert!(limited.len() <= input.len() && limited == indented);
                }
            }
        }
        if let Some(plain) = Context::plain(input) {
            assert_eq!(Context::parse(input).unwrap().to_json(charset), plain);
        }
        match Context::parse(input) {
            Ok(context) => {
                // A context holds the numbers that `numeric` holds: more than a `Value` does.
                let object = |json: &str| serde_json::from_str::<BTreeMap<String, Box<RawValue>>>(json).unwrap();
                let written = context.to_json(charset);
                assert!(object(&text).keys().eq(object(&written).keys()));
                assert!(Context::parse(written.as_bytes()).is_ok());
                if let Ok(value) = &parsed {
                    assert_eq!(&serde_json::from_str::<Value>(&written).unwrap(), value);
                }
            }
            Err(_) => {
                let kept: Value = serde_json::from_str(&Context::invalid(input).to_json(charset)).unwrap();
                assert!(kept["bemi_invalid_context"].is_string());
            }
        }
    }
}
