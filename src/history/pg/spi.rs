//! The server's programming interface: statements with parameters, and what they return, in memory of our own. An error of the
//! server passes, and takes the connection, its statements and its cursors away with the transaction or savepoint that it ends.
use core::ffi::{CStr, c_char, c_int};
use std::ffi::CString;

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::sys::memory;

/// A parameter; None is NULL.
pub type Parameter = Option<pg_sys::Datum>;

/// A value of a type of variable length, aligned as the server wants it.
#[derive(Default)]
pub struct Value(Vec<u64>);

impl Value {
    /// Copies a value.
    ///
    /// # Safety
    /// It is of a type of variable length.
    unsafe fn new(datum: pg_sys::Datum) -> Self {
        // SAFETY: the value is a varlena. Detoasted, a value begins with a header of four bytes, which has its length in bytes.
        unsafe {
            let value = pg_sys::pg_detoast_datum(datum.cast_mut_ptr());
            let size = pgrx::varlena::varsize_any(value);
            let mut words: Vec<u64> = Vec::new();
            if words.try_reserve_exact(size.div_ceil(8)).is_err() {
                memory::out_of_memory();
            }
            words.resize(size.div_ceil(8), 0);
            core::ptr::copy_nonoverlapping(value.cast::<u8>(), words.as_mut_ptr().cast(), size);
            Self(words)
        }
    }

    /// The value as a parameter, which lives as long as the value. A value that was never read is NULL.
    pub fn parameter(&self) -> Parameter {
        (!self.0.is_empty()).then(|| pg_sys::Datum::from(self.0.as_ptr()))
    }

    /// Its size in memory, in bytes.
    pub fn size(&self) -> usize {
        self.0.len() * 8
    }
}

/// A row that a statement returned.
pub struct Row {
    tuple: pg_sys::HeapTuple,
    descriptor: pg_sys::TupleDesc,
}

impl Row {
    /// A column, by its number from 1 on. It lives as long as the row.
    pub fn get(&self, number: c_int) -> Parameter {
        let mut is_null = false;
        // SAFETY: a row is only there while its result is; of a column that is not there, the function returns NULL.
        let datum = unsafe { pg_sys::SPI_getbinval(self.tuple, self.descriptor, number, &mut is_null) };
        (!is_null).then_some(datum)
    }

    /// A column of the type `text`.
    pub fn text(&self, number: c_int) -> Option<Vec<u8>> {
        self.get(number).map(|datum| {
            // SAFETY: the column is a text, as the statements of this module's callers have it; packed, it is a varlena.
            let bytes =
                unsafe { pgrx::varlena::varlena_to_byte_slice(pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr())) };
            memory::copy(bytes)
        })
    }

    /// A column of a type of variable length.
    pub fn value(&self, number: c_int) -> Option<Value> {
        // SAFETY: it has such a type, as above.
        self.get(number).map(|datum| unsafe { Value::new(datum) })
    }

    /// A column of the type `oid`.
    pub fn oid(&self, number: c_int) -> Option<pg_sys::Oid> {
        self.get(number).map(|datum| pg_sys::Oid::from(datum.value() as u32))
    }

    /// Whether a column of the type `boolean` is true.
    pub fn is_true(&self, number: c_int) -> bool {
        self.get(number).is_some_and(|datum| datum.value() as u8 != 0)
    }

    /// The members of a column of the type `bigint[]`; none of NULL.
    pub fn numbers(&self, number: c_int) -> Vec<i64> {
        // SAFETY: it has this type, as above.
        self.get(number).and_then(|datum| unsafe { Vec::<i64>::from_datum(datum, false) }).unwrap_or_default()
    }
}

/// A connection, for the time of a call.
pub struct Connection {
    /// What is made for one statement and its result.
    memory: pg_sys::MemoryContext,
    /// The last array that was expanded.
    expanded: pg_sys::MemoryContext,
}

impl Connection {
    /// Connects. What is made from then on lives until the connection is closed, or shorter.
    pub fn open() -> Self {
        // SAFETY: a function is called in a transaction. The connection has a memory context of its own, which is current then.
        unsafe {
            pg_sys::SPI_connect();
            let connection = pg_sys::CurrentMemoryContext;
            let [memory, expanded] = [c"bemi statement", c"bemi array"].map(|name| {
                pg_sys::AllocSetContextCreateInternal(
                    connection,
                    name.as_ptr(),
                    pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                    pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                    pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
                )
            });
            pg_sys::MemoryContextSwitchTo(memory);
            Self { memory, expanded }
        }
    }

    /// Disconnects, and makes the memory context current that was before.
    pub fn close(self) {
        // SAFETY: it is connected: there is no other way to have one.
        unsafe { pg_sys::SPI_finish() };
    }

    /// Prepares a statement.
    pub fn prepare(&self, text: &str, types: &[pg_sys::Oid]) -> Statement {
        let mut types = types.to_vec();
        let text = CString::new(text).unwrap_or_default();
        // SAFETY: connected; the server copies the text and the types.
        let plan = unsafe {
            let plan = pg_sys::SPI_prepare(text.as_ptr(), types.len() as c_int, types.as_mut_ptr());
            pg_sys::MemoryContextSwitchTo(self.memory);
            plan
        };
        if plan.is_null() {
            failed(&text);
        }
        Statement(plan)
    }

