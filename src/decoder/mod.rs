//! Stage 3: the write-ahead log becomes one JSON document per change.
pub mod batch;
pub mod change;
pub mod encode;
pub mod filter;
pub mod json;
pub mod jsonb;
pub mod marker;
pub mod message;
pub mod numeric;
pub mod options;
pub mod outbox;
pub mod scope;
pub mod txn;

#[cfg(feature = "pgrx")]
pub mod pg;
