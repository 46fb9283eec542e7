//! The beginning and the end of each statement that may write rows.
//!
//! The trigger of a table does not fire where a statement names an untracked table above it, or while triggers are
//! disabled. In a transaction that has written a context already, the rows of such a statement would carry it. So its
//! own context is written when it begins; and that of the statement around it when it ends.
//!
//! The hooks call the next hook outside of any guard: an error that it raises passes as it is.
use core::ffi::{c_char, c_int};

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::sys::executor;

/// The hooks that were there before.
static mut NEXT_START: pg_sys::ExecutorStart_hook_type = None;
static mut NEXT_END: pg_sys::ExecutorEnd_hook_type = None;
static mut NEXT_UTILITY: pg_sys::ProcessUtility_hook_type = None;

/// Installs the hooks, in front of those that are there.
pub fn install() {
    // SAFETY: a process has one thread, in which the server loads the library once, and so runs this once.
    unsafe {
        NEXT_START = pg_sys::ExecutorStart_hook;
        pg_sys::ExecutorStart_hook = Some(executor_start);
        NEXT_END = pg_sys::ExecutorEnd_hook;
        pg_sys::ExecutorEnd_hook = Some(executor_end);
        NEXT_UTILITY = pg_sys::ProcessUtility_hook;
        pg_sys::ProcessUtility_hook = Some(process_utility);
    }
}

unsafe extern "C-unwind" fn executor_start(query: *mut pg_sys::QueryDesc, flags: c_int) {
    // SAFETY: the server passes a query with a plan. Nothing in this frame has a destructor, so an error of the next
    // hook may pass through it; `begin` is guarded, and raises an error of its own as the server does.
    unsafe {
        if flags & pg_sys::EXEC_FLAG_EXPLAIN_ONLY as c_int == 0 && writes(query) {
            begin(query.addr());
        }
        match NEXT_START {
            Some(next) => next(query, flags),
            None => executor::standard_ExecutorStart(query, flags),
        }
    }
}

unsafe extern "C-unwind" fn executor_end(query: *mut pg_sys::QueryDesc) {
    // SAFETY: a query that has begun has a state, which is read before the next hook frees it; the server frees the
    // query itself only after this hook. Nothing in this frame has a destructor.
    unsafe {
        let flags = (*query).estate.as_ref().map_or(0, |state| state.es_top_eflags);
        let is_writer = flags & pg_sys::EXEC_FLAG_EXPLAIN_ONLY as c_int == 0 && writes(query);
        match NEXT_END {
            Some(next) => next(query),
            None => executor::standard_ExecutorEnd(query),
        }
        if is_writer {
            end(query.addr(), (*query).plannedstmt);
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
    // SAFETY: a planned statement that the server passes here is a utility statement, and has its node. Nothing in this
    // frame has a destructor.
    unsafe {
        let is_writer = writes_rows((*statement).utilityStmt);
        if is_writer {
            begin(statement.addr());
        }
        match NEXT_UTILITY {
            Some(next) => {
                next(statement, text, is_read_only_tree, context, parameters, environment, receiver, completion);
            }
            None => executor::standard_ProcessUtility(
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
        if is_writer {
            end(statement.addr(), statement);
        }
    }
}

/// Returns whether a query may write rows: into the tables that it names, or into one that it creates.
///
/// # Safety
/// The server has passed the query to the executor.
unsafe fn writes(query: *const pg_sys::QueryDesc) -> bool {
    use pg_sys::CmdType::{CMD_SELECT, CMD_UTILITY};
    // SAFETY: what the executor is passed has a plan; its receiver is null or what receives its rows.
    unsafe {
        let operation = (*query).operation;
        operation != CMD_SELECT && operation != CMD_UTILITY
            || (*(*query).plannedstmt).hasModifyingCTE
            || (*query).dest.as_ref().is_some_and(|receiver| receiver.mydest == pg_sys::CommandDest::DestIntoRel)
    }
}

/// Returns whether a utility statement writes rows without the executor, or those of a query that only reads.
///
/// # Safety
/// It is the node of a utility statement.
unsafe fn writes_rows(statement: *const pg_sys::Node) -> bool {
    use pg_sys::NodeTag::{T_CopyStmt, T_CreateTableAsStmt, T_TruncateStmt};
    // SAFETY: a node begins with its tag, and one with the tag T_CopyStmt is a CopyStmt.
    unsafe {
        match (*statement).type_ {
            T_CopyStmt => (*statement.cast::<pg_sys::CopyStmt>()).is_from,
            T_TruncateStmt | T_CreateTableAsStmt => true,
            _ => false,
        }
    }
}

#[pg_guard]
extern "C-unwind" fn begin(id: usize) {
    super::begin(id);
}

#[pg_guard]
extern "C-unwind" fn end(id: usize, statement: *const pg_sys::PlannedStmt) {
    super::end(id, statement);
}
