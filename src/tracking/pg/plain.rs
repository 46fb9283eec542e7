//! Whether writing into a table runs nothing but the server's own code, as the server knows the table at this moment: a
//! query would see what the catalogs held when the snapshot of its transaction was taken, which may be long ago.
use core::ffi::{CStr, c_char, c_int};

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::sys::arguments::argument;

/// What fires when rows are inserted, deleted or updated (catalog/pg_trigger.h).
const FIRES_ON_ROWS: i16 =
    (pg_sys::TRIGGER_TYPE_INSERT | pg_sys::TRIGGER_TYPE_DELETE | pg_sys::TRIGGER_TYPE_UPDATE) as i16;

/// `bemi.is_plain(oid)`: whether a table belongs to a superuser, nobody else may write it, and nothing that others may have
/// made runs when it is written. False also where that needs a closer look. Keeps a lock, ROW EXCLUSIVE, with which none of
/// it changes until the transaction ends, but for rights; whoever gets those has to wait with what he makes of them.
///
/// # Safety
/// Called by the server, with an argument that is not null.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_is_plain(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the server's call. The relation stays open and locked while it is looked at.
    let is_plain = unsafe {
        let relation = argument(fcinfo, 0).map_or(pg_sys::InvalidOid, |datum| pg_sys::Oid::from(datum.value() as u32));
        let relation = pg_sys::relation_open(relation, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE);
        let is_plain = is_alone(relation) && has_no_rights(relation) && indexes_are_plain(relation);
        pg_sys::relation_close(relation, pg_sys::NoLock as pg_sys::LOCKMODE);
        is_plain
    };
    pg_sys::Datum::from(is_plain)
}

/// Whether it is a table of a superuser without children, rules, triggers on rows, and expressions and types of others.
///
/// # Safety
/// The relation is open and locked.
unsafe fn is_alone(relation: pg_sys::Relation) -> bool {
    // SAFETY: the caller's promise: what the entry of the relation points to stays there while it is locked, since nothing
    // below reads a catalog but superuser_arg(), which comes first.
    unsafe {
        if !pg_sys::superuser_arg((*(*relation).rd_rel).relowner) {
            return false;
        }
        let form = &*(*relation).rd_rel;
        let is_table = form.relkind == pg_sys::RELKIND_RELATION as c_char && !form.relispartition;
        if !is_table || form.relhassubclass || form.relhasrules {
            return false;
        }
        if let Some(triggers) = (*relation).trigdesc.as_ref() {
            let fires = |i: c_int| (*triggers.triggers.add(i as usize)).tgtype & FIRES_ON_ROWS != 0;
            if (0..triggers.numtriggers).any(fires) {
                return false;
            }
        }
        let descriptor = (*relation).rd_att;
        if let Some(constraints) = (*descriptor).constr.as_ref() {
            let has_own_check = |i: u16| !is_own(CStr::from_ptr((*constraints.check.add(i as usize)).ccbin));
            let has_own_default = |i: u16| !is_own(CStr::from_ptr((*constraints.defval.add(i as usize)).adbin));
            if (0..constraints.num_check).any(has_own_check) || (0..constraints.num_defval).any(has_own_default) {
                return false;
            }
        }
        let is_of_user = |i: usize| {
            let column = crate::sys::column(descriptor, i);
            !column.attisdropped && column.atttypid.to_u32() >= pg_sys::FirstNormalObjectId
        };
        !(0..(*descriptor).natts as usize).any(is_of_user)
    }
}

