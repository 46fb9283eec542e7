//! Stage 3: the write-ahead log becomes one JSON document per change.
pub mod batch;
pub mod filter;
pub mod jsonb_text;
pub mod options;
pub mod outbox;
pub mod scope;
pub mod txn;

#[cfg(feature = "pgrx")]
pub mod pg;
