//! The callbacks of the output plugin `bemi_decoder`.
use core::ffi::{CStr, c_char, c_int};

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{PgMemoryContexts, pg_sys};

use super::relation::Relations;
use super::settings;
use super::tuple::{self, Row};
use crate::decoder::change::{Document, Operation};
use crate::decoder::json::Json;
use crate::decoder::options::Options;
use crate::decoder::outbox::Outbox;
use crate::decoder::txn::Transaction;
use crate::json::{Charset, quoted};
use crate::sys::{self, encoding};
use crate::wire;

/// What the decoder keeps from one callback to the next.
struct Decoder {
    charset: Charset,
    relations: Relations,
    /// A JSON string, once known: it takes a transaction to look it up.
    database: Option<Vec<u8>>,
    txn: Option<Transaction>,
    settings_are_pinned: bool,
    /// Reset after each change.
    memory: pg_sys::MemoryContext,
    outbox: Outbox,
    key: Json,
    before: Row,
    after: Row,
}

/// Tells the server which callbacks there are (`pg_recvlogical -P bemi_decoder`).
///
/// # Safety
/// Called by the server.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn _PG_output_plugin_init(callbacks: *mut pg_sys::OutputPluginCallbacks) {
    // SAFETY: the server passes a struct to fill.
    let callbacks = unsafe { &mut *callbacks };
    callbacks.startup_cb = Some(startup);
    callbacks.begin_cb = Some(begin);
    callbacks.change_cb = Some(change);
    callbacks.truncate_cb = Some(truncate);
    callbacks.message_cb = Some(message);
    callbacks.commit_cb = Some(commit);
    callbacks.stream_abort_cb = Some(stream_abort);
}

/// PostgreSQL 18 takes savepoints of an aborted transaction for streamed ones, and calls this though nothing is
/// streamed; without it, it raises an error at that place for ever.
#[pg_guard]
unsafe extern "C-unwind" fn stream_abort(
    _ctx: *mut pg_sys::LogicalDecodingContext,
    _txn: *mut pg_sys::ReorderBufferTXN,
    _abort_lsn: pg_sys::XLogRecPtr,
) {
}

/// The decoder of a context, whose `startup` has run.
///
/// # Safety
/// Called from a callback with its context, and not twice in one.
unsafe fn decoder<'a>(ctx: *mut pg_sys::LogicalDecodingContext) -> &'a mut Decoder {
    // SAFETY: `startup` put it there; the server runs one callback at a time.
    unsafe { &mut *(*ctx).output_plugin_private.cast() }
}

#[pg_guard]
unsafe extern "C-unwind" fn startup(
    ctx: *mut pg_sys::LogicalDecodingContext,
    options: *mut pg_sys::OutputPluginOptions,
    _is_init: bool,
) {
    // SAFETY: the server passes its context and options to fill. The decoder is dropped with the memory context,
    // which also takes its children with it, on an error as at the regular end.
    unsafe {
        let pairs = option_pairs((*ctx).output_plugin_options);
        let parsed = Options::parse(pairs.iter().map(|(name, value)| (name.as_str(), value.as_deref())));
        if let Err(error) = parsed {
            let code = PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE;
            ErrorReport::new(code, error.to_string(), "startup").set_hint(error.hint()).report(PgLogLevel::ERROR);
        }
        (*ctx).streaming = false;
        (*options).output_type = pg_sys::OutputPluginOutputType::OUTPUT_PLUGIN_TEXTUAL_OUTPUT;
        let charset = encoding::charset();
        let decoder = Decoder {
            charset,
            relations: Relations::new((*ctx).context, charset),
            database: None,
            txn: None,
            settings_are_pinned: false,
            memory: pg_sys::AllocSetContextCreateInternal(
                (*ctx).context,
                c"bemi change".as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            ),
            outbox: Outbox::new(charset),
            key: Json::new(Charset::Utf8),
            before: Row::default(),
            after: Row::default(),
        };
        (*ctx).output_plugin_private = PgMemoryContexts::For((*ctx).context).leak_and_drop_on_delete(decoder).cast();
    }
}

