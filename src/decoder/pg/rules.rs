//! The rules of a relation, which its trigger carries.
use core::ffi::CStr;

use pgrx::pg_sys;

use crate::rules::{self, ColumnRules};

/// The arguments of its triggers that call `bemi.emit_context()`, in the database's encoding. What only others than the
/// one that tracking makes say may hide values, but not changes.
#[derive(Debug, Default)]
pub struct Rules {
    own: Vec<Vec<u8>>,
    others: Vec<Vec<u8>>,
}

/// The rules of a table: its own or, if it is a partition without, those of the next table above; and the masks of all
/// tables above.
#[derive(Debug, Default)]
pub struct Inherited(Vec<Rules>);

impl Inherited {
    /// Of tables from the lowest to the highest, as far as they have rules. None if none has.
    pub fn new(rules: impl IntoIterator<Item = Option<Rules>>) -> Option<Self> {
        let rules: Vec<Rules> = rules.into_iter().flatten().collect();
        (!rules.is_empty()).then_some(Self(rules))
    }

    /// What they say of a column, whose name is in the database's encoding.
    pub fn of_column(&self, name: &[u8]) -> ColumnRules {
        let rules = self.0.iter().map(|rules| rules.of_column(name));
        rules.reduce(ColumnRules::under).unwrap_or_default()
    }
}

impl Rules {
    /// None if the relation has no such trigger, disabled or not.
    ///
    /// # Safety
    /// The relation is open.
    pub unsafe fn read(relation: pg_sys::Relation) -> Option<Self> {
        // SAFETY: the caller's promise; triggers and arguments are as many as they say, arguments are C strings.
        unsafe {
            let description = (*relation).trigdesc.as_ref()?;
            let triggers = core::slice::from_raw_parts(description.triggers, description.numtriggers as usize);
            let mut found: Option<Self> = None;
            for trigger in triggers.iter().filter(|trigger| is_emit_context(trigger.tgfoid)) {
                let found = found.get_or_insert_default();
                let is_own = CStr::from_ptr(trigger.tgname) == c"bemi_context";
                let arguments = if is_own { &mut found.own } else { &mut found.others };
                let count = trigger.tgnargs as usize;
                arguments.extend((0..count).map(|i| CStr::from_ptr(*trigger.tgargs.add(i)).to_bytes().to_vec()));
            }
            found
        }
    }

    fn of_column(&self, name: &[u8]) -> ColumnRules {
        let of = |arguments: &[Vec<u8>]| rules::of_column(arguments.iter().map(Vec::as_slice), name);
        of(&self.own).under(of(&self.others))
    }
}

fn is_emit_context(function: pg_sys::Oid) -> bool {
    // SAFETY: looks a function up in the catalogs; names are C strings, null if there is none.
    unsafe {
        let name = pg_sys::get_func_name(function);
        if name.is_null() || CStr::from_ptr(name) != c"emit_context" {
            return false;
        }
        let schema = pg_sys::get_namespace_name(pg_sys::get_func_namespace(function));
        !schema.is_null() && CStr::from_ptr(schema) == c"bemi"
    }
}
