//! The columns of row types.
use pgrx::pg_sys;

/// Returns a column of a row type, by its index from 0 on.
///
/// # Safety
/// The descriptor has more columns than `index`, and lives as long as the result.
pub unsafe fn column<'a>(descriptor: pg_sys::TupleDesc, index: usize) -> &'a pg_sys::FormData_pg_attribute {
    // SAFETY: `index` is below `natts`, so it stays within the array of columns. From 18 on, that array begins behind
    // `natts` compact columns.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        return &*(*descriptor).attrs.as_ptr().add(index);
        #[cfg(feature = "pg18")]
        {
            let columns = (*descriptor).compact_attrs.as_ptr().add((*descriptor).natts as usize);
            &*columns.cast::<pg_sys::FormData_pg_attribute>().add(index)
        }
    }
}
