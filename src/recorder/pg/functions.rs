//! The functions that the SQL of this stage calls.
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::{lock, slots};
use crate::document::identity::{Identity, id};
use crate::recorder::place;
use crate::sys::arguments::{self, argument};
use crate::sys::{self, decoding, process};

/// `bemi.launch()`: starts the worker of this database; gives its process id.
///
/// # Safety
/// Called by the server.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_launch(_fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: reads a number of the process.
    let database = unsafe { pg_sys::MyDatabaseId };
    match process::launch(database) {
        Some(pid) => pg_sys::Datum::from(pid),
        None => {
            let code = PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED;
            let message = "the recorder cannot be started: no background worker is free";
            ErrorReport::new(code, message, "bemi_launch")
                .set_hint("ALTER SYSTEM SET max_worker_processes = 16; -- more than now, and restart the server")
                .report(PgLogLevel::ERROR);
            unreachable!("a report at level ERROR does not return")
        }
    }
}

/// `bemi.wake(integer)`: has a process look whether there is something to do.
///
/// # Safety
/// Called by the server.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_wake(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the server's call; to wake a process does no harm.
    unsafe {
        if let Some(pid) = argument(fcinfo, 0) {
            let process = pg_sys::BackendPidGetProc(pid.value() as i32);
            if !process.is_null() {
                pg_sys::SetLatch(&raw mut (*process).procLatch);
            }
        }
    }
    pg_sys::Datum::from(0)
}

/// `bemi.lock_recorder()`: has others that start or stop the recorder wait until the transaction ends.
///
/// # Safety
/// Called by the server.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_lock_recorder(_fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    lock::take();
    pg_sys::Datum::from(0)
}

/// `bemi.flush_log(pg_lsn)`: has the log on disk up to a position, at which a record or a page ends.
///
/// # Safety
/// Called by the server, with an argument that is not null.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_flush_log(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the server's call; the argument is a position.
    unsafe {
        if let Some(until) = argument(fcinfo, 0) {
            pg_sys::XLogFlush(until.value() as u64);
        }
    }
    pg_sys::Datum::from(0)
}

/// `bemi.create_slot(name)`: makes a slot for the decoder.
///
/// # Safety
/// Called by the server, with an argument that is not null.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_create_slot(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the server's call; the argument is a name.
    unsafe {
        if let Some(name) = argument(fcinfo, 0) {
            decoding::create_slot(name);
        }
    }
    pg_sys::Datum::from(0)
}

/// `bemi.change_id(timestamptz, pg_lsn, integer, integer)`: the id of a change, of the source that comes last.
///
/// # Safety
/// Called by the server, with arguments that are not null.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_change_id(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the server's call of a strict function; the arguments are passed by value, and what is returned is a uuid in
    // the caller's memory context.
    unsafe {
        let [time, position, sequence] =
            [0, 1, 2].map(|index| argument(fcinfo, index).map_or(0, |datum| datum.value()));
        let source = argument(fcinfo, 3).map_or(1, |datum| datum.value() as i32);
        let identity = Identity { commit_position: position as u64, sequence: sequence as u32 };
        let id = id(source, identity, time as i64);
        let uuid: *mut [u8; 16] = pg_sys::palloc(id.len()).cast();
        uuid.write(id);
        pg_sys::Datum::from(uuid)
    }
}

/// `bemi.place(integer, bigint)`, and with `pg_lsn`: the place of a position of a source.
///
/// # Safety
/// Called by the server, with arguments that are not null.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_place(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the server's call of a strict function; both arguments are passed by value.
    let [source, position] = [0, 1].map(|index| unsafe { argument(fcinfo, index) }.map_or(0, |datum| datum.value()));
    let (source, position) = (source as i32, position as u64);
    match place::place(source, position) {
        Some(place) => pg_sys::Datum::from(place),
        None => {
            let code = PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED;
            let message = "a change is beyond what bemi can put in order";
            ErrorReport::new(code, message, "bemi_place")
                .set_detail(format!(
                    "It is of source {source}, at byte {position} of the log; 127 sources of 64 PiB are possible."
                ))
                .report(PgLogLevel::ERROR);
            unreachable!("a report at level ERROR does not return")
        }
    }
}

