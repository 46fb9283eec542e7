//! The decoder of one reader: what it keeps from one callback to the next, and how it makes documents of changes.
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::catch;
use super::relation::{Relation, Relations};
use super::sink::Sink;
use super::tuple::{self, Row};
use super::{origin, settings};
use crate::decoder::change::{Document, Operation};
use crate::decoder::json::Json;
use crate::decoder::marker::{self, Event};
use crate::decoder::message::{self, Content, Message};
use crate::decoder::options::Options;
use crate::decoder::outbox::Outbox;
use crate::decoder::txn::{Moment, Transaction};
use crate::json::Charset;
use crate::sys::{encoding, memory, output, temporary_file};
use crate::trigger;
use crate::wire::INVALID_CONTEXT_LIMIT;

type Context = *mut pg_sys::LogicalDecodingContext;

/// The server hears of progress each time that so many changes and messages were not shown.
const SILENCE: u32 = 100;

/// What the decoder keeps from one callback to the next.
pub struct Decoder {
    options: Rc<Options>,
    pub origins: origin::Filter,
    origin_names: origin::Names,
    charset: Charset,
    /// A JSON string.
    database: Vec<u8>,
    relations: Relations,
    /// The transaction that is being decoded.
    txn: Option<Transaction>,
    /// Whether it is in progress.
    is_streaming: bool,
    /// Transactions in progress of which a part was decoded.
    streams: HashMap<u32, Transaction>,
    settings_are_pinned: bool,
    /// Reset after each change.
    memory: pg_sys::MemoryContext,
    outbox: Outbox,
    sink: Sink,
    key: Json,
    before: Row,
    after: Row,
    /// Of the columns of the image before.
    places: tuple::Places,
    /// Changes and messages that were not shown since the server last heard of progress.
    silent: u32,
    /// Relations of which an omitted value was logged.
    warned: HashSet<pg_sys::Oid>,
    has_warned_of_context: bool,
}

/// A change as the server passes it.
#[derive(Clone, Copy)]
pub struct Change {
    pub position: u64,
    pub operation: Operation,
    /// The row before and after it; null where the log has none.
    pub rows: (pg_sys::HeapTuple, pg_sys::HeapTuple),
    /// The (sub)transaction that made it.
    pub xid: u32,
    pub origin: u16,
}

impl Decoder {
    /// One whose memory contexts are children of `parent`. The database's name is a JSON string.
    pub fn new(
        parent: pg_sys::MemoryContext,
        charset: Charset,
        options: Options,
        database: Vec<u8>,
        origins: origin::Filter,
    ) -> Self {
        let options = Rc::new(options);
        // SAFETY: a new memory context belongs to us, as long as its parent lives.
        let memory = unsafe {
            pg_sys::AllocSetContextCreateInternal(
                parent,
                c"bemi change".as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            )
        };
        Self {
            origins,
            origin_names: origin::Names::new(charset),
            charset,
            database,
            relations: Relations::new(parent, charset, options.clone()),
            txn: None,
            is_streaming: false,
            streams: HashMap::new(),
            settings_are_pinned: false,
            memory,
            outbox: Outbox::new(charset),
            sink: Sink::new(options.batch_bytes, options.pretty_print),
            key: Json::new(Charset::Utf8),
            before: Row::default(),
            after: Row::default(),
            places: Vec::new(),
            silent: 0,
            warned: HashSet::new(),
            has_warned_of_context: false,
            options,
        }
    }

    /// Begins a transaction that is decoded as a whole.
    pub fn begin(&mut self, xid: u32, commit: Option<Moment>) {
        self.txn = Some(Transaction::new(xid, commit, &self.database, self.charset, temporary_file::create));
        self.start(false);
    }

    /// Begins a part of a transaction in progress.
    pub fn begin_part(&mut self, xid: u32) {
        let known = self.streams.remove(&xid);
        let mut txn =
            known.unwrap_or_else(|| Transaction::new(xid, None, &self.database, self.charset, temporary_file::create));
        // Parts of other transactions may have been sent meanwhile.
        txn.show_context();
        self.txn = Some(txn);
        self.start(true);
    }

