//! Which tables are tracked, and by which rules. Most of it is SQL, in the files beside this one:
//! `tracking.sql`, `track_all.sql`, `follow.sql`, `doctor.sql` and others. The form of the rules, which the decoder reads
//! too, is in [`rules`].
pub mod rules;

#[cfg(feature = "pgrx")]
mod pg;

/// Returns the checksum of the SQL files of this build, as `bemi.sql_checksum()` has it.
#[must_use]
pub fn sql_checksum() -> &'static str {
    let file = include_str!("library.sql");
    file.split_once("SELECT '").and_then(|(_, rest)| rest.split_once('\'')).map_or("", |(checksum, _)| checksum)
}
