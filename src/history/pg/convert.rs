//! A value of the type that a column had becomes one of its type of today, as ALTER TABLE made new values of old ones: by the
//! casts of the server. Those that somebody made are not run.
use core::ffi::CStr;
use std::collections::HashMap;
use std::ffi::CString;
use std::rc::Rc;

use pgrx::pg_sys;

use super::guard;
use super::home::Home;
use super::image::{Failure, Reader};
use super::labels::type_name;
use crate::history::versions::{Kind, Stop, Types, Versions};
use crate::sys::arguments;

/// The settings of a statement.
type Settings = Rc<Vec<(CString, CString)>>;

/// Casts of the server that succeed for all values: of numbers to wider ones, and of `char` to `text` (pg_cast.dat).
const SAFE_CASTS: [u32; 13] = [481, 754, 313, 1740, 1781, 1782, 316, 235, 482, 311, 318, 236, 401];

/// One part of the way.
enum Action {
    /// A function of the server: a cast, or what fits a value to a modifier.
    Call {
        function: Box<pg_sys::FmgrInfo>,
        arguments: i32,
        modifier: i32,
        is_explicit: bool,
        is_fit: bool,
        settings: Option<Settings>,
    },
    /// The text of a value, read as another type.
    Text { output: Box<pg_sys::FmgrInfo>, target: Box<Reader>, settings: Option<Settings> },
    /// A text that is a label becomes what the label was called later.
    Rename(HashMap<Vec<u8>, Vec<u8>>),
    /// The same for each member of an array.
    Elements { actions: Vec<Action>, from: pg_sys::Oid, to: pg_sys::Oid },
}

/// How the values that a reader gives become those of another type.
pub struct Conversion {
    actions: Vec<Action>,
    /// Whether an error is possible.
    pub can_fail: bool,
}

/// What a value is on its way.
#[derive(Clone, Copy, PartialEq)]
enum Held {
    Type(pg_sys::Oid),
    /// The label of an enum, as text: the enum, and the version whose names its labels have.
    Label(u32, usize),
}

/// What a conversion is made with.
pub struct Builder<'a> {
    pub versions: &'a Versions,
    /// The settings of each version's statement.
    pub settings: &'a [Settings],
    /// Lives as long as the readers that are made.
    pub home: Home,
}

