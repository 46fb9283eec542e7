//! `jsonb` as it is on disk, read in place: a tree of containers (src/include/utils/jsonb.h).
#![forbid(unsafe_code)]

use crate::document::json::escape;
use crate::document::numeric::{max_len, numeric};

const COUNT: u32 = 0x0FFF_FFFF;
const IS_SCALAR: u32 = 0x1000_0000;
const IS_OBJECT: u32 = 0x2000_0000;
const IS_ARRAY: u32 = 0x4000_0000;

const LENGTH: u32 = 0x0FFF_FFFF;
const KIND: u32 = 0x7000_0000;
const HAS_OFFSET: u32 = 0x8000_0000;

const STRING: u32 = 0x0000_0000;
const NUMBER: u32 = 0x1000_0000;
const FALSE: u32 = 0x2000_0000;
const TRUE: u32 = 0x3000_0000;
const NULL: u32 = 0x4000_0000;
const CONTAINER: u32 = 0x5000_0000;

/// A value. Strings are in the encoding of the database.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Null.
    Null,
    /// True or false.
    Boolean(bool),
    /// The varlena of a `numeric`.
    Number(&'a [u8]),
    /// Its characters.
    String(&'a [u8]),
    /// An array.
    Array(Container<'a>),
    /// An object.
    Object(Container<'a>),
}

/// An array or an object: its header, its entries and their values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Container<'a>(pub &'a [u8]);

/// Returns the value that is stored, given without the header of its varlena. None if it is damaged.
pub fn root(stored: &[u8]) -> Option<Value<'_>> {
    let container = Container(stored);
    match container.header()? {
        header if header & IS_SCALAR != 0 => container.elements()?.next()?,
        header if header & IS_OBJECT != 0 => Some(Value::Object(container)),
        header if header & IS_ARRAY != 0 => Some(Value::Array(container)),
        _ => None,
    }
}

impl<'a> Container<'a> {
    fn header(self) -> Option<u32> {
        self.0.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
    }

    /// The entries, each pair of an object as two of them, and how many elements or pairs there are.
    fn entries(self, is_object: bool) -> Option<(Entries<'a>, usize)> {
        let count = (self.header()? & COUNT) as usize;
        let length = count.checked_mul(if is_object { 8 } else { 4 })?;
        let (entries, values) = self.0.get(4..)?.split_at_checked(length)?;
        Some((Entries { entries, values, start: 0 }, count))
    }

    /// The elements of an array; None in place of one that is damaged.
    pub fn elements(self) -> Option<impl Iterator<Item = Option<Value<'a>>>> {
        let (mut entries, count) = self.entries(false)?;
        Some((0..count).map(move |_| entries.next()))
    }

    /// The keys and values of an object, by the length of the keys and then by their bytes; None in place of a pair that is damaged.
    pub fn members(self) -> Option<impl Iterator<Item = Option<(&'a [u8], Value<'a>)>>> {
        let (mut keys, count) = self.entries(true)?;
        // All keys come before all values.
        let mut values = keys;
        for _ in 0..count {
            values.skip()?;
        }
        Some((0..count).map(move |_| match keys.next()? {
            Value::String(key) => Some((key, values.next()?)),
            _ => None,
        }))
    }
}

/// The entries of a container one after another.
#[derive(Clone, Copy)]
struct Entries<'a> {
    entries: &'a [u8],
    values: &'a [u8],
    start: usize,
}

impl<'a> Entries<'a> {
    /// Returns the kind of the next entry, and where its value begins and ends.
    fn skip(&mut self) -> Option<(u32, usize, usize)> {
        let (entry, rest) = self.entries.split_first_chunk()?;
        self.entries = rest;
        let entry = u32::from_ne_bytes(*entry);
        let length = (entry & LENGTH) as usize;
        let start = self.start;
        self.start = if entry & HAS_OFFSET != 0 { length } else { start.checked_add(length)? };
        Some((entry & KIND, start, self.start))
    }

    fn next(&mut self) -> Option<Value<'a>> {
        let (kind, start, end) = self.skip()?;
        // Numbers and containers begin at multiples of four.
        let aligned = || self.values.get(start.next_multiple_of(4)..end);
        match kind {
            STRING => Some(Value::String(self.values.get(start..end)?)),
            NUMBER => Some(Value::Number(aligned()?)),
            FALSE => Some(Value::Boolean(false)),
            TRUE => Some(Value::Boolean(true)),
            NULL => Some(Value::Null),
            CONTAINER => {
                let container = Container(aligned()?);
                Some(if container.header()? & IS_OBJECT != 0 {
                    Value::Object(container)
                } else {
                    Value::Array(container)
                })
            }
            _ => None,
        }
    }
}

