//! A callback of the output plugin while it runs, and what the server passes to it. Each type here is made at the top of the
//! callback, by a reference to the callback's own argument: so none of them is used after the callback has returned, which is
//! as long as the server keeps what they point to.
use core::ffi::{CStr, c_int};
use core::marker::PhantomData;
use core::ptr::NonNull;

use pgrx::pg_sys;

use super::open_relation::OpenRelation;
use crate::document::moment::Moment;
use crate::document::operation::Operation;
use crate::sys::{encoding, output};

/// A callback of the output plugin that is running. It gives access to the reader, who gets the documents.
#[derive(Clone, Copy)]
pub struct Callback<'cb> {
    ctx: *mut pg_sys::LogicalDecodingContext,
    running: PhantomData<&'cb ()>,
}

impl<'cb> Callback<'cb> {
    /// Stands for the callback that the server called with this argument.
    ///
    /// # Safety
    /// `ctx` is an argument of a callback of the output plugin, and belongs to its frame.
    pub unsafe fn new(ctx: &'cb *mut pg_sys::LogicalDecodingContext) -> Self {
        Self { ctx: *ctx, running: PhantomData }
    }

    /// Returns what the startup callback kept for the callbacks after it.
    ///
    /// # Safety
    /// Startup has run and kept a `T`. A callback asks once.
    pub unsafe fn kept<T>(self) -> &'cb mut T {
        // SAFETY: the server runs one callback of a context at a time, and this one asks once, so nothing else refers to
        // what startup allocated in the memory context of the decoding, where it stays until decoding ends.
        unsafe { &mut *(*self.ctx).output_plugin_private.cast() }
    }

    /// Returns a transaction that the server passed.
    ///
    /// # Safety
    /// `txn` is an argument of the same callback.
    pub unsafe fn txn(self, txn: *mut pg_sys::ReorderBufferTXN) -> Txn<'cb> {
        Txn { txn, running: PhantomData }
    }

    /// Returns a change of a row; None for one that is not a change of a table's rows.
    ///
    /// # Safety
    /// Both are arguments of the same call of the change callback.
    pub unsafe fn change(
        self,
        relation: pg_sys::Relation,
        change: *mut pg_sys::ReorderBufferChange,
    ) -> Option<Change<'cb>> {
        use pg_sys::ReorderBufferChangeType::*;
        // SAFETY: the server keeps the change and holds the relation open until the callback returns. Of the three actions
        // that remain, the change has tuples of this relation.
        unsafe {
            let operation = match (*change).action {
                REORDER_BUFFER_CHANGE_INSERT => Operation::Create,
                REORDER_BUFFER_CHANGE_UPDATE => Operation::Update,
                REORDER_BUFFER_CHANGE_DELETE => Operation::Delete,
                _ => return None,
            };
            let (before, after) = output::tuples(change);
            let tuple = |tuple| NonNull::new(tuple).map(|tuple| Tuple { tuple, running: PhantomData });
            let relation = OpenRelation::new(relation);
            Some(Change::new(relation, operation, (tuple(before), tuple(after)), change))
        }
    }

    /// Returns a TRUNCATE: for each of the tables that it empties, the change.
    ///
    /// # Safety
    /// All are arguments of the same call of the truncate callback.
    pub unsafe fn truncation(
        self,
        count: c_int,
        relations: *mut pg_sys::Relation,
        change: *mut pg_sys::ReorderBufferChange,
    ) -> impl ExactSizeIterator<Item = Change<'cb>> {
        // SAFETY: the server passes an array of `count` relations, and holds them open until the callback returns, as it
        // keeps the change.
        unsafe {
            let relations: &'cb [pg_sys::Relation] = core::slice::from_raw_parts(relations, count as usize);
            relations.iter().map(move |relation| {
                Change::new(OpenRelation::new(*relation), Operation::Truncate, (None, None), change)
            })
        }
    }

    /// Returns the position in WAL that the server has reached.
    pub fn position(self) -> u64 {
        // SAFETY: the server keeps the context until the callback returns.
        unsafe { (*self.ctx).write_location }
    }

    /// Sends one message to the reader, given in pieces, with a position that the reader may confirm. The pieces together
    /// are shorter than an `int` counts, as a document is.
    pub fn send(self, position: u64, pieces: &[&[u8]]) {
        // SAFETY: this is the context of the running callback.
        unsafe { output::send(self.ctx, position, pieces) }
    }

    /// Reports to the server how far the plugin is, so that a waiting client hears of it; at the end of a transaction also
    /// whether nothing of it was sent.
    pub fn update_progress(self, is_skipped: bool) {
        // SAFETY: this is the context of the running callback.
        unsafe { output::update_progress(self.ctx, is_skipped) }
    }
}

