//! Reading the past: what is recorded becomes answers. Most of it is SQL.
#[cfg(feature = "pgrx")]
pub mod pg;
