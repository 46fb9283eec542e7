//! The result of `bemi.revert()`: rows of the type `bemi.reverted`.
use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::sys::arguments;

/// The rows that the function returns.
pub struct Results {
    store: *mut pg_sys::Tuplestorestate,
    descriptor: pg_sys::TupleDesc,
}

impl Results {
    /// Begins the result of a function that returns a set.
    ///
    /// # Safety
    /// `fcinfo` is what the server passed.
    pub unsafe fn new(fcinfo: pg_sys::FunctionCallInfo) -> Self {
        use pg_sys::SetFunctionReturnMode::{SFRM_Materialize, SFRM_Materialize_Random};
        // SAFETY: a call that the server makes for a set has its ReturnSetInfo, which is checked; result and descriptor are
        // made in the memory that the server keeps until it has read them.
        unsafe {
            let info: *mut pg_sys::ReturnSetInfo = (*fcinfo).resultinfo.cast();
            if info.is_null()
                || (*info).type_ != pg_sys::NodeTag::T_ReturnSetInfo
                || (*info).allowedModes & SFRM_Materialize as i32 == 0
            {
                error!("this function returns a set");
            }
            let before = pg_sys::MemoryContextSwitchTo((*(*info).econtext).ecxt_per_query_memory);
            let mut descriptor = core::ptr::null_mut();
            pg_sys::get_call_result_type(fcinfo, core::ptr::null_mut(), &mut descriptor);
            if descriptor.is_null() || (*descriptor).natts != 9 {
                error!("the type bemi.reverted is not the one of this library");
            }
            let is_random = (*info).allowedModes & SFRM_Materialize_Random as i32 != 0;
            let store = pg_sys::tuplestore_begin_heap(is_random, false, pg_sys::work_mem);
            pg_sys::MemoryContextSwitchTo(before);
            (*info).returnMode = SFRM_Materialize;
            (*info).setResult = store;
            (*info).setDesc = descriptor;
            Self { store, descriptor }
        }
    }

    /// Adds a row.
    pub fn put(&self, line: &Line) {
        let text = |text: &Option<Vec<u8>>| text.as_deref().map(arguments::text);
        let row = &line.row;
        let mut values = [
            row.relation.map(pg_sys::Datum::from),
            text(&row.primary_key),
            text(&row.operation),
            Some(arguments::text(&line.status)),
            text(&line.detail),
            text(&line.statement),
            row.transaction_id,
            row.commit_position,
            row.sequence,
        ];
        let mut nulls = values.map(|value| value.is_none());
        let mut values = values.each_mut().map(|value| value.unwrap_or(pg_sys::Datum::from(0)));
        // SAFETY: the descriptor has nine columns, as was checked, of the types of `bemi.reverted`; the values are copied.
        unsafe { pg_sys::tuplestore_putvalues(self.store, self.descriptor, values.as_mut_ptr(), nulls.as_mut_ptr()) };
    }
}

/// The columns of a row that say which change it is about.
#[derive(Clone)]
pub struct Row {
    /// The table; None if it is gone.
    pub relation: Option<pg_sys::Oid>,
    /// Its key.
    pub primary_key: Option<Vec<u8>>,
    /// What the change did.
    pub operation: Option<Vec<u8>>,
    /// `bigint`, by value.
    pub transaction_id: Option<pg_sys::Datum>,
    /// `pg_lsn`, by value.
    pub commit_position: Option<pg_sys::Datum>,
    /// `integer`, by value.
    pub sequence: Option<pg_sys::Datum>,
}

/// A row that is returned: a change, and what became of it.
pub struct Line {
    /// The change.
    pub row: Row,
    /// `reverted`, `partly reverted` or `skipped`.
    pub status: Vec<u8>,
    /// Why, or what differs.
    pub detail: Option<Vec<u8>>,
    /// The statement that undid it.
    pub statement: Option<Vec<u8>>,
}
