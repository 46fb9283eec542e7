//! Contexts in comments.
use postgres::NoTls;
use serde_json::{Value, json};

use crate::Test;
use crate::context::table;
use crate::server::{Server, contexts};

pub const TESTS: &[Test] = &[
    ("the_comment_of_a_statement_adds_to_its_context", comments),
    ("each_statement_of_a_text_has_its_own_comments_however_it_runs", statements_of_a_text),
    ("deferred_triggers_carry_the_session_context", deferred_triggers),
    ("a_malformed_comment_warns_once_and_is_kept", malformed_comments),
    ("thousands_of_commented_statements_in_one_text_are_read_once", long_texts),
    ("text_in_a_row_cannot_forge_a_context", forged_comments),
    ("comments_are_read_with_every_protocol", extended_protocol),
    ("capture_query_adds_the_text_of_the_statement", capture_query),
];

fn comments(server: &Server) {
    let mut database = table(server, "comments");
    let mut client = database.connect();
    client.batch_execute("SELECT bemi.set_context('{\"user\":1,\"who\":\"session\"}')").unwrap();
    let mut expected = Vec::new();
    for (statement, context) in [
        ("INSERT INTO t (v) VALUES ('1') /*Bemi {\"who\":\"comment\"} Bemi*/", json!({"user":1,"who":"comment"})),
        ("INSERT INTO t (v) VALUES ('2')", json!({"user":1,"who":"session"})),
        (
            "/*Bemi {\"n\":1} Bemi*/ INSERT INTO t (v) VALUES ('3') /*Bemi {\"n\":2,\"m\":3} Bemi*/;",
            json!({"user":1,"who":"session","n":2,"m":3}),
        ),
        (
            "INSERT INTO t (v) VALUES ('4'); /*Bemi {\"last\":true} Bemi*/",
            json!({"user":1,"who":"session","last":true}),
        ),
        (
            "INSERT INTO t (v) VALUES ('5') /*Bemi %7B%22who%22%3A%20%22django%22%7D Bemi*/",
            json!({"user":1,"who":"django"}),
        ),
        ("SET bemi.read_comments = off", Value::Null),
        ("INSERT INTO t (v) VALUES ('6') /*Bemi {\"who\":\"comment\"} Bemi*/", json!({"user":1,"who":"session"})),
        ("RESET bemi.read_comments", Value::Null),
        (
            "CREATE FUNCTION add() RETURNS void LANGUAGE sql AS $$INSERT INTO t (v) VALUES ('7') /*Bemi {\"in\":1} Bemi*/$$",
            Value::Null,
        ),
        ("SELECT add() /*Bemi {\"out\":1} Bemi*/", json!({"user":1,"who":"session","out":1})),
    ] {
        client.batch_execute(statement).unwrap();
        if context != Value::Null {
            expected.push(context);
        }
    }
    assert_eq!(contexts(&database.documents()), expected);
    // Each statement of one text has its own.
    let changes = database.changes_of(
        "INSERT INTO t (v) VALUES ('1') /*Bemi {\"n\":1} Bemi*/; INSERT INTO t (v) VALUES ('2');
         /*Bemi {\"n\":3} Bemi*/ INSERT INTO t (v) VALUES ('3'); INSERT INTO t (v) VALUES ('4') /*Bemi {\"n\":4} Bemi*/",
    );
    assert_eq!(contexts(&changes), [json!({"n":1}), json!({}), json!({"n":3}), json!({"n":4})]);
}

/// EXECUTE, FETCH and loops in functions run in portals of their own.
fn statements_of_a_text(server: &Server) {
    let mut database = table(server, "statements_of_a_text");
    let setup = "CREATE FUNCTION add(x text) RETURNS int LANGUAGE sql AS 'INSERT INTO t (v) VALUES (x) RETURNING 1';
        CREATE FUNCTION loop(x text) RETURNS void LANGUAGE plpgsql AS
        $$ DECLARE r record; BEGIN FOR r IN SELECT add(x) LOOP END LOOP; END $$;
        CREATE TABLE ruled (v text); CREATE RULE also AS ON UPDATE TO ruled DO ALSO INSERT INTO t (v) VALUES ('by a rule')";
    database.connect().batch_execute(setup).unwrap();
    for (before, statement) in [
        ("PREPARE ins AS INSERT INTO t (v) VALUES ('x');", "EXECUTE ins"),
        ("", "SELECT loop('x')"),
        ("DECLARE c CURSOR FOR SELECT add('x') FROM generate_series(1, 2);", "FETCH 1 FROM c"),
        ("", "DO $$ BEGIN INSERT INTO t (v) VALUES ('x'); END $$"),
        ("", "EXPLAIN (ANALYZE) INSERT INTO t (v) VALUES ('x')"),
        ("", "UPDATE ruled SET v = 'x'"),
        ("", "WITH a AS (INSERT INTO t (v) VALUES ('x') RETURNING id) SELECT * FROM a"),
    ] {
        let text = format!(
            "BEGIN; {before} {statement} /*Bemi {{\"n\":1}} Bemi*/; /*Bemi {{\"n\":2}} Bemi*/ {statement}; COMMIT"
        );
        assert_eq!(contexts(&database.changes_of(&text)), [json!({"n":1}), json!({"n":2})], "{text}");
    }
}

