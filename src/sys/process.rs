//! The process of a background worker: signals and waiting.
use core::ffi::{CStr, c_long};
use std::ffi::CString;
use std::time::{Duration, Instant};

use pgrx::pg_sys;

mod unbound {
    unsafe extern "C-unwind" {
        pub fn die(signal: core::ffi::c_int);
        pub fn SignalHandlerForConfigReload(signal: core::ffi::c_int);
    }
}

/// Has SIGTERM end the process at the next check, and SIGHUP read the configuration again.
pub fn handle_signals() {
    // SAFETY: the handlers are the server's own; once, at the start of the process.
    unsafe {
        for (signal, handler) in [
            (pg_sys::SIGTERM, unbound::die as unsafe extern "C-unwind" fn(core::ffi::c_int)),
            (pg_sys::SIGHUP, unbound::SignalHandlerForConfigReload),
        ] {
            #[cfg(not(feature = "pg18"))]
            pg_sys::pqsignal(signal as core::ffi::c_int, Some(handler));
            #[cfg(feature = "pg18")]
            pg_sys::pqsignal_be(signal as core::ffi::c_int, Some(handler));
        }
        pg_sys::BackgroundWorkerUnblockSignals();
    }
}

/// Ends the process if it was told to.
pub fn check_interrupts() {
    pgrx::check_for_interrupts!();
}

/// Shows in pg_stat_activity what the process does, and whether it is at work.
pub fn show(activity: &str, is_busy: bool) {
    let text = CString::new(activity.replace('\0', " ")).unwrap_or_default();
    let state = if is_busy { pg_sys::BackendState::STATE_RUNNING } else { pg_sys::BackendState::STATE_IDLE };
    // SAFETY: the text is copied.
    unsafe { pg_sys::pgstat_report_activity(state, text.as_ptr()) };
}

/// Whether others see in pg_stat_activity what is shown.
pub fn is_shown() -> bool {
    // SAFETY: reads a setting of the process.
    unsafe { pg_sys::pgstat_track_activities }
}

/// Ends the process. With 0 it is not started again, with 1 it is, after a while.
#[allow(unreachable_code, reason = "PostgreSQL 18's headers do not say in our words that proc_exit does not return")]
pub fn exit(code: i32) -> ! {
    // SAFETY: runs what the server has registered for the end.
    unsafe { pg_sys::proc_exit(code) };
    unreachable!("the process has ended")
}

/// Waits for so long, whoever wakes this process meanwhile, or until the configuration is to be read again.
pub fn sleep(duration: Duration) {
    let start = Instant::now();
    while let Some(rest) = duration.checked_sub(start.elapsed()).filter(|rest| rest.as_millis() > 0) {
        wait(rest);
        check_interrupts();
        // SAFETY: reads a flag of the process.
        if unsafe { pg_sys::ConfigReloadPending } != 0 {
            return;
        }
    }
}

/// Waits for so long, or until somebody wakes this process, and tells whether somebody did; ends it if the server does.
pub fn wait(duration: Duration) -> bool {
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    // SAFETY: the latch is this process's own.
    unsafe {
        let happened = pg_sys::WaitLatch(
            pg_sys::MyLatch,
            events as core::ffi::c_int,
            duration.as_millis() as c_long,
            pg_sys::PG_WAIT_EXTENSION,
        );
        pg_sys::ResetLatch(pg_sys::MyLatch);
        happened & pg_sys::WL_LATCH_SET as core::ffi::c_int != 0
    }
}

/// Whether the configuration was read again, since somebody asked for that.
pub fn reload_configuration() -> bool {
    // SAFETY: the flag is set by the handler; between statements the configuration can be read.
    unsafe {
        if pg_sys::ConfigReloadPending == 0 {
            return false;
        }
        pg_sys::ConfigReloadPending = 0;
        pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        true
    }
}

/// The settings that end what takes long, and that they do not.
#[cfg(any(feature = "pg14", feature = "pg15", feature = "pg16"))]
pub const TIMEOUTS: &[(&CStr, &CStr)] = &[(c"statement_timeout", c"0"), (c"lock_timeout", c"0")];
/// As above.
#[cfg(any(feature = "pg17", feature = "pg18"))]
pub const TIMEOUTS: &[(&CStr, &CStr)] =
    &[(c"statement_timeout", c"0"), (c"lock_timeout", c"0"), (c"transaction_timeout", c"0")];

/// A background worker: its name, and the function of this library that it runs.
fn worker(name: &str, function: &str) -> pg_sys::BackgroundWorker {
    // After a failure it is started again in so many seconds.
    const RESTART: i32 = 2;
    let mut worker = pg_sys::BackgroundWorker {
        bgw_flags: pg_sys::BGWORKER_SHMEM_ACCESS as i32,
        bgw_start_time: pg_sys::BgWorkerStartTime::BgWorkerStart_RecoveryFinished,
        bgw_restart_time: RESTART,
        ..Default::default()
    };
    set(&mut worker.bgw_name, name.as_bytes());
    set(&mut worker.bgw_type, name.as_bytes());
    set(&mut worker.bgw_library_name, b"bemi");
    set(&mut worker.bgw_function_name, function.as_bytes());
    worker
}

/// Has the server start a background worker when it is up. Only while libraries are preloaded.
pub fn register(name: &str, function: &str) {
    // SAFETY: the description is copied.
    unsafe { pg_sys::RegisterBackgroundWorker(&mut worker(name, function)) };
}

fn recorder(database: pg_sys::Oid) -> pg_sys::BackgroundWorker {
    let mut worker = worker("bemi recorder", "bemi_recorder_main");
    worker.bgw_flags |= pg_sys::BGWORKER_BACKEND_DATABASE_CONNECTION as i32;
    worker.bgw_main_arg = pg_sys::Datum::from(database);
    worker
}

/// Starts the recorder of a database; false if no worker is free.
pub fn launch_later(database: pg_sys::Oid) -> bool {
    // SAFETY: the description is copied; nobody asks for the handle.
    unsafe { pg_sys::RegisterDynamicBackgroundWorker(&mut recorder(database), core::ptr::null_mut()) }
}

/// Starts the recorder of a database, and waits until it runs; gives its process id, or 0 if it has ended already. None if
/// no worker is free.
pub fn launch(database: pg_sys::Oid) -> Option<i32> {
    // SAFETY: the description is copied; the handle belongs to the current memory context.
    unsafe {
        let mut worker = recorder(database);
        worker.bgw_notify_pid = pg_sys::MyProcPid;
        let mut handle: *mut pg_sys::BackgroundWorkerHandle = core::ptr::null_mut();
        if !pg_sys::RegisterDynamicBackgroundWorker(&mut worker, &mut handle) {
            return None;
        }
        let mut pid = 0;
        pg_sys::WaitForBackgroundWorkerStartup(handle, &mut pid);
        Some(pid)
    }
}

/// Writes a name, which has room, with the NUL behind it that is there already.
fn set(name: &mut [core::ffi::c_char], text: &[u8]) {
    for (to, from) in name.iter_mut().zip(text) {
        *to = *from as core::ffi::c_char;
    }
}
