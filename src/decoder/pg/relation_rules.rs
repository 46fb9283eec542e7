//! The rules of a relation, which are the arguments of its trigger.
use core::ffi::CStr;

use pgrx::pg_sys;

use super::open_relation::OpenRelation;
use crate::sys::memory;
use crate::tracking::rules::{self, ColumnRules};

/// The arguments of its triggers that call `bemi.emit_context()`, in the database's encoding. Those of the trigger that
/// tracking makes are apart: any other one may hide values, but not changes.
#[derive(Debug, Default)]
pub struct Rules {
    own: Vec<Vec<u8>>,
    others: Vec<Vec<u8>>,
    /// The names of columns that are masked by their numbers.
    masked: Vec<Vec<u8>>,
}

/// The rules of a table: its own or, if it is a partition without, those of the next table above; and the masks of all
/// tables above, whether it is a partition of them or inherits from them.
#[derive(Debug, Default)]
pub struct Inherited {
    rules: Vec<Rules>,
    masks: Vec<Rules>,
}

impl Inherited {
    /// Joins the rules of a table and of those that it is a partition of, from the lowest to the highest, if they have rules;
    /// and those of tables of which only the masks apply.
    pub fn new(rules: impl IntoIterator<Item = Option<Rules>>, masks: impl IntoIterator<Item = Option<Rules>>) -> Self {
        Self { rules: rules.into_iter().flatten().collect(), masks: masks.into_iter().flatten().collect() }
    }

    /// Whether the table, or one that it is a partition of, has the trigger.
    pub fn are_there(&self) -> bool {
        !self.rules.is_empty()
    }

    /// Returns what they say about a column, whose name is in the database's encoding.
    pub fn of_column(&self, name: &[u8]) -> ColumnRules {
        let rules = self.rules.iter().map(|rules| rules.of_column(name));
        let found = rules.reduce(ColumnRules::under).unwrap_or_default();
        self.masks.iter().map(|masks| masks.of_column(name)).fold(found, ColumnRules::under)
    }
}

impl Rules {
    /// Reads the rules of a relation; None if it has no trigger that calls the function, disabled or not.
    pub fn read(relation: OpenRelation, emit_context: Option<pg_sys::Oid>) -> Option<Self> {
        let emit_context = emit_context?;
        let mut found: Option<Self> = None;
        // SAFETY: the relation is open, and its triggers, which a rebuild frees, are there until the next look-up in the
        // catalogs: there is none in here, and all that is kept is copied. Triggers and arguments are as many as they say;
        // arguments and names are C strings.
        unsafe {
            let description = (*relation.as_ptr()).trigdesc.as_ref()?;
            let triggers = core::slice::from_raw_parts(description.triggers, description.numtriggers as usize);
            for trigger in triggers.iter().filter(|trigger| trigger.tgfoid == emit_context) {
                let found = found.get_or_insert_default();
                let is_own = CStr::from_ptr(trigger.tgname) == c"bemi_context";
                let arguments = if is_own { &mut found.own } else { &mut found.others };
                for i in 0..usize::try_from(trigger.tgnargs).unwrap_or(0) {
                    if arguments.try_reserve(1).is_err() {
                        memory::out_of_memory();
                    }
                    arguments.push(memory::copy(CStr::from_ptr(*trigger.tgargs.add(i)).to_bytes()));
                }
            }
        }
        let mut found = found?;
        let oid = relation.oid().to_u32();
        for column in relation.columns().iter() {
            let arguments = found.own.iter().chain(&found.others).map(Vec::as_slice);
            if !column.attisdropped && rules::mask_number(arguments, oid, column.attnum) {
                // SAFETY: a name is a C string in an array.
                let name = unsafe { CStr::from_ptr(column.attname.data.as_ptr()) };
                found.masked.push(memory::copy(name.to_bytes()));
            }
        }
        Some(found)
    }

    fn of_column(&self, name: &[u8]) -> ColumnRules {
        let of = |arguments: &[Vec<u8>]| rules::of_column(arguments.iter().map(Vec::as_slice), name);
        let by_number = ColumnRules { is_masked: self.masked.iter().any(|masked| masked == name), ..<_>::default() };
        of(&self.own).under(of(&self.others)).under(by_number)
    }
}
