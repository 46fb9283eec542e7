//! Values of the server, of the JSON that was recorded of them. Unlike `jsonb_populate_record`, nothing that the owner of a
//! table wrote is run: domains are read as the types that they are made of, and casts are not used.
use core::ffi::{CStr, c_char};
use std::collections::HashMap;

use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::convert::Conversion;
use super::labels::{Labels, bounds_today, gone, label_today, labels, subtype};
use super::shapes::{ArrayShape, RowShape};
use super::{guard, snapshot};
use crate::decoder::pg::shown;
use crate::history::jsonb::{self, Container, Value};
use crate::history::versions::Types;
use crate::sys::{arguments, catalog};

/// Why a value cannot be read.
#[derive(Debug)]
pub struct Failure(pub String);

impl Failure {
    /// For a reason.
    pub fn new(reason: &str) -> Self {
        Self(reason.to_owned())
    }
}

/// How JSON becomes a value of a type.
enum Shape {
    Json,
    Jsonb,
    Hstore,
    /// By the type's input function.
    Text,
    Enum(Labels),
    /// The label of an enum, which is gone or becomes another type, as text.
    Label(HashMap<Vec<u8>, Vec<u8>>),
    /// A range or multirange of an enum.
    Range(Labels),
    Array(Box<ArrayShape>),
    Composite(Box<RowShape>),
}

/// Makes values of a type.
pub struct Reader {
    /// Not a domain.
    type_oid: pg_sys::Oid,
    shape: Shape,
    input: Option<Box<Input>>,
    /// What makes values of another type of those that are read.
    conversion: Option<Box<Conversion>>,
    converted_type: pg_sys::Oid,
    /// Whether the JSON of a value would be another one today.
    is_changed: bool,
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

/// Raises an error.
pub fn fail(code: PgSqlErrorCode, message: &str) -> ! {
    ErrorReport::new(code, message.to_owned(), "bemi").report(PgLogLevel::ERROR);
    unreachable!("a report at level ERROR does not return")
}

/// The value, or an error: what is read has been checked when it was stored, so it is damaged, or there is no memory.
pub fn sound<T>(value: Option<T>) -> T {
    value.unwrap_or_else(|| fail(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, "an image could not be read from jsonb"))
}

impl Reader {
    /// The reader of a type, which may be a domain, by what types were made of when values were recorded. An error if the type
    /// cannot be read.
    ///
    /// # Safety
    /// A transaction is active. `memory` lives at least as long as the reader. `caller` is a function of the extension.
    pub unsafe fn new(
        type_oid: pg_sys::Oid,
        memory: pg_sys::MemoryContext,
        caller: pg_sys::Oid,
        then: Option<&Types>,
    ) -> Self {
        // SAFETY: the functions look types up in the catalogs; types nest no deeper than the stack holds, or it is an error.
        unsafe {
            pg_sys::check_stack_depth();
            let type_oid = pg_sys::getBaseType(type_oid);
            let element_type = pg_sys::get_element_type(type_oid);
            let kind = pg_sys::get_typtype(type_oid) as u8;
            let (shape, is_changed) = if type_oid == pg_sys::JSONOID {
                (Shape::Json, false)
            } else if type_oid == pg_sys::JSONBOID {
                (Shape::Jsonb, false)
            } else if element_type != pg_sys::InvalidOid {
                let shape = ArrayShape::new(element_type, memory, caller, then);
                let is_changed = shape.element.is_changed();
                (Shape::Array(Box::new(shape)), is_changed)
            } else if kind == pg_sys::TYPTYPE_COMPOSITE {
                let (shape, is_changed) = RowShape::new(type_oid, memory, caller, then);
                (Shape::Composite(Box::new(shape)), is_changed)
            } else if kind == pg_sys::TYPTYPE_ENUM {
                let (labels, is_changed) = labels(type_oid, then);
                (Shape::Enum(labels), is_changed)
            } else if let Some((labels, true)) = subtype(type_oid, kind).map(|oid| labels(oid, then)) {
                (Shape::Range(labels), true)
            } else if is_hstore(type_oid) {
                (Shape::Hstore, false)
            } else {
                (Shape::Text, false)
            };
            Self {
                type_oid,
                shape,
                input: None,
                conversion: None,
                converted_type: type_oid,
                is_changed,
                memory,
                caller,
            }
        }
    }

