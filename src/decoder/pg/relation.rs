//! What the decoder knows of each relation: looked up once, and forgotten when the catalogs change.
use core::ffi::{CStr, c_int};
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;

use pgrx::{PgTupleDesc, pg_sys};

use super::attribute::Attribute;
use super::catalogs;
use super::rules::{Inherited, Rules};
use super::value::{Builder, Composites, Reader, column_name};
use crate::decoder::change;
use crate::decoder::options::Options;
use crate::json::Charset;
use crate::sys::{catalog, encoding};
use crate::trigger;

/// A relation as its documents need it.
#[derive(Debug)]
pub struct Relation {
    /// Its own, with its schema.
    pub name: String,
    /// The fixed part of its documents.
    pub keys: Vec<u8>,
    /// The table under whose name its changes are shown, if it is another one.
    pub root: Option<Root>,
    /// In the order of the table, or of its root; without dropped columns, and without virtual ones, which the log
    /// has not.
    pub columns: Vec<Column>,
    /// The columns of `primary_key`, in the order of their index, as indexes into `columns`.
    pub key: Vec<usize>,
    /// Columns that the log has of a row before its change.
    pub identity: Identity,
    /// Whether the text form of a value depends on settings.
    pub depends_on_settings: bool,
    /// Whether there are columns whose changes alone do not show an UPDATE.
    pub ignores_columns: bool,
    /// The columns of a tuple, dropped ones included.
    pub attributes: Vec<Attribute>,
    /// Holds what the readers need.
    memory: pg_sys::MemoryContext,
}

/// The root of a partition.
#[derive(Debug)]
pub struct Root {
    pub oid: pg_sys::Oid,
    /// The fixed part of documents under the partition's own name; None if it is not shown under that.
    pub keys_of_partition: Option<Vec<u8>>,
}

/// One column.
#[derive(Debug)]
pub struct Column {
    /// In the tuple.
    pub index: usize,
    pub name: Vec<u8>,
    /// The fixed part of its member in a row image, with the comma before it.
    key: Vec<u8>,
    pub attribute: Attribute,
    /// Whether it belongs to the replica identity's index.
    pub in_identity: bool,
    /// Whether its changes alone do not show an UPDATE.
    pub is_ignored: bool,
    pub reader: Reader,
}

impl Column {
    /// The fixed part of its member in a row image, with a comma if others stand before it.
    pub fn key_behind(&self, is_first: bool) -> &[u8] {
        self.key.get(usize::from(is_first)..).unwrap_or_default()
    }
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
    known: HashMap<u32, Option<Box<Relation>>, BuildHasherDefault<OidHasher>>,
    composites: Composites,
    /// Tables above partitions that were looked at.
    ancestors: HashSet<pg_sys::Oid>,
    memory: pg_sys::MemoryContext,
    charset: Charset,
    options: Rc<Options>,
}

impl Relations {
    /// An empty cache, whose memory contexts are children of `memory`.
    pub fn new(memory: pg_sys::MemoryContext, charset: Charset, options: Rc<Options>) -> Self {
        catalogs::watch();
        let composites = Composites::new(memory);
        Self { known: HashMap::default(), composites, ancestors: HashSet::new(), memory, charset, options }
    }

    /// The relation as it is at the change that is being decoded. None for one whose changes are not shown.
    ///
    /// # Safety
    /// The server passed `relation` to the running callback.
    pub unsafe fn get(&mut self, relation: pg_sys::Relation) -> Option<&mut Relation> {
        self.forget_changed();
        // SAFETY: the caller's promise.
        let oid = unsafe { (*relation).rd_id }.to_u32();
        if !self.known.contains_key(&oid) {
            // SAFETY: the caller's promise.
            let found = unsafe { self.read(relation) };
            self.known.insert(oid, found.map(Box::new));
        }
        self.known.get_mut(&oid)?.as_deref_mut()
    }

