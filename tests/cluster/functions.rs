//! What holds for all functions of the extension in a database: what the server's own regression tests ask, and the settings that
//! they pin.
use std::collections::{BTreeMap, BTreeSet};

use bemi::pinned::{self, Need};

use crate::Test;
use crate::server::Server;

pub const TESTS: &[Test] = &[
    ("immutable_functions_are_parallel_safe", parallel),
    ("settings_that_functions_pin_are_those_of_the_list", pinned_settings),
];

fn parallel(server: &Server) {
    let database = server.database("functions");
    let unsafe_ones = "SELECT COALESCE(string_agg(p.oid::regprocedure::text, ', '), '') FROM pg_proc p \
        WHERE p.pronamespace = 'bemi'::regnamespace AND p.provolatile = 'i' AND p.proparallel <> 's'";
    assert_eq!(database.connect().query_one(unsafe_ones, &[]).unwrap().get::<_, &str>(0), "");
}

/// The settings of `src/pinned.rs` that somebody needs: names and values in lower case, as the server may keep them.
fn listed(need: Need) -> BTreeSet<(String, String)> {
    let text = |text: &std::ffi::CStr| text.to_str().unwrap().to_lowercase();
    pinned::of(need).map(|(name, value)| (text(name), text(value))).collect()
}

fn pinned_settings(server: &Server) {
    let database = server.database("pinned");
    let mut client = database.connect();
    let functions = "SELECT p.oid::regprocedure::text, lower(split_part(c, '=', 1)), substr(c, strpos(c, '=') + 1) \
        FROM pg_proc p, unnest(p.proconfig) c WHERE p.pronamespace = 'bemi'::regnamespace";
    let mut found: BTreeMap<String, BTreeSet<(String, String)>> = BTreeMap::new();
    for row in client.query(functions, &[]).unwrap() {
        // A list is kept with quotes where it was written with them.
        let value = row.get::<_, String>(2).replace('"', "").to_lowercase();
        found.entry(row.get(0)).or_default().insert((row.get(1), value));
    }
    // What reads the past under the conditions of whoever calls it pins all of them, and nothing else.
    let past = listed(Need::Past);
    for reader in [
        "bemi.revert_selection(bigint,jsonb,regclass,text,timestamp with time zone,timestamp with time zone,text,jsonb)",
        "bemi.revert_sql(bigint,jsonb,regclass,text,timestamp with time zone,timestamp with time zone)",
        "bemi.history(anyelement,text)",
        "bemi.recorded_history(oid,text,text)",
    ] {
        let pins = found.remove(reader).unwrap_or_else(|| panic!("{reader} pins nothing: {:?}", found.keys()));
        assert_eq!(pins, past, "{reader}");
    }
    // All others pin values of the list. What limits a lock, and what is bemi's own, is no part of it.
    let allowed = listed(Need::Function);
    let is_own = |name: &str| name == "lock_timeout" || name == "default_tablespace" || name.starts_with("bemi.");
    let is_other = |pin: &(String, String)| !is_own(&pin.0) && !allowed.contains(pin);
    found.retain(|_, pins| pins.iter().any(is_other));
    assert!(found.is_empty(), "not in the list: {found:#?}");
    // The settings that are noted of a statement that rewrites columns are among those under which values are read.
    let noted = "SELECT lower(name) FROM jsonb_object_keys(bemi.cast_settings()) name";
    let reading: BTreeSet<String> = listed(Need::Reading).into_iter().map(|(name, _)| name).collect();
    for row in client.query(noted, &[]).unwrap() {
        assert!(reading.contains(row.get::<_, &str>(0)), "{:?}", row.get::<_, &str>(0));
    }
}
