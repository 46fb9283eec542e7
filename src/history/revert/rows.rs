//! What is known of rows, by their names. Changes can be tried, and taken back.
#![forbid(unsafe_code)]

use std::collections::{HashMap, TryReserveError};
use std::mem;

/// The name of a row among the rows of all tables.
pub type Name = Vec<u8>;

/// Values by the names of rows.
#[derive(Debug)]
pub struct Rows<V> {
    kept: HashMap<Name, V>,
    /// What changes are tried: None takes a value away. Empty while nothing is tried.
    tried: HashMap<Name, Option<V>>,
    is_trying: bool,
}

impl<V> Default for Rows<V> {
    fn default() -> Self {
        Self { kept: HashMap::new(), tried: HashMap::new(), is_trying: false }
    }
}

impl<V> Rows<V> {
    /// Returns the value of a row.
    pub fn get(&self, row: &[u8]) -> Option<&V> {
        match self.tried.get(row) {
            Some(tried) => tried.as_ref(),
            None => self.kept.get(row),
        }
    }

    /// Gives a row a value, in place of the one that it may have.
    pub fn set(&mut self, row: Name, value: V) -> Result<(), TryReserveError> {
        if self.is_trying {
            self.tried.try_reserve(1)?;
            self.tried.insert(row, Some(value));
        } else {
            self.kept.try_reserve(1)?;
            self.kept.insert(row, value);
        }
        Ok(())
    }

    /// Takes the value of a row away, if it has one.
    pub fn remove(&mut self, row: &[u8]) -> Result<(), TryReserveError> {
        if !self.is_trying {
            self.kept.remove(row);
        } else if self.kept.contains_key(row) {
            self.tried.try_reserve(1)?;
            self.tried.insert(copy(row)?, None);
        } else {
            self.tried.remove(row);
        }
        Ok(())
    }

    /// From now on, changes are tried.
    pub fn begin(&mut self) {
        self.is_trying = true;
    }

    /// Keeps the changes that were tried.
    pub fn commit(&mut self) -> Result<(), TryReserveError> {
        self.kept.try_reserve(self.tried.len())?;
        self.is_trying = false;
        for (row, value) in mem::take(&mut self.tried) {
            match value {
                Some(value) => self.kept.insert(row, value),
                None => self.kept.remove(&row),
            };
        }
        Ok(())
    }

    /// Takes back the changes that were tried.
    pub fn roll_back(&mut self) {
        self.is_trying = false;
        self.tried = HashMap::new();
    }

    /// Returns the values, without what is being tried, in no order.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.kept.values()
    }
}

/// Returns a copy of bytes.
pub fn copy(bytes: &[u8]) -> Result<Vec<u8>, TryReserveError> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(bytes.len())?;
    copy.extend_from_slice(bytes);
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against an ordinary map, of which a copy is kept while changes are tried.
        #[test]
        fn what_is_tried_is_kept_or_taken_back_as_a_whole(
            steps in proptest::collection::vec((0u8..6, 0u8..4, 0u32..9), 0..40)
        ) {
            let (mut rows, mut now, mut before) = (Rows::default(), BTreeMap::new(), None);
            for (step, row, value) in steps {
                match step {
                    0 | 1 => {
                        rows.set(vec![row], value).unwrap();
                        now.insert(row, value);
                    }
                    2 => {
                        rows.remove(&[row]).unwrap();
                        now.remove(&row);
                    }
                    3 if before.is_none() => {
                        rows.begin();
                        before = Some(now.clone());
                    }
                    4 if before.is_some() => {
                        rows.commit().unwrap();
                        before = None;
                    }
                    5 => if let Some(before) = before.take() {
                        rows.roll_back();
                        now = before;
                    },
                    _ => {}
                }
                for row in 0..4 {
                    prop_assert_eq!(rows.get(&[row]), now.get(&row));
                }
                let mut values: Vec<u32> = rows.values().copied().collect();
                values.sort_unstable();
                let mut expected: Vec<u32> = before.as_ref().unwrap_or(&now).values().copied().collect();
                expected.sort_unstable();
                prop_assert_eq!(values, expected);
            }
        }
    }
}
