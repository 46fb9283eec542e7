//! What a statement did to tables that matters for tracking. Names before and after a change are in its parse tree only,
//! which an event trigger in SQL cannot see.
use core::ffi::{CStr, c_char};

use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::sys::extension_lock::{self, Part};
use crate::sys::{self, arguments};

/// Something was made, attached, moved, renamed or published.
#[derive(PartialEq, Eq)]
struct Done {
    what: &'static CStr,
    /// The name before, or what was attached, and the name after; empty where there is none.
    names: (Vec<u8>, Vec<u8>),
}

impl Done {
    fn table() -> Self {
        Self::unnamed(c"table")
    }

    fn unnamed(what: &'static CStr) -> Self {
        Self { what, names: (Vec::new(), Vec::new()) }
    }

    /// Whether it brings tables to where they may have to be tracked.
    fn brings_tables(&self) -> bool {
        [c"table", c"partition", c"schema"].contains(&self.what)
    }

    /// Empty if nothing was that matters.
    ///
    /// # Safety
    /// The statement is a utility statement, which has been run.
    unsafe fn read(statement: *const pg_sys::Node) -> Vec<Self> {
        use pg_sys::NodeTag::*;
        // A table's name may be missing only where the grammar leaves it out.
        // SAFETY: the caller's promise; a node is what its tag says.
        unsafe {
            let is_lasting = |name: *const pg_sys::RangeVar| {
                name.as_ref().is_some_and(|name| name.relpersistence as u8 == pg_sys::RELPERSISTENCE_PERMANENT)
            };
            let done = match (*statement).type_ {
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
                    let mut all = Vec::new();
                    for command in sys::members::<pg_sys::AlterTableCmd>((*altered).cmds) {
                        all.extend(Self::altered(&*command).filter(|done| !all.contains(done)));
                    }
                    return all;
                }
                T_AlterObjectSchemaStmt => {
                    let moved: *const pg_sys::AlterObjectSchemaStmt = statement.cast();
                    ((*moved).objectType == pg_sys::ObjectType::OBJECT_TABLE).then(Self::table)
                }
                T_RenameStmt => Self::renamed(&*statement.cast()),
                T_CreatePublicationStmt | T_AlterPublicationStmt => Some(Self::unnamed(c"publication")),
                _ => None,
            };
            done.into_iter().collect()
        }
    }

    /// # Safety
    /// The command is one of an ALTER TABLE that has been run.
    unsafe fn altered(command: &pg_sys::AlterTableCmd) -> Option<Self> {
        use pg_sys::AlterTableType::*;
        // SAFETY: the caller's promise, and the command is of that kind.
        unsafe {
            match command {
                command if command.subtype == AT_AttachPartition => Self::attached(command),
                command if command.subtype == AT_AddConstraint => Self::made_of_index(command),
                command if command.subtype == AT_SetLogged => Some(Self::table()),
                command if command.subtype == AT_AddColumn => Some(Self::unnamed(c"column added")),
                command if command.subtype == AT_AddInherit => Some(Self::unnamed(c"parent")),
                _ => None,
            }
        }
    }

    /// # Safety
    /// The command attaches a partition, or an index, and has been run.
    unsafe fn attached(command: &pg_sys::AlterTableCmd) -> Option<Self> {
        // SAFETY: such a command has a description that names what it attaches.
        let partition = unsafe {
            let command: *const pg_sys::PartitionCmd = command.def.cast();
            let flags = pg_sys::RVROption::RVR_MISSING_OK;
            pg_sys::RangeVarGetRelidExtended((*command).name, 0, flags, None, core::ptr::null_mut())
        };
        (partition != pg_sys::InvalidOid)
            .then(|| Self { what: c"partition", names: (partition.to_u32().to_string().into_bytes(), Vec::new()) })
    }

    /// ADD CONSTRAINT … USING INDEX gives the index the name of the constraint.
    ///
    /// # Safety
    /// The command adds a constraint, and has been run.
    unsafe fn made_of_index(command: &pg_sys::AlterTableCmd) -> Option<Self> {
        let constraint: *const pg_sys::Constraint = command.def.cast();
        // SAFETY: such a command has a description; names in it are null or C strings.
        unsafe {
            let (old, new) = ((*constraint).indexname, (*constraint).conname);
            (!old.is_null() && !new.is_null()).then(|| Self {
                what: c"index",
                names: (CStr::from_ptr(old).to_bytes().to_vec(), CStr::from_ptr(new).to_bytes().to_vec()),
            })
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
        // SAFETY: a name in a parse tree is null or a C string.
        let text = |name: *const c_char| unsafe {
            if name.is_null() { Vec::new() } else { CStr::from_ptr(name).to_bytes().to_vec() }
        };
        Some(Self { what, names: (text(old), text(statement.newname)) })
    }
}

