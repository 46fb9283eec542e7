//! How values of a type become JSON: decided once for each column, by the rules of `to_jsonb`.
use core::ffi::CStr;
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use pgrx::pg_catalog::pg_proc::PgProc;
use pgrx::{PgTupleDesc, pg_sys, varlena};

use super::array::ArrayReader;
use super::attribute::Attribute;
use super::catch;
use crate::decoder::change::column_key;
use crate::decoder::encode;
use crate::decoder::json::{Json, Omission, hex_len};
use crate::decoder::{jsonb, numeric};
use crate::json::Charset;
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
    JsonCast(OutputFunction),
    /// Everything else is shown as its text form.
    Output(OutputFunction),
    /// A type that cannot be read, and why.
    Unreadable(String),
    /// Values that are not to be shown.
    Masked,
}

/// A function of one argument, looked up: a type's output function, or its cast to `json`.
#[derive(Debug)]
pub struct OutputFunction(Box<pg_sys::FmgrInfo>);

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

/// The composite types that were met so far.
#[derive(Debug)]
pub struct Composites {
    readers: HashMap<u32, Rc<RefCell<CompositeReader>>>,
    /// The relations that hold their fields; the types are forgotten when one of these changes.
    relations: HashSet<pg_sys::Oid>,
    memory: pg_sys::MemoryContext,
}

impl Composites {
    /// None yet. What their readers need is kept in a child of `parent`.
    pub fn new(parent: pg_sys::MemoryContext) -> Self {
        // SAFETY: a new memory context belongs to us, as long as its parent lives.
        let memory = unsafe {
            pg_sys::AllocSetContextCreateInternal(
                parent,
                c"bemi composite types".as_ptr(),
                pg_sys::ALLOCSET_SMALL_MINSIZE as usize,
                pg_sys::ALLOCSET_SMALL_INITSIZE as usize,
                pg_sys::ALLOCSET_SMALL_MAXSIZE as usize,
            )
        };
        Self { readers: HashMap::new(), relations: HashSet::new(), memory }
    }

    /// Whether a relation holds the fields of one of them.
    pub fn rely_on(&self, relation: pg_sys::Oid) -> bool {
        self.relations.contains(&relation)
    }

    /// Forgets them; no other reader may be left that uses one.
    pub fn clear(&mut self) {
        self.readers.clear();
        self.relations.clear();
        // SAFETY: the memory context is ours, and the readers that used it are gone.
        unsafe { pg_sys::MemoryContextReset(self.memory) };
    }
}

/// What a reader is built with.
pub struct Builder<'a> {
    pub charset: Charset,
    /// Lives as long as the reader.
    pub memory: pg_sys::MemoryContext,
    pub composites: &'a mut Composites,
    /// Whether numbers are shown as strings.
    pub numbers_as_strings: bool,
}

