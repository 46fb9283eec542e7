//! Which tables are tracked, and by which rules. Most of it is SQL: `sql/tracking.sql`, `sql/future.sql` and
//! `sql/doctor.sql`. The form of the rules, which the decoder reads too, is in [`crate::rules`].
#[cfg(feature = "pgrx")]
mod pg;
