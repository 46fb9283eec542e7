//! How the reader of a type is found: once for each column, by the rules of `to_jsonb`.
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use pgrx::pg_catalog::pg_proc::PgProc;
use pgrx::{PgTupleDesc, pg_sys};

use super::attribute::Attribute;
use super::catch;
use super::open_relation::column_name;
use super::value::{ArrayReader, CompositeReader, Function, Reader};
use crate::document::change::column_key;
use crate::document::json::Charset;

/// The composite types that were met so far.
#[derive(Debug)]
pub struct Composites {
    readers: HashMap<u32, Rc<RefCell<CompositeReader>>>,
    /// The relations that hold their fields; the types are forgotten when one of these changes.
    relations: HashSet<pg_sys::Oid>,
    memory: pg_sys::MemoryContext,
}

impl Composites {
    /// Begins with none. What their readers need is kept in a child of `parent`, which lives longer than they do.
    pub fn new(parent: pg_sys::MemoryContext) -> Self {
        // SAFETY: the memory context is new, and nobody else has it.
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
        // SAFETY: nobody else has the memory context, and the readers that used it are gone.
        unsafe { pg_sys::MemoryContextReset(self.memory) };
    }
}

/// What a reader is built with.
pub struct Builder<'a> {
    /// How names are written.
    pub charset: Charset,
    /// Takes what the reader needs, and lives longer than the reader.
    pub memory: pg_sys::MemoryContext,
    /// The composite types that were met already.
    pub composites: &'a mut Composites,
    /// Whether numbers are shown as strings.
    pub numbers_as_strings: bool,
}

impl Builder<'_> {
    /// Returns the reader for a type. A type that cannot be read, for example because its library is missing, gives one that
    /// says so.
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

    fn output_function(&self, type_oid: pg_sys::Oid) -> Function {
        let (mut function, mut is_varlena) = (pg_sys::InvalidOid, false);
        // SAFETY: looks a type up in the catalogs; the pointers are to locals.
        unsafe { pg_sys::getTypeOutputInfo(type_oid, &mut function, &mut is_varlena) };
        self.function(function)
    }

    fn function(&self, function: pg_sys::Oid) -> Function {
        let mut info = Box::new(pg_sys::FmgrInfo::default());
        // SAFETY: looks a function up in the catalogs; what the server notes of it is in a box and in a memory context that
        // both live as long as the reader.
        unsafe { pg_sys::fmgr_info_cxt(function, &mut *info, self.memory) };
        Function::new(info)
    }

    fn array_reader(&mut self, element_type: pg_sys::Oid) -> ArrayReader {
        let (mut length, mut by_value, mut align) = (0, false, 0);
        // SAFETY: looks a type up in the catalogs; the pointers are to locals.
        unsafe { pg_sys::get_typlenbyvalalign(element_type, &mut length, &mut by_value, &mut align) };
        ArrayReader::new(self.try_reader(element_type), Attribute::new(length, by_value, align))
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
        let reader = Rc::new(RefCell::new(CompositeReader::new(descriptor, columns.len(), fields)));
        self.composites.readers.insert(type_oid.to_u32(), reader.clone());
        reader
    }
}

/// The language of functions in shared libraries, which only superusers can make (pg_language.dat).
const LANGUAGE_C: u32 = 13;

/// Returns the function that casts a type to `json`, if it can be called while decoding. Most cannot: they may be anyone's
/// code, which would run with the rights of whoever reads WAL, and may read tables, which cannot be read as of the
/// change. So this names the one that is known to look at nothing but its argument: that of hstore.
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
