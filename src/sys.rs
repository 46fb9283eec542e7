//! What pgrx does not bind, and what differs between the supported major versions: here and nowhere else.
use core::cell::Cell;
use core::ffi::{CStr, c_char, c_int, c_void};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use pgrx::pg_sys;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;

pub mod arguments;
pub mod call;
pub mod catalogs;
pub mod copy;
pub mod decoding;
pub mod encoding;
pub mod extension_lock;
pub mod memory;
pub mod process;

mod unbound {
    use super::*;

    unsafe extern "C-unwind" {
        #[cfg(any(feature = "pg14", feature = "pg15", feature = "pg16"))]
        pub fn LogLogicalMessage(
            prefix: *const c_char,
            message: *const c_char,
            size: usize,
            transactional: bool,
        ) -> u64;
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        pub fn LogLogicalMessage(
            prefix: *const c_char,
            message: *const c_char,
            size: usize,
            transactional: bool,
            flush: bool,
        ) -> u64;
        pub fn OutputPluginPrepareWrite(ctx: *mut pg_sys::LogicalDecodingContext, last_write: bool);
        pub fn OutputPluginWrite(ctx: *mut pg_sys::LogicalDecodingContext, last_write: bool);
        pub fn appendBinaryStringInfo(out: pg_sys::StringInfo, data: *const c_void, length: c_int);
        pub fn get_partition_ancestors(relation: pg_sys::Oid) -> *mut pg_sys::List;
        pub fn double_to_shortest_decimal_buf(value: f64, result: *mut c_char) -> c_int;
        pub fn float_to_shortest_decimal_buf(value: f32, result: *mut c_char) -> c_int;
        pub fn IsLogicalWorker() -> bool;
    }
}

/// Functions of the server that are called without a guard, so that an error of theirs passes as it is: from frames of Rust
/// that have nothing to drop.
pub mod raw {
    use super::*;

    unsafe extern "C-unwind" {
        pub fn standard_ExecutorStart(query: *mut pg_sys::QueryDesc, flags: c_int);
        pub fn standard_ExecutorEnd(query: *mut pg_sys::QueryDesc);
        pub fn standard_ProcessUtility(
            statement: *mut pg_sys::PlannedStmt,
            text: *const c_char,
            is_read_only_tree: bool,
            context: pg_sys::ProcessUtilityContext::Type,
            parameters: pg_sys::ParamListInfo,
            environment: *mut pg_sys::QueryEnvironment,
            receiver: *mut pg_sys::DestReceiver,
            completion: *mut pg_sys::QueryCompletion,
        );
    }
}

/// Keeps stack traces out of the errors that pass through this library, which clients would get as their details, whatever the
/// server's environment asks for. Rust looks at the environment once in each library, when it is asked for a trace first.
pub fn keep_stack_traces_off() {
    const SETTING: &str = "RUST_LIB_BACKTRACE";
    let was = std::env::var_os(SETTING);
    // SAFETY: a process of the server has one thread when it loads a library. The environment is as it was afterwards.
    unsafe {
        std::env::set_var(SETTING, "0");
        let _ = std::backtrace::Backtrace::capture();
        match was {
            Some(was) => std::env::set_var(SETTING, was),
            None => std::env::remove_var(SETTING),
        }
    }
}

/// Whether this process applies what logical replication brings, or copies a table for it.
pub fn is_apply_worker() -> bool {
    // SAFETY: reads a pointer of the process, and raises no error.
    unsafe { unbound::IsLogicalWorker() }
}

/// Longest decimal form of a floating-point number, with the terminating NUL (common/shortest_dec.h).
const SHORTEST_DECIMAL_LEN: usize = 25;

