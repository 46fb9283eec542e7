//! What of reading the past calls the server.
mod convert;
mod functions;
mod guard;
mod image;
mod inline;
mod labels;
mod revert;
mod rewritten;
mod shapes;
mod snapshot;
mod spi;
mod table;
mod values;
