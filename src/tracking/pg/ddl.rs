//! What a statement did to tables that matters for tracking. Names before and after a change are only in its parse
//! tree, which an event trigger in SQL cannot see.
use core::ffi::{CStr, c_char};

use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::TRACKING;
use crate::sys::call::Call;
use crate::sys::function::sql_functions;
use crate::sys::{arguments, catalog, node};

sql_functions! {
    bemi_before_ddl => before_ddl,
    bemi_on_ddl => on_ddl,
}

/// What was created, attached, moved, renamed or published.
#[derive(PartialEq, Eq)]
struct Done {
    what: &'static CStr,
    /// The name before, or what was attached, and the name after; empty for no name.
    names: (Vec<u8>, Vec<u8>),
}

impl Done {
    fn table() -> Self {
        Self::unnamed(c"table")
    }

    fn unnamed(what: &'static CStr) -> Self {
        Self { what, names: (Vec::new(), Vec::new()) }
    }

    /// Returns whether it brings tables to where they may have to be tracked.
    fn brings_tables(&self) -> bool {
        [c"table", c"partition", c"schema"].contains(&self.what)
    }

    /// Reads what a statement did; empty if nothing of it matters.
    ///
    /// # Safety
    /// The statement is a utility statement, which has been run.
    unsafe fn read(statement: *const pg_sys::Node) -> Vec<Self> {
        use pg_sys::NodeTag::*;
        // A table's name may be missing only where the grammar leaves it out.
        // SAFETY: a node with the tag of one kind of statement is one; what it points to is null or of the type that
        // the grammar gives it.
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
                    for command in node::members::<pg_sys::AlterTableCmd>((*altered).cmds) {
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
        // SAFETY: the command has been run, and the subtype says which kind it is.
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
        // SAFETY: a command of this subtype has a PartitionCmd, which names what it attaches.
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
        // SAFETY: a command of this subtype has a Constraint, whose names are null or C strings.
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
        // SAFETY: the relation of a RenameStmt is null or names one.
        let relation = unsafe { statement.relation.as_ref() }.map_or(core::ptr::null_mut(), |name| name.relname);
        let (what, old) = match statement.renameType {
            OBJECT_COLUMN | OBJECT_ATTRIBUTE => (c"column", statement.subname),
            OBJECT_TABCONSTRAINT => (c"constraint", statement.subname),
            // ALTER TABLE renames indexes too.
            OBJECT_INDEX | OBJECT_TABLE => (c"relation", relation),
            OBJECT_SCHEMA => (c"schema", statement.subname),
            _ => return None,
        };
        // SAFETY: names in parse trees are null or C strings.
        let text = |name: *const c_char| unsafe {
            if name.is_null() { Vec::new() } else { CStr::from_ptr(name).to_bytes().to_vec() }
        };
        Some(Self { what, names: (text(old), text(statement.newname)) })
    }
}

/// Returns the table that a CREATE RULE makes a view of, if the current role owns it.
fn table_to_be_a_view(rule: &pg_sys::RuleStmt) -> Option<pg_sys::Oid> {
    if rule.event != pg_sys::CmdType::CMD_SELECT {
        return None;
    }
    // SAFETY: a CREATE RULE names a relation, which is looked up in the transaction of the statement.
    let relation = unsafe {
        // With the lock that the statement itself will take: else the name could be that of another relation by then.
        let lock = pg_sys::AccessExclusiveLock as pg_sys::LOCKMODE;
        let flags = pg_sys::RVROption::RVR_MISSING_OK;
        pg_sys::RangeVarGetRelidExtended(rule.relation, lock, flags, None, core::ptr::null_mut())
    };
    (relation != pg_sys::InvalidOid && catalog::owns_relation(relation)).then_some(relation)
}

/// Raises an error for a relation in the schema of the extension. Whoever reads it, also with the rights of a
/// superuser, would run what the rule says.
fn refuse_rule_in(schema: pg_sys::Oid, relation: pg_sys::Oid) {
    // SAFETY: both look-ups take any number; the name of a relation that is locked, as this one is, is a copy that is
    // not null.
    unsafe {
        if pg_sys::get_rel_namespace(relation) == schema {
            let name = CStr::from_ptr(pg_sys::get_rel_name(relation)).to_string_lossy();
            let message = format!("the relation {name} of bemi gets no rule for SELECT");
            ErrorReport::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, message, "bemi_before_ddl")
                .report(PgLogLevel::ERROR);
        }
    }
}