    fn start(&mut self, is_streaming: bool) {
        self.is_streaming = is_streaming;
        self.settings_are_pinned = false;
        self.outbox.clear();
        self.sink.clear();
        self.origin_names.clear();
    }

    /// Ends a transaction that was decoded as a whole, or a part of one in progress; `event` is what became of it.
    /// Tells whether a document of it was sent.
    ///
    /// # Safety
    /// The context is that of the callback that is running.
    pub unsafe fn end(&mut self, ctx: Context, event: Option<Event>) -> bool {
        // SAFETY: the caller's promise.
        unsafe {
            self.settle(ctx);
            let Some(txn) = self.txn.take() else { return false };
            if let Some(event) = event {
                self.write_marker(ctx, txn.xid, event);
            }
            self.sink.flush(ctx);
            let is_sent = txn.is_sent;
            if self.is_streaming {
                self.streams.insert(txn.xid, txn);
            }
            is_sent
        }
    }

    /// Whether a transaction has to be told to be committed, as a part of what it does.
    pub fn tells_commits(&self) -> bool {
        self.options.include_transaction && self.txn.as_ref().is_some_and(|txn| txn.is_sent || !self.outbox.is_empty())
    }

    /// Ends a transaction in progress of which a part was decoded. Tells whether a document of it was sent.
    ///
    /// # Safety
    /// The context is that of the callback that is running.
    pub unsafe fn end_stream(&mut self, ctx: Context, xid: u32, event: Event) -> bool {
        let is_sent = self.streams.remove(&xid).is_some_and(|txn| txn.is_sent);
        if is_sent {
            // SAFETY: the caller's promise.
            unsafe { self.tell(ctx, xid, event) };
        }
        is_sent
    }

    /// Ends a transaction in progress of which a part was decoded, and which is prepared now.
    ///
    /// # Safety
    /// The context is that of the callback that is running.
    pub unsafe fn prepare_stream(&mut self, ctx: Context, xid: u32, event: Event) {
        self.streams.remove(&xid);
        // SAFETY: the caller's promise.
        unsafe { self.tell(ctx, xid, event) };
    }

    /// Takes back a subtransaction of a transaction in progress.
    ///
    /// # Safety
    /// The context is that of the callback that is running.
    pub unsafe fn roll_back(&mut self, ctx: Context, xid: u32, subtransaction: u32) {
        let Some(txn) = self.streams.get_mut(&xid) else { return };
        if txn.roll_back(subtransaction).unwrap_or_else(|error| file_failed(&error)) {
            // SAFETY: the caller's promise.
            unsafe { self.tell(ctx, xid, Event::StreamAbort(Some(subtransaction))) };
        }
    }

    /// Sends what becomes of a transaction, outside of its decoding.
    ///
    /// # Safety
    /// The context is that of the callback that is running.
    pub unsafe fn tell(&mut self, ctx: Context, xid: u32, event: Event) {
        // SAFETY: the caller's promise.
        unsafe {
            self.write_marker(ctx, xid, event);
            self.sink.flush(ctx);
        }
    }

    /// # Safety
    /// The context is that of the callback that is running.
    unsafe fn write_marker(&mut self, ctx: Context, xid: u32, event: Event) {
        let document = marker::document(event, xid, &self.database, self.charset);
        // SAFETY: the caller's promise.
        unsafe { self.sink.write(ctx, (*ctx).write_location, &[&document]) };
    }

