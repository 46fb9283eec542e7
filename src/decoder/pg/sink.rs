//! Where documents leave the decoder: through the server to the reader.
use pgrx::pg_sys;

use crate::decoder::batch::Batch;
use crate::decoder::json::MAX_DOCUMENT;
use crate::json;
use crate::sys::{memory, output};

/// Capacity that the buffers keep from one document to the next, in bytes.
const KEPT_CAPACITY: usize = 1 << 20;

/// Sends documents, alone or joined.
#[derive(Debug)]
pub struct Sink {
    batch: Batch,
    is_indented: bool,
    /// A document in one piece, and its indented form.
    compact: Vec<u8>,
    indented: Vec<u8>,
}

impl Sink {
    /// Joins documents to messages of up to `batch_bytes`; 0 for none.
    pub fn new(batch_bytes: usize, is_indented: bool) -> Self {
        Self { batch: Batch::new(batch_bytes), is_indented, compact: Vec::new(), indented: Vec::new() }
    }

    /// Takes a document, given in pieces, which has a position in the log: a client may confirm what it was sent up to
    /// there.
    ///
    /// # Safety
    /// The context is that of the callback that is running.
    pub unsafe fn write(&mut self, ctx: *mut pg_sys::LogicalDecodingContext, position: u64, pieces: &[&[u8]]) {
        if self.is_indented && self.indent(pieces) {
            let indented = std::mem::take(&mut self.indented);
            // SAFETY: the caller's promise.
            unsafe { self.write_pieces(ctx, position, &[&indented]) };
            self.indented = indented;
            self.indented.shrink_to(KEPT_CAPACITY);
            self.compact.shrink_to(KEPT_CAPACITY);
        } else {
            // SAFETY: the caller's promise.
            unsafe { self.write_pieces(ctx, position, pieces) };
        }
    }

    /// # Safety
    /// The context is that of the callback that is running.
    unsafe fn write_pieces(&mut self, ctx: *mut pg_sys::LogicalDecodingContext, position: u64, pieces: &[&[u8]]) {
        let len = pieces.iter().map(|piece| piece.len()).sum();
        if !self.batch.has_room_for(len) {
            // SAFETY: the caller's promise.
            unsafe { self.flush(ctx) };
        }
        if self.batch.is_empty() && !self.batch.has_room_for(len) {
            // SAFETY: the caller's promise.
            unsafe { output::send(ctx, position, pieces) };
        } else {
            self.batch.push(pieces, position).unwrap_or_else(|_| memory::out_of_memory());
        }
    }

    /// Puts each member of a document on a line of its own; false if that would be longer than the server passes on, or
    /// if there is no memory for it.
    fn indent(&mut self, pieces: &[&[u8]]) -> bool {
        self.compact.clear();
        self.indented.clear();
        let len: usize = pieces.iter().map(|piece| piece.len()).sum();
        if self.compact.try_reserve_exact(len).is_err() {
            return false;
        }
        for piece in pieces {
            self.compact.extend_from_slice(piece);
        }
        json::indent(&mut self.indented, &self.compact, MAX_DOCUMENT)
    }

    /// Sends what waits.
    ///
    /// # Safety
    /// The context is that of the callback that is running.
    pub unsafe fn flush(&mut self, ctx: *mut pg_sys::LogicalDecodingContext) {
        if !self.batch.is_empty() {
            let (text, position) = self.batch.message();
            // SAFETY: the caller's promise.
            unsafe { output::send(ctx, position, &[text]) };
            self.batch.clear();
        }
    }

    /// Forgets what waits.
    pub fn clear(&mut self) {
        self.batch.clear();
    }
}
