//! The lock that has only one transaction at a time start, stop or begin the recorder of a database.
use pgrx::pg_sys;

/// No statement of SQL takes a lock on a part of an extension, so nobody can hold it up.
const PART: u16 = 1;

/// Takes it until the transaction ends, without giving the transaction an id. False if the extension is not there.
pub fn take() -> bool {
    // SAFETY: looks a name up; any number may be locked.
    unsafe {
        let extension = pg_sys::get_extension_oid(c"bemi".as_ptr(), true);
        if extension == pg_sys::InvalidOid {
            return false;
        }
        let mode = pg_sys::ShareUpdateExclusiveLock as pg_sys::LOCKMODE;
        pg_sys::LockDatabaseObject(pg_sys::ExtensionRelationId, extension, PART, mode);
        true
    }
}
