//! Checks of the SQL scripts of the extension: their form, and the facts in them that the library knows too.
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};

/// The longest line, in characters.
const COLUMNS: usize = 120;
/// The longest file, and the longest function, in lines.
const LINES: usize = 500;
const FUNCTION: usize = 65;

/// What may be longer than a function should be, and why.
const LONG: [(&str, &str); 2] = [
    // The query is one statement, and is run before any name of the schema can be trusted, functions included.
    ("src/tracking/guard.sql", "DO $do$"),
    // A list with one decision a line.
    ("src/grants.sql", "DO $do$"),
];

fn scripts(folder: &Path, found: &mut Vec<(String, String)>) {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            scripts(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "sql") {
            let name = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().display().to_string();
            found.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
}

fn all() -> Vec<(String, String)> {
    let mut found = Vec::new();
    scripts(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert!(found.len() > 20, "{found:?}");
    found
}

/// The functions and DO blocks of a script: their first lines, and how many lines each has.
fn functions(script: &str) -> Vec<(&str, usize)> {
    let mut lines = script.lines();
    let mut found = Vec::new();
    while let Some(first) = lines.next() {
        if !first.starts_with("CREATE FUNCTION ") && !first.starts_with("DO ") {
            continue;
        }
        let (mut count, mut line) = (1, first);
        // Up to the line that opens the body, or that ends a function of the library.
        while !line.ends_with('$') && !line.ends_with(';') {
            let Some(next) = lines.next() else { break };
            (count, line) = (count + 1, next);
        }
        let tag = line.rsplit(' ').next().unwrap_or_default();
        if line.ends_with('$') {
            for next in lines.by_ref() {
                count += 1;
                if next.starts_with(tag) {
                    break;
                }
            }
        }
        found.push((first, count));
    }
    found
}

#[test]
fn scripts_are_ascii_and_name_their_schema_in_lines_that_fit() {
    let mut wrong = Vec::new();
    for (name, script) in all() {
        for (number, line) in script.lines().enumerate().map(|(index, line)| (index + 1, line)) {
            if line.chars().count() > COLUMNS {
                wrong.push(format!("{name}:{number} is longer than {COLUMNS} characters"));
            }
            if !line.is_ascii() {
                wrong.push(format!("{name}:{number} has characters that are not ASCII"));
            }
            if line.contains("@extschema@") {
                wrong.push(format!("{name}:{number} does not name the schema bemi"));
            }
        }
        // The list of who may do what has one decision a line.
        if script.lines().count() > LINES && name != "src/grants.sql" {
            wrong.push(format!("{name} is longer than {LINES} lines"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn functions_in_scripts_are_short() {
    let mut wrong = Vec::new();
    for (name, script) in all() {
        for (first, count) in functions(&script) {
            if count > FUNCTION && !LONG.contains(&(name.as_str(), first)) {
                wrong.push(format!("{name}: {first} has {count} lines, more than {FUNCTION}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_script_is_a_part_of_the_extension() {
    let library = include_str!("lib.rs");
    for (name, _) in all() {
        let path = name.strip_prefix("src/").unwrap();
        assert!(library.contains(&format!("\"{path}\"")), "src/lib.rs does not include {name}");
    }
}

#[test]
fn the_table_has_the_columns_of_a_row() {
    let script = include_str!("recorder/changes.sql");
    let table = script.split_once("CREATE TABLE bemi.changes (").unwrap().1.split_once("PRIMARY KEY").unwrap().0;
    let lines = table.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("--"));
    let columns: Vec<&str> = lines.map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(columns.join(", "), crate::recorder::row::COLUMNS);
}

#[test]
fn scripts_and_library_agree_on_states() {
    use crate::recorder::state::State;
    let script = [
        include_str!("recorder/changes.sql"),
        include_str!("recorder/recorder.sql"),
        include_str!("recorder/start.sql"),
        include_str!("recorder/status.sql"),
    ]
    .concat();
    let states =
        [State::Starting, State::CatchingUp, State::Recording, State::Waiting, State::SlotLost, State::Stopped];
    for state in states {
        assert!(script.contains(&format!("'{}'", state.name())), "{state:?}");
    }
}

#[test]
fn scripts_and_library_agree_on_the_names_of_slots() {
    let script = include_str!("recorder/recorder.sql");
    assert_eq!(script.matches("bemi_recorder_").count(), 1);
    assert!(script.contains("format('bemi_recorder_%s_', oid)"));
    assert!(include_str!("recorder/pg/slots.rs").contains("strip_prefix(\"bemi_recorder_\")?.split_once('_')"));
}

#[test]
fn an_idle_recorder_is_behind_by_less_than_twice_what_it_confirms() {
    let expected = format!("is_idle AND lag_bytes < 2 * {} THEN", crate::recorder::state::CONFIRM);
    assert!(include_str!("recorder/status.sql").contains(&expected), "{expected}");
}
