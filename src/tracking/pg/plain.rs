//! Whether reading and writing a table runs only the server's own code, as the server knows the table at this moment: a
//! query would see the catalogs as they were when its transaction took its snapshot, which may be long ago.
use core::ffi::{CStr, c_char, c_int};
use std::ffi::CString;

use pgrx::pg_sys;

use crate::sys::call::Call;
use crate::sys::function::sql_functions;
use crate::sys::{catalog, descriptor};

sql_functions!(bemi_is_plain => is_plain);

/// What fires when rows are inserted, deleted or updated (catalog/pg_trigger.h).
const FIRES_ON_ROWS: i16 =
    (pg_sys::TRIGGER_TYPE_INSERT | pg_sys::TRIGGER_TYPE_DELETE | pg_sys::TRIGGER_TYPE_UPDATE) as i16;

/// `bemi.is_plain(oid, boolean)`: returns whether a table belongs to a superuser, nobody else may write it, and nothing
/// that others may have made runs when it is read or written; or whether a view is a superuser's, and as it was made.
/// False also where that needs a closer look. Keeps a lock with which that stays so until the transaction ends, ROW
/// EXCLUSIVE if it is to be written, else ACCESS SHARE: rights can change, but whoever gets them has to wait with what
/// he makes of them.
fn is_plain(relation: pg_sys::Oid, is_written: bool, call: Call<'_>) -> bool {
    let own = call.function();
    let lock = if is_written { pg_sys::RowExclusiveLock } else { pg_sys::AccessShareLock };
    // SAFETY: the relation stays open and locked until the end of this block.
    unsafe {
        let relation = pg_sys::try_relation_open(relation, lock as pg_sys::LOCKMODE);
        if relation.is_null() {
            // It has been dropped: nothing is there to be read.
            return true;
        }
        let is_plain = pg_sys::superuser_arg((*(*relation).rd_rel).relowner)
            && if (*(*relation).rd_rel).relkind == pg_sys::RELKIND_VIEW as c_char {
                is_as_made((*relation).rd_id)
            } else {
                is_alone(relation, is_written, own)
                    && has_no_rights(relation)
                    && trees(relation).iter().all(|tree| is_own(tree))
            };
        pg_sys::relation_close(relation, pg_sys::NoLock as pg_sys::LOCKMODE);
        is_plain
    }
}

/// Returns whether the rule of a view is of the transaction that created its columns: one that replaced it is of
/// another.
///
/// # Safety
/// The relation is open and locked.
unsafe fn is_as_made(view: pg_sys::Oid) -> bool {
    use pg_sys::SysCacheIdentifier::{ATTNUM, RULERELNAME};
    // SAFETY: the relation is locked, so it has a name, which is a copy. The rows are held while they are read; the
    // keys are of the types of the caches.
    unsafe {
        // Elsewhere there should be a table.
        if CStr::from_ptr(pg_sys::get_rel_name(view)) != c"context_triggers" {
            return false;
        }
        let key = pg_sys::Datum::from(view);
        let rule = pg_sys::SearchSysCache2(RULERELNAME as c_int, key, pg_sys::Datum::from(c"_RETURN".as_ptr()));
        let column = pg_sys::SearchSysCache2(ATTNUM as c_int, key, pg_sys::Datum::from(1i16));
        let made = |row: pg_sys::HeapTuple| (!row.is_null()).then(|| (*(*row).t_data).t_choice.t_heap.t_xmin);
        let is_as_made = made(rule).is_some() && made(rule) == made(column);
        for row in [rule, column].into_iter().filter(|row| !row.is_null()) {
            pg_sys::ReleaseSysCache(row);
        }
        is_as_made
    }
}

/// Returns whether it is a table without parents and children, rules, extended statistics and types of others, and, if
/// it is written, without triggers on rows but those of the extension, of which `own` is a function.
///
/// # Safety
/// The relation is open and locked.
unsafe fn is_alone(relation: pg_sys::Relation, is_written: bool, own: pg_sys::Oid) -> bool {
    // SAFETY: what the entry of an open relation points to stays there while nothing reads a catalog, which only the
    // last expression does.
    unsafe {
        let form = &*(*relation).rd_rel;
        let is_table = form.relkind == pg_sys::RELKIND_RELATION as c_char && !form.relispartition;
        if !is_table || form.relhassubclass || form.relhasrules {
            return false;
        }
        let mut functions = Vec::new();
        if let Some(triggers) = (*relation).trigdesc.as_ref()
            && is_written
        {
            for i in 0..triggers.numtriggers as usize {
                let trigger = &*triggers.triggers.add(i);
                if trigger.tgtype & FIRES_ON_ROWS != 0 {
                    functions.push((trigger.tgfoid, trigger.tgqual.is_null()));
                }
            }
        }
        let descriptor = (*relation).rd_att;
        let is_of_user = |i: usize| {
            let column = descriptor::column(descriptor, i);
            !column.attisdropped && column.atttypid.to_u32() >= pg_sys::FirstNormalObjectId
        };
        if (0..(*descriptor).natts as usize).any(is_of_user) {
            return false;
        }
        pg_sys::RelationGetStatExtList(relation).is_null()
            && catalog::parents((*relation).rd_id).is_empty()
            && functions.iter().all(|&(function, is_bare)| is_bare && is_of_extension(function, own))
    }
}

