//! The callbacks of the output plugin `bemi_decoder`: what the server tells, passed on to the decoder.
use core::ffi::{CStr, c_char, c_int};

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::decoder::{Change, Decoder};
use super::startup;
use crate::decoder::change::Operation;
use crate::decoder::marker::Event;
use crate::decoder::txn::Moment;
use crate::sys::{encoding, output};
use crate::wire;

/// Tells the server which callbacks there are (`pg_recvlogical -P bemi_decoder`).
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

/// The decoder of a context, whose startup has run.
///
/// # Safety
/// Called from a callback with its context; no two results are used at the same time.
unsafe fn decoder<'a>(ctx: *mut pg_sys::LogicalDecodingContext) -> &'a mut Decoder {
    // SAFETY: the startup callback put it there; the server runs one callback at a time.
    unsafe { &mut *(*ctx).output_plugin_private.cast() }
}

/// When the transaction was committed: where the record of it begins.
///
/// # Safety
/// `txn` is a transaction that was, and that the server passed to a callback.
unsafe fn commit_moment(txn: *const pg_sys::ReorderBufferTXN) -> Moment {
    // SAFETY: the caller's promise.
    unsafe { Moment { position: (*txn).final_lsn, time: output::commit_time(txn) } }
}

/// When the transaction was prepared: where the record of it ends, which is what the server tells when it is rolled
/// back.
///
/// # Safety
/// `txn` is a transaction that was, and that the server passed to a callback.
unsafe fn prepare_moment(txn: *const pg_sys::ReorderBufferTXN) -> Moment {
    // SAFETY: the caller's promise.
    unsafe { Moment { position: (*txn).end_lsn, time: output::commit_time(txn) } }
}

