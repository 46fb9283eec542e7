//! Values of the server, from the JSON that was recorded of them. Unlike `jsonb_populate_record`, this runs nothing that the owner
//! of a table wrote: domains are read as the types that they are made of, and casts are not used.
use core::ffi::CStr;
use std::collections::HashMap;

use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::convert::Conversion;
use super::guard;
use super::home::Home;
use super::labels::{Labels, bounds_today, gone, label_today, labels, subtype, type_name};
use super::shapes::{ArrayShape, RowShape};
use crate::decoder::pg::shown;
use crate::history::stored_jsonb::{self, Value};
use crate::history::versions::Types;
use crate::sys::arguments;

/// Why a value cannot be read.
#[derive(Debug)]
pub struct Failure(pub String);

impl Failure {
    /// Gives a reason.
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
    input: Option<Input>,
    /// What makes values of another type of those that are read.
    conversion: Option<Box<Conversion>>,
    converted_type: pg_sys::Oid,
    /// Whether the JSON of a value would be another one today.
    is_changed: bool,
    /// Lives longer than the reader.
    home: Home,
}

/// The input function of a type.
struct Input {
    function: Box<pg_sys::FmgrInfo>,
    parameter: pg_sys::Oid,
}

/// Raises an error.
pub fn fail(code: PgSqlErrorCode, message: &str) -> ! {
    ErrorReport::new(code, message.to_owned(), "bemi").report(PgLogLevel::ERROR);
    unreachable!("a report at level ERROR does not return")
}

/// Returns the value, or raises an error: what is read was checked when it was stored, so either it is damaged or there is no
/// memory.
pub fn sound<T>(value: Option<T>) -> T {
    value.unwrap_or_else(|| fail(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, "an image could not be read from jsonb"))
}

