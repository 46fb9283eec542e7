//! Lists of names in options, and which tables and messages they choose: wal2json's syntax.
//!
//! A list has its items between commas, with white space around them ignored. A backslash makes the character after
//! it an ordinary one, which a comma, a period, an asterisk, a double quote, a backslash or white space is not.
#![forbid(unsafe_code)]

use std::fmt;

/// Why a list cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListError {
    /// There is nothing between two commas, or behind the last.
    EmptyItem,
    /// The last character is a backslash.
    Unescaped,
    /// An item has white space in its middle; the item.
    Space(String),
    /// An item has a double quote: names are escaped, not quoted; the item.
    Quote(String),
    /// An item of a list of tables has not exactly one period that is not escaped, or nothing on a side of it.
    NotQualified(String),
    /// An asterisk is only a part of a name; the item.
    Asterisk(String),
}

impl fmt::Display for ListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptyItem => f.write_str("An item of the list is empty."),
            Self::Unescaped => f.write_str("The backslash at the end has no character to escape."),
            Self::Space(item) => write!(f, "The item {item} has a space that is not escaped."),
            Self::Quote(item) => write!(f, "The item {item} has a double quote; names are escaped, not quoted."),
            Self::NotQualified(item) => write!(f, "The item {item} is not of the form schema.table."),
            Self::Asterisk(item) => write!(f, "The asterisk in the item {item} is only a part of a name."),
        }
    }
}

/// One character of an item, and whether a backslash made it an ordinary one.
type Character = (char, bool);

/// The items of a list; none if it is blank.
fn items(list: &str) -> Result<Vec<Vec<Character>>, ListError> {
    if list.trim_ascii().is_empty() {
        return Ok(Vec::new());
    }
    let mut all = vec![Vec::new()];
    let mut characters = list.chars();
    while let Some(character) = characters.next() {
        match (character, all.last_mut()) {
            (',', _) | (_, None) => all.push(Vec::new()),
            ('\\', Some(item)) => item.push((characters.next().ok_or(ListError::Unescaped)?, true)),
            (character, Some(item)) => item.push((character, false)),
        }
    }
    all.into_iter().map(trimmed).collect()
}

fn trimmed(item: Vec<Character>) -> Result<Vec<Character>, ListError> {
    let is_space = |(character, is_escaped): &Character| !is_escaped && character.is_ascii_whitespace();
    let start = item.iter().position(|c| !is_space(c)).ok_or(ListError::EmptyItem)?;
    let end = item.iter().rposition(|c| !is_space(c)).map_or(start, |last| last + 1);
    let item = &item[start..end];
    if item.iter().any(is_space) {
        return Err(ListError::Space(text(item)));
    }
    if item.contains(&('"', false)) {
        return Err(ListError::Quote(text(item)));
    }
    Ok(item.to_vec())
}

/// The item without its backslashes.
fn text(item: &[Character]) -> String {
    item.iter().map(|(character, _)| character).collect()
}

/// The items of a list of plain names.
pub fn names(list: &str) -> Result<Vec<String>, ListError> {
    Ok(items(list)?.iter().map(|item| text(item)).collect())
}

/// A name, or all names.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Any,
    Name(String),
}

impl Pattern {
    fn read(part: &[Character], item: &[Character]) -> Result<Self, ListError> {
        match part {
            [('*', false)] => Ok(Self::Any),
            _ if part.contains(&('*', false)) => Err(ListError::Asterisk(text(item))),
            _ => Ok(Self::Name(text(part))),
        }
    }

    fn matches(&self, name: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Name(ours) => ours.as_bytes() == name,
        }
    }
}

/// Tables as options name them: `schema.table`, `*.table`, `schema.*`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables(Vec<(Pattern, Pattern)>);

impl Tables {
    /// Reads a list.
    pub fn parse(list: &str) -> Result<Self, ListError> {
        let read = |item: Vec<Character>| {
            let mut parts = item.split(|character| *character == ('.', false));
            match (parts.next(), parts.next(), parts.next()) {
                (Some(schema), Some(table), None) if !schema.is_empty() && !table.is_empty() => {
                    Ok((Pattern::read(schema, &item)?, Pattern::read(table, &item)?))
                }
                _ => Err(ListError::NotQualified(text(&item))),
            }
        };
        Ok(Self(items(list)?.into_iter().map(read).collect::<Result<_, _>>()?))
    }

    /// Whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a table is in the list. Names are in UTF-8.
    pub fn contain(&self, schema: &[u8], table: &[u8]) -> bool {
        self.0.iter().any(|(schemas, tables)| schemas.matches(schema) && tables.matches(table))
    }
}

