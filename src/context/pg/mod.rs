//! The server's side of stage 1.
mod functions;
pub mod settings;
pub mod statement;