impl Builder<'_> {
    fn types(&self, version: usize) -> Option<&Types> {
        self.versions.all.get(version)?.types.as_deref()
    }

    /// Returns the type of which one was a domain.
    fn base(&self, kind: Kind, version: usize) -> Kind {
        let kind = self.types(version).map_or(kind, |types| types.base(kind));
        let mut modifier = kind.modifier;
        // SAFETY: looks up a type that is in the catalogs; the pointer is to a local.
        let oid = unsafe {
            let type_oid = pg_sys::Oid::from(kind.oid);
            if is_there(type_oid) { pg_sys::getBaseTypeAndTypmod(type_oid, &mut modifier) } else { type_oid }
        };
        Kind { oid: oid.to_u32(), modifier }
    }

    /// Returns the reader of what a column's values were in a version, which converts them to the types of the next stops. An error
    /// says what keeps them from being read.
    pub fn reader(&self, stops: &[Stop]) -> Result<Reader, String> {
        let Some((first, rest)) = stops.split_first() else { return Err("its type is not known".to_owned()) };
        let kind = self.base(first.kind, first.version);
        let rest: Vec<(Kind, &Stop)> = rest.iter().map(|stop| (self.base(stop.kind, stop.version), stop)).collect();
        let types = self.types(first.version);
        if rest.iter().all(|(next, _)| next.oid == kind.oid && (next.modifier < 0 || *next == kind)) {
            self.require(kind.oid)?;
            return Ok(Reader::new(kind.oid.into(), self.home, types));
        }
        let (mut source, mut held) = match types.and_then(|types| types.labels(kind.oid)) {
            Some(labels) => {
                let mut same = HashMap::new();
                same.extend(labels.iter().map(|(_, label)| (label.clone(), label.clone())));
                (Reader::of_labels(same, self.home), Held::Label(kind.oid, first.version))
            }
            None => {
                self.require(kind.oid)?;
                let type_oid = pg_sys::Oid::from(kind.oid);
                (Reader::new(type_oid, self.home, types), Held::Type(type_oid))
            }
        };
        let mut conversion = Conversion { actions: Vec::new(), can_fail: false };
        let mut last = kind;
        for (next, stop) in rest {
            held = self.step(held, next, next != last, stop, &mut conversion)?;
            last = next;
        }
        if let Held::Label(oid, version) = held {
            self.require(oid)?;
            let target = Reader::new(oid.into(), self.home, self.types(version));
            conversion.actions.push(self.through_text(pg_sys::TEXTOID, target, None));
        }
        source.convert(conversion, last.oid.into());
        Ok(source)
    }

    /// Returns an error if a type is gone.
    fn require(&self, oid: u32) -> Result<(), String> {
        if is_there(oid.into()) { Ok(()) } else { Err("its type is gone".to_owned()) }
    }

    fn step(
        &self,
        held: Held,
        next: Kind,
        is_another: bool,
        stop: &Stop,
        conversion: &mut Conversion,
    ) -> Result<Held, String> {
        let labels = self.types(stop.version).and_then(|types| types.labels(next.oid));
        let source = match held {
            Held::Label(oid, version) => {
                let version = self.rename(oid, version, stop.version, conversion);
                if oid == next.oid {
                    return Ok(Held::Label(oid, version));
                }
                pg_sys::TEXTOID
            }
            Held::Type(source) => source,
        };
        if labels.is_some() {
            let is_text = source == pg_sys::TEXTOID || source == pg_sys::VARCHAROID;
            if !is_text || !stop.is_explicit {
                return Err(no_cast(source, next.oid.into()));
            }
            return Ok(Held::Label(next.oid, stop.version));
        }
        self.require(next.oid)?;
        let target = pg_sys::Oid::from(next.oid);
        let is_fresh = source != target || matches!(held, Held::Label(..));
        if source != target {
            self.cast(source, target, next.modifier, stop, conversion)?;
        }
        if next.modifier >= 0 && (is_fresh || is_another) {
            self.fit(target, next.modifier, stop, conversion);
        }
        Ok(Held::Type(target))
    }

    /// Renames labels to which an enum gave other names between two versions.
    fn rename(&self, oid: u32, from: usize, to: usize, conversion: &mut Conversion) -> usize {
        // As it was before the later version's statement; it may be gone with it.
        let known =
            (from..=to).rev().find(|version| self.types(*version).is_some_and(|types| types.labels(oid).is_some()));
        let to = known.unwrap_or(from);
        let labels = |version| self.types(version).and_then(|types| types.labels(oid)).unwrap_or_default();
        let later: HashMap<u32, &Vec<u8>> = labels(to).iter().map(|(number, label)| (*number, label)).collect();
        let renamed: HashMap<Vec<u8>, Vec<u8>> = labels(from)
            .iter()
            .filter_map(|(number, label)| Some((label.clone(), (*later.get(number)?).clone())))
            .filter(|(old, new)| old != new)
            .collect();
        if !renamed.is_empty() {
            conversion.actions.push(Action::Rename(renamed));
        }
        to
    }

    /// Converts from one type to another, both of which are there.
    fn cast(
        &self,
        source: pg_sys::Oid,
        target: pg_sys::Oid,
        modifier: i32,
        stop: &Stop,
        conversion: &mut Conversion,
    ) -> Result<(), String> {
        use pg_sys::{CoercionContext, CoercionPathType};
        let mut function = pg_sys::InvalidOid;
        let context =
            if stop.is_explicit { CoercionContext::COERCION_EXPLICIT } else { CoercionContext::COERCION_ASSIGNMENT };
        // SAFETY: looks both types, and a cast, up in the catalogs; the pointer is to a local.
        match unsafe { pg_sys::find_coercion_pathway(target, source, context, &mut function) } {
            CoercionPathType::COERCION_PATH_FUNC if function.to_u32() < pg_sys::FirstNormalObjectId => {
                conversion.can_fail |= !SAFE_CASTS.contains(&function.to_u32());
                let settings = (asks_settings(source) || asks_settings(target)).then(|| self.settings_of(stop));
                conversion.actions.push(self.call(function, modifier, stop, false, settings.flatten()));
                Ok(())
            }
            CoercionPathType::COERCION_PATH_FUNC => {
                Err(format!("{}, and somebody's own is not run", no_cast(source, target)))
            }
            CoercionPathType::COERCION_PATH_RELABELTYPE => Ok(()),
            CoercionPathType::COERCION_PATH_COERCEVIAIO => {
                // SAFETY: looks the type up in the catalogs.
                let is_composite = unsafe { pg_sys::get_typtype(source) } as u8 == pg_sys::TYPTYPE_COMPOSITE;
                if is_composite || source.to_u32() >= pg_sys::FirstNormalObjectId {
                    return Err(no_cast(source, target));
                }
                let reader = Reader::new(target, self.home, self.types(stop.version));
                // Input functions raise errors there.
                conversion.can_fail |= cfg!(any(feature = "pg14", feature = "pg15")) || reader.can_fail();
                let settings = if is_plain(source) && is_plain(target) { None } else { self.settings_of(stop) };
                conversion.actions.push(self.through_text(source, reader, settings));
                Ok(())
            }
            CoercionPathType::COERCION_PATH_ARRAYCOERCE => {
                // SAFETY: looks both types up in the catalogs.
                let (from, to) = unsafe { (pg_sys::get_element_type(source), pg_sys::get_element_type(target)) };
                let mut inner = Conversion { actions: Vec::new(), can_fail: true };
                if from != to {
                    self.cast(from, to, modifier, stop, &mut inner)?;
                }
                conversion.can_fail = true;
                conversion.actions.push(Action::Elements { actions: inner.actions, from, to });
                Ok(())
            }
            _ => Err(no_cast(source, target)),
        }
    }

    /// Fits values of a type, which is there, to a modifier.
    fn fit(&self, target: pg_sys::Oid, modifier: i32, stop: &Stop, conversion: &mut Conversion) {
        let mut function = pg_sys::InvalidOid;
        // SAFETY: looks the type up in the catalogs; the pointer is to a local.
        let element = unsafe {
            let element = pg_sys::get_element_type(target);
            let fitted = if element == pg_sys::InvalidOid { target } else { element };
            pg_sys::find_typmod_coercion_function(fitted, &mut function);
            element
        };
        if function == pg_sys::InvalidOid || function.to_u32() >= pg_sys::FirstNormalObjectId {
            return;
        }
        conversion.can_fail = true;
        let call = self.call(function, modifier, stop, true, None);
        conversion.actions.push(if element == pg_sys::InvalidOid {
            call
        } else {
            Action::Elements { actions: vec![call], from: element, to: element }
        });
    }

    fn settings_of(&self, stop: &Stop) -> Option<Settings> {
        self.settings.get(stop.version).cloned()
    }

    /// Calls a cast of the server, or what fits to a modifier.
    fn call(
        &self,
        function: pg_sys::Oid,
        modifier: i32,
        stop: &Stop,
        is_fit: bool,
        settings: Option<Settings>,
    ) -> Action {
        // SAFETY: looks the function up in the catalogs.
        let arguments = unsafe { pg_sys::get_func_nargs(function) };
        let function = self.home.function(function);
        Action::Call { function, arguments, modifier, is_explicit: stop.is_explicit, is_fit, settings }
    }

    /// Reads the text of values of a type of the server as another type.
    fn through_text(&self, source: pg_sys::Oid, target: Reader, settings: Option<Settings>) -> Action {
        let (mut output, mut is_varlena) = (pg_sys::InvalidOid, false);
        // SAFETY: looks the type up in the catalogs; the pointers are to locals.
        unsafe { pg_sys::getTypeOutputInfo(source, &mut output, &mut is_varlena) };
        Action::Text { output: self.home.function(output), target: Box::new(target), settings }
    }
}

