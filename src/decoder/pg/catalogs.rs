//! Which catalog entries changed, as the server reports it.
use core::ffi::c_int;
use std::cell::RefCell;
use std::collections::HashSet;

use pgrx::pg_sys;
use pgrx::prelude::*;

/// What changed in the catalogs since it was last looked at.
#[derive(Debug, Default)]
pub struct Changed {
    /// More than is listed.
    pub everything: bool,
    /// These relations.
    pub relations: HashSet<pg_sys::Oid>,
}

/// At most this many changed relations are listed; with more, everything is forgotten.
const MAX_CHANGED: usize = 1000;

thread_local! {
    /// None until a decoder asks.
    static CHANGED: RefCell<Option<Changed>> = const { RefCell::new(None) };
}

/// Begins to collect changes of the catalogs. The server keeps its callbacks as long as the process lives, so they are
/// registered once.
pub fn watch() {
    let is_first = CHANGED.with_borrow_mut(|changed| changed.replace(Changed::default()).is_none());
    if is_first {
        // SAFETY: the callbacks are guarded and take no argument.
        unsafe {
            pg_sys::CacheRegisterRelcacheCallback(Some(relation_changed), pg_sys::Datum::from(0));
            let schemas = pg_sys::SysCacheIdentifier::NAMESPACEOID as c_int;
            pg_sys::CacheRegisterSyscacheCallback(schemas, Some(schema_changed), pg_sys::Datum::from(0));
        }
    }
}

/// Returns what has changed since the last call; None if nothing has.
pub fn take_changes() -> Option<Changed> {
    CHANGED.with_borrow_mut(|changed| {
        changed.as_mut().filter(|changed| changed.everything || !changed.relations.is_empty()).map(std::mem::take)
    })
}

/// Only adds to the list: the server may call it while a relation is in use.
#[pg_guard]
unsafe extern "C-unwind" fn relation_changed(_argument: pg_sys::Datum, relation: pg_sys::Oid) {
    CHANGED.with_borrow_mut(|changed| {
        let Some(changed) = changed else { return };
        if relation == pg_sys::InvalidOid || changed.relations.len() >= MAX_CHANGED {
            changed.everything = true;
        } else if !changed.everything {
            changed.relations.insert(relation);
        }
    });
}

/// As above: a schema was created, renamed or dropped.
#[pg_guard]
unsafe extern "C-unwind" fn schema_changed(_argument: pg_sys::Datum, _cache: c_int, _hash: u32) {
    CHANGED.with_borrow_mut(|changed| {
        if let Some(changed) = changed {
            changed.everything = true;
        }
    });
}
