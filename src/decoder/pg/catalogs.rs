//! Which catalog entries changed, as the server tells it.
use core::ffi::c_int;
use std::cell::RefCell;
use std::collections::HashSet;

use pgrx::pg_sys;
use pgrx::prelude::*;

/// What changed in the catalogs since it was last looked at.
#[derive(Debug, Default)]
pub struct Changed {
    /// More than can be told one by one.
    pub everything: bool,
    pub relations: HashSet<pg_sys::Oid>,
}

/// So many changed relations are forgotten one by one; of more, everything is.
const MAX_CHANGED: usize = 1000;

thread_local! {
    /// None as long as no decoder asks.
    static CHANGED: RefCell<Option<Changed>> = const { RefCell::new(None) };
}

/// Has the server tell about changes of the catalogs. It keeps its callbacks for as long as the process lives, so
/// they are registered once.
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

/// What changed since this was asked before; None if nothing did.
pub fn take_changes() -> Option<Changed> {
    CHANGED.with_borrow_mut(|changed| {
        changed.as_mut().filter(|changed| changed.everything || !changed.relations.is_empty()).map(std::mem::take)
    })
}

/// Only takes a note: it may be called while a relation is in use.
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

/// As above: a schema was made, renamed or dropped.
#[pg_guard]
unsafe extern "C-unwind" fn schema_changed(_argument: pg_sys::Datum, _cache: c_int, _hash: u32) {
    CHANGED.with_borrow_mut(|changed| {
        if let Some(changed) = changed {
            changed.everything = true;
        }
    });
}
