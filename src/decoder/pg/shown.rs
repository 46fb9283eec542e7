//! A single value as the JSON that a document has of it, for those who read the past.
use pgrx::pg_sys;

use super::builder::{Builder, Composites};
use crate::document::json::Json;
use crate::sys::{encoding, memory};

/// Appends the JSON of a value, or returns the reason why it has none. The caller pins the settings under which values are
/// written ([`crate::pinned`]).
///
/// # Safety
/// The value is of the type, and not a pointer to data outside of a row. `context` lives longer than this runs.
pub unsafe fn append(
    type_oid: pg_sys::Oid,
    value: pg_sys::Datum,
    context: pg_sys::MemoryContext,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let charset = encoding::charset();
    let mut composites = Composites::new(context);
    let mut builder = Builder { charset, memory: context, composites: &mut composites, numbers_as_strings: false };
    let mut reader = builder.reader(type_oid);
    let mut json = Json::new(charset);
    // SAFETY: the reader was built for the type of the value.
    unsafe { reader.write(value, &mut json) }.map_err(|omission| omission.to_string())?;
    memory::append(out, json.as_bytes());
    Ok(())
}
