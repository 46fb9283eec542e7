//! Images of the rows of a table, read as its rows of today. What it was like is looked up once for a statement.
use core::ffi::{CStr, c_int};
use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::rc::Rc;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::convert::Builder;
use super::image::{Failure, Reader, sound, text_of};
use super::{guard, snapshot};
use crate::history::jsonb::{self, Container, Value};
use crate::history::versions::{Kind, Stop, Versions};
use crate::sys::{arguments, catalog, descriptor, encoding};

/// How many definitions have changed that this process heard of.
static CHANGES: AtomicU64 = AtomicU64::new(0);

/// A table whose images are read.
pub struct Table {
    /// In the memory context of the table.
    descriptor: pg_sys::TupleDesc,
    columns: usize,
    versions: Versions,
    /// The settings of each version's statement.
    settings: Vec<Rc<Vec<(CString, CString)>>>,
    /// How images of a version are read; of no version, if the table has none.
    plans: HashMap<Option<usize>, Plan>,
    /// What was told already.
    told: HashSet<(i16, Option<usize>)>,
    values: Vec<pg_sys::Datum>,
    nulls: Vec<bool>,
    memory: pg_sys::MemoryContext,
    caller: pg_sys::Oid,
    changes: u64,
}

/// How the images of one version are read.
struct Plan {
    /// In the order of keys of `jsonb`.
    columns: Vec<Column>,
    can_fail: bool,
    asks_settings: bool,
}

struct Column {
    /// Its name then.
    key: Vec<u8>,
    name: Vec<u8>,
    number: i16,
    index: usize,
    /// Or why it cannot be read.
    reader: Result<Reader, String>,
    is_masked: bool,
    /// The version whose statement changed values nobody knows how.
    unknown: Option<usize>,
}

/// What is wrong with a value.
enum Problem {
    /// It is null instead.
    Unreadable(String),
    /// It is beyond what its column takes today.
    Unfit(String),
    /// It may not be what the column's statement made of it, in this version.
    Unknown(usize),
}

impl Column {
    /// # Safety
    /// As [`Reader::read`].
    unsafe fn read(&mut self, value: Value, is_fitted: bool) -> Result<Option<pg_sys::Datum>, Failure> {
        if value == Value::Null || self.is_masked && value == Value::String(b"[masked]") {
            return Ok(None);
        }
        match &mut self.reader {
            // SAFETY: the caller's promise.
            Ok(reader) => unsafe { reader.read_fitted(value, is_fitted) },
            Err(reason) => Err(Failure(reason.clone())),
        }
    }

    /// # Safety
    /// As [`Reader::show`].
    unsafe fn show(&mut self, value: Value, out: &mut Vec<u8>) -> Result<(), Failure> {
        match &mut self.reader {
            // SAFETY: the caller's promise.
            Ok(reader) if value != Value::Null && !(self.is_masked && value == Value::String(b"[masked]")) => unsafe {
                reader.show(value, out)
            },
            Err(reason) if value != Value::Null => Err(Failure(reason.clone())),
            _ => {
                // SAFETY: the caller's promise.
                unsafe { text_of(value, out, true) };
                Ok(())
            }
        }
    }
}

impl Plan {
    /// Calls something for each column and its value in an image, and for members that are of no column.
    fn each(&mut self, image: Container, mut call: impl FnMut(Result<&mut Column, &[u8]>, Value)) {
        let mut columns = self.columns.iter_mut().peekable();
        // Both are in the same order.
        for member in sound(image.members()) {
            let (key, value) = sound(member);
            let at = (key.len(), key);
            while columns.next_if(|column| (column.key.len(), &column.key[..]) < at).is_some() {}
            call(columns.next_if(|column| column.key == key).ok_or(key), value);
        }
    }
}

