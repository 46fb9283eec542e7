//! What of reading the past calls the server.
mod functions;
mod image;
mod inline;
mod snapshot;
mod values;
