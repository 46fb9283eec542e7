//! What the decoder knows of each relation: looked up once, and forgotten when the catalogs change.
use core::ffi::{CStr, c_int};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use pgrx::prelude::*;
use pgrx::{PgTupleDesc, pg_sys};

use super::value::{Builder, Composites, Reader, column_name};
use crate::decoder::change;
use crate::json::Charset;
use crate::sys::encoding;

/// A relation as its documents need it.
#[derive(Debug)]
pub struct Relation {
    /// The fixed part of its documents.
    pub keys: Vec<u8>,
    /// In the order of the table; without dropped columns, and without virtual ones, which the log has not.
    pub columns: Vec<Column>,
    /// The columns of `primary_key`, in the order of their index, as indexes into `columns`.
    pub key: Vec<usize>,
    /// Columns that the log has of a row before its change.
    pub identity: Identity,
    /// Whether the text form of a value depends on settings.
    pub depends_on_settings: bool,
    /// Number of columns in a tuple, dropped ones included.
    pub width: usize,
    /// Holds what the readers need.
    memory: pg_sys::MemoryContext,
}

/// One column.
#[derive(Debug)]
pub struct Column {
    /// In the tuple.
    pub index: usize,
    pub name: Vec<u8>,
    /// The fixed part of its member in a row image.
    pub key: Vec<u8>,
    pub is_varlena: bool,
    /// Whether it belongs to the replica identity's index.
    pub in_identity: bool,
    pub reader: Reader,
}

/// What the log has of a row before its change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// All columns.
    Full,
    /// The columns of an index.
    Index,
    /// Nothing.
    Nothing,
}

impl Identity {
    /// Whether the log has a column of a row before its change.
    pub fn holds(self, column: &Column) -> bool {
        match self {
            Self::Full => true,
            Self::Index => column.in_identity,
            Self::Nothing => false,
        }
    }
}

/// The relations that were decoded so far. None stands for one whose changes are not shown.
#[derive(Debug)]
pub struct Relations {
    known: HashMap<u32, Option<Box<Relation>>>,
    composites: Composites,
    memory: pg_sys::MemoryContext,
    charset: Charset,
}

impl Relations {
    /// An empty cache, whose memory contexts are children of `memory`.
    pub fn new(memory: pg_sys::MemoryContext, charset: Charset) -> Self {
        watch_catalogs();
        Self { known: HashMap::new(), composites: Composites::new(memory), memory, charset }
    }

    /// The relation as it is at the change that is being decoded. None for what is no table.
    ///
    /// # Safety
    /// The server passed `relation` to the running callback.
    pub unsafe fn get(&mut self, relation: pg_sys::Relation) -> Option<&mut Relation> {
        self.forget_changed();
        // SAFETY: the caller's promise.
        let oid = unsafe { (*relation).rd_id };
        let (memory, charset, composites) = (self.memory, self.charset, &mut self.composites);
        self.known
            .entry(oid.to_u32())
            // SAFETY: the caller's promise.
            .or_insert_with(|| unsafe { Relation::read(relation, memory, charset, composites) }.map(Box::new))
            .as_deref_mut()
    }

    fn forget_changed(&mut self) {
        let changed = CHANGED.with_borrow_mut(|changed| {
            changed.as_mut().filter(|changed| changed.everything || !changed.relations.is_empty()).map(std::mem::take)
        });
        let Some(changed) = changed else { return };
        if changed.everything || changed.relations.iter().any(|oid| self.composites.rely_on(*oid)) {
            for relation in self.known.drain().filter_map(|(_, relation)| relation) {
                relation.free();
            }
            self.composites.clear();
        } else {
            for relation in changed.relations.iter().filter_map(|oid| self.known.remove(&oid.to_u32()).flatten()) {
                relation.free();
            }
        }
    }
}

