//! What a release consists of: frozen scripts, the script that upgrades to this version, and one version everywhere. These
//! tests need no server; `tests/cluster/upgrade.rs` runs the scripts. `make upgrade-script` writes what is generated.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]
mod script;
mod statements;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// The version of this tree, from Cargo.toml.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The scripts that were released, with their SHA-256: nobody edits them any more.
const FROZEN: &[(&str, &str)] =
    &[("bemi--0.1.0.sql", "e18ae0a245a81b54e5743ad32636c18b231cfb2b1dab5d7b98341945756bc8fa")];

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn sha256(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Compares a generated file with what it should be, or writes it if `BEMI_UPGRADE_WRITE` is set.
fn expect_file(name: &str, wanted: &str) {
    if std::env::var_os("BEMI_UPGRADE_WRITE").is_some() {
        fs::write(path(name), wanted).unwrap();
    }
    assert!(fs::read_to_string(path(name)).unwrap_or_default() == wanted, "{name} is stale: run make upgrade-script");
}

#[test]
fn released_scripts_are_as_they_were_released() {
    for (name, checksum) in FROZEN {
        assert_eq!(&sha256(&read(&format!("sql/{name}"))), checksum, "sql/{name} was released, and must not change");
    }
}

#[test]
fn sql_has_nothing_but_released_scripts_and_the_upgrade_to_this_version() {
    let mut wanted: BTreeSet<String> = FROZEN.iter().map(|(name, _)| (*name).to_owned()).collect();
    wanted.insert(format!("bemi--{}--{VERSION}.sql", script::PREVIOUS));
    let found: BTreeSet<String> =
        fs::read_dir(path("sql")).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(found, wanted);
}

/// In one test, since the upgrade script has the checksum.
#[test]
fn checksum_and_upgrade_script_are_those_of_the_present_sql() {
    let files = script::files(&read("src/lib.rs"));
    let sql: Vec<(String, String)> = files.into_iter().map(|file| (file.clone(), read(&file))).collect();
    let checksum = &sha256(&sql.iter().map(|(_, text)| script::without_checksum(text)).collect::<String>())[..16];
    let sql: Vec<(String, String)> =
        sql.into_iter().map(|(file, text)| (file, script::with_checksum(&text, checksum))).collect();
    let (file, text) = sql.iter().find(|(file, _)| file.ends_with(script::CHECKSUM_FILE)).unwrap();
    expect_file(file, text);
    let former = read(&format!("sql/bemi--{}.sql", script::PREVIOUS));
    let (before, after) = (read("tests/upgrade/before.sql"), read("tests/upgrade/after.sql"));
    let wanted = script::upgrade(&former, &sql, &before, &after, VERSION);
    expect_file(&format!("sql/bemi--{}--{VERSION}.sql", script::PREVIOUS), &wanted);
}

#[test]
fn the_version_is_the_same_everywhere() {
    for name in ["clients/node/package.json", "clients/node/package-lock.json"] {
        let package: serde_json::Value = serde_json::from_str(&read(name)).unwrap();
        assert_eq!(package["version"], VERSION, "{name}");
    }
    let lock: serde_json::Value = serde_json::from_str(&read("clients/node/package-lock.json")).unwrap();
    assert_eq!(lock["packages"][""]["version"], VERSION);
    let readme = read("clients/node/README.md");
    assert_eq!(
        readme.matches(".tgz").count(),
        readme.matches(&format!("bemi-{VERSION}.tgz")).count(),
        "clients/node/README.md"
    );
    assert!(read("bemi.control").contains("default_version = '@CARGO_VERSION@'"));
    assert!(read("CHANGELOG.md").contains(&format!("\n## {VERSION}, ")), "CHANGELOG.md has no section of {VERSION}");
    for (name, _) in FROZEN {
        let released = name.trim_start_matches("bemi--").trim_end_matches(".sql");
        assert_ne!(released, VERSION, "{VERSION} is released: see RELEASING.md");
    }
}

#[test]
fn sql_is_ascii() {
    for file in script::files(&read("src/lib.rs")) {
        assert!(read(&file).is_ascii(), "{file}");
    }
}