impl Table {
    /// The table of a row type, with all its versions.
    ///
    /// # Safety
    /// A transaction is active. `parent` lives at least as long as the table. `caller` is a function of the extension.
    pub unsafe fn new(row_type: pg_sys::Oid, parent: pg_sys::MemoryContext, caller: pg_sys::Oid) -> Self {
        watch();
        let changes = CHANGES.load(Ordering::Relaxed);
        // SAFETY: the caller's promise; the descriptor is copied into a memory context of the table's own.
        unsafe {
            let memory = pg_sys::AllocSetContextCreateInternal(
                parent,
                c"bemi images".as_ptr(),
                pg_sys::ALLOCSET_SMALL_MINSIZE as usize,
                pg_sys::ALLOCSET_SMALL_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            );
            let old = pg_sys::MemoryContextSwitchTo(memory);
            let descriptor = pg_sys::lookup_rowtype_tupdesc_copy(row_type, -1);
            pg_sys::MemoryContextSwitchTo(old);
            let columns = (*descriptor).natts as usize;
            let versions = versions(pg_sys::get_typ_typrelid(row_type), caller);
            let c_string = |text: &[u8]| CString::new(text).unwrap_or_default();
            let settings = |list: &Vec<(Vec<u8>, Vec<u8>)>| {
                Rc::new(list.iter().map(|(name, value)| (c_string(name), c_string(value))).collect())
            };
            Self {
                descriptor,
                columns,
                settings: versions.all.iter().map(|version| settings(&version.settings)).collect(),
                versions,
                plans: HashMap::new(),
                told: HashSet::new(),
                values: vec![pg_sys::Datum::from(0); columns],
                nulls: vec![true; columns],
                memory,
                caller,
                changes,
            }
        }
    }

    /// Whether anything was defined otherwise since.
    pub fn is_old(&self) -> bool {
        self.changes != CHANGES.load(Ordering::Relaxed)
    }

    /// Frees what the server allocated for the table.
    ///
    /// # Safety
    /// Nothing that the table gave is used any more.
    pub unsafe fn free(self) {
        // SAFETY: the caller's promise; the memory context is the table's own.
        unsafe { pg_sys::MemoryContextDelete(self.memory) };
    }

    /// How what was recorded at a position of the log is read.
    ///
    /// # Safety
    /// A transaction is active.
    unsafe fn require_plan(&mut self, position: i64) -> Option<usize> {
        let version = self.versions.at(position);
        if !self.plans.contains_key(&version) {
            // SAFETY: the caller's promise.
            let plan = unsafe { self.plan(version) };
            self.plans.insert(version, plan);
        }
        version
    }

    /// # Safety
    /// A transaction is active.
    unsafe fn plan(&self, version: Option<usize>) -> Plan {
        let mut plan = Plan { columns: Vec::new(), can_fail: false, asks_settings: false };
        for index in 0..self.columns {
            // SAFETY: the descriptor has as many columns; the caller's promise.
            let found = unsafe {
                let column = descriptor::column(self.descriptor, index);
                if column.attisdropped { None } else { self.column(version, column, index) }
            };
            let Some((column, is_guess)) = found else { continue };
            plan.can_fail |= is_guess || column.reader.as_ref().is_ok_and(Reader::can_fail);
            plan.asks_settings |= column.reader.as_ref().is_ok_and(Reader::asks_settings);
            plan.columns.push(column);
        }
        plan.columns.sort_by(|one, other| (one.key.len(), &one.key).cmp(&(other.key.len(), &other.key)));
        plan
    }