impl Builder<'_> {
    /// The reader for a type. A type that cannot be read, its library gone for example, gives one that says so.
    pub fn reader(&mut self, type_oid: pg_sys::Oid) -> Reader {
        catch::data_errors(|| self.try_reader(type_oid)).unwrap_or_else(Reader::Unreadable)
    }

    fn try_reader(&mut self, type_oid: pg_sys::Oid) -> Reader {
        // Types may nest thousands deep; the server raises an error in time: a type that cannot be read.
        // SAFETY: looks a type up in the catalogs.
        let base = unsafe {
            pg_sys::check_stack_depth();
            pg_sys::getBaseType(type_oid)
        };
        let number = match base {
            pg_sys::INT2OID => Some(Reader::Int2),
            pg_sys::INT4OID => Some(Reader::Int4),
            pg_sys::INT8OID => Some(Reader::Int8),
            pg_sys::FLOAT4OID => Some(Reader::Float4),
            pg_sys::FLOAT8OID => Some(Reader::Float8),
            pg_sys::NUMERICOID => Some(Reader::Numeric),
            _ => None,
        };
        if let Some(number) = number {
            return if self.numbers_as_strings { Reader::Quoted(Box::new(number)) } else { number };
        }
        match base {
            pg_sys::BOOLOID => return Reader::Bool,
            pg_sys::TEXTOID | pg_sys::VARCHAROID | pg_sys::BPCHAROID => return Reader::Text,
            pg_sys::BYTEAOID => return Reader::Bytea,
            pg_sys::DATEOID => return Reader::Date,
            pg_sys::TIMESTAMPOID => return Reader::Timestamp,
            pg_sys::TIMESTAMPTZOID => return Reader::Timestamptz,
            pg_sys::UUIDOID => return Reader::Uuid,
            pg_sys::JSONOID => return Reader::Json,
            pg_sys::JSONBOID => return Reader::Jsonb,
            _ => {}
        }
        let (element_type, is_composite) =
            // SAFETY: looks a type up in the catalogs.
            unsafe { (pg_sys::get_element_type(base), base != pg_sys::RECORDOID && pg_sys::type_is_rowtype(base)) };
        if element_type != pg_sys::InvalidOid {
            Reader::Array(Box::new(self.array_reader(element_type)))
        } else if is_composite {
            Reader::Composite(self.composite_reader(base))
        } else if let Some(cast) = json_cast(base) {
            Reader::JsonCast(self.function(cast))
        } else {
            Reader::Output(self.output_function(base))
        }
    }

    fn output_function(&self, type_oid: pg_sys::Oid) -> OutputFunction {
        let (mut function, mut is_varlena) = (pg_sys::InvalidOid, false);
        // SAFETY: the pointers are to locals.
        unsafe { pg_sys::getTypeOutputInfo(type_oid, &mut function, &mut is_varlena) };
        self.function(function)
    }

    fn function(&self, function: pg_sys::Oid) -> OutputFunction {
        let mut info = Box::new(pg_sys::FmgrInfo::default());
        // SAFETY: the pointer is to memory of ours; the memory context lives as long as the reader.
        unsafe { pg_sys::fmgr_info_cxt(function, &mut *info, self.memory) };
        OutputFunction(info)
    }

    fn array_reader(&mut self, element_type: pg_sys::Oid) -> ArrayReader {
        let (mut length, mut by_value, mut align) = (0, false, 0);
        // SAFETY: the pointers are to locals.
        unsafe { pg_sys::get_typlenbyvalalign(element_type, &mut length, &mut by_value, &mut align) };
        let attribute = Attribute::new(length, by_value, align);
        ArrayReader::new(self.try_reader(element_type), attribute)
    }

    fn composite_reader(&mut self, type_oid: pg_sys::Oid) -> Rc<RefCell<CompositeReader>> {
        if let Some(known) = self.composites.readers.get(&type_oid.to_u32()) {
            return known.clone();
        }
        pgrx::check_for_interrupts!();
        let memory = self.composites.memory;
        // SAFETY: the type is composite; the copy, which no invalidation frees as it does the cached one, is made in a memory
        // context that lives as long as the reader.
        let (descriptor, columns) = unsafe {
            self.composites.relations.insert(pg_sys::get_typ_typrelid(type_oid));
            let caller = pg_sys::MemoryContextSwitchTo(memory);
            let descriptor = pg_sys::lookup_rowtype_tupdesc_copy(type_oid, -1);
            pg_sys::MemoryContextSwitchTo(caller);
            (descriptor, PgTupleDesc::from_pg_copy(descriptor))
        };
        let (charset, numbers_as_strings) = (self.charset, self.numbers_as_strings);
        let mut builder = Builder { charset, memory, composites: self.composites, numbers_as_strings };
        let mut fields = Vec::with_capacity(columns.len());
        for (index, column) in columns.iter().enumerate() {
            if !column.attisdropped {
                let key = column_key(&column_name(column), self.charset);
                fields.push((index, key, builder.reader(column.atttypid)));
            }
        }
        let reader = Rc::new(RefCell::new(CompositeReader {
            descriptor,
            depends_on_settings: fields.iter().any(|(_, _, reader)| reader.depends_on_settings()),
            fields,
            values: vec![pg_sys::Datum::from(0); columns.len()],
            nulls: vec![true; columns.len()],
        }));
        self.composites.readers.insert(type_oid.to_u32(), reader.clone());
        reader
    }
}

