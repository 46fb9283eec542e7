//! The server's side of stage 2: the trigger function, and the ends of transactions and savepoints.
use core::cell::{Cell, RefCell};
use core::ffi::c_void;
use std::rc::Rc;

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{pg_sys, trigger_support};

use super::emit::{End, Running, Written};
use crate::context::pg::{gucs, revision, statement};
use crate::document::context::PREFIX;
use crate::sys::transaction::nesting_level;
use crate::sys::{catalog, function, process, wal};

mod hooks;

thread_local! {
    static WRITTEN: RefCell<Written> = const { RefCell::new(Written::new()) };
    /// When the client's statement arrived that loaded the library.
    static LOADED: Cell<i64> = const { Cell::new(i64::MIN) };
    static RUNNING: RefCell<Running> = const { RefCell::new(Running::new()) };
}

/// Registers the callbacks, for as long as the process lives.
pub fn init() {
    // SAFETY: both callbacks are guarded, and ignore their argument. The server calls them in the thread that runs
    // this.
    unsafe {
        pg_sys::RegisterXactCallback(Some(transaction_event), core::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(savepoint_event), core::ptr::null_mut());
        LOADED.set(pg_sys::GetCurrentStatementStartTimestamp());
    }
    hooks::install();
}

/// Returns the trigger function of this extension, `bemi.emit_context()`; None if it does not exist. Reads the
/// catalogs.
pub fn emit_context() -> Option<pg_sys::Oid> {
    catalog::function(c"bemi", c"emit_context", &[])
}

/// Returns the size of the longest message that carries a context, in bytes: as long as a context may be.
pub fn max_message_size() -> usize {
    gucs::max_context_size()
}

/// Raises no error: the transaction has ended already.
#[pg_guard]
unsafe extern "C-unwind" fn transaction_event(event: pg_sys::XactEvent::Type, _argument: *mut c_void) {
    use pg_sys::XactEvent::*;
    if matches!(
        event,
        XACT_EVENT_COMMIT
            | XACT_EVENT_PARALLEL_COMMIT
            | XACT_EVENT_ABORT
            | XACT_EVENT_PARALLEL_ABORT
            | XACT_EVENT_PREPARE
    ) {
        WRITTEN.with_borrow_mut(Written::end);
        RUNNING.with_borrow_mut(Running::end_all);
    }
}

/// Raises no error, as above.
#[pg_guard]
unsafe extern "C-unwind" fn savepoint_event(
    event: pg_sys::SubXactEvent::Type,
    _savepoint: pg_sys::SubTransactionId,
    _parent: pg_sys::SubTransactionId,
    _argument: *mut c_void,
) {
    use pg_sys::SubXactEvent::*;
    match event {
        SUBXACT_EVENT_COMMIT_SUB => WRITTEN.with_borrow_mut(|written| written.release(nesting_level())),
        SUBXACT_EVENT_ABORT_SUB => {
            WRITTEN.with_borrow_mut(|written| written.roll_back(nesting_level()));
            RUNNING.with_borrow_mut(|running| running.roll_back(nesting_level()));
        }
        _ => {}
    }
}

/// `bemi.emit_context()`: writes the context of the statement into WAL, if it is not in force there already. A trigger
/// has no arguments of SQL, and runs for each statement: so it reads its call itself.
///
/// # Safety
/// Called by the server's function manager.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_emit_context(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the function manager passes no null. In a call as a trigger, the context is the trigger's data.
    let (event, relation) = unsafe {
        if !trigger_support::called_as_trigger(fcinfo) {
            refuse("bemi.emit_context() was not called as a trigger");
        }
        let data: *const pg_sys::TriggerData = (*fcinfo).context.cast();
        ((*data).tg_event, (*data).tg_relation)
    };
    if !trigger_support::trigger_fired_before(event) {
        refuse("bemi.emit_context() was called by a trigger that does not fire BEFORE the statement");
    }
    if !trigger_support::trigger_fired_for_statement(event) {
        refuse("bemi.emit_context() was called by a trigger FOR EACH ROW");
    }
    // SAFETY: the server keeps the relation open as long as its trigger runs.
    if unsafe { is_logged(relation) } {
        emit();
        note_first();
    }
    pg_sys::Datum::from(0)
}

function::sql_callable!(pg_finfo_bemi_emit_context);

fn refuse(message: &'static str) -> ! {
    let code = PgSqlErrorCode::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED;
    ErrorReport::new(code, message, "bemi_emit_context")
        .set_hint(
            "SELECT bemi.track('your_table') creates the trigger as it must be: \
             BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE, FOR EACH STATEMENT.",
        )
        .report(PgLogLevel::ERROR);
    unreachable!("a report at level ERROR does not return")
}

