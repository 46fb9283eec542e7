//! The settings that the text forms of values depend on. They are set as `to_jsonb` in a session with plain defaults
//! would see them, whatever the reader's session has, and only for the transaction that is being decoded: the server
//! decodes each in a transaction of its own and rolls it back, and the settings with it.
use core::ffi::CStr;

use pgrx::pg_sys;

/// The settings, and what they are set to.
pub const PINNED: [(&CStr, &CStr); 8] = [
    (c"DateStyle", c"ISO, MDY"),
    (c"IntervalStyle", c"postgres"),
    (c"TimeZone", c"UTC"),
    (c"extra_float_digits", c"1"),
    (c"bytea_output", c"hex"),
    (c"lc_monetary", c"C"),
    // The names of relations, functions and types (regclass and the like) get their schema, but for pg_catalog's.
    (c"search_path", c"pg_catalog"),
    (c"quote_all_identifiers", c"off"),
];

/// Sets them all until the end of the transaction.
pub fn pin() {
    for (name, value) in PINNED {
        // SAFETY: both are C strings, which the function copies.
        unsafe {
            pg_sys::set_config_option(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_USERSET,
                pg_sys::GucSource::PGC_S_SESSION,
                pg_sys::GucAction::GUC_ACTION_LOCAL,
                true,
                0,
                false,
            );
        }
    }
}
