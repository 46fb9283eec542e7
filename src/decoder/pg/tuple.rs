//! Rows from WAL: their values, their images, and the key that names them.
use std::ops::Range;

use pgrx::{pg_sys, varlena};

use super::attribute::{Attribute, EXTERNAL};
use super::callback::{Change, Tuple};
use super::catch;
use super::open_relation::OpenRelation;
use super::relation::{Column, Identity, Relation, Relations};
use super::scratch::Scratch;
use super::value::Reader;
use super::varlena::varlena_bytes;
use crate::document::change::Draft;
use crate::document::json::{Charset, Json};
use crate::document::keys::Key;
use crate::document::omission::{Limit, MAX_DOCUMENT, MAX_VALUE, Omission, try_append, try_copy};
use crate::sys::memory;

/// What rows are read into, kept from one change to the next so that nothing is allocated for each.
#[derive(Debug)]
pub struct Buffers {
    before: Row,
    after: Row,
    /// Of the columns of the image before.
    places: Places,
    /// Takes the text of a key.
    key: Json,
}

impl Buffers {
    /// Empty ones.
    pub fn new() -> Self {
        Self { before: Row::default(), after: Row::default(), places: Vec::new(), key: Json::new(Charset::Utf8) }
    }
}

/// The rows of a change, with the relation that they are of as it was then. All that is read of a row in this file is read of
/// the rows and by the columns of one such value, which is made by [`Rows::read`] only: so a value is of its column's type.
pub struct Rows<'a> {
    relation: &'a mut Relation,
    before: &'a Row,
    after: &'a Row,
    places: &'a mut Places,
    key: &'a mut Json,
    scratch: Scratch,
}

impl<'a> Rows<'a> {
    /// Takes the rows of a change apart. None if changes of its relation are not shown.
    pub fn read(
        change: &'a Change,
        relations: &'a mut Relations,
        buffers: &'a mut Buffers,
        scratch: Scratch,
    ) -> Option<Self> {
        let relation = relations.get(change.relation())?;
        let (before, after) = change.rows();
        // SAFETY: the tuples of a change are of its relation, and what `relations` knows of that is as of this change.
        unsafe {
            buffers.before.read(before, change.relation(), &relation.attributes);
            buffers.after.read(after, change.relation(), &relation.attributes);
        }
        buffers.after.complete_from(&buffers.before, relation);
        let Buffers { before, after, places, key } = buffers;
        Some(Self { relation, before, after, places, key, scratch })
    }

    /// The relation.
    pub fn relation(&self) -> &Relation {
        self.relation
    }

    /// Whether an UPDATE changed no more than columns that are ignored. False where WAL does not contain the whole row before.
    /// An error that the server raises is passed on.
    pub fn changes_ignored_columns_only(&self) -> bool {
        self.after.changes_ignored_columns_only(self.before, self.relation)
    }

    /// Appends the image of the row before a change: the columns that the replica identity has.
    pub fn write_before(&mut self, document: &mut Draft) {
        let identity = self.relation.identity;
        self.places.clear();
        let is_shown = |column: &Column| identity.holds(column);
        write_image(document, self.before, self.relation, self.scratch, is_shown, Some(self.places), |_, _| None);
    }

    /// Appends the image of the row after a change, behind that of the row before it. Where the whole row before is known, what
    /// did not change is copied from there.
    pub fn write_after(&mut self, document: &mut Draft) {
        let (row, before, places) = (self.after, self.before, &*self.places);
        let is_known = before.is_there && self.relation.identity == Identity::Full && !before.may_be_external;
        let same = |place: usize, column: &Column| {
            let part = places.get(place).filter(|part| is_known && !part.is_empty())?;
            row.has_same(before, column).then(|| part.clone())
        };
        write_image(document, row, self.relation, self.scratch, |_| true, None, same);
    }

    /// Appends the text of the row's key as a JSON string: the value of one column, a JSON array of the values of several. Null
    /// without a key, and where WAL does not contain all of it. The row is the one after the change, or before it.
    pub fn write_key(&mut self, document: &mut Draft, is_before: bool) {
        let row = if is_before { self.before } else { self.after };
        let start = document.json.len();
        let result = if has_key(row, self.relation, is_before) {
            write_text_of_key(document, row, self.relation, self.key)
        } else {
            Err(None)
        };
        if let Err(omission) = result {
            // Any other value that cannot be written is named where the image is.
            document.json.truncate(start);
            document.json.raw(b"null");
            if let Some(omission) = omission {
                document.omitted(Key::PrimaryKey.name().as_bytes(), &omission);
            }
        }
    }

