//! The rules of a relation, which its trigger carries.
use core::ffi::CStr;

use pgrx::pg_sys;

use crate::rules::{self, ColumnRules};

/// The arguments of its triggers that call `bemi.emit_context()`, in the database's encoding.
#[derive(Debug, Default)]
pub struct Rules(Vec<Vec<u8>>);

impl Rules {
    /// None if the relation has no such trigger, disabled or not.
    ///
    /// # Safety
    /// The relation is open.
    pub unsafe fn read(relation: pg_sys::Relation) -> Option<Self> {
        // SAFETY: the caller's promise; the description has as many triggers as it says, and a trigger as many
        // arguments, which are C strings.
        unsafe {
            let description = (*relation).trigdesc.as_ref()?;
            let triggers = core::slice::from_raw_parts(description.triggers, description.numtriggers as usize);
            let mut ours = triggers.iter().filter(|trigger| is_emit_context(trigger.tgfoid)).peekable();
            ours.peek()?;
            let arguments = ours.flat_map(|trigger| {
                (0..trigger.tgnargs as usize).map(|i| CStr::from_ptr(*trigger.tgargs.add(i)).to_bytes().to_vec())
            });
            Some(Self(arguments.collect()))
        }
    }

    /// What they say of a column, whose name is in the database's encoding.
    pub fn of_column(&self, name: &[u8]) -> ColumnRules {
        rules::of_column(self.0.iter().map(Vec::as_slice), name)
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