    /// Takes a message with our prefix, which begins to hold at a position.
    ///
    /// # Safety
    /// The context is that of the callback that is running.
    pub unsafe fn set_context(&mut self, ctx: Context, position: u64, content: &[u8]) {
        // SAFETY: the caller's promise; the memory context is ours and holds what a conversion leaves behind.
        unsafe {
            self.settle_before(ctx, position);
            let caller = pg_sys::MemoryContextSwitchTo(self.memory);
            if let Some(txn) = &mut self.txn {
                let subtransaction = subtransaction(self.is_streaming, txn, output::transaction_in_progress());
                // Of what is far too long, no more is read than can be shown.
                let is_valid = if content.len() > trigger::pg::max_message_size() {
                    let start = encoding::to_utf8_lossy(&content[..content.len().min(INVALID_CONTEXT_LIMIT * 2)]);
                    txn.set_invalid_context(&start, subtransaction).map(|()| false)
                } else {
                    txn.set_context(&encoding::to_utf8_lossy(content), subtransaction)
                };
                let is_valid = is_valid.unwrap_or_else(|error| file_failed(&error));
                if !is_valid && !self.has_warned_of_context {
                    self.has_warned_of_context = true;
                    warn_of_context(txn.xid, position);
                }
            }
            pg_sys::MemoryContextSwitchTo(caller);
            memory::reset(self.memory);
        }
    }

    /// Makes the document of a message that the reader asked for.
    ///
    /// # Safety
    /// The context is that of the callback that is running.
    pub unsafe fn write_message(
        &mut self,
        ctx: Context,
        position: u64,
        prefix: &[u8],
        content: &[u8],
        is_transactional: bool,
    ) {
        // SAFETY: the caller's promise; the memory context is ours and holds what a conversion leaves behind.
        unsafe {
            let caller = pg_sys::MemoryContextSwitchTo(self.memory);
            let prefix = encoding::to_utf8_lossy(prefix);
            let is_context = prefix == crate::wire::PREFIX.to_bytes();
            if self.options.shows_message(&prefix, is_context) {
                let text = encoding::to_utf8_if_text(content);
                let content = Content::new(content, text.as_deref());
                let message = Message { prefix: &prefix, content, is_transactional };
                if is_transactional {
                    self.settle_before(ctx, position);
                    if let Some(txn) = &mut self.txn {
                        let subtransaction = subtransaction(self.is_streaming, txn, output::transaction_in_progress());
                        let json = &mut self.outbox.json;
                        let written = message::write(json, txn, position, subtransaction, message, self.charset)
                            .unwrap_or_else(|_| memory::out_of_memory());
                        txn.show_context();
                        let queued = self.outbox.push_message(position, written, subtransaction);
                        queued.unwrap_or_else(|_| memory::out_of_memory());
                    }
                } else {
                    // It may come in the middle of no transaction or between the parts of one, so nothing waits.
                    let mut json = Json::new(self.charset);
                    let txn = Transaction::none(&self.database, self.charset, temporary_file::create);
                    let written = message::write(&mut json, &txn, position, None, message, self.charset)
                        .unwrap_or_else(|_| memory::out_of_memory());
                    self.sink.write(ctx, position, &written.pieces(json.as_bytes(), b"null", txn.context()));
                    self.sink.flush(ctx);
                }
            } else {
                self.skip(ctx);
            }
            pg_sys::MemoryContextSwitchTo(caller);
            memory::reset(self.memory);
        }
    }

    /// Makes the document of one change.
    ///
    /// # Safety
    /// All is from the callback that is running.
    pub unsafe fn write_change(&mut self, ctx: Context, open: pg_sys::Relation, change: Change) {
        if !self.options.actions.contain(change.operation) || change.origin == origin::RECORDER {
            // SAFETY: the caller's promise.
            return unsafe { self.skip(ctx) };
        }
        // An error leaves the switch of memory contexts to the server, which restores its own.
        // SAFETY: the caller's promise; the memory context is ours.
        unsafe {
            self.settle_before(ctx, change.position);
            let caller = pg_sys::MemoryContextSwitchTo(self.memory);
            if !self.write_document(open, change) {
                self.skip(ctx);
            }
            pg_sys::MemoryContextSwitchTo(caller);
            memory::reset(self.memory);
        }
    }