/// Makes a C function of the given name callable from SQL (fmgr.h, PG_FUNCTION_INFO_V1).
macro_rules! sql_callable {
    ($($finfo:ident),*) => {$(
        #[doc(hidden)]
        #[unsafe(no_mangle)]
        pub extern "C" fn $finfo() -> &'static ::pgrx::pg_sys::Pg_finfo_record {
            const V1: ::pgrx::pg_sys::Pg_finfo_record = ::pgrx::pg_sys::Pg_finfo_record { api_version: 1 };
            &V1
        }
    )*};
}
pub(crate) use sql_callable;

/// Writes a transactional logical decoding message. Assigns a transaction id if there is none yet; an error that the
/// server raises is passed on.
pub fn log_logical_message(prefix: &CStr, content: &[u8]) {
    let (prefix, message, size) = (prefix.as_ptr(), content.as_ptr().cast::<c_char>(), content.len());
    #[cfg(any(feature = "pg14", feature = "pg15", feature = "pg16"))]
    // SAFETY: the function reads `size` bytes and a NUL-terminated prefix; nothing with a destructor is in the closure.
    unsafe {
        pg_guard_ffi_boundary(|| unbound::LogLogicalMessage(prefix, message, size, true));
    }
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    // SAFETY: as above. `flush` is for messages outside of transactions.
    unsafe {
        pg_guard_ffi_boundary(|| unbound::LogLogicalMessage(prefix, message, size, true, false));
    }
}

/// Passes the shortest decimal form of a number, as the server's own output function writes it, to `write`.
pub fn with_shortest_float8<R>(value: f64, write: impl FnOnce(&[u8]) -> R) -> R {
    let mut buffer = [0u8; SHORTEST_DECIMAL_LEN];
    // SAFETY: the buffer has the length that the function asks for; it computes and never raises an error.
    let len = unsafe { unbound::double_to_shortest_decimal_buf(value, buffer.as_mut_ptr().cast()) };
    write(&buffer[..len as usize])
}

/// As [`with_shortest_float8`], for single precision.
pub fn with_shortest_float4<R>(value: f32, write: impl FnOnce(&[u8]) -> R) -> R {
    let mut buffer = [0u8; SHORTEST_DECIMAL_LEN];
    // SAFETY: as above.
    let len = unsafe { unbound::float_to_shortest_decimal_buf(value, buffer.as_mut_ptr().cast()) };
    write(&buffer[..len as usize])
}

/// The row before and after a change; null where the log has none.
///
/// # Safety
/// `change` is an insertion, update or deletion that the server passed to the change callback.
pub unsafe fn tuples(change: *mut pg_sys::ReorderBufferChange) -> (pg_sys::HeapTuple, pg_sys::HeapTuple) {
    // SAFETY: such a change has the member `tp`.
    let tp = unsafe { (*change).data.tp };
    #[cfg(any(feature = "pg14", feature = "pg15", feature = "pg16"))]
    {
        let tuple_of = |buffer: *mut pg_sys::ReorderBufferTupleBuf| {
            if buffer.is_null() {
                core::ptr::null_mut()
            } else {
                // SAFETY: it is not null, and the buffer begins with its tuple.
                unsafe { &raw mut (*buffer).tuple }
            }
        };
        (tuple_of(tp.oldtuple), tuple_of(tp.newtuple))
    }
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    {
        (tp.oldtuple, tp.newtuple)
    }
}

/// When the transaction committed, in microseconds since 2000-01-01 UTC.
///
/// # Safety
/// `txn` is a committed transaction that the server passed to a callback.
pub unsafe fn commit_time(txn: *const pg_sys::ReorderBufferTXN) -> i64 {
    #[cfg(feature = "pg14")]
    // SAFETY: the caller's promise.
    unsafe {
        (*txn).commit_time
    }
    #[cfg(not(feature = "pg14"))]
    // SAFETY: the caller's promise; of a committed transaction, this member is the one that is set.
    unsafe {
        (*txn).xact_time.commit_time
    }
}

