//! Where documents leave the decoder: through the server to the reader.
use core::ffi::c_int;

use pgrx::pg_sys;

use crate::decoder::batch::Batch;
use crate::decoder::json::MAX_DOCUMENT;
use crate::json;

/// Sends documents, alone or joined.
#[derive(Debug)]
pub struct Sink {
    batch: Batch,
    is_indented: bool,
}

impl Sink {
    /// Joins documents to messages of up to `batch_bytes`; 0 for none.
    pub fn new(batch_bytes: usize, is_indented: bool) -> Self {
        Self { batch: Batch::new(batch_bytes), is_indented }
    }

    /// Takes a document, given in pieces, which has a position in the log: a client may confirm what it was sent up to
    /// there.
    ///
    /// # Safety
    /// The context is that of the callback that is running.
    pub unsafe fn write(&mut self, ctx: *mut pg_sys::LogicalDecodingContext, position: u64, pieces: &[&[u8]]) {
        let indented;
        let one;
        let pieces = if self.is_indented {
            indented = indented_form(pieces);
            one = [&indented[..]];
            &one[..]
        } else {
            pieces
        };
        let len = pieces.iter().map(|piece| piece.len()).sum();
        if !self.batch.has_room_for(len) {
            // SAFETY: the caller's promise.
            unsafe { self.flush(ctx) };
        }
        if self.batch.is_empty() && !self.batch.has_room_for(len) {
            // SAFETY: the caller's promise.
            unsafe { send(ctx, position, pieces) };
        } else {
            self.batch.push(pieces, position);
        }
    }

    /// Sends what waits.
    ///
    /// # Safety
    /// The context is that of the callback that is running.
    pub unsafe fn flush(&mut self, ctx: *mut pg_sys::LogicalDecodingContext) {
        if !self.batch.is_empty() {
            let (text, position) = self.batch.message();
            // SAFETY: the caller's promise.
            unsafe { send(ctx, position, &[text]) };
            self.batch.clear();
        }
    }

    /// Forgets what waits.
    pub fn clear(&mut self) {
        self.batch.clear();
    }
}

/// The document with each member on a line of its own, unless that would be longer than the server passes on.
fn indented_form(pieces: &[&[u8]]) -> Vec<u8> {
    let compact = pieces.concat();
    let mut indented = Vec::with_capacity(compact.len() * 2);
    if json::indent(&mut indented, &compact, MAX_DOCUMENT) { indented } else { compact }
}

/// # Safety
/// The context is that of the callback that is running.
unsafe fn send(ctx: *mut pg_sys::LogicalDecodingContext, position: u64, pieces: &[&[u8]]) {
    // The running callback is further on than the document, at the end of the transaction perhaps, of which documents
    // are still to come.
    // SAFETY: the caller's promise; the text is copied, and it is shorter than an int can count.
    unsafe {
        let reached = core::mem::replace(&mut (*ctx).write_location, position);
        pg_sys::OutputPluginPrepareWrite(ctx, true);
        for piece in pieces {
            pg_sys::appendBinaryStringInfo((*ctx).out, piece.as_ptr().cast(), piece.len() as c_int);
        }
        pg_sys::OutputPluginWrite(ctx, true);
        (*ctx).write_location = reached;
    }
}
