//! What the server's own regression tests ask of the functions in a database.
use crate::Test;
use crate::server::Server;

pub const TESTS: &[Test] = &[("immutable_functions_are_parallel_safe", parallel)];

fn parallel(server: &Server) {
    let database = server.database("functions");
    let unsafe_ones = "SELECT COALESCE(string_agg(p.oid::regprocedure::text, ', '), '') FROM pg_proc p \
        WHERE p.pronamespace = 'bemi'::regnamespace AND p.provolatile = 'i' AND p.proparallel <> 's'";
    assert_eq!(database.connect().query_one(unsafe_ones, &[]).unwrap().get::<_, &str>(0), "");
}
