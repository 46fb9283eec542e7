//! The server's side of stage 4: a background worker that decodes the log and records what comes out.
mod control;
mod reader;
mod store;
mod worker;
