//! The workers of the recorder; and the launcher, if the library is in `shared_preload_libraries`: after the server has
//! started, it starts the recorders of all databases that have a slot of one, and ends.
use std::time::Duration;

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::slots;
use crate::sys::background_worker::Worker;
use crate::sys::process;

/// How long to wait until a worker may be free.
const PAUSE: Duration = Duration::from_secs(10);

/// The name of a recorder's process in pg_stat_activity.
pub const RECORDER: &str = "bemi recorder";

/// Returns the worker that records the changes of a database.
pub fn recorder(database: pg_sys::Oid) -> Worker {
    Worker { name: RECORDER, function: "bemi_recorder_main", database: Some(database) }
}

/// Asks the server to start the launcher, if libraries are being preloaded.
pub fn register() {
    // SAFETY: reads flags of the process.
    if unsafe { pg_sys::process_shared_preload_libraries_in_progress && !pg_sys::IsBinaryUpgrade } {
        Worker { name: "bemi launcher", function: "bemi_launcher_main", database: None }.register();
    }
}

/// The launcher's main function.
///
/// # Safety
/// The server calls this once, in a new background worker.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_launcher_main(_argument: pg_sys::Datum) {
    process::handle_signals();
    let mut databases = slots::databases();
    let mut is_reported = false;
    loop {
        databases.retain(|database| !recorder((*database).into()).launch_later());
        if databases.is_empty() {
            process::exit(0);
        }
        if !is_reported {
            let count = databases.len();
            log!("no background worker is free for {count} recorders of bemi; raise max_worker_processes");
            is_reported = true;
        }
        process::wait(PAUSE);
        process::check_interrupts();
        let left = slots::databases();
        databases.retain(|database| left.contains(database));
    }
}
