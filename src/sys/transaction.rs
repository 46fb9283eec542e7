//! Transactions of the running process.
use pgrx::pg_sys;

/// Runs `work` in a transaction: the active one, or else a short one of its own. Catalogs can be read there.
pub fn in_transaction<R>(work: impl FnOnce() -> R) -> R {
    // SAFETY: reads the state of the process.
    if unsafe { pg_sys::IsTransactionState() } {
        return work();
    }
    // The end of a transaction sets another memory context and resource owner: the caller's are put back.
    // SAFETY: none is active, so one can be started. An error in `work` passes to the caller, whose own error handling
    // ends it.
    unsafe {
        let (memory, owner) = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
        pg_sys::StartTransactionCommand();
        pg_sys::MemoryContextSwitchTo(memory);
        let result = work();
        pg_sys::AbortCurrentTransaction();
        pg_sys::MemoryContextSwitchTo(memory);
        pg_sys::CurrentResourceOwner = owner;
        result
    }
}

/// Returns the nesting level of the running transaction: 1 in the transaction itself, one more in each savepoint.
pub fn nesting_level() -> u32 {
    // SAFETY: reads a number of the process; outside of a transaction it is 0.
    unsafe { pg_sys::GetCurrentTransactionNestLevel() as u32 }
}
