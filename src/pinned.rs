//! Settings that are pinned: what is done under fixed values, whatever the session has set. Each of them stands here once, with those
//! who need it. A test compares the list with the SET clauses of the functions in SQL.
#![forbid(unsafe_code)]

use core::ffi::CStr;

/// Who needs a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The decoder, for the text forms of values: as `to_jsonb` gives them in a session with plain defaults.
    Writing,
    /// What reads the text forms of values back, in Rust.
    Reading,
    /// The query that takes the place of `bemi.as_of()`: expressions are written as text and read again.
    Query,
    /// The recorder, for its session.
    Recorder,
    /// The functions in SQL that read the past and undo it. They run the conditions of whoever calls them.
    Past,
    /// Single functions in SQL, by their own SET clauses.
    Function,
}

/// One setting, its value, and those who need it.
type Pinned = (&'static CStr, &'static CStr, &'static [Need]);

/// All of them. A setting stands in several lines if not all need the same value.
pub const PINNED: &[Pinned] = {
    use Need::*;
    &[
        // How values are written and read.
        (c"DateStyle", c"ISO, MDY", &[Writing, Reading]),
        // The order is for dates that somebody writes by hand: the year comes first, as it does in what is recorded.
        (c"DateStyle", c"ISO, YMD", &[Query, Past, Function]),
        // Where no date is read.
        (c"DateStyle", c"ISO", &[Function]),
        (c"IntervalStyle", c"postgres", &[Writing, Reading, Query, Past]),
        (c"TimeZone", c"UTC", &[Writing, Reading, Past, Function]),
        (c"extra_float_digits", c"1", &[Writing, Reading, Query, Past]),
        (c"bytea_output", c"hex", &[Writing, Reading, Past]),
        (c"lc_monetary", c"C", &[Writing, Reading, Past]),
        (c"quote_all_identifiers", c"off", &[Writing, Reading, Past]),
        (c"xmloption", c"content", &[Reading, Past]),
        (c"array_nulls", c"on", &[Reading, Past]),
        (c"xmlbinary", c"base64", &[Past]),
        // Names of relations, functions and types (regclass and the like) are written with their schema, unless it is pg_catalog.
        (c"search_path", c"pg_catalog", &[Writing, Reading]),
        (c"search_path", c"pg_catalog, pg_temp", &[Query, Recorder, Past, Function]),
        // What a statement means, and which rows it finds.
        (c"standard_conforming_strings", c"on", &[Past]),
        (c"backslash_quote", c"safe_encoding", &[Past]),
        (c"transform_null_equals", c"off", &[Past]),
        // Without it, a policy that hides rows would be an error.
        (c"row_security", c"on", &[Past]),
        // Where to miss a row would be worse than an error.
        (c"row_security", c"off", &[Function]),
        // With a limit, an index would leave changes out.
        (c"gin_fuzzy_search_limit", c"0", &[Past]),
        // Checks of PL/pgSQL are for those who write functions.
        (c"plpgsql.extra_errors", c"none", &[Past]),
        (c"plpgsql.extra_warnings", c"none", &[Past]),
        // To compile many small queries, each of which runs once, takes far longer than to run them.
        (c"jit", c"off", &[Past, Function]),
        // The same of their plans, which do not depend on what is asked.
        (c"plan_cache_mode", c"force_generic_plan", &[Function]),
        // A look-up in the catalogs goes by an index, also where the server believes a catalog to be small.
        (c"enable_seqscan", c"off", &[Function]),
        // The session of the recorder.
        (c"role", c"none", &[Recorder]),
        // Documents are in UTF-8.
        (c"client_encoding", c"UTF8", &[Recorder]),
        // What is confirmed must be on disk.
        (c"synchronous_commit", c"on", &[Recorder]),
        (c"default_transaction_read_only", c"off", &[Recorder]),
        (c"default_transaction_isolation", c"read committed", &[Recorder]),
        (c"session_replication_role", c"origin", &[Recorder]),
        // What bemi changes in its own tables fires no trigger of others.
        (c"session_replication_role", c"replica", &[Function]),
    ]
};

/// Returns the names and values of the settings that somebody needs.
pub fn of(need: Need) -> impl Iterator<Item = (&'static CStr, &'static CStr)> {
    PINNED.iter().filter(move |(_, _, needs)| needs.contains(&need)).map(|(name, value, _)| (*name, *value))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const ALL: [Need; 5] = [Need::Writing, Need::Reading, Need::Query, Need::Recorder, Need::Past];

    #[test]
    fn nobody_needs_two_values_of_one_setting() {
        for need in ALL {
            let names: Vec<String> = of(need).map(|(name, _)| name.to_str().unwrap().to_lowercase()).collect();
            assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len(), "{need:?}: {names:?}");
        }
    }

    #[test]
    fn values_are_read_under_all_settings_under_which_they_are_written() {
        let reading: HashSet<_> = of(Need::Reading).collect();
        assert!(of(Need::Writing).all(|setting| reading.contains(&setting)));
    }
}