/// Returns the table whose trigger `bemi_context` is to be dropped, if the current role owns it.
fn table_of_dropped_trigger(drop: &pg_sys::DropStmt) -> Option<pg_sys::Oid> {
    if drop.removeType != pg_sys::ObjectType::OBJECT_TRIGGER {
        return None;
    }
    // SAFETY: DROP TRIGGER has a list of lists of strings: the name of the table, and last that of the trigger.
    let relation = unsafe {
        let names = node::members::<pg_sys::List>(drop.objects).next()?;
        let length = (*names).length;
        let last = node::members::<pg_sys::Node>(names).last()?;
        if !(2..=4).contains(&length) || node::string(last) != c"bemi_context" {
            return None;
        }
        let table = pg_sys::makeRangeVarFromNameList(pg_sys::list_truncate(pg_sys::list_copy(names), length - 1));
        let flags = pg_sys::RVROption::RVR_MISSING_OK;
        pg_sys::RangeVarGetRelidExtended(table, 0, flags, None, core::ptr::null_mut())
    };
    (relation != pg_sys::InvalidOid && catalog::owns_relation(relation)).then_some(relation)
}

/// `bemi.before_ddl()`: a CREATE TRIGGER that creates the trigger of a tracked table replaces the one that exists. A
/// dump that is restored where the schema is tracked creates a table, which is tracked at once, and then its trigger
/// with its rules; or an old one makes a view of it by a rule. Before a DROP TRIGGER the rules of the trigger are
/// saved.
fn before_ddl(call: Call<'_>) {
    use pg_sys::NodeTag::{T_CreateTrigStmt, T_DropStmt, T_RuleStmt};
    let Some(statement) = call.statement(c"ddl_command_start") else { return };
    // SAFETY: a node with the tag of one kind of statement is one. The tree is the server's own copy for this run of
    // the statement, to which nothing else points now.
    unsafe {
        match (*statement).type_ {
            T_CreateTrigStmt => replace_trigger(&mut *statement.cast()),
            T_RuleStmt => before_rule(&*statement.cast(), &call),
            T_DropStmt => before_drop_trigger(&*statement.cast(), &call),
            _ => {}
        }
    }
}

fn replace_trigger(trigger: &mut pg_sys::CreateTrigStmt) {
    // SAFETY: the name of a function is a list of strings, and that of a trigger a C string.
    unsafe {
        let function: Vec<*mut pg_sys::Node> = node::members(trigger.funcname).collect();
        let is_ours = function.iter().map(|name| node::string(*name)).eq([c"bemi", c"emit_context"]);
        trigger.replace |= is_ours && !trigger.row && CStr::from_ptr(trigger.trigname) == c"bemi_context";
    }
}

fn before_rule(rule: &pg_sys::RuleStmt, call: &Call<'_>) {
    if let Some(relation) = table_to_be_a_view(rule)
        && let Some(make_way) = catalog::function_beside(call.function(), c"make_way_for_view", &[pg_sys::OIDOID])
    {
        // SAFETY: the function was just found; then it is called with the OID that it takes.
        unsafe {
            refuse_rule_in(pg_sys::get_func_namespace(make_way), relation);
            pg_sys::OidFunctionCall1Coll(make_way, pg_sys::InvalidOid, pg_sys::Datum::from(relation));
        }
    }
}

fn before_drop_trigger(drop: &pg_sys::DropStmt, call: &Call<'_>) {
    if let Some(relation) = table_of_dropped_trigger(drop)
        && let Some(remember) = catalog::function_beside(call.function(), c"before_drop_trigger", &[pg_sys::OIDOID])
    {
        // SAFETY: the function was found by its types: it takes an OID.
        unsafe { pg_sys::OidFunctionCall1Coll(remember, pg_sys::InvalidOid, pg_sys::Datum::from(relation)) };
    }
}

/// `bemi.on_ddl()`: calls `bemi.follow_ddl()` for each thing that a statement did and that matters.
fn on_ddl(call: Call<'_>) {
    let Some(statement) = call.statement(c"ddl_command_end") else { return };
    // SAFETY: this event comes after the statement was run.
    let all = unsafe { Done::read(statement) };
    if all.is_empty() {
        return;
    }
    // By its number: a name would be looked up with the rights of whoever runs the statement.
    let types = [pg_sys::TEXTOID, pg_sys::TEXTOID, pg_sys::TEXTOID, pg_sys::OIDOID];
    let Some(follow) = catalog::function_beside(call.function(), c"follow_ddl", &types) else { return };
    if all.iter().any(Done::brings_tables) {
        // Until the transaction ends: whoever tracks all tables then sees this one.
        TRACKING.lock(pg_sys::RowExclusiveLock);
    }
    for done in all {
        let what = arguments::text(done.what.to_bytes());
        let (old, new) = (arguments::text(&done.names.0), arguments::text(&done.names.1));
        // SAFETY: the function was found by its types: it takes three texts and an OID.
        unsafe {
            // This function has the rights of whoever runs the statement; the other one has its owner's.
            let author = pg_sys::Datum::from(pg_sys::GetUserId());
            pg_sys::OidFunctionCall4Coll(follow, pg_sys::InvalidOid, what, old, new, author);
        }
    }
}
