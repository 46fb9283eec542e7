//! What of reading the past calls the server.
mod convert;
mod functions;
mod guard;
mod image;
mod inline;
mod labels;
mod rewritten;
mod shapes;
mod snapshot;
mod table;
mod values;