/// Appends bytes, or gives None if there is no memory for them.
pub fn push(out: &mut Vec<u8>, bytes: &[u8]) -> Option<()> {
    out.try_reserve(bytes.len()).ok()?;
    out.extend_from_slice(bytes);
    Some(())
}

/// Appends the text of a number, given as its varlena.
pub fn number_text(out: &mut Vec<u8>, stored: &[u8]) -> Option<()> {
    let first = *stored.first()?;
    let is_short = if cfg!(target_endian = "little") { first & 1 == 1 } else { first & 0x80 != 0 };
    let content = stored.get(if is_short { 1.. } else { 4.. })?;
    out.try_reserve(max_len(content)).ok()?;
    numeric(out, content)
}

/// Returns a number that is an integer of such a size, given as its varlena.
pub fn integer<T: std::str::FromStr>(stored: &[u8]) -> Option<T> {
    let mut text = Vec::new();
    number_text(&mut text, stored)?;
    std::str::from_utf8(&text).ok()?.parse().ok()
}

/// Appends a value as a whole `jsonb`, without the header of its varlena.
pub fn document(out: &mut Vec<u8>, value: Value) -> Option<()> {
    let (kind, content) = match value {
        Value::Array(container) | Value::Object(container) => return push(out, container.0),
        Value::Null => (NULL, &[][..]),
        Value::Boolean(false) => (FALSE, &[][..]),
        Value::Boolean(true) => (TRUE, &[][..]),
        Value::Number(stored) => (NUMBER, stored),
        Value::String(text) => (STRING, text),
    };
    let length = u32::try_from(content.len()).ok().filter(|length| *length <= LENGTH)?;
    push(out, &(1 | IS_SCALAR | IS_ARRAY).to_ne_bytes())?;
    push(out, &(kind | length).to_ne_bytes())?;
    push(out, content)
}

/// Appends a value as JSON, spaced as the server writes `jsonb`. None if it is damaged, or if there is no memory.
pub fn json(out: &mut Vec<u8>, value: Value) -> Option<()> {
    // Documents may nest deeper than the stack allows.
    let mut open: Vec<Open> = Vec::new();
    let mut next = Some(value);
    loop {
        match next.take() {
            None => {}
            Some(Value::Null) => push(out, b"null")?,
            Some(Value::Boolean(true)) => push(out, b"true")?,
            Some(Value::Boolean(false)) => push(out, b"false")?,
            Some(Value::Number(stored)) => number_text(out, stored)?,
            Some(Value::String(text)) => json_string(out, text)?,
            Some(Value::Array(container)) => {
                let (values, left) = container.entries(false)?;
                push(out, b"[")?;
                open.try_reserve(1).ok()?;
                open.push(Open { keys: None, values, left, is_first: true });
            }
            Some(Value::Object(container)) => {
                let (keys, left) = container.entries(true)?;
                // All keys come before all values.
                let mut values = keys;
                for _ in 0..left {
                    values.skip()?;
                }
                push(out, b"{")?;
                open.try_reserve(1).ok()?;
                open.push(Open { keys: Some(keys), values, left, is_first: true });
            }
        }
        let Some(container) = open.last_mut() else { return Some(()) };
        if container.left == 0 {
            push(out, if container.keys.is_some() { b"}" } else { b"]" })?;
            open.pop();
            continue;
        }
        container.left -= 1;
        if !std::mem::replace(&mut container.is_first, false) {
            push(out, b", ")?;
        }
        if let Some(keys) = &mut container.keys {
            let Value::String(key) = keys.next()? else { return None };
            json_string(out, key)?;
            push(out, b": ")?;
        }
        next = Some(container.values.next()?);
    }
}

/// A container of which a part is written.
struct Open<'a> {
    /// None for an array.
    keys: Option<Entries<'a>>,
    values: Entries<'a>,
    left: usize,
    is_first: bool,
}

/// Appends a text, in the encoding of the database, as a JSON string.
fn json_string(out: &mut Vec<u8>, text: &[u8]) -> Option<()> {
    let length = |byte: &u8| match byte {
        0..0x20 => 6,
        b'"' | b'\\' => 2,
        _ => 1,
    };
    out.try_reserve(text.iter().map(length).sum::<usize>() + 2).ok()?;
    out.push(b'"');
    escape(out, text);
    out.push(b'"');
    Some(())
}