/// The language of functions in shared libraries, which only superusers can make (pg_language.dat).
const LANGUAGE_C: u32 = 13;

/// The function that casts a type to `json`, where it can be called while decoding. Most cannot: they may be anyone's
/// code, which would run with the rights of whoever reads the log, and may read tables, which cannot be read as of the
/// change. So the ones that are known to look at nothing but their argument are named here: that of hstore.
fn json_cast(type_oid: pg_sys::Oid) -> Option<pg_sys::Oid> {
    if type_oid.to_u32() < pg_sys::FirstNormalObjectId {
        return None;
    }
    let mut function = pg_sys::InvalidOid;
    // SAFETY: looks a cast up in the catalogs; the pointer is to a local.
    let path = unsafe {
        let explicit = pg_sys::CoercionContext::COERCION_EXPLICIT;
        pg_sys::find_coercion_pathway(pg_sys::JSONOID, type_oid, explicit, &mut function)
    };
    if path != pg_sys::CoercionPathType::COERCION_PATH_FUNC || function == pg_sys::InvalidOid {
        return None;
    }
    let found = PgProc::new(function)?;
    let is_in_c = found.prolang().to_u32() == LANGUAGE_C;
    let is_of_hstore = found.prosrc() == "hstore_to_json" && found.probin().as_deref() == Some("$libdir/hstore");
    (is_in_c && is_of_hstore).then_some(function)
}

/// The name of a column, in UTF-8.
pub fn column_name(column: &pg_sys::FormData_pg_attribute) -> Vec<u8> {
    // SAFETY: a name is a C string in an array.
    let name = unsafe { CStr::from_ptr(column.attname.data.as_ptr()) };
    encoding::to_utf8_lossy(name.to_bytes()).into_owned()
}

impl Reader {
    /// Whether its output depends on settings of the session.
    pub fn depends_on_settings(&self) -> bool {
        match self {
            Self::Output(_) => true,
            Self::Array(array) => array.depends_on_settings(),
            Self::Composite(composite) => composite.borrow().depends_on_settings,
            _ => false,
        }
    }

    /// Appends a value that is not null. An error that the server raises is passed on; what was written up to it, or
    /// up to an omission, is for the caller to take back.
    ///
    /// # Safety
    /// `value` has the type that this reader was built for, and is not a pointer to data outside of the row.
    pub unsafe fn write(&mut self, value: pg_sys::Datum, json: &mut Json) -> Result<(), Omission> {
        // SAFETY: for all of the function, the caller's promise on the type of `value`.
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
                    if !is_in_place(value.cast_mut_ptr()) {
                        json.check_room(raw_len(value) + 2)?;
                    }
                    return write_text(json, varlena_bytes(value));
                }
                Self::Bytea => {
                    json.check_room(hex_len(raw_len(value)))?;
                    return json.hex(varlena_bytes(value));
                }
                Self::Date => json.quoted(|out| encode::date(out, value.value() as i32)),
                Self::Timestamp => json.quoted(|out| encode::timestamp(out, value.value() as i64)),
                Self::Timestamptz => json.quoted(|out| encode::timestamptz(out, value.value() as i64)),
                Self::Uuid => {
                    let bytes: &[u8; 16] = &*value.cast_mut_ptr();
                    json.quoted(|out| encode::uuid(out, bytes));
                }
                Self::Json => {
                    // Nobody keeps as much white space as that.
                    json.check_room(raw_len(value) / 2)?;
                    return json.compact(&utf8(varlena_bytes(value))?);
                }
                Self::Jsonb => {
                    if encoding::charset() == Charset::Utf8 {
                        let start = json.len();
                        match jsonb::jsonb(json, varlena_bytes(value)) {
                            Ok(()) => return Ok(()),
                            Err(jsonb::Failure::Omission(omission)) => return Err(omission),
                            Err(jsonb::Failure::Unreadable) => json.truncate(start),
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
                Self::JsonCast(cast) => {
                    let document = pg_sys::FunctionCall1Coll(&mut *cast.0, pg_sys::InvalidOid, value);
                    return json.compact(&utf8(varlena_bytes(document))?);
                }
                Self::Output(output) => return write_text(json, output.text(value).to_bytes()),
                Self::Unreadable(reason) => return Err(Omission::output(reason)),
                Self::Masked => json.raw(b"\"[masked]\""),
            }
        }
        Ok(())
    }
}