impl Reader {
    /// Returns the reader of a type, which may be a domain, by what types were made of when values were recorded. Raises an error
    /// if the type cannot be read.
    pub fn new(type_oid: pg_sys::Oid, home: Home, then: Option<&Types>) -> Self {
        // SAFETY: looks types up in the catalogs; types nest no deeper than the stack holds, or it is an error.
        let (type_oid, element_type, kind) = unsafe {
            pg_sys::check_stack_depth();
            let type_oid = pg_sys::getBaseType(type_oid);
            (type_oid, pg_sys::get_element_type(type_oid), pg_sys::get_typtype(type_oid) as u8)
        };
        let (shape, is_changed) = if type_oid == pg_sys::JSONOID {
            (Shape::Json, false)
        } else if type_oid == pg_sys::JSONBOID {
            (Shape::Jsonb, false)
        } else if element_type != pg_sys::InvalidOid {
            let shape = ArrayShape::new(element_type, home, then);
            let is_changed = shape.element.is_changed();
            (Shape::Array(Box::new(shape)), is_changed)
        } else if kind == pg_sys::TYPTYPE_COMPOSITE {
            let (shape, is_changed) = RowShape::new(type_oid, home, then);
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
        Self { type_oid, shape, input: None, conversion: None, converted_type: type_oid, is_changed, home }
    }

    /// Returns a reader that reads labels as text.
    pub fn of_labels(labels: HashMap<Vec<u8>, Vec<u8>>, home: Home) -> Self {
        let (shape, type_oid, is_changed) = (Shape::Label(labels), pg_sys::TEXTOID, true);
        Self { type_oid, shape, input: None, conversion: None, converted_type: type_oid, is_changed, home }
    }

    /// Converts the values that are read to another type from now on.
    pub fn convert(&mut self, conversion: Conversion, type_oid: pg_sys::Oid) {
        self.converted_type = type_oid;
        self.conversion = Some(Box::new(conversion));
        self.is_changed = true;
    }

    /// Whether the JSON of values may be another one today than was recorded.
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

    /// Returns the value that a JSON value stands for; None for null. It is allocated in the current memory context.
    pub fn read(&mut self, value: Value) -> Result<Option<pg_sys::Datum>, Failure> {
        self.read_fitted(value, true)
    }

    /// As [`Reader::read`]; unless it is to be fitted, a value may be beyond the modifier of its column.
    pub fn read_fitted(&mut self, value: Value, is_fitted: bool) -> Result<Option<pg_sys::Datum>, Failure> {
        match (self.recorded(value)?, &mut self.conversion) {
            // SAFETY: what this reader reads is of the type from which its conversion was built.
            (Some(value), Some(conversion)) => unsafe { conversion.run(value, is_fitted) }.map(Some),
            (value, _) => Ok(value),
        }
    }

    fn recorded(&mut self, value: Value) -> Result<Option<pg_sys::Datum>, Failure> {
        if let (Shape::Text, Some(value)) = (&self.shape, plain(self.type_oid, value)) {
            return Ok(Some(value));
        }
        let mut text = Vec::new();
        match (&mut self.shape, value) {
            (_, Value::Null) => return Ok(None),
            (Shape::Jsonb, value) => {
                sound(stored_jsonb::document(&mut text, value));
                return Ok(Some(arguments::text(&text)));
            }
            (Shape::Array(shape), Value::Array(array)) => return shape.read(array).map(Some),
            (Shape::Composite(shape), Value::Object(object)) => return shape.read(object).map(Some),
            (Shape::Enum(labels), Value::String(label)) => {
                return match labels.get(label) {
                    Some(Some((oid, _))) => Ok(Some(pg_sys::Datum::from(*oid))),
                    Some(None) => Err(gone(label)),
                    // It was added later.
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
                return Err(Failure(format!("what is recorded is not of the type {}", type_name(self.type_oid))));
            }
            (Shape::Hstore, Value::Object(object)) => {
                for member in sound(object.members()) {
                    let (key, value) = sound(member);
                    let mut inner = Vec::new();
                    let inner = (value != Value::Null).then(|| {
                        text_of(value, &mut inner, false);
                        &inner[..]
                    });
                    sound(stored_jsonb::hstore_pair(&mut text, key, inner));
                }
            }
            (Shape::Json, value) => text_of(value, &mut text, true),
            (_, value) => text_of(value, &mut text, false),
        }
        sound(stored_jsonb::push(&mut text, b"\0"));
        // It holds no other NUL, as jsonb does not.
        self.input(sound(CStr::from_bytes_until_nul(&text).ok())).map(Some)
    }

    /// Returns the value of a text form of it, which is in the encoding of the database.
    pub fn parse(&mut self, text: &CStr) -> Result<Option<pg_sys::Datum>, Failure> {
        match self.shape {
            // A label, or a range of labels, has the same text in JSON.
            Shape::Enum(_) | Shape::Range(_) => self.recorded(Value::String(text.to_bytes())),
            _ => self.input(text).map(Some),
        }
    }

    /// Calls the type's input function, if it runs nobody's code, with a text in the encoding of the database. It does not check
    /// again what was checked when the value was recorded, as the modifier of its column.
    pub fn input(&mut self, text: &CStr) -> Result<pg_sys::Datum, Failure> {
        if self.input.is_none() {
            self.require_input();
            let (mut function, mut parameter) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
            // SAFETY: looks the type up in the catalogs; the pointers are to locals.
            unsafe { pg_sys::getTypeInputInfo(self.type_oid, &mut function, &mut parameter) };
            self.input = Some(Input { function: self.home.function(function), parameter });
        }
        match &mut self.input {
            Some(input) => input.call(text),
            None => fail(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "a type has no input function"),
        }
    }

    /// Raises an error if the input function would run somebody's code.
    fn require_input(&self) {
        if self.type_oid.to_u32() >= pg_sys::FirstNormalObjectId {
            let type_oid = (pg_sys::OIDOID, pg_sys::Datum::from(self.type_oid));
            // SAFETY: the argument is an OID.
            unsafe { self.home.call_latest(c"require_input", &[type_oid]) };
        }
    }

    /// Appends the JSON that a value would be recorded as today, as text.
    pub fn show(&mut self, value: Value, out: &mut Vec<u8>) -> Result<(), Failure> {
        if self.conversion.is_some() && value != Value::Null {
            let Some(value) = self.read(value)? else { return Err(Failure::new("it is null")) };
            // SAFETY: the conversion gives values of that type, and the current memory context outlives what is made here.
            let show = || unsafe { shown::append(self.converted_type, value, pg_sys::CurrentMemoryContext, out) };
            return guard::with_pinned(show).map_err(Failure);
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
        Ok(())
    }
}

impl Input {
    #[cfg(any(feature = "pg14", feature = "pg15"))]
    fn call(&mut self, text: &CStr) -> Result<pg_sys::Datum, Failure> {
        let text = text.as_ptr().cast_mut();
        // SAFETY: the function is the type's own, with its own parameter, and reads a C string.
        Ok(unsafe { pg_sys::InputFunctionCall(&mut *self.function, text, self.parameter, -1) })
    }

    #[cfg(not(any(feature = "pg14", feature = "pg15")))]
    fn call(&mut self, text: &CStr) -> Result<pg_sys::Datum, Failure> {
        let mut refused = pg_sys::ErrorSaveContext {
            type_: pg_sys::NodeTag::T_ErrorSaveContext,
            details_wanted: true,
            ..Default::default()
        };
        let mut result = pg_sys::Datum::from(0);
        // SAFETY: the function is the type's own, with its own parameter, and reads a C string. The context is a node, and has the
        // error if there was one.
        unsafe {
            let context: pg_sys::fmNodePtr = (&raw mut refused).cast();
            let (function, text) = (&raw mut *self.function, text.as_ptr().cast_mut());
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

/// Returns a value of the types that are met most, without their input functions.
fn plain(type_oid: pg_sys::Oid, value: Value) -> Option<pg_sys::Datum> {
    match (type_oid, value) {
        (pg_sys::TEXTOID | pg_sys::VARCHAROID | pg_sys::BPCHAROID, Value::String(text)) => Some(arguments::text(text)),
        (pg_sys::BOOLOID, Value::Boolean(value)) => Some(pg_sys::Datum::from(value)),
        (pg_sys::INT2OID, Value::Number(stored)) => stored_jsonb::integer::<i16>(stored).map(pg_sys::Datum::from),
        (pg_sys::INT4OID, Value::Number(stored)) => stored_jsonb::integer::<i32>(stored).map(pg_sys::Datum::from),
        (pg_sys::INT8OID, Value::Number(stored)) => stored_jsonb::integer::<i64>(stored).map(pg_sys::Datum::from),
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
pub fn text_of(value: Value, text: &mut Vec<u8>, is_json: bool) {
    sound(match value {
        Value::String(value) if !is_json => stored_jsonb::push(text, value),
        value => stored_jsonb::json(text, value),
    });
}

/// Whether a type is that of the extension hstore, whose values are recorded as its cast to json gives them.
fn is_hstore(type_oid: pg_sys::Oid) -> bool {
    if type_oid.to_u32() < pg_sys::FirstNormalObjectId {
        return false;
    }
    // SAFETY: looks the type and the extension up in the catalogs; both names are C strings.
    unsafe {
        let extension = pg_sys::get_extension_oid(c"hstore".as_ptr(), true);
        extension != pg_sys::InvalidOid
            && pg_sys::get_typtype(type_oid) as u8 == pg_sys::TYPTYPE_BASE
            && pg_sys::getExtensionOfObject(pg_sys::TypeRelationId, type_oid) == extension
            && CStr::from_ptr(pg_sys::format_type_be(type_oid)).to_bytes().ends_with(b"hstore")
    }
}