    /// How a column of today is read, if it was there, and whether its type then is not known.
    ///
    /// # Safety
    /// A transaction is active.
    unsafe fn column(
        &self,
        version: Option<usize>,
        today: &pg_sys::FormData_pg_attribute,
        index: usize,
    ) -> Option<(Column, bool)> {
        let number = today.attnum;
        // SAFETY: a name is a C string in an array.
        let name = unsafe { CStr::from_ptr(today.attname.data.as_ptr()) }.to_bytes().to_vec();
        let key = match version.and_then(|version| self.versions.all.get(version)) {
            Some(version) => version.columns.get(&number)?.clone(),
            None => name.clone(),
        };
        let mut way = version.and_then(|version| self.versions.way(number, version));
        let kind = Kind { oid: today.atttypid.to_u32(), modifier: today.atttypmod };
        if let (Some(way), Some(last)) = (&mut way, self.versions.all.len().checked_sub(1))
            && way.stops.last().is_some_and(|stop| stop.kind != kind)
        {
            way.stops.push(Stop { kind, is_explicit: false, version: last });
            way.unknown = Some(last);
        }
        let builder =
            Builder { versions: &self.versions, settings: &self.settings, memory: self.memory, caller: self.caller };
        // SAFETY: the caller's promise; the memory context lives as long as the table.
        let reader = unsafe {
            match &way {
                Some(way) => builder.reader(&way.stops),
                None => Ok(Reader::new(today.atttypid, self.memory, self.caller, None)),
            }
        };
        let is_masked = self.versions.is_masked(number);
        let unknown = way.as_ref().and_then(|way| way.unknown);
        Some((Column { key, name, number, index, reader, is_masked, unknown }, way.is_none()))
    }

    /// The row of today that an image is.
    ///
    /// # Safety
    /// The image is a `jsonb` of the server with a header of four bytes before it. A snapshot is active.
    pub unsafe fn row(&mut self, position: i64, image: Container) -> pg_sys::Datum {
        // SAFETY: the caller's promise; there are as many values as the row has columns, each of the type of its column.
        unsafe {
            let problems = self.read(position, image);
            if !problems.is_empty() {
                let version = self.versions.at(position);
                self.tell(version, position, &problems);
            }
            let (values, nulls) = (self.values.as_mut_ptr(), self.nulls.as_mut_ptr());
            let tuple = pg_sys::heap_form_tuple(self.descriptor, values, nulls);
            pg_sys::HeapTupleHeaderGetDatum((*tuple).t_data)
        }
    }

    /// What is wrong with values of an image, as JSON: reasons by the names of columns. None if all of it is exact.
    ///
    /// # Safety
    /// As [`Table::row`].
    pub unsafe fn problems(&mut self, position: i64, image: Container) -> Option<Vec<u8>> {
        // SAFETY: the caller's promise.
        let problems = unsafe { self.read(position, image) };
        let mut out = b"{".to_vec();
        for (index, (number, problem)) in problems.iter().enumerate() {
            sound(jsonb::push(&mut out, if index > 0 { b"," } else { b"" }));
            let name = self.versions.today.get(number).cloned().unwrap_or_default();
            let reason = self.reason(problem);
            let reason = encoding::from_utf8(&reason);
            // SAFETY: strings are no part of a container.
            unsafe {
                text_of(Value::String(&name), &mut out, true);
                sound(jsonb::push(&mut out, b":"));
                text_of(Value::String(&reason), &mut out, true);
            }
        }
        sound(jsonb::push(&mut out, b"}"));
        (!problems.is_empty()).then_some(out)
    }

    fn reason(&self, problem: &Problem) -> String {
        match problem {
            Problem::Unreadable(reason) | Problem::Unfit(reason) => reason.clone(),
            Problem::Unknown(version) => {
                format!("the column was rewritten at {}", self.time_of(*version))
            }
        }
    }

    fn time_of(&self, version: usize) -> String {
        let at = self.versions.all.get(version).map(|version| String::from_utf8_lossy(&version.at).into_owned());
        at.unwrap_or_default()
    }

