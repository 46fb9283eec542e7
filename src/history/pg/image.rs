//! Values of the server, of the JSON that was recorded of them. Unlike `jsonb_populate_record`, nothing that the owner of a
//! table wrote is run: domains are read as the types that they are made of, and casts are not used.
use core::ffi::{CStr, c_char};

use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::snapshot;
use crate::history::array::{self, Failure};
use crate::history::jsonb::{self, Container, Value};
use crate::sys;

/// How JSON becomes a value of a type.
enum Shape {
    Json,
    Jsonb,
    Hstore,
    /// By the type's input function.
    Text,
    Array(Box<ArrayShape>),
    Composite(Box<RowShape>),
}

struct ArrayShape {
    element: Reader,
    /// As the array has it: a domain maybe.
    element_type: pg_sys::Oid,
    length: i16,
    is_by_value: bool,
    alignment: c_char,
}

struct RowShape {
    /// In the memory context of the reader.
    descriptor: pg_sys::TupleDesc,
    columns: usize,
    /// Each column that is not dropped, its name and its index, in the order of keys of `jsonb`.
    fields: Vec<(Vec<u8>, usize, Reader)>,
}

/// Makes values of a type.
pub struct Reader {
    /// Not a domain.
    type_oid: pg_sys::Oid,
    modifier: i32,
    shape: Shape,
    input: Option<Box<Input>>,
    /// Where the reader keeps what the server allocates for it; it lives longer than the reader.
    memory: pg_sys::MemoryContext,
    /// The function of the extension that is called.
    caller: pg_sys::Oid,
}

/// The input function of a type.
struct Input {
    function: pg_sys::FmgrInfo,
    parameter: pg_sys::Oid,
}

fn fail(code: PgSqlErrorCode, message: &str) -> ! {
    ErrorReport::new(code, message.to_owned(), "bemi").report(PgLogLevel::ERROR);
    unreachable!("a report at level ERROR does not return")
}

/// The value, or an error: what is read has been checked when it was stored, so it is damaged, or there is no memory.
fn sound<T>(value: Option<T>) -> T {
    value.unwrap_or_else(|| fail(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, "an image could not be read from jsonb"))
}

impl Reader {
    /// The reader of a type, which may be a domain. An error if the type cannot be read.
    ///
    /// # Safety
    /// A transaction is active. `memory` lives at least as long as the reader. `caller` is a function of the extension.
    pub unsafe fn new(
        type_oid: pg_sys::Oid,
        modifier: i32,
        memory: pg_sys::MemoryContext,
        caller: pg_sys::Oid,
    ) -> Self {
        let mut modifier = modifier;
        // SAFETY: the functions look types up in the catalogs; types nest no deeper than the stack holds, or it is an error.
        unsafe {
            pg_sys::check_stack_depth();
            let type_oid = pg_sys::getBaseTypeAndTypmod(type_oid, &mut modifier);
            let element_type = pg_sys::get_element_type(type_oid);
            let shape = if type_oid == pg_sys::JSONOID {
                Shape::Json
            } else if type_oid == pg_sys::JSONBOID {
                Shape::Jsonb
            } else if element_type != pg_sys::InvalidOid {
                Shape::Array(Box::new(ArrayShape::new(element_type, modifier, memory, caller)))
            } else if pg_sys::get_typtype(type_oid) as u8 == pg_sys::TYPTYPE_COMPOSITE {
                Shape::Composite(Box::new(RowShape::new(type_oid, memory, caller)))
            } else if is_hstore(type_oid) {
                Shape::Hstore
            } else {
                Shape::Text
            };
            Self { type_oid, modifier, shape, input: None, memory, caller }
        }
    }

    /// The value that a JSON value stands for; None for null. It is allocated in the current memory context.
    ///
    /// # Safety
    /// The value is within a `jsonb` of the server that has a header of four bytes before it. A snapshot is active.
    pub unsafe fn read(&mut self, value: Value) -> Option<pg_sys::Datum> {
        let mut text = Vec::new();
        match (&mut self.shape, value) {
            (_, Value::Null) => return None,
            (Shape::Jsonb, value) => {
                sound(jsonb::document(&mut text, value));
                // SAFETY: the function copies as many bytes as it is told behind the header of a varlena.
                return Some(unsafe {
                    pg_sys::Datum::from(pg_sys::cstring_to_text_with_len(text.as_ptr().cast(), text.len() as i32))
                });
            }
            // SAFETY: the caller's promise.
            (Shape::Array(shape), Value::Array(array)) => return Some(unsafe { shape.read(array) }),
            // SAFETY: the caller's promise.
            (Shape::Composite(shape), Value::Object(object)) => return Some(unsafe { shape.read(object) }),
            (Shape::Array(_) | Shape::Composite(_), value) if !matches!(value, Value::String(_)) => {
                // SAFETY: the server's name of a type is a C string.
                let name = unsafe { CStr::from_ptr(pg_sys::format_type_be(self.type_oid)) }.to_string_lossy();
                let message = format!("what is recorded of a value is not of the type {name}");
                fail(PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH, &message)
            }
            (Shape::Hstore, Value::Object(object)) => {
                for member in sound(object.members()) {
                    let (key, value) = sound(member);
                    let mut inner = Vec::new();
                    // SAFETY: the caller's promise.
                    let inner = (value != Value::Null).then(|| unsafe {
                        text_of(value, &mut inner, false);
                        &inner[..]
                    });
                    sound(jsonb::hstore_pair(&mut text, key, inner));
                }
            }
            // SAFETY: the caller's promise.
            (Shape::Json, value) => unsafe { text_of(value, &mut text, true) },
            // SAFETY: the caller's promise.
            (_, value) => unsafe { text_of(value, &mut text, false) },
        }
        sound(jsonb::push(&mut text, b"\0"));
        // SAFETY: the text ends with a NUL and holds no other, as jsonb does not.
        Some(unsafe { self.input(text.as_mut_ptr().cast()) })
    }

