//! The upgrade script: what 0.1.0 has is dropped, replaced or kept, and what the present SQL files have more is made, so that
//! a database that ran it has what a new one has. What has to happen to data is written by hand, in `before.sql` and
//! `after.sql`.
use std::collections::{BTreeMap, BTreeSet};

use super::statements;

/// The version that is upgraded from.
pub const PREVIOUS: &str = "0.1.0";
/// The file with the checksum.
pub const CHECKSUM_FILE: &str = "tracking/library.sql";
/// Tables of which `before.sql` renames the former one, and `after.sql` takes the data over.
const RENAMED: [&str; 1] = ["table_versions"];
/// The file that decides who may do what: all that is made comes before it.
const GRANTS: &str = "grants.sql";
/// How the checksum begins in its file.
const CHECKSUM: &str = "SELECT '";

/// Returns the SQL files in the order of `src/lib.rs`.
pub fn files(lib: &str) -> Vec<String> {
    let files = lib.split("extension_sql_file!(\"").skip(1);
    files.map(|rest| format!("src/{}", rest.split('"').next().unwrap())).collect()
}

/// Returns the text of a file without the checksum.
pub fn without_checksum(text: &str) -> String {
    with_checksum(text, "")
}

/// Returns the text of a file with a checksum in place of the one that it has; another file as it is.
pub fn with_checksum(text: &str, checksum: &str) -> String {
    let Some(function) = text.find("CREATE FUNCTION bemi.sql_checksum()") else { return text.to_owned() };
    let start = function + text[function..].find(CHECKSUM).unwrap() + CHECKSUM.len();
    let end = start + text[start..].find('\'').unwrap();
    format!("{}{checksum}{}", &text[..start], &text[end..])
}

/// Returns the declaration of a function in one line, or the whole of another statement.
fn head(statement: &str) -> String {
    let end = statement.starts_with("CREATE FUNCTION ").then(|| statement.find("LANGUAGE ")).flatten();
    statements::normal(&statement[..end.unwrap_or(statement.len())])
}

