//! Statements whose trigger does not fire: those that name an untracked table above a tracked one, or run while triggers are
//! disabled. In a transaction that has written a context already, their rows would carry it. So each statement that writes
//! has its own context written there, as its trigger would do it.
//!
//! The hooks call the next one outside of any guard: an error that it raises passes as it is.
use core::ffi::{c_char, c_int};
use std::sync::atomic::{AtomicBool, Ordering};

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::sys;

/// The hooks that were there before.
static mut NEXT_START: pg_sys::ExecutorStart_hook_type = None;
static mut NEXT_UTILITY: pg_sys::ProcessUtility_hook_type = None;
static mut NEXT_END: pg_sys::ExecutorEnd_hook_type = None;

/// Whether the running transaction has written a context that still holds.
static IS_IN_FORCE: AtomicBool = AtomicBool::new(false);

/// Notes whether the running transaction has written a context that still holds.
pub fn set_in_force(is_in_force: bool) {
    IS_IN_FORCE.store(is_in_force, Ordering::Relaxed);
}

fn is_in_force() -> bool {
    IS_IN_FORCE.load(Ordering::Relaxed)
}

/// Installs the hooks, in front of those that are there.
pub fn install() {
    // SAFETY: a process has one thread, and installs them once.
    unsafe {
        NEXT_START = pg_sys::ExecutorStart_hook;
        pg_sys::ExecutorStart_hook = Some(executor_start);
        NEXT_UTILITY = pg_sys::ProcessUtility_hook;
        pg_sys::ProcessUtility_hook = Some(process_utility);
    }
}

/// In the apply worker of logical replication, rows are written without a statement. SQL that runs there, in triggers of these
/// rows, has the context that it wrote taken back when it ends.
pub fn watch_apply_worker() {
    static IS_WATCHED: AtomicBool = AtomicBool::new(false);
    if sys::is_apply_worker() && !IS_WATCHED.swap(true, Ordering::Relaxed) {
        // SAFETY: a process has one thread, and installs it once, as the flag says.
        unsafe {
            NEXT_END = pg_sys::ExecutorEnd_hook;
            pg_sys::ExecutorEnd_hook = Some(executor_end);
        }
    }
}

unsafe extern "C-unwind" fn executor_start(query: *mut pg_sys::QueryDesc, flags: c_int) {
    // SAFETY: the server's call, passed on. Nothing here has a destructor, so an error may pass.
    unsafe {
        if is_in_force() && flags & pg_sys::EXEC_FLAG_EXPLAIN_ONLY as c_int == 0 && writes(query) {
            write_context();
        }
        match NEXT_START {
            Some(next) => next(query, flags),
            None => sys::raw::standard_ExecutorStart(query, flags),
        }
    }
}

unsafe extern "C-unwind" fn executor_end(query: *mut pg_sys::QueryDesc) {
    // SAFETY: the server's call, passed on. The query is read before it ends; nothing here has a destructor.
    unsafe {
        let is_writer = is_in_force() && writes(query);
        match NEXT_END {
            Some(next) => next(query),
            None => sys::raw::standard_ExecutorEnd(query),
        }
        if is_writer {
            take_back();
        }
    }
}

#[allow(clippy::too_many_arguments, reason = "the server's hook has them")]
unsafe extern "C-unwind" fn process_utility(
    statement: *mut pg_sys::PlannedStmt,
    text: *const c_char,
    is_read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    receiver: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: the server's call, passed on. Nothing here has a destructor, so an error may pass.
    unsafe {
        if is_in_force() && writes_rows((*statement).utilityStmt) {
            write_context();
        }
        match NEXT_UTILITY {
            Some(next) => {
                next(statement, text, is_read_only_tree, context, parameters, environment, receiver, completion);
            }
            None => sys::raw::standard_ProcessUtility(
                statement,
                text,
                is_read_only_tree,
                context,
                parameters,
                environment,
                receiver,
                completion,
            ),
        }
    }
}

/// Whether a query may write rows.
///
/// # Safety
/// The query is one that the executor was given.
unsafe fn writes(query: *const pg_sys::QueryDesc) -> bool {
    use pg_sys::CmdType::{CMD_SELECT, CMD_UTILITY};
    // SAFETY: the caller's promise; such a query has a plan.
    unsafe {
        let operation = (*query).operation;
        operation != CMD_SELECT && operation != CMD_UTILITY || (*(*query).plannedstmt).hasModifyingCTE
    }
}

/// Whether a utility statement writes rows without the executor, or those of a query that only reads.
///
/// # Safety
/// It is a node of a statement.
unsafe fn writes_rows(statement: *const pg_sys::Node) -> bool {
    use pg_sys::NodeTag::{T_CopyStmt, T_CreateTableAsStmt, T_TruncateStmt};
    // SAFETY: the caller's promise; a node is what its tag says.
    unsafe {
        match (*statement).type_ {
            T_CopyStmt => (*statement.cast::<pg_sys::CopyStmt>()).is_from,
            T_TruncateStmt | T_CreateTableAsStmt => true,
            _ => false,
        }
    }
}

/// Writes the context of the statement that begins, if another one is in force.
#[pg_guard]
extern "C-unwind" fn write_context() {
    super::emit();
}

/// Writes that no context is in force any more.
#[pg_guard]
extern "C-unwind" fn take_back() {
    super::emit_none();
}