    /// Runs a statement without parameters, and returns what `read` makes of its only row.
    pub fn one<R>(&self, text: &str, read: impl FnMut(&Row) -> R) -> Option<R> {
        // SAFETY: it has no parameters.
        unsafe { self.prepare(text, &[]).all(self, &[], read) }.pop()
    }

    /// Runs a statement.
    pub fn run(&self, text: &str) {
        self.one(text, |_| ());
    }

    /// A copy of an array that functions take without another copy. It lives until there is the next one.
    pub fn expanded(&self, array: pg_sys::Datum) -> pg_sys::Datum {
        // SAFETY: only callers of this function use the copy before, and they have made a new array; the copy is made from one
        // of [`array`], and those who get it may only read it.
        unsafe {
            pg_sys::MemoryContextReset(self.expanded);
            let copy = pg_sys::expand_array(array, self.expanded, core::ptr::null_mut());
            pg_sys::MakeExpandedObjectReadOnlyInternal(copy)
        }
    }
}

/// A prepared statement.
pub struct Statement(pg_sys::SPIPlanPtr);

impl Statement {
    /// Runs it, and returns what `read` makes of each row.
    ///
    /// # Safety
    /// There are as many parameters as it was prepared with, of their types, made for this statement or living longer.
    pub unsafe fn all<R>(
        &self,
        connection: &Connection,
        parameters: &[Parameter],
        mut read: impl FnMut(&Row) -> R,
    ) -> Vec<R> {
        let (mut values, nulls) = split(parameters);
        // SAFETY: the parameters fit the statement, and live until it has run. The result is freed when it is read, and with it what was made for the statement.
        unsafe {
            let code = pg_sys::SPI_execute_plan(self.0, values.as_mut_ptr(), nulls.as_ptr(), false, 0);
            if code < 0 {
                failed(c"a statement");
            }
            pg_sys::MemoryContextSwitchTo(connection.memory);
            let mut rows = Vec::new();
            read_rows(|row| {
                if rows.try_reserve(1).is_err() {
                    memory::out_of_memory();
                }
                rows.push(read(row));
            });
            pg_sys::MemoryContextReset(connection.memory);
            rows
        }
    }

    /// Opens a cursor.
    ///
    /// # Safety
    /// As [`Statement::all`]; the parameters live until the cursor is open.
    pub unsafe fn open(&self, parameters: &[Parameter]) -> pg_sys::Portal {
        let (mut values, nulls) = split(parameters);
        // SAFETY: the parameters fit the statement; the server copies them.
        unsafe {
            let memory = pg_sys::CurrentMemoryContext;
            let name = core::ptr::null();
            let portal = pg_sys::SPI_cursor_open(name, self.0, values.as_mut_ptr(), nulls.as_ptr(), false);
            pg_sys::MemoryContextSwitchTo(memory);
            portal
        }
    }
}

/// Returns what `read` makes of the next row of a cursor; None at the end.
///
/// # Safety
/// The cursor is of the connection, and open.
pub unsafe fn fetch<R>(connection: &Connection, cursor: pg_sys::Portal, mut read: impl FnMut(&Row) -> R) -> Option<R> {
    // SAFETY: the cursor is open; the result is freed as in [`Statement::all`].
    unsafe {
        pg_sys::SPI_cursor_fetch(cursor, true, 1);
        pg_sys::MemoryContextSwitchTo(connection.memory);
        let mut found = None;
        read_rows(|row| found = Some(read(row)));
        pg_sys::MemoryContextReset(connection.memory);
        found
    }
}

/// Reads the rows of the last result, and frees it.
///
/// # Safety
/// Connected, right after a statement.
unsafe fn read_rows(mut read: impl FnMut(&Row)) {
    // SAFETY: the result of a statement is null, or has as many rows as the server says, until it is freed.
    unsafe {
        let (table, count) = (pg_sys::SPI_tuptable, pg_sys::SPI_processed as usize);
        if table.is_null() {
            return;
        }
        for index in 0..count {
            read(&Row { tuple: *(*table).vals.add(index), descriptor: (*table).tupdesc });
        }
        pg_sys::SPI_freetuptable(table);
    }
}

/// An array of values of one type, in the current memory context.
pub fn array<'a>(kind: pg_sys::Oid, members: impl Iterator<Item = &'a Value>) -> pg_sys::Datum {
    let mut all = Vec::new();
    for member in members.filter_map(Value::parameter) {
        if all.try_reserve(1).is_err() {
            memory::out_of_memory();
        }
        all.push(member);
    }
    let (mut length, mut by_value, mut align) = (0, false, 0 as c_char);
    // SAFETY: the members are of the type, whose storage the catalogs have; the array has copies of them.
    pg_sys::Datum::from(unsafe {
        pg_sys::get_typlenbyvalalign(kind, &mut length, &mut by_value, &mut align);
        pg_sys::construct_array(all.as_mut_ptr(), all.len() as c_int, kind, c_int::from(length), by_value, align)
    })
}

fn split(parameters: &[Parameter]) -> (Vec<pg_sys::Datum>, Vec<c_char>) {
    let values = parameters.iter().map(|parameter| parameter.unwrap_or(pg_sys::Datum::from(0))).collect();
    let nulls = parameters.iter().map(|parameter| if parameter.is_some() { b' ' } else { b'n' } as c_char).collect();
    (values, nulls)
}

fn failed(text: &CStr) -> ! {
    error!("a statement of the extension bemi cannot be run: {}", text.to_string_lossy());
}