    fn forget_changed(&mut self) {
        let Some(changed) = catalogs::take_changes() else { return };
        let is_shared = |oid: &pg_sys::Oid| self.composites.rely_on(*oid) || self.ancestors.contains(oid);
        if changed.everything || changed.relations.iter().any(is_shared) {
            self.ancestors.clear();
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

    /// # Safety
    /// The relation is open.
    unsafe fn read(&mut self, relation: pg_sys::Relation) -> Option<Relation> {
        // SAFETY: the relation is open. Its form stays where it is when the relation is rebuilt, but is written over: so
        // what is needed of it is copied.
        let (kind, is_partition, oid) =
            unsafe { ((*(*relation).rd_rel).relkind as u8, (*(*relation).rd_rel).relispartition, (*relation).rd_id) };
        if !matches!(kind, pg_sys::RELKIND_RELATION | pg_sys::RELKIND_PARTITIONED_TABLE) {
            return None;
        }
        let function = trigger::pg::emit_context();
        let ancestors = if is_partition { catalog::partition_ancestors(oid) } else { Vec::new() };
        // A partition inherits from nothing else, and so does a table that is partitioned.
        let parents = if ancestors.is_empty() { all_parents(oid) } else { Vec::new() };
        self.ancestors.extend(ancestors.iter().chain(&parents));
        // SAFETY: the relation is open.
        let own_rules = unsafe { Rules::read(relation, function) };
        // The statement may have named a table above the partition, whose rules hold for what is under it. A child that
        // inherits has triggers of its own, but what is masked in its parents is masked in it.
        let rules_of = |oid: &pg_sys::Oid| Opened::new(*oid)?.rules(function);
        let above = ancestors.iter().map(rules_of);
        let rules = Inherited::new(std::iter::once(own_rules).chain(above), parents.iter().map(rules_of));
        if self.options.tracked_only && !rules.are_there() {
            return None;
        }
        let root = ancestors.last().filter(|_| self.options.via_partition_root).and_then(|oid| Opened::new(*oid));
        // SAFETY: both are open.
        let own_name = unsafe { name(relation) };
        let shown_name = root.as_ref().map(|root| root.name());
        let (schema, table) = shown_name.as_ref().unwrap_or(&own_name);
        // What bemi notes of the definitions of tables is no change of anybody's data.
        if !self.options.shows_table(schema, table) || own_name == (b"bemi".to_vec(), b"table_versions".to_vec()) {
            return None;
        }
        let keys = change::relation_keys(schema, table, self.charset);
        let root = root.map(|opened| {
            let is_shown = self.options.shows_table(&own_name.0, &own_name.1);
            let keys_of_partition = is_shown.then(|| change::relation_keys(&own_name.0, &own_name.1, self.charset));
            (Root { oid: opened.oid(), keys_of_partition }, opened.column_names())
        });
        // SAFETY: the relation is open; a new memory context belongs to us.
        unsafe {
            let memory = Unfinished(pg_sys::AllocSetContextCreateInternal(
                self.memory,
                c"bemi relation".as_ptr(),
                pg_sys::ALLOCSET_SMALL_MINSIZE as usize,
                pg_sys::ALLOCSET_SMALL_INITSIZE as usize,
                pg_sys::ALLOCSET_SMALL_MAXSIZE as usize,
            ));
            let builder = Builder {
                charset: self.charset,
                memory: memory.0,
                composites: &mut self.composites,
                numbers_as_strings: self.options.numbers_as_strings,
            };
            let name = [&own_name.0[..], b".", &own_name.1].concat();
            let name = String::from_utf8_lossy(&name).into_owned();
            let found = Relation::read(relation, name, keys, root, &rules, builder);
            core::mem::forget(memory);
            Some(found)
        }
    }
}

/// A memory context that goes if an error ends what it was made for.
struct Unfinished(pg_sys::MemoryContext);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // SAFETY: nothing refers to it yet.
        unsafe { pg_sys::MemoryContextDelete(self.0) };
    }
}

/// The tables that a table inherits from, directly or not. Reads the catalogs.
fn all_parents(table: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    let mut found = catalog::parents(table);
    let mut next = 0;
    while let Some(table) = found.get(next) {
        for parent in catalog::parents(*table) {
            if !found.contains(&parent) {
                found.push(parent);
            }
        }
        next += 1;
    }
    found
}

/// The schema and name of a relation, in UTF-8.
///
/// # Safety
/// The relation is open.
unsafe fn name(relation: pg_sys::Relation) -> (Vec<u8>, Vec<u8>) {
    // SAFETY: the caller's promise; a name is a C string in an array. The form may be written over while the catalogs are
    // read, so both are copied before; the name of the schema is a copy.
    unsafe {
        let (schema, table) = ((*(*relation).rd_rel).relnamespace, (*(*relation).rd_rel).relname);
        let schema = pg_sys::get_namespace_name(schema);
        let schema = if schema.is_null() { &[][..] } else { CStr::from_ptr(schema).to_bytes() };
        let table = CStr::from_ptr(table.data.as_ptr()).to_bytes();
        (encoding::to_utf8_lossy(schema).into_owned(), encoding::to_utf8_lossy(table).into_owned())
    }
}

/// A relation that is open as long as this lives. After an error the server closes it.
struct Opened(pg_sys::Relation);

