//! Stage 4: the documents are recorded in the table `bemi.changes`, each exactly once.
pub mod place;
pub mod portion;
pub mod row;
pub mod spool;
pub mod state;
#[cfg(test)]
mod written;

#[cfg(feature = "pgrx")]
pub mod pg;