    /// Reads all values of an image; what is null, or not there, is null.
    ///
    /// # Safety
    /// As [`Table::row`].
    unsafe fn read(&mut self, position: i64, image: Container) -> Vec<(i16, Problem)> {
        // SAFETY: the caller's promise.
        let version = unsafe { self.require_plan(position) };
        let (values, nulls) = (&mut self.values, &mut self.nulls);
        let mut problems = Vec::new();
        let Some(plan) = self.plans.get_mut(&version) else { return problems };
        let (can_fail, asks_settings) = (plan.can_fail, plan.asks_settings);
        let all = |values: &mut [pg_sys::Datum], nulls: &mut [bool], is_alone: bool, plan: &mut Plan| {
            nulls.fill(true);
            let mut problems = Vec::new();
            plan.each(image, |column, value| {
                let Ok(column) = column else { return };
                // SAFETY: the caller's promise.
                match unsafe { read_one(column, value, is_alone) } {
                    Ok((Some(value), problem)) => {
                        values[column.index] = value;
                        nulls[column.index] = false;
                        problems.extend(problem.map(|problem| (column.number, problem)));
                        problems.extend(column.unknown.map(|version| (column.number, Problem::Unknown(version))));
                    }
                    Ok((None, _)) => {}
                    Err(problem) => problems.push((column.number, problem)),
                }
            });
            problems
        };
        // SAFETY: the caller's promise.
        unsafe {
            let mut work = || {
                if !can_fail {
                    return all(values, nulls, false, plan);
                }
                // One savepoint for all, as long as nothing is refused.
                guard::data_errors(|| all(values, nulls, false, plan))
                    .unwrap_or_else(|_| all(values, nulls, true, plan))
            };
            problems.extend(if asks_settings { guard::with_pinned(work) } else { work() });
        }
        problems
    }

    /// The image that would be recorded today, as JSON text. Values that cannot be read stay as they are.
    ///
    /// # Safety
    /// As [`Table::row`].
    pub unsafe fn today(&mut self, position: i64, image: Container) -> Vec<u8> {
        // SAFETY: the caller's promise.
        let version = unsafe { self.require_plan(position) };
        let mut out = b"{".to_vec();
        let Some(plan) = self.plans.get_mut(&version) else { return out };
        let (can_fail, asks_settings) = (plan.can_fail, plan.asks_settings);
        let today = &self.versions.today;
        let mut work = || {
            plan.each(image, |column, value| {
                let key = match &column {
                    Ok(column) => &column.name[..],
                    // Another column has the name now.
                    Err(key) if today.values().any(|name| name == key) => return,
                    Err(key) => key,
                };
                let separator = if out.len() > 1 { &b","[..] } else { b"" };
                sound(jsonb::push(&mut out, separator));
                // SAFETY: a string is no part of a container; the caller's promise.
                unsafe {
                    text_of(Value::String(key), &mut out, true);
                    sound(jsonb::push(&mut out, b":"));
                    let start = out.len();
                    let Ok(column) = column else { return text_of(value, &mut out, true) };
                    let is_risky = can_fail && column.reader.as_ref().is_ok_and(Reader::is_changed);
                    let shown = if is_risky {
                        guard::data_errors(|| column.show(value, &mut out)).map_err(Failure).and_then(|shown| shown)
                    } else {
                        column.show(value, &mut out)
                    };
                    if shown.is_err() {
                        out.truncate(start);
                        text_of(value, &mut out, true);
                    }
                }
            });
        };
        if asks_settings {
            // SAFETY: the caller's promise.
            unsafe { guard::with_pinned(work) }
        } else {
            work()
        }
        sound(jsonb::push(&mut out, b"}"));
        out
    }

    /// Tells what is wrong with values, once for each column and version.
    ///
    /// # Safety
    /// A transaction is active.
    unsafe fn tell(&mut self, version: Option<usize>, position: i64, problems: &[(i16, Problem)]) {
        for (number, problem) in problems {
            if !self.told.insert((*number, version)) {
                continue;
            }
            let column = self.versions.today.get(number).map(|name| String::from_utf8_lossy(name).into_owned());
            let (column, table) = (column.unwrap_or_default(), String::from_utf8_lossy(&self.versions.name));
            // SAFETY: the caller's promise.
            let time = || unsafe { time_at(position, self.caller) };
            match problem {
                Problem::Unreadable(reason) => notice!(
                    "the column {column} of {table} is null where its value cannot be read, as what was recorded at {}: {reason}",
                    time()
                ),
                Problem::Unfit(reason) => notice!(
                    "the column {column} of {table} is shown as it was where it does not fit its type, as what was recorded at {}: {reason}",
                    time()
                ),
                Problem::Unknown(version) => notice!(
                    "the column {column} of {table} was rewritten at {}: what was recorded before is shown as a cast makes it, which may be something else",
                    self.time_of(*version)
                ),
            }
        }
    }
}

