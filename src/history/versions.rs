//! What a table was like, version by version, as `bemi.versions_of()` has it: the names and types of its columns, what the types
//! were made of, and how one type became the next.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::rc::Rc;

use super::stored_jsonb::{self, Container, Value};

/// A type and its modifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Its OID.
    pub oid: u32,
    /// Its modifier, or -1.
    pub modifier: i32,
}

/// What a type is made of that is not the server's own.
#[derive(Debug, PartialEq)]
pub enum Definition {
    /// The labels and their OIDs.
    Enum(Vec<(u32, Vec<u8>)>),
    /// Its columns.
    Composite(Vec<Attribute>),
    /// Of another type.
    Domain(Kind),
    /// Of elements of a type.
    Array(u32),
    /// Of values of a type.
    Range(u32),
    /// Of ranges of a type.
    Multirange(u32),
    /// It is none of these.
    Other,
}

/// A column of a composite type.
#[derive(Debug, PartialEq)]
pub struct Attribute {
    /// Its number.
    pub number: i16,
    /// Its name.
    pub name: Vec<u8>,
    /// Its type.
    pub kind: Kind,
}

/// The types of a table's columns, by their numbers, and what types were made of.
#[derive(Debug, Default)]
pub struct Types {
    /// By the numbers of the columns.
    pub columns: HashMap<i16, Kind>,
    /// By the OIDs of the types.
    pub defined: HashMap<u32, Definition>,
}

/// How ALTER TABLE made the new values of a column.
#[derive(Clone, Debug, PartialEq)]
pub enum Rewrite {
    /// By these casts, which are explicit, and an assignment.
    Casts(Vec<Kind>),
    /// By an expression.
    Unknown,
}

/// What a table was like from a position of WAL on.
#[derive(Debug)]
pub struct Version {
    /// From there on.
    pub position: i64,
    /// When it was noted, as text.
    pub at: Vec<u8>,
    /// Whether it was noted later than it came.
    pub is_late: bool,
    /// The names of the columns, by their numbers.
    pub columns: Rc<HashMap<i16, Vec<u8>>>,
    /// None if they are not known.
    pub types: Option<Rc<Types>>,
    /// By the numbers of the columns that its statement rewrote.
    pub rewrites: HashMap<i16, Rewrite>,
    /// The settings under which the columns were rewritten.
    pub settings: Rc<Vec<(Vec<u8>, Vec<u8>)>>,
}

/// All versions of a table.
#[derive(Debug)]
pub struct Versions {
    /// The name of the table today.
    pub name: Vec<u8>,
    /// The names of its columns today, by their numbers.
    pub today: HashMap<i16, Vec<u8>>,
    /// Names of columns that are masked, or once were.
    pub masked: Vec<Vec<u8>>,
    /// From the oldest on.
    pub all: Vec<Version>,
}

/// A type that a value has on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// The type.
    pub kind: Kind,
    /// Whether an explicit cast leads to it, rather than an assignment.
    pub is_explicit: bool,
    /// The version whose statement gave it this type; of the first one, the version of the value.
    pub version: usize,
}

/// Through which types the values of a column went.
#[derive(Debug, PartialEq)]
pub struct Way {
    /// From the first type to the last.
    pub stops: Vec<Stop>,
    /// The last version whose statement changed values nobody knows how.
    pub unknown: Option<usize>,
}

type Members<'a> = HashMap<&'a [u8], Value<'a>>;

fn members(value: Value<'_>) -> Option<Members<'_>> {
    match value {
        Value::Object(object) => object.members()?.collect(),
        _ => None,
    }
}

fn integer<T: std::str::FromStr>(value: Value) -> Option<T> {
    match value {
        Value::Number(stored) => stored_jsonb::integer(stored),
        Value::String(text) => number(text),
        _ => None,
    }
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn text(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.to_vec()),
        _ => None,
    }
}

fn texts(object: Value) -> Option<HashMap<i16, Vec<u8>>> {
    members(object)?.into_iter().map(|(key, value)| Some((number(key)?, text(value)?))).collect()
}

