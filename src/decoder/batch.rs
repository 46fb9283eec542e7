//! Documents joined to messages of about a size, with newlines between them.
#![forbid(unsafe_code)]

use std::collections::TryReserveError;

/// Capacity that the buffer keeps beyond the size of a batch, in bytes.
const KEPT_CAPACITY: usize = 1 << 20;

/// The documents that are joined so far.
#[derive(Debug, Default)]
pub struct Batch {
    text: Vec<u8>,
    position: u64,
    size: usize,
}

impl Batch {
    /// An empty one. A message is no longer than `size` bytes, but for a document that is longer by itself; 0 has
    /// each document sent alone.
    pub fn new(size: usize) -> Self {
        Self { text: Vec::new(), position: 0, size }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Whether a document of a length has room behind those that wait.
    pub fn has_room_for(&self, len: usize) -> bool {
        self.text.len() + 1 + len <= self.size
    }

    /// Takes a document, given in pieces. Fails without memory.
    pub fn push(&mut self, pieces: &[&[u8]], position: u64) -> Result<(), TryReserveError> {
        let len: usize = pieces.iter().map(|piece| piece.len()).sum();
        self.text.try_reserve(len + 1)?;
        if !self.is_empty() {
            self.text.push(b'\n');
        }
        for piece in pieces {
            self.text.extend_from_slice(piece);
        }
        self.position = position;
        Ok(())
    }

    /// What is to be sent, and the position that is reached with it.
    pub fn message(&self) -> (&[u8], u64) {
        (&self.text, self.position)
    }

    /// Forgets what was sent.
    pub fn clear(&mut self) {
        self.text.clear();
        self.text.shrink_to(self.size + KEPT_CAPACITY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn messages_one_after_another_are_the_documents_one_after_another(
            documents in prop::collection::vec("[a-z]{1,40}", 0..50), size in 0usize..100
        ) {
            let mut batch = Batch::new(size);
            let mut messages: Vec<String> = Vec::new();
            let mut send = |batch: &mut Batch| {
                messages.push(String::from_utf8(batch.message().0.to_vec()).unwrap());
                batch.clear();
            };
            for (i, document) in documents.iter().enumerate() {
                if !batch.is_empty() && !batch.has_room_for(document.len()) {
                    send(&mut batch);
                }
                let (start, end) = document.as_bytes().split_at(document.len() / 2);
                batch.push(&[start, end], i as u64).unwrap();
                prop_assert_eq!(batch.message().1, i as u64);
            }
            if !batch.is_empty() {
                send(&mut batch);
            }
            prop_assert_eq!(messages.join("\n"), documents.join("\n"));
            prop_assert!(messages.iter().all(|m| m.len() <= size || !m.contains('\n')));
            if size > 82 {
                prop_assert!(messages.len() <= documents.len().div_ceil(2));
            }
        }
    }
}
