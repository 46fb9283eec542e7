//! The running process: its signals, its waiting, its end, and what it shows of itself.
use core::ffi::{c_int, c_long};
use std::ffi::CString;
use std::time::{Duration, Instant};

use pgrx::pg_sys;

unsafe extern "C-unwind" {
    fn die(signal: c_int);
    fn SignalHandlerForConfigReload(signal: c_int);
    fn IsLogicalWorker() -> bool;
}

/// Keeps stack traces out of the errors that pass through this library, whatever the server's environment asks for:
/// clients would get them as DETAIL. Rust looks at the environment once in each library, when it is asked for a trace
/// first.
pub fn keep_stack_traces_off() {
    const SETTING: &str = "RUST_LIB_BACKTRACE";
    let was = std::env::var_os(SETTING);
    // SAFETY: a process of the server has one thread when it loads a library. The environment is as before afterwards.
    unsafe {
        std::env::set_var(SETTING, "0");
        let _ = std::backtrace::Backtrace::capture();
        match was {
            Some(was) => std::env::set_var(SETTING, was),
            None => std::env::remove_var(SETTING),
        }
    }
}

/// Returns whether this process applies the changes of logical replication, or copies a table for it.
pub fn is_apply_worker() -> bool {
    // SAFETY: reads a pointer of the process, and raises no error.
    unsafe { IsLogicalWorker() }
}

/// Has SIGTERM end the process at the next check, and SIGHUP ask for the configuration to be read again.
pub fn handle_signals() {
    // SAFETY: both handlers are the server's own, and safe in a signal. A background worker begins with its signals
    // blocked.
    unsafe {
        for (signal, handler) in [
            (pg_sys::SIGTERM, die as unsafe extern "C-unwind" fn(c_int)),
            (pg_sys::SIGHUP, SignalHandlerForConfigReload),
        ] {
            #[cfg(not(feature = "pg18"))]
            pg_sys::pqsignal(signal as c_int, Some(handler));
            #[cfg(feature = "pg18")]
            pg_sys::pqsignal_be(signal as c_int, Some(handler));
        }
        pg_sys::BackgroundWorkerUnblockSignals();
    }
}

/// Ends the process, or cancels what it does, if a signal has asked for that.
pub fn check_interrupts() {
    pgrx::check_for_interrupts!();
}

/// Shows in pg_stat_activity what the process does, and whether it is at work.
pub fn show(activity: &str, is_busy: bool) {
    let text = CString::new(activity.replace('\0', " ")).unwrap_or_default();
    let state = if is_busy { pg_sys::BackendState::STATE_RUNNING } else { pg_sys::BackendState::STATE_IDLE };
    // SAFETY: the server copies the C string.
    unsafe { pg_sys::pgstat_report_activity(state, text.as_ptr()) };
}

/// Returns whether others see in pg_stat_activity what [`show`] is given.
pub fn is_shown() -> bool {
    // SAFETY: reads a setting of the process.
    unsafe { pg_sys::pgstat_track_activities }
}

/// Ends the process. The server does not start a background worker again that ends with 0; one that ends with 1 it
/// does, after a while.
#[allow(unreachable_code, reason = "PostgreSQL 18's headers do not say in our words that proc_exit does not return")]
pub fn exit(code: i32) -> ! {
    // SAFETY: the function runs what the server has registered for the end of the process, and does not return.
    unsafe { pg_sys::proc_exit(code) };
    unreachable!("the process has ended")
}

/// Waits for a time, even if somebody wakes this process, or until the configuration is to be read again.
pub fn sleep(duration: Duration) {
    let start = Instant::now();
    while let Some(rest) = duration.checked_sub(start.elapsed()).filter(|rest| rest.as_millis() > 0) {
        wait(rest);
        check_interrupts();
        // SAFETY: reads a flag of the process that its own signal handler sets.
        if unsafe { pg_sys::ConfigReloadPending } != 0 {
            return;
        }
    }
}

/// Waits for a time, or until somebody wakes this process, and returns whether somebody did. Ends the process if the
/// server ends.
pub fn wait(duration: Duration) -> bool {
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    // SAFETY: a process may wait for its own latch and reset it.
    unsafe {
        let happened = pg_sys::WaitLatch(
            pg_sys::MyLatch,
            events as c_int,
            duration.as_millis() as c_long,
            pg_sys::PG_WAIT_EXTENSION,
        );
        pg_sys::ResetLatch(pg_sys::MyLatch);
        happened & pg_sys::WL_LATCH_SET as c_int != 0
    }
}

/// Wakes another process of the server. Does nothing if no process has the id.
pub fn wake(pid: i32) {
    // SAFETY: what is found is a slot in shared memory, which stays there. If its process has ended since, the
    // latch is that of the next one, which takes a wake-up without a reason.
    unsafe {
        let process = pg_sys::BackendPidGetProc(pid);
        if !process.is_null() {
            pg_sys::SetLatch(&raw mut (*process).procLatch);
        }
    }
}

/// Reads the configuration again if a signal has asked for that, and returns whether it did. Between statements only.
pub fn reload_configuration() -> bool {
    // SAFETY: the flag is set by the process's own signal handler; no statement runs that depends on the settings.
    unsafe {
        if pg_sys::ConfigReloadPending == 0 {
            return false;
        }
        pg_sys::ConfigReloadPending = 0;
        pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        true
    }
}
