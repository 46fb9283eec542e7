//! Stage 2: the context of a statement goes into the write-ahead log, before the statement's changes.
pub mod emit;

#[cfg(feature = "pgrx")]
pub mod pg;
