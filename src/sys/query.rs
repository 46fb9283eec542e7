//! Queries as the planner takes them.
use core::ffi::{CStr, c_int};

use pgrx::pg_sys;

/// Returns a statement as the planner takes it, with parameters of these types.
///
/// # Safety
/// `text` is one SELECT; a transaction and a snapshot are active.
pub unsafe fn analyze(text: &CStr, parameters: &mut [pg_sys::Oid]) -> *mut pg_sys::Query {
    // SAFETY: one SELECT is one parse tree and one query, so both lists have a first member. Catalogs can be read under
    // the snapshot. The server keeps neither the text nor the types.
    unsafe {
        let statement = pg_sys::list_nth(pg_sys::pg_parse_query(text.as_ptr()), 0).cast();
        let (types, count) = (parameters.as_mut_ptr(), parameters.len() as c_int);
        #[cfg(feature = "pg14")]
        let queries = pg_sys::pg_analyze_and_rewrite(statement, text.as_ptr(), types, count, core::ptr::null_mut());
        #[cfg(not(feature = "pg14"))]
        let queries =
            pg_sys::pg_analyze_and_rewrite_fixedparams(statement, text.as_ptr(), types, count, core::ptr::null_mut());
        pg_sys::list_nth(queries, 0).cast()
    }
}