/// Appends one pair of the text of an `hstore`.
pub fn hstore_pair(out: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>) -> Option<()> {
    if !out.is_empty() {
        push(out, b",")?;
    }
    quoted(out, key)?;
    push(out, b"=>")?;
    match value {
        Some(value) => quoted(out, value),
        None => push(out, b"NULL"),
    }
}

fn quoted(out: &mut Vec<u8>, text: &[u8]) -> Option<()> {
    push(out, b"\"")?;
    for part in text.chunk_by(|_, next| !matches!(next, b'"' | b'\\')) {
        if matches!(part.first(), Some(b'"' | b'\\')) {
            push(out, b"\\")?;
        }
        push(out, part)?;
    }
    push(out, b"\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[u32], rest: &[u8]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).chain(rest.iter().copied()).collect()
    }

    #[test]
    fn an_object_gives_its_pairs_in_order() {
        let stored = words(&[2 | IS_OBJECT, STRING | 1, STRING | 2, STRING | 1, TRUE], b"abbx");
        let Some(Value::Object(object)) = root(&stored) else { panic!("no object") };
        let pairs: Option<Vec<_>> = object.members().and_then(Iterator::collect);
        assert_eq!(pairs, Some(vec![(&b"a"[..], Value::String(b"x")), (&b"bb"[..], Value::Boolean(true))]));
    }

    #[test]
    fn a_scalar_is_what_its_document_holds() {
        for value in [Value::Null, Value::Boolean(true), Value::Boolean(false), Value::String(b"text")] {
            let mut stored = Vec::new();
            document(&mut stored, value).unwrap();
            assert_eq!(root(&stored), Some(value));
        }
    }

    #[test]
    fn damaged_containers_are_none() {
        let stored = words(&[2 | IS_OBJECT, STRING | 1, STRING | 2, STRING | 1, TRUE], b"abbx");
        for end in 0..stored.len() {
            let cut = &stored[..end];
            let members = root(cut).and_then(|value| match value {
                Value::Object(object) => object.members()?.collect::<Option<Vec<_>>>(),
                _ => None,
            });
            assert_eq!(members, None, "{end}");
        }
        assert_eq!(root(&words(&[0], b"")), None);
        let huge = words(&[COUNT | IS_ARRAY], b"");
        let Some(Value::Array(array)) = root(&huge) else { panic!("no array") };
        assert!(array.elements().is_none());
    }

    #[test]
    fn json_is_spaced_and_escaped_as_the_server_does_it() {
        fn text(value: Value) -> Option<String> {
            let mut out = Vec::new();
            json(&mut out, value).map(|()| String::from_utf8(out).unwrap())
        }
        let inner = words(&[3 | IS_ARRAY, NULL, TRUE, CONTAINER | 4, IS_ARRAY], b"");
        // A container begins at a multiple of four: one byte behind the keys.
        let padded = inner.len() as u32 + 1;
        let entries = [2 | IS_OBJECT, STRING | 1, STRING | 2, CONTAINER | padded, STRING | 5];
        let stored = [&words(&entries, b"abb\0")[..], &inner, b"\"\\\n\x01\x7f"].concat();
        let expected = r#"{"a": [null, true, []], "bb": "\"\\\n\u0001*"}"#.replace('*', "\x7f");
        assert_eq!(text(root(&stored).unwrap()), Some(expected));
        assert_eq!(text(Value::String(b"")), Some("\"\"".to_owned()));
        assert_eq!(text(Value::Object(Container(&words(&[IS_OBJECT], b"")))), Some("{}".to_owned()));
        for end in 0..stored.len() {
            assert_eq!(root(&stored[..end]).and_then(text), None, "{end}");
        }
        // Deeper than the stack allows.
        const DEPTH: u32 = 100_000;
        let mut deep: Vec<u32> = (0..DEPTH).rev().flat_map(|i| [1 | IS_ARRAY, CONTAINER | (4 + 8 * i)]).collect();
        deep.push(IS_ARRAY);
        let brackets = |bracket: &str| bracket.repeat(DEPTH as usize + 1);
        assert_eq!(text(root(&words(&deep, b"")).unwrap()), Some(brackets("[") + &brackets("]")));
    }

    #[test]
    fn the_text_of_an_hstore_quotes_what_it_has_to() {
        let mut out = Vec::new();
        hstore_pair(&mut out, b"a\"b", Some(b"\\\\")).unwrap();
        hstore_pair(&mut out, b"", None).unwrap();
        hstore_pair(&mut out, b"x", Some(b"")).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), r#""a\"b"=>"\\\\",""=>NULL,"x"=>"""#);
    }
}
