//! Arrays and rows, from the JSON that was recorded of them.
use core::ffi::{CStr, c_char};

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::home::Home;
use super::image::{Failure, Reader, fail, sound, text_of};
use crate::history::json_array;
use crate::history::stored_jsonb::{self, Container, Value};
use crate::history::versions::{Definition, Types};
use crate::sys::descriptor;

/// How JSON becomes an array.
pub struct ArrayShape {
    /// Reads a member.
    pub element: Reader,
    /// As the array has it: a domain maybe.
    element_type: pg_sys::Oid,
    /// Whether the JSON of a member may be an array, so that those within the array are no dimensions of it.
    is_flat: bool,
    length: i16,
    is_by_value: bool,
    alignment: c_char,
}

/// How JSON becomes a row.
pub struct RowShape {
    /// In the memory context of the reader.
    descriptor: pg_sys::TupleDesc,
    columns: usize,
    /// Each column that is not dropped and was there, in the order of keys of `jsonb`.
    pub fields: Vec<Field>,
    /// The names of today of columns that were not.
    new: Vec<Vec<u8>>,
}

/// A column of a row.
pub struct Field {
    /// Its name then.
    key: Vec<u8>,
    name: Vec<u8>,
    index: usize,
    /// Reads its values.
    pub reader: Reader,
}

impl ArrayShape {
    /// Describes arrays of a type.
    pub fn new(element_type: pg_sys::Oid, home: Home, then: Option<&Types>) -> Self {
        let (mut length, mut is_by_value, mut alignment) = (0, false, 0);
        let element = Reader::new(element_type, home, then);
        // SAFETY: looks the type up in the catalogs; the pointers are to locals.
        let is_flat = unsafe {
            pg_sys::get_typlenbyvalalign(element_type, &mut length, &mut is_by_value, &mut alignment);
            let base = pg_sys::getBaseType(element_type);
            matches!(base, pg_sys::JSONOID | pg_sys::JSONBOID) || pg_sys::get_element_type(base) != pg_sys::InvalidOid
        };
        Self { element, element_type, is_flat, length, is_by_value, alignment }
    }

    /// Returns the array that a JSON array stands for, as [`Reader::read`].
    pub fn read(&mut self, array: Container) -> Result<pg_sys::Datum, Failure> {
        let mut members = match json_array::members(array, self.is_flat) {
            Ok(members) => members,
            Err(json_array::Failure::Damaged) => sound(None),
            Err(json_array::Failure::OutOfMemory) => fail(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, "out of memory"),
            Err(json_array::Failure::Uneven) => {
                return Err(Failure::new("a recorded array has rows of different lengths"));
            }
            Err(json_array::Failure::TooManyDimensions) => {
                return Err(Failure::new("a recorded array has too many dimensions"));
            }
        };
        let (mut values, mut nulls) = (Vec::new(), Vec::new());
        if values.try_reserve(members.values.len()).is_err() || nulls.try_reserve(members.values.len()).is_err() {
            fail(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, "out of memory");
        }
        for member in members.values {
            let value = self.element.read(member)?;
            nulls.push(value.is_none());
            values.push(value.unwrap_or(pg_sys::Datum::from(0)));
        }
        let mut lower_bounds = [1i32; 6];
        let (count, dimensions) = (members.dimensions.len() as i32, members.dimensions.as_mut_ptr());
        // SAFETY: there are as many members as the dimensions say, which are six at most; each is of the element's type, whose
        // storage was looked up.
        unsafe {
            Ok(pg_sys::Datum::from(pg_sys::construct_md_array(
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
                count,
                dimensions,
                lower_bounds.as_mut_ptr(),
                self.element_type,
                self.length.into(),
                self.is_by_value,
                self.alignment,
            )))
        }
    }

    /// Appends the JSON of an array today, as [`Reader::show`].
    pub fn show(&mut self, array: Container, out: &mut Vec<u8>) -> Result<(), Failure> {
        sound(stored_jsonb::push(out, b"["));
        for (index, member) in sound(array.elements()).enumerate() {
            sound(stored_jsonb::push(out, if index > 0 { b"," } else { b"" }));
            match sound(member) {
                // An array within an array is one more dimension.
                Value::Array(inner) if !self.is_flat => self.show(inner, out)?,
                member => self.element.show(member, out)?,
            }
        }
        sound(stored_jsonb::push(out, b"]"));
        Ok(())
    }
}

