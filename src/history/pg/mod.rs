//! The server's side of reading the past.
mod convert;
mod functions;
mod guard;
mod home;
mod image;
mod inline;
mod labels;
mod node;
mod revert;
mod rewritten;
mod shapes;
mod spi;
mod table;
mod values;
mod version_plan;
