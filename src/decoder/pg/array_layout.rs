//! Arrays, from their form on disk (src/include/utils/array.h).
use pgrx::pg_sys;

use super::attribute::Attribute;
use crate::document::json::Json;
use crate::document::omission::Omission;

/// How the arrays of one type are stored.
#[derive(Debug)]
pub struct ArrayLayout {
    /// How a member is stored.
    attribute: Attribute,
    /// Takes an array that is not aligned.
    copy: Vec<u64>,
}

impl ArrayLayout {
    /// Describes arrays whose members are stored in the given way.
    pub fn new(attribute: Attribute) -> Self {
        Self { attribute, copy: Vec::new() }
    }

    /// Appends an array as nested JSON arrays, of which `member` appends the members that are not null.
    ///
    /// # Safety
    /// `content` is an array with such members, detoasted, without the header of its varlena, which stands before it.
    pub unsafe fn write(
        &mut self,
        content: &[u8],
        json: &mut Json,
        member: &mut impl FnMut(pg_sys::Datum, &mut Json) -> Result<(), Omission>,
    ) -> Result<(), Omission> {
        // The array behind a header of four bytes, whose members are aligned from there on: as it is, or as a copy.
        let mut copy = std::mem::take(&mut self.copy);
        // SAFETY: what is read behind the header of four bytes is the content, in place where it is aligned as an array is,
        // else in the copy, which has room for both. A short header has fewer bytes, but then nothing of it is read.
        let result = unsafe {
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
            self.write_array(array, content.len() + HEADER, json, member)
        };
        copy.shrink_to(KEPT_COPY);
        self.copy = copy;
        result
    }

    /// # Safety
    /// `array` points to an array with room for a header of four bytes, aligned, of the given size.
    unsafe fn write_array(
        &self,
        array: *const u8,
        size: usize,
        json: &mut Json,
        member: &mut impl FnMut(pg_sys::Datum, &mut Json) -> Result<(), Omission>,
    ) -> Result<(), Omission> {
        // The header says how many dimensions there are, whether there are nulls, and where the members begin.
        // SAFETY: all of that lies within the array, in words of four bytes, at which an aligned array is aligned.
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
            let mut members = Members { array, nulls, at: start, size, number: 0, attribute: self.attribute };
            write_dimension(dimensions, &mut members, json, member)
        }
    }
}

fn write_dimension(
    dimensions: &[i32],
    members: &mut Members,
    json: &mut Json,
    member: &mut impl FnMut(pg_sys::Datum, &mut Json) -> Result<(), Omission>,
) -> Result<(), Omission> {
    let Some((length, inner)) = dimensions.split_first() else { return Ok(()) };
    json.raw(b"[");
    for i in 0..*length {
        if i > 0 {
            json.raw(b",");
        }
        json.check_room(0)?;
        if !inner.is_empty() {
            write_dimension(inner, members, json, member)?;
        } else if let Some(value) = members.next()? {
            member(value, json)?;
        } else {
            json.raw(b"null");
        }
    }
    json.raw(b"]");
    Ok(())
}

/// Size of the header of a varlena that is not short.
const HEADER: usize = 4;

/// Capacity that a copy of an array keeps for the next one, in words of eight bytes.
const KEPT_COPY: usize = 1 << 13;

/// The members of an array, one after another: as many as its dimensions say.
struct Members {
    array: *const u8,
    /// A bit for each that is not null; none, if there are no nulls.
    nulls: *const u8,
    at: usize,
    size: usize,
    number: usize,
    attribute: Attribute,
}

impl Members {
    /// Returns the next one; None if it is null.
    #[inline]
    fn next(&mut self) -> Result<Option<pg_sys::Datum>, Omission> {
        let number = self.number;
        self.number += 1;
        // SAFETY: this is called once for each member that the dimensions count, so there is a bit for it; a member that is
        // not null begins within the array, which was checked, and is stored as the attribute says.
        unsafe {
            if !self.nulls.is_null() && *self.nulls.add(number >> 3) & (1 << (number & 7)) == 0 {
                return Ok(None);
            }
            if self.at >= self.size {
                return Err(Omission::Output("invalid array".to_owned()));
            }
            if self.attribute.length != -1 || *self.array.add(self.at) == 0 {
                self.at = self.at.next_multiple_of(self.attribute.alignment);
            }
            let start = self.array.add(self.at);
            self.at += self.attribute.size(start);
            Ok(Some(self.attribute.fetch(start)))
        }
    }
}