impl RowShape {
    /// Describes rows of a composite type; also returns whether a row would be shown otherwise today.
    pub fn new(type_oid: pg_sys::Oid, home: Home, then: Option<&Types>) -> (Self, bool) {
        let attributes = match then.and_then(|then| then.defined.get(&type_oid.to_u32())) {
            Some(Definition::Composite(attributes)) => Some(attributes),
            _ => None,
        };
        let (mut fields, mut new, mut is_changed) = (Vec::new(), Vec::new(), false);
        let descriptor = home.row_type(type_oid);
        // SAFETY: the descriptor is a copy that lives as long as the home.
        let columns = unsafe { (*descriptor).natts as usize };
        for index in 0..columns {
            // SAFETY: the descriptor has as many columns.
            let column = unsafe { descriptor::column(descriptor, index) };
            if column.attisdropped {
                continue;
            }
            // SAFETY: a name is a C string in an array.
            let name = unsafe { CStr::from_ptr(column.attname.data.as_ptr()) }.to_bytes().to_vec();
            let key = match attributes {
                None => name.clone(),
                Some(all) => match all.iter().find(|attribute| attribute.number == column.attnum) {
                    Some(attribute) => attribute.name.clone(),
                    None => {
                        new.push(name);
                        continue;
                    }
                },
            };
            let reader = Reader::new(column.atttypid, home, then);
            is_changed |= key != name || reader.is_changed();
            fields.push(Field { key, name, index, reader });
        }
        is_changed |= !new.is_empty() || attributes.is_some_and(|all| all.len() != fields.len());
        fields.sort_by(|one, other| (one.key.len(), &one.key).cmp(&(other.key.len(), &other.key)));
        (Self { descriptor, columns, fields, new }, is_changed)
    }

    /// Calls something for each pair of a column and its value.
    fn each(
        &mut self,
        object: Container,
        mut call: impl FnMut(&mut Field, Value) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut fields = self.fields.iter_mut().peekable();
        // Both are in the same order.
        for member in sound(object.members()) {
            let (key, value) = sound(member);
            let at = (key.len(), key);
            while fields.next_if(|field| (field.key.len(), &field.key[..]) < at).is_some() {}
            let Some(field) = fields.next_if(|field| field.key == key) else { continue };
            call(field, value)?;
        }
        Ok(())
    }

    /// Returns the row that a JSON object stands for, as [`Reader::read`].
    pub fn read(&mut self, object: Container) -> Result<pg_sys::Datum, Failure> {
        let mut values = vec![pg_sys::Datum::from(0); self.columns];
        let mut nulls = vec![true; self.columns];
        self.each(object, |field, value| {
            if let Some(value) = field.reader.read(value)? {
                values[field.index] = value;
                nulls[field.index] = false;
            }
            Ok(())
        })?;
        // SAFETY: there are as many values as the row has columns; each that is not null was read as of its column's type.
        unsafe {
            let tuple = pg_sys::heap_form_tuple(self.descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
            Ok(pg_sys::HeapTupleHeaderGetDatum((*tuple).t_data))
        }
    }

    /// Appends the JSON of a row today, as [`Reader::show`].
    pub fn show(&mut self, object: Container, out: &mut Vec<u8>) -> Result<(), Failure> {
        sound(stored_jsonb::push(out, b"{"));
        let mut separator = &b""[..];
        self.each(object, |field, value| {
            sound(stored_jsonb::push(out, separator));
            separator = b",";
            text_of(Value::String(&field.name), out, true);
            sound(stored_jsonb::push(out, b":"));
            field.reader.show(value, out)
        })?;
        for name in &self.new {
            sound(stored_jsonb::push(out, separator));
            separator = b",";
            text_of(Value::String(name), out, true);
            sound(stored_jsonb::push(out, b":null"));
        }
        sound(stored_jsonb::push(out, b"}"));
        Ok(())
    }
}
