//! The members of a JSON array as those of an array of the server, which may have several dimensions: as
//! `jsonb_populate_record` takes them.
#![forbid(unsafe_code)]

use super::stored_jsonb::{Container, Value};

/// Dimensions that an array may have (src/include/utils/array.h).
const MAX_DIMENSIONS: usize = 6;

/// Why a JSON array is no array of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It has more dimensions than an array may have.
    TooManyDimensions,
    /// Arrays within it have different lengths, or a member stands beside an array.
    Uneven,
    /// It is not what `jsonb` has.
    Damaged,
    /// There is no memory for its members.
    OutOfMemory,
}

/// The members of an array, and how many there are in each dimension.
#[derive(Debug, Default, PartialEq)]
pub struct Members<'a> {
    /// Those of all dimensions, the last one varying fastest.
    pub values: Vec<Value<'a>>,
    /// The length of each dimension, the outermost first.
    pub dimensions: Vec<i32>,
}

/// Returns the members of a JSON array: those of arrays within it, as deep as the first one of each goes. Where a member may
/// be an array itself, there is one dimension.
pub fn members(array: Container<'_>, is_flat: bool) -> Result<Members<'_>, Failure> {
    let mut found = Members::default();
    let mut depth = 1;
    let mut first = array;
    // An array whose first member is none has the last dimension.
    while !is_flat && let Some(Value::Array(inner)) = first.elements().ok_or(Failure::Damaged)?.next().flatten() {
        depth += 1;
        first = inner;
        if depth > MAX_DIMENSIONS {
            return Err(Failure::TooManyDimensions);
        }
    }
    found.dimensions.resize(depth, -1);
    found.collect(array, 0)?;
    Ok(found)
}

impl<'a> Members<'a> {
    fn collect(&mut self, array: Container<'a>, dimension: usize) -> Result<(), Failure> {
        let mut count = 0;
        for element in array.elements().ok_or(Failure::Damaged)? {
            let element = element.ok_or(Failure::Damaged)?;
            count += 1;
            if dimension + 1 == self.dimensions.len() {
                self.values.try_reserve(1).map_err(|_| Failure::OutOfMemory)?;
                self.values.push(element);
            } else if let Value::Array(inner) = element {
                self.collect(inner, dimension + 1)?;
            } else {
                return Err(Failure::Uneven);
            }
        }
        match self.dimensions.get_mut(dimension) {
            Some(length) if *length == -1 || *length == count => *length = count,
            _ => return Err(Failure::Uneven),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An array of arrays or of `true`.
    fn array(members: &[Option<Vec<u8>>]) -> Vec<u8> {
        let mut stored = (members.len() as u32 | 0x4000_0000).to_ne_bytes().to_vec();
        for member in members {
            let entry = member.as_ref().map_or(0x3000_0000, |inner| 0x5000_0000 | inner.len() as u32);
            stored.extend(entry.to_ne_bytes());
        }
        stored.extend(members.iter().flatten().flatten());
        stored
    }

    fn row(length: usize) -> Option<Vec<u8>> {
        Some(array(&vec![None; length]))
    }

    fn dimensions(stored: &[u8]) -> Result<(Vec<i32>, usize), Failure> {
        members(Container(stored), false).map(|found| (found.dimensions, found.values.len()))
    }

    #[test]
    fn arrays_within_an_array_are_dimensions() {
        assert_eq!(dimensions(&array(&[])), Ok((vec![0], 0)));
        assert_eq!(dimensions(&array(&[None, None])), Ok((vec![2], 2)));
        assert_eq!(dimensions(&array(&[row(3), row(3)])), Ok((vec![2, 3], 6)));
        assert_eq!(dimensions(&array(&[row(0)])), Ok((vec![1, 0], 0)));
    }

    #[test]
    fn members_that_may_be_arrays_are_no_dimensions() {
        let stored = array(&[row(3), row(2), None]);
        let found = members(Container(&stored), true).unwrap();
        assert_eq!((found.dimensions, found.values.len()), (vec![3], 3));
        assert!(matches!(found.values[0], Value::Array(_)));
    }

    #[test]
    fn uneven_arrays_are_refused() {
        assert_eq!(dimensions(&array(&[row(3), row(2)])), Err(Failure::Uneven));
        assert_eq!(dimensions(&array(&[row(1), None])), Err(Failure::Uneven));
        let mut deep = array(&[None]);
        for _ in 0..6 {
            deep = array(&[Some(deep)]);
        }
        assert_eq!(dimensions(&deep), Err(Failure::TooManyDimensions));
        assert_eq!(dimensions(&array(&[row(1)])[..9]), Err(Failure::Damaged));
    }
}
