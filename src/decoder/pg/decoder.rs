//! The decoder of one reader: what it keeps from one callback to the next, and how changes become documents.
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::callback::{Callback, Change, Txn};
use super::relation::{Relation, Relations};
use super::scratch::Scratch;
use super::sink::Sink;
use super::tuple::{Buffers, Rows};
use super::{catch, origin, settings};
use crate::decoder::options::Options;
use crate::decoder::outbox::Outbox;
use crate::decoder::txn::Transaction;
use crate::document::change::Draft;
use crate::document::context::{INVALID_CONTEXT_LIMIT, PREFIX};
use crate::document::json::{Charset, Json};
use crate::document::lsn;
use crate::document::marker::{self, Event};
use crate::document::message::{self, Content, Message};
use crate::document::moment::Moment;
use crate::document::operation::Operation;
use crate::sys::{encoding, memory, output, temporary_file};
use crate::trigger;

/// After this many changes and messages that are not shown, the decoder reports progress to the server.
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
    scratch: Scratch,
    outbox: Outbox,
    sink: Sink,
    buffers: Buffers,
    /// Changes and messages that were not shown since progress was last reported.
    silent: u32,
    /// Relations of which an omitted value was logged.
    warned: HashSet<pg_sys::Oid>,
    has_warned_of_context: bool,
}