    /// False if the relation, or an UPDATE of what its rules ignore, is not shown.
    ///
    /// # Safety
    /// All is from the callback that is running.
    unsafe fn write_document(&mut self, open: pg_sys::Relation, change: Change) -> bool {
        // SAFETY: the caller's promise.
        let relation = unsafe { self.relations.get(open) };
        let (Some(relation), Some(txn)) = (relation, &mut self.txn) else { return false };
        let operation = change.operation;
        if relation.depends_on_settings && !self.settings_are_pinned {
            settings::pin();
            self.settings_are_pinned = true;
        }
        // SAFETY: the caller's promise.
        unsafe {
            self.before.read(change.rows.0, open, &relation.attributes);
            self.after.read(change.rows.1, open, &relation.attributes);
        }
        self.after.complete_from(&self.before, relation);
        let (before, after) = (&self.before, &self.after);
        // What cannot be compared counts as changed.
        if operation == Operation::Update
            && catch::data_errors(|| after.changes_ignored_columns_only(before, relation)).unwrap_or(false)
        {
            return false;
        }
        let json = &mut self.outbox.json;
        let subtransaction = subtransaction(self.is_streaming, txn, Some(change.xid));
        let Some(keys) = keys_of(relation, operation) else { return false };
        let mut document = Document::open(json, txn, change.position, subtransaction, keys, operation, self.charset);
        let is_gone = operation == Operation::Delete;
        let keyed = if is_gone { &self.before } else { &self.after };
        let key_start = document.json.len();
        tuple::write_key(&mut document, keyed, relation, is_gone, &mut self.key);
        let key = key_start..document.json.len();
        document.json.raw(b",\"before\":");
        tuple::write_before(&mut document, &self.before, relation, &mut self.places);
        document.json.raw(b",\"after\":");
        tuple::write_after(&mut document, (&self.after, &self.before), relation, &self.places);
        document.context();
        tuple::write_old_key(&mut document, (&self.before, &self.after), relation, key, &mut self.key);
        if self.options.include_origin {
            document.json.raw(b",\"origin\":");
            document.json.raw(self.origin_names.get(change.origin));
        }
        // SAFETY: the relation is open; its number stays.
        let oid = unsafe { (*open).rd_id };
        if self.options.include_relation {
            document.json.raw(b",\"relation\":");
            document.json.integer(oid.to_u32());
        }
        if !document.omissions().is_empty() && self.warned.insert(oid) {
            warn_of_omissions(relation, document.omissions());
        }
        let document = document.close().unwrap_or_else(|_| memory::out_of_memory());
        let queued = self.outbox.push(change.position, document, subtransaction);
        queued.unwrap_or_else(|_| memory::out_of_memory());
        true
    }

    /// The tables of a TRUNCATE that are shown: under the name of the root, its partitions are not, for they are emptied
    /// with it.
    ///
    /// # Safety
    /// The relations are those of the callback that is running.
    pub unsafe fn shown_of_truncate(&mut self, opened: &[pg_sys::Relation]) -> Vec<pg_sys::Relation> {
        let mut shown = Vec::new();
        if shown.try_reserve_exact(opened.len()).is_err() {
            memory::out_of_memory();
        }
        shown.extend_from_slice(opened);
        if self.options.via_partition_root {
            // SAFETY: the caller's promise; the memory context is ours.
            unsafe {
                let caller = pg_sys::MemoryContextSwitchTo(self.memory);
                let oids: HashSet<pg_sys::Oid> = opened.iter().map(|relation| (**relation).rd_id).collect();
                shown.retain(|relation| {
                    let root = self.relations.get(*relation).and_then(|relation| relation.root.as_ref());
                    !root.is_some_and(|root| oids.contains(&root.oid))
                });
                pg_sys::MemoryContextSwitchTo(caller);
                memory::reset(self.memory);
            }
        }
        shown
    }

    /// Counts what is not shown, and tells the server now and then.
    ///
    /// # Safety
    /// The context is that of the callback that is running.
    pub unsafe fn skip(&mut self, ctx: Context) {
        self.silent += 1;
        if self.silent >= SILENCE {
            self.silent = 0;
            // SAFETY: the caller's promise.
            unsafe { output::update_progress(ctx, false) };
        }
    }

