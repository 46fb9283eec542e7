//! Nodes of the server's trees, and lists of them.
use core::ffi::CStr;

use pgrx::pg_sys;

/// Returns the members of a list of pointers.
///
/// # Safety
/// `list` is null, which is the empty list, or a list of pointers to `T`, and nobody changes it while the iterator is
/// in use.
pub unsafe fn members<T>(list: *const pg_sys::List) -> impl Iterator<Item = *mut T> {
    // SAFETY: a list that is not null has `length` cells at `elements`, and each cell of a list of pointers holds one.
    unsafe {
        let cells = list
            .as_ref()
            .map_or(&[][..], |list| core::slice::from_raw_parts(list.elements.cast_const(), list.length as usize));
        cells.iter().map(|cell| cell.ptr_value.cast::<T>())
    }
}

/// Returns the text of a node that is a string, as names in parse trees are.
///
/// # Safety
/// The node is such a string, and lives as long as the text.
pub unsafe fn string<'a>(node: *const pg_sys::Node) -> &'a CStr {
    #[cfg(feature = "pg14")]
    // SAFETY: on 14 a string is a Value, whose member `str` is a C string.
    unsafe {
        CStr::from_ptr((*node.cast::<pg_sys::Value>()).val.str_)
    }
    #[cfg(not(feature = "pg14"))]
    // SAFETY: a String node holds a C string.
    unsafe {
        CStr::from_ptr((*node.cast::<pg_sys::String>()).sval)
    }
}
