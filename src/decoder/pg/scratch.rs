//! The memory context that takes what a change leaves behind.
use pgrx::pg_sys;

use crate::sys::memory;

/// A memory context that is reset after each change.
#[derive(Clone, Copy, Debug)]
pub struct Scratch(pg_sys::MemoryContext);

impl Scratch {
    /// A new one, which lives as long as `parent`: the memory context of a decoding, which the decoder belongs to.
    pub fn new(parent: pg_sys::MemoryContext) -> Self {
        // SAFETY: the memory context is new, and nobody else has it.
        Self(unsafe {
            pg_sys::AllocSetContextCreateInternal(
                parent,
                c"bemi change".as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            )
        })
    }

    /// Runs something that allocates here, and frees what it allocated. An error leaves the switch of memory contexts to the
    /// server, which restores its own.
    #[inline]
    pub fn run<R>(self, work: impl FnOnce() -> R) -> R {
        // SAFETY: the memory context lives as long as the decoder, which runs this.
        unsafe {
            let caller = pg_sys::MemoryContextSwitchTo(self.0);
            let result = work();
            pg_sys::MemoryContextSwitchTo(caller);
            memory::reset(self.0);
            result
        }
    }

    /// Frees what was allocated here so far.
    pub fn clear(self) {
        // SAFETY: what is here is what values that were written needed: one that was compressed, for example, needs as much
        // as it holds. The row itself is the server's, readers have a memory context of their own, and texts and buffers
        // are not in one.
        unsafe { memory::reset(self.0) }
    }
}
