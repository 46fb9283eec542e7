//! The launcher, if the library is in `shared_preload_libraries`: after the server has started, it starts the recorders of
//! all databases that have a slot of one, and ends.
use std::time::Duration;

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::slots;
use crate::sys::process;

/// How long to wait until a worker may be free.
const PAUSE: Duration = Duration::from_secs(10);

/// Asks the server to start the launcher. Only while libraries are preloaded.
pub fn register() {
    // SAFETY: reads flags of the process.
    if unsafe { pg_sys::process_shared_preload_libraries_in_progress && !pg_sys::IsBinaryUpgrade } {
        process::register("bemi launcher", "bemi_launcher_main");
    }
}

/// The launcher's main function.
///
/// # Safety
/// Called by the server, in a process of its own.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_launcher_main(_argument: pg_sys::Datum) {
    process::handle_signals();
    let mut databases = slots::databases();
    let mut is_told = false;
    loop {
        databases.retain(|database| !process::launch_later((*database).into()));
        if databases.is_empty() {
            // SAFETY: ends the process; with 0 it is not started again.
            unsafe { pg_sys::proc_exit(0) };
        }
        if !is_told {
            let count = databases.len();
            log!("no background worker is free for {count} recorders of bemi; raise max_worker_processes");
            is_told = true;
        }
        process::wait(PAUSE);
        process::check_interrupts();
        let left = slots::databases();
        databases.retain(|database| left.contains(database));
    }
}
