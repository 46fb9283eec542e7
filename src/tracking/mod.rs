//! Which tables are tracked, and by which rules. Most of it is SQL, in the files beside this one:
//! `tracking.sql`, `track_all.sql`, `follow.sql`, `doctor.sql` and others. The form of the rules, which the decoder reads
//! too, is in [`rules`].
pub mod rules;

#[cfg(feature = "pgrx")]
mod pg;
