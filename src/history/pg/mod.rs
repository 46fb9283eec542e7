//! The server's side of reading the past.
mod convert;
mod expression;
mod functions;
mod guard;
mod home;
mod image;
mod inline;
mod labels;
mod recorded_values;
mod revert;
mod reverted;
mod rewritten;
mod shapes;
mod spi;
mod table;
mod version_plan;