    /// Appends a member with the key of the row before an UPDATE, if WAL contains it and its text is not that of the key after
    /// it, which is in a part of the document.
    pub fn write_old_key(&mut self, document: &mut Draft, key: Range<usize>) {
        let (before, after) = (self.before, self.after);
        // Only an UPDATE has both. Nearly always it leaves the key as it is.
        let has_same = |&i: &usize| after.has_same(before, &self.relation.columns[i]);
        if !before.is_there
            || !after.is_there
            || !has_key(before, self.relation, true)
            || self.relation.key.iter().all(has_same)
        {
            return;
        }
        let start = document.json.len();
        document.old_primary_key();
        let key_start = document.json.len();
        let result = write_text_of_key(document, before, self.relation, self.key);
        let (text, old) = document.json.as_bytes().split_at(key_start);
        if result.is_err() || text.get(key) == Some(old) {
            document.json.truncate(start);
        }
        // Any other value that cannot be written is named where the image is.
        if let Err(Some(omission)) = result {
            document.omitted(Key::OldPrimaryKey.name().as_bytes(), &omission);
        }
    }
}

/// The values of a row, by their place in the tuple.
#[derive(Debug, Default)]
struct Row {
    values: Vec<pg_sys::Datum>,
    nulls: Vec<bool>,
    is_there: bool,
    /// Whether a value may lie outside of the row.
    may_be_external: bool,
}

impl Row {
    /// Takes a tuple apart; None stands for a row that WAL does not contain.
    ///
    /// # Safety
    /// The tuple is of this relation, whose attributes these are.
    unsafe fn read(&mut self, tuple: Option<Tuple>, relation: OpenRelation, attributes: &[Attribute]) {
        self.is_there = tuple.is_some();
        let Some(tuple) = tuple else { return };
        self.values.resize(attributes.len(), pg_sys::Datum::from(0));
        self.nulls.resize(attributes.len(), true);
        // SAFETY: the tuple stays until the callback returns, and both arrays have a place for each attribute.
        unsafe {
            let header = (*tuple.as_ptr()).t_data;
            let stored = u32::from((*header).t_infomask2) & pg_sys::HEAP_NATTS_MASK;
            if (stored as usize) < attributes.len() {
                // Columns that were added later have their values in the catalogs, and so in the descriptor. It is kept
                // when the relation is rebuilt with the same columns, and with others until the transaction ends
                // (RelationDestroyRelation), so the values outlive the look-ups of what writes them.
                self.may_be_external = true;
                let descriptor = (*relation.as_ptr()).rd_att;
                let (values, nulls) = (self.values.as_mut_ptr(), self.nulls.as_mut_ptr());
                pg_sys::heap_deform_tuple(tuple.as_ptr(), descriptor, values, nulls);
            } else {
                self.read_stored(header, attributes);
            }
        }
    }

    /// As the server's own `heap_deform_tuple` does it.
    ///
    /// # Safety
    /// The tuple has all of these attributes; both arrays have a place for each.
    unsafe fn read_stored(&mut self, header: pg_sys::HeapTupleHeader, attributes: &[Attribute]) {
        self.may_be_external = false;
        // SAFETY: the attributes say where each value of the tuple begins and ends, so all that is read lies within it; the bits
        // of the nulls are there if the header says so.
        unsafe {
            let has_nulls = u32::from((*header).t_infomask) & pg_sys::HEAP_HASNULL != 0;
            let bits = (*header).t_bits.as_ptr();
            let data = header.cast::<u8>().add((*header).t_hoff.into());
            let mut at = 0;
            for (i, attribute) in attributes.iter().enumerate() {
                self.nulls[i] = has_nulls && *bits.add(i >> 3) & (1 << (i & 7)) == 0;
                if self.nulls[i] {
                    continue;
                }
                if attribute.length != -1 || *data.add(at) == 0 {
                    at = at.next_multiple_of(attribute.alignment);
                }
                let start = data.add(at);
                self.values[i] = attribute.fetch(start);
                at += attribute.size(start);
                self.may_be_external |= attribute.length == -1 && *start == EXTERNAL;
            }
        }
    }

    /// Returns the value of a column; None if it is null, or if WAL does not contain the row.
    fn get(&self, column: &Column) -> Option<pg_sys::Datum> {
        let is_null = !self.is_there || self.nulls[column.index];
        (!is_null).then(|| self.values[column.index])
    }