/// Whether nobody but its owner has any right to it but that to read it.
///
/// # Safety
/// The relation is open and locked.
unsafe fn has_no_rights(relation: pg_sys::Relation) -> bool {
    use pg_sys::SysCacheIdentifier::{ATTNUM, RELOID};
    // SAFETY: an entry of the cache is held while it is read, and what is taken from it is not kept.
    unsafe {
        let (oid, owner) = ((*relation).rd_id, (*(*relation).rd_rel).relowner);
        let mut is_null = false;
        let row = pg_sys::SearchSysCache1(RELOID as c_int, pg_sys::Datum::from(oid));
        if row.is_null() {
            return false;
        }
        let rights = pg_sys::SysCacheGetAttr(RELOID as c_int, row, pg_sys::Anum_pg_class_relacl as i16, &mut is_null);
        let may_write = !is_null && {
            let rights: *mut pg_sys::Acl = pg_sys::pg_detoast_datum_copy(rights.cast_mut_ptr()).cast();
            others_may_write(rights, owner)
        };
        pg_sys::ReleaseSysCache(row);
        let has_rights = |number: usize| {
            let (key, number) = (pg_sys::Datum::from(oid), pg_sys::Datum::from(number as i16));
            let row = pg_sys::SearchSysCache2(ATTNUM as c_int, key, number);
            if row.is_null() {
                return true;
            }
            let mut is_null = false;
            pg_sys::SysCacheGetAttr(ATTNUM as c_int, row, pg_sys::Anum_pg_attribute_attacl as i16, &mut is_null);
            pg_sys::ReleaseSysCache(row);
            !is_null
        };
        !may_write && !(1..=(*(*relation).rd_att).natts as usize).any(has_rights)
    }
}

/// Whether somebody but the owner has a right that is not only to read.
///
/// # Safety
/// `rights` is an array of the server's, not toasted.
unsafe fn others_may_write(rights: *mut pg_sys::Acl, owner: pg_sys::Oid) -> bool {
    // SAFETY: the caller's promise. Of one dimension, its members begin after the header and two numbers, aligned; an
    // array of rights has no nulls (utils/acl.h).
    unsafe {
        if (*rights).ndim != 1 || (*rights).dataoffset != 0 {
            return true;
        }
        let header = size_of::<pg_sys::ArrayType>();
        let length = *rights.cast::<u8>().add(header).cast::<c_int>();
        let start = (header + 2 * size_of::<c_int>()).next_multiple_of(pg_sys::MAXIMUM_ALIGNOF as usize);
        let first: *const pg_sys::AclItem = rights.cast::<u8>().add(start).cast();
        (0..length as usize).any(|i| {
            let item = &*first.add(i);
            let granted = item.ai_privs & (pg_sys::AclMode::MAX >> (pg_sys::AclMode::BITS / 2));
            item.ai_grantee != owner && granted & !(pg_sys::ACL_SELECT as pg_sys::AclMode) != 0
        })
    }
}

/// Whether its indexes have no expressions and predicates of others.
///
/// # Safety
/// The relation is open and locked.
unsafe fn indexes_are_plain(relation: pg_sys::Relation) -> bool {
    // SAFETY: the list is a copy; each index is open and locked while it is looked at.
    unsafe {
        let indexes = pg_sys::RelationGetIndexList(relation);
        let length = indexes.as_ref().map_or(0, |list| list.length);
        (0..length).all(|i| {
            let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
            let index = pg_sys::index_open(pg_sys::list_nth_oid(indexes, i), lock);
            let trees = [pg_sys::RelationGetIndexExpressions(index), pg_sys::RelationGetIndexPredicate(index)];
            pg_sys::index_close(index, lock);
            trees.into_iter().all(|tree| tree.is_null() || is_own(CStr::from_ptr(pg_sys::nodeToString(tree.cast()))))
        })
    }
}

/// Whether an expression, as the catalogs have it, names nothing that was made after the server: a number in it may be
/// that of a function, operator or type, but for the places in the text that it was made of.
fn is_own(tree: &CStr) -> bool {
    let is_own = |word: &[u8]| {
        let numbers = word.split(|byte| !byte.is_ascii_digit());
        let value = |digits: &[u8]| {
            digits.iter().fold(0u64, |sum, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0')))
        };
        numbers.map(value).all(|number| number < u64::from(pg_sys::FirstNormalObjectId))
    };
    let words: Vec<&[u8]> = tree.to_bytes().split(u8::is_ascii_whitespace).collect();
    (0..words.len()).all(|i| i > 0 && words[i - 1] == b":location" || is_own(words[i]))
}

crate::sys::sql_callable!(pg_finfo_bemi_is_plain);
