//! JSON text: how it is written, what `jsonb` accepts of it, and how a part of it is found again.
#![forbid(unsafe_code)]

mod compact;
mod indent;
mod members;
mod strings;
mod writer;

pub use compact::{NotJsonb, compact, has_plain_keys, next_token};
pub use indent::indent;
pub use members::members;
pub use strings::{
    escape, escape_non_ascii, escaped_len, floor_char_boundary, is_plain, quoted, read_string, utf8_lossy,
};
pub use writer::{Json, hex_len};

/// How text beyond ASCII is written to JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charset {
    /// As it is: the database's encoding is UTF-8.
    Utf8,
    /// As `\uXXXX` escapes: the result is valid in every encoding that a database can have, and as UTF-8.
    Ascii,
}
