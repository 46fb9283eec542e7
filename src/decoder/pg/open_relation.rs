//! A relation that is open. What is read of it is copied before the catalogs are looked at again: any look-up may accept an
//! invalidation, which rebuilds the entry of the relation in the cache and frees what it replaces.
use core::ffi::{CStr, c_int};
use core::marker::PhantomData;

use pgrx::{PgTupleDesc, pg_sys};

use crate::sys::encoding;

/// A relation that stays open as long as the callback runs to which the server passed it, or as an [`Opened`] lives.
#[derive(Clone, Copy)]
pub struct OpenRelation<'a> {
    relation: pg_sys::Relation,
    open: PhantomData<&'a ()>,
}

impl OpenRelation<'_> {
    /// # Safety
    /// The relation is open, and stays so for the lifetime.
    pub unsafe fn new(relation: pg_sys::Relation) -> Self {
        Self { relation, open: PhantomData }
    }

    /// The entry of the cache, which stays where it is; what it points to may be freed by the next look-up in the catalogs.
    pub fn as_ptr(self) -> pg_sys::Relation {
        self.relation
    }

    /// Its OID.
    pub fn oid(self) -> pg_sys::Oid {
        // SAFETY: the entry of an open relation stays where it is, and its number is the same when it is rebuilt.
        unsafe { (*self.relation).rd_id }
    }

    /// What `pg_class` says about it.
    pub fn form(self) -> Form {
        // SAFETY: the form stays where it is when an open relation is rebuilt, but is written over: so this is a copy.
        let form = unsafe { &*(*self.relation).rd_rel };
        Form { kind: form.relkind as u8, is_partition: form.relispartition, replica_identity: form.relreplident as u8 }
    }

    /// A copy of its columns, dropped ones included.
    pub fn columns(self) -> PgTupleDesc<'static> {
        // SAFETY: the descriptor of an open relation is there until the next look-up, and is copied at once.
        unsafe { PgTupleDesc::from_pg_copy((*self.relation).rd_att) }
    }

    /// Its schema and name, in UTF-8.
    pub fn name(self) -> (Vec<u8>, Vec<u8>) {
        // SAFETY: the relation is open. Its form may be written over while the schema is looked up and names are converted,
        // so both parts are copied before; a name is a C string in an array, and that of the schema is a copy, or null.
        unsafe {
            let (schema, table) = ((*(*self.relation).rd_rel).relnamespace, (*(*self.relation).rd_rel).relname);
            let schema = pg_sys::get_namespace_name(schema);
            let schema = if schema.is_null() { &[][..] } else { CStr::from_ptr(schema).to_bytes() };
            let table = CStr::from_ptr(table.data.as_ptr()).to_bytes();
            (encoding::to_utf8_lossy(schema).into_owned(), encoding::to_utf8_lossy(table).into_owned())
        }
    }

    /// The names of its columns, in UTF-8, without those that were dropped.
    pub fn column_names(self) -> Vec<Vec<u8>> {
        self.columns().iter().filter(|column| !column.attisdropped).map(column_name).collect()
    }

    /// The columns of the indexes that identify its rows.
    pub fn indexes(self) -> Indexes {
        let mut found = Indexes { primary: None, identity: None };
        // The index itself stays closed: its access method may be gone. Its row is held while it is read.
        // SAFETY: the relation is open; its index list is a copy, and what is asked of the relation behind it is a number.
        // A row of the cache stays until it is released, whatever the catalogs report; it has as many key columns as it says.
        unsafe {
            let list = pg_sys::RelationGetIndexList(self.relation);
            let identity = pg_sys::RelationGetReplicaIndex(self.relation);
            for i in 0..list.as_ref().map_or(0, |list| list.length) {
                let oid = pg_sys::list_nth_oid(list, i);
                let cache = pg_sys::SysCacheIdentifier::INDEXRELID as c_int;
                let row = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(oid));
                if row.is_null() {
                    continue;
                }
                let form: pg_sys::Form_pg_index = pg_sys::GETSTRUCT(row).cast();
                let columns = (*form).indkey.values.as_slice((*form).indnkeyatts as usize).to_vec();
                if (*form).indisprimary && (*form).indisvalid {
                    found.primary = Some(columns.clone());
                }
                if oid == identity {
                    found.identity = Some(columns);
                }
                pg_sys::ReleaseSysCache(row);
            }
            pg_sys::list_free(list);
        }
        found
    }
}

/// What `pg_class` says about a relation.
pub struct Form {
    /// `relkind`.
    pub kind: u8,
    /// `relispartition`.
    pub is_partition: bool,
    /// `relreplident`.
    pub replica_identity: u8,
}

/// The columns (numbered from 1) of the indexes that identify a row.
pub struct Indexes {
    /// Those of the primary key.
    pub primary: Option<Vec<i16>>,
    /// Those of the replica identity's index.
    pub identity: Option<Vec<i16>>,
}

/// The name of a column, in UTF-8.
pub fn column_name(column: &pg_sys::FormData_pg_attribute) -> Vec<u8> {
    // SAFETY: a name is a C string in an array.
    let name = unsafe { CStr::from_ptr(column.attname.data.as_ptr()) };
    encoding::to_utf8_lossy(name.to_bytes()).into_owned()
}

/// A relation that is open as long as this lives. After an error the server closes it.
pub struct Opened(pg_sys::Relation);

impl Opened {
    /// Opens a relation; None if there is no such relation.
    pub fn new(oid: pg_sys::Oid) -> Option<Self> {
        // SAFETY: takes any number; null if there is none.
        let relation = unsafe { pg_sys::RelationIdGetRelation(oid) };
        (!relation.is_null()).then_some(Self(relation))
    }

    /// The relation.
    pub fn get(&self) -> OpenRelation<'_> {
        // SAFETY: it was opened by `new`, and is closed when `self`, which is borrowed, is dropped.
        unsafe { OpenRelation::new(self.0) }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: it was opened by `new`, and is closed here only.
            unsafe { pg_sys::RelationClose(self.0) };
        }
    }
}
