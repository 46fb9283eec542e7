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
/// The number of what is not to be replicated (replication/origin.h), as the recorder's own rows are not.
pub const RECORDER: u16 = pg_sys::DoNotReplicateId as u16;

/// The origins whose changes are dropped.
#[derive(Debug, Default)]
pub struct Filter {
    /// Those of all.
    only_local: bool,
    numbers: Vec<u16>,
}

impl Filter {
    /// Looks origins up, by number or name; it takes a transaction. Raises an error if there is none of a name.
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
    // A number may be that of an origin which is gone, but not that of no origin.
    let number = || origin.parse().unwrap_or(LOCAL);
    let found = if found == LOCAL { number() } else { found };
    if found == LOCAL {
        let message = format!("there is no replication origin \"{origin}\" for the option \"filter-origins\"");
        ErrorReport::new(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, encoding::message_text(&message), "number")
            .set_hint(
                "pg_replication_origin lists those that there are. A number above 0 is taken even if there is none.",
            )
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
    /// None yet.
    pub fn new(charset: Charset) -> Self {
        Self { known: HashMap::new(), charset }
    }

    /// Forgets them, since an origin may be dropped and its number given to another one.
    pub fn clear(&mut self) {
        self.known.clear();
    }

    /// The name of an origin: a JSON string, the number of one that was dropped, null for none. Reads the catalogs.
    pub fn get(&mut self, origin: u16) -> &[u8] {
        let charset = self.charset;
        self.known.entry(origin).or_insert_with(|| {
            let mut name = core::ptr::null_mut();
            if origin == LOCAL {
                return b"null".to_vec();
            }
            // SAFETY: the pointer is to a local; a name is a C string.
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