impl Opened {
    /// None if there is no such relation.
    fn new(oid: pg_sys::Oid) -> Option<Self> {
        // SAFETY: takes any number; null if there is none.
        let relation = unsafe { pg_sys::RelationIdGetRelation(oid) };
        (!relation.is_null()).then_some(Self(relation))
    }

    fn oid(&self) -> pg_sys::Oid {
        // SAFETY: the relation is open.
        unsafe { (*self.0).rd_id }
    }

    fn rules(&self, function: Option<pg_sys::Oid>) -> Option<Rules> {
        // SAFETY: the relation is open.
        unsafe { Rules::read(self.0, function) }
    }

    fn name(&self) -> (Vec<u8>, Vec<u8>) {
        // SAFETY: the relation is open.
        unsafe { name(self.0) }
    }

    /// Without those that were dropped.
    fn column_names(&self) -> Vec<Vec<u8>> {
        // SAFETY: the relation is open, and its descriptor is copied before a name is converted.
        let descriptor = unsafe { PgTupleDesc::from_pg_copy((*self.0).rd_att) };
        descriptor.iter().filter(|column| !column.attisdropped).map(column_name).collect()
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: the relation is open.
            unsafe { pg_sys::RelationClose(self.0) };
        }
    }
}

impl Relation {
    /// A table whose changes are shown with these keys, and in the order of the columns of its root.
    ///
    /// # Safety
    /// The relation is open.
    unsafe fn read(
        relation: pg_sys::Relation,
        name: String,
        keys: Vec<u8>,
        root: Option<(Root, Vec<Vec<u8>>)>,
        rules: &Inherited,
        mut builder: Builder,
    ) -> Self {
        let charset = builder.charset;
        // SAFETY: the relation is open. The form may be written over and the descriptor be freed while the catalogs are
        // read, for the indexes and for the columns' types: so of both there is a copy before.
        let (replica_identity, descriptor, indexes) = unsafe {
            let replica_identity = (*(*relation).rd_rel).relreplident as u8;
            let descriptor = PgTupleDesc::from_pg_copy((*relation).rd_att);
            (replica_identity, descriptor, Indexes::read(relation))
        };
        let identity = match replica_identity {
            pg_sys::REPLICA_IDENTITY_FULL => Identity::Full,
            pg_sys::REPLICA_IDENTITY_DEFAULT | pg_sys::REPLICA_IDENTITY_INDEX if indexes.identity.is_some() => {
                Identity::Index
            }
            _ => Identity::Nothing,
        };
        let mut columns: Vec<Column> = descriptor
            .iter()
            .enumerate()
            .filter(|(_, column)| !column.attisdropped && column.attgenerated as u8 != b'v')
            .map(|(index, column)| {
                let name = column_name(column);
                // SAFETY: a name is a C string in an array.
                let rules = rules.of_column(unsafe { CStr::from_ptr(column.attname.data.as_ptr()) }.to_bytes());
                Column {
                    index,
                    key: [b",", &change::column_key(&name, charset)[..]].concat(),
                    name,
                    attribute: Attribute::of(column),
                    in_identity: indexes.identity.iter().flatten().any(|number| *number == column.attnum),
                    is_ignored: rules.is_ignored,
                    reader: if rules.is_masked { Reader::Masked } else { builder.reader(column.atttypid) },
                }
            })
            .collect();
        let key_numbers = indexes.primary.or(indexes.identity).unwrap_or_default();
        for column in &mut columns {
            let names_row = key_numbers.contains(&(column.index as i16 + 1));
            column.is_ignored &= !(names_row || column.in_identity && identity == Identity::Index);
        }
        if let Some((_, order)) = &root {
            columns.sort_by_key(|column| order.iter().position(|name| *name == column.name));
        }
        let position = |number: &i16| columns.iter().position(|column| column.index + 1 == *number as usize);
        Self {
            name,
            keys,
            root: root.map(|(root, _)| root),
            key: key_numbers.iter().filter_map(position).collect(),
            identity,
            depends_on_settings: columns.iter().any(|column| column.reader.depends_on_settings()),
            ignores_columns: columns.iter().any(|column| column.is_ignored),
            columns,
            attributes: descriptor.iter().map(Attribute::of).collect(),
            memory: builder.memory,
        }
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
        // The index itself stays closed: its access method may be gone. Its row is held while it is read.
        // SAFETY: the relation is open; its index list is a copy, and what is asked of the relation behind it is a number.
        // A row of the cache stays until it is released, whatever the catalogs tell; it has as many key columns as it says.
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

/// Spreads object identifiers, which are not chosen by anyone who could want them to collide.
#[derive(Debug, Default)]
struct OidHasher(u64);

impl Hasher for OidHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, value: u32) {
        self.0 = (self.0 ^ u64::from(value)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
}
