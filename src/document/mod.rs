//! What the stages share: the JSON documents that the decoder writes and the recorder reads, and the context in them.
//!
//! | a document of | is written and read by | its keys |
//! |---|---|---|
//! | a change of a row, a TRUNCATE | [`change`] | [`keys::Key::ALL`] |
//! | a message that a reader asked for | [`message`] | [`keys::Key::ALL`] |
//! | the beginning or end of a transaction | [`marker`] | [`keys::IN_MARKERS`] |
//! | changes that are missing | [`gap`] | [`keys::Key::ALL`] |
//!
//! Each form stands in one file, with what writes it and what reads it back: [`json`], [`time`], [`lsn`], [`hex`],
//! [`uuid`], [`numeric`], [`identity`], [`context`]. Nothing here knows a stage, or the server.
#![forbid(unsafe_code)]

// First: the files below use its macros.
#[macro_use]
pub mod keys;

pub mod change;
pub mod context;
pub mod fields;
pub mod gap;
pub mod head;
pub mod hex;
pub mod identity;
pub mod json;
pub mod lsn;
pub mod marker;
pub mod message;
pub mod moment;
pub mod numeric;
pub mod omission;
pub mod operation;
#[cfg(test)]
mod round_trip;
pub mod time;
pub mod uuid;

use change::Change;
use fields::Values;
use gap::Gap;
use keys::Key;
use marker::Marker;
use operation::Operation;

/// A document of any kind, as it is read back.
#[derive(Debug)]
pub enum Document<'a> {
    /// A change of a row, or a TRUNCATE.
    Change(Change<'a>),
    /// A message.
    Message(message::Shown<'a>),
    /// Changes that are missing.
    Gap(Gap<'a>),
    /// The beginning or end of a transaction.
    Marker(Marker<'a>),
}

impl<'a> Document<'a> {
    /// Reads a document. Fails with what is wrong with it.
    pub fn read(text: &'a [u8]) -> Result<Self, String> {
        let values = Values::read(text, Key::ALL)?;
        // Only markers begin with what happened.
        if values.find(Key::Position).is_none() {
            return Marker::read(text).map(Self::Marker);
        }
        match Operation::named(&values.string(Key::Operation)?) {
            Some(Operation::Message) => message::Shown::of(&values).map(Self::Message),
            Some(Operation::Gap) => Gap::read(text).map(Self::Gap),
            Some(_) => Change::of(&values).map(Self::Change),
            None => Err(values.wrong(Key::Operation)),
        }
    }
}