impl Decoder {
    /// Begins decoding, with memory contexts that are children of `parent`. The database's name is a JSON string.
    pub fn new(
        parent: pg_sys::MemoryContext,
        charset: Charset,
        options: Options,
        database: Vec<u8>,
        origins: origin::Filter,
    ) -> Self {
        let options = Rc::new(options);
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
            scratch: Scratch::new(parent),
            outbox: Outbox::new(charset),
            sink: Sink::new(options.batch_bytes, options.pretty_print),
            buffers: Buffers::new(),
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
        // Parts of other transactions may have been sent since.
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
    /// Returns whether a document of it was sent.
    pub fn end(&mut self, callback: Callback, event: Option<Event<&[u8]>>) -> bool {
        self.settle(callback);
        let Some(txn) = self.txn.take() else { return false };
        if let Some(event) = event {
            self.write_marker(callback, txn.xid, event);
        }
        self.sink.flush(callback);
        let is_sent = txn.is_sent;
        if self.is_streaming {
            self.streams.insert(txn.xid, txn);
        }
        is_sent
    }

    /// Whether the commit of the transaction is shown: the reader wants that, and a document of the transaction is sent.
    pub fn shows_commit(&self) -> bool {
        self.options.include_transaction && self.txn.as_ref().is_some_and(|txn| txn.is_sent || !self.outbox.is_empty())
    }

    /// Ends a transaction in progress of which a part was decoded. Returns whether a document of it was sent.
    pub fn end_stream(&mut self, callback: Callback, xid: u32, event: Event<&[u8]>) -> bool {
        let is_sent = self.streams.remove(&xid).is_some_and(|txn| txn.is_sent);
        if is_sent {
            self.send_event(callback, xid, event);
        }
        is_sent
    }

    /// Ends a transaction in progress of which a part was decoded, and which is prepared now.
    pub fn prepare_stream(&mut self, callback: Callback, xid: u32, event: Event<&[u8]>) {
        self.streams.remove(&xid);
        self.send_event(callback, xid, event);
    }

    /// Takes back a subtransaction of a transaction in progress.
    pub fn roll_back(&mut self, callback: Callback, xid: u32, subtransaction: u32) {
        let Some(txn) = self.streams.get_mut(&xid) else { return };
        if txn.roll_back(subtransaction).unwrap_or_else(|error| file_failed(&error)) {
            self.send_event(callback, xid, Event::StreamAbort(Some(subtransaction)));
        }
    }

    /// Sends what becomes of a transaction, outside of its decoding.
    pub fn send_event(&mut self, callback: Callback, xid: u32, event: Event<&[u8]>) {
        self.write_marker(callback, xid, event);
        self.sink.flush(callback);
    }

    fn write_marker(&mut self, callback: Callback, xid: u32, event: Event<&[u8]>) {
        let document = marker::document(event, xid, &self.database, self.charset);
        self.sink.write(callback, callback.position(), &[&document]);
    }

    /// Takes a message with our prefix: the context of the changes from its position on.
    pub fn set_context(&mut self, callback: Callback, position: u64, content: &[u8]) {
        self.settle_before(callback, position);
        // A conversion leaves memory behind.
        self.scratch.run(|| {
            let Some(txn) = &mut self.txn else { return };
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
        });
    }

    /// Makes the document of a message that the reader asked for.
    pub fn write_message(
        &mut self,
        callback: Callback,
        position: u64,
        prefix: &[u8],
        content: &[u8],
        is_transactional: bool,
    ) {
        // A conversion leaves memory behind.
        self.scratch.run(|| {
            let prefix = encoding::to_utf8_lossy(prefix);
            let is_context = prefix == PREFIX.to_bytes();
            if !self.options.shows_message(&prefix, is_context) {
                return self.skip(callback);
            }
            let text = encoding::to_utf8_if_text(content);
            let message =
                Message { prefix: &prefix, content: Content::new(content, text.as_deref()), is_transactional };
            if is_transactional {
                self.queue_message(callback, position, message);
            } else {
                self.send_message(callback, position, message);
            }
        });
    }

    fn queue_message(&mut self, callback: Callback, position: u64, message: Message) {
        self.settle_before(callback, position);
        let Some(txn) = &mut self.txn else { return };
        let subtransaction = subtransaction(self.is_streaming, txn, output::transaction_in_progress());
        let json = &mut self.outbox.json;
        let written = message::write(json, &txn.head, position, subtransaction, message, self.charset)
            .unwrap_or_else(|_| memory::out_of_memory());
        txn.show_context();
        let queued = self.outbox.push_message(position, written, subtransaction);
        queued.unwrap_or_else(|_| memory::out_of_memory());
    }

    /// Sends a message of no transaction. It may come in the middle of no transaction or between the parts of one, so nothing
    /// waits.
    fn send_message(&mut self, callback: Callback, position: u64, message: Message) {
        let mut json = Json::new(self.charset);
        let txn = Transaction::none(&self.database, self.charset, temporary_file::create);
        let written = message::write(&mut json, &txn.head, position, None, message, self.charset)
            .unwrap_or_else(|_| memory::out_of_memory());
        self.sink.write(callback, position, &written.pieces(json.as_bytes(), b"null", txn.context()));
        self.sink.flush(callback);
    }

    /// Makes the document of one change.
    pub fn write_change(&mut self, callback: Callback, change: &Change) {
        if !self.options.actions.contain(change.operation) || change.origin == origin::RECORDER {
            return self.skip(callback);
        }
        self.settle_before(callback, change.position);
        self.scratch.run(|| {
            if !self.write_document(change) {
                self.skip(callback);
            }
        });
    }

    /// Returns false if the relation, or an UPDATE of no more than ignored columns, is not shown.
    fn write_document(&mut self, change: &Change) -> bool {
        let rows = Rows::read(change, &mut self.relations, &mut self.buffers, self.scratch);
        let (Some(mut rows), Some(txn)) = (rows, &mut self.txn) else { return false };
        let operation = change.operation;
        if rows.relation().depends_on_settings && !self.settings_are_pinned {
            settings::pin();
            self.settings_are_pinned = true;
        }
        // What cannot be compared counts as changed.
        if operation == Operation::Update && catch::data_errors(|| rows.changes_ignored_columns_only()).unwrap_or(false)
        {
            return false;
        }
        let json = &mut self.outbox.json;
        let subtransaction = subtransaction(self.is_streaming, txn, Some(change.xid));
        let Some(keys) = keys_of(rows.relation(), operation) else { return false };
        let mut document = Draft::open(json, &txn.head, change.position, subtransaction, keys, operation, self.charset);
        let key_start = document.json.len();
        rows.write_key(&mut document, operation == Operation::Delete);
        let key = key_start..document.json.len();
        document.before();
        rows.write_before(&mut document);
        document.after();
        rows.write_after(&mut document);
        document.context();
        rows.write_old_key(&mut document, key);
        if self.options.include_origin {
            document.origin(self.origin_names.get(change.origin));
        }
        let oid = change.relation().oid();
        if self.options.include_relation {
            document.relation(oid.to_u32());
        }
        if !document.omissions().is_empty() && self.warned.insert(oid) {
            warn_of_omissions(rows.relation(), document.omissions());
        }
        let document = document.close().unwrap_or_else(|_| memory::out_of_memory());
        let queued = self.outbox.push(change.position, document, subtransaction);
        queued.unwrap_or_else(|_| memory::out_of_memory());
        true
    }

    /// Returns the changes of a TRUNCATE that are shown. Under the name of the root, its partitions are not, since they are
    /// emptied with it.
    pub fn shown_of_truncate<'cb>(&mut self, changes: impl ExactSizeIterator<Item = Change<'cb>>) -> Vec<Change<'cb>> {
        let mut shown = Vec::new();
        if shown.try_reserve_exact(changes.len()).is_err() {
            memory::out_of_memory();
        }
        shown.extend(changes);
        if self.options.via_partition_root {
            self.scratch.run(|| {
                let oids: HashSet<pg_sys::Oid> = shown.iter().map(|change| change.relation().oid()).collect();
                shown.retain(|change| {
                    let root = self.relations.get(change.relation()).and_then(|relation| relation.root.as_ref());
                    !root.is_some_and(|root| oids.contains(&root.oid))
                });
            });
        }
        shown
    }

    /// Counts what is not shown, and reports progress to the server now and then.
    fn skip(&mut self, callback: Callback) {
        self.silent += 1;
        if self.silent >= SILENCE {
            self.silent = 0;
            callback.update_progress(false);
        }
    }

    /// Sends the documents that wait if nothing that counts for them can follow, now that a position is reached.
    fn settle_before(&mut self, callback: Callback, position: u64) {
        if self.outbox.is_settled_at(position) {
            self.settle(callback);
        }
    }

    /// Sends what was written, if no message that counts for it can follow: none of a transaction without savepoints can.
    pub fn settle_if_alone(&mut self, callback: Callback, txn: Txn) {
        if !txn.has_subtransactions() {
            self.settle(callback);
        }
    }

    /// Sends the documents that wait, with the context in force.
    fn settle(&mut self, callback: Callback) {
        if self.outbox.is_empty() {
            return;
        }
        let Some(txn) = &mut self.txn else { return };
        let position = self.outbox.position();
        if !std::mem::replace(&mut txn.is_sent, true) && self.options.include_transaction {
            let begin = marker::document(Event::Begin(txn.commit), txn.xid, &self.database, self.charset);
            self.sink.write(callback, position, &[&begin]);
        }
        let sink = &mut self.sink;
        let sent = self.outbox.send(txn, self.options.repeat_context, |pieces| sink.write(callback, position, pieces));
        sent.unwrap_or_else(|_| memory::out_of_memory());
    }
}

/// The subtransaction to which something belongs: none if it belongs to the transaction itself, or if that is decoded
/// as a whole, when what was rolled back is gone already.
fn subtransaction(is_streaming: bool, txn: &Transaction, xid: Option<u32>) -> Option<u32> {
    xid.filter(|xid| is_streaming && *xid != txn.xid)
}

/// The fixed part of a document's keys. A TRUNCATE of a partition leaves its root as it is, so it is shown under the partition's
/// own name, if at all.
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
        .set_hint(
            "They are null in the document, which names them under \"omitted\". This is logged once for each table.",
        )
        .report(PgLogLevel::WARNING);
}

fn warn_of_context(xid: u32, position: u64) {
    let position = lsn::text(position);
    let message = format!("message with prefix \"_bemi\" in transaction {xid} at {position} is not a context");
    ErrorReport::new(PgSqlErrorCode::ERRCODE_WARNING, message, "set_context")
        .set_hint("Its changes show it as \"bemi_invalid_context\". This is logged once for each reader.")
        .report(PgLogLevel::WARNING);
}