/// Tells the server how far the plugin is, so that a waiting client hears of it: now and then while nothing is sent
/// because everything is filtered away, and at the end of a transaction, with whether nothing of it was sent.
///
/// # Safety
/// `ctx` is the context of the callback that is running.
pub unsafe fn update_progress(ctx: *mut pg_sys::LogicalDecodingContext, is_skipped: bool) {
    #[cfg(feature = "pg14")]
    // SAFETY: the caller's promise.
    unsafe {
        let _ = is_skipped;
        pg_sys::OutputPluginUpdateProgress(ctx);
    }
    #[cfg(not(feature = "pg14"))]
    // SAFETY: the caller's promise.
    unsafe {
        pg_sys::OutputPluginUpdateProgress(ctx, is_skipped);
    }
}

/// Sends one message to the reader, given in pieces, with a position that the reader may confirm. Nothing is sent while
/// a slot is being made, since then nobody reads.
///
/// # Safety
/// `ctx` is the context of the callback that is running; together the pieces are shorter than an int can count.
pub unsafe fn send(ctx: *mut pg_sys::LogicalDecodingContext, position: u64, pieces: &[&[u8]]) {
    // One guard for all of it, since each costs as much as a short piece.
    // SAFETY: the caller's promise; the text is copied; nothing with a destructor is inside.
    unsafe {
        if (*ctx).prepare_write.is_none() || (*ctx).write.is_none() {
            return;
        }
        let reached = core::mem::replace(&mut (*ctx).write_location, position);
        pg_guard_ffi_boundary(|| {
            unbound::OutputPluginPrepareWrite(ctx, true);
            for piece in pieces {
                unbound::appendBinaryStringInfo((*ctx).out, piece.as_ptr().cast(), piece.len() as c_int);
            }
            unbound::OutputPluginWrite(ctx, true);
        });
        (*ctx).write_location = reached;
    }
}

/// Frees what was allocated in a memory context, if anything was.
///
/// # Safety
/// The memory context is the caller's, and nothing in it is used any more.
pub unsafe fn reset(memory: pg_sys::MemoryContext) {
    // SAFETY: the caller's promise.
    unsafe {
        if !(*memory).isReset || !(*memory).firstchild.is_null() {
            pg_sys::MemoryContextReset(memory);
        }
    }
}

/// Has transactions decoded when they are prepared. False if that has to be said when the slot is made, and was not.
///
/// # Safety
/// `ctx` is the context of the startup callback that is running, and not for a new slot.
pub unsafe fn decode_at_prepare(ctx: *mut pg_sys::LogicalDecodingContext) -> bool {
    #[cfg(feature = "pg14")]
    // SAFETY: the caller's promise; the context holds its slot.
    unsafe {
        (*(*ctx).slot).data.two_phase
    }
    #[cfg(not(feature = "pg14"))]
    // SAFETY: the caller's promise.
    unsafe {
        (*ctx).twophase_opt_given = true;
        true
    }
}

/// The (sub)transaction to which the change or message that is being decoded belongs, while transactions are decoded
/// in progress. None if it is committed already, and so cannot be rolled back.
pub fn transaction_in_progress() -> Option<u32> {
    // SAFETY: reads a number of the process.
    let xid = unsafe { pg_sys::CheckXidAlive };
    (xid != pg_sys::InvalidTransactionId).then(|| xid.into_inner())
}

/// Runs `work` in a transaction: that which is there, or a short one of its own. The catalogs can be read there.
pub fn in_transaction<R>(work: impl FnOnce() -> R) -> R {
    // SAFETY: asks for the state of the process.
    if unsafe { pg_sys::IsTransactionState() } {
        return work();
    }
    // The memory context and the resource owner are put back, since the end of a transaction sets others.
    // SAFETY: there is none, so one can be started; an error in `work` is one of the caller, and ends it.
    unsafe {
        let (memory, owner) = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
        pg_sys::StartTransactionCommand();
        pg_sys::MemoryContextSwitchTo(memory);
        let result = work();
        pg_sys::AbortCurrentTransaction();
        pg_sys::MemoryContextSwitchTo(memory);
        pg_sys::CurrentResourceOwner = owner;
        result
    }
}

