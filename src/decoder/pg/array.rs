//! Arrays, from their form on disk (src/include/utils/array.h).
use pgrx::pg_sys;

use super::attribute::Attribute;
use super::value::{Reader, varlena_bytes};
use crate::document::json::Json;
use crate::document::omission::Omission;

/// Reads arrays of one element type.
#[derive(Debug)]
pub struct ArrayReader {
    element: Reader,
    /// How a member is stored.
    attribute: Attribute,
    /// Takes an array that is not aligned.
    copy: Vec<u64>,
}

impl ArrayReader {
    /// Reads arrays whose members are read and stored in the given way.
    pub fn new(element: Reader, attribute: Attribute) -> Self {
        Self { element, attribute, copy: Vec::new() }
    }

    /// Whether its output depends on settings of the session.
    pub fn depends_on_settings(&self) -> bool {
        self.element.depends_on_settings()
    }

    /// Appends an array as nested JSON arrays; as with [`Reader::write`].
    ///
    /// # Safety
    /// `value` is an array of the reader's element type.
    pub unsafe fn write(&mut self, value: pg_sys::Datum, json: &mut Json) -> Result<(), Omission> {
        if matches!(self.element, Reader::Array(_) | Reader::Composite(_)) {
            // SAFETY: raises an error where the stack is nearly used up, which is passed on.
            unsafe { pg_sys::check_stack_depth() };
        }
        // The array behind a header of four bytes, whose members are aligned from there on: as it is, or as a copy.
        let mut copy = std::mem::take(&mut self.copy);
        // SAFETY: the caller's promise.
        let result = unsafe {
            let content = varlena_bytes(value);
            let alignment = self.attribute.alignment.max(align_of::<i32>());
            let array = if (content.as_ptr() as usize - HEADER).is_multiple_of(alignment) {
                content.as_ptr().sub(HEADER)
            } else {
                copy.clear();
                let words = (content.len() + HEADER).div_ceil(size_of::<u64>());
                copy.try_reserve(words).map_err(|_| Omission::OutOfMemory)?;
                copy.resize(words, 0u64);
                let start = copy.as_mut_ptr().cast::<u8>();
                core::ptr::copy_nonoverlapping(content.as_ptr(), start.add(HEADER), content.len());
                start.cast_const()
            };
            self.write_array(array, content.len() + HEADER, json)
        };
        copy.shrink_to(KEPT_COPY);
        self.copy = copy;
        result
    }

    /// # Safety
    /// `array` points to an array with room for a header of four bytes, aligned, of the given size.
    unsafe fn write_array(&mut self, array: *const u8, size: usize, json: &mut Json) -> Result<(), Omission> {
        // The header says how many dimensions there are, whether there are nulls, and where the members begin.
        // SAFETY: the caller's promise; the array is as its header says (utils/array.h).
        unsafe {
            let word = |place: usize| *array.add(place * size_of::<i32>()).cast::<i32>();
            let dimensions =
                core::slice::from_raw_parts(array.add(4 * size_of::<i32>()).cast::<i32>(), word(1) as usize);
            if dimensions.is_empty() {
                json.raw(b"[]");
                return Ok(());
            }
            let fixed = (4 + 2 * dimensions.len()) * size_of::<i32>();
            let (nulls, start) = match word(2) {
                0 => (core::ptr::null(), fixed.next_multiple_of(align_of::<u64>())),
                offset => (array.add(fixed), offset as usize),
            };
            let mut members = Members { array, nulls, at: start, size, number: 0 };
            self.write_dimension(dimensions, &mut members, json)
        }
    }

    /// # Safety
    /// The members are those of the array that is written.
    unsafe fn write_dimension(
        &mut self,
        dimensions: &[i32],
        members: &mut Members,
        json: &mut Json,
    ) -> Result<(), Omission> {
        let Some((length, inner)) = dimensions.split_first() else { return Ok(()) };
        json.raw(b"[");
        for i in 0..*length {
            if i > 0 {
                json.raw(b",");
            }
            json.check_room(0)?;
            // SAFETY: the caller's promise, for both.
            unsafe {
                if !inner.is_empty() {
                    self.write_dimension(inner, members, json)?;
                } else if let Some(value) = members.next(&self.attribute)? {
                    self.element.write(value, json)?;
                } else {
                    json.raw(b"null");
                }
            }
        }
        json.raw(b"]");
        Ok(())
    }
}

/// Size of the header of a varlena that is not short.
const HEADER: usize = 4;

/// Capacity that a copy of an array keeps for the next one, in words of eight bytes.
const KEPT_COPY: usize = 1 << 13;

/// The members of an array, one after another.
struct Members {
    array: *const u8,
    /// A bit for each that is not null; none, if there are no nulls.
    nulls: *const u8,
    at: usize,
    size: usize,
    number: usize,
}

impl Members {
    /// The next one; None if it is null.
    ///
    /// # Safety
    /// There is a next one, and this is how it is stored.
    unsafe fn next(&mut self, attribute: &Attribute) -> Result<Option<pg_sys::Datum>, Omission> {
        // SAFETY: the caller's promise; what is read lies inside of the array.
        unsafe {
            let number = self.number;
            self.number += 1;
            if !self.nulls.is_null() && *self.nulls.add(number >> 3) & (1 << (number & 7)) == 0 {
                return Ok(None);
            }
            if self.at >= self.size {
                return Err(Omission::Output("invalid array".to_owned()));
            }
            if attribute.length != -1 || *self.array.add(self.at) == 0 {
                self.at = self.at.next_multiple_of(attribute.alignment);
            }
            let start = self.array.add(self.at);
            self.at += attribute.size(start);
            Ok(Some(attribute.fetch(start)))
        }
    }
}
