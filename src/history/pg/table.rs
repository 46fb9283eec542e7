//! Images of the rows of a table, read as its rows of today. What the table was like is looked up once for a statement.
use core::ffi::c_int;
use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::rc::Rc;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::home::Home;
use super::image::{sound, text_of};
use super::version_plan::{Plan, Problem, Source, Values};
use crate::history::stored_jsonb::{self, Container, Value};
use crate::history::versions::Versions;
use crate::sys::{arguments, encoding};

/// How many changes of definitions the server has reported to this process.
static CHANGES: AtomicU64 = AtomicU64::new(0);

/// A table whose images are read.
pub struct Table {
    /// Lives as long as the home.
    descriptor: pg_sys::TupleDesc,
    versions: Versions,
    /// The settings of each version's statement.
    settings: Vec<Rc<Vec<(CString, CString)>>>,
    /// How images of a version are read; of no version, if the table has none.
    plans: HashMap<Option<usize>, Plan>,
    /// Of which columns and versions a NOTICE was raised.
    noticed: HashSet<(i16, Option<usize>)>,
    row: Values,
    home: Home,
    changes: u64,
}

impl Table {
    /// Looks up the table of a row type, with all its versions, and keeps it in a child of the home.
    pub fn new(row_type: pg_sys::Oid, parent: Home) -> Self {
        watch();
        let changes = CHANGES.load(Ordering::Relaxed);
        let home = parent.child(c"bemi images");
        let descriptor = home.row_type(row_type);
        // SAFETY: the descriptor is a copy that lives as long as the home; the relation is looked up in the catalogs.
        let (columns, relation) = unsafe { ((*descriptor).natts as usize, pg_sys::get_typ_typrelid(row_type)) };
        let versions = versions(relation, home);
        let c_string = |text: &[u8]| CString::new(text).unwrap_or_default();
        let settings = |list: &Vec<(Vec<u8>, Vec<u8>)>| {
            Rc::new(list.iter().map(|(name, value)| (c_string(name), c_string(value))).collect())
        };
        Self {
            descriptor,
            settings: versions.all.iter().map(|version| settings(&version.settings)).collect(),
            versions,
            plans: HashMap::new(),
            noticed: HashSet::new(),
            row: Values::new(columns),
            home,
            changes,
        }
    }

    /// Whether a definition has changed since the table was looked up.
    pub fn is_old(&self) -> bool {
        self.changes != CHANGES.load(Ordering::Relaxed)
    }

    /// Frees what the server allocated for the table.
    pub fn free(self) {
        let home = self.home;
        drop(self);
        // SAFETY: the home is the table's own child, and the table is gone, with its plans.
        unsafe { home.free() };
    }

    /// Makes the plan for what was recorded at a position of WAL, if there is none; returns its version.
    fn require_plan(&mut self, position: i64) -> Option<usize> {
        let version = self.versions.at(position);
        if !self.plans.contains_key(&version) {
            let (versions, settings) = (&self.versions, &self.settings[..]);
            let source = Source { descriptor: self.descriptor, versions, settings, home: self.home };
            let plan = source.plan(version);
            self.plans.insert(version, plan);
        }
        version
    }

    /// Returns the row of today that an image is.
    pub fn row(&mut self, position: i64, image: Container) -> pg_sys::Datum {
        let problems = self.read(position, image);
        if !problems.is_empty() {
            let version = self.versions.at(position);
            self.notice(version, position, &problems);
        }
        // SAFETY: there are as many values as the row has columns; each that is not null was read as of its column's type.
        unsafe {
            let (values, nulls) = (self.row.values.as_mut_ptr(), self.row.nulls.as_mut_ptr());
            let tuple = pg_sys::heap_form_tuple(self.descriptor, values, nulls);
            pg_sys::HeapTupleHeaderGetDatum((*tuple).t_data)
        }
    }

    /// Returns what is wrong with values of an image, as JSON: reasons by the names of columns. None if all of it is exact.
    pub fn problems(&mut self, position: i64, image: Container) -> Option<Vec<u8>> {
        let problems = self.read(position, image);
        let mut out = b"{".to_vec();
        for (index, (number, problem)) in problems.iter().enumerate() {
            sound(stored_jsonb::push(&mut out, if index > 0 { b"," } else { b"" }));
            let name = self.versions.today.get(number).cloned().unwrap_or_default();
            let reason = encoding::from_utf8(&self.reason(problem));
            text_of(Value::String(&name), &mut out, true);
            sound(stored_jsonb::push(&mut out, b":"));
            text_of(Value::String(&reason), &mut out, true);
        }
        sound(stored_jsonb::push(&mut out, b"}"));
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
    fn read(&mut self, position: i64, image: Container) -> Vec<(i16, Problem)> {
        let version = self.require_plan(position);
        match self.plans.get_mut(&version) {
            Some(plan) => plan.read(image, &mut self.row),
            None => Vec::new(),
        }
    }

    /// Returns the image that would be recorded today, as JSON text. Values that cannot be read stay as they are.
    pub fn today(&mut self, position: i64, image: Container) -> Vec<u8> {
        let version = self.require_plan(position);
        let mut out = b"{".to_vec();
        let today = &self.versions.today;
        if let Some(plan) = self.plans.get_mut(&version) {
            plan.show(image, &mut out, |key| today.values().any(|name| name == key));
        }
        sound(stored_jsonb::push(&mut out, b"}"));
        out
    }

    /// Raises a NOTICE of what is wrong with values, once for each column and version.
    fn notice(&mut self, version: Option<usize>, position: i64, problems: &[(i16, Problem)]) {
        for (number, problem) in problems {
            if !self.noticed.insert((*number, version)) {
                continue;
            }
            let column = self.versions.today.get(number).map(|name| String::from_utf8_lossy(name).into_owned());
            let (column, table) = (column.unwrap_or_default(), String::from_utf8_lossy(&self.versions.name));
            let time = || time_at(position, self.home);
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

/// Returns when a change was made that has a position in WAL, as text.
fn time_at(position: i64, home: Home) -> String {
    if home.find(c"time_at", &[pg_sys::INT8OID]).is_none() {
        return String::new();
    }
    // SAFETY: the argument is a bigint, and the function returns a text.
    let time =
        unsafe { arguments::bytes(home.call_latest(c"time_at", &[(pg_sys::INT8OID, pg_sys::Datum::from(position))])) };
    String::from_utf8_lossy(&time).into_owned()
}

/// Returns what a table was like.
fn versions(relation: pg_sys::Oid, home: Home) -> Versions {
    // SAFETY: the argument is an OID, and the function returns a jsonb, which has a header of four bytes when it is detoasted.
    let document = unsafe {
        let found = home.call_latest(c"versions_of", &[(pg_sys::OIDOID, pg_sys::Datum::from(relation))]);
        pgrx::varlena::varlena_to_byte_slice(pg_sys::pg_detoast_datum(found.cast_mut_ptr()))
    };
    match stored_jsonb::root(document) {
        Some(Value::Object(document)) => sound(Versions::parse(document)),
        _ => sound(None),
    }
}

/// Counts changes of definitions from now on.
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