/// The options as the reader gave them.
///
/// # Safety
/// `list` is the server's list of `DefElem`.
unsafe fn option_pairs(list: *mut pg_sys::List) -> Vec<(String, Option<String>)> {
    // SAFETY: the caller's promise; names and values are C strings.
    unsafe {
        let length = list.as_ref().map_or(0, |list| list.length);
        (0..length)
            .map(|i| {
                let element: *mut pg_sys::DefElem = pg_sys::list_nth(list, i).cast();
                let name = CStr::from_ptr((*element).defname).to_string_lossy().into_owned();
                let value = (!(*element).arg.is_null())
                    .then(|| CStr::from_ptr(pg_sys::defGetString(element)).to_string_lossy().into_owned());
                (name, value)
            })
            .collect()
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn begin(ctx: *mut pg_sys::LogicalDecodingContext, txn: *mut pg_sys::ReorderBufferTXN) {
    // SAFETY: the server's call.
    let (decoder, xid, commit_position, committed_at) =
        unsafe { (decoder(ctx), (*txn).xid, (*txn).final_lsn, sys::commit_time(txn)) };
    let charset = decoder.charset;
    let database = decoder.database.get_or_insert_with(|| database_name(charset));
    decoder.txn = Some(Transaction::new(xid.into_inner(), commit_position, committed_at, database, charset));
    decoder.settings_are_pinned = false;
    decoder.outbox.clear();
}

fn database_name(charset: Charset) -> Vec<u8> {
    // SAFETY: the server decodes in a transaction, in which the catalogs can be read; a name is a C string.
    let name = unsafe {
        let name = pg_sys::get_database_name(pg_sys::MyDatabaseId);
        if name.is_null() { Vec::new() } else { CStr::from_ptr(name).to_bytes().to_vec() }
    };
    quoted(&encoding::to_utf8_lossy(&name), charset)
}

#[pg_guard]
unsafe extern "C-unwind" fn commit(
    ctx: *mut pg_sys::LogicalDecodingContext,
    _txn: *mut pg_sys::ReorderBufferTXN,
    _commit_lsn: pg_sys::XLogRecPtr,
) {
    // SAFETY: the server's call.
    unsafe {
        decoder(ctx).send(ctx);
        decoder(ctx).txn = None;
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn message(
    ctx: *mut pg_sys::LogicalDecodingContext,
    _txn: *mut pg_sys::ReorderBufferTXN,
    lsn: pg_sys::XLogRecPtr,
    transactional: bool,
    prefix: *const c_char,
    size: pg_sys::Size,
    content: *const c_char,
) {
    // SAFETY: the server's call: the prefix is a C string, the content has `size` bytes.
    unsafe {
        // A message outside of transactions belongs to no change.
        if transactional && CStr::from_ptr(prefix) == wire::PREFIX {
            let content = core::slice::from_raw_parts(content.cast::<u8>(), size);
            decoder(ctx).set_context(ctx, lsn, content);
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn change(
    ctx: *mut pg_sys::LogicalDecodingContext,
    txn: *mut pg_sys::ReorderBufferTXN,
    relation: pg_sys::Relation,
    change: *mut pg_sys::ReorderBufferChange,
) {
    use pg_sys::ReorderBufferChangeType::*;
    // SAFETY: the server's call, for all of the function.
    unsafe {
        let (lsn, operation) = match (*change).action {
            REORDER_BUFFER_CHANGE_INSERT => ((*change).lsn, Operation::Create),
            REORDER_BUFFER_CHANGE_UPDATE => ((*change).lsn, Operation::Update),
            REORDER_BUFFER_CHANGE_DELETE => ((*change).lsn, Operation::Delete),
            _ => return,
        };
        decoder(ctx).write_document(ctx, relation, lsn, operation, sys::tuples(change));
        decoder(ctx).send_if_alone(ctx, txn);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn truncate(
    ctx: *mut pg_sys::LogicalDecodingContext,
    txn: *mut pg_sys::ReorderBufferTXN,
    count: c_int,
    relations: *mut pg_sys::Relation,
    change: *mut pg_sys::ReorderBufferChange,
) {
    // SAFETY: the server's call; the array has `count` members.
    unsafe {
        let no_rows = (core::ptr::null_mut(), core::ptr::null_mut());
        for &relation in core::slice::from_raw_parts(relations, count as usize) {
            decoder(ctx).write_document(ctx, relation, (*change).lsn, Operation::Truncate, no_rows);
        }
        decoder(ctx).send_if_alone(ctx, txn);
    }
}

impl Decoder {
    /// Takes a message with our prefix, which begins to hold at a position.
    ///
    /// # Safety
    /// All is from the callback that is running.
    unsafe fn set_context(
        &mut self,
        ctx: *mut pg_sys::LogicalDecodingContext,
        lsn: pg_sys::XLogRecPtr,
        content: &[u8],
    ) {
        // SAFETY: the caller's promise; the memory context is ours and holds what a conversion leaves behind.
        unsafe {
            if self.outbox.is_settled_at(lsn) {
                self.send(ctx);
            }
            let caller = pg_sys::MemoryContextSwitchTo(self.memory);
            if let Some(txn) = &mut self.txn {
                txn.set_context(&encoding::to_utf8_lossy(content));
            }
            pg_sys::MemoryContextSwitchTo(caller);
            pg_sys::MemoryContextReset(self.memory);
        }
    }

    /// Makes the document of one change.
    ///
    /// # Safety
    /// All is from the callback that is running; the tuples are the row before and after.
    unsafe fn write_document(
        &mut self,
        ctx: *mut pg_sys::LogicalDecodingContext,
        open: pg_sys::Relation,
        lsn: pg_sys::XLogRecPtr,
        operation: Operation,
        (before, after): (pg_sys::HeapTuple, pg_sys::HeapTuple),
    ) {
        if self.outbox.is_settled_at(lsn) {
            // SAFETY: the caller's promise.
            unsafe { self.send(ctx) };
        }
        // SAFETY: the memory context is ours. An error leaves the switch to the server, which restores its own.
        let caller = unsafe { pg_sys::MemoryContextSwitchTo(self.memory) };
        // SAFETY: the caller's promise.
        let relation = unsafe { self.relations.get(open) };
        if let (Some(relation), Some(txn)) = (relation, &mut self.txn) {
            if relation.depends_on_settings && !self.settings_are_pinned {
                settings::pin();
                self.settings_are_pinned = true;
            }
            // SAFETY: the caller's promise.
            unsafe {
                self.before.read(before, open, relation.width);
                self.after.read(after, open, relation.width);
            }
            self.after.complete_from(&self.before, relation);
            let json = &mut self.outbox.json;
            let mut document = Document::open(json, txn, lsn, &relation.keys, operation, self.charset);
            let is_gone = operation == Operation::Delete;
            let keyed = if is_gone { &self.before } else { &self.after };
            tuple::write_key(&mut document, keyed, relation, is_gone, &mut self.key);
            document.json.raw(b",\"before\":");
            tuple::write_image(&mut document, &self.before, relation, true);
            document.json.raw(b",\"after\":");
            tuple::write_image(&mut document, &self.after, relation, false);
            let document = document.close();
            self.outbox.push(lsn, document);
        } else {
            // SAFETY: the caller's promise.
            unsafe { sys::update_progress(ctx) };
        }
        // SAFETY: nothing of the change is needed any more.
        unsafe {
            pg_sys::MemoryContextSwitchTo(caller);
            pg_sys::MemoryContextReset(self.memory);
        }
    }

    /// Sends what was written, if no message can follow that counts for it: none of a transaction without savepoints
    /// can.
    ///
    /// # Safety
    /// All is from the callback that is running.
    unsafe fn send_if_alone(&mut self, ctx: *mut pg_sys::LogicalDecodingContext, txn: *mut pg_sys::ReorderBufferTXN) {
        // SAFETY: the caller's promise.
        unsafe {
            if (*txn).nsubtxns == 0 {
                self.send(ctx);
            }
        }
    }

    /// Sends the documents that wait, with the context in force.
    ///
    /// # Safety
    /// The context is that of the callback that is running.
    unsafe fn send(&mut self, ctx: *mut pg_sys::LogicalDecodingContext) {
        let (Some(txn), false) = (&self.txn, self.outbox.is_empty()) else { return };
        // A client may confirm what it was sent up to there. The running callback is further on, at the end of the
        // transaction perhaps, of which documents are still to come.
        // SAFETY: the caller's promise.
        let reached = unsafe { core::mem::replace(&mut (*ctx).write_location, self.outbox.position()) };
        self.outbox.send(txn.context(), |pieces| {
            // SAFETY: the caller's promise; the text is copied, and a document is shorter than an int can count.
            unsafe {
                pg_sys::OutputPluginPrepareWrite(ctx, true);
                for piece in pieces {
                    pg_sys::appendBinaryStringInfo((*ctx).out, piece.as_ptr().cast(), piece.len() as c_int);
                }
                pg_sys::OutputPluginWrite(ctx, true);
            }
        });
        // SAFETY: the caller's promise.
        unsafe { (*ctx).write_location = reached };
    }
}
