//! The functions that the SQL of this stage calls.
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::{launcher, slots, start_lock};
use crate::document::identity::{self, Identity};
use crate::recorder::place;
use crate::sys::call::Call;
use crate::sys::function::{Uuid, sql_functions};
use crate::sys::{catalog, node, process, slot, wal};

sql_functions! {
    bemi_launch => launch,
    bemi_wake => process::wake,
    bemi_lock_recorder => lock_recorder,
    bemi_flush_log => wal::flush,
    bemi_create_slot => create_slot,
    bemi_change_id => change_id,
    bemi_place => place,
    bemi_place_source => place_source,
    bemi_place_position => place_position,
    bemi_before_drop => before_drop,
}

/// `bemi.launch()`: starts the worker of this database, and returns its process id.
fn launch() -> i32 {
    // SAFETY: reads a number of the process.
    let database = unsafe { pg_sys::MyDatabaseId };
    launcher::recorder(database).launch().unwrap_or_else(|| {
        let code = PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED;
        let message = "the recorder cannot be started: no background worker is free";
        ErrorReport::new(code, message, "bemi_launch")
            .set_hint("ALTER SYSTEM SET max_worker_processes = 16; -- more than now, and restart the server")
            .report(PgLogLevel::ERROR);
        unreachable!("a report at level ERROR does not return")
    })
}

/// `bemi.lock_recorder()`: has others that start or stop the recorder wait until the transaction ends.
fn lock_recorder() {
    start_lock::take();
}

/// `bemi.create_slot(name)`: creates a slot for the decoder.
fn create_slot(name: pg_sys::NameData) {
    slot::create(name, c"bemi_decoder");
}

/// `bemi.change_id(timestamptz, pg_lsn, integer, integer)`: returns the id of a change, of the source that comes last.
fn change_id(committed_at: i64, commit_position: u64, sequence: i32, source: i32) -> Uuid {
    Uuid(identity::id(source, Identity { commit_position, sequence: sequence as u32 }, committed_at))
}

/// `bemi.place(integer, bigint)`, and with `pg_lsn`: returns the place of a position of a source. Both types of SQL
/// have the same bits.
fn place(source: i32, position: u64) -> i64 {
    place::place(source, position).unwrap_or_else(|| {
        let code = PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED;
        let message = "a change is beyond what bemi can put in order";
        ErrorReport::new(code, message, "bemi_place")
            .set_detail(format!(
                "It is of source {source}, at byte {position} of the log; 127 sources of 64 PiB are possible."
            ))
            .report(PgLogLevel::ERROR);
        unreachable!("a report at level ERROR does not return")
    })
}

/// `bemi.place_source(bigint)`: returns the source of a place.
fn place_source(place: i64) -> i32 {
    place::parts(place).0
}

/// `bemi.place_position(bigint)`: returns the position of a place in the WAL of its source.
fn place_position(place: i64) -> u64 {
    place::parts(place).1
}

/// `bemi.before_drop()`: refuses to drop the extension while the server keeps WAL for a recorder, which no function of
/// the extension could stop then; and removes the triggers that would keep the extension from being dropped. DROP OWNED
/// drops both the extension and what is recorded; so it is refused here.
fn before_drop(call: Call<'_>) {
    use pg_sys::NodeTag::{T_DropOwnedStmt, T_DropStmt};
    let Some(statement) = call.statement(c"ddl_command_start") else { return };
    // SAFETY: a node with the tag of one kind of statement is one.
    unsafe {
        match (*statement).type_ {
            T_DropStmt => before_drop_of(&*statement.cast(), &call),
            T_DropOwnedStmt => before_drop_owned(&*statement.cast(), &call),
            _ => {}
        }
    }
}

fn before_drop_of(drop: &pg_sys::DropStmt, call: &Call<'_>) {
    use pg_sys::ObjectType::{OBJECT_EXTENSION, OBJECT_SCHEMA};
    // SAFETY: the statement names its objects in a list; the names of extensions and schemas are strings.
    let is_ours = [OBJECT_EXTENSION, OBJECT_SCHEMA].contains(&drop.removeType)
        && unsafe { node::members::<pg_sys::Node>(drop.objects).any(|name| node::string(name) == c"bemi") };
    if !is_ours {
        return;
    }
    if recorder_has_slot() {
        let code = PgSqlErrorCode::ERRCODE_OBJECT_IN_USE;
        let message = "the recorder of bemi has a slot in this database, for which the server keeps the log";
        ErrorReport::new(code, message, "bemi_before_drop")
            .set_hint("SELECT bemi.stop(drop_slot => true); -- what is recorded stays in bemi.changes")
            .report(PgLogLevel::ERROR);
    }
    if drop.removeType == OBJECT_EXTENSION
        && let Some(release) = catalog::function_beside(call.function(), c"release_tables", &[])
    {
        // SAFETY: the function was found by its types: it has no arguments.
        unsafe { pg_sys::OidFunctionCall0Coll(release, pg_sys::InvalidOid) };
    }
}

fn before_drop_owned(drop: &pg_sys::DropOwnedStmt, call: &Call<'_>) {
    let types = [pg_sys::OIDOID];
    let Some(guard) = catalog::function_beside(call.function(), c"guard_owned", &types) else { return };
    // SAFETY: the statement names its roles in a list of RoleSpecs; the function was found by its types: it takes an
    // OID.
    unsafe {
        for role in node::members::<pg_sys::RoleSpec>(drop.roles) {
            let role = pg_sys::get_rolespec_oid(role, true);
            pg_sys::OidFunctionCall1Coll(guard, pg_sys::InvalidOid, pg_sys::Datum::from(role));
        }
    }
}

/// Returns whether the recorder of this database has a slot. Anyone who may create slots can give one such a name; so
/// it is the one that `bemi.recorder` names.
fn recorder_has_slot() -> bool {
    let slot = match Spi::get_one::<String>("SELECT bemi.recorder_slot()::text") {
        Ok(slot) => slot,
        Err(error) => error!("{error}"),
    };
    // SAFETY: reads a number of the process.
    let database = unsafe { pg_sys::MyDatabaseId };
    slot.is_some_and(|slot| slots::is_of(&slot, database.to_u32()))
}
