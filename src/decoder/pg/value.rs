//! How the values of a type become JSON, by the rules of `to_jsonb`.
use core::ffi::CStr;
use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;

use pgrx::{pg_sys, varlena};

use super::array_layout::ArrayLayout;
use super::attribute::Attribute;
use super::varlena::{is_in_place, raw_len, varlena_bytes};
use crate::decoder::jsonb_text;
use crate::document::json::{Charset, Json, hex_len};
use crate::document::omission::Omission;
use crate::document::{numeric, time, uuid};
use crate::sys::{encoding, float};

/// Reads the values of one type.
#[derive(Debug)]
pub enum Reader {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Numeric,
    /// `text`, `varchar` and `bpchar`, whose values are their text.
    Text,
    Bytea,
    Date,
    Timestamp,
    Timestamptz,
    Uuid,
    Json,
    Jsonb,
    Array(Box<ArrayReader>),
    /// Shared by all that use the type, since types may use one another many times over.
    Composite(Rc<RefCell<CompositeReader>>),
    /// A number that the reader wants as a string.
    Quoted(Box<Reader>),
    /// A type whose cast to `json` is used.
    JsonCast(Function),
    /// Everything else is shown as its text form.
    Output(Function),
    /// A type that cannot be read, and why.
    Unreadable(String),
    /// Values that are not to be shown.
    Masked,
}

/// A function of one argument, looked up: a type's output function, or its cast to `json`.
#[derive(Debug)]
pub struct Function(Box<pg_sys::FmgrInfo>);

/// Reads arrays of one element type.
#[derive(Debug)]
pub struct ArrayReader {
    element: Reader,
    /// How the members are stored.
    layout: ArrayLayout,
}

/// Reads rows of one composite type.
#[derive(Debug)]
pub struct CompositeReader {
    descriptor: pg_sys::TupleDesc,
    /// Each field that is not dropped: its index, its key in JSON, and its reader.
    fields: Vec<(usize, Vec<u8>, Reader)>,
    values: Vec<pg_sys::Datum>,
    nulls: Vec<bool>,
    depends_on_settings: bool,
}

impl Reader {
    /// Whether its output depends on settings of the session.
    pub fn depends_on_settings(&self) -> bool {
        match self {
            Self::Output(_) => true,
            Self::Array(array) => array.element.depends_on_settings(),
            Self::Composite(composite) => composite.borrow().depends_on_settings,
            _ => false,
        }
    }

