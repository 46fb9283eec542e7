//! The server's side of stage 2: the trigger function, and the ends of transactions and savepoints.
use core::cell::{Cell, RefCell};
use core::ffi::c_void;
use std::rc::Rc;
use std::sync::OnceLock;

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{pg_sys, trigger_support};

use super::emit::{End, Running, Written};
use crate::document::context::PREFIX;
use crate::sys;

mod hooks;

/// Where the trigger learns the context of the running statement.
#[derive(Clone, Copy, Debug)]
pub struct ContextSource {
    /// A number that stands for the session's context.
    pub revision: fn() -> u64,
    /// The same, if that is all of it.
    pub session_revision: fn() -> Option<u64>,
    /// Compact JSON in the database's encoding; empty for no context.
    pub content: fn() -> Rc<str>,
}

static SOURCE: OnceLock<ContextSource> = OnceLock::new();

thread_local! {
    static WRITTEN: RefCell<Written> = const { RefCell::new(Written::new()) };
    /// When the client's statement came in which the library was loaded.
    static LOADED: Cell<i64> = const { Cell::new(i64::MIN) };
    static RUNNING: RefCell<Running> = const { RefCell::new(Running::new()) };
}

/// Registers the callbacks, for as long as the process lives.
pub fn init(source: ContextSource) {
    if SOURCE.set(source).is_ok() {
        // SAFETY: both callbacks are guarded and take no argument; the time is a number.
        unsafe {
            pg_sys::RegisterXactCallback(Some(transaction_event), sys::NO_ARGUMENT);
            pg_sys::RegisterSubXactCallback(Some(savepoint_event), sys::NO_ARGUMENT);
            LOADED.set(pg_sys::GetCurrentStatementStartTimestamp());
        }
        hooks::install();
    }
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

/// 1 in the transaction itself, one more in each savepoint.
fn nesting_level() -> u32 {
    // SAFETY: reads a number that the server keeps.
    unsafe { pg_sys::GetCurrentTransactionNestLevel() as u32 }
}

/// `bemi.emit_context()`: writes the context of the statement into the log, if it is not in force there already.
///
/// # Safety
/// Called by the server.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_emit_context(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the server's call. Called as a trigger, its context is the trigger's data.
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
    // SAFETY: the relation is open as long as its trigger runs.
    if unsafe { is_logged(relation) } {
        emit();
        note_first();
    }
    pg_sys::Datum::from(0)
}

sys::sql_callable!(pg_finfo_bemi_emit_context);

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

/// Whether the statement may make changes that are in the log for a decoder to find.
///
/// # Safety
/// The relation is open.
unsafe fn is_logged(relation: pg_sys::Relation) -> bool {
    // SAFETY: the caller's promise; the setting is a number.
    unsafe {
        let form = &*(*relation).rd_rel;
        // A relation that is not logged may have partitions or children that are.
        let may_reach_others = form.relkind as u8 != pg_sys::RELKIND_RELATION || form.relhassubclass;
        pg_sys::wal_level >= pg_sys::WalLevel::WAL_LEVEL_LOGICAL as i32
            && (form.relpersistence as u8 == pg_sys::RELPERSISTENCE_PERMANENT || may_reach_others)
    }
}

/// Writes the context of the running statement into the log, if it is not in force there already.
fn emit() {
    let Some(source) = SOURCE.get() else { return };
    let revision = (source.session_revision)();
    if revision.is_some_and(|revision| WRITTEN.with_borrow(|written| written.is_revision(revision))) {
        return;
    }
    let content = (source.content)();
    if WRITTEN.with_borrow(|written| written.is_due(&content)) {
        write(revision, content.clone());
        set_content(Some(content));
    } else if let Some(revision) = revision {
        WRITTEN.with_borrow_mut(|written| written.set_revision(revision));
    }
}

/// The statement whose trigger loaded the library began before the hooks were there.
fn note_first() {
    if RUNNING.with_borrow(Running::is_empty) {
        set_content(WRITTEN.with_borrow(Written::last));
    }
}

fn set_content(content: Option<Rc<str>>) {
    RUNNING.with_borrow_mut(|running| running.set_content(nesting_level(), revision(), content));
}

fn revision() -> u64 {
    SOURCE.get().map_or(0, |source| (source.revision)())
}

/// A statement begins that may write rows. If a context is in force already, it has its own written: its trigger may not
/// fire.
fn begin(id: usize) {
    let is_in_force = WRITTEN.with_borrow(|written| !written.is_empty());
    RUNNING.with_borrow_mut(|running| running.begin(id, nesting_level(), revision()));
    if is_in_force {
        emit();
        set_content(WRITTEN.with_borrow(Written::last));
    }
}

/// Such a statement has ended. What it wrote is taken back for the statement around it.
fn end(id: usize, statement: *const pg_sys::PlannedStmt) {
    let around = match RUNNING.with_borrow_mut(|running| running.end(id)) {
        End::Inside(Ok(content)) => content,
        // Nothing was in force when it began. What it would have had is known as long as the session's context is the same.
        End::Inside(Err(began)) if began == revision() => {
            SOURCE.get().map_or_else(Rc::default, |source| (source.content)())
        }
        End::Inside(Err(_)) => "".into(),
        End::Outermost if WRITTEN.with_borrow(|written| !written.is_empty()) && may_be_inside(statement) => "".into(),
        _ => return,
    };
    if WRITTEN.with_borrow(|written| written.is_due(&around)) {
        write(None, around);
    }
}

/// Whether rows may be written around the outermost statement that is known, which ends.
fn may_be_inside(statement: *const pg_sys::PlannedStmt) -> bool {
    // In the apply worker of logical replication, rows are written without a statement; what ran is a trigger's. And while
    // the client's statement runs that loaded the library, it may be around what a function of it ran; who is called by a
    // function has something to say about the context of an error.
    // SAFETY: reads a number and a pointer of the process.
    let (now, is_called) =
        unsafe { (pg_sys::GetCurrentStatementStartTimestamp(), !pg_sys::error_context_stack.is_null()) };
    is_called && LOADED.get() == now && !is_of_client(statement) || sys::is_apply_worker()
}

/// Whether a statement is known to be the client's own. The portal without a name is the client's alone; it has an error
/// context in the extended query protocol, like a function.
fn is_of_client(statement: *const pg_sys::PlannedStmt) -> bool {
    // SAFETY: an active portal has a name, and a list of its statements, until it is done.
    unsafe {
        pg_sys::ActivePortal
            .as_ref()
            .is_some_and(|portal| *portal.name == 0 && pg_sys::list_member_ptr(portal.stmts, statement.cast()))
    }
}

fn write(revision: Option<u64>, content: Rc<str>) {
    // The reader has to be told that there is no context any more.
    let message = if content.is_empty() { "{}" } else { &content };
    sys::log_logical_message(PREFIX, message.as_bytes());
    WRITTEN.with_borrow_mut(|written| written.record(nesting_level(), revision, content));
}
