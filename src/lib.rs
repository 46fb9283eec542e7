//! bemi: who changed what, and why, in a PostgreSQL database.
//!
//! The tree follows the data:
//!
//! 1. [`context`]: a session, a role or a comment says who acts, and why.
//! 2. [`trigger`]: the context goes into the write-ahead log, before the change.
//! 3. [`decoder`]: the log becomes one JSON document per change, context included.
//! 4. [`recorder`]: the documents are kept in a table.
//! 5. [`history`]: the table answers what was, and takes it back.
//!
//! Beside them, [`tracking`] decides which tables take part, and [`document`] knows what passes from stage to stage: how a
//! context, a document and the values in it are written, and how they are read back.
//!
//! Each stage has a pure half, which knows nothing of the server and is tested without one, and a module `pg`, which calls
//! the server, with the help of `sys`.
//!
//! A stage imports the one directly before it, [`document`], [`pinned`] (settings with fixed values) and `sys`, and nothing
//! else. [`document`] imports nothing, and `sys` nothing but [`document`]. The one exception: the decoder imports
//! [`tracking::rules`], the form in which the trigger of a table holds its rules, which the decoder reads there.
#[cfg(feature = "pgrx")]
#[cfg(not(any(feature = "pg14", feature = "pg15", feature = "pg16", feature = "pg17", feature = "pg18")))]
compile_error!("choose the major version of PostgreSQL by one of the features pg14 to pg18");

pub mod context;
pub mod decoder;
pub mod document;
pub mod history;
pub mod pinned;
pub mod recorder;
pub mod tracking;
pub mod trigger;

#[cfg(test)]
mod scripts;
#[cfg(feature = "pgrx")]
mod sys;

#[cfg(feature = "pgrx")]
mod extension {
    use core::ffi::CStr;

    use pgrx::prelude::*;