/// What a statement makes, by its kind and its name; of functions with their arguments.
type Object = (&'static str, String);

/// Returns what a statement makes, if that can be replaced or dropped.
fn object(statement: &str) -> Option<Object> {
    let normal = head(statement);
    ["FUNCTION", "VIEW", "TABLE", "TYPE", "EVENT TRIGGER", "TRIGGER"].into_iter().find_map(|kind| {
        let rest = normal.strip_prefix("CREATE ")?.strip_prefix(kind)?.strip_prefix(' ')?;
        let name = match kind {
            "FUNCTION" => arguments(rest),
            _ => rest.split([' ', '(', ';']).next().unwrap().to_owned(),
        };
        Some((kind, name))
    })
}

/// Returns the name and the arguments of a function, without their defaults, as DROP FUNCTION takes them.
fn arguments(rest: &str) -> String {
    let list = parenthesis(rest);
    let mut arguments = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (at, character) in list.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                arguments.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    arguments.push(&list[start..]);
    let arguments: Vec<&str> = arguments.iter().map(|a| a.split(" DEFAULT ").next().unwrap().trim()).collect();
    format!("{}({})", rest.split('(').next().unwrap(), arguments.join(", "))
}

/// Returns what stands in the first parentheses.
fn parenthesis(text: &str) -> &str {
    let start = text.find('(').unwrap() + 1;
    let mut depth = 1;
    for (at, character) in text[start..].char_indices() {
        depth += match character {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        if depth == 0 {
            return &text[start..start + at];
        }
    }
    panic!("no parenthesis ends {text}");
}

/// Returns what CREATE OR REPLACE FUNCTION cannot change: arguments, result, and how many defaults there are.
fn signature(statement: &str) -> (String, usize) {
    let head = head(statement);
    let result = head.rsplit_once("RETURNS ").map_or("", |(_, result)| result);
    (format!("{} {result}", object(statement).unwrap().1), head.matches(" DEFAULT ").count())
}

/// Whether a statement names a type in the declaration of a function.
fn declares(statement: &str, name: &str) -> bool {
    let head = head(statement);
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    head.match_indices(name).any(|(at, _)| !head[at + name.len()..].starts_with(is_part))
}

/// Returns the script: the hand-written beginning, what is dropped, the present SQL, and the hand-written end.
pub fn upgrade(former: &str, files: &[(String, String)], before: &str, after: &str, version: &str) -> String {
    let former = former.replace("@extschema@", "bemi");
    let old = statements::split(&former);
    let present: Vec<&str> = files.iter().flat_map(|(_, text)| statements::split(text)).collect();
    let new: BTreeMap<Object, &str> = present.iter().filter_map(|s| Some((object(s)?, *s))).collect();
    let mut gone: Vec<(Object, &str)> = Vec::new();
    let mut kept: BTreeSet<Object> = BTreeSet::new();
    for statement in &old {
        let Some(made) = object(statement) else { continue };
        let is_same = match (made.0, new.get(&made)) {
            ("EVENT TRIGGER", _) | (_, None) => false,
            ("FUNCTION", Some(other)) => {
                let ((was, had), (is, has)) = (signature(statement), signature(other));
                was == is && had <= has
            }
            ("VIEW" | "TRIGGER", Some(_)) => true,
            (_, Some(other)) => statements::normal(statement) == statements::normal(other),
        };
        if is_same {
            kept.insert(made);
        } else {
            gone.push((made, statement));
        }
    }
    // With a type go the functions that have it.
    let types: Vec<String> =
        gone.iter().filter(|(made, _)| matches!(made.0, "TYPE" | "TABLE")).map(|(made, _)| made.1.clone()).collect();
    for statement in &old {
        let Some(made) = object(statement).filter(|made| made.0 == "FUNCTION" && kept.contains(made)) else { continue };
        if types.iter().any(|name| declares(statement, name)) {
            kept.remove(&made);
            gone.push((made, statement));
        }
    }
    let mut script = format!(
        "-- From {PREVIOUS} to {version}. Written by `make upgrade-script`, of tests/upgrade/*.sql and src/**/*.sql.\n\n"
    );
    for kind in ["EVENT TRIGGER", "VIEW", "FUNCTION", "TYPE"] {
        let names: Vec<&str> =
            gone.iter().rev().filter(|(made, _)| made.0 == kind).map(|(made, _)| &made.1[..]).collect();
        match kind {
            // There is no list of these.
            "EVENT TRIGGER" => {
                names.iter().for_each(|name| script += &format!("DROP EVENT TRIGGER IF EXISTS {name};\n"));
                script += &format!("\n{}\n\n", before.trim());
            }
            _ if names.is_empty() => {}
            _ => script += &format!("DROP {kind}\n  {};\n", names.join(",\n  ")),
        }
    }
    for ((kind, name), _) in &gone {
        let is_handled = match *kind {
            "TABLE" => RENAMED.iter().any(|table| *name == format!("bemi.{table}")),
            kind => kind != "TRIGGER",
        };
        assert!(is_handled, "the {kind} {name} is not what it was: write by hand how it changes");
    }
    for (file, text) in files {
        if file.ends_with(GRANTS) {
            script += &format!("\n{}", after.trim());
            script.push('\n');
        }
        for statement in statements::split(text) {
            // The last file decides all rights; a statement about an object would count its present ones as initial ones.
            if !file.ends_with(GRANTS) && ["GRANT ", "REVOKE "].iter().any(|word| statement.starts_with(word)) {
                continue;
            }
            if let Some(statement) = present_statement(statement, &kept) {
                script += &format!("\n{}\n", statement.replace("@MODULE_PATHNAME@", "MODULE_PATHNAME"));
            }
        }
    }
    script
}

/// Returns what a statement becomes for a database that has the objects that are kept; None if it has that already.
fn present_statement(statement: &str, kept: &BTreeSet<Object>) -> Option<String> {
    let Some(made) = object(statement).filter(|made| kept.contains(made)) else { return Some(statement.to_owned()) };
    match made.0 {
        "TABLE" | "TYPE" => None,
        "VIEW" => Some(format!("{}\n{}", statement.replacen("CREATE ", "CREATE OR REPLACE ", 1), renewed(&made.1))),
        _ => Some(statement.replacen("CREATE ", "CREATE OR REPLACE ", 1)),
    }
}

/// Returns what makes the columns of a view as new as its rule: `bemi.unsafe_code()` and `bemi.is_plain()` tell by their
/// transactions that nobody has replaced a view.
fn renewed(view: &str) -> String {
    format!(
        "DO $do$
DECLARE
  first name := (SELECT a.attname FROM pg_attribute a WHERE a.attrelid = '{view}'::regclass AND a.attnum = 1);
BEGIN
  EXECUTE format('ALTER VIEW {view} RENAME COLUMN %I TO renewed', first);
  EXECUTE format('ALTER VIEW {view} RENAME COLUMN renewed TO %I', first);
END
$do$;"
    )
}

#[test]
fn a_function_is_called_by_its_arguments_without_defaults() {
    let statement = "CREATE FUNCTION bemi.f(a int DEFAULT g(1, 2), OUT b numeric(3, 1), c text DEFAULT '') RETURNS x\nLANGUAGE sql;";
    assert_eq!(object(statement), Some(("FUNCTION", "bemi.f(a int, OUT b numeric(3, 1), c text)".to_owned())));
    assert_eq!(signature(statement), ("bemi.f(a int, OUT b numeric(3, 1), c text) x".to_owned(), 2));
}

#[test]
fn a_changed_type_takes_its_functions_with_it_and_a_body_is_replaced() {
    let former = "CREATE TYPE @extschema@.t AS (a int);\nCREATE FUNCTION @extschema@.f(a @extschema@.t) RETURNS int LANGUAGE sql AS $$ 1 $$;
        CREATE FUNCTION @extschema@.g(a int) RETURNS int LANGUAGE sql AS $$ 1 $$;\nCREATE FUNCTION @extschema@.old() RETURNS int LANGUAGE c;\n";
    let present =
        "CREATE TYPE bemi.t AS (b int);\nCREATE FUNCTION bemi.f(a bemi.t) RETURNS int LANGUAGE sql AS $$ 1 $$;
        CREATE FUNCTION bemi.g(a int DEFAULT 1) RETURNS int LANGUAGE sql AS $$ 2; $$;\n";
    let script = upgrade(former, &[("src/a.sql".to_owned(), present.to_owned())], "", "", "2");
    assert!(script.contains("DROP FUNCTION\n  bemi.f(a bemi.t),\n  bemi.old();\nDROP TYPE\n  bemi.t;\n"), "{script}");
    assert!(script.contains("\nCREATE TYPE bemi.t AS (b int);\n\nCREATE FUNCTION bemi.f("), "{script}");
    assert!(
        script.contains("\nCREATE OR REPLACE FUNCTION bemi.g(a int DEFAULT 1) RETURNS int LANGUAGE sql AS $$ 2; $$;"),
        "{script}"
    );
}
