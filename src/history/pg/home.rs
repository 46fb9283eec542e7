//! What readers of recorded values are made with.
use core::ffi::CStr;

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::sys::call::Call;
use crate::sys::catalog;

/// Where the server keeps what it allocates for readers, and the function of the extension that reads. All functions of the past
/// are called from SQL, so a transaction is active while there is one of these.
#[derive(Clone, Copy)]
pub struct Home {
    memory: pg_sys::MemoryContext,
    function: pg_sys::Oid,
}

impl Home {
    /// For what is kept as long as the expression that calls the function ([`Call::kept`]).
    pub fn of(call: &Call) -> Self {
        Self { memory: call.memory(), function: call.function() }
    }

    /// For what is made for this call alone.
    pub fn of_this_call(call: &Call) -> Self {
        // SAFETY: reads a pointer of the process.
        Self { memory: unsafe { pg_sys::CurrentMemoryContext }, function: call.function() }
    }

    /// Returns one for what has a memory context of its own, a child of this one.
    pub fn child(self, name: &CStr) -> Self {
        // SAFETY: the memory context is new, and lives as long as the one of which it is a child.
        let memory = unsafe {
            pg_sys::AllocSetContextCreateInternal(
                self.memory,
                name.as_ptr(),
                pg_sys::ALLOCSET_SMALL_MINSIZE as usize,
                pg_sys::ALLOCSET_SMALL_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            )
        };
        Self { memory, ..self }
    }

    /// Frees what was allocated for what was made with a [`Home::child`].
    ///
    /// # Safety
    /// It is a child, and nothing that was made with it is used afterwards.
    pub unsafe fn free(self) {
        // SAFETY: the memory context was made by `child`, and nothing in it is used.
        unsafe { pg_sys::MemoryContextDelete(self.memory) };
    }

    /// Looks a function up, to be called as long as the home is.
    pub fn function(self, function: pg_sys::Oid) -> Box<pg_sys::FmgrInfo> {
        let mut info = Box::new(pg_sys::FmgrInfo::default());
        // SAFETY: looks the function up in the catalogs; what the server allocates for it lives as long as the home.
        unsafe { pg_sys::fmgr_info_cxt(function, &mut *info, self.memory) };
        info
    }

    /// Copies the columns of a row type, for as long as the home is.
    pub fn row_type(self, type_oid: pg_sys::Oid) -> pg_sys::TupleDesc {
        // SAFETY: looks the type up in the catalogs; the copy, which no invalidation frees, belongs to the home's memory context,
        // which is left again.
        unsafe {
            let old = pg_sys::MemoryContextSwitchTo(self.memory);
            let descriptor = pg_sys::lookup_rowtype_tupdesc_copy(type_oid, -1);
            pg_sys::MemoryContextSwitchTo(old);
            descriptor
        }
    }

    /// Calls a function of the extension, which stands beside the one that is called, under the latest snapshot.
    ///
    /// # Safety
    /// The arguments are values of these types.
    pub unsafe fn call_latest(self, name: &CStr, arguments: &[(pg_sys::Oid, pg_sys::Datum)]) -> pg_sys::Datum {
        let types: Vec<pg_sys::Oid> = arguments.iter().map(|(type_oid, _)| *type_oid).collect();
        let Some(function) = catalog::function_beside(self.function, name, &types) else {
            error!("a function of the extension bemi is missing: {}", name.to_string_lossy());
        };
        let none = pg_sys::InvalidOid;
        let value = |index: usize| arguments.get(index).map_or(pg_sys::Datum::from(0), |(_, value)| *value);
        // SAFETY: the function was found by the types of the arguments, which are not null.
        latest(|| unsafe {
            match arguments.len() {
                1 => pg_sys::OidFunctionCall1Coll(function, none, value(0)),
                2 => pg_sys::OidFunctionCall2Coll(function, none, value(0), value(1)),
                5 => {
                    let (first, last) = ((value(0), value(1)), (value(2), value(3), value(4)));
                    pg_sys::OidFunctionCall5Coll(function, none, first.0, first.1, last.0, last.1, last.2)
                }
                count => error!("a function of the extension bemi is called with {count} arguments"),
            }
        })
    }

    /// Finds a function of the extension, which stands beside the one that is called.
    pub fn find(self, name: &CStr, types: &[pg_sys::Oid]) -> Option<pg_sys::Oid> {
        catalog::function_beside(self.function, name, types)
    }
}

/// Runs something under a snapshot that sees all that was committed, and what the transaction itself has done.
///
/// What is read of the catalogs, and of what was recorded a moment ago, is read as it is now, whatever the transaction's own
/// snapshot sees. The functions that are called are STABLE, so they read under the snapshot that is active.
fn latest<R>(work: impl FnOnce() -> R) -> R {
    // SAFETY: a transaction is active, since a `Home` is made in a call from SQL only. An error takes the snapshot away with the
    // transaction, or the savepoint, that it ends.
    unsafe {
        pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
        let result = work();
        pg_sys::PopActiveSnapshot();
        result
    }
}
