//! Look-ups in the catalogs.
use core::ffi::c_int;

use pgrx::pg_sys;

/// pg_inherits and its index on inhrelid and inhseqno (catalog/pg_inherits.h).
const INHERITS: u32 = 2611;
const INHERITS_BY_CHILD: u32 = 2680;
/// The columns of pg_inherits that are used: a table, and one that it inherits from.
const CHILD: pg_sys::AttrNumber = 1;
const PARENT: usize = 1;

/// The tables that a table or partition inherits from directly. Reads the catalogs.
pub fn parents(table: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    let mut parents = Vec::new();
    // SAFETY: the catalog is open, and a key is for its first column, from the scan's beginning to its end; a row is read
    // before the next one is asked for. It begins with two OIDs, which are never null.
    unsafe {
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        let inherits = pg_sys::table_open(INHERITS.into(), lock);
        let mut key = pg_sys::ScanKeyData::default();
        let equal = pg_sys::BTEqualStrategyNumber as pg_sys::StrategyNumber;
        pg_sys::ScanKeyInit(&mut key, CHILD, equal, pg_sys::F_OIDEQ.into(), pg_sys::Datum::from(table));
        // Without a snapshot of ours it is that of the catalogs: while decoding, the historic one.
        let snapshot = core::ptr::null_mut();
        let scan = pg_sys::systable_beginscan(inherits, INHERITS_BY_CHILD.into(), true, snapshot, 1, &mut key);
        loop {
            let row = pg_sys::systable_getnext(scan);
            if row.is_null() {
                break;
            }
            parents.push(*pg_sys::GETSTRUCT(row).cast::<pg_sys::Oid>().add(PARENT));
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(inherits, lock);
    }
    parents
}

/// The trigger function of this extension, `bemi.emit_context()`; None if there is none. Reads the catalogs.
pub fn emit_context() -> Option<pg_sys::Oid> {
    // SAFETY: looks a schema and a function up by names that are C strings; the list of argument types is empty, and all
    // that is kept is a number.
    unsafe {
        let schema = pg_sys::get_namespace_oid(c"bemi".as_ptr(), true);
        if schema == pg_sys::InvalidOid {
            return None;
        }
        let no_types = pg_sys::buildoidvector(core::ptr::null(), 0);
        let found = pg_sys::GetSysCacheOid(
            pg_sys::SysCacheIdentifier::PROCNAMEARGSNSP as c_int,
            pg_sys::Anum_pg_proc_oid as pg_sys::AttrNumber,
            pg_sys::Datum::from(c"emit_context".as_ptr()),
            pg_sys::Datum::from(no_types),
            pg_sys::Datum::from(schema),
            pg_sys::Datum::from(0),
        );
        (found != pg_sys::InvalidOid).then_some(found)
    }
}