    /// Appends a value that is not null. An error that the server raises is passed on; the caller takes back what was written
    /// up to it, or up to an omission.
    ///
    /// # Safety
    /// `value` has the type that this reader was built for, and is not a pointer to data outside of the row.
    pub unsafe fn write(&mut self, value: pg_sys::Datum, json: &mut Json) -> Result<(), Omission> {
        // SAFETY: each variant is built for types that are stored in one way, so a value of such a type is by itself what the
        // variant reads, or points to it.
        unsafe {
            match self {
                Self::Bool => json.raw(if value.value() as u8 != 0 { b"true" } else { b"false" }),
                Self::Int2 => json.integer(value.value() as i16),
                Self::Int4 => json.integer(value.value() as i32),
                Self::Int8 => json.integer(value.value() as i64),
                Self::Float4 => {
                    return write_float(json, f32::from_bits(value.value() as u32).into(), |number, json| {
                        float::with_shortest_float4(number as f32, |text| json.number(text))
                    });
                }
                Self::Float8 => {
                    return write_float(json, f64::from_bits(value.value() as u64), |number, json| {
                        float::with_shortest_float8(number, |text| json.number(text))
                    });
                }
                Self::Numeric => return write_numeric(json, varlena_bytes(value)),
                Self::Text => {
                    if !is_in_place(value) {
                        json.check_room(raw_len(value) + 2)?;
                    }
                    return write_text(json, varlena_bytes(value));
                }
                Self::Bytea => {
                    json.check_room(hex_len(raw_len(value)))?;
                    return json.hex(varlena_bytes(value));
                }
                Self::Date => json.quoted(|out| time::push_date(out, value.value() as i32)),
                Self::Timestamp => json.quoted(|out| time::push_timestamp(out, value.value() as i64)),
                Self::Timestamptz => json.quoted(|out| time::push_timestamptz(out, value.value() as i64)),
                Self::Uuid => {
                    let bytes: &[u8; 16] = &*value.cast_mut_ptr();
                    json.quoted(|out| uuid::push(out, bytes));
                }
                Self::Json => {
                    // Without its white space a document is rarely half as long.
                    json.check_room(raw_len(value) / 2)?;
                    return json.compact(&utf8(varlena_bytes(value))?);
                }
                Self::Jsonb => {
                    if encoding::charset() == Charset::Utf8 {
                        let start = json.len();
                        match jsonb_text::jsonb(json, varlena_bytes(value)) {
                            Ok(()) => return Ok(()),
                            Err(jsonb_text::Failure::Omission(omission)) => return Err(omission),
                            Err(jsonb_text::Failure::Unreadable) => json.truncate(start),
                        }
                    }
                    let jsonb: *mut pg_sys::Jsonb = pg_sys::pg_detoast_datum(value.cast_mut_ptr()).cast();
                    let size = varlena::varsize(jsonb.cast()) as i32;
                    let text = pg_sys::JsonbToCString(core::ptr::null_mut(), &raw mut (*jsonb).root, size);
                    return json.compact(&utf8(CStr::from_ptr(text).to_bytes())?);
                }
                Self::Array(array) => return array.write(value, json),
                Self::Composite(composite) => {
                    pg_sys::check_stack_depth();
                    // A type cannot be a part of itself.
                    let mut composite = composite.try_borrow_mut().map_err(|e| Omission::Output(e.to_string()))?;
                    return composite.write(value, json);
                }
                Self::Quoted(number) => {
                    let start = json.len();
                    number.write(value, json)?;
                    json.quote_from(start);
                }
                Self::JsonCast(cast) => return json.compact(&utf8(varlena_bytes(cast.call(value)))?),
                Self::Output(output) => return write_text(json, output.text(value).to_bytes()),
                Self::Unreadable(reason) => return Err(Omission::output(reason)),
                Self::Masked => json.raw(b"\"[masked]\""),
            }
        }
        Ok(())
    }
}

impl Function {
    /// A function that was looked up. What the server notes of it lives as long as this.
    pub fn new(info: Box<pg_sys::FmgrInfo>) -> Self {
        Self(info)
    }

    /// What the function returns for a value, in the current memory context.
    ///
    /// # Safety
    /// `value` has the type of the function's argument.
    unsafe fn call(&mut self, value: pg_sys::Datum) -> pg_sys::Datum {
        // SAFETY: the function has one argument, and does not return null for a value that is not null.
        unsafe { pg_sys::FunctionCall1Coll(&mut *self.0, pg_sys::InvalidOid, value) }
    }

    /// The text form of a value, in the current memory context, by a type's output function.
    ///
    /// # Safety
    /// `value` has that type. The text is used no longer than the current memory context is left as it is.
    unsafe fn text<'a>(&mut self, value: pg_sys::Datum) -> &'a CStr {
        // SAFETY: an output function returns a C string.
        unsafe { CStr::from_ptr(pg_sys::OutputFunctionCall(&mut *self.0, value)) }
    }
}

impl ArrayReader {
    /// Reads arrays whose members are read and stored in the given way.
    pub fn new(element: Reader, attribute: Attribute) -> Self {
        Self { element, layout: ArrayLayout::new(attribute) }
    }

    /// Appends an array as nested JSON arrays.
    ///
    /// # Safety
    /// `value` is an array of the reader's element type, whose data is in the row.
    unsafe fn write(&mut self, value: pg_sys::Datum, json: &mut Json) -> Result<(), Omission> {
        if matches!(self.element, Reader::Array(_) | Reader::Composite(_)) {
            // SAFETY: raises an error where the stack is nearly used up, which is passed on.
            unsafe { pg_sys::check_stack_depth() };
        }
        let element = &mut self.element;
        // SAFETY: the array is one of the element type, whose storage the layout has; so each member is of the type that the
        // element's reader was built for.
        unsafe {
            self.layout.write(varlena_bytes(value), json, &mut |member, json: &mut Json| element.write(member, json))
        }
    }
}

