//! Locks on parts of the extension. No statement of SQL takes one, so only functions of this library hold them.
use pgrx::pg_sys;

/// What a lock is for: the number of the part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Part {
    /// Who starts, stops or begins the recorder of a database.
    Recorder = 1,
    /// Who makes tables, and who tracks all that are there.
    Tracking = 2,
}

/// Waits for a lock and holds it until the transaction ends, without giving the transaction an id. False if the
/// extension is not there.
pub fn take(part: Part, mode: u32) -> bool {
    let Some(extension) = extension() else { return false };
    // SAFETY: any number may be locked.
    unsafe {
        pg_sys::LockDatabaseObject(pg_sys::ExtensionRelationId, extension, part as u16, mode as pg_sys::LOCKMODE);
    }
    true
}

/// Takes a lock if nobody holds one that conflicts, and never stands in the queue for it. Returns whether it did.
pub fn try_take(part: Part, mode: u32) -> bool {
    let Some(extension) = extension() else { return false };
    let mode = mode as pg_sys::LOCKMODE;
    // SAFETY: any number may be locked.
    unsafe { pg_sys::ConditionalLockDatabaseObject(pg_sys::ExtensionRelationId, extension, part as u16, mode) }
}

fn extension() -> Option<pg_sys::Oid> {
    // SAFETY: looks a name up in the catalogs; one that is not there is no error.
    let extension = unsafe { pg_sys::get_extension_oid(c"bemi".as_ptr(), true) };
    (extension != pg_sys::InvalidOid).then_some(extension)
}
