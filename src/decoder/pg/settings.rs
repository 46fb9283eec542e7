//! The settings on which the text forms of values depend: pinned as [`crate::pinned`] says, and only for the transaction that is
//! being decoded. The server decodes each in a transaction of its own and rolls that back, and the settings with it.
use pgrx::pg_sys;

use crate::pinned::{self, Need};

/// Pins them until the end of the transaction.
pub fn pin() {
    for (name, value) in pinned::of(Need::Writing) {
        // SAFETY: both are C strings, which the function copies; decoding runs in a transaction.
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
