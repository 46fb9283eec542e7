//! Undoing changes: in which order, and what has to wait for what. The rest is SQL.
pub mod rows;
pub mod schedule;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