    /// Sends the documents that wait if nothing can follow any more that counts for them, now that a position is
    /// reached.
    ///
    /// # Safety
    /// The context is that of the callback that is running.
    unsafe fn settle_before(&mut self, ctx: Context, position: u64) {
        if self.outbox.is_settled_at(position) {
            // SAFETY: the caller's promise.
            unsafe { self.settle(ctx) };
        }
    }

    /// Sends what was written, if no message can follow that counts for it: none of a transaction without savepoints
    /// can.
    ///
    /// # Safety
    /// All is from the callback that is running.
    pub unsafe fn settle_if_alone(&mut self, ctx: Context, txn: *mut pg_sys::ReorderBufferTXN) {
        // SAFETY: the caller's promise.
        unsafe {
            if (*txn).nsubtxns == 0 {
                self.settle(ctx);
            }
        }
    }

    /// Sends the documents that wait, with the context in force.
    ///
    /// # Safety
    /// The context is that of the callback that is running.
    unsafe fn settle(&mut self, ctx: Context) {
        if self.outbox.is_empty() {
            return;
        }
        let Some(txn) = &mut self.txn else { return };
        let position = self.outbox.position();
        if !std::mem::replace(&mut txn.is_sent, true) && self.options.include_transaction {
            let begin = marker::document(Event::Begin(txn.commit), txn.xid, &self.database, self.charset);
            // SAFETY: the caller's promise.
            unsafe { self.sink.write(ctx, position, &[&begin]) };
        }
        let sink = &mut self.sink;
        // SAFETY: the caller's promise.
        let sent =
            self.outbox.send(txn, self.options.repeat_context, |pieces| unsafe { sink.write(ctx, position, pieces) });
        sent.unwrap_or_else(|_| memory::out_of_memory());
    }
}

/// The subtransaction to which something belongs: none if it belongs to the transaction itself, or if that is decoded
/// as a whole, when what was rolled back is gone already.
fn subtransaction(is_streaming: bool, txn: &Transaction, xid: Option<u32>) -> Option<u32> {
    xid.filter(|xid| is_streaming && *xid != txn.xid)
}

/// A TRUNCATE of a partition says nothing of its root, so it is shown under the partition's own name, if at all.
fn keys_of(relation: &Relation, operation: Operation) -> Option<&[u8]> {
    match &relation.root {
        Some(root) if operation == Operation::Truncate => root.keys_of_partition.as_deref(),
        _ => Some(&relation.keys),
    }
}

fn file_failed(error: &std::io::Error) -> ! {
    if error.kind() == std::io::ErrorKind::OutOfMemory {
        memory::out_of_memory();
    }
    let message = format!("could not use a temporary file for contexts: {error}");
    ErrorReport::new(PgSqlErrorCode::ERRCODE_IO_ERROR, message, "file_failed").report(PgLogLevel::ERROR);
    unreachable!("a report at level ERROR does not return")
}

fn warn_of_omissions(relation: &Relation, omissions: &[u8]) {
    let message = format!("bemi_decoder cannot show some values of {}", relation.name);
    let detail = format!("{{{}}}", String::from_utf8_lossy(omissions));
    ErrorReport::new(PgSqlErrorCode::ERRCODE_WARNING, encoding::message_text(&message), "write_document")
        .set_detail(encoding::message_text(&detail))
        .set_hint("They are null in the document, which names them under \"omitted\". Of this table no more is logged.")
        .report(PgLogLevel::WARNING);
}

fn warn_of_context(xid: u32, position: u64) {
    let position = crate::decoder::encode::lsn(position);
    let message = format!("a message with prefix \"_bemi\" in transaction {xid} at {position} is no context");
    ErrorReport::new(PgSqlErrorCode::ERRCODE_WARNING, message, "set_context")
        .set_hint("Its changes show it as \"bemi_invalid_context\". Of other such messages no more is logged.")
        .report(PgLogLevel::WARNING);
}