    /// Reads labels as text.
    pub fn of_labels(labels: HashMap<Vec<u8>, Vec<u8>>, memory: pg_sys::MemoryContext, caller: pg_sys::Oid) -> Self {
        let (shape, type_oid, is_changed) = (Shape::Label(labels), pg_sys::TEXTOID, true);
        Self { type_oid, shape, input: None, conversion: None, converted_type: type_oid, is_changed, memory, caller }
    }

    /// Has values of another type made of those that are read.
    pub fn convert(&mut self, conversion: Conversion, type_oid: pg_sys::Oid) {
        self.converted_type = type_oid;
        self.conversion = Some(Box::new(conversion));
        self.is_changed = true;
    }

    /// Whether values may show otherwise than they were recorded.
    pub fn is_changed(&self) -> bool {
        self.is_changed
    }

    /// Whether an old value may raise an error of the server.
    pub fn can_fail(&self) -> bool {
        self.conversion.as_ref().is_some_and(|conversion| conversion.can_fail)
            || match &self.shape {
                // The server itself may refuse softly, from 16 on.
                Shape::Text | Shape::Range(_) => {
                    self.type_oid.to_u32() >= pg_sys::FirstNormalObjectId
                        || cfg!(any(feature = "pg14", feature = "pg15")) && is_by_name(self.type_oid)
                }
                Shape::Array(shape) => shape.element.can_fail(),
                Shape::Composite(shape) => shape.fields.iter().any(|field| field.reader.can_fail()),
                _ => false,
            }
    }

    /// Whether reading text depends on settings.
    pub fn asks_settings(&self) -> bool {
        match &self.shape {
            Shape::Text | Shape::Range(_) => {
                self.type_oid.to_u32() >= pg_sys::FirstNormalObjectId
                    || is_by_name(self.type_oid)
                    || matches!(self.type_oid, pg_sys::XMLOID | pg_sys::MONEYOID)
            }
            Shape::Array(shape) => shape.element.asks_settings(),
            Shape::Composite(shape) => shape.fields.iter().any(|field| field.reader.asks_settings()),
            _ => false,
        }
    }

    /// The value that a JSON value stands for; None for null. It is allocated in the current memory context.
    ///
    /// # Safety
    /// The value is within a `jsonb` of the server that has a header of four bytes before it. A snapshot is active.
    pub unsafe fn read(&mut self, value: Value) -> Result<Option<pg_sys::Datum>, Failure> {
        // SAFETY: the caller's promise.
        unsafe { self.read_fitted(value, true) }
    }

    /// As [`Reader::read`]; a value may be beyond the modifier of a column, if that is wanted.
    ///
    /// # Safety
    /// As [`Reader::read`].
    pub unsafe fn read_fitted(&mut self, value: Value, is_fitted: bool) -> Result<Option<pg_sys::Datum>, Failure> {
        // SAFETY: the caller's promise.
        unsafe {
            match (self.recorded(value)?, &mut self.conversion) {
                (Some(value), Some(conversion)) => conversion.run(value, is_fitted).map(Some),
                (value, _) => Ok(value),
            }
        }
    }

