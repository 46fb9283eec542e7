//! What the decoder knows of each relation: looked up once, and forgotten when the catalogs change.
use core::ffi::CStr;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;

use pgrx::pg_sys;

use super::attribute::Attribute;
use super::builder::{Builder, Composites};
use super::catalogs;
use super::open_relation::{OpenRelation, Opened, column_name};
use super::relation_rules::{Inherited, Rules};
use super::value::Reader;
use crate::decoder::options::Options;
use crate::document::change;
use crate::document::json::Charset;
use crate::sys::catalog;
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
    /// In the order of the table, or of its root; without dropped columns, and without virtual ones, which WAL does not
    /// contain.
    pub columns: Vec<Column>,
    /// The columns of `primary_key`, in the order of their index, as indexes into `columns`.
    pub key: Vec<usize>,
    /// Which columns WAL contains of a row before its change.
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

/// What WAL contains of a row before its change.
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
    /// Whether WAL contains a column of a row before its change.
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

    /// Returns the relation as it is at the change that is being decoded. None for one whose changes are not shown.
    pub fn get(&mut self, relation: OpenRelation) -> Option<&mut Relation> {
        self.forget_changed();
        let oid = relation.oid().to_u32();
        if !self.known.contains_key(&oid) {
            let found = self.read(relation);
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

    fn read(&mut self, relation: OpenRelation) -> Option<Relation> {
        let (form, oid) = (relation.form(), relation.oid());
        if !matches!(form.kind, pg_sys::RELKIND_RELATION | pg_sys::RELKIND_PARTITIONED_TABLE) {
            return None;
        }
        let function = trigger::pg::emit_context();
        let ancestors = if form.is_partition { catalog::partition_ancestors(oid) } else { Vec::new() };
        // A partition inherits from nothing else, and so does a table that is partitioned.
        let parents = if ancestors.is_empty() { all_parents(oid) } else { Vec::new() };
        self.ancestors.extend(ancestors.iter().chain(&parents));
        let own_rules = Rules::read(relation, function);
        // The statement may have named a table above the partition, whose rules hold for what is under it. A child that
        // inherits has triggers of its own, but what is masked in its parents is masked in it.
        let rules_of = |oid: &pg_sys::Oid| Rules::read(Opened::new(*oid)?.get(), function);
        let above = ancestors.iter().map(rules_of);
        let rules = Inherited::new(std::iter::once(own_rules).chain(above), parents.iter().map(rules_of));
        if self.options.tracked_only && !rules.are_there() {
            return None;
        }
        let root = ancestors.last().filter(|_| self.options.via_partition_root).and_then(|oid| Opened::new(*oid));
        let own_name = relation.name();
        let shown_name = root.as_ref().map(|root| root.get().name());
        let (schema, table) = shown_name.as_ref().unwrap_or(&own_name);
        // What bemi notes of the definitions of tables is no change of anybody's data.
        if !self.options.shows_table(schema, table) || own_name == (b"bemi".to_vec(), b"table_versions".to_vec()) {
            return None;
        }
        let keys = change::relation_keys(schema, table, self.charset);
        let root = root.map(|opened| {
            let is_shown = self.options.shows_table(&own_name.0, &own_name.1);
            let keys_of_partition = is_shown.then(|| change::relation_keys(&own_name.0, &own_name.1, self.charset));
            (Root { oid: opened.get().oid(), keys_of_partition }, opened.get().column_names())
        });
        let memory = Unfinished::new(self.memory);
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

/// A memory context for a relation, which is deleted if an error ends what it was made for.
struct Unfinished(pg_sys::MemoryContext);

impl Unfinished {
    fn new(parent: pg_sys::MemoryContext) -> Self {
        // SAFETY: the memory context is new, and lives as long as its parent, that of the decoding.
        Self(unsafe {
            pg_sys::AllocSetContextCreateInternal(
                parent,
                c"bemi relation".as_ptr(),
                pg_sys::ALLOCSET_SMALL_MINSIZE as usize,
                pg_sys::ALLOCSET_SMALL_INITSIZE as usize,
                pg_sys::ALLOCSET_SMALL_MAXSIZE as usize,
            )
        })
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // SAFETY: the error has ended what was made in it, so nothing refers to it.
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

impl Relation {
    /// Reads a table whose changes are shown with these keys, and in the order of the columns of its root.
    fn read(
        relation: OpenRelation,
        name: String,
        keys: Vec<u8>,
        root: Option<(Root, Vec<Vec<u8>>)>,
        rules: &Inherited,
        mut builder: Builder,
    ) -> Self {
        let charset = builder.charset;
        // Before the catalogs are read, for the indexes and for the columns' types.
        let (form, descriptor) = (relation.form(), relation.columns());
        let indexes = relation.indexes();
        let identity = match form.replica_identity {
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
