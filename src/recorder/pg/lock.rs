//! The lock that has only one transaction at a time start, stop or begin the recorder of a database.
use pgrx::pg_sys;

use crate::sys::extension_lock::{self, Part};

/// Takes it until the transaction ends, without giving the transaction an id. False if the extension is not there.
pub fn take() -> bool {
    extension_lock::take(Part::Recorder, pg_sys::ShareUpdateExclusiveLock)
}