/// They run when the client's statements are over.
fn deferred_triggers(server: &Server) {
    let mut database = table(server, "deferred_triggers");
    let setup = "CREATE TABLE d (id int); SELECT bemi.track('d');
        CREATE FUNCTION later() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO t (v) VALUES ('later'); RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER later AFTER INSERT ON d DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION later()";
    database.connect().batch_execute(setup).unwrap();
    let changes = database.changes_of(
        "BEGIN; SELECT bemi.set_context('{\"user\":1}'); INSERT INTO d VALUES (1) /*Bemi {\"a\":1} Bemi*/;
         INSERT INTO d VALUES (2) /*Bemi {\"b\":1} Bemi*/; COMMIT",
    );
    let session = json!({"user":1});
    assert_eq!(contexts(&changes), [json!({"user":1,"a":1}), json!({"user":1,"b":1}), session.clone(), session]);
}

fn long_texts(server: &Server) {
    let mut database = table(server, "long_texts");
    let text: String =
        (0..20_000).map(|n| format!("INSERT INTO t (v) VALUES ('{n}') /*Bemi {{\"n\":{n}}} Bemi*/;")).collect();
    let changes = database.changes_of(&text);
    assert_eq!(changes.len(), 20_000);
    for document in changes {
        assert_eq!(document["context"]["n"].to_string(), document["after"]["v"].as_str().unwrap());
    }
}

fn malformed_comments(server: &Server) {
    let mut database = table(server, "malformed_comments");
    database.connect().batch_execute("CREATE TABLE u (id int); SELECT bemi.track('u')").unwrap();
    let warnings = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = warnings.clone();
    let mut config = postgres::Config::new();
    config.host_path(server.host()).user("postgres").dbname(&database.name);
    config.notice_callback(move |notice| seen.lock().unwrap().push(notice.code().code().to_owned()));
    let mut client = config.connect(NoTls).unwrap();
    client.batch_execute("SELECT bemi.set_context('{\"user\":1}')").unwrap();
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(70_000));
    for comment in ["{\"a\":1", "[1]", "{\"a\":\"\\u0000\"}", &long] {
        let statement =
            format!("WITH a AS (INSERT INTO u VALUES (1)) INSERT INTO t (v) VALUES ('1') /*Bemi {comment} Bemi*/");
        client.batch_execute(&statement).unwrap();
        assert_eq!(std::mem::take(&mut *warnings.lock().unwrap()), ["22023"], "{comment:.50}");
        let documents = database.documents();
        assert_eq!(documents.len(), 2);
        for document in documents {
            let kept = &comment[..comment.len().min(1024)];
            assert_eq!(document["context"], json!({"user":1,"bemi_invalid_context":kept}));
        }
    }
    // Two in one text are two warnings.
    client
        .batch_execute(
            "INSERT INTO t (v) VALUES ('1') /*Bemi {a Bemi*/; INSERT INTO t (v) VALUES ('2') /*Bemi {b Bemi*/",
        )
        .unwrap();
    assert_eq!(std::mem::take(&mut *warnings.lock().unwrap()), ["22023", "22023"]);
    assert_eq!(database.documents().len(), 2);
    // Together, comments may not be longer than one may be.
    let long = |key: &str| format!("/*Bemi {{\"{key}\":\"{}\"}} Bemi*/", "x".repeat(40_000));
    client.batch_execute(&format!("INSERT INTO t (v) VALUES ('1') {} {}", long("a"), long("b"))).unwrap();
    assert_eq!(std::mem::take(&mut *warnings.lock().unwrap()), ["22023"]);
    let context = &contexts(&database.documents())[0];
    assert_eq!((context["a"].as_str().unwrap().len(), context.get("b")), (40_000, None));
    assert!(context["bemi_invalid_context"].as_str().unwrap().starts_with("{\"b\":"));
    client.batch_execute("INSERT INTO t (v) VALUES ('2') /*Bemi {\"a\":1} */").unwrap();
    assert_eq!(contexts(&database.documents()), [json!({"user":1,"bemi_invalid_context":"{\"a\":1}"})]);
}