    /// Calls the type's input function, if it runs nobody's code.
    ///
    /// # Safety
    /// `text` is a C string in the encoding of the database. A snapshot is active.
    pub unsafe fn input(&mut self, text: *mut c_char) -> pg_sys::Datum {
        // SAFETY: the caller's promise; what the function keeps is in a memory context that lives as long.
        unsafe {
            if self.input.is_none() {
                self.require_input();
                let mut input = Box::new(Input { function: Default::default(), parameter: pg_sys::InvalidOid });
                let mut function = pg_sys::InvalidOid;
                pg_sys::getTypeInputInfo(self.type_oid, &mut function, &mut input.parameter);
                pg_sys::fmgr_info_cxt(function, &mut input.function, self.memory);
                self.input = Some(input);
            }
            match &mut self.input {
                Some(input) => pg_sys::InputFunctionCall(&mut input.function, text, input.parameter, self.modifier),
                None => fail(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "a type has no input function"),
            }
        }
    }

    /// Raises an error if the input function would run somebody's code.
    ///
    /// # Safety
    /// A transaction is active.
    unsafe fn require_input(&self) {
        if self.type_oid.to_u32() < pg_sys::FirstNormalObjectId {
            return;
        }
        let Some(check) = sys::function_beside(self.caller, c"require_input", &[pg_sys::OIDOID]) else {
            error!("a function of the extension bemi is missing: require_input");
        };
        let type_oid = pg_sys::Datum::from(self.type_oid);
        // SAFETY: the function takes a type, and gives a value or an error.
        unsafe { snapshot::latest(|| pg_sys::OidFunctionCall1Coll(check, pg_sys::InvalidOid, type_oid)) };
    }
}

impl ArrayShape {
    /// # Safety
    /// As [`Reader::new`].
    unsafe fn new(
        element_type: pg_sys::Oid,
        modifier: i32,
        memory: pg_sys::MemoryContext,
        caller: pg_sys::Oid,
    ) -> Self {
        let (mut length, mut is_by_value, mut alignment) = (0, false, 0);
        // SAFETY: the caller's promise; the type is looked up in the catalogs.
        unsafe {
            pg_sys::get_typlenbyvalalign(element_type, &mut length, &mut is_by_value, &mut alignment);
            let element = Reader::new(element_type, modifier, memory, caller);
            Self { element, element_type, length, is_by_value, alignment }
        }
    }

    /// # Safety
    /// As [`Reader::read`].
    unsafe fn read(&mut self, array: Container) -> pg_sys::Datum {
        let mut members = array::members(array).unwrap_or_else(|failure| match failure {
            Failure::Damaged => sound(None),
            Failure::OutOfMemory => fail(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, "out of memory"),
            Failure::Uneven => fail(
                PgSqlErrorCode::ERRCODE_INVALID_TEXT_REPRESENTATION,
                "a recorded array has rows of different lengths",
            ),
            Failure::TooManyDimensions => {
                fail(PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED, "a recorded array has too many dimensions")
            }
        });
        let (mut values, mut nulls) = (Vec::new(), Vec::new());
        if values.try_reserve(members.values.len()).is_err() || nulls.try_reserve(members.values.len()).is_err() {
            fail(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, "out of memory");
        }
        for member in members.values {
            // SAFETY: the caller's promise.
            let value = unsafe { self.element.read(member) };
            nulls.push(value.is_none());
            values.push(value.unwrap_or(pg_sys::Datum::from(0)));
        }
        let mut lower_bounds = [1i32; 6];
        let (count, dimensions) = (members.dimensions.len() as i32, members.dimensions.as_mut_ptr());
        // SAFETY: there are as many members as the dimensions say, six of them at most, stored as the type's are.
        unsafe {
            pg_sys::Datum::from(pg_sys::construct_md_array(
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
                count,
                dimensions,
                lower_bounds.as_mut_ptr(),
                self.element_type,
                self.length.into(),
                self.is_by_value,
                self.alignment,
            ))
        }
    }
}