    /// Whether the value is not there to be shown: [`Row::is_external`], unless it is masked anyway.
    fn is_out_of_reach(&self, column: &Column) -> bool {
        self.is_external(column) && !matches!(column.reader, Reader::Masked)
    }

    /// Whether WAL contains only a pointer to the value, which did not change and lies outside of the row.
    fn is_external(&self, column: &Column) -> bool {
        self.may_be_external
            && column.attribute.length == -1
            && self.get(column).is_some_and(|value| {
                let pointer: *mut pg_sys::varlena = value.cast_mut_ptr();
                // SAFETY: the value of a column of that length points to a varlena.
                unsafe {
                    varlena::varatt_is_1b_e(pointer)
                        && u32::from(varlena::vartag_1b_e(pointer)) == pg_sys::vartag_external::VARTAG_ONDISK
                }
            })
    }

    /// Fills in values that did not change and that WAL contains in the row before.
    fn complete_from(&mut self, before: &Row, relation: &Relation) {
        if !self.is_there || !before.is_there || !self.may_be_external {
            return;
        }
        for column in &relation.columns {
            if relation.identity.holds(column) && self.is_external(column) && !before.is_external(column) {
                self.values[column.index] = before.values[column.index];
                self.nulls[column.index] = before.nulls[column.index];
            }
        }
    }

    /// As [`Rows::changes_ignored_columns_only`], of the row after the UPDATE.
    fn changes_ignored_columns_only(&self, before: &Row, relation: &Relation) -> bool {
        relation.ignores_columns
            && relation.identity == Identity::Full
            && self.is_there
            && before.is_there
            && relation.columns.iter().filter(|column| !column.is_ignored).all(|column| {
                self.has_same(before, column) || self.is_external(column) || self.has_equal(before, column)
            })
    }

    /// Whether a varlena has the same content in another row, which may be compressed or put together from the log.
    fn has_equal(&self, other: &Row, column: &Column) -> bool {
        match (self.get(column), other.get(column)) {
            (Some(one), Some(two)) if column.attribute.length == -1 && !other.is_external(column) => {
                // SAFETY: the values of a column of that length are varlenas, and neither of them is external.
                unsafe { varlena_bytes(one) == varlena_bytes(two) }
            }
            _ => false,
        }
    }

    /// Whether a column has the same value in another row, byte for byte.
    fn has_same(&self, other: &Row, column: &Column) -> bool {
        match (self.get(column), other.get(column)) {
            (None, None) => true,
            (Some(one), Some(other)) if column.attribute.by_value => one.value() == other.value(),
            // SAFETY: both are values of the column, which are not by value: so they point to as many bytes as the attribute says.
            (Some(one), Some(other)) => unsafe {
                let (one, other): (*const u8, *const u8) = (one.cast_mut_ptr(), other.cast_mut_ptr());
                let size = column.attribute.size(one);
                size == column.attribute.size(other)
                    && core::slice::from_raw_parts(one, size) == core::slice::from_raw_parts(other, size)
            },
            _ => false,
        }
    }
}

/// Where in a document each column of an image is, from its key to the end of its value; empty for one that is not
/// there.
type Places = Vec<Range<usize>>;