/// Returns whether a function is a superuser's, in the schema of the extension, of which `own` is a function. Reads the
/// catalogs.
fn is_of_extension(function: pg_sys::Oid, own: pg_sys::Oid) -> bool {
    // SAFETY: the row is held while its two columns are read, which are of the fixed part.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::PROCOID as c_int;
        let row = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(function));
        if row.is_null() {
            return false;
        }
        let form: *const pg_sys::FormData_pg_proc = pg_sys::GETSTRUCT(row).cast();
        let (owner, schema) = ((*form).proowner, (*form).pronamespace);
        pg_sys::ReleaseSysCache(row);
        schema == pg_sys::get_func_namespace(own) && pg_sys::superuser_arg(owner)
    }
}

/// Returns whether nobody but the owner has any right to a relation except that to read it.
///
/// # Safety
/// The relation is open and locked.
unsafe fn has_no_rights(relation: pg_sys::Relation) -> bool {
    use pg_sys::SysCacheIdentifier::{ATTNUM, RELOID};
    // SAFETY: a row is held while its rights are read, and those of a relation are copied. The entry of an open
    // relation has its row and its descriptor.
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

/// Returns whether somebody but the owner has a right that is not only to read.
///
/// # Safety
/// `rights` is an array of the server's, not toasted.
unsafe fn others_may_write(rights: *mut pg_sys::Acl, owner: pg_sys::Oid) -> bool {
    // SAFETY: of an array of one dimension without nulls, the members begin after the header and two numbers, aligned
    // (utils/array.h); an array of rights has such members only (utils/acl.h).
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

/// Returns copies of all expressions of a table: checks, defaults, and those of indexes, as the catalogs have them.
/// (The server's own form of those of indexes is computed as far as possible: it would run what it should only show.)
///
/// # Safety
/// The relation is open and locked.
unsafe fn trees(relation: pg_sys::Relation) -> Vec<CString> {
    let mut trees = Vec::new();
    // SAFETY: what the entry of the relation points to is copied before a catalog is read. The list is a copy; each
    // index is open and locked while it is looked at, and its row, whose columns are text, stays there.
    unsafe {
        if let Some(constraints) = (*(*relation).rd_att).constr.as_ref() {
            let check = |i: u16| CStr::from_ptr((*constraints.check.add(i as usize)).ccbin).to_owned();
            let default = |i: u16| CStr::from_ptr((*constraints.defval.add(i as usize)).adbin).to_owned();
            trees.extend((0..constraints.num_check).map(check));
            trees.extend((0..constraints.num_defval).map(default));
        }
        let indexes = pg_sys::RelationGetIndexList(relation);
        for i in 0..indexes.as_ref().map_or(0, |list| list.length) {
            let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
            let index = pg_sys::index_open(pg_sys::list_nth_oid(indexes, i), lock);
            for column in [pg_sys::Anum_pg_index_indexprs, pg_sys::Anum_pg_index_indpred] {
                let (cache, mut is_null) = (pg_sys::SysCacheIdentifier::INDEXRELID as c_int, false);
                let text = pg_sys::SysCacheGetAttr(cache, (*index).rd_indextuple, column as i16, &mut is_null);
                if !is_null {
                    trees.push(CStr::from_ptr(pg_sys::text_to_cstring(text.cast_mut_ptr())).to_owned());
                }
            }
            pg_sys::index_close(index, lock);
        }
    }
    trees
}

/// Returns whether an expression names nothing that was created after the server, and none of its functions but
/// immutable ones: others may run SQL that they are passed as text. Any number in it may be that of a function,
/// operator or type, except the places in the text that it was made of. Reads the catalogs.
fn is_own(tree: &CStr) -> bool {
    let value = |digits: &[u8]| {
        digits.iter().fold(0u64, |sum, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0')))
    };
    let has_only_own = |word: &[u8]| {
        word.split(|byte| !byte.is_ascii_digit())
            .map(value)
            .all(|number| number < u64::from(pg_sys::FirstNormalObjectId))
    };
    let is_immutable = |word: &[u8]| {
        let number = if word.iter().all(u8::is_ascii_digit) { value(word) } else { 0 };
        // 0 is none, as where the server finds it by the operator.
        if number == 0 {
            return true;
        }
        // SAFETY: raises an error for a number that is no function's.
        let volatility = unsafe { pg_sys::func_volatile((number as u32).into()) };
        volatility == pg_sys::PROVOLATILE_IMMUTABLE as c_char
    };
    let words: Vec<&[u8]> = tree.to_bytes().split(u8::is_ascii_whitespace).collect();
    (0..words.len()).all(|i| match i.checked_sub(1).map(|before| words[before]) {
        Some(b":location") => true,
        Some(b":funcid" | b":opfuncid") => has_only_own(words[i]) && is_immutable(words[i]),
        _ => has_only_own(words[i]),
    })
}