/// Prefixes of messages as options name them; an asterisk stands for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefixes(Vec<Pattern>);

impl Prefixes {
    /// Reads a list.
    pub fn parse(list: &str) -> Result<Self, ListError> {
        Ok(Self(items(list)?.iter().map(|item| Pattern::read(item, item)).collect::<Result<_, _>>()?))
    }

    /// Whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a prefix is in the list, in UTF-8.
    pub fn contain(&self, prefix: &[u8]) -> bool {
        self.0.iter().any(|pattern| pattern.matches(prefix))
    }

    /// Whether a prefix is in the list by its name.
    pub fn name(&self, prefix: &[u8]) -> bool {
        self.0.iter().any(|pattern| *pattern != Pattern::Any && pattern.matches(prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn contains(list: &str, schema: &str, table: &str) -> bool {
        Tables::parse(list).unwrap().contain(schema.as_bytes(), table.as_bytes())
    }

    #[test]
    fn tables_are_named_with_their_schema_or_with_an_asterisk() {
        assert!(contains("public.todo", "public", "todo"));
        assert!(!contains("public.todo", "public", "Todo"));
        assert!(!contains("public.todo", "other", "todo"));
        assert!(contains(" a.b ,\tc.d\n", "c", "d"));
        assert!(contains("*.todo", "other", "todo"));
        assert!(!contains("*.todo", "other", "done"));
        assert!(contains("public.*", "public", "anything at all"));
        assert!(!contains("public.*", "publi", "c"));
        assert!(contains("*.*", "", ""));
        assert!(Tables::parse(" \t").unwrap().is_empty());
    }

    #[test]
    fn a_backslash_makes_a_character_ordinary() {
        assert!(contains(r"public.Foo\ bar", "public", "Foo bar"));
        assert!(contains(r"a\.b.c\,d", "a.b", "c,d"));
        assert!(contains(r"\*.t", "*", "t"));
        assert!(!contains(r"\*.t", "s", "t"));
        assert!(contains(r#"s.a\"b\\c\'d'"#, "s", r#"a"b\c'd'"#));
        assert!(contains(r"s.\t", "s", "t"));
        assert!(contains(r"é.日\ 本", "é", "日 本"));
        assert!(contains(r"s.\ ", "s", " "));
    }

    #[test]
    fn wrong_lists_are_refused_with_the_item() {
        let error = |list: &str| Tables::parse(list).unwrap_err();
        for list in [",", "a.b,", "a.b,,c.d", ",a.b"] {
            assert_eq!(error(list), ListError::EmptyItem, "{list}");
        }
        for list in ["todo", "a.b.c", ".b", "a.", "."] {
            assert_eq!(error(list), ListError::NotQualified(list.into()), "{list}");
        }
        assert_eq!(error("a.b c"), ListError::Space("a.b c".into()));
        assert_eq!(error(r#"public."Foo""#), ListError::Quote(r#"public."Foo""#.into()));
        assert_eq!(error("public.foo*"), ListError::Asterisk("public.foo*".into()));
        assert_eq!(error("**.foo"), ListError::Asterisk("**.foo".into()));
        assert_eq!(error("a.b\\"), ListError::Unescaped);
    }

    #[test]
    fn prefixes_are_names_or_an_asterisk() {
        let prefixes = Prefixes::parse(r"audit, my.app, \*, a\ b").unwrap();
        for prefix in ["audit", "my.app", "*", "a b"] {
            assert!(prefixes.contain(prefix.as_bytes()) && prefixes.name(prefix.as_bytes()), "{prefix}");
        }
        assert!(!prefixes.contain(b"other"));
        let all = Prefixes::parse("*").unwrap();
        assert!(all.contain(b"other") && !all.name(b"other"));
        assert_eq!(Prefixes::parse("au*"), Err(ListError::Asterisk("au*".into())));
        assert_eq!(names(r" 16 , a\,b"), Ok(vec!["16".to_owned(), "a,b".to_owned()]));
    }

    proptest! {
        /// However a name is made, escaped it is found again, and nothing else is.
        #[test]
        fn every_name_can_be_written(schema in "\\PC{1,8}|[ .,*\"\\\\\n]{1,4}", table in "\\PC{1,8}|[ .,*\"\\\\\n]{1,4}") {
            let escape = |name: &str| name.chars().flat_map(|c| ['\\', c]).collect::<String>();
            let list = ["x.y, ", &escape(&schema), ".", &escape(&table)].concat();
            let tables = Tables::parse(&list).unwrap();
            prop_assert!(tables.contain(schema.as_bytes(), table.as_bytes()));
            prop_assert!(!tables.contain(table.as_bytes(), [schema.as_bytes(), b"."].concat().as_slice()));
        }
    }
}
