//! The rules of a relation, which its trigger carries.
use core::ffi::CStr;

use pgrx::{PgTupleDesc, pg_sys};

use crate::sys::memory;
use crate::tracking::rules::{self, ColumnRules};

/// The arguments of its triggers that call `bemi.emit_context()`, in the database's encoding. What only others than the
/// one that tracking makes say may hide values, but not changes.
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
    /// Of a table and those that it is a partition of, from the lowest to the highest, as far as they have rules; and of
    /// those of which only the masks hold.
    pub fn new(rules: impl IntoIterator<Item = Option<Rules>>, masks: impl IntoIterator<Item = Option<Rules>>) -> Self {
        Self { rules: rules.into_iter().flatten().collect(), masks: masks.into_iter().flatten().collect() }
    }

    /// Whether the table, or one that it is a partition of, carries the trigger.
    pub fn are_there(&self) -> bool {
        !self.rules.is_empty()
    }

    /// What they say of a column, whose name is in the database's encoding.
    pub fn of_column(&self, name: &[u8]) -> ColumnRules {
        let rules = self.rules.iter().map(|rules| rules.of_column(name));
        let found = rules.reduce(ColumnRules::under).unwrap_or_default();
        self.masks.iter().map(|masks| masks.of_column(name)).fold(found, ColumnRules::under)
    }
}

impl Rules {
    /// None if the relation has no trigger that calls the function, disabled or not.
    ///
    /// # Safety
    /// The relation is open.
    pub unsafe fn read(relation: pg_sys::Relation, emit_context: Option<pg_sys::Oid>) -> Option<Self> {
        let emit_context = emit_context?;
        // SAFETY: the caller's promise. The relation's own triggers and descriptor are freed when an invalidation
        // message has it rebuilt, which any look-up in the catalogs may accept: there is none in here, and all that is
        // kept is copied. Triggers and arguments are as many as they say, arguments and names are C strings.
        unsafe {
            let description = (*relation).trigdesc.as_ref()?;
            let triggers = core::slice::from_raw_parts(description.triggers, description.numtriggers as usize);
            let mut found: Option<Self> = None;
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
            let mut found = found?;
            let oid = (*relation).rd_id.to_u32();
            let descriptor = PgTupleDesc::from_pg_copy((*relation).rd_att);
            for column in descriptor.iter() {
                let arguments = found.own.iter().chain(&found.others).map(Vec::as_slice);
                if !column.attisdropped && rules::mask_number(arguments, oid, column.attnum) {
                    found.masked.push(memory::copy(CStr::from_ptr(column.attname.data.as_ptr()).to_bytes()));
                }
            }
            Some(found)
        }
    }

    fn of_column(&self, name: &[u8]) -> ColumnRules {
        let of = |arguments: &[Vec<u8>]| rules::of_column(arguments.iter().map(Vec::as_slice), name);
        let by_number = ColumnRules { is_masked: self.masked.iter().any(|masked| masked == name), ..<_>::default() };
        of(&self.own).under(of(&self.others)).under(by_number)
    }
}
