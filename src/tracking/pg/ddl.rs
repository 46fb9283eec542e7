//! What a statement did to tables that matters for tracking. Names before and after a change are in its parse tree only,
//! which an event trigger in SQL cannot see.
use core::ffi::{CStr, c_char};

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::sys::{self, arguments};

/// Something was made, moved or renamed.
struct Done {
    what: &'static CStr,
    /// Null where there is none.
    names: (*const c_char, *const c_char),
}

impl Done {
    fn table() -> Self {
        Self { what: c"table", names: (core::ptr::null(), core::ptr::null()) }
    }

    /// None if nothing was that matters.
    ///
    /// # Safety
    /// The statement is a utility statement, which has been run.
    unsafe fn read(statement: *const pg_sys::Node) -> Option<Self> {
        use pg_sys::NodeTag::*;
        // SAFETY: the caller's promise; a node is what its tag says. A table's name may be missing only where the
        // grammar leaves it out.
        unsafe {
            let is_lasting = |name: *const pg_sys::RangeVar| {
                name.as_ref().is_some_and(|name| name.relpersistence as u8 == pg_sys::RELPERSISTENCE_PERMANENT)
            };
            match (*statement).type_ {
                T_CreateStmt => {
                    let created: *const pg_sys::CreateStmt = statement.cast();
                    is_lasting((*created).relation).then(Self::table)
                }
                T_CreateTableAsStmt => {
                    let created: *const pg_sys::CreateTableAsStmt = statement.cast();
                    (*created).into.as_ref().is_some_and(|into| is_lasting(into.rel)).then(Self::table)
                }
                T_CreateSchemaStmt => {
                    let created: *const pg_sys::CreateSchemaStmt = statement.cast();
                    (!(*created).schemaElts.is_null()).then(Self::table)
                }
                T_AlterTableStmt => {
                    let altered: *const pg_sys::AlterTableStmt = statement.cast();
                    sys::members::<pg_sys::AlterTableCmd>((*altered).cmds)
                        .any(|command| {
                            use pg_sys::AlterTableType::*;
                            [AT_AttachPartition, AT_SetLogged].contains(&(*command).subtype)
                        })
                        .then(Self::table)
                }
                T_AlterObjectSchemaStmt => {
                    let moved: *const pg_sys::AlterObjectSchemaStmt = statement.cast();
                    ((*moved).objectType == pg_sys::ObjectType::OBJECT_TABLE).then(Self::table)
                }
                T_RenameStmt => Self::renamed(&*statement.cast()),
                _ => None,
            }
        }
    }

    /// # Safety
    /// The statement has been run.
    unsafe fn renamed(statement: &pg_sys::RenameStmt) -> Option<Self> {
        use pg_sys::ObjectType::*;
        // SAFETY: what renames a relation names it.
        let relation = unsafe { statement.relation.as_ref() }.map_or(core::ptr::null_mut(), |name| name.relname);
        let (what, old) = match statement.renameType {
            OBJECT_COLUMN | OBJECT_ATTRIBUTE => (c"column", statement.subname),
            OBJECT_TABCONSTRAINT => (c"constraint", statement.subname),
            // ALTER TABLE renames indexes too.
            OBJECT_INDEX | OBJECT_TABLE => (c"relation", relation),
            OBJECT_SCHEMA => (c"schema", statement.subname),
            _ => return None,
        };
        Some(Self { what, names: (old, statement.newname) })
    }
}

/// `bemi.on_ddl()`: calls `bemi.follow_ddl()` if a statement did something that matters.
///
/// # Safety
/// Called by the server.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_on_ddl(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    let nothing = pg_sys::Datum::from(0);
    // SAFETY: the server's call. Called as an event trigger, its context is the trigger's data.
    unsafe {
        let context = (*fcinfo).context;
        if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_EventTriggerData {
            error!("bemi.on_ddl() was not called as an event trigger");
        }
        let data: *const pg_sys::EventTriggerData = context.cast();
        let Some(done) = Done::read((*data).parsetree) else { return nothing };
        // By its number: a name would be looked up with the rights of whoever runs the statement.
        let Some(follow) = sys::function_beside((*(*fcinfo).flinfo).fn_oid, c"follow_ddl", &[pg_sys::TEXTOID; 3])
        else {
            return nothing;
        };
        let text =
            |name: *const c_char| arguments::text(if name.is_null() { b"" } else { CStr::from_ptr(name).to_bytes() });
        let what = arguments::text(done.what.to_bytes());
        pg_sys::OidFunctionCall3Coll(follow, pg_sys::InvalidOid, what, text(done.names.0), text(done.names.1));
    }
    nothing
}

sys::sql_callable!(pg_finfo_bemi_on_ddl);