/// The tables that a partition is a part of, from its parent up to the root. Reads the catalogs.
pub fn partition_ancestors(partition: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    // SAFETY: the function takes any number and gives a new list, empty for what is no partition.
    unsafe {
        let list = pg_guard_ffi_boundary(|| unbound::get_partition_ancestors(partition));
        let length = list.as_ref().map_or(0, |list| list.length);
        let ancestors = (0..length).map(|i| pg_sys::list_nth_oid(list, i)).collect();
        pg_sys::list_free(list);
        ancestors
    }
}

/// Whether the current role owns a relation, or has the rights of who does. An error if there is no such relation.
pub fn owns_relation(relation: pg_sys::Oid) -> bool {
    // SAFETY: both look the relation up in the catalogs.
    unsafe {
        let role = pg_sys::GetUserId();
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        return pg_sys::pg_class_ownercheck(relation, role);
        #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
        return pg_sys::object_ownercheck(pg_sys::RelationRelationId, relation, role);
    }
}

/// The function with a name and argument types in the schema of another function.
pub fn function_beside(function: pg_sys::Oid, name: &CStr, arguments: &[pg_sys::Oid]) -> Option<pg_sys::Oid> {
    // SAFETY: looks functions up in the catalogs; the keys are a name, a list of types and a schema.
    unsafe {
        let schema = pg_sys::get_func_namespace(function);
        let types = pg_sys::buildoidvector(arguments.as_ptr(), arguments.len() as c_int);
        let found = pg_sys::GetSysCacheOid(
            pg_sys::SysCacheIdentifier::PROCNAMEARGSNSP as c_int,
            pg_sys::Anum_pg_proc_oid as pg_sys::AttrNumber,
            pg_sys::Datum::from(name.as_ptr()),
            pg_sys::Datum::from(types),
            pg_sys::Datum::from(schema),
            pg_sys::Datum::from(0),
        );
        (found != pg_sys::InvalidOid).then_some(found)
    }
}

/// Sets a setting until the end of the nest level that the caller has begun.
pub fn set_locally(name: &CStr, value: &CStr) {
    use pg_sys::{GucAction, GucContext, GucSource};
    let (context, source, action) = (GucContext::PGC_USERSET, GucSource::PGC_S_SESSION, GucAction::GUC_ACTION_SAVE);
    // SAFETY: both are C strings, which the function copies.
    unsafe { pg_sys::set_config_option(name.as_ptr(), value.as_ptr(), context, source, action, true, 0, false) };
}

/// A statement as the planner takes it, with parameters of these types.
///
/// # Safety
/// A transaction and a snapshot are active.
pub unsafe fn analyze(text: &CStr, parameters: &mut [pg_sys::Oid]) -> *mut pg_sys::Query {
    // SAFETY: the caller's promise. One SELECT is one parse tree and one query, and its text is not kept.
    unsafe {
        let statement = pg_sys::list_nth(pg_sys::pg_parse_query(text.as_ptr()), 0).cast();
        let (types, count) = (parameters.as_mut_ptr(), parameters.len() as c_int);
        #[cfg(feature = "pg14")]
        let queries = pg_sys::pg_analyze_and_rewrite(statement, text.as_ptr(), types, count, core::ptr::null_mut());
        #[cfg(not(feature = "pg14"))]
        let queries =
            pg_sys::pg_analyze_and_rewrite_fixedparams(statement, text.as_ptr(), types, count, core::ptr::null_mut());
        pg_sys::list_nth(queries, 0).cast()
    }
}

