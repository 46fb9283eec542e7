//! The text form of `jsonb`, from its form on disk: a tree of containers (src/include/utils/jsonb.h).
#![forbid(unsafe_code)]

use crate::document::json::Json;
use crate::document::numeric;
use crate::document::omission::Omission;

/// Deepest tree that is written here.
const MAX_DEPTH: usize = 500;

/// Why a tree was not written.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// It is deeper than this code goes, or not what it should be.
    Unreadable,
    /// The document has no room for it.
    Omission(Omission),
}

impl From<Omission> for Failure {
    fn from(omission: Omission) -> Self {
        Self::Omission(omission)
    }
}

const COUNT: u32 = 0x0FFF_FFFF;
const IS_SCALAR: u32 = 0x1000_0000;
const IS_OBJECT: u32 = 0x2000_0000;
const IS_ARRAY: u32 = 0x4000_0000;

const LENGTH: u32 = 0x0FFF_FFFF;
const KIND: u32 = 0x7000_0000;
const HAS_OFFSET: u32 = 0x8000_0000;

/// Appends a tree, given without the header of its varlena, whose strings are in UTF-8. What was written of one that
/// fails is for the caller to take back.
pub fn jsonb(json: &mut Json, stored: &[u8]) -> Result<(), Failure> {
    container(json, stored, 0)
}

/// The entries of a container one after another: kind, and where its value is.
struct Entries<'a> {
    entries: &'a [u8],
    values: &'a [u8],
    start: usize,
}

impl<'a> Entries<'a> {
    fn next(&mut self) -> Result<(u32, usize, usize), Failure> {
        let (entry, rest) = self.entries.split_first_chunk().ok_or(Failure::Unreadable)?;
        self.entries = rest;
        let entry = u32::from_ne_bytes(*entry);
        let length = (entry & LENGTH) as usize;
        let start = self.start;
        let end = if entry & HAS_OFFSET != 0 { length } else { start + length };
        self.start = end;
        Ok((entry & KIND, start, end))
    }

    fn value(&self, start: usize, end: usize) -> Result<&'a [u8], Failure> {
        self.values.get(start..end).ok_or(Failure::Unreadable)
    }
}

fn container(json: &mut Json, stored: &[u8], depth: usize) -> Result<(), Failure> {
    let (header, rest) = stored.split_first_chunk().ok_or(Failure::Unreadable)?;
    let header = u32::from_ne_bytes(*header);
    if depth > MAX_DEPTH {
        return Err(Failure::Unreadable);
    }
    let count = (header & COUNT) as usize;
    let is_object = header & IS_OBJECT != 0;
    if !is_object && header & IS_ARRAY == 0 {
        return Err(Failure::Unreadable);
    }
    let split = (if is_object { count * 2 } else { count }) * 4;
    let (entries, values) = rest.split_at_checked(split).ok_or(Failure::Unreadable)?;
    let mut entries = Entries { entries, values, start: 0 };
    if !is_object {
        let is_scalar = header & IS_SCALAR != 0;
        if !is_scalar {
            json.raw(b"[");
        }
        for i in 0..count {
            if i > 0 {
                json.raw(b",");
            }
            let (kind, start, end) = entries.next()?;
            value(json, &entries, kind, start, end, depth)?;
        }
        if !is_scalar {
            json.raw(b"]");
        }
        return Ok(());
    }
    // All keys come before all values.
    let mut keys = Entries { entries: entries.entries, values, start: 0 };
    for _ in 0..count {
        entries.next()?;
    }
    json.raw(b"{");
    for i in 0..count {
        if i > 0 {
            json.raw(b",");
        }
        let (_, start, end) = keys.next()?;
        text(json, keys.value(start, end)?)?;
        json.raw(b":");
        let (kind, start, end) = entries.next()?;
        value(json, &entries, kind, start, end, depth)?;
    }
    json.raw(b"}");
    Ok(())
}

fn value(json: &mut Json, entries: &Entries, kind: u32, start: usize, end: usize, depth: usize) -> Result<(), Failure> {
    // Numbers and containers begin at multiples of four.
    let aligned = start.next_multiple_of(4);
    json.check_room(0)?;
    match kind {
        0x0000_0000 => text(json, entries.value(start, end)?)?,
        0x1000_0000 => {
            let number = varlena(entries.value(aligned, end)?)?;
            let max_len = numeric::max_len(number);
            json.check_room(max_len)?;
            let written = json.append(max_len, |out| numeric::numeric(out, number)).ok_or(Omission::OutOfMemory)?;
            written.ok_or(Failure::Unreadable)?;
        }
        0x2000_0000 => json.raw(b"false"),
        0x3000_0000 => json.raw(b"true"),
        0x4000_0000 => json.raw(b"null"),
        0x5000_0000 => {
            container(json, entries.value(aligned, end)?, depth + 1)?;
        }
        _ => return Err(Failure::Unreadable),
    }
    Ok(())
}

fn text(json: &mut Json, text: &[u8]) -> Result<(), Failure> {
    json.utf8_string(text).map_err(|omission| match omission {
        Omission::NotUtf8 => Failure::Unreadable,
        omission => Failure::Omission(omission),
    })
}

/// The content of a varlena that is neither compressed nor outside: behind a header of one byte or of four.
fn varlena(stored: &[u8]) -> Result<&[u8], Failure> {
    let first = *stored.first().ok_or(Failure::Unreadable)?;
    let is_short = if cfg!(target_endian = "little") { first & 1 == 1 } else { first & 0x80 != 0 };
    stored.get(if is_short { 1.. } else { 4.. }).ok_or(Failure::Unreadable)
}