/// Whether a type is in the catalogs.
pub fn is_there(type_oid: pg_sys::Oid) -> bool {
    let (cache, key) = (pg_sys::SysCacheIdentifier::TYPEOID as i32, pg_sys::Datum::from(type_oid));
    let none = pg_sys::Datum::from(0);
    // SAFETY: looks a type up in the catalogs.
    unsafe { pg_sys::SearchSysCacheExists(cache, key, none, none, none) }
}

fn no_cast(source: pg_sys::Oid, target: pg_sys::Oid) -> String {
    format!("the server has no cast of its own from {} to {}", type_name(source), type_name(target))
}

/// Whether casts of a type, or of its text form, do not depend on settings.
fn is_plain(type_oid: pg_sys::Oid) -> bool {
    matches!(
        type_oid,
        pg_sys::BOOLOID
            | pg_sys::INT2OID
            | pg_sys::INT4OID
            | pg_sys::INT8OID
            | pg_sys::NUMERICOID
            | pg_sys::TEXTOID
            | pg_sys::VARCHAROID
            | pg_sys::BPCHAROID
            | pg_sys::NAMEOID
            | pg_sys::UUIDOID
            | pg_sys::JSONOID
            | pg_sys::JSONBOID
            | pg_sys::INETOID
    )
}

/// Whether the cast functions of a type depend on settings.
fn asks_settings(type_oid: pg_sys::Oid) -> bool {
    matches!(
        type_oid,
        pg_sys::TIMESTAMPTZOID | pg_sys::TIMETZOID | pg_sys::MONEYOID | pg_sys::XMLOID | pg_sys::REGCLASSOID
    )
}

