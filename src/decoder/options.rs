//! The options that a reader gives to the output plugin (`pg_recvlogical -o name=value`): raw pairs become one checked
//! struct. Where an option means the same as one of wal2json, test_decoding or pgoutput, it has that name.
#![forbid(unsafe_code)]

use std::fmt;

use super::filter::{ListError, Prefixes, Tables, names};
use crate::document::operation::Operation;

/// Largest value of `batch-bytes`.
pub const MAX_BATCH_BYTES: usize = 64 << 20;

/// The checked options of one reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `add-tables`: these tables only; all, if the list is empty.
    pub add_tables: Tables,
    /// `filter-tables`: not these tables.
    pub filter_tables: Tables,
    /// `actions`: these operations only.
    pub actions: Actions,
    /// `tracked-only`: only tables that carry the context trigger.
    pub tracked_only: bool,
    /// `add-msg-prefixes`: messages to pass on.
    pub add_msg_prefixes: Prefixes,
    /// `filter-msg-prefixes`: messages not to pass on.
    pub filter_msg_prefixes: Prefixes,
    /// `filter-origins`: replication origins whose changes are dropped, by number or name.
    pub filter_origins: Vec<String>,
    /// `only-local`: drop the changes of all replication origins.
    pub only_local: bool,
    /// `include-transaction`: documents at the beginning and end of each transaction.
    pub include_transaction: bool,
    /// `include-origin`: name the replication origin of each change.
    pub include_origin: bool,
    /// `include-relation`: the OID of the table whose row changed.
    pub include_relation: bool,
    /// `repeat-context`: the context in each document, and not only where it is another one than in that before.
    pub repeat_context: bool,
    /// `numeric-data-types-as-string`: numbers as JSON strings.
    pub numbers_as_strings: bool,
    /// `publish-via-partition-root`: changes of partitions under the name of their root.
    pub via_partition_root: bool,
    /// `pretty-print`: indented documents.
    pub pretty_print: bool,
    /// `stream-changes`: transactions while they are in progress.
    pub stream_changes: bool,
    /// `two-phase`: prepared transactions when they are prepared. Not given, the slot decides.
    pub two_phase: Option<bool>,
    /// `batch-bytes`: join documents to messages of up to this size; 0 for none.
    pub batch_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            add_tables: Tables::default(),
            filter_tables: Tables::default(),
            actions: Actions::default(),
            tracked_only: false,
            add_msg_prefixes: Prefixes::default(),
            filter_msg_prefixes: Prefixes::default(),
            filter_origins: Vec::new(),
            only_local: false,
            include_transaction: false,
            include_origin: false,
            include_relation: false,
            repeat_context: true,
            numbers_as_strings: false,
            via_partition_root: false,
            pretty_print: false,
            stream_changes: false,
            two_phase: None,
            batch_bytes: 0,
        }
    }
}

/// The operations that are shown; at first, all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Actions([bool; 4]);

impl Default for Actions {
    fn default() -> Self {
        Self([true; 4])
    }
}

impl Actions {
    /// Whether an operation is shown. Messages have options of their own.
    pub fn contain(self, operation: Operation) -> bool {
        self.0.get(operation as usize).copied().unwrap_or(true)
    }
}

/// Why options were refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionError {
    /// There is no option of this name.
    Unknown(String),
    /// An option was given twice.
    Twice(&'static str),
    /// An option has a value that it does not take.
    Value {
        /// The option.
        name: &'static str,
        /// Its value; none where one is needed and was not given.
        value: Option<String>,
        /// What is wrong with it, if there is more to say.
        detail: Option<ListError>,
    },
}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => write!(f, "bemi_decoder has no option \"{name}\""),
            Self::Twice(name) => write!(f, "option \"{name}\" of bemi_decoder is given twice"),
            Self::Value { name, value: Some(value), .. } => {
                write!(f, "option \"{name}\" of bemi_decoder does not take the value \"{value}\"")
            }
            Self::Value { name, value: None, .. } => write!(f, "option \"{name}\" of bemi_decoder needs a value"),
        }
    }
}

