//! The names of the recorders' slots. `bemi.recorder_slots()` knows their form too.
use std::collections::BTreeSet;
use std::path::Path;

/// The databases that have a slot of a recorder, by their OIDs. It needs no connection to any of them: the server keeps
/// each slot in a folder of its name.
pub fn databases() -> BTreeSet<u32> {
    // A server process works in its data directory.
    let folders = std::fs::read_dir(Path::new("pg_replslot")).into_iter().flatten().flatten();
    folders.filter_map(|folder| database(folder.file_name().to_str()?)).collect()
}

/// Whether a slot is there, and is one that a recorder made in a database.
pub fn is_of(slot: &str, of_database: u32) -> bool {
    database(slot) == Some(of_database) && Path::new("pg_replslot").join(slot).is_dir()
}

/// The database of a slot, if it is a recorder's: `bemi_recorder_16384_1`.
fn database(slot: &str) -> Option<u32> {
    slot.strip_prefix("bemi_recorder_")?.split_once('_')?.0.parse().ok()
}