/// A transaction, or a subtransaction, that is being decoded.
#[derive(Clone, Copy)]
pub struct Txn<'cb> {
    txn: *const pg_sys::ReorderBufferTXN,
    running: PhantomData<&'cb ()>,
}

impl Txn<'_> {
    fn get(&self) -> &pg_sys::ReorderBufferTXN {
        // SAFETY: the server keeps a transaction that it passes, unchanged, until the callback returns.
        unsafe { &*self.txn }
    }

    fn time(self) -> i64 {
        // SAFETY: the server keeps the transaction. Of one that is not committed, the time is another one, which is a number too.
        unsafe { output::commit_time(self.txn) }
    }

    /// Its number.
    pub fn xid(self) -> u32 {
        self.get().xid.into_inner()
    }

    /// When it was committed: where the record of that begins.
    pub fn commit_moment(self) -> Moment {
        Moment { position: self.get().final_lsn, time: self.time() }
    }

    /// When it was prepared: where the record of that ends, which is the position that the server reports when the
    /// transaction is rolled back.
    pub fn prepare_moment(self) -> Moment {
        Moment { position: self.get().end_lsn, time: self.time() }
    }

    /// The name of a prepared transaction, in UTF-8; empty for another one.
    pub fn gid(self) -> Vec<u8> {
        let name = self.get().gid;
        if name.is_null() {
            return Vec::new();
        }
        // SAFETY: the name of a prepared transaction is a C string, which the server keeps with the transaction.
        encoding::to_utf8_lossy(unsafe { CStr::from_ptr(name) }.to_bytes()).into_owned()
    }

    /// Whether a part of it is of savepoints.
    pub fn has_subtransactions(self) -> bool {
        self.get().nsubtxns != 0
    }

    /// The transaction of which this is a subtransaction; it is kept as long.
    pub fn top(self) -> Option<Self> {
        let top = self.get().toptxn;
        (!top.is_null()).then_some(Self { txn: top, running: PhantomData })
    }
}

/// A row as WAL contains it.
#[derive(Clone, Copy)]
pub struct Tuple<'cb> {
    tuple: NonNull<pg_sys::HeapTupleData>,
    running: PhantomData<&'cb ()>,
}

impl Tuple<'_> {
    /// A pointer that is valid until the callback returns: the tuple is the server's own copy, which no invalidation frees.
    pub fn as_ptr(self) -> pg_sys::HeapTuple {
        self.tuple.as_ptr()
    }
}

/// A change of a row, or of one of the tables that a TRUNCATE empties.
#[derive(Clone, Copy)]
pub struct Change<'cb> {
    relation: OpenRelation<'cb>,
    rows: (Option<Tuple<'cb>>, Option<Tuple<'cb>>),
    /// Where its record begins.
    pub position: u64,
    /// What was done.
    pub operation: Operation,
    /// The (sub)transaction that made it.
    pub xid: u32,
    /// The number of its replication origin.
    pub origin: u16,
}

impl<'cb> Change<'cb> {
    /// # Safety
    /// The change is one that the server passed; the tuples, if there are any, are of the relation.
    unsafe fn new(
        relation: OpenRelation<'cb>,
        operation: Operation,
        rows: (Option<Tuple<'cb>>, Option<Tuple<'cb>>),
        change: *const pg_sys::ReorderBufferChange,
    ) -> Self {
        // SAFETY: the server keeps a change that it passes, and the transaction to which the change points.
        unsafe {
            let (position, xid) = ((*change).lsn, (*(*change).txn).xid.into_inner());
            Self { relation, rows, position, operation, xid, origin: (*change).origin_id }
        }
    }

    /// The relation whose row it is.
    pub fn relation(&self) -> OpenRelation<'cb> {
        self.relation
    }

    /// The row before and after it, of [`Change::relation`]; None where WAL does not contain it.
    pub fn rows(&self) -> (Option<Tuple<'cb>>, Option<Tuple<'cb>>) {
        self.rows
    }
}