const BOOLEAN: &str = "true (also if no value is given) or false";
const TABLES: &str = "tables as schema.table, *.table or schema.*, with commas between them; special characters are \
                      escaped with a backslash, as in public.Foo\\ bar";
const PREFIXES: &str =
    "prefixes with commas between them, or * for all; special characters are escaped with a backslash";

/// Each option, and what it takes.
const OPTIONS: [(&str, &str); 18] = [
    ("add-tables", TABLES),
    ("filter-tables", TABLES),
    ("actions", "one or more of insert, update, delete, truncate, with commas between them"),
    ("tracked-only", BOOLEAN),
    ("add-msg-prefixes", PREFIXES),
    ("filter-msg-prefixes", PREFIXES),
    ("filter-origins", "numbers or names of replication origins, with commas between them"),
    ("only-local", BOOLEAN),
    ("include-transaction", BOOLEAN),
    ("include-origin", BOOLEAN),
    ("include-relation", BOOLEAN),
    ("repeat-context", BOOLEAN),
    ("numeric-data-types-as-string", BOOLEAN),
    ("publish-via-partition-root", BOOLEAN),
    ("pretty-print", BOOLEAN),
    ("stream-changes", BOOLEAN),
    ("two-phase", BOOLEAN),
    ("batch-bytes", "a number of bytes from 0 to 67108864"),
];

impl OptionError {
    /// What is wrong, where the message does not say it all.
    pub fn detail(&self) -> Option<String> {
        match self {
            Self::Value { detail: Some(detail), .. } => Some(detail.to_string()),
            _ => None,
        }
    }

    /// What is accepted.
    pub fn hint(&self) -> String {
        match self {
            Self::Unknown(_) => format!("Its options are {}.", OPTIONS.map(|(name, _)| name).join(", ")),
            Self::Twice(_) => "Give it once; a list has commas between its items.".to_owned(),
            Self::Value { name, .. } => {
                let takes = OPTIONS.iter().find(|(known, _)| known == name).map_or("", |(_, takes)| takes);
                format!("It takes {takes}.")
            }
        }
    }
}

/// One option as it was given.
struct Given<'a> {
    name: &'static str,
    value: Option<&'a str>,
}

impl Given<'_> {
    fn wrong(&self, detail: Option<ListError>) -> OptionError {
        OptionError::Value { name: self.name, value: self.value.map(str::to_owned), detail }
    }

    fn text(&self) -> Result<&str, OptionError> {
        self.value.ok_or_else(|| self.wrong(None))
    }

    fn list<T>(&self, parse: impl FnOnce(&str) -> Result<T, ListError>) -> Result<T, OptionError> {
        parse(self.text()?).map_err(|detail| self.wrong(Some(detail)))
    }

    /// As the server reads a boolean setting.
    fn boolean(&self) -> Result<bool, OptionError> {
        let Some(value) = self.value else { return Ok(true) };
        let value = value.to_ascii_lowercase();
        let is_start_of = |word: &str, from: usize| value.len() >= from && word.starts_with(&value);
        if is_start_of("true", 1) || is_start_of("yes", 1) || value == "on" || value == "1" {
            Ok(true)
        } else if is_start_of("false", 1) || is_start_of("no", 1) || is_start_of("off", 2) || value == "0" {
            Ok(false)
        } else {
            Err(self.wrong(None))
        }
    }

    fn actions(&self) -> Result<Actions, OptionError> {
        let names = self.list(names)?;
        let mut actions = Actions([false; 4]);
        for name in &names {
            let operation = match name.to_ascii_lowercase().as_str() {
                "insert" => Operation::Create,
                "update" => Operation::Update,
                "delete" => Operation::Delete,
                "truncate" => Operation::Truncate,
                _ => return Err(self.wrong(None)),
            };
            if let Some(action) = actions.0.get_mut(operation as usize) {
                *action = true;
            }
        }
        if names.is_empty() { Err(self.wrong(None)) } else { Ok(actions) }
    }

    fn bytes(&self) -> Result<usize, OptionError> {
        let digits = self.text()?.trim_ascii();
        let number = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten();
        number.filter(|number| *number <= MAX_BATCH_BYTES).ok_or_else(|| self.wrong(None))
    }
}

