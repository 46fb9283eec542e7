//! The server's side of stage 4: a background worker that decodes WAL and records what comes out.
mod failure;
mod functions;
mod gucs;
mod launcher;
mod partitions;
mod progress;
mod reader;
mod report;
mod slots;
mod start_lock;
mod statement;
mod store;
mod update;
mod worker;
mod worker_session;

/// Defines the settings, and has the server start the launcher.
pub fn init() {
    gucs::define();
    launcher::register();
}