fn elements(array: Value<'_>) -> Option<Vec<Value<'_>>> {
    match array {
        Value::Array(array) => array.elements()?.collect(),
        _ => None,
    }
}

fn kind(pair: Value) -> Option<Kind> {
    let pair = elements(pair)?;
    Some(Kind { oid: integer(*pair.first()?)?, modifier: integer(*pair.get(1)?)? })
}

fn attribute(number: i16, triple: Value) -> Option<Attribute> {
    let triple = elements(triple)?;
    let kind = Kind { oid: integer(*triple.get(1)?)?, modifier: integer(*triple.get(2)?)? };
    Some(Attribute { number, name: text(*triple.first()?)?, kind })
}

fn definition(value: Value) -> Option<Definition> {
    let members = members(value)?;
    let member = |name: &[u8]| members.get(name).copied();
    Some(if let Some(labels) = member(b"labels") {
        let labels = match labels {
            Value::Null => Members::new(),
            labels => self::members(labels)?,
        };
        Definition::Enum(
            labels.into_iter().map(|(oid, label)| Some((number(oid)?, text(label)?))).collect::<Option<_>>()?,
        )
    } else if let Some(attributes) = member(b"attributes") {
        let attributes = self::members(attributes)?.into_iter();
        Definition::Composite(attributes.map(|(key, value)| attribute(number(key)?, value)).collect::<Option<_>>()?)
    } else if let Some(base) = member(b"base") {
        Definition::Domain(kind(base)?)
    } else if let Some(element) = member(b"element") {
        Definition::Array(integer(element)?)
    } else if let Some(subtype) = member(b"subtype") {
        Definition::Range(integer(subtype)?)
    } else if let Some(range) = member(b"range") {
        Definition::Multirange(integer(range)?)
    } else {
        Definition::Other
    })
}

fn types(value: Value) -> Option<Types> {
    let parts = members(value)?;
    let columns = members(*parts.get(&b"columns"[..])?)?;
    let defined = members(*parts.get(&b"defined"[..])?)?;
    Some(Types {
        columns: columns.into_iter().map(|(key, pair)| Some((number(key)?, kind(pair)?))).collect::<Option<_>>()?,
        defined: defined
            .into_iter()
            .map(|(key, value)| Some((number(key)?, definition(value)?)))
            .collect::<Option<_>>()?,
    })
}

fn rewrite(value: Value) -> Option<Rewrite> {
    Some(match value {
        Value::Null => Rewrite::Unknown,
        casts => Rewrite::Casts(elements(casts)?.into_iter().map(kind).collect::<Option<_>>()?),
    })
}

impl Versions {
    /// Reads versions from their JSON, where null stands for what is as in the version before. None if it is no such JSON.
    pub fn parse(document: Container) -> Option<Self> {
        let parts = members(Value::Object(document))?;
        let part = |name: &[u8]| parts.get(name).copied();
        let mut all: Vec<Version> = Vec::new();
        for version in elements(part(b"versions")?)? {
            let parts = members(version)?;
            let part = |name: &[u8]| parts.get(name).copied().filter(|value| *value != Value::Null);
            let before = all.last();
            let columns = match (part(b"columns"), before) {
                (Some(columns), _) => Rc::new(texts(columns)?),
                (None, before) => before?.columns.clone(),
            };
            let types = match (part(b"types"), before) {
                (Some(types), _) => Some(Rc::new(self::types(types)?)),
                (None, before) => before.and_then(|before| before.types.clone()),
            };
            let (mut rewrites, mut settings) = (HashMap::new(), Vec::new());
            if let Some(rewritten) = part(b"rewrites") {
                let parts = members(rewritten)?;
                for (column, how) in members(*parts.get(&b"columns"[..])?)? {
                    rewrites.insert(number(column)?, rewrite(how)?);
                }
                for (name, value) in members(*parts.get(&b"settings"[..])?)? {
                    settings.push((name.to_vec(), text(value)?));
                }
            }
            all.push(Version {
                position: integer(part(b"position")?)?,
                at: text(part(b"at")?)?,
                is_late: part(b"is_late") == Some(Value::Boolean(true)),
                columns,
                types,
                rewrites,
                settings: Rc::new(settings),
            });
        }
        Some(Self {
            name: text(part(b"name")?)?,
            today: texts(part(b"today")?)?,
            masked: elements(part(b"masked")?)?.into_iter().map(text).collect::<Option<_>>()?,
            all,
        })
    }

    /// Returns the version of what was recorded at a position of WAL; the first one for what is older. None if there is none.
    pub fn at(&self, position: i64) -> Option<usize> {
        let later = self.all.partition_point(|version| version.position <= position);
        (!self.all.is_empty()).then(|| later.saturating_sub(1))
    }

    /// Returns the types through which values of a column have gone since a version. None if they are not known.
    pub fn way(&self, number: i16, from: usize) -> Option<Way> {
        let kind = |version: &Version| version.types.as_ref()?.columns.get(&number).copied();
        let first = self.all.get(from)?;
        let mut way = Way { stops: vec![Stop { kind: kind(first)?, is_explicit: true, version: from }], unknown: None };
        for (index, version) in self.all.iter().enumerate().skip(from + 1) {
            let (Some(next), Some(last)) = (kind(version), way.stops.last().map(|stop| stop.kind)) else { continue };
            match version.rewrites.get(&number) {
                Some(Rewrite::Casts(casts)) => {
                    // The column's own new type has no OID there.
                    let kind = |cast: &Kind| if cast.oid == 0 { next } else { *cast };
                    let stop = |cast: &Kind| Stop { kind: kind(cast), is_explicit: true, version: index };
                    way.stops.extend(casts.iter().map(stop));
                    way.stops.push(Stop { kind: next, is_explicit: false, version: index });
                }
                Some(Rewrite::Unknown) => {
                    way.unknown = Some(index);
                    way.stops.push(Stop { kind: next, is_explicit: true, version: index });
                }
                None if next != last => {
                    if version.is_late {
                        way.unknown = Some(index);
                    }
                    way.stops.push(Stop { kind: next, is_explicit: version.is_late, version: index });
                }
                None => {}
            }
        }
        Some(way)
    }

    /// Whether a column is masked, or once was, under any of its names.
    pub fn is_masked(&self, number: i16) -> bool {
        !self.masked.is_empty()
            && self
                .all
                .iter()
                .filter_map(|version| version.columns.get(&number))
                .chain(self.today.get(&number))
                .any(|name| self.masked.contains(name))
    }
}

impl Types {
    /// Returns what a type was made of, if it was an enum: its labels and their OIDs.
    pub fn labels(&self, oid: u32) -> Option<&[(u32, Vec<u8>)]> {
        match self.defined.get(&oid)? {
            Definition::Enum(labels) => Some(labels),
            _ => None,
        }
    }

    /// Returns the type of which a type was a domain; of another type, itself.
    pub fn base(&self, mut kind: Kind) -> Kind {
        // A domain is never over itself, so this ends.
        for _ in 0..self.defined.len() {
            match self.defined.get(&kind.oid) {
                Some(Definition::Domain(base)) => {
                    kind =
                        Kind { oid: base.oid, modifier: if base.modifier < 0 { kind.modifier } else { base.modifier } };
                }
                _ => break,
            }
        }
        kind
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(oid: Option<u32>, rewrite: Option<Rewrite>, is_late: bool) -> Version {
        let columns = oid.map(|oid| (1, Kind { oid, modifier: -1 })).into_iter().collect();
        Version {
            position: 0,
            at: Vec::new(),
            is_late,
            columns: Rc::default(),
            types: Some(Rc::new(Types { columns, defined: HashMap::new() })),
            rewrites: rewrite.map(|rewrite| (1, rewrite)).into_iter().collect(),
            settings: Rc::default(),
        }
    }

    fn versions(all: Vec<Version>) -> Versions {
        Versions { name: Vec::new(), today: HashMap::new(), masked: Vec::new(), all }
    }

    fn oids(way: &Way) -> Vec<(u32, bool)> {
        way.stops.iter().map(|stop| (stop.kind.oid, stop.is_explicit)).collect()
    }

    #[test]
    fn a_value_goes_through_all_types_that_its_column_had_since() {
        let casts = Rewrite::Casts([25, 0].map(|oid| Kind { oid, modifier: -1 }).to_vec());
        let all = versions(vec![
            version(Some(23), None, false),
            version(Some(20), Some(Rewrite::Casts(Vec::new())), false),
            version(Some(20), None, false),
            version(Some(99), Some(casts), false),
        ]);
        let way = all.way(1, 0).unwrap();
        assert_eq!(oids(&way), [(23, true), (20, false), (25, true), (99, true), (99, false)]);
        assert_eq!(way.unknown, None);
        assert_eq!(oids(&all.way(1, 3).unwrap()), [(99, true)]);
        assert_eq!(all.way(2, 0), None);
    }

    #[test]
    fn what_an_expression_made_is_not_known() {
        let all = versions(vec![
            version(Some(23), None, false),
            version(Some(23), Some(Rewrite::Unknown), false),
            version(Some(25), None, true),
        ]);
        assert_eq!(all.way(1, 0).unwrap().unknown, Some(2));
        assert_eq!(all.way(1, 2).unwrap().unknown, None);
    }

    #[test]
    fn the_version_of_a_position_is_the_last_one_before_it() {
        let mut all = vec![version(None, None, false), version(None, None, false)];
        all[0].position = 10;
        all[1].position = 20;
        let all = versions(all);
        assert_eq!([5, 10, 19, 20, 30].map(|position| all.at(position)), [0, 0, 0, 1, 1].map(Some));
        assert_eq!(versions(Vec::new()).at(1), None);
    }
}