/// The table that a CREATE RULE makes a view of, if the current role owns it.
///
/// # Safety
/// A transaction is active.
unsafe fn table_to_be_a_view(rule: &pg_sys::RuleStmt) -> Option<pg_sys::Oid> {
    if rule.event != pg_sys::CmdType::CMD_SELECT {
        return None;
    }
    // SAFETY: a rule has a relation; the function looks it up in the catalogs.
    let relation = unsafe {
        // As the statement itself will: else the name could be that of another relation when it has its lock.
        let lock = pg_sys::AccessExclusiveLock as pg_sys::LOCKMODE;
        let flags = pg_sys::RVROption::RVR_MISSING_OK;
        pg_sys::RangeVarGetRelidExtended(rule.relation, lock, flags, None, core::ptr::null_mut())
    };
    (relation != pg_sys::InvalidOid && sys::owns_relation(relation)).then_some(relation)
}

/// Raises an error for what is in the schema of the extension. Whoever reads it, with the rights of a superuser too, would run
/// what the rule says.
fn refuse_rule_in(schema: pg_sys::Oid, relation: pg_sys::Oid) {
    // SAFETY: look-ups in the catalogs; the name is a copy.
    unsafe {
        if pg_sys::get_rel_namespace(relation) == schema {
            let name = CStr::from_ptr(pg_sys::get_rel_name(relation)).to_string_lossy();
            let message = format!("the relation {name} of bemi gets no rule for SELECT");
            ErrorReport::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, message, "bemi_before_ddl")
                .report(PgLogLevel::ERROR);
        }
    }
}

/// The table whose trigger `bemi_context` is to be dropped.
///
/// # Safety
/// The statement is whole, as the server's parser makes it.
unsafe fn table_of_dropped_trigger(drop: &pg_sys::DropStmt) -> Option<pg_sys::Oid> {
    if drop.removeType != pg_sys::ObjectType::OBJECT_TRIGGER {
        return None;
    }
    // SAFETY: a trigger is a list of names, the last of which is its own; the function looks the table up in the catalogs.
    let relation = unsafe {
        let names = sys::members::<pg_sys::List>(drop.objects).next()?;
        let length = (*names).length;
        let last = sys::members::<pg_sys::Node>(names).last()?;
        if !(2..=4).contains(&length) || sys::string(last) != c"bemi_context" {
            return None;
        }
        let table = pg_sys::makeRangeVarFromNameList(pg_sys::list_truncate(pg_sys::list_copy(names), length - 1));
        let flags = pg_sys::RVROption::RVR_MISSING_OK;
        pg_sys::RangeVarGetRelidExtended(table, 0, flags, None, core::ptr::null_mut())
    };
    (relation != pg_sys::InvalidOid && sys::owns_relation(relation)).then_some(relation)
}

