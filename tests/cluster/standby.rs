//! A hot standby: what is recorded can be read there, what takes the recorder cannot.
use crate::Test;
use crate::server::{Server, run};

pub const TESTS: &[Test] = &[("the_past_is_refused_on_a_standby_with_what_can_be_done_there", standby)];

fn standby(_server: &Server) {
    let server = Server::start("");
    server.database("standby");
    let mut client = server.connect("standby");
    run(
        &mut client,
        "CREATE TABLE t (id int PRIMARY KEY, v text); SELECT bemi.track('t'); SELECT bemi.start(); INSERT INTO t VALUES (1, 'a'); SELECT bemi.sync()",
    );
    drop(client);
    server.pg_ctl("stop");
    std::fs::write(server.host().join("data/standby.signal"), "").unwrap();
    server.pg_ctl("start");
    let mut client = server.connect("standby");
    assert!(client.query_one("SELECT pg_is_in_recovery()", &[]).unwrap().get::<_, bool>(0));
    for query in [
        "SELECT * FROM bemi.as_of(NULL::t, now())",
        "SELECT bemi.as_of(NULL::t, now())",
        "SELECT * FROM bemi.history(NULL::t, '1')",
        "SELECT bemi.sync()",
    ] {
        let error = client.batch_execute(query).expect_err("nobody knows how much is recorded");
        let said = error.as_db_error().unwrap();
        assert_eq!(said.code().code(), "55000", "{query}");
        assert!(said.message().contains("standby"), "{query}: {}", said.message());
        assert!(said.hint().unwrap().contains("bemi.changes can be read on the standby too"), "{query}");
    }
    let row = client.query_one("SELECT after->>'v' FROM bemi.changes WHERE \"table\" = 't'", &[]).unwrap();
    assert_eq!(row.get::<_, &str>(0), "a");
    drop(client);
    server.stop();
}
