//! The functions that the SQL of this stage calls.
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::rules::{self, Kind};
use crate::sys;
use crate::sys::arguments::{self, text_argument};

/// `bemi.rules(bytea, text)`: the arguments of a trigger that are of a kind, or `every` one with its kind.
///
/// # Safety
/// Called by the server, with arguments that are not null.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_rules(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the server's call.
    let (stored, kind) = unsafe { (text_argument(fcinfo, 0), text_argument(fcinfo, 1)) };
    let (stored, kind) = (stored.unwrap_or_default(), kind.unwrap_or_default());
    let found: Vec<&[u8]> = if kind == b"every" {
        rules::arguments(&stored).collect()
    } else {
        let Some(kind) = Kind::named(&kind) else { refuse(&kind) };
        rules::arguments(&stored).map(rules::rule).filter(|rule| rule.0 == kind).map(|rule| rule.1).collect()
    };
    arguments::text_array(&found)
}

fn refuse(kind: &[u8]) -> ! {
    let message = format!("there is no kind of rule {:?}", String::from_utf8_lossy(kind));
    ErrorReport::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message, "bemi_rules")
        .set_hint("The kinds are ignore, mask, identity, unknown and every.")
        .report(PgLogLevel::ERROR);
    unreachable!("a report at level ERROR does not return")
}

/// `bemi.library_version()`.
///
/// # Safety
/// Called by the server.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_library_version(_fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    arguments::text(env!("CARGO_PKG_VERSION").as_bytes())
}

sys::sql_callable!(pg_finfo_bemi_rules, pg_finfo_bemi_library_version);