fn forged_comments(server: &Server) {
    let mut database = table(server, "forged_comments");
    let forged = "/*Bemi {\"user\":\"root\"} Bemi*/";
    let mut client = database.connect();
    client
        .batch_execute(&format!(
            "INSERT INTO t (v) VALUES ('{forged}');
             INSERT INTO t (v) VALUES (E'\\'{forged}');
             INSERT INTO t (v) VALUES ($a${forged}$a$);
             UPDATE t AS \"{}\" SET v = 'x' WHERE id = 1;
             -- {forged}
             DELETE FROM t WHERE id = 1 /* {forged} */;
             SET standard_conforming_strings = off; SET escape_string_warning = off;",
            forged.replace('"', "\"\"")
        ))
        .unwrap();
    client.batch_execute(&format!("INSERT INTO t (v) VALUES ('\\'{forged}')")).unwrap();
    // Where the setting is not on, a comment counts only if it is one in either way of reading.
    let expected = json!({"bemi_invalid_context":"{\"user\":\"root\"}"});
    let mut contexts_of = || contexts(&database.documents());
    assert_eq!(contexts_of(), [vec![json!({}); 5], vec![expected.clone()]].concat());
    // A text that was read before the setting changed: what it says is neither trusted nor lost.
    client.batch_execute("RESET standard_conforming_strings").unwrap();
    client
        .batch_execute(
            "CREATE FUNCTION legacy(a text, b text) RETURNS void LANGUAGE plpgsql SET standard_conforming_strings = off AS
             $$ BEGIN INSERT INTO t (v) VALUES (a || b); END $$",
        )
        .unwrap();
    client.batch_execute(&format!("SELECT legacy('C:\\', ' {forged} --')")).unwrap();
    assert_eq!(contexts_of(), vec![expected.clone(); 1]);
    client
        .batch_execute(&format!(
            "SET standard_conforming_strings = off; INSERT INTO t (v) VALUES ('C:\\'), (' {forged} --')"
        ))
        .unwrap();
    assert_eq!(contexts_of(), vec![expected.clone(); 2]);
    // Now it is off; the next text is read so, and sets it on before it gets to its row.
    client
        .batch_execute(&format!("SET standard_conforming_strings = on; INSERT INTO t (v) VALUES ('\\' {forged} ')"))
        .unwrap();
    assert_eq!(contexts_of(), vec![expected.clone(); 1]);
    client.batch_execute(&format!("INSERT INTO t (v) VALUES ('\\\\') {forged}")).unwrap();
    assert_eq!(contexts_of(), vec![json!({"user":"root"}); 1]);
}

fn extended_protocol(server: &Server) {
    let mut database = table(server, "extended_protocol");
    let mut client = database.connect();
    let comment = "/*Bemi {\"via\":\"extended\"} Bemi*/";
    client.execute(&format!("INSERT INTO t (v) VALUES ($1) {comment}"), &[&"/*Bemi {\"x\":1} Bemi*/"]).unwrap();
    let statement = client.prepare(&format!("UPDATE t SET v = $1 {comment}")).unwrap();
    for value in ["2", "3"] {
        client.execute(&statement, &[&value]).unwrap();
    }
    client.execute("INSERT INTO t (v) VALUES ($1)", &[&"4"]).unwrap();
    client.execute("SELECT bemi.set_context($1)", &[&"{\"via\":\"parameter\"}"]).unwrap();
    client.execute("INSERT INTO t (v) VALUES ($1)", &[&"5"]).unwrap();
    let commented = json!({"via":"extended"});
    let expected = [commented.clone(), commented.clone(), commented, json!({}), json!({"via":"parameter"})];
    assert_eq!(contexts(&database.documents()), expected);
}

fn capture_query(server: &Server) {
    let mut database = table(server, "capture_query");
    let changes = database.changes_of(
        "SET bemi.capture_query = on;
         INSERT INTO t (v) VALUES ('1') /*Bemi {\"a\":1} Bemi*/;
         UPDATE t
           SET v = 'é' ;
         SET bemi.capture_query = off;
         DELETE FROM t;",
    );
    let expected = [
        json!({"a":1,"SQL":"INSERT INTO t (v) VALUES ('1')"}),
        json!({"SQL":"UPDATE t\n           SET v = 'é'"}),
        json!({}),
    ];
    assert_eq!(contexts(&changes), expected);
}