/// Reads one value, behind a savepoint if it is read by itself.
///
/// # Safety
/// As [`Reader::read`].
unsafe fn read_one(
    column: &mut Column,
    value: Value,
    is_alone: bool,
) -> Result<(Option<pg_sys::Datum>, Option<Problem>), Problem> {
    // SAFETY: the caller's promise.
    unsafe {
        if !is_alone {
            let read = column.read(value, true);
            return read.map(|value| (value, None)).map_err(|failure| Problem::Unreadable(failure.0));
        }
        let mut read = |is_fitted| {
            guard::data_errors(|| column.read(value, is_fitted)).and_then(|read| read.map_err(|failure| failure.0))
        };
        match read(true) {
            Ok(value) => Ok((value, None)),
            // Without what fits it to a modifier, it may be read.
            Err(reason) => match read(false) {
                Ok(value) => Ok((value, Some(Problem::Unfit(reason)))),
                Err(reason) => Err(Problem::Unreadable(reason)),
            },
        }
    }
}

/// When a change was made that has a position in the log, as text.
///
/// # Safety
/// A transaction is active. `caller` is a function of the extension.
unsafe fn time_at(position: i64, caller: pg_sys::Oid) -> String {
    let Some(function) = catalog::function_beside(caller, c"time_at", &[pg_sys::INT8OID]) else { return String::new() };
    // SAFETY: the function takes a position, and gives a text.
    let time = unsafe {
        let position = pg_sys::Datum::from(position);
        arguments::bytes(snapshot::latest(|| pg_sys::OidFunctionCall1Coll(function, pg_sys::InvalidOid, position)))
    };
    String::from_utf8_lossy(&time).into_owned()
}

/// What a table was like.
///
/// # Safety
/// A transaction is active. `caller` is a function of the extension.
unsafe fn versions(relation: pg_sys::Oid, caller: pg_sys::Oid) -> Versions {
    let Some(function) = catalog::function_beside(caller, c"versions_of", &[pg_sys::OIDOID]) else {
        error!("a function of the extension bemi is missing: versions_of");
    };
    // SAFETY: the function takes a relation, and gives a jsonb, which has a header of four bytes when it is detoasted.
    let document = unsafe {
        let relation = pg_sys::Datum::from(relation);
        let found = snapshot::latest(|| pg_sys::OidFunctionCall1Coll(function, pg_sys::InvalidOid, relation));
        let document = pg_sys::pg_detoast_datum(found.cast_mut_ptr());
        pgrx::varlena::varlena_to_byte_slice(document)
    };
    match jsonb::root(document) {
        Some(Value::Object(document)) => sound(Versions::parse(document)),
        _ => sound(None),
    }
}

/// Has changes of definitions counted from now on.
fn watch() {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        use pg_sys::SysCacheIdentifier::{ENUMOID, TYPEOID};
        let none = pg_sys::Datum::from(0);
        // SAFETY: the callbacks are guarded and take no argument.
        unsafe {
            pg_sys::CacheRegisterRelcacheCallback(Some(relation_changed), none);
            pg_sys::CacheRegisterSyscacheCallback(ENUMOID as c_int, Some(type_changed), none);
            pg_sys::CacheRegisterSyscacheCallback(TYPEOID as c_int, Some(type_changed), none);
        }
    });
}

#[pg_guard]
unsafe extern "C-unwind" fn relation_changed(_argument: pg_sys::Datum, _relation: pg_sys::Oid) {
    CHANGES.fetch_add(1, Ordering::Relaxed);
}

#[pg_guard]
unsafe extern "C-unwind" fn type_changed(_argument: pg_sys::Datum, _cache: c_int, _hash: u32) {
    CHANGES.fetch_add(1, Ordering::Relaxed);
}