/// `bemi.place_source(bigint)`: the source of a place.
///
/// # Safety
/// Called by the server, with an argument that is not null.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_place_source(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the server's call of a strict function; the argument is passed by value.
    let place = unsafe { argument(fcinfo, 0) }.map_or(0, |datum| datum.value() as i64);
    pg_sys::Datum::from(place::parts(place).0)
}

/// `bemi.place_position(bigint)`: the position of a place in the log of its source.
///
/// # Safety
/// Called by the server, with an argument that is not null.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_place_position(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the server's call of a strict function; the argument is passed by value.
    let place = unsafe { argument(fcinfo, 0) }.map_or(0, |datum| datum.value() as i64);
    pg_sys::Datum::from(place::parts(place).1)
}

/// `bemi.before_drop()`: refuses to drop the extension while the server keeps the log for a recorder, which nobody could
/// stop then by a function of the extension; and removes the triggers that would keep the extension from being dropped.
/// DROP OWNED drops both the extension and what is recorded; so it is refused here.
///
/// # Safety
/// Called by the server.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_before_drop(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    use pg_sys::ObjectType::{OBJECT_EXTENSION, OBJECT_SCHEMA};
    // SAFETY: the server's call; a node is what its tag says, and the names of extensions and schemas are strings.
    unsafe {
        if let Some(statement) = arguments::statement(fcinfo, c"ddl_command_start")
            && (*statement).type_ == pg_sys::NodeTag::T_DropStmt
        {
            let drop: &pg_sys::DropStmt = &*statement.cast();
            let is_ours = [OBJECT_EXTENSION, OBJECT_SCHEMA].contains(&drop.removeType)
                && sys::members::<pg_sys::Node>(drop.objects).any(|name| sys::string(name) == c"bemi");
            if is_ours && recorder_has_slot() {
                let code = PgSqlErrorCode::ERRCODE_OBJECT_IN_USE;
                let message = "the recorder of bemi has a slot in this database, for which the server keeps the log";
                ErrorReport::new(code, message, "bemi_before_drop")
                    .set_hint("SELECT bemi.stop(drop_slot => true); -- what is recorded stays in bemi.changes")
                    .report(PgLogLevel::ERROR);
            }
            if is_ours
                && drop.removeType == OBJECT_EXTENSION
                && let Some(release) = sys::function_beside((*(*fcinfo).flinfo).fn_oid, c"release_tables", &[])
            {
                pg_sys::OidFunctionCall0Coll(release, pg_sys::InvalidOid);
            }
        } else if let Some(statement) = arguments::statement(fcinfo, c"ddl_command_start")
            && (*statement).type_ == pg_sys::NodeTag::T_DropOwnedStmt
            && let Some(guard) = sys::function_beside((*(*fcinfo).flinfo).fn_oid, c"guard_owned", &[pg_sys::OIDOID])
        {
            let drop: &pg_sys::DropOwnedStmt = &*statement.cast();
            for role in sys::members::<pg_sys::RoleSpec>(drop.roles) {
                let role = pg_sys::get_rolespec_oid(role, true);
                pg_sys::OidFunctionCall1Coll(guard, pg_sys::InvalidOid, pg_sys::Datum::from(role));
            }
        }
    }
    pg_sys::Datum::from(0)
}

/// Whether the recorder of this database has a slot. Anyone who may make slots can give one such a name; so it is the one
/// that `bemi.recorder` names.
fn recorder_has_slot() -> bool {
    let slot = match Spi::get_one::<String>("SELECT bemi.recorder_slot()::text") {
        Ok(slot) => slot,
        Err(error) => error!("{error}"),
    };
    // SAFETY: reads a number of the process.
    let database = unsafe { pg_sys::MyDatabaseId };
    slot.is_some_and(|slot| slots::is_of(&slot, database.to_u32()))
}

sys::sql_callable!(
    pg_finfo_bemi_launch,
    pg_finfo_bemi_wake,
    pg_finfo_bemi_lock_recorder,
    pg_finfo_bemi_flush_log,
    pg_finfo_bemi_create_slot,
    pg_finfo_bemi_change_id,
    pg_finfo_bemi_place,
    pg_finfo_bemi_place_source,
    pg_finfo_bemi_place_position,
    pg_finfo_bemi_before_drop
);