/// Appends the image of a row. `same` gives the part of the document that a column can be copied from.
fn write_image(
    document: &mut Draft,
    row: &Row,
    relation: &mut Relation,
    scratch: Scratch,
    is_shown: impl Fn(&Column) -> bool,
    mut places: Option<&mut Places>,
    same: impl Fn(usize, &Column) -> Option<Range<usize>>,
) {
    let mut note = |place| {
        if let Some(places) = &mut places {
            places.push(place);
        }
    };
    document.json.raw(b"{");
    let first = document.json.len();
    // A failure leaves the loop; it is entered again behind the column that failed.
    let mut next = if row.is_there { 0 } else { relation.columns.len() };
    let columns = relation.columns.len();
    let mut start = first;
    // One limit for all columns, until it does not hold one.
    let mut is_small = true;
    document.json.allow_small_image();
    while next < columns {
        let result = catch::data_errors(|| {
            while let Some(column) = relation.columns.get_mut(next) {
                let is_external = row.is_out_of_reach(column);
                if is_external {
                    document.unchanged(&column.name);
                }
                if is_external || !is_shown(column) {
                    note(0..0);
                    next += 1;
                    continue;
                }
                start = document.json.len();
                let comma = usize::from(start > first);
                let key = column.key_behind(comma == 0);
                if !is_small {
                    document.json.allow_value(key.len(), first, columns - next);
                }
                if let Some(part) = same(next, column) {
                    document.json.raw(&b","[..comma]);
                    document.json.copy(part)?;
                } else {
                    document.json.raw(key);
                    match row.get(column) {
                        None => document.json.raw(b"null"),
                        // SAFETY: the value is of this column, whose reader was built for its type, and is not external.
                        Some(value) => unsafe { column.reader.write(value, document.json) }?,
                    }
                }
                note(start + comma..document.json.len());
                next += 1;
                if document.json.len() - start > LARGE {
                    scratch.clear();
                }
            }
            Ok(())
        });
        let omission = match result {
            Ok(Ok(())) => break,
            Ok(Err(Omission::OutOfMemory)) => memory::out_of_memory(),
            Ok(Err(Omission::TooLong(_))) if is_small => {
                is_small = false;
                document.json.truncate(start);
                scratch.clear();
                continue;
            }
            Ok(Err(omission)) => omission,
            Err(message) => Omission::output(&message),
        };
        scratch.clear();
        let Some(column) = relation.columns.get(next) else { break };
        document.json.truncate(start);
        document.json.raw(column.key_behind(start == first));
        document.json.raw(b"null");
        document.omitted(&column.name, &omission);
        note(0..0);
        next += 1;
    }
    document.json.raw(b"}");
    document.json.allow(MAX_DOCUMENT, Limit::Document);
}

/// Values whose JSON is longer than this, in bytes, leave nothing behind in memory.
const LARGE: usize = 1 << 20;

/// Whether WAL contains all of a row's key.
fn has_key(row: &Row, relation: &Relation, is_before: bool) -> bool {
    row.is_there
        && !relation.key.is_empty()
        && relation.key.iter().map(|&i| &relation.columns[i]).all(|column| {
            row.get(column).is_some() && !row.is_out_of_reach(column) && (!is_before || relation.identity.holds(column))
        })
}

/// Appends the text of the row's key, all of which WAL contains. If that fails, what was written so far is left, and the
/// reason is given if it is too long.
fn write_text_of_key(
    document: &mut Draft,
    row: &Row,
    relation: &mut Relation,
    scratch: &mut Json,
) -> Result<(), Option<Omission>> {
    document.json.allow(MAX_VALUE, Limit::Value);
    let result = catch::data_errors(|| {
        if let [only] = relation.key[..] {
            let column = &mut relation.columns[only];
            if let (Reader::Int2 | Reader::Int4 | Reader::Int8, Some(value)) = (&column.reader, row.get(column)) {
                document.json.raw(b"\"");
                // SAFETY: the value is of this column, whose reader was built for its type.
                unsafe { column.reader.write(value, document.json)? };
                document.json.raw(b"\"");
                return Ok(());
            }
            text_of(scratch, row, column)?;
            return document.json.raw_utf8(scratch.as_bytes());
        }
        let mut array = Vec::new();
        for (i, &part) in relation.key.iter().enumerate() {
            try_append(&mut array, if i > 0 { b"," } else { b"[" })?;
            text_of(scratch, row, &mut relation.columns[part])?;
            document.json.check_room(array.len() + scratch.len())?;
            try_append(&mut array, scratch.as_bytes())?;
        }
        try_append(&mut array, b"]")?;
        document.json.string(&array)
    });
    document.json.allow(MAX_DOCUMENT, Limit::Document);
    match result {
        Ok(Ok(())) => Ok(()),
        Ok(Err(Omission::OutOfMemory)) => memory::out_of_memory(),
        Ok(Err(Omission::TooLong(limit))) => Err(Some(Omission::TooLong(limit))),
        _ => Err(None),
    }
}

/// Sets `scratch` to the text of a value, as a JSON string in UTF-8.
fn text_of(scratch: &mut Json, row: &Row, column: &mut Column) -> Result<(), Omission> {
    scratch.clear();
    scratch.allow(MAX_VALUE, Limit::Value);
    let Some(value) = row.get(column) else { return Ok(()) };
    // SAFETY: the value is of this column, whose reader was built for its type; a key whose value is external is not written.
    unsafe { column.reader.write(value, scratch)? };
    if scratch.as_bytes().first() != Some(&b'"') {
        let plain = try_copy(scratch.as_bytes())?;
        scratch.clear();
        scratch.allow(MAX_VALUE, Limit::Value);
        scratch.string(&plain)?;
    }
    Ok(())
}
