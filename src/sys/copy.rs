//! COPY inside of the server, as logical replication copies tables.
use core::ffi::{CStr, c_int};
use std::ffi::CString;

use pgrx::pg_sys;

/// Runs COPY FROM into columns of a table, with what `rows` returns in the binary format. In a transaction.
pub fn from(schema: &CStr, table: &CStr, columns: &str, rows: pg_sys::copy_data_source_cb) {
    // SAFETY: the transaction releases the relation and its lock if this raises an error. The names are copies that
    // live as long as the current memory context, and so as the COPY; `columns` is a list of strings, and so are the
    // options.
    unsafe {
        let copy = |name: &CStr| pg_sys::pstrdup(name.as_ptr());
        let name = pg_sys::makeRangeVar(copy(schema), copy(table), -1);
        let relation = pg_sys::table_openrv(name, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE);
        let state = pg_sys::make_parsestate(core::ptr::null_mut());
        let mode = pg_sys::RowExclusiveLock as c_int;
        pg_sys::addRangeTableEntryForRelation(state, relation, mode, core::ptr::null_mut(), false, false);
        let string = |text: &str| {
            let text = CString::new(text).unwrap_or_default();
            pg_sys::makeString(copy(&text))
        };
        let mut names: *mut pg_sys::List = core::ptr::null_mut();
        for column in columns.split(',') {
            names = pg_sys::lappend(names, string(column.trim().trim_matches('"')).cast());
        }
        let format = pg_sys::makeDefElem(copy(c"format"), string("binary").cast(), -1);
        let options = pg_sys::lappend(core::ptr::null_mut(), format.cast());
        let nothing = (core::ptr::null_mut(), core::ptr::null());
        let copying = pg_sys::BeginCopyFrom(state, relation, nothing.0, nothing.1, false, rows, names, options);
        pg_sys::CopyFrom(copying);
        pg_sys::EndCopyFrom(copying);
        pg_sys::table_close(relation, pg_sys::NoLock as pg_sys::LOCKMODE);
    }
}
