//! Background workers.
use core::ffi::c_char;

use pgrx::pg_sys;

/// After a failure the server starts a worker again in as many seconds.
const RESTART: i32 = 2;

/// A background worker that runs a function of this library.
#[derive(Clone, Copy, Debug)]
pub struct Worker {
    /// Its name in pg_stat_activity.
    pub name: &'static str,
    /// The name of its main function.
    pub function: &'static str,
    /// The database that it may connect to, and the argument of its function; None for neither.
    pub database: Option<pg_sys::Oid>,
}

impl Worker {
    /// Has the server start the worker when it is up. Only while libraries are preloaded.
    pub fn register(self) {
        // SAFETY: the server copies the description.
        unsafe { pg_sys::RegisterBackgroundWorker(&mut self.description()) };
    }

    /// Has the server start the worker soon. Returns false if no worker is free.
    pub fn launch_later(self) -> bool {
        // SAFETY: the server copies the description; null asks for no handle.
        unsafe { pg_sys::RegisterDynamicBackgroundWorker(&mut self.description(), core::ptr::null_mut()) }
    }

    /// Starts the worker, waits until it runs, and returns its process id, or 0 if it has ended already. None if no
    /// worker is free.
    pub fn launch(self) -> Option<i32> {
        let mut description = self.description();
        // SAFETY: the server copies the description, and makes a handle in the current memory context, which lasts
        // until the worker runs.
        unsafe {
            description.bgw_notify_pid = pg_sys::MyProcPid;
            let mut handle: *mut pg_sys::BackgroundWorkerHandle = core::ptr::null_mut();
            if !pg_sys::RegisterDynamicBackgroundWorker(&mut description, &mut handle) {
                return None;
            }
            let mut pid = 0;
            pg_sys::WaitForBackgroundWorkerStartup(handle, &mut pid);
            Some(pid)
        }
    }

    fn description(self) -> pg_sys::BackgroundWorker {
        let mut description = pg_sys::BackgroundWorker {
            bgw_flags: pg_sys::BGWORKER_SHMEM_ACCESS as i32,
            bgw_start_time: pg_sys::BgWorkerStartTime::BgWorkerStart_RecoveryFinished,
            bgw_restart_time: RESTART,
            ..Default::default()
        };
        if let Some(database) = self.database {
            description.bgw_flags |= pg_sys::BGWORKER_BACKEND_DATABASE_CONNECTION as i32;
            description.bgw_main_arg = pg_sys::Datum::from(database);
        }
        copy(&mut description.bgw_name, self.name);
        copy(&mut description.bgw_type, self.name);
        copy(&mut description.bgw_library_name, env!("CARGO_PKG_NAME"));
        copy(&mut description.bgw_function_name, self.function);
        description
    }
}

/// Copies a name into an array of zeros that is longer, so that it ends with a NUL.
fn copy(array: &mut [c_char], name: &str) {
    for (to, from) in array.iter_mut().zip(name.as_bytes()) {
        *to = *from as c_char;
    }
}