impl Conversion {
    /// Converts a value, into the current memory context; unless it is to be fitted, without what fits it to modifiers.
    ///
    /// # Safety
    /// The value is of the type from which this was built.
    pub unsafe fn run(&mut self, value: pg_sys::Datum, is_fitted: bool) -> Result<pg_sys::Datum, Failure> {
        // SAFETY: the actions lead from that type on.
        unsafe { run(&mut self.actions, value, is_fitted) }
    }
}

/// # Safety
/// The value is of the type from which the actions lead.
unsafe fn run(actions: &mut [Action], mut value: pg_sys::Datum, is_fitted: bool) -> Result<pg_sys::Datum, Failure> {
    for action in actions {
        // SAFETY: each action takes the type that the one before it gives: a cast its source, an output function its type, labels
        // are text, and the elements are those of an array. A cast has as many arguments as the catalogs say.
        value = unsafe {
            match action {
                Action::Call { is_fit: true, .. } if !is_fitted => value,
                Action::Call { function, arguments, modifier, is_explicit, settings, .. } => {
                    let mut call = || match *arguments {
                        1 => pg_sys::FunctionCall1Coll(&mut **function, pg_sys::DEFAULT_COLLATION_OID, value),
                        2 => pg_sys::FunctionCall2Coll(
                            &mut **function,
                            pg_sys::DEFAULT_COLLATION_OID,
                            value,
                            pg_sys::Datum::from(*modifier),
                        ),
                        _ => pg_sys::FunctionCall3Coll(
                            &mut **function,
                            pg_sys::DEFAULT_COLLATION_OID,
                            value,
                            pg_sys::Datum::from(*modifier),
                            pg_sys::Datum::from(*is_explicit),
                        ),
                    };
                    match settings {
                        Some(settings) => guard::with_those_of(settings, call),
                        None => call(),
                    }
                }
                Action::Text { output, target, settings } => {
                    let mut read = || {
                        let text = pg_sys::OutputFunctionCall(&mut **output, value);
                        target.parse(CStr::from_ptr(text))
                    };
                    let read = match settings {
                        Some(settings) => guard::with_those_of(settings, read),
                        None => read(),
                    };
                    read?.ok_or_else(|| Failure::new("a text became no value"))?
                }
                Action::Rename(labels) => {
                    let text = arguments::bytes(value);
                    labels.get(&text).map_or(value, |label| arguments::text(label))
                }
                Action::Elements { actions, from, to } => elements(actions, value, *from, *to, is_fitted)?,
            }
        };
    }
    Ok(value)
}

/// # Safety
/// The value is an array of the type `from`, whose elements the actions make to values of the type `to`.
unsafe fn elements(
    actions: &mut [Action],
    array: pg_sys::Datum,
    from: pg_sys::Oid,
    to: pg_sys::Oid,
    is_fitted: bool,
) -> Result<pg_sys::Datum, Failure> {
    let storage = |type_oid| {
        let (mut length, mut is_by_value, mut alignment) = (0, false, 0);
        // SAFETY: looks a type up in the catalogs; the pointers are to locals.
        unsafe { pg_sys::get_typlenbyvalalign(type_oid, &mut length, &mut is_by_value, &mut alignment) };
        (length, is_by_value, alignment)
    };
    let (mut values, mut nulls, mut count) = (core::ptr::null_mut(), core::ptr::null_mut(), 0);
    // SAFETY: detoasted, an array is what its header says. The server makes as many values and nulls as it says, and the new array
    // has the same dimensions and lower bounds, which stand behind one another in the header of the old one.
    unsafe {
        let array: *mut pg_sys::ArrayType = pg_sys::pg_detoast_datum(array.cast_mut_ptr()).cast();
        let (length, is_by_value, alignment) = storage(from);
        pg_sys::deconstruct_array(
            array,
            from,
            length.into(),
            is_by_value,
            alignment,
            &mut values,
            &mut nulls,
            &mut count,
        );
        for index in 0..usize::try_from(count).unwrap_or(0) {
            if !*nulls.add(index) {
                *values.add(index) = run(actions, *values.add(index), is_fitted)?;
            }
        }
        let (length, is_by_value, alignment) = storage(to);
        let dimensions: *mut i32 = array.cast::<u8>().add(size_of::<pg_sys::ArrayType>()).cast();
        let lower_bounds = dimensions.add(usize::try_from((*array).ndim).unwrap_or(0));
        Ok(pg_sys::Datum::from(pg_sys::construct_md_array(
            values,
            nulls,
            (*array).ndim,
            dimensions,
            lower_bounds,
            to,
            length.into(),
            is_by_value,
            alignment,
        )))
    }
}