/// The name of a prepared transaction, in UTF-8.
///
/// # Safety
/// `txn` is a prepared transaction that the server passed to a callback.
unsafe fn gid(txn: *const pg_sys::ReorderBufferTXN) -> Vec<u8> {
    // SAFETY: the caller's promise; a name is a C string.
    unsafe {
        let name = (*txn).gid;
        if name.is_null() { Vec::new() } else { encoding::to_utf8_lossy(CStr::from_ptr(name).to_bytes()).into_owned() }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_startup(
    ctx: *mut pg_sys::LogicalDecodingContext,
    settings: *mut pg_sys::OutputPluginOptions,
    is_new_slot: bool,
) {
    // SAFETY: the server's call.
    unsafe { startup::run(ctx, settings, is_new_slot) };
}

/// Only called if a reader wants some origins dropped.
#[pg_guard]
unsafe extern "C-unwind" fn filter_by_origin(
    ctx: *mut pg_sys::LogicalDecodingContext,
    origin: pg_sys::RepOriginId,
) -> bool {
    // SAFETY: the server's call.
    unsafe { decoder(ctx).origins.drops(origin) }
}

#[pg_guard]
unsafe extern "C-unwind" fn begin(ctx: *mut pg_sys::LogicalDecodingContext, txn: *mut pg_sys::ReorderBufferTXN) {
    // SAFETY: the server's call, for a committed transaction.
    unsafe { decoder(ctx).begin((*txn).xid.into_inner(), Some(commit_moment(txn))) };
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
        let operation = match (*change).action {
            REORDER_BUFFER_CHANGE_INSERT => Operation::Create,
            REORDER_BUFFER_CHANGE_UPDATE => Operation::Update,
            REORDER_BUFFER_CHANGE_DELETE => Operation::Delete,
            _ => return,
        };
        let change = Change {
            position: (*change).lsn,
            operation,
            rows: output::tuples(change),
            xid: (*(*change).txn).xid.into_inner(),
            origin: (*change).origin_id,
        };
        decoder(ctx).write_change(ctx, relation, change);
        decoder(ctx).settle_if_alone(ctx, txn);
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
        let change = Change {
            position: (*change).lsn,
            operation: Operation::Truncate,
            rows: (core::ptr::null_mut(), core::ptr::null_mut()),
            xid: (*(*change).txn).xid.into_inner(),
            origin: (*change).origin_id,
        };
        let opened = core::slice::from_raw_parts(relations, count as usize);
        for relation in decoder(ctx).shown_of_truncate(opened) {
            decoder(ctx).write_change(ctx, relation, change);
        }
        decoder(ctx).settle_if_alone(ctx, txn);
    }
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
    // SAFETY: the server's call: the prefix is a C string, the content has `size` bytes.
    unsafe {
        let prefix = CStr::from_ptr(prefix);
        let content = core::slice::from_raw_parts(content.cast::<u8>(), size);
        // A message outside of transactions belongs to no change.
        if is_transactional && prefix == wire::PREFIX {
            decoder(ctx).set_context(ctx, lsn, content);
        }
        decoder(ctx).write_message(ctx, lsn, prefix.to_bytes(), content, is_transactional);
        if is_transactional {
            decoder(ctx).settle_if_alone(ctx, txn);
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn commit(
    ctx: *mut pg_sys::LogicalDecodingContext,
    txn: *mut pg_sys::ReorderBufferTXN,
    _commit_lsn: pg_sys::XLogRecPtr,
) {
    // SAFETY: the server's call.
    unsafe {
        let event = decoder(ctx).tells_commits().then(|| Event::Commit(commit_moment(txn)));
        let is_sent = decoder(ctx).end(ctx, event);
        output::update_progress(ctx, !is_sent);
    }
}

/// As with test_decoding, a transaction whose name says so is decoded when it is committed.
#[pg_guard]
unsafe extern "C-unwind" fn filter_prepare(
    _ctx: *mut pg_sys::LogicalDecodingContext,
    _xid: pg_sys::TransactionId,
    gid: *const c_char,
) -> bool {
    // SAFETY: the server's call; the name is a C string.
    unsafe { memchr::memmem::find(CStr::from_ptr(gid).to_bytes(), b"_nodecode").is_some() }
}

#[pg_guard]
unsafe extern "C-unwind" fn begin_prepare(
    ctx: *mut pg_sys::LogicalDecodingContext,
    txn: *mut pg_sys::ReorderBufferTXN,
) {
    // SAFETY: the server's call.
    unsafe { decoder(ctx).begin((*txn).xid.into_inner(), None) };
}

#[pg_guard]
unsafe extern "C-unwind" fn prepare(
    ctx: *mut pg_sys::LogicalDecodingContext,
    txn: *mut pg_sys::ReorderBufferTXN,
    _prepare_lsn: pg_sys::XLogRecPtr,
) {
    // SAFETY: the server's call, for a prepared transaction.
    unsafe {
        decoder(ctx).end(ctx, Some(Event::Prepare(&gid(txn), prepare_moment(txn))));
        output::update_progress(ctx, false);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn commit_prepared(
    ctx: *mut pg_sys::LogicalDecodingContext,
    txn: *mut pg_sys::ReorderBufferTXN,
    _commit_lsn: pg_sys::XLogRecPtr,
) {
    // SAFETY: the server's call, for a prepared transaction that is committed.
    unsafe {
        decoder(ctx).tell(ctx, (*txn).xid.into_inner(), Event::CommitPrepared(&gid(txn), commit_moment(txn)));
        output::update_progress(ctx, false);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn rollback_prepared(
    ctx: *mut pg_sys::LogicalDecodingContext,
    txn: *mut pg_sys::ReorderBufferTXN,
    prepare_end_lsn: pg_sys::XLogRecPtr,
    prepare_time: pg_sys::TimestampTz,
) {
    // SAFETY: the server's call, for a prepared transaction.
    unsafe {
        let prepared = Moment { position: prepare_end_lsn, time: prepare_time };
        decoder(ctx).tell(ctx, (*txn).xid.into_inner(), Event::RollbackPrepared(&gid(txn), prepared));
        output::update_progress(ctx, false);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn stream_start(ctx: *mut pg_sys::LogicalDecodingContext, txn: *mut pg_sys::ReorderBufferTXN) {
    // SAFETY: the server's call.
    unsafe { decoder(ctx).begin_part((*txn).xid.into_inner()) };
}

/// May run outside of a transaction, after an error has ended that of the decoding.
#[pg_guard]
unsafe extern "C-unwind" fn stream_stop(ctx: *mut pg_sys::LogicalDecodingContext, _txn: *mut pg_sys::ReorderBufferTXN) {
    // SAFETY: the server's call.
    unsafe { decoder(ctx).end(ctx, None) };
}

/// PostgreSQL 18 calls it also for savepoints of transactions of which nothing was streamed, and without it raises an
/// error at that place for ever; the decoder knows what it sent.
#[pg_guard]
unsafe extern "C-unwind" fn stream_abort(
    ctx: *mut pg_sys::LogicalDecodingContext,
    txn: *mut pg_sys::ReorderBufferTXN,
    _abort_lsn: pg_sys::XLogRecPtr,
) {
    // SAFETY: the server's call; a subtransaction points to its transaction.
    unsafe {
        let xid = (*txn).xid.into_inner();
        match (*txn).toptxn.as_ref() {
            None => _ = decoder(ctx).end_stream(ctx, xid, Event::StreamAbort(None)),
            Some(top) => decoder(ctx).roll_back(ctx, top.xid.into_inner(), xid),
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn stream_prepare(
    ctx: *mut pg_sys::LogicalDecodingContext,
    txn: *mut pg_sys::ReorderBufferTXN,
    _prepare_lsn: pg_sys::XLogRecPtr,
) {
    // SAFETY: the server's call, for a prepared transaction.
    unsafe {
        decoder(ctx).prepare_stream(ctx, (*txn).xid.into_inner(), Event::StreamPrepare(&gid(txn), prepare_moment(txn)));
        output::update_progress(ctx, false);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn stream_commit(
    ctx: *mut pg_sys::LogicalDecodingContext,
    txn: *mut pg_sys::ReorderBufferTXN,
    _commit_lsn: pg_sys::XLogRecPtr,
) {
    // SAFETY: the server's call, for a committed transaction.
    unsafe {
        let event = Event::StreamCommit(commit_moment(txn));
        let is_sent = decoder(ctx).end_stream(ctx, (*txn).xid.into_inner(), event);
        output::update_progress(ctx, !is_sent);
    }
}
