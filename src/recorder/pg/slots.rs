//! The recorders' slots. `bemi.recorder_slots()` knows the form of their names too.
use std::collections::BTreeSet;
use std::path::Path;

use pgrx::prelude::*;

use super::failure::{Failure, transaction};
use super::launcher::RECORDER;
use super::progress::REQUIRE_SAFE;
use super::statement::{one, run};

/// Returns the databases that have a slot of a recorder, by their OIDs. That needs no connection to any of them: the
/// server keeps each slot in a folder of its name.
pub fn databases() -> BTreeSet<u32> {
    // A server process works in its data directory.
    let folders = std::fs::read_dir(Path::new("pg_replslot")).into_iter().flatten().flatten();
    folders.filter_map(|folder| database(folder.file_name().to_str()?)).collect()
}

/// Returns whether a slot exists, and is one that a recorder created in a database.
pub fn is_of(slot: &str, of_database: u32) -> bool {
    database(slot) == Some(of_database) && Path::new("pg_replslot").join(slot).is_dir()
}

/// Returns whether another recorder reads the slot.
pub fn is_recorded(slot: &str) -> Result<bool, Failure> {
    transaction(|| {
        let statement =
            "SELECT EXISTS (SELECT FROM bemi.recorder_slots() s JOIN pg_stat_activity a ON a.pid = s.active_pid
            WHERE s.slot_name = $1::name AND a.backend_type = $2 AND a.pid <> pg_backend_pid())";
        let found = Spi::get_one_with_args(statement, &[slot.into(), RECORDER.into()]);
        found.unwrap_or_else(|error| error!("{error}")).unwrap_or_default()
    })
}

/// Returns whether the slot or the progress is not as the recorder left it, so that it cannot go on. False if that
/// cannot be read without running code of others.
pub fn is_lost() -> bool {
    let found = transaction(|| {
        run(REQUIRE_SAFE);
        one::<bool>("SELECT bemi.slot_problem() IS NOT NULL")
    });
    matches!(found, Ok(Some(true)))
}

/// Returns the database of a slot, if it is a recorder's: `bemi_recorder_16384_1`.
fn database(slot: &str) -> Option<u32> {
    slot.strip_prefix("bemi_recorder_")?.split_once('_')?.0.parse().ok()
}