/// Makes an empty file among the server's temporary ones, without a name, so that it goes when it is closed.
pub fn temporary_file() -> io::Result<File> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    // A server process works in its data directory.
    let folder = Path::new("base/pgsql_tmp");
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // The server removes files with such a name when it starts, should this process end here.
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = folder.join(format!("pgsql_tmp{}.bemi{number}", std::process::id()));
    let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    fs::remove_file(path)?;
    Ok(file)
}

/// The members of a list of pointers.
///
/// # Safety
/// `list` is null, which is the empty list, or a list of pointers to `T`, and stays as it is meanwhile.
pub unsafe fn members<T>(list: *const pg_sys::List) -> impl Iterator<Item = *mut T> {
    // SAFETY: the caller's promise; a list has as many members as it says.
    unsafe {
        let cells = list
            .as_ref()
            .map_or(&[][..], |list| core::slice::from_raw_parts(list.elements.cast_const(), list.length as usize));
        cells.iter().map(|cell| cell.ptr_value.cast::<T>())
    }
}

/// The text of a node that is a string, as names are in parse trees.
///
/// # Safety
/// The node is such a string, and lives as long as the text.
pub unsafe fn string<'a>(node: *const pg_sys::Node) -> &'a CStr {
    #[cfg(feature = "pg14")]
    // SAFETY: the caller's promise.
    unsafe {
        CStr::from_ptr((*node.cast::<pg_sys::Value>()).val.str_)
    }
    #[cfg(not(feature = "pg14"))]
    // SAFETY: the caller's promise.
    unsafe {
        CStr::from_ptr((*node.cast::<pg_sys::String>()).sval)
    }
}

/// Whether `standard_conforming_strings` has the value that it had when the session began, and has had it all the time since the running
/// statement's text came: nothing set it, in the session, in the transaction or for a function.
pub fn standard_conforming_strings_is_untouched() -> bool {
    thread_local! {
        static FOUND: Cell<*const pg_sys::config_generic> = const { Cell::new(core::ptr::null()) };
    }
    // SAFETY: the server keeps its own settings at one place as long as it lives.
    unsafe {
        if FOUND.get().is_null() {
            FOUND.set(find_setting(c"standard_conforming_strings"));
        }
        FOUND
            .get()
            .as_ref()
            .is_some_and(|found| found.source < pg_sys::GucSource::PGC_S_SESSION && found.stack.is_null())
    }
}

#[cfg(any(feature = "pg14", feature = "pg15"))]
fn find_setting(name: &CStr) -> *const pg_sys::config_generic {
    // SAFETY: the server has as many settings as it says, each with a name.
    unsafe {
        let all = core::slice::from_raw_parts(pg_sys::get_guc_variables(), pg_sys::GetNumConfigOptions() as usize);
        let found = all.iter().find(|setting| CStr::from_ptr((***setting).name) == name);
        found.map_or(core::ptr::null(), |found| found.cast_const())
    }
}

#[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
fn find_setting(name: &CStr) -> *const pg_sys::config_generic {
    // SAFETY: the name is a C string; a setting that is not there gives null.
    unsafe { pg_sys::find_option(name.as_ptr(), false, true, pg_sys::WARNING as i32) }
}

/// An opaque pointer for callbacks that need no argument.
pub const NO_ARGUMENT: *mut c_void = core::ptr::null_mut();

/// A column of a row type, by its index from 0 on.
///
/// # Safety
/// The descriptor has more columns than `index`, and lives as long as the result.
pub unsafe fn column<'a>(descriptor: pg_sys::TupleDesc, index: usize) -> &'a pg_sys::FormData_pg_attribute {
    // SAFETY: the caller's promise. From 18 on, the columns stand behind as many compact ones.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        return &*(*descriptor).attrs.as_ptr().add(index);
        #[cfg(feature = "pg18")]
        {
            let columns = (*descriptor).compact_attrs.as_ptr().add((*descriptor).natts as usize);
            &*columns.cast::<pg_sys::FormData_pg_attribute>().add(index)
        }
    }
}
