//! Settings of the server.
use core::cell::Cell;
use core::ffi::CStr;

use pgrx::pg_sys;

/// How long a setting keeps the value that it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// As SET: for the rest of the session.
    Session,
    /// As SET LOCAL: until the transaction ends.
    Transaction,
    /// As a function's SET: until the nest level ends that the caller has begun.
    NestLevel,
}

/// Sets a setting with the rights of an ordinary user. Raises the error of a value that the setting does not accept.
pub fn set(name: &CStr, value: &CStr, scope: Scope) {
    use pg_sys::{GucAction, GucContext, GucSource};
    let action = match scope {
        Scope::Session => GucAction::GUC_ACTION_SET,
        Scope::Transaction => GucAction::GUC_ACTION_LOCAL,
        Scope::NestLevel => GucAction::GUC_ACTION_SAVE,
    };
    let (context, source) = (GucContext::PGC_USERSET, GucSource::PGC_S_SESSION);
    // SAFETY: the function copies both C strings before it returns.
    unsafe { pg_sys::set_config_option(name.as_ptr(), value.as_ptr(), context, source, action, true, 0, false) };
}

/// Reserves the names of settings that begin with `prefix` and a dot for those that are defined: from PostgreSQL 15 on, another
/// one is an error, and one that was set before is removed with a WARNING; PostgreSQL 14 has only the WARNING.
pub fn reserve_prefix(prefix: &CStr) {
    // SAFETY: the function copies the C string before it returns.
    unsafe {
        #[cfg(feature = "pg14")]
        pg_sys::EmitWarningsOnPlaceholders(prefix.as_ptr());
        #[cfg(not(feature = "pg14"))]
        pg_sys::MarkGUCPrefixReserved(prefix.as_ptr());
    }
}

/// Sets settings for the rest of the session, whatever the database, the role or the configuration files say of them.
pub fn pin<'a>(settings: impl IntoIterator<Item = (&'a CStr, &'a CStr)>) {
    use pg_sys::{GucContext, GucSource};
    for (name, value) in settings {
        // SAFETY: the function copies both C strings before it returns.
        unsafe {
            pg_sys::SetConfigOption(name.as_ptr(), value.as_ptr(), GucContext::PGC_SUSET, GucSource::PGC_S_OVERRIDE);
        }
    }
}

/// The settings that cancel what takes long, with the values that turn them off.
#[cfg(any(feature = "pg14", feature = "pg15", feature = "pg16"))]
pub const NO_TIMEOUTS: &[(&CStr, &CStr)] = &[(c"statement_timeout", c"0"), (c"lock_timeout", c"0")];
/// The settings that cancel what takes long, with the values that turn them off.
#[cfg(any(feature = "pg17", feature = "pg18"))]
pub const NO_TIMEOUTS: &[(&CStr, &CStr)] =
    &[(c"statement_timeout", c"0"), (c"lock_timeout", c"0"), (c"transaction_timeout", c"0")];

/// Returns whether `standard_conforming_strings` still has the value with which the session began, and has had it all
/// the time since the text of the running statement arrived: neither the session, the transaction nor a function has
/// set it.
pub fn standard_conforming_strings_is_untouched() -> bool {
    thread_local! {
        static FOUND: Cell<*const pg_sys::config_generic> = const { Cell::new(core::ptr::null()) };
    }
    // SAFETY: the server never moves or frees the record of a setting of its own while the process lives.
    unsafe {
        if FOUND.get().is_null() {
            FOUND.set(find(c"standard_conforming_strings"));
        }
        FOUND
            .get()
            .as_ref()
            .is_some_and(|found| found.source < pg_sys::GucSource::PGC_S_SESSION && found.stack.is_null())
    }
}

#[cfg(any(feature = "pg14", feature = "pg15"))]
fn find(name: &CStr) -> *const pg_sys::config_generic {
    // SAFETY: the server's array has GetNumConfigOptions() members, each with a name that is a C string.
    unsafe {
        let all = core::slice::from_raw_parts(pg_sys::get_guc_variables(), pg_sys::GetNumConfigOptions() as usize);
        let found = all.iter().find(|setting| CStr::from_ptr((***setting).name) == name);
        found.map_or(core::ptr::null(), |found| found.cast_const())
    }
}

#[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
fn find(name: &CStr) -> *const pg_sys::config_generic {
    // SAFETY: the function only reads the name, and returns null for a setting that does not exist.
    unsafe { pg_sys::find_option(name.as_ptr(), false, true, pg_sys::WARNING as i32) }
}
