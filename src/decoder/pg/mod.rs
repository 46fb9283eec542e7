//! The server's side of stage 3: the callbacks of the output plugin, and how they read relations, rows and values.
mod array;
mod attribute;
mod builder;
mod callback;
mod catalogs;
mod catch;
mod decoder;
mod open_relation;
mod origin;
pub mod plugin;
mod relation;
mod rules;
mod scratch;
mod settings;
pub mod shown;
mod sink;
mod startup;
#[cfg(feature = "pg_test")]
mod tests;
mod tuple;
mod value;
mod varlena;

use std::sync::OnceLock;

/// Returns the longest context, in bytes, that a message in WAL may have.
static MAX_CONTEXT_SIZE: OnceLock<fn() -> usize> = OnceLock::new();

/// Takes what the decoder needs of the stages before it: the longest context, in bytes.
pub fn init(max_context_size: fn() -> usize) {
    // The library is loaded once.
    _ = MAX_CONTEXT_SIZE.set(max_context_size);
}

fn max_context_size() -> usize {
    MAX_CONTEXT_SIZE.get().map_or(usize::MAX, |size| size())
}
