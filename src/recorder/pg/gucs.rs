//! The settings of the recorder.
use core::ffi::{CStr, c_char, c_void};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use pgrx::prelude::*;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, PgTryBuilder, pg_sys};

static FLUSH_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(100);
static TRACKED_ONLY: GucSetting<bool> = GucSetting::<bool>::new(true);
/// Read by `bemi.may_drop()`.
static ALLOW_DROP: GucSetting<bool> = GucSetting::<bool>::new(false);
/// The value of `bemi.retention`, kept by the server.
static mut RETENTION: *mut c_char = core::ptr::null_mut();

/// Defines the settings.
pub fn define() {
    GucRegistry::define_int_guc(
        c"bemi.flush_interval",
        c"Sets how long changes wait at most until they are recorded, if there is nothing else to do.",
        c"",
        &FLUSH_INTERVAL,
        1,
        60_000,
        GucContext::Suset,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_bool_guc(
        c"bemi.tracked_only",
        c"Records the changes of tracked tables only.",
        c"",
        &TRACKED_ONLY,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"bemi.allow_drop",
        c"Allows DROP and TRUNCATE of what is recorded, and DROP TRIGGER of tracked tables without a warning.",
        c"",
        &ALLOW_DROP,
        GucContext::Userset,
        GucFlags::default(),
    );
    // SAFETY: RETENTION is a static, so the server may write there as long as the process lives. The hook is guarded,
    // and the server copies the texts.
    unsafe {
        pg_sys::DefineCustomStringVariable(
            c"bemi.retention".as_ptr(),
            c"Sets for how long recorded changes are kept: an interval.".as_ptr(),
            c"Months that are older are dropped whole. Empty to keep all.".as_ptr(),
            &raw mut RETENTION,
            c"".as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            0,
            Some(check_retention),
            None,
            None,
        );
    }
}

/// Accepts intervals from a day up to a thousand years. The server may call it outside of a transaction.
#[pg_guard]
unsafe extern "C-unwind" fn check_retention(
    newval: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: the server passes a C string, or null for a setting without a value.
    let text = unsafe { if (*newval).is_null() { return true } else { CStr::from_ptr(*newval) } };
    if text.is_empty() {
        return true;
    }
    PgTryBuilder::new(AssertUnwindSafe(|| {
        let arguments = (pg_sys::Datum::from(text.as_ptr()), pg_sys::Datum::from(0), pg_sys::Datum::from(-1));
        // The server finds its own functions without the catalogs.
        // SAFETY: the input function of the type takes a C string, a type and a modifier, and returns a new interval.
        unsafe {
            let interval: *const pg_sys::Interval = pg_sys::OidFunctionCall3Coll(
                pg_sys::Oid::from(pg_sys::F_INTERVAL_IN),
                pg_sys::InvalidOid,
                arguments.0,
                arguments.1,
                arguments.2,
            )
            .cast_mut_ptr();
            let days =
                i64::from((*interval).month) * 30 + i64::from((*interval).day) + (*interval).time / 86_400_000_000;
            // A thousand years are within what the server can count back.
            days > 0 && days < 365_000
        }
    }))
    .catch_others(|_| false)
    .execute()
}

/// Returns how long the worker waits for more when it has recorded everything (`bemi.flush_interval`).
pub fn flush_interval() -> Duration {
    Duration::from_millis(u64::from(FLUSH_INTERVAL.get().unsigned_abs()))
}

/// Returns whether untracked tables are left out (`bemi.tracked_only`).
pub fn tracked_only() -> bool {
    TRACKED_ONLY.get()
}

/// Returns how long changes are kept, as the type interval reads it (`bemi.retention`); None to keep all.
pub fn retention() -> Option<String> {
    // SAFETY: the server stores only null or a C string there, and changes it only between the worker's statements.
    let text = unsafe { if RETENTION.is_null() { c"" } else { CStr::from_ptr(RETENTION) } };
    (!text.is_empty()).then(|| text.to_string_lossy().into_owned())
}

/// Returns how large temporary files may grow, in bytes (`temp_file_limit`).
pub fn temporary_file_limit() -> u64 {
    // SAFETY: reads a setting of the process, in kB.
    u64::try_from(unsafe { pg_sys::temp_file_limit }).map_or(u64::MAX, |kilobytes| kilobytes * 1024)
}
