//! Statements that the worker runs in its transactions.
use pgrx::prelude::*;

/// Runs a statement, or raises its error.
pub fn run(statement: &str) {
    Spi::run(statement).unwrap_or_else(|error| error!("{error}"));
}

/// Returns what a statement returns in its first column; None without a row. Raises its error.
pub fn one<T: FromDatum + IntoDatum>(statement: &str) -> Option<T> {
    match Spi::get_one::<T>(statement) {
        Ok(found) => found,
        // No row.
        Err(pgrx::spi::Error::InvalidPosition) => None,
        Err(error) => error!("{error}"),
    }
}