    const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => c"",
    };
    pgrx::pg_module_magic!(name = c"bemi", version = VERSION);

    pgrx::extension_sql_file!("tracking/guard.sql", name = "guard", bootstrap);
    pgrx::extension_sql_file!("tracking/unsafe_code.sql", name = "unsafe_code", requires = ["guard"]);
    pgrx::extension_sql_file!("tracking/require_safe.sql", name = "require_safe", requires = ["unsafe_code"]);
    pgrx::extension_sql_file!("context/context.sql", name = "context", requires = ["require_safe"]);
    pgrx::extension_sql_file!("trigger/trigger.sql", name = "trigger", requires = ["context"]);
    pgrx::extension_sql_file!("tracking/publications.sql", name = "publications", requires = ["trigger"]);
    pgrx::extension_sql_file!("tracking/subscribers.sql", name = "subscribers", requires = ["publications"]);
    pgrx::extension_sql_file!("tracking/rules.sql", name = "rules", requires = ["subscribers"]);
    pgrx::extension_sql_file!("tracking/tracking.sql", name = "tracking", requires = ["rules"]);
    pgrx::extension_sql_file!("tracking/drops.sql", name = "drops", requires = ["tracking"]);
    pgrx::extension_sql_file!("tracking/masks.sql", name = "masks", requires = ["drops"]);
    pgrx::extension_sql_file!("tracking/tracked.sql", name = "tracked", requires = ["masks"]);
    pgrx::extension_sql_file!("tracking/track_all.sql", name = "track_all", requires = ["tracked"]);
    pgrx::extension_sql_file!("tracking/follow.sql", name = "follow", requires = ["track_all"]);
    pgrx::extension_sql_file!("tracking/bemihq.sql", name = "bemihq", requires = ["follow"]);
    pgrx::extension_sql_file!("tracking/doctor_tracking.sql", name = "doctor_tracking", requires = ["bemihq"]);
    pgrx::extension_sql_file!("tracking/doctor_rules.sql", name = "doctor_rules", requires = ["doctor_tracking"]);
    pgrx::extension_sql_file!("tracking/library.sql", name = "library", requires = ["doctor_rules"]);
    pgrx::extension_sql_file!("tracking/doctor.sql", name = "doctor", requires = ["library"]);
    pgrx::extension_sql_file!("recorder/changes.sql", name = "changes", requires = ["doctor"]);
    pgrx::extension_sql_file!("recorder/partitions.sql", name = "partitions", requires = ["changes"]);
    pgrx::extension_sql_file!("recorder/recorder.sql", name = "recorder", requires = ["partitions"]);
    pgrx::extension_sql_file!("recorder/start.sql", name = "start", requires = ["recorder"]);
    pgrx::extension_sql_file!("recorder/status.sql", name = "status", requires = ["start"]);
    pgrx::extension_sql_file!("tracking/types.sql", name = "types", requires = ["status"]);
    pgrx::extension_sql_file!("tracking/versions.sql", name = "versions", requires = ["types"]);
    pgrx::extension_sql_file!("tracking/note_ddl.sql", name = "note_ddl", requires = ["versions"]);
    pgrx::extension_sql_file!("tracking/recorded_names.sql", name = "recorded_names", requires = ["note_ddl"]);
    pgrx::extension_sql_file!("recorder/sources.sql", name = "sources", requires = ["recorded_names"]);
    pgrx::extension_sql_file!("recorder/adopt.sql", name = "adopt", requires = ["sources"]);
    pgrx::extension_sql_file!("history/columns.sql", name = "columns", requires = ["adopt"]);
    pgrx::extension_sql_file!("history/image.sql", name = "image", requires = ["columns"]);
    pgrx::extension_sql_file!("history/past.sql", name = "past", requires = ["image"]);
    pgrx::extension_sql_file!("history/key.sql", name = "key", requires = ["past"]);
    pgrx::extension_sql_file!("history/former.sql", name = "former", requires = ["key"]);
    pgrx::extension_sql_file!("history/unknown.sql", name = "unknown", requires = ["former"]);
    pgrx::extension_sql_file!("history/late.sql", name = "late", requires = ["unknown"]);
    pgrx::extension_sql_file!("history/as_of_columns.sql", name = "as_of_columns", requires = ["late"]);
    pgrx::extension_sql_file!("history/as_of.sql", name = "as_of", requires = ["as_of_columns"]);
    pgrx::extension_sql_file!("history/keys.sql", name = "keys", requires = ["as_of"]);
    pgrx::extension_sql_file!("history/life.sql", name = "life", requires = ["keys"]);
    pgrx::extension_sql_file!("history/history.sql", name = "history", requires = ["life"]);
    pgrx::extension_sql_file!("history/truncated.sql", name = "truncated", requires = ["history"]);
    pgrx::extension_sql_file!("history/revert/references.sql", name = "revert_references", requires = ["truncated"]);
    pgrx::extension_sql_file!("history/revert/table.sql", name = "revert_table", requires = ["revert_references"]);
    pgrx::extension_sql_file!("history/revert/plan.sql", name = "revert_plan", requires = ["revert_table"]);
    pgrx::extension_sql_file!("history/revert/selection.sql", name = "revert_selection", requires = ["revert_plan"]);
    pgrx::extension_sql_file!("history/revert/revert.sql", name = "revert", requires = ["revert_selection"]);
    pgrx::extension_sql_file!("history/revert/run.sql", name = "revert_run", requires = ["revert"]);
    pgrx::extension_sql_file!("history/settings.sql", name = "settings", requires = ["revert_run"]);
    pgrx::extension_sql_file!("grants.sql", name = "grants", requires = ["settings"], finalize);

    /// Called by the server when it loads the library.
    #[pg_guard]
    pub extern "C-unwind" fn _PG_init() {
        crate::sys::process::keep_stack_traces_off();
        crate::context::pg::init();
        crate::trigger::pg::init();
        crate::recorder::pg::init();
        crate::sys::guc::reserve_prefix(c"bemi");
    }
}

/// What `cargo pgrx test` asks for before it starts the server of the tests inside the server.
#[cfg(feature = "pg_test")]
pub mod pg_test {
    /// Nothing has to be set up.
    pub fn setup(_options: Vec<&str>) {}

    /// Settings of that server.
    pub fn postgresql_conf_options() -> Vec<&'static str> {
        Vec::new()
    }
}
