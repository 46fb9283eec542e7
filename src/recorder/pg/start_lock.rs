//! The lock that lets only one transaction at a time start, stop or begin the recorder of a database.
use pgrx::pg_sys;

use crate::sys::lock::Part;

/// The part of the extension that is locked. Tracking has 2.
const RECORDER: Part = Part { extension: c"bemi", number: 1 };

/// Takes the lock until the transaction ends, without giving the transaction an id. Returns false if the extension does
/// not exist.
pub fn take() -> bool {
    RECORDER.lock(pg_sys::ShareUpdateExclusiveLock)
}