impl Relation {
    /// # Safety
    /// The relation is open.
    unsafe fn read(
        relation: pg_sys::Relation,
        parent: pg_sys::MemoryContext,
        charset: Charset,
        composites: &mut Composites,
    ) -> Option<Self> {
        // SAFETY: the relation is open, and so its form, descriptor and index list can be read; a new memory context
        // belongs to us.
        let (form, descriptor, schema, memory) = unsafe {
            let form = &*(*relation).rd_rel;
            if !matches!(form.relkind as u8, pg_sys::RELKIND_RELATION | pg_sys::RELKIND_PARTITIONED_TABLE) {
                return None;
            }
            let schema = pg_sys::get_namespace_name(form.relnamespace);
            let schema = if schema.is_null() { Vec::new() } else { CStr::from_ptr(schema).to_bytes().to_vec() };
            let memory = pg_sys::AllocSetContextCreateInternal(
                parent,
                c"bemi relation".as_ptr(),
                pg_sys::ALLOCSET_SMALL_MINSIZE as usize,
                pg_sys::ALLOCSET_SMALL_INITSIZE as usize,
                pg_sys::ALLOCSET_SMALL_MAXSIZE as usize,
            );
            (form, PgTupleDesc::from_pg_copy((*relation).rd_att), schema, memory)
        };
        // SAFETY: the relation is open; a name is a C string in an array.
        let (indexes, table) = unsafe { (Indexes::read(relation), CStr::from_ptr(form.relname.data.as_ptr())) };
        let identity = match form.relreplident as u8 {
            pg_sys::REPLICA_IDENTITY_FULL => Identity::Full,
            pg_sys::REPLICA_IDENTITY_DEFAULT | pg_sys::REPLICA_IDENTITY_INDEX if indexes.identity.is_some() => {
                Identity::Index
            }
            _ => Identity::Nothing,
        };
        let mut builder = Builder { charset, memory, composites };
        let columns: Vec<Column> = descriptor
            .iter()
            .enumerate()
            .filter(|(_, column)| !column.attisdropped && column.attgenerated as u8 != b'v')
            .map(|(index, column)| {
                let name = column_name(column);
                Column {
                    index,
                    key: change::column_key(&name, charset),
                    name,
                    is_varlena: column.attlen == -1,
                    in_identity: indexes.identity.iter().flatten().any(|number| *number == column.attnum),
                    reader: builder.reader(column.atttypid),
                }
            })
            .collect();
        let key_numbers = indexes.primary.or(indexes.identity).unwrap_or_default();
        let position = |number: &i16| columns.iter().position(|column| column.index + 1 == *number as usize);
        Some(Self {
            keys: change::relation_keys(
                &encoding::to_utf8_lossy(&schema),
                &encoding::to_utf8_lossy(table.to_bytes()),
                charset,
            ),
            key: key_numbers.iter().filter_map(position).collect(),
            identity,
            depends_on_settings: columns.iter().any(|column| column.reader.depends_on_settings()),
            columns,
            width: descriptor.len(),
            memory,
        })
    }

    fn free(self: Box<Self>) {
        let memory = self.memory;
        drop(self);
        // SAFETY: the memory context was made for this relation, whose readers are gone.
        unsafe { pg_sys::MemoryContextDelete(memory) };
    }
}

/// The columns (numbered from 1) of the indexes that identify a row.
struct Indexes {
    primary: Option<Vec<i16>>,
    identity: Option<Vec<i16>>,
}

impl Indexes {
    /// # Safety
    /// The relation is open.
    unsafe fn read(relation: pg_sys::Relation) -> Self {
        let mut found = Self { primary: None, identity: None };
        // SAFETY: the relation is open; its index list is a copy; the catalog's row is held while it is read, and has
        // as many key columns as it says. The index itself stays closed: its access method may be gone.
        unsafe {
            let list = pg_sys::RelationGetIndexList(relation);
            let identity = pg_sys::RelationGetReplicaIndex(relation);
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

/// What changed in the catalogs since it was last looked at.
#[derive(Debug, Default)]
struct Changed {
    everything: bool,
    relations: HashSet<pg_sys::Oid>,
}

/// So many changed relations are forgotten one by one; of more, everything is.
const MAX_CHANGED: usize = 1000;

thread_local! {
    /// None as long as no decoder asks.
    static CHANGED: RefCell<Option<Changed>> = const { RefCell::new(None) };
}

/// Has the server tell about changes of the catalogs. It keeps its callbacks for as long as the process lives, so
/// they are registered once.
fn watch_catalogs() {
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
