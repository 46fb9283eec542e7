//! Locks on parts of an extension. No SQL statement takes one, so only functions of the extension's library hold them.
use core::ffi::CStr;

use pgrx::pg_sys;

/// A part of an extension that can be locked. Parts of one extension have different numbers.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// The name of the extension.
    pub extension: &'static CStr,
    /// The number of the part, from 1 on: 0 is the extension itself.
    pub number: u16,
}

impl Part {
    /// Waits for a lock and holds it until the transaction ends, without giving the transaction an id. Returns false if
    /// the extension does not exist.
    pub fn lock(self, mode: u32) -> bool {
        let Some(extension) = self.extension() else { return false };
        // SAFETY: the lock manager takes any number for an object, whether or not one has it.
        unsafe {
            pg_sys::LockDatabaseObject(pg_sys::ExtensionRelationId, extension, self.number, mode as pg_sys::LOCKMODE);
        }
        true
    }

    /// Takes a lock if nobody holds one that conflicts; never stands in the queue for it. Returns whether it took it.
    pub fn try_lock(self, mode: u32) -> bool {
        let Some(extension) = self.extension() else { return false };
        let (catalog, mode) = (pg_sys::ExtensionRelationId, mode as pg_sys::LOCKMODE);
        // SAFETY: the lock manager takes any number for an object, whether or not one has it.
        unsafe { pg_sys::ConditionalLockDatabaseObject(catalog, extension, self.number, mode) }
    }

    fn extension(self) -> Option<pg_sys::Oid> {
        // SAFETY: the name is a C string, and with `true` a missing extension is no error.
        let extension = unsafe { pg_sys::get_extension_oid(self.extension.as_ptr(), true) };
        (extension != pg_sys::InvalidOid).then_some(extension)
    }
}
