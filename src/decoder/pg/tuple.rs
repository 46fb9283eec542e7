//! Rows from the log: their images, and the key that names them.
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{pg_sys, varlena};

use super::catch;
use super::relation::{Column, Relation};
use crate::decoder::change::Document;
use crate::decoder::json::{Json, MAX_DOCUMENT, Omission};

/// The values of a row, by their place in the tuple.
#[derive(Debug, Default)]
pub struct Row {
    values: Vec<pg_sys::Datum>,
    nulls: Vec<bool>,
    is_there: bool,
}

impl Row {
    /// Takes a tuple apart; a null pointer stands for a row that the log has not.
    ///
    /// # Safety
    /// The tuple is one of this relation, from the change that is being decoded.
    pub unsafe fn read(&mut self, tuple: pg_sys::HeapTuple, relation: pg_sys::Relation, width: usize) {
        self.is_there = !tuple.is_null();
        if self.is_there {
            self.values.resize(width, pg_sys::Datum::from(0));
            self.nulls.resize(width, true);
            // SAFETY: the caller's promise; both arrays have a member for each column of the descriptor.
            unsafe {
                let descriptor = (*relation).rd_att;
                pg_sys::heap_deform_tuple(tuple, descriptor, self.values.as_mut_ptr(), self.nulls.as_mut_ptr());
            }
        }
    }

    /// The value of a column; None if it is null, or if the log has not the row.
    fn get(&self, column: &Column) -> Option<pg_sys::Datum> {
        let is_null = !self.is_there || self.nulls[column.index];
        (!is_null).then(|| self.values[column.index])
    }

    /// Whether the log has only a pointer to the value, which did not change and lies outside of the row.
    fn is_external(&self, column: &Column) -> bool {
        column.is_varlena
            && self.get(column).is_some_and(|value| {
                let pointer: *mut pg_sys::varlena = value.cast_mut_ptr();
                // SAFETY: the value of such a column points to a varlena.
                unsafe {
                    varlena::varatt_is_1b_e(pointer)
                        && u32::from(varlena::vartag_1b_e(pointer)) == pg_sys::vartag_external::VARTAG_ONDISK
                }
            })
    }

    /// Fills in values that did not change and that the log has in the row before.
    pub fn complete_from(&mut self, before: &Row, relation: &Relation) {
        if !self.is_there || !before.is_there {
            return;
        }
        for column in &relation.columns {
            if relation.identity.holds(column) && self.is_external(column) && !before.is_external(column) {
                self.values[column.index] = before.values[column.index];
                self.nulls[column.index] = before.nulls[column.index];
            }
        }
    }
}

/// Appends the image of a row: of all columns, or before a change, of those that the replica identity has.
pub fn write_image(document: &mut Document, row: &Row, relation: &mut Relation, is_before: bool) {
    document.json.raw(b"{");
    if row.is_there {
        let identity = relation.identity;
        let mut is_first = true;
        // A failure leaves the loop; it is entered again behind the column that failed.
        let mut next = 0;
        let mut value_start = 0;
        while next < relation.columns.len() {
            let result = catch::data_errors(|| {
                while let Some(column) = relation.columns.get_mut(next) {
                    if is_before && !identity.holds(column) {
                        next += 1;
                        continue;
                    }
                    if row.is_external(column) {
                        document.unchanged(&column.name);
                        next += 1;
                        continue;
                    }
                    if !is_first {
                        document.json.raw(b",");
                    }
                    is_first = false;
                    document.json.raw(&column.key);
                    value_start = document.json.len();
                    match row.get(column) {
                        None => document.json.raw(b"null"),
                        // SAFETY: the value has the column's type, and is not outside of the row.
                        Some(value) => unsafe { column.reader.write(value, document.json) }?,
                    }
                    next += 1;
                }
                Ok(())
            });
            let omission = match result {
                Ok(Ok(())) => break,
                Ok(Err(Omission::OutOfMemory)) => out_of_memory(),
                Ok(Err(omission)) => omission,
                Err(message) => Omission::Output(message),
            };
            document.json.truncate(value_start);
            document.json.raw(b"null");
            document.omitted(&relation.columns[next].name, &omission);
            next += 1;
        }
    }
    document.json.raw(b"}");
}

/// Appends the text of the row's key as a JSON string: the value of one column, a JSON array of the values of
/// several. Null without a key, and where the log has not all of it.
pub fn write_key(document: &mut Document, row: &Row, relation: &mut Relation, is_before: bool, scratch: &mut Json) {
    let start = document.json.len();
    let is_known = row.is_there
        && !relation.key.is_empty()
        && relation.key.iter().map(|&i| &relation.columns[i]).all(|column| {
            row.get(column).is_some() && !row.is_external(column) && (!is_before || relation.identity.holds(column))
        });
    if !is_known {
        return document.json.raw(b"null");
    }
    let result = catch::data_errors(|| {
        if let [only] = relation.key[..] {
            text_of(scratch, row, &mut relation.columns[only])?;
            return document.json.raw_utf8(scratch.as_bytes());
        }
        let mut array = vec![b'['];
        for (i, &part) in relation.key.iter().enumerate() {
            if i > 0 {
                array.push(b',');
            }
            text_of(scratch, row, &mut relation.columns[part])?;
            array.extend_from_slice(scratch.as_bytes());
        }
        array.push(b']');
        document.json.string(&array)
    });
    if matches!(result, Ok(Err(Omission::OutOfMemory))) {
        out_of_memory();
    }
    if !matches!(result, Ok(Ok(()))) {
        // A value that cannot be written is named where the image is.
        document.json.truncate(start);
        document.json.raw(b"null");
    }
}

/// As the server itself does: the reader may try again when there is more.
pub fn out_of_memory() -> ! {
    let code = PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY;
    ErrorReport::new(code, "out of memory", "write_image").report(PgLogLevel::ERROR);
    unreachable!("a report at level ERROR does not return")
}

/// Sets `scratch` to the text of a value, as a JSON string in UTF-8.
fn text_of(scratch: &mut Json, row: &Row, column: &mut Column) -> Result<(), Omission> {
    scratch.clear();
    scratch.allow(MAX_DOCUMENT);
    let Some(value) = row.get(column) else { return Ok(()) };
    // SAFETY: the value has the column's type, and is not outside of the row.
    unsafe { column.reader.write(value, scratch)? };
    if scratch.as_bytes().first() != Some(&b'"') {
        let plain = scratch.as_bytes().to_vec();
        scratch.clear();
        scratch.string(&plain)?;
    }
    Ok(())
}
