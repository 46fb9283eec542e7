//! The callbacks of the output plugin `bemi_decoder`: they pass on what the server reports to the decoder.
use core::ffi::{CStr, c_char, c_int};

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::callback::{Callback, Txn};
use super::decoder::Decoder;
use super::startup;
use crate::document::context::PREFIX;
use crate::document::marker::Event;
use crate::document::moment::Moment;

/// Gives the server the callbacks (`pg_recvlogical -P bemi_decoder`).
///
/// # Safety
/// Called by the server.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn _PG_output_plugin_init(callbacks: *mut pg_sys::OutputPluginCallbacks) {
    // SAFETY: the server passes a struct to fill.
    let callbacks = unsafe { &mut *callbacks };
    callbacks.startup_cb = Some(on_startup);
    callbacks.filter_by_origin_cb = Some(filter_by_origin);

    callbacks.begin_cb = Some(begin);
    callbacks.change_cb = Some(change);
    callbacks.truncate_cb = Some(truncate);
    callbacks.message_cb = Some(message);
    callbacks.commit_cb = Some(commit);

    callbacks.filter_prepare_cb = Some(filter_prepare);
    callbacks.begin_prepare_cb = Some(begin_prepare);
    callbacks.prepare_cb = Some(prepare);
    callbacks.commit_prepared_cb = Some(commit_prepared);
    callbacks.rollback_prepared_cb = Some(rollback_prepared);

    callbacks.stream_start_cb = Some(stream_start);
    callbacks.stream_change_cb = Some(change);
    callbacks.stream_truncate_cb = Some(truncate);
    callbacks.stream_message_cb = Some(message);
    callbacks.stream_stop_cb = Some(stream_stop);
    callbacks.stream_abort_cb = Some(stream_abort);
    callbacks.stream_prepare_cb = Some(stream_prepare);
    callbacks.stream_commit_cb = Some(stream_commit);
}

/// Returns what a callback works with: the decoder that startup has made, and the callback itself.
///
/// # Safety
/// As [`Callback::new`], of a callback other than that of startup. It calls this once.
#[expect(clippy::mut_from_ref, reason = "the decoder is not behind the reference, which only says how long it is used")]
unsafe fn enter<'cb>(ctx: &'cb *mut pg_sys::LogicalDecodingContext) -> (&'cb mut Decoder, Callback<'cb>) {
    // SAFETY: startup keeps a `Decoder`, and the server calls it before all others.
    unsafe {
        let callback = Callback::new(ctx);
        (callback.kept(), callback)
    }
}