impl RowShape {
    /// # Safety
    /// As [`Reader::new`]; the type is a composite one.
    unsafe fn new(type_oid: pg_sys::Oid, memory: pg_sys::MemoryContext, caller: pg_sys::Oid) -> Self {
        // SAFETY: the caller's promise; the copy belongs to the memory context, which is left again.
        unsafe {
            let old = pg_sys::MemoryContextSwitchTo(memory);
            let descriptor = pg_sys::lookup_rowtype_tupdesc_copy(type_oid, -1);
            pg_sys::MemoryContextSwitchTo(old);
            let columns = (*descriptor).natts as usize;
            let mut fields = Vec::new();
            for index in 0..columns {
                let column = sys::column(descriptor, index);
                if !column.attisdropped {
                    let name = CStr::from_ptr(column.attname.data.as_ptr()).to_bytes().to_vec();
                    fields.push((name, index, Reader::new(column.atttypid, column.atttypmod, memory, caller)));
                }
            }
            fields.sort_by(|one, other| (one.0.len(), &one.0).cmp(&(other.0.len(), &other.0)));
            Self { descriptor, columns, fields }
        }
    }

    /// # Safety
    /// As [`Reader::read`].
    unsafe fn read(&mut self, object: Container) -> pg_sys::Datum {
        let mut values = vec![pg_sys::Datum::from(0); self.columns];
        let mut nulls = vec![true; self.columns];
        let mut fields = self.fields.iter_mut().peekable();
        // Both are in the same order.
        for member in sound(object.members()) {
            let (key, value) = sound(member);
            let at = (key.len(), key);
            while fields.next_if(|field| (field.0.len(), &field.0[..]) < at).is_some() {}
            let Some((_, index, reader)) = fields.next_if(|field| field.0 == key) else { continue };
            // SAFETY: the caller's promise.
            if let Some(value) = unsafe { reader.read(value) } {
                values[*index] = value;
                nulls[*index] = false;
            }
        }
        // SAFETY: there are as many values as the row has columns, each of the type of its column.
        unsafe {
            let tuple = pg_sys::heap_form_tuple(self.descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
            pg_sys::HeapTupleHeaderGetDatum((*tuple).t_data)
        }
    }
}

/// Appends the text of a value: that of JSON, or that of what it stands for.
///
/// # Safety
/// As [`Reader::read`].
unsafe fn text_of(value: Value, text: &mut Vec<u8>, is_json: bool) {
    sound(match value {
        Value::Null => jsonb::push(text, b"null"),
        Value::Boolean(value) => jsonb::push(text, if value { b"true" } else { b"false" }),
        Value::Number(stored) => jsonb::number_text(text, stored),
        Value::String(value) if !is_json => jsonb::push(text, value),
        Value::String(_) => {
            // A document of its own, in memory that begins where its numbers would have to.
            let mut document = Vec::new();
            sound(jsonb::document(&mut document, value));
            let mut aligned: Vec<u32> = Vec::new();
            sound(aligned.try_reserve(document.len().div_ceil(4)).ok());
            aligned.resize(document.len().div_ceil(4), 0);
            let start: *mut u8 = aligned.as_mut_ptr().cast();
            // SAFETY: there is room for the bytes of the document.
            unsafe {
                core::ptr::copy_nonoverlapping(document.as_ptr(), start, document.len());
                container_text(start.cast(), document.len(), text)
            }
        }
        // SAFETY: the caller's promise; a container within a jsonb begins at a multiple of four.
        Value::Array(Container(stored)) | Value::Object(Container(stored)) => unsafe {
            container_text(stored.as_ptr().cast_mut().cast(), stored.len(), text)
        },
    });
}

/// Appends the text of a container.
///
/// # Safety
/// The container is aligned, and as long as `length` says.
unsafe fn container_text(container: *mut pg_sys::JsonbContainer, length: usize, text: &mut Vec<u8>) -> Option<()> {
    // SAFETY: the caller's promise; the result is a new C string.
    unsafe {
        let written = pg_sys::JsonbToCString(core::ptr::null_mut(), container, i32::try_from(length).ok()?);
        jsonb::push(text, CStr::from_ptr(written).to_bytes())?;
        pg_sys::pfree(written.cast());
        Some(())
    }
}

/// Whether a type is that of the extension hstore, which is recorded as its cast to json has it.
fn is_hstore(type_oid: pg_sys::Oid) -> bool {
    if type_oid.to_u32() < pg_sys::FirstNormalObjectId {
        return false;
    }
    // SAFETY: the functions look the type and the extension up in the catalogs.
    unsafe {
        let extension = pg_sys::get_extension_oid(c"hstore".as_ptr(), true);
        extension != pg_sys::InvalidOid
            && pg_sys::get_typtype(type_oid) as u8 == pg_sys::TYPTYPE_BASE
            && pg_sys::getExtensionOfObject(pg_sys::TypeRelationId, type_oid) == extension
            && CStr::from_ptr(pg_sys::format_type_be(type_oid)).to_bytes().ends_with(b"hstore")
    }
}