/// `bemi.before_ddl()`: a CREATE TRIGGER that makes the trigger of a tracked table replaces one that is there. A dump that
/// is restored where the schema is tracked makes a table, which is tracked at once, and then its trigger with its rules;
/// or an old one makes a view of it by a rule. Before a DROP TRIGGER it has the rules remembered that the trigger has.
///
/// # Safety
/// Called by the server.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_before_ddl(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // The tree is the server's own copy for this run of the statement.
    // SAFETY: the server's call; a node is what its tag says, and names in it are C strings.
    unsafe {
        if let Some(statement) = arguments::statement(fcinfo, c"ddl_command_start")
            && (*statement).type_ == pg_sys::NodeTag::T_CreateTrigStmt
        {
            let trigger: &mut pg_sys::CreateTrigStmt = &mut *statement.cast();
            let function: Vec<*mut pg_sys::Node> = sys::members(trigger.funcname).collect();
            let names = function.iter().map(|name| sys::string(*name));
            let is_ours = names.eq([c"bemi", c"emit_context"]);
            trigger.replace |= is_ours && !trigger.row && CStr::from_ptr(trigger.trigname) == c"bemi_context";
        } else if let Some(statement) = arguments::statement(fcinfo, c"ddl_command_start")
            && (*statement).type_ == pg_sys::NodeTag::T_RuleStmt
            && let Some(relation) = table_to_be_a_view(&*statement.cast())
            && let Some(make_way) =
                sys::function_beside((*(*fcinfo).flinfo).fn_oid, c"make_way_for_view", &[pg_sys::OIDOID])
        {
            refuse_rule_in(pg_sys::get_func_namespace(make_way), relation);
            pg_sys::OidFunctionCall1Coll(make_way, pg_sys::InvalidOid, pg_sys::Datum::from(relation));
        } else if let Some(statement) = arguments::statement(fcinfo, c"ddl_command_start")
            && (*statement).type_ == pg_sys::NodeTag::T_DropStmt
            && let Some(relation) = table_of_dropped_trigger(&*statement.cast())
            && let Some(remember) =
                sys::function_beside((*(*fcinfo).flinfo).fn_oid, c"before_drop_trigger", &[pg_sys::OIDOID])
        {
            pg_sys::OidFunctionCall1Coll(remember, pg_sys::InvalidOid, pg_sys::Datum::from(relation));
        }
    }
    pg_sys::Datum::from(0)
}

/// `bemi.on_ddl()`: calls `bemi.follow_ddl()` for each thing that a statement did and that matters.
///
/// # Safety
/// Called by the server.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_on_ddl(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    let nothing = pg_sys::Datum::from(0);
    // SAFETY: the server's call.
    unsafe {
        let Some(statement) = arguments::statement(fcinfo, c"ddl_command_end") else { return nothing };
        let all = Done::read(statement);
        if all.is_empty() {
            return nothing;
        }
        // By its number: a name would be looked up with the rights of whoever runs the statement.
        let types = [pg_sys::TEXTOID, pg_sys::TEXTOID, pg_sys::TEXTOID, pg_sys::OIDOID];
        let Some(follow) = sys::function_beside((*(*fcinfo).flinfo).fn_oid, c"follow_ddl", &types) else {
            return nothing;
        };
        if all.iter().any(Done::brings_tables) {
            // Until the transaction ends: whoever tracks all tables then sees this one.
            extension_lock::take(Part::Tracking, pg_sys::RowExclusiveLock);
        }
        // This function has the rights of whoever runs the statement; the other one has its owner's.
        let author = pg_sys::Datum::from(pg_sys::GetUserId());
        for done in all {
            let what = arguments::text(done.what.to_bytes());
            let (old, new) = (arguments::text(&done.names.0), arguments::text(&done.names.1));
            pg_sys::OidFunctionCall4Coll(follow, pg_sys::InvalidOid, what, old, new, author);
        }
    }
    nothing
}

sys::sql_callable!(pg_finfo_bemi_before_ddl, pg_finfo_bemi_on_ddl);