/// Returns whether the statement may make changes that a decoder finds in WAL.
///
/// # Safety
/// The relation is open.
unsafe fn is_logged(relation: pg_sys::Relation) -> bool {
    // SAFETY: the entry of an open relation has its row of pg_class, which is kept while nothing reads a catalog, as
    // here.
    unsafe {
        let form = &*(*relation).rd_rel;
        // A relation that is not logged may have partitions or children that are.
        let may_reach_others = form.relkind as u8 != pg_sys::RELKIND_RELATION || form.relhassubclass;
        pg_sys::wal_level >= pg_sys::WalLevel::WAL_LEVEL_LOGICAL as i32
            && (form.relpersistence as u8 == pg_sys::RELPERSISTENCE_PERMANENT || may_reach_others)
    }
}

/// Writes the context of the running statement into WAL, if it is not in force there already.
fn emit() {
    let revision = statement::session_revision();
    if revision.is_some_and(|revision| WRITTEN.with_borrow(|written| written.is_revision(revision))) {
        return;
    }
    let content = statement::content();
    if WRITTEN.with_borrow(|written| written.is_due(&content)) {
        write(revision, content.clone());
        set_content(Some(content));
    } else if let Some(revision) = revision {
        WRITTEN.with_borrow_mut(|written| written.set_revision(revision));
    }
}

/// Notes the context of the statement whose trigger loaded the library: it began before the hooks were there.
fn note_first() {
    if RUNNING.with_borrow(Running::is_empty) {
        set_content(WRITTEN.with_borrow(Written::last));
    }
}

fn set_content(content: Option<Rc<str>>) {
    RUNNING.with_borrow_mut(|running| running.set_content(nesting_level(), revision(), content));
}

/// Begins a statement that may write rows. If a context is in force already, its own is written: its trigger may not
/// fire.
fn begin(id: usize) {
    let is_in_force = WRITTEN.with_borrow(|written| !written.is_empty());
    RUNNING.with_borrow_mut(|running| running.begin(id, nesting_level(), revision()));
    if is_in_force {
        emit();
        set_content(WRITTEN.with_borrow(Written::last));
    }
}

/// Ends such a statement: puts the context of the statement around it back in force.
fn end(id: usize, statement: *const pg_sys::PlannedStmt) {
    let around = match RUNNING.with_borrow_mut(|running| running.end(id)) {
        End::Inside(Ok(content)) => content,
        // Nothing was in force when that began. Its context is known as long as the session's context is the same.
        End::Inside(Err(began)) if began == revision() => statement::content(),
        End::Inside(Err(_)) => "".into(),
        End::Outermost if WRITTEN.with_borrow(|written| !written.is_empty()) && may_be_inside(statement) => "".into(),
        _ => return,
    };
    if WRITTEN.with_borrow(|written| written.is_due(&around)) {
        write(None, around);
    }
}

/// Returns whether rows may be written around the outermost statement that is known, which ends.
fn may_be_inside(statement: *const pg_sys::PlannedStmt) -> bool {
    // The apply worker of logical replication writes rows without a statement; what ran is a trigger's. And the
    // client's statement that loaded the library may be around a statement that a function ran; what a function calls
    // has an error context.
    // SAFETY: reads a number and a pointer of the process.
    let (now, is_called) =
        unsafe { (pg_sys::GetCurrentStatementStartTimestamp(), !pg_sys::error_context_stack.is_null()) };
    is_called && LOADED.get() == now && !is_of_client(statement) || process::is_apply_worker()
}

/// Returns whether a statement is known to be the client's own. The portal without a name is the client's alone; it has
/// an error context in the extended query protocol, like a function.
fn is_of_client(statement: *const pg_sys::PlannedStmt) -> bool {
    // SAFETY: a portal that is not null has a name that is a C string, and a list of its statements, until it is done.
    unsafe {
        pg_sys::ActivePortal
            .as_ref()
            .is_some_and(|portal| *portal.name == 0 && pg_sys::list_member_ptr(portal.stmts, statement.cast()))
    }
}

fn write(revision: Option<u64>, content: Rc<str>) {
    // An empty object ends the context that is in force.
    let message = if content.is_empty() { "{}" } else { &content };
    wal::log_logical_message(PREFIX, message.as_bytes());
    WRITTEN.with_borrow_mut(|written| written.record(nesting_level(), revision, content));
}
