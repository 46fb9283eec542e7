//! A database in UTF-8 may hold text that is none: some function in C, or a cast that converts nothing, put it there.
use serde_json::json;

use crate::Test;
use crate::server::Server;

pub const TESTS: &[Test] = &[("text_that_is_no_utf8_is_null_and_named_as_omitted", omitted)];

fn omitted(server: &Server) {
    let mut database = server.database("not_utf8");
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE CAST (bytea AS text) WITHOUT FUNCTION; CREATE CAST (bytea AS varchar) WITHOUT FUNCTION; CREATE CAST (bytea AS json) WITHOUT FUNCTION;
             CREATE TYPE pair AS (a int, b text);
             CREATE TABLE u (id text PRIMARY KEY, v text, c varchar(9), a text[], p pair, j json, long text); SELECT bemi.track('u')",
        )
        .unwrap();
    database.create_slot();
    client
        .batch_execute(
            r"INSERT INTO u VALUES ('fine', 'é \ ', 'é', '{é}', (1, 'é'), '{}', repeat('é', 70000));
              INSERT INTO u VALUES ('bad', '\x61ff62'::bytea::text, '\xc3'::bytea::varchar, ARRAY['x', '\xeda080'::bytea::text],
                (1, '\x80'::bytea::text), '\x22ff22'::bytea::json, repeat('é', 70000) || '\xff'::bytea::text);
              UPDATE u SET v = 'mended' WHERE id = 'bad';
              INSERT INTO u (id, v) VALUES ('\xc328'::bytea::text, 'keyed'); COMMIT",
        )
        .unwrap();
    let reason = "invalid byte sequence for encoding \"UTF8\"";
    let documents = database.documents();
    assert_eq!(documents[0]["after"]["v"], "é \\ ");
    assert_eq!(documents[0]["after"]["long"], "é".repeat(70000));
    assert_eq!(documents[0].get("omitted"), None);
    let none = json!({"id": "bad", "v": null, "c": null, "a": null, "p": null, "j": null, "long": null});
    let all = json!({"v": reason, "c": reason, "a": reason, "p": reason, "j": reason, "long": reason});
    assert_eq!((&documents[1]["after"], &documents[1]["omitted"]), (&none, &all));
    // Of both images, and of what did not change.
    assert_eq!((&documents[2]["before"], &documents[2]["omitted"]), (&none, &all));
    assert_eq!(documents[2]["after"]["v"], "mended");
    assert_eq!(documents[2]["after"]["c"], json!(null));
    // A key that is none names nothing.
    assert_eq!(documents[3]["primary_key"], json!(null));
    assert_eq!(documents[3]["omitted"], json!({"id": reason}));
    assert_eq!(documents[3]["after"]["v"], "keyed");
}
