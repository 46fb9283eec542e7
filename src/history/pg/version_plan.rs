//! How the images of one version of a table are read as rows of today.
use core::ffi::CStr;
use std::ffi::CString;
use std::rc::Rc;

use pgrx::pg_sys;

use super::convert::Builder;
use super::guard;
use super::home::Home;
use super::image::{Failure, Reader, sound, text_of};
use crate::history::stored_jsonb::{self, Container, Value};
use crate::history::versions::{Kind, Stop, Versions};
use crate::sys::descriptor;

/// How the images of one version are read.
pub struct Plan {
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
pub enum Problem {
    /// It is null instead.
    Unreadable(String),
    /// It is beyond what its column takes today.
    Unfit(String),
    /// It may not be what the column's statement made of it, in this version.
    Unknown(usize),
}

/// The values of a row, by the indexes of its columns.
pub struct Values {
    /// A value for each column.
    pub values: Vec<pg_sys::Datum>,
    /// Whether each is null.
    pub nulls: Vec<bool>,
}

impl Values {
    /// Returns null for each of the columns.
    pub fn new(columns: usize) -> Self {
        Self { values: vec![pg_sys::Datum::from(0); columns], nulls: vec![true; columns] }
    }
}

/// What plans are made with.
pub struct Source<'a> {
    /// The columns of today, which live as long as the home.
    pub descriptor: pg_sys::TupleDesc,
    /// All versions of the table.
    pub versions: &'a Versions,
    /// The settings of each version's statement.
    pub settings: &'a [Rc<Vec<(CString, CString)>>],
    /// Lives as long as the plan.
    pub home: Home,
}

impl Source<'_> {
    /// Makes the plan for a version; for none, if the table has none.
    pub fn plan(&self, version: Option<usize>) -> Plan {
        let mut plan = Plan { columns: Vec::new(), can_fail: false, asks_settings: false };
        // SAFETY: the descriptor lives as long as the home.
        let columns = unsafe { (*self.descriptor).natts as usize };
        for index in 0..columns {
            // SAFETY: the descriptor has as many columns.
            let column = unsafe { descriptor::column(self.descriptor, index) };
            let found = if column.attisdropped { None } else { self.column(version, column, index) };
            let Some((column, is_guess)) = found else { continue };
            plan.can_fail |= is_guess || column.reader.as_ref().is_ok_and(Reader::can_fail);
            plan.asks_settings |= column.reader.as_ref().is_ok_and(Reader::asks_settings);
            plan.columns.push(column);
        }
        plan.columns.sort_by(|one, other| (one.key.len(), &one.key).cmp(&(other.key.len(), &other.key)));
        plan
    }

    /// Returns how a column of today is read, if it was there, and whether its type then is not known.
    fn column(
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
        let builder = Builder { versions: self.versions, settings: self.settings, home: self.home };
        let reader = match &way {
            Some(way) => builder.reader(&way.stops),
            None => Ok(Reader::new(today.atttypid, self.home, None)),
        };
        let is_masked = self.versions.is_masked(number);
        let unknown = way.as_ref().and_then(|way| way.unknown);
        Some((Column { key, name, number, index, reader, is_masked, unknown }, way.is_none()))
    }
}

impl Column {
    fn is_null(&self, value: Value) -> bool {
        value == Value::Null || self.is_masked && value == Value::String(b"[masked]")
    }

    fn read(&mut self, value: Value, is_fitted: bool) -> Result<Option<pg_sys::Datum>, Failure> {
        if self.is_null(value) {
            return Ok(None);
        }
        match &mut self.reader {
            Ok(reader) => reader.read_fitted(value, is_fitted),
            Err(reason) => Err(Failure(reason.clone())),
        }
    }

    /// As [`Column::read`], behind a savepoint.
    fn read_alone(&mut self, value: Value) -> Result<(Option<pg_sys::Datum>, Option<Problem>), Problem> {
        let mut read = |is_fitted| {
            guard::data_errors(|| self.read(value, is_fitted)).and_then(|read| read.map_err(|failure| failure.0))
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

    fn show(&mut self, value: Value, out: &mut Vec<u8>) -> Result<(), Failure> {
        let is_null = self.is_null(value);
        match &mut self.reader {
            Ok(reader) if !is_null => reader.show(value, out),
            Err(reason) if value != Value::Null => Err(Failure(reason.clone())),
            _ => {
                text_of(value, out, true);
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

    /// Reads all values of an image, of which each is of the type of its column; what is null, or not there, is null. Returns what
    /// is wrong with values, by the numbers of their columns.
    pub fn read(&mut self, image: Container, row: &mut Values) -> Vec<(i16, Problem)> {
        let (can_fail, asks_settings) = (self.can_fail, self.asks_settings);
        let mut work = || {
            if !can_fail {
                return self.read_all(image, row, false);
            }
            // One savepoint for all, as long as nothing is refused.
            guard::data_errors(|| self.read_all(image, row, false)).unwrap_or_else(|_| self.read_all(image, row, true))
        };
        if asks_settings { guard::with_pinned(work) } else { work() }
    }

    fn read_all(&mut self, image: Container, row: &mut Values, is_alone: bool) -> Vec<(i16, Problem)> {
        row.nulls.fill(true);
        let mut problems = Vec::new();
        self.each(image, |column, value| {
            let Ok(column) = column else { return };
            let read = if is_alone {
                column.read_alone(value)
            } else {
                let read = column.read(value, true);
                read.map(|value| (value, None)).map_err(|failure| Problem::Unreadable(failure.0))
            };
            match read {
                Ok((Some(value), problem)) => {
                    row.values[column.index] = value;
                    row.nulls[column.index] = false;
                    problems.extend(problem.map(|problem| (column.number, problem)));
                    problems.extend(column.unknown.map(|version| (column.number, Problem::Unknown(version))));
                }
                Ok((None, _)) => {}
                Err(problem) => problems.push((column.number, problem)),
            }
        });
        problems
    }

    /// Appends the members of the image that would be recorded today. Values that cannot be read stay as they are; `is_there` says
    /// whether a name that is of no column is one of today.
    pub fn show(&mut self, image: Container, out: &mut Vec<u8>, is_there: impl Fn(&[u8]) -> bool) {
        let (can_fail, asks_settings, start) = (self.can_fail, self.asks_settings, out.len());
        let mut work = || {
            self.each(image, |column, value| {
                let key = match &column {
                    Ok(column) => &column.name[..],
                    // Another column has the name now.
                    Err(key) if is_there(key) => return,
                    Err(key) => key,
                };
                sound(stored_jsonb::push(out, if out.len() > start { b"," } else { b"" }));
                text_of(Value::String(key), out, true);
                sound(stored_jsonb::push(out, b":"));
                let start = out.len();
                let Ok(column) = column else { return text_of(value, out, true) };
                let is_risky = can_fail && column.reader.as_ref().is_ok_and(Reader::is_changed);
                let shown = if is_risky {
                    guard::data_errors(|| column.show(value, out)).map_err(Failure).and_then(|shown| shown)
                } else {
                    column.show(value, out)
                };
                if shown.is_err() {
                    out.truncate(start);
                    text_of(value, out, true);
                }
            });
        };
        if asks_settings { guard::with_pinned(work) } else { work() }
    }
}
