//! Up to PostgreSQL 15 a rule makes a view of an empty table, as dumps of old servers do where views refer to each other.
use crate::Test;
use crate::recorder::recording;
use crate::server::{Server, run};

pub const TESTS: &[Test] = &[
    ("a_rule_makes_a_view_of_an_empty_table_that_is_tracked", made),
    ("a_table_that_a_rule_cannot_make_a_view_of_stays_tracked", refused),
];

const RULE: &str = "CREATE RULE \"_RETURN\" AS ON SELECT TO w DO INSTEAD SELECT id, v FROM t";

fn made(server: &Server) {
    let (database, mut client, _stop) = recording(server, "rule_views");
    run(
        &mut client,
        "CREATE ROLE rule_owner LOGIN; GRANT CREATE ON SCHEMA public TO rule_owner; GRANT SELECT ON t TO rule_owner; INSERT INTO t (v) VALUES ('a')",
    );
    run(&mut client, "SELECT bemi.track_all()");
    // By its owner, which is not a superuser, and by one; in a transaction, as pg_restore -1 does, and without.
    for (user, begin, end) in [("rule_owner", "BEGIN; ", "; COMMIT"), ("postgres", "", ""), ("rule_owner", "", "")] {
        let mut session = server.connect_with(&database.name, user, "");
        let result = session.batch_execute(&format!("{begin}CREATE TABLE w (id int, v text); SELECT 1{end}"));
        result.unwrap_or_else(|error| panic!("{user}: {error:?}"));
        let tracked = "SELECT count(*) FROM bemi.tracked WHERE relation = to_regclass('w')";
        assert_eq!(client.query_one(tracked, &[]).unwrap().get::<_, i64>(0), 1);
        let result = session.batch_execute(&format!("{begin}{RULE}{end}"));
        if server.major >= 16 {
            let error = result.expect_err("the server has no such views any more");
            assert!(error.as_db_error().unwrap().message().contains("ON SELECT rules"), "{error:?}");
            let _ = session.batch_execute("ROLLBACK");
            assert_eq!(client.query_one(tracked, &[]).unwrap().get::<_, i64>(0), 1);
            run(&mut client, "DROP TABLE w");
            continue;
        }
        result.unwrap_or_else(|error| panic!("{user}: {error:?}"));
        assert_eq!(client.query_one("SELECT v FROM w", &[]).unwrap().get::<_, &str>(0), "a");
        assert_eq!(client.query_one(tracked, &[]).unwrap().get::<_, i64>(0), 0);
        run(&mut client, "DROP VIEW w");
    }
}

fn refused(server: &Server) {
    if server.major >= 16 {
        return;
    }
    let (database, mut client, _stop) = recording(server, "rule_views_refused");
    run(
        &mut client,
        "CREATE ROLE rule_stranger LOGIN; CREATE TABLE w (id int, v text); SELECT bemi.track('w'); GRANT SELECT ON w, t TO rule_stranger",
    );
    let mut stranger = server.connect_with(&database.name, "rule_stranger", "");
    assert!(stranger.batch_execute(RULE).is_err());
    // With a trigger of others, with rows, and for another event.
    client
        .batch_execute(
            "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
             CREATE TRIGGER other BEFORE INSERT ON w FOR EACH STATEMENT EXECUTE FUNCTION nothing()",
        )
        .unwrap();
    assert!(client.batch_execute(RULE).is_err());
    run(&mut client, "DROP TRIGGER other ON w; INSERT INTO w VALUES (1, 'a')");
    assert!(client.batch_execute(RULE).is_err());
    run(&mut client, "CREATE RULE noted AS ON DELETE TO w DO ALSO SELECT 1");
    let tracked = "SELECT count(*) FROM bemi.tracked WHERE relation = 'w'::regclass AND missing = '{}'";
    assert_eq!(client.query_one(tracked, &[]).unwrap().get::<_, i64>(0), 1);
}
