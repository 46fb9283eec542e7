//! Why a value is left out of its document, and how long values and documents may be.
#![forbid(unsafe_code)]

use std::fmt;

use super::json::{self, NotJsonb};

/// Longest document without its context, in bytes. With the longest context it is still below 1 GiB, which is the
/// most that the server passes on as one text, with room for the headers of the tuple or message that carries it. That
/// of a change ends far below, by the limits of its images; that of a message may come near.
pub const MAX_DOCUMENT: usize = 1_000_000_000;

/// Longest JSON of one image of a row, in bytes.
pub const MAX_IMAGE: usize = 128 << 20;

/// Longest JSON of one value, in bytes, and of the text of a key.
pub const MAX_VALUE: usize = 64 << 20;

/// Longest reason that is given, in bytes: the message of an output function may hold the value.
const MAX_REASON: usize = 1024;

/// Why a value is left out of its document, which names it under `omitted`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Omission {
    /// It would pass this limit.
    TooLong(Limit),
    /// There is no memory for it: no fault of the value, so the server has to hear of it.
    OutOfMemory,
    /// A value of type `json` that `jsonb` could not hold, and so no consumer could store.
    NotJsonb(NotJsonb),
    /// A text that is none in the encoding of its database, which is UTF-8.
    NotUtf8,
    /// The type's output function failed; its message.
    Output(String),
}

/// What has a longest length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// [`MAX_VALUE`].
    Value,
    /// [`MAX_IMAGE`].
    Image,
    /// [`MAX_DOCUMENT`].
    Document,
}

impl Omission {
    /// The failure of an output function, whose message may be long.
    pub fn output(message: &str) -> Self {
        let end = json::floor_char_boundary(message.as_bytes(), MAX_REASON);
        Self::Output(message.get(..end).unwrap_or_default().to_owned())
    }
}

impl fmt::Display for Omission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(Limit::Value) => write!(f, "the value would be longer than {MAX_VALUE} bytes"),
            Self::TooLong(Limit::Image) => write!(f, "the row would be longer than {MAX_IMAGE} bytes"),
            Self::TooLong(Limit::Document) => write!(f, "the document would be longer than {MAX_DOCUMENT} bytes"),
            Self::OutOfMemory => f.write_str("out of memory"),
            Self::NotJsonb(reason) => write!(f, "json that jsonb cannot hold: {reason}"),
            Self::NotUtf8 => f.write_str("invalid byte sequence for encoding \"UTF8\""),
            Self::Output(message) => f.write_str(message),
        }
    }
}

/// Bytes in memory that may be lacking.
pub fn try_copy(bytes: &[u8]) -> Result<Vec<u8>, Omission> {
    let mut copy = Vec::new();
    try_append(&mut copy, bytes)?;
    Ok(copy)
}

/// Appends bytes, if there is memory for them.
pub fn try_append(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Omission> {
    out.try_reserve(bytes.len()).map_err(|_| Omission::OutOfMemory)?;
    out.extend_from_slice(bytes);
    Ok(())
}
