//! Stage 5: reading the past from what is recorded. Most of it is SQL.
pub mod json_array;
pub mod range;
pub mod revert;
pub mod stored_jsonb;
pub mod versions;

#[cfg(feature = "pgrx")]
pub mod pg;