impl CompositeReader {
    /// Reads rows with the columns that the descriptor describes. The fields are those that are not dropped.
    pub fn new(descriptor: pg_sys::TupleDesc, columns: usize, fields: Vec<(usize, Vec<u8>, Reader)>) -> Self {
        Self {
            descriptor,
            depends_on_settings: fields.iter().any(|(_, _, reader)| reader.depends_on_settings()),
            fields,
            values: vec![pg_sys::Datum::from(0); columns],
            nulls: vec![true; columns],
        }
    }

    /// # Safety
    /// `value` is a row of the reader's type.
    unsafe fn write(&mut self, value: pg_sys::Datum, json: &mut Json) -> Result<(), Omission> {
        // SAFETY: detoasted, a row is the header of a tuple. Both arrays have a member for each column of the descriptor, which
        // lives as long as the reader.
        unsafe {
            let header: pg_sys::HeapTupleHeader = pg_sys::pg_detoast_datum(value.cast_mut_ptr()).cast();
            let mut tuple = pg_sys::HeapTupleData {
                t_len: varlena::varsize(header.cast()) as u32,
                t_data: header,
                ..Default::default()
            };
            pg_sys::heap_deform_tuple(&mut tuple, self.descriptor, self.values.as_mut_ptr(), self.nulls.as_mut_ptr());
        }
        json.raw(b"{");
        for (i, (index, key, reader)) in self.fields.iter_mut().enumerate() {
            if i > 0 {
                json.raw(b",");
            }
            json.raw(key);
            json.check_room(0)?;
            if self.nulls[*index] {
                json.raw(b"null");
            } else {
                // SAFETY: the reader of a field was built for the type that the descriptor gives it.
                unsafe { reader.write(self.values[*index], json)? };
            }
        }
        json.raw(b"}");
        Ok(())
    }
}

fn write_text(json: &mut Json, text: &[u8]) -> Result<(), Omission> {
    if encoding::charset() == Charset::Utf8 {
        return json.utf8_string(text);
    }
    json.string(&encoding::to_utf8(text))
}

/// A text of this database in UTF-8. Where that is the encoding, a function in C may have stored what is none.
fn utf8(text: &[u8]) -> Result<Cow<'_, [u8]>, Omission> {
    if encoding::charset() != Charset::Utf8 {
        return Ok(encoding::to_utf8(text));
    }
    std::str::from_utf8(text).map(|_| Cow::Borrowed(text)).map_err(|_| Omission::NotUtf8)
}

fn write_float(
    json: &mut Json,
    number: f64,
    write: impl FnOnce(f64, &mut Json) -> Result<(), Omission>,
) -> Result<(), Omission> {
    match (number.is_nan(), number.is_infinite()) {
        (true, _) => json.string(b"NaN"),
        (_, true) => json.string(if number > 0.0 { b"Infinity" } else { b"-Infinity" }),
        _ => write(number, json),
    }
}

/// Appends a number of the type `numeric`, given without the header of its varlena.
fn write_numeric(json: &mut Json, stored: &[u8]) -> Result<(), Omission> {
    let max_len = numeric::max_len(stored);
    json.check_room(max_len)?;
    let start = json.len();
    let written = json.append(max_len, |out| numeric::numeric(out, stored)).ok_or(Omission::OutOfMemory)?;
    if written.is_none() {
        return Err(Omission::Output("invalid numeric".to_owned()));
    }
    let is_digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_digit);
    let first = usize::from(json.as_bytes().get(start) == Some(&b'-'));
    if !is_digit(json.as_bytes().get(start + first)) {
        json.quote_from(start);
    }
    Ok(())
}
