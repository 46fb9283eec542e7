//! The labels of enums, which may have had other names.
use core::ffi::CStr;
use std::collections::HashMap;
use std::ffi::CString;

use pgrx::pg_sys;

use super::image::Failure;
use crate::history::range;
use crate::history::versions::Types;

/// Labels of an enum, as they were called, with their OIDs and what they are called today; None if they are gone.
pub type Labels = HashMap<Vec<u8>, Option<(u32, Vec<u8>)>>;

/// Returns why a label that is gone cannot be read.
pub fn gone(label: &[u8]) -> Failure {
    Failure(format!("the label \"{}\" is gone", String::from_utf8_lossy(label)))
}

/// Returns the OID of a label of today.
pub fn label_today(type_oid: pg_sys::Oid, label: &[u8]) -> Result<u32, Failure> {
    let Ok(name) = CString::new(label) else { return Err(gone(label)) };
    if name.as_bytes().len() >= pg_sys::NAMEDATALEN as usize {
        return Err(gone(label));
    }
    // SAFETY: the keys are the OID of a type and a C string that is no longer than a name.
    let oid = unsafe {
        pg_sys::GetSysCacheOid(
            pg_sys::SysCacheIdentifier::ENUMTYPOIDNAME as i32,
            pg_sys::Anum_pg_enum_oid as pg_sys::AttrNumber,
            pg_sys::Datum::from(type_oid),
            pg_sys::Datum::from(name.as_ptr()),
            pg_sys::Datum::from(0),
            pg_sys::Datum::from(0),
        )
    };
    if oid == pg_sys::InvalidOid { Err(gone(label)) } else { Ok(oid.to_u32()) }
}

/// Returns what a label is called today; None if it is gone.
fn label_name(oid: u32) -> Option<Vec<u8>> {
    let none = pg_sys::Datum::from(0);
    let mut is_null = false;
    // SAFETY: looks a label up in the catalogs; the name, a C string in an array, is copied before the entry is released.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::ENUMOID as i32;
        let tuple = pg_sys::SearchSysCache(cache, pg_sys::Datum::from(oid), none, none, none);
        if tuple.is_null() {
            return None;
        }
        let number = pg_sys::Anum_pg_enum_enumlabel as pg_sys::AttrNumber;
        let name = pg_sys::SysCacheGetAttr(cache, tuple, number, &mut is_null);
        let name = CStr::from_ptr(name.cast_mut_ptr()).to_bytes().to_vec();
        pg_sys::ReleaseSysCache(tuple);
        Some(name)
    }
}

/// Returns the labels of an enum as they were called then, and whether any has another name today.
pub fn labels(type_oid: pg_sys::Oid, then: Option<&Types>) -> (Labels, bool) {
    let mut is_changed = false;
    let mut found = Labels::new();
    for (oid, label) in then.and_then(|then| then.labels(type_oid.to_u32())).unwrap_or_default() {
        let today = label_name(*oid).map(|name| (*oid, name));
        is_changed |= today.as_ref().is_none_or(|(_, name)| name != label);
        found.insert(label.clone(), today);
    }
    (found, is_changed)
}

/// Returns the text of a range of labels, with those of today.
pub fn bounds_today(labels: &Labels, type_oid: pg_sys::Oid, text: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut missing = None;
    let translated = range::with_bounds(text, |label| match labels.get(label) {
        Some(Some((_, name))) => Some(name.clone()),
        Some(None) => {
            missing = Some(gone(label));
            None
        }
        None => Some(label.to_vec()),
    });
    translated.ok_or_else(|| {
        missing.unwrap_or_else(|| Failure(format!("what is recorded is not of the type {}", type_name(type_oid))))
    })
}

/// Returns the name of a type, as SQL has it.
pub fn type_name(type_oid: pg_sys::Oid) -> String {
    // SAFETY: looks the type up in the catalogs; the server's name of one, which may be gone, is a C string.
    unsafe { CStr::from_ptr(pg_sys::format_type_be(type_oid)) }.to_string_lossy().into_owned()
}

/// Returns the enum of which a type is a range or a multirange.
pub fn subtype(type_oid: pg_sys::Oid, kind: u8) -> Option<pg_sys::Oid> {
    // SAFETY: looks types up in the catalogs.
    unsafe {
        let range = match kind {
            pg_sys::TYPTYPE_RANGE => type_oid,
            pg_sys::TYPTYPE_MULTIRANGE => pg_sys::get_multirange_range(type_oid),
            _ => return None,
        };
        let found = pg_sys::getBaseType(pg_sys::get_range_subtype(range));
        (pg_sys::get_typtype(found) as u8 == pg_sys::TYPTYPE_ENUM).then_some(found)
    }
}