impl Options {
    /// Reads options from pairs of name and value.
    pub fn parse<'a>(pairs: impl IntoIterator<Item = (&'a str, Option<&'a str>)>) -> Result<Self, OptionError> {
        let mut options = Self::default();
        let mut seen: Vec<&str> = Vec::new();
        for (name, value) in pairs {
            let known = OPTIONS.iter().find(|(known, _)| *known == name);
            let Some(&(name, _)) = known else { return Err(OptionError::Unknown(name.to_owned())) };
            if seen.contains(&name) {
                return Err(OptionError::Twice(name));
            }
            seen.push(name);
            let given = Given { name, value };
            match name {
                "add-tables" => options.add_tables = given.list(Tables::parse)?,
                "filter-tables" => options.filter_tables = given.list(Tables::parse)?,
                "actions" => options.actions = given.actions()?,
                "tracked-only" => options.tracked_only = given.boolean()?,
                "add-msg-prefixes" => options.add_msg_prefixes = given.list(Prefixes::parse)?,
                "filter-msg-prefixes" => options.filter_msg_prefixes = given.list(Prefixes::parse)?,
                "filter-origins" => options.filter_origins = given.list(names)?,
                "only-local" => options.only_local = given.boolean()?,
                "include-transaction" => options.include_transaction = given.boolean()?,
                "include-origin" => options.include_origin = given.boolean()?,
                "include-relation" => options.include_relation = given.boolean()?,
                "repeat-context" => options.repeat_context = given.boolean()?,
                "numeric-data-types-as-string" => options.numbers_as_strings = given.boolean()?,
                "publish-via-partition-root" => options.via_partition_root = given.boolean()?,
                "pretty-print" => options.pretty_print = given.boolean()?,
                "stream-changes" => options.stream_changes = given.boolean()?,
                "two-phase" => options.two_phase = Some(given.boolean()?),
                "batch-bytes" => options.batch_bytes = given.bytes()?,
                _ => return Err(OptionError::Unknown(name.to_owned())),
            }
        }
        Ok(options)
    }

    /// Whether the changes of a table are shown, by its name in UTF-8.
    pub fn shows_table(&self, schema: &[u8], table: &[u8]) -> bool {
        (self.add_tables.is_empty() || self.add_tables.contain(schema, table))
            && !self.filter_tables.contain(schema, table)
    }

    /// Whether messages with a prefix, in UTF-8, are passed on. Those that carry a context are so only if they are
    /// asked for by name.
    pub fn shows_message(&self, prefix: &[u8], is_context: bool) -> bool {
        let is_added = if is_context {
            self.add_msg_prefixes.name(prefix)
        } else if self.add_msg_prefixes.is_empty() {
            !self.filter_msg_prefixes.is_empty()
        } else {
            self.add_msg_prefixes.contain(prefix)
        };
        is_added && !self.filter_msg_prefixes.contain(prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str, value: Option<&str>) -> Result<Options, OptionError> {
        Options::parse([(name, value)])
    }

    #[test]
    fn unknown_and_repeated_options_are_refused_by_name() {
        assert_eq!(Options::parse([]), Ok(Options::default()));
        let error = parse("add-tabels", Some("public.todo")).unwrap_err();
        assert_eq!(error.to_string(), "bemi_decoder has no option \"add-tabels\"");
        for (name, _) in OPTIONS {
            assert!(error.hint().contains(name));
        }
        let error = Options::parse([("only-local", None), ("only-local", Some("false"))]).unwrap_err();
        assert_eq!(error, OptionError::Twice("only-local"));
    }

    #[test]
    fn booleans_are_read_as_the_server_reads_them() {
        for value in [None, Some("true"), Some("T"), Some("on"), Some("yes"), Some("1"), Some("TRUE")] {
            assert!(parse("pretty-print", value).unwrap().pretty_print, "{value:?}");
        }
        for value in ["false", "f", "off", "of", "no", "0"] {
            assert!(!parse("pretty-print", Some(value)).unwrap().pretty_print, "{value}");
        }
        for value in ["", "o", "2", "maybe", "truely", " true"] {
            let error = parse("pretty-print", Some(value)).unwrap_err();
            let expected = format!("option \"pretty-print\" of bemi_decoder does not take the value \"{value}\"");
            assert_eq!(error.to_string(), expected);
            assert_eq!(error.hint(), "It takes true (also if no value is given) or false.");
        }
        assert_eq!(parse("two-phase", Some("off")).unwrap().two_phase, Some(false));
    }

    #[test]
    fn every_option_that_is_listed_is_read() {
        for (name, takes) in OPTIONS {
            let value = match takes {
                BOOLEAN if name == "repeat-context" => "false",
                BOOLEAN => "true",
                TABLES => "a.b",
                PREFIXES => "a",
                _ if name == "actions" => "insert",
                _ => "7",
            };
            assert_ne!(parse(name, Some(value)).unwrap(), Options::default(), "{name}");
            assert_eq!(parse(name, None).is_ok(), takes == BOOLEAN, "{name}");
        }
    }

    #[test]
    fn actions_choose_operations() {
        let actions = parse("actions", Some("update, DELETE")).unwrap().actions;
        use Operation::*;
        assert_eq!([Create, Update, Delete, Truncate].map(|o| actions.contain(o)), [false, true, true, false]);
        for value in ["", "instert", "insert,,update", "insert;update"] {
            assert!(parse("actions", Some(value)).is_err(), "{value}");
        }
    }

    #[test]
    fn a_size_is_a_number_within_its_limits() {
        assert_eq!(parse("batch-bytes", Some("65536")).unwrap().batch_bytes, 65536);
        assert_eq!(parse("batch-bytes", Some("67108864")).unwrap().batch_bytes, MAX_BATCH_BYTES);
        for value in ["", "-1", "64kB", "67108865", "1e3", "99999999999999999999999"] {
            assert!(parse("batch-bytes", Some(value)).is_err(), "{value}");
        }
    }

    #[test]
    fn a_filter_wins_over_an_addition() {
        let options = Options::parse([("add-tables", Some("a.*,*.t")), ("filter-tables", Some("*.u"))]).unwrap();
        let shows = |schema: &str, table: &str| options.shows_table(schema.as_bytes(), table.as_bytes());
        assert_eq!([shows("a", "b"), shows("b", "t"), shows("a", "u"), shows("b", "b")], [true, true, false, false]);
        let error = parse("filter-tables", Some("todo")).unwrap_err();
        assert_eq!(error.detail().unwrap(), "The item todo is not of the form schema.table.");
        assert!(error.hint().contains("schema.table"));
    }

    #[test]
    fn messages_are_shown_if_asked_for() {
        let shows = |add: Option<&str>, filter: Option<&str>, prefix: &str| {
            let pairs = [("add-msg-prefixes", add), ("filter-msg-prefixes", filter)];
            let options = Options::parse(pairs.into_iter().filter(|(_, value)| value.is_some())).unwrap();
            options.shows_message(prefix.as_bytes(), prefix == "_bemi")
        };
        assert!(!shows(None, None, "a"));
        assert!(shows(Some("a"), None, "a") && !shows(Some("a"), None, "b"));
        assert!(shows(Some("*"), None, "a") && !shows(Some("*"), Some("a"), "a"));
        assert!(shows(None, Some("a"), "b") && !shows(None, Some("a"), "a"));
        assert!(!shows(Some("*"), None, "_bemi") && shows(Some("_bemi"), None, "_bemi"));
        assert!(!shows(None, Some("a"), "_bemi"));
    }
}
