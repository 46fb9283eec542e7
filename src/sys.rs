//! What pgrx does not bind, and what differs between the supported major versions: here and nowhere else. Each module
//! knows one thing of the server; none of them knows a stage of this library.
pub mod arguments;
pub mod background_worker;
pub mod call;
pub mod catalog;
pub mod copy;
pub mod decoding;
pub mod descriptor;
pub mod encoding;
pub mod executor;
pub mod float;
pub mod function;
pub mod guc;
pub mod lock;
pub mod memory;
pub mod node;
pub mod output;
pub mod process;
pub mod query;
pub mod slot;
pub mod temporary_file;
pub mod transaction;
pub mod wal;
