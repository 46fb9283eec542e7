//! Reading the past: what is recorded becomes answers. Most of it is SQL.
pub mod array;
pub mod jsonb;
pub mod range;
pub mod revert;
pub mod versions;

#[cfg(feature = "pgrx")]
pub mod pg;
