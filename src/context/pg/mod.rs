//! The server's side of stage 1.
mod functions;
pub mod gucs;
mod session;
pub mod statement;

pub use session::revision;

/// Defines the settings.
pub fn init() {
    gucs::define();
    session::define();
}
