//! Stage 5: reading the past from what is recorded. Most of it is SQL.
pub mod array;
pub mod jsonb;
pub mod range;
pub mod revert;
pub mod versions;

#[cfg(feature = "pgrx")]
pub mod pg;
