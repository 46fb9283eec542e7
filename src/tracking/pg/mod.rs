//! What this stage knows that SQL cannot see.
use crate::sys::lock::Part;

mod ddl;
mod functions;
mod plain;

/// The part of the extension that those lock who create tables, and those who track all tables. The recorder has 1.
const TRACKING: Part = Part { extension: c"bemi", number: 2 };
