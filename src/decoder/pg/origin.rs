//! Replication origins: where changes come from that were replicated to this server.
use core::ffi::CStr;
use std::collections::HashMap;

use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::document::json::{Charset, quoted};
use crate::sys::encoding;

/// The number of no origin: the change was made here.
pub const LOCAL: u16 = 0;
/// The number that keeps changes from being replicated (replication/origin.h): the recorder's own rows have it.
pub const RECORDER: u16 = pg_sys::DoNotReplicateId as u16;

/// The origins whose changes are dropped.
#[derive(Debug, Default)]
pub struct Filter {
    /// All but the changes made here.
    only_local: bool,
    numbers: Vec<u16>,
}

impl Filter {
    /// Looks origins up, by number or name, in a transaction. Raises an error for an unknown name.
    pub fn new(only_local: bool, origins: &[String]) -> Self {
        Self { only_local, numbers: origins.iter().map(|origin| number(origin)).collect() }
    }

    /// Whether any are dropped.
    pub fn is_needed(&self) -> bool {
        self.only_local || !self.numbers.is_empty()
    }

    /// Whether the changes of an origin are dropped.
    pub fn drops(&self, origin: u16) -> bool {
        self.only_local && origin != LOCAL || self.numbers.contains(&origin)
    }
}

fn number(origin: &str) -> u16 {
    let mut name = encoding::from_utf8(origin);
    name.push(0);
    // SAFETY: the name ends with a NUL, and is only read.
    let found = unsafe { pg_sys::replorigin_by_name(name.as_ptr().cast_mut().cast(), true) };
    // A number above 0 is taken even if its origin was dropped; 0 stands for no origin.
    let number = || origin.parse().unwrap_or(LOCAL);
    let found = if found == LOCAL { number() } else { found };
    if found == LOCAL {
        let message = format!("replication origin \"{origin}\" of the option \"filter-origins\" does not exist");
        ErrorReport::new(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, encoding::message_text(&message), "number")
            .set_hint("See pg_replication_origin. A number above 0 is accepted even if no origin has it.")
            .report(PgLogLevel::ERROR);
    }
    found
}

/// The names of origins that were asked for, as JSON.
#[derive(Debug)]
pub struct Names {
    known: HashMap<u16, Vec<u8>>,
    charset: Charset,
}

impl Names {
    /// Begins with none.
    pub fn new(charset: Charset) -> Self {
        Self { known: HashMap::new(), charset }
    }

    /// Forgets them, since an origin may be dropped and its number given to another one.
    pub fn clear(&mut self) {
        self.known.clear();
    }

    /// Returns the name of an origin: a JSON string, the number of one that was dropped, null for none. Reads the catalogs.
    pub fn get(&mut self, origin: u16) -> &[u8] {
        let charset = self.charset;
        self.known.entry(origin).or_insert_with(|| {
            let mut name = core::ptr::null_mut();
            if origin == LOCAL {
                return b"null".to_vec();
            }
            // SAFETY: looks the origin up; the pointer is to a local, and a name that is found is a C string.
            unsafe {
                if pg_sys::replorigin_by_oid(origin, true, &mut name) && !name.is_null() {
                    quoted(&encoding::to_utf8_lossy(CStr::from_ptr(name).to_bytes()), charset)
                } else {
                    origin.to_string().into_bytes()
                }
            }
        })
    }
}
