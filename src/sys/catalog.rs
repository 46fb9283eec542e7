//! Look-ups in the catalogs.
use core::ffi::{CStr, c_int};

use pgrx::pg_sys;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;

unsafe extern "C-unwind" {
    fn get_partition_ancestors(relation: pg_sys::Oid) -> *mut pg_sys::List;
}

/// pg_inherits and its index on inhrelid and inhseqno (catalog/pg_inherits.h).
const INHERITS: u32 = 2611;
const INHERITS_BY_CHILD: u32 = 2680;
/// The columns of pg_inherits that are used: a table, and one that it inherits from.
const CHILD: pg_sys::AttrNumber = 1;
const PARENT: usize = 1;

/// Returns the tables that a table or partition inherits from directly.
pub fn parents(table: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    let mut parents = Vec::new();
    // SAFETY: the catalog is open, and a key is for its first column, from the scan's beginning to its end; a row is
    // read before the next one is asked for. It begins with two OIDs, which are never null.
    unsafe {
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        let inherits = pg_sys::table_open(INHERITS.into(), lock);
        let mut key = pg_sys::ScanKeyData::default();
        let equal = pg_sys::BTEqualStrategyNumber as pg_sys::StrategyNumber;
        pg_sys::ScanKeyInit(&mut key, CHILD, equal, pg_sys::F_OIDEQ.into(), pg_sys::Datum::from(table));
        // Null takes the snapshot of the catalogs: while decoding, the historic one.
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

/// Returns the tables that a partition is a part of, from its parent up to the root.
pub fn partition_ancestors(partition: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    // SAFETY: the function takes any number, and returns a new list, which is empty for what is no partition.
    unsafe {
        let list = pg_guard_ffi_boundary(|| get_partition_ancestors(partition));
        let length = list.as_ref().map_or(0, |list| list.length);
        let ancestors = (0..length).map(|i| pg_sys::list_nth_oid(list, i)).collect();
        pg_sys::list_free(list);
        ancestors
    }
}

/// Returns whether the current role owns a relation, or has the rights of its owner. Raises an error if the relation
/// does not exist.
pub fn owns_relation(relation: pg_sys::Oid) -> bool {
    // SAFETY: both functions take any number; they look the relation up in the catalogs.
    unsafe {
        let role = pg_sys::GetUserId();
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        return pg_sys::pg_class_ownercheck(relation, role);
        #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
        return pg_sys::object_ownercheck(pg_sys::RelationRelationId, relation, role);
    }
}

/// Returns the function with a name and argument types in a schema, by the schema's name.
pub fn function(schema: &CStr, name: &CStr, arguments: &[pg_sys::Oid]) -> Option<pg_sys::Oid> {
    // SAFETY: the name is a C string, and with `true` a missing schema is no error.
    let schema = unsafe { pg_sys::get_namespace_oid(schema.as_ptr(), true) };
    (schema != pg_sys::InvalidOid).then(|| function_in(schema, name, arguments)).flatten()
}

/// Returns the function with a name and argument types in the schema of another function.
pub fn function_beside(function: pg_sys::Oid, name: &CStr, arguments: &[pg_sys::Oid]) -> Option<pg_sys::Oid> {
    // SAFETY: takes any number.
    let schema = unsafe { pg_sys::get_func_namespace(function) };
    function_in(schema, name, arguments)
}

fn function_in(schema: pg_sys::Oid, name: &CStr, arguments: &[pg_sys::Oid]) -> Option<pg_sys::Oid> {
    // SAFETY: the types are copied into a vector of the server's; the keys of this cache are a name, such a vector and
    // a schema, and its result is a number.
    unsafe {
        let types = pg_sys::buildoidvector(arguments.as_ptr(), arguments.len() as c_int);
        let found = pg_sys::GetSysCacheOid(
            pg_sys::SysCacheIdentifier::PROCNAMEARGSNSP as c_int,
            pg_sys::Anum_pg_proc_oid as pg_sys::AttrNumber,
            pg_sys::Datum::from(name.as_ptr()),
            pg_sys::Datum::from(types),
            pg_sys::Datum::from(schema),
            pg_sys::Datum::from(0),
        );
        (found != pg_sys::InvalidOid).then_some(found)
    }
}
