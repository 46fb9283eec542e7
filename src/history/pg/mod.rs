//! What of reading the past calls the server.
mod functions;
mod inline;
mod snapshot;
