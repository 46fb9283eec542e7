//! The server's side of stage 4: a background worker that decodes the log and records what comes out.
mod control;
mod functions;
pub mod launcher;
mod lock;
mod reader;
pub mod settings;
mod slots;
mod store;
mod transaction;
mod update;
mod worker;