/// As [`enter`], with the transaction that the callback is about.
///
/// # Safety
/// As [`enter`], and `txn` is an argument of the same callback.
#[expect(clippy::mut_from_ref, reason = "the decoder is not behind the reference, which only says how long it is used")]
unsafe fn enter_with<'cb>(
    ctx: &'cb *mut pg_sys::LogicalDecodingContext,
    txn: *mut pg_sys::ReorderBufferTXN,
) -> (&'cb mut Decoder, Callback<'cb>, Txn<'cb>) {
    // SAFETY: both are of one callback, other than startup, that calls this once.
    unsafe {
        let (decoder, callback) = enter(ctx);
        (decoder, callback, callback.txn(txn))
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_startup(
    ctx: *mut pg_sys::LogicalDecodingContext,
    settings: *mut pg_sys::OutputPluginOptions,
    is_new_slot: bool,
) {
    // SAFETY: the server calls this as the startup callback, with both.
    unsafe { startup::run(ctx, settings, is_new_slot) };
}

/// Only called if a reader wants some origins dropped.
#[pg_guard]
unsafe extern "C-unwind" fn filter_by_origin(
    ctx: *mut pg_sys::LogicalDecodingContext,
    origin: pg_sys::RepOriginId,
) -> bool {
    // SAFETY: the server calls this with the context, after startup.
    let (decoder, _) = unsafe { enter(&ctx) };
    decoder.origins.drops(origin)
}

#[pg_guard]
unsafe extern "C-unwind" fn begin(ctx: *mut pg_sys::LogicalDecodingContext, txn: *mut pg_sys::ReorderBufferTXN) {
    // SAFETY: the server calls this with the context, after startup, and with a committed transaction.
    let (decoder, _, txn) = unsafe { enter_with(&ctx, txn) };
    decoder.begin(txn.xid(), Some(txn.commit_moment()));
}

#[pg_guard]
unsafe extern "C-unwind" fn change(
    ctx: *mut pg_sys::LogicalDecodingContext,
    txn: *mut pg_sys::ReorderBufferTXN,
    relation: pg_sys::Relation,
    change: *mut pg_sys::ReorderBufferChange,
) {
    // SAFETY: the server calls this with the context, after startup, and with a change of the transaction and its relation.
    let (decoder, callback, txn, change) = unsafe {
        let (decoder, callback) = enter(&ctx);
        (decoder, callback, callback.txn(txn), callback.change(relation, change))
    };
    if let Some(change) = change {
        decoder.write_change(callback, &change);
        decoder.settle_if_alone(callback, txn);
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
    // SAFETY: the server calls this with the context, after startup, and with a TRUNCATE of the transaction and its relations.
    let (decoder, callback, txn, changes) = unsafe {
        let (decoder, callback) = enter(&ctx);
        (decoder, callback, callback.txn(txn), callback.truncation(count, relations, change))
    };
    for change in decoder.shown_of_truncate(changes) {
        decoder.write_change(callback, &change);
    }
    decoder.settle_if_alone(callback, txn);
}

#[pg_guard]
unsafe extern "C-unwind" fn message(
    ctx: *mut pg_sys::LogicalDecodingContext,
    txn: *mut pg_sys::ReorderBufferTXN,
    lsn: pg_sys::XLogRecPtr,
    is_transactional: bool,
    prefix: *const c_char,
    size: pg_sys::Size,
    content: *const c_char,
) {
    // SAFETY: the server calls this with the context, after startup; the prefix is a C string, the content has `size` bytes,
    // and both stay until this returns.
    let (decoder, callback, prefix, content) = unsafe {
        let (decoder, callback) = enter(&ctx);
        let content = core::slice::from_raw_parts(content.cast::<u8>(), size);
        (decoder, callback, CStr::from_ptr(prefix), content)
    };
    // A message outside of transactions belongs to no change.
    if is_transactional && prefix == PREFIX {
        decoder.set_context(callback, lsn, content);
    }
    decoder.write_message(callback, lsn, prefix.to_bytes(), content, is_transactional);
    if is_transactional {
        // SAFETY: with a message of a transaction the server passes the transaction.
        decoder.settle_if_alone(callback, unsafe { callback.txn(txn) });
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn commit(
    ctx: *mut pg_sys::LogicalDecodingContext,
    txn: *mut pg_sys::ReorderBufferTXN,
    _commit_lsn: pg_sys::XLogRecPtr,
) {
    // SAFETY: the server calls this with the context, after startup, and with a committed transaction.
    let (decoder, callback, txn) = unsafe { enter_with(&ctx, txn) };
    let event = decoder.shows_commit().then(|| Event::Commit(txn.commit_moment()));
    let is_sent = decoder.end(callback, event);
    callback.update_progress(!is_sent);
}

/// As with test_decoding, a transaction whose name says so is decoded when it is committed.
#[pg_guard]
unsafe extern "C-unwind" fn filter_prepare(
    _ctx: *mut pg_sys::LogicalDecodingContext,
    _xid: pg_sys::TransactionId,
    gid: *const c_char,
) -> bool {
    // SAFETY: the server passes the name of a prepared transaction, a C string.
    let gid = unsafe { CStr::from_ptr(gid) };
    memchr::memmem::find(gid.to_bytes(), b"_nodecode").is_some()
}

#[pg_guard]
unsafe extern "C-unwind" fn begin_prepare(
    ctx: *mut pg_sys::LogicalDecodingContext,
    txn: *mut pg_sys::ReorderBufferTXN,
) {
    // SAFETY: the server calls this with the context, after startup, and with a prepared transaction.
    let (decoder, _, txn) = unsafe { enter_with(&ctx, txn) };
    decoder.begin(txn.xid(), None);
}

#[pg_guard]
unsafe extern "C-unwind" fn prepare(
    ctx: *mut pg_sys::LogicalDecodingContext,
    txn: *mut pg_sys::ReorderBufferTXN,
    _prepare_lsn: pg_sys::XLogRecPtr,
) {
    // SAFETY: the server calls this with the context, after startup, and with a prepared transaction.
    let (decoder, callback, txn) = unsafe { enter_with(&ctx, txn) };
    decoder.end(callback, Some(Event::Prepare(&txn.gid(), txn.prepare_moment())));
    callback.update_progress(false);
}

#[pg_guard]
unsafe extern "C-unwind" fn commit_prepared(
    ctx: *mut pg_sys::LogicalDecodingContext,
    txn: *mut pg_sys::ReorderBufferTXN,
    _commit_lsn: pg_sys::XLogRecPtr,
) {
    // SAFETY: the server calls this with the context, after startup, and with a prepared transaction that is committed.
    let (decoder, callback, txn) = unsafe { enter_with(&ctx, txn) };
    decoder.send_event(callback, txn.xid(), Event::CommitPrepared(&txn.gid(), txn.commit_moment()));
    callback.update_progress(false);
}

#[pg_guard]
unsafe extern "C-unwind" fn rollback_prepared(
    ctx: *mut pg_sys::LogicalDecodingContext,
    txn: *mut pg_sys::ReorderBufferTXN,
    prepare_end_lsn: pg_sys::XLogRecPtr,
    prepare_time: pg_sys::TimestampTz,
) {
    // SAFETY: the server calls this with the context, after startup, and with a prepared transaction.
    let (decoder, callback, txn) = unsafe { enter_with(&ctx, txn) };
    let prepared = Moment { position: prepare_end_lsn, time: prepare_time };
    decoder.send_event(callback, txn.xid(), Event::RollbackPrepared(&txn.gid(), prepared));
    callback.update_progress(false);
}

#[pg_guard]
unsafe extern "C-unwind" fn stream_start(ctx: *mut pg_sys::LogicalDecodingContext, txn: *mut pg_sys::ReorderBufferTXN) {
    // SAFETY: the server calls this with the context, after startup, and with a transaction in progress.
    let (decoder, _, txn) = unsafe { enter_with(&ctx, txn) };
    decoder.begin_part(txn.xid());
}

/// May run outside of a transaction, after an error has ended that of the decoding.
#[pg_guard]
unsafe extern "C-unwind" fn stream_stop(ctx: *mut pg_sys::LogicalDecodingContext, _txn: *mut pg_sys::ReorderBufferTXN) {
    // SAFETY: the server calls this with the context, after startup.
    let (decoder, callback) = unsafe { enter(&ctx) };
    decoder.end(callback, None);
}

/// PostgreSQL 18 calls it also for savepoints of transactions of which nothing was streamed. Without it, 18 raises an error at
/// that place each time; the decoder knows what it sent.
#[pg_guard]
unsafe extern "C-unwind" fn stream_abort(
    ctx: *mut pg_sys::LogicalDecodingContext,
    txn: *mut pg_sys::ReorderBufferTXN,
    _abort_lsn: pg_sys::XLogRecPtr,
) {
    // SAFETY: the server calls this with the context, after startup, and with a transaction or subtransaction in progress.
    let (decoder, callback, txn) = unsafe { enter_with(&ctx, txn) };
    match txn.top() {
        None => _ = decoder.end_stream(callback, txn.xid(), Event::StreamAbort(None)),
        Some(top) => decoder.roll_back(callback, top.xid(), txn.xid()),
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn stream_prepare(
    ctx: *mut pg_sys::LogicalDecodingContext,
    txn: *mut pg_sys::ReorderBufferTXN,
    _prepare_lsn: pg_sys::XLogRecPtr,
) {
    // SAFETY: the server calls this with the context, after startup, and with a prepared transaction.
    let (decoder, callback, txn) = unsafe { enter_with(&ctx, txn) };
    decoder.prepare_stream(callback, txn.xid(), Event::StreamPrepare(&txn.gid(), txn.prepare_moment()));
    callback.update_progress(false);
}

#[pg_guard]
unsafe extern "C-unwind" fn stream_commit(
    ctx: *mut pg_sys::LogicalDecodingContext,
    txn: *mut pg_sys::ReorderBufferTXN,
    _commit_lsn: pg_sys::XLogRecPtr,
) {
    // SAFETY: the server calls this with the context, after startup, and with a committed transaction.
    let (decoder, callback, txn) = unsafe { enter_with(&ctx, txn) };
    let is_sent = decoder.end_stream(callback, txn.xid(), Event::StreamCommit(txn.commit_moment()));
    callback.update_progress(!is_sent);
}
