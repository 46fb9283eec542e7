//! Stage 3: the write-ahead log becomes one JSON document per change.
pub mod change;
pub mod encode;
pub mod json;
pub mod options;
pub mod outbox;
pub mod txn;

#[cfg(feature = "pgrx")]
pub mod pg;