impl OutputFunction {
    /// The text form of a value.
    ///
    /// # Safety
    /// `value` has the function's type.
    unsafe fn text<'a>(&mut self, value: pg_sys::Datum) -> &'a CStr {
        // SAFETY: the caller's promise; the text is in the current memory context, which is reset after the change.
        unsafe { CStr::from_ptr(pg_sys::OutputFunctionCall(&mut *self.0, value)) }
    }
}

impl CompositeReader {
    /// # Safety
    /// `value` is a row of the reader's type.
    unsafe fn write(&mut self, value: pg_sys::Datum, json: &mut Json) -> Result<(), Omission> {
        // The arrays have a member for each column of the descriptor.
        // SAFETY: the caller's promise; detoasted, the value is the header of a tuple.
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
                // SAFETY: the field has the type that the descriptor gives it.
                unsafe { reader.write(self.values[*index], json)? };
            }
        }
        json.raw(b"}");
        Ok(())
    }
}

/// How many bytes a varlena has when it is detoasted, without that.
///
/// # Safety
/// `value` is a varlena whose data is not outside of the row.
unsafe fn raw_len(value: pg_sys::Datum) -> usize {
    let pointer: *mut pg_sys::varlena = value.cast_mut_ptr();
    // SAFETY: the caller's promise; a header says how long the value is, that of a compressed one how long it becomes.
    unsafe {
        if is_in_place(pointer) {
            varlena::varsize_any_exhdr(pointer)
        } else {
            pg_sys::toast_raw_datum_size(value).saturating_sub(size_of::<i32>())
        }
    }
}

/// Whether the bytes of a varlena stand behind its header as they are.
///
/// # Safety
/// `pointer` is a varlena.
#[inline]
unsafe fn is_in_place(pointer: *mut pg_sys::varlena) -> bool {
    // SAFETY: the caller's promise.
    unsafe { varlena::varatt_is_4b_u(pointer) || varlena::varatt_is_1b(pointer) && !varlena::varatt_is_1b_e(pointer) }
}

/// The bytes of a varlena, detoasted.
///
/// # Safety
/// `value` is a varlena whose data is not outside of the row.
#[inline]
pub unsafe fn varlena_bytes<'a>(value: pg_sys::Datum) -> &'a [u8] {
    let pointer: *mut pg_sys::varlena = value.cast_mut_ptr();
    // SAFETY: the caller's promise. Only a compressed value, or one that was put together from the log, is copied.
    unsafe {
        if varlena::varatt_is_1b(pointer) && !varlena::varatt_is_1b_e(pointer) {
            // Most are as short as that.
            let length = varlena::varsize_1b(pointer).saturating_sub(1);
            return core::slice::from_raw_parts(varlena::vardata_1b(pointer).cast(), length);
        }
        let is_there = varlena::varatt_is_4b_u(pointer);
        varlena::varlena_to_byte_slice(if is_there { pointer } else { pg_sys::pg_detoast_datum_packed(pointer) })
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
