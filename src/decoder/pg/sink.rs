//! Where documents leave the decoder: through the server to the reader.
use super::callback::Callback;
use crate::decoder::batch::Batch;
use crate::document::json;
use crate::document::omission::MAX_DOCUMENT;
use crate::sys::memory;

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

    /// Takes a document, given in pieces, which has a position in WAL: a client may confirm what it was sent up to there.
    pub fn write(&mut self, callback: Callback, position: u64, pieces: &[&[u8]]) {
        if self.is_indented && self.indent(pieces) {
            let indented = std::mem::take(&mut self.indented);
            self.write_pieces(callback, position, &[&indented]);
            self.indented = indented;
            self.indented.shrink_to(KEPT_CAPACITY);
            self.compact.shrink_to(KEPT_CAPACITY);
        } else {
            self.write_pieces(callback, position, pieces);
        }
    }

    fn write_pieces(&mut self, callback: Callback, position: u64, pieces: &[&[u8]]) {
        let len = pieces.iter().map(|piece| piece.len()).sum();
        if !self.batch.has_room_for(len) {
            self.flush(callback);
        }
        if self.batch.is_empty() && !self.batch.has_room_for(len) {
            callback.send(position, pieces);
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
    pub fn flush(&mut self, callback: Callback) {
        if !self.batch.is_empty() {
            let (text, position) = self.batch.message();
            callback.send(position, &[text]);
            self.batch.clear();
        }
    }

    /// Forgets what waits.
    pub fn clear(&mut self) {
        self.batch.clear();
    }
}
