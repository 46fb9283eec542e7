//! Reads the values of a document by their keys.
#![forbid(unsafe_code)]

use std::borrow::Cow;

use super::json::{members, read_string};
use super::keys::Key;
use super::moment::Moment;
use super::{lsn, time};

/// What is wrong with a document if there was no memory to read it.
pub const OUT_OF_MEMORY: &str = "out of memory";

/// The values of a document, as they are written. All methods fail with what is wrong with it.
pub struct Values<'a>([Option<&'a str>; Key::ALL.len()]);

impl<'a> Values<'a> {
    /// Finds the values of the keys, which have this order; others may be between them. What is inside of objects and
    /// arrays is not read.
    pub fn read(text: &'a [u8], order: &[Key]) -> Result<Self, String> {
        let text = std::str::from_utf8(text).map_err(|error| error.to_string())?;
        let mut values = [None; Key::ALL.len()];
        let mut next = 0;
        for member in members(text) {
            let (name, value) = member.ok_or("it is no JSON object")?;
            if let Some(found) = order[next..].iter().position(|key| key.name() == name) {
                next += found;
                values[order[next] as usize] = Some(value);
            }
        }
        Ok(Self(values))
    }

    /// Returns the value of a key that not every document has.
    pub fn find(&self, key: Key) -> Option<&'a str> {
        self.0[key as usize]
    }

    /// Returns the value of a key.
    pub fn value(&self, key: Key) -> Result<&'a str, String> {
        self.find(key).ok_or_else(|| format!("it has no key {:?} in its place", key.name()))
    }

    /// Says that the value of a key is not what it should be.
    pub fn wrong(&self, key: Key) -> String {
        let value = self.find(key).unwrap_or("missing");
        format!("{} is {}", key.name(), &value[..value.floor_char_boundary(100)])
    }

    /// Whether the value of a key is null.
    pub fn is_null(&self, key: Key) -> Result<bool, String> {
        Ok(self.value(key)? == "null")
    }

    /// Reads a string.
    pub fn string(&self, key: Key) -> Result<Cow<'a, str>, String> {
        read_string(self.value(key)?).map_err(|_| OUT_OF_MEMORY.to_owned())?.ok_or_else(|| self.wrong(key))
    }

    /// Reads a number without a sign.
    pub fn number<N: std::str::FromStr>(&self, key: Key) -> Result<N, String> {
        let value = self.value(key)?;
        let is_number = value.bytes().all(|digit| digit.is_ascii_digit());
        is_number.then(|| value.parse().ok()).flatten().ok_or_else(|| self.wrong(key))
    }

    /// Reads a position in the WAL.
    pub fn position(&self, key: Key) -> Result<u64, String> {
        lsn::read(&self.string(key)?).ok_or_else(|| self.wrong(key))
    }

    /// Reads a position and a time, which are both null or neither.
    pub fn moment(&self, position: Key, at: Key) -> Result<Option<Moment>, String> {
        match (self.is_null(position)?, self.is_null(at)?) {
            (true, true) => Ok(None),
            (true, false) => Err(self.wrong(position)),
            _ => {
                let position = self.position(position)?;
                let time = time::read_timestamptz(&self.string(at)?).ok_or_else(|| self.wrong(at))?;
                Ok(Some(Moment { position, time }))
            }
        }
    }

    /// Reads what may be null.
    pub fn nullable<T>(
        &self,
        key: Key,
        read: impl FnOnce(&Self, Key) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        if self.is_null(key)? { Ok(None) } else { read(self, key).map(Some) }
    }

    /// Reads what may be missing.
    pub fn optional<T>(
        &self,
        key: Key,
        read: impl FnOnce(&Self, Key) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        self.find(key).map(|_| read(self, key)).transpose()
    }
}