    /// # Safety
    /// As [`Reader::read`].
    unsafe fn recorded(&mut self, value: Value) -> Result<Option<pg_sys::Datum>, Failure> {
        if let (Shape::Text, Some(value)) = (&self.shape, plain(self.type_oid, value)) {
            return Ok(Some(value));
        }
        let mut text = Vec::new();
        match (&mut self.shape, value) {
            (_, Value::Null) => return Ok(None),
            (Shape::Jsonb, value) => {
                sound(jsonb::document(&mut text, value));
                return Ok(Some(arguments::text(&text)));
            }
            // SAFETY: the caller's promise.
            (Shape::Array(shape), Value::Array(array)) => return unsafe { shape.read(array).map(Some) },
            // SAFETY: the caller's promise.
            (Shape::Composite(shape), Value::Object(object)) => return unsafe { shape.read(object).map(Some) },
            (Shape::Enum(labels), Value::String(label)) => {
                return match labels.get(label) {
                    Some(Some((oid, _))) => Ok(Some(pg_sys::Datum::from(*oid))),
                    Some(None) => Err(gone(label)),
                    // It came in the meantime.
                    None => label_today(self.type_oid, label).map(|oid| Some(pg_sys::Datum::from(oid))),
                };
            }
            (Shape::Label(labels), Value::String(label)) => {
                return Ok(Some(arguments::text(labels.get(label).map_or(label, |label| &label[..]))));
            }
            (Shape::Range(labels), Value::String(range)) => text = bounds_today(labels, self.type_oid, range)?,
            (Shape::Array(_) | Shape::Composite(_) | Shape::Enum(_) | Shape::Label(_) | Shape::Range(_), value)
                if !matches!(value, Value::String(_)) =>
            {
                // SAFETY: the server's name of a type is a C string.
                let name = unsafe { CStr::from_ptr(pg_sys::format_type_be(self.type_oid)) }.to_string_lossy();
                return Err(Failure(format!("what is recorded is not of the type {name}")));
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
        unsafe { self.input(text.as_mut_ptr().cast()).map(Some) }
    }

    /// The value of a text form of it.
    ///
    /// # Safety
    /// The text is in the encoding of the database. A snapshot is active.
    pub unsafe fn parse(&mut self, text: &CStr) -> Result<Option<pg_sys::Datum>, Failure> {
        // SAFETY: the caller's promise; a label, or a range of labels, has the same text in JSON.
        unsafe {
            match self.shape {
                Shape::Enum(_) | Shape::Range(_) => self.recorded(Value::String(text.to_bytes())),
                _ => self.input(text.as_ptr().cast_mut()).map(Some),
            }
        }
    }

    /// Calls the type's input function, if it runs nobody's code. What the value was checked for when it was recorded, as the
    /// modifier of its column, is not asked again.
    ///
    /// # Safety
    /// `text` is a C string in the encoding of the database. A snapshot is active.
    pub unsafe fn input(&mut self, text: *mut c_char) -> Result<pg_sys::Datum, Failure> {
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
                Some(input) => input.call(text),
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
        let Some(check) = catalog::function_beside(self.caller, c"require_input", &[pg_sys::OIDOID]) else {
            error!("a function of the extension bemi is missing: require_input");
        };
        let type_oid = pg_sys::Datum::from(self.type_oid);
        // SAFETY: the function takes a type, and gives a value or an error.
        unsafe { snapshot::latest(|| pg_sys::OidFunctionCall1Coll(check, pg_sys::InvalidOid, type_oid)) };
    }

    /// Appends the JSON that a value would be recorded as today, as text.
    ///
    /// # Safety
    /// As [`Reader::read`].
    pub unsafe fn show(&mut self, value: Value, out: &mut Vec<u8>) -> Result<(), Failure> {
        // SAFETY: for all of the function, the caller's promise.
        unsafe {
            if self.conversion.is_some() && value != Value::Null {
                let Some(value) = self.read(value)? else { return Err(Failure::new("it is null")) };
                let memory = pg_sys::CurrentMemoryContext;
                return guard::with_pinned(|| shown::append(self.converted_type, value, memory, out)).map_err(Failure);
            }
            match (&mut self.shape, value) {
                (Shape::Array(shape), Value::Array(array)) if self.is_changed => shape.show(array, out)?,
                (Shape::Composite(shape), Value::Object(object)) if self.is_changed => shape.show(object, out)?,
                (Shape::Enum(labels), Value::String(label)) => match labels.get(label) {
                    Some(Some((_, name))) => text_of(Value::String(name), out, true),
                    Some(None) => return Err(gone(label)),
                    None => {
                        label_today(self.type_oid, label)?;
                        text_of(value, out, true);
                    }
                },
                (Shape::Range(labels), Value::String(range)) => {
                    text_of(Value::String(&bounds_today(labels, self.type_oid, range)?), out, true);
                }
                (_, value) => text_of(value, out, true),
            }
        }
        Ok(())
    }
}

impl Input {
    /// # Safety
    /// As [`Reader::input`].
    #[cfg(any(feature = "pg14", feature = "pg15"))]
    unsafe fn call(&mut self, text: *mut c_char) -> Result<pg_sys::Datum, Failure> {
        // SAFETY: the caller's promise.
        Ok(unsafe { pg_sys::InputFunctionCall(&mut self.function, text, self.parameter, -1) })
    }

    /// # Safety
    /// As [`Reader::input`].
    #[cfg(not(any(feature = "pg14", feature = "pg15")))]
    unsafe fn call(&mut self, text: *mut c_char) -> Result<pg_sys::Datum, Failure> {
        let mut refused = pg_sys::ErrorSaveContext {
            type_: pg_sys::NodeTag::T_ErrorSaveContext,
            details_wanted: true,
            ..Default::default()
        };
        let mut result = pg_sys::Datum::from(0);
        // SAFETY: the caller's promise; the context is a node, and has the error if there was one.
        unsafe {
            let context: pg_sys::fmNodePtr = (&raw mut refused).cast();
            let function = &raw mut self.function;
            if pg_sys::InputFunctionCallSafe(function, text, self.parameter, -1, context, &mut result) {
                return Ok(result);
            }
            let error = refused.error_data;
            let is_told = !error.is_null() && !(*error).message.is_null();
            Err(Failure(if is_told {
                CStr::from_ptr((*error).message).to_string_lossy().into_owned()
            } else {
                "its text is refused".to_owned()
            }))
        }
    }
}

/// A value of the types that are met most, without their input functions.
fn plain(type_oid: pg_sys::Oid, value: Value) -> Option<pg_sys::Datum> {
    match (type_oid, value) {
        (pg_sys::TEXTOID | pg_sys::VARCHAROID | pg_sys::BPCHAROID, Value::String(text)) => Some(arguments::text(text)),
        (pg_sys::BOOLOID, Value::Boolean(value)) => Some(pg_sys::Datum::from(value)),
        (pg_sys::INT2OID, Value::Number(stored)) => jsonb::integer::<i16>(stored).map(pg_sys::Datum::from),
        (pg_sys::INT4OID, Value::Number(stored)) => jsonb::integer::<i32>(stored).map(pg_sys::Datum::from),
        (pg_sys::INT8OID, Value::Number(stored)) => jsonb::integer::<i64>(stored).map(pg_sys::Datum::from),
        _ => None,
    }
}

/// Whether values of a type are recorded as the names of objects.
fn is_by_name(type_oid: pg_sys::Oid) -> bool {
    matches!(
        type_oid,
        pg_sys::REGCLASSOID
            | pg_sys::REGPROCOID
            | pg_sys::REGPROCEDUREOID
            | pg_sys::REGOPEROID
            | pg_sys::REGOPERATOROID
            | pg_sys::REGTYPEOID
            | pg_sys::REGROLEOID
            | pg_sys::REGNAMESPACEOID
            | pg_sys::REGCONFIGOID
            | pg_sys::REGDICTIONARYOID
            | pg_sys::REGCOLLATIONOID
            | pg_sys::ACLITEMOID
            | pg_sys::TSQUERYOID
    )
}

/// Appends the text of a value: that of JSON, or that of what it stands for.
///
/// # Safety
/// As [`Reader::read`].
pub unsafe fn text_of(value: Value, text: &mut Vec<u8>, is_json: bool) {
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
