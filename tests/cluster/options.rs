//! The options of the plugin, each by `pg_recvlogical -o`.
use serde_json::{Value, json};

use crate::Test;
use crate::context::table;
use crate::server::{Database, Server};

pub const TESTS: &[Test] = &[
    ("each_option_chooses_what_it_says", choices),
    ("wrong_options_are_refused_with_what_is_accepted", wrong_values),
    ("origins_can_be_named_and_dropped", origins),
    ("messages_have_the_keys_of_a_change_and_their_own", messages),
    ("transactions_can_be_told_by_documents_around_them", transactions),
    ("numbers_can_be_strings_everywhere_but_in_json", numbers),
    ("an_indented_document_says_the_same", pretty),
    ("batches_give_the_same_file_byte_for_byte", batches),
    ("a_partition_can_be_shown_as_its_root", partition_roots),
    ("tracked_tables_can_be_chosen", tracked_only),
];

/// What documents tell of, in short: `public.a CREATE`, `COMMIT`.
fn short(documents: &[Value]) -> Vec<String> {
    documents
        .iter()
        .map(|d| {
            let operation = d["operation"].as_str().unwrap();
            match (d["schema"].as_str(), d["table"].as_str(), d["prefix"].as_str()) {
                (Some(schema), Some(table), _) => format!("{schema}.{table} {operation}"),
                (_, _, Some(prefix)) => format!("{operation} {prefix}"),
                _ => operation.to_owned(),
            }
        })
        .collect()
}

fn workload(server: &Server) -> Database<'_> {
    let mut database = server.database("options");
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE SCHEMA other; CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE \"Foo bar\" (id int);
             CREATE TABLE other.a (id int); CREATE TABLE other.b (id int); CREATE TABLE \"st*r.dot,comma\" (id int);
             SELECT bemi.track('a')",
        )
        .unwrap();
    database.create_slot();
    client
        .batch_execute(
            "SELECT bemi.set_context('{\"c\":1}'); INSERT INTO a VALUES (1, 'x');
             BEGIN; UPDATE a SET v = 'y'; INSERT INTO \"Foo bar\" VALUES (1); INSERT INTO other.a VALUES (1); COMMIT;
             BEGIN; INSERT INTO other.b VALUES (1); SELECT pg_logical_emit_message(true, 'audit', 'hello');
             SELECT pg_logical_emit_message(true, 'noise', ''); TRUNCATE other.b; COMMIT;
             INSERT INTO \"st*r.dot,comma\" VALUES (1); DELETE FROM a;",
        )
        .unwrap();
    database
}

fn choices(server: &Server) {
    let database = workload(server);
    let (create, update, delete) = ("public.a CREATE", "public.a UPDATE", "public.a DELETE");
    let (spaced, other_a, other_b, truncate) =
        ("public.Foo bar CREATE", "other.a CREATE", "other.b CREATE", "other.b TRUNCATE");
    let (star, audit, noise, context) =
        ("public.st*r.dot,comma CREATE", "MESSAGE audit", "MESSAGE noise", "MESSAGE _bemi");
    let all = [create, update, spaced, other_a, other_b, truncate, star, delete];
    let cases: &[(&[&str], &[&str])] = &[
        (&[], &all),
        (&["add-tables=public.a"], &[create, update, delete]),
        (&["add-tables=*.a"], &[create, update, other_a, delete]),
        (&["add-tables= other.* , public.Foo\\ bar"], &[spaced, other_a, other_b, truncate]),
        (&["add-tables=public.st\\*r\\.dot\\,comma"], &[star]),
        (&["add-tables=*.*"], &all),
        (&["add-tables="], &all),
        (&["add-tables=public.A"], &[]),
        (&["filter-tables=public.*"], &[other_a, other_b, truncate]),
        (&["add-tables=*.a", "filter-tables=other.*"], &[create, update, delete]),
        (&["actions=insert"], &[create, spaced, other_a, other_b, star]),
        (&["actions=truncate, delete"], &[truncate, delete]),
        (&["tracked-only"], &[create, update, delete]),
        (&["tracked-only=off"], &all),
        (&["add-msg-prefixes=audit", "actions=delete"], &[audit, delete]),
        (&["add-msg-prefixes=*", "add-tables=no.ne"], &[audit, noise]),
        (&["add-msg-prefixes=*,_bemi", "filter-msg-prefixes=noise", "add-tables=no.ne"], &[context, audit, context]),
        (&["filter-msg-prefixes=noise", "add-tables=no.ne"], &[audit]),
        (&["include-transaction", "add-tables=other.b"], &["BEGIN", other_b, truncate, "COMMIT"]),
        (&["include-transaction", "actions=delete"], &["BEGIN", delete, "COMMIT"]),
        (&["include-transaction=false", "actions=delete"], &[delete]),
        (&["only-local", "actions=delete"], &[delete]),
        (&["batch-bytes=0", "actions=delete"], &[delete]),
        (&["stream-changes", "two-phase=false", "actions=delete"], &[delete]),
    ];
    for (options, expected) in cases {
        assert_eq!(short(&database.documents_with(options)), *expected, "{options:?}");
    }
}

fn wrong_values(server: &Server) {
    let database = table(server, "wrong_values");
    let boolean = "It takes true (also if no value is given) or false.";
    let tables = "schema.table, *.table or schema.*";
    let cases = [
        ("add-tabels=public.t", "bemi_decoder has no option \"add-tabels\"", "add-tables, filter-tables, actions"),
        ("add-tables=t", "does not take the value \"t\"", tables),
        ("add-tables=public.\"T\"", "has a double quote", tables),
        ("add-tables=public.t*", "only a part of a name", tables),
        ("filter-tables=a.b,,c.d", "An item of the list is empty", tables),
        ("add-tables", "option \"add-tables\" of bemi_decoder needs a value", tables),
        ("actions=insert,upsert", "does not take the value \"insert,upsert\"", "insert, update, delete, truncate"),
        ("actions=", "\"actions\"", "insert, update, delete, truncate"),
        ("add-msg-prefixes=a b", "has a space", "escaped with a backslash"),
        ("filter-msg-prefixes=a\\", "has no character to escape", "escaped with a backslash"),
        ("filter-origins=0", "replication origin \"0\" of the option", "A number above 0"),
        ("filter-origins=65536", "replication origin \"65536\" of the option", "A number above 0"),
        ("filter-origins=nowhere", "replication origin \"nowhere\" of the option", "pg_replication_origin"),
        ("filter-origins=1,,2", "is empty", "numbers or names of replication origins"),
        ("tracked-only=2", "option \"tracked-only\" of bemi_decoder does not take the value \"2\"", boolean),
        ("only-local=x", "\"only-local\"", boolean),
        ("include-transaction=o", "\"include-transaction\"", boolean),
        ("include-origin=", "\"include-origin\"", boolean),
        ("numeric-data-types-as-string=maybe", "\"numeric-data-types-as-string\"", boolean),
        ("publish-via-partition-root=7", "\"publish-via-partition-root\"", boolean),
        ("pretty-print=tabs", "\"pretty-print\"", boolean),
        ("stream-changes=parallel", "\"stream-changes\"", boolean),
        ("two-phase=maybe", "\"two-phase\"", boolean),
        ("batch-bytes=64kB", "\"batch-bytes\"", "from 0 to 67108864"),
        ("batch-bytes=67108865", "\"batch-bytes\"", "from 0 to 67108864"),
    ];
    for (option, message, hint) in cases {
        let said = database.read(&[option]).unwrap_err();
        assert!(said.contains(message) && said.contains(hint), "{option}: {said}");
    }
    let said = database.read(&["pretty-print", "pretty-print"]).unwrap_err();
    assert!(said.contains("option \"pretty-print\" of bemi_decoder is given twice"), "{said}");
    let mut client = database.connect();
    let peek = "SELECT * FROM pg_logical_slot_peek_changes('wrong_values', NULL, NULL, 'é', '1')";
    let error = client.batch_execute(peek).unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!((error.code().code(), error.message()), ("22023", "bemi_decoder has no option \"é\""));
    // The slot is as good as before.
    client.batch_execute("INSERT INTO t (v) VALUES ('x')").unwrap();
    assert_eq!(database.documents_with(&[]).len(), 1);
}

fn origins(server: &Server) {
    let database = table(server, "origins");
    let mut client = database.connect();
    let number: String =
        client.query_one("SELECT pg_replication_origin_create('else\"where é')::text", &[]).unwrap().get(0);
    client
        .batch_execute(
            "INSERT INTO t (v) VALUES ('here');
             SELECT pg_replication_origin_session_setup('else\"where é');
             INSERT INTO t (v) VALUES ('there'); SELECT pg_replication_origin_session_reset(); INSERT INTO t (v) VALUES ('here');",
        )
        .unwrap();
    let shown = |options: &[&str]| -> Vec<Value> {
        let documents = database.documents_with(options);
        documents.iter().map(|d| json!([d["after"]["v"], d.get("origin")])).collect()
    };
    let (here, there) = (json!(["here", null]), json!(["there", "else\"where é"]));
    assert_eq!(shown(&["include-origin"]), [here.clone(), there.clone(), here.clone()]);
    assert_eq!(shown(&["only-local"]), [here.clone(), here.clone()]);
    assert_eq!(shown(&["filter-origins=else\\\"where\\ é"]), [here.clone(), here.clone()]);
    assert_eq!(shown(&[&format!("filter-origins= {number} ,60000")]), [here.clone(), here.clone()]);
    assert_eq!(shown(&["filter-origins=60000", "include-origin"]), [here.clone(), there, here.clone()]);
    let keys = database.documents_with(&["include-origin"]);
    assert_eq!(keys[0].as_object().unwrap().keys().next_back().unwrap(), "origin");
    // A name counts before a number.
    client
        .batch_execute(
            "SELECT pg_replication_origin_create('60001'); SELECT pg_replication_origin_session_setup('60001');
             INSERT INTO t (v) VALUES ('number'); SELECT pg_replication_origin_session_reset()",
        )
        .unwrap();
    assert_eq!(shown(&["filter-origins=60001"]).len(), 3);
    // An origin that is gone by now is named as of the change.
    let mut database = database;
    database.documents();
    client
        .batch_execute(
            "SELECT pg_replication_origin_session_setup('else\"where é'); INSERT INTO t (v) VALUES ('there');
             SELECT pg_replication_origin_session_reset()",
        )
        .unwrap();
    client.batch_execute("SELECT pg_replication_origin_drop('else\"where é')").unwrap();
    assert_eq!(database.documents_with(&["include-origin"])[0]["origin"], json!("else\"where é"));
}

fn messages(server: &Server) {
    let database = table(server, "messages");
    let mut client = database.connect();
    client
        .batch_execute(
            "SELECT bemi.set_context('{\"c\":1}');
             BEGIN; INSERT INTO t (v) VALUES ('x'); SELECT pg_logical_emit_message(true, 'au\"dit é', E'a\"\\n日');
             SELECT pg_logical_emit_message(true, 'bytes', '\\x00ff'::bytea); COMMIT;
             SELECT pg_logical_emit_message(false, 'alone', 'now'); INSERT INTO t (v) VALUES ('y')",
        )
        .unwrap();
    let documents = database.documents_with(&["add-msg-prefixes=*"]);
    let operations: Vec<&Value> = documents.iter().map(|d| &d["operation"]).collect();
    let mut expected = ["CREATE", "MESSAGE", "MESSAGE", "MESSAGE", "CREATE"].map(|o| json!(o));
    // A message outside of transactions is passed on as soon as it is read.
    let alone = documents.iter().position(|d| d["transactional"] == json!(false)).unwrap();
    assert_eq!(operations, expected.iter_mut().collect::<Vec<_>>());
    let mut sequences: Vec<&Value> = documents.iter().map(|d| &d["sequence"]).collect();
    assert_eq!(sequences.remove(alone), &json!(null));
    assert_eq!(sequences, [&json!(1), &json!(2), &json!(3), &json!(1)]);
    let document = &documents[1];
    let keys: Vec<_> = document.as_object().unwrap().keys().map(String::as_str).collect();
    let of_change = documents[0].as_object().unwrap().keys().map(String::as_str);
    assert!(of_change.chain(["transactional", "prefix", "content"]).eq(keys));
    assert_eq!(document["prefix"], json!("au\"dit é"));
    assert_eq!((&document["content"], &document["context"]), (&json!("a\"\n日"), &json!({"c":1})));
    assert_eq!(
        (&document["schema"], &document["table"], &document["primary_key"], &document["before"], &document["after"]),
        (&json!(null), &json!(null), &json!(null), &json!({}), &json!({}))
    );
    assert_eq!((&documents[2]["content_bytes"], documents[2].get("content")), (&json!("\\x00ff"), None));
    assert_eq!(documents[alone]["content"], json!("now"));
    assert_eq!((&documents[alone]["context"], &documents[alone]["commit_position"]), (&json!({}), &json!(null)));
    // A message under a savepoint comes before the change that follows it, though both have one position.
    client
        .batch_execute(
            "BEGIN; INSERT INTO t (v) VALUES ('a'); SAVEPOINT s; SELECT pg_logical_emit_message(true, 'between', 'x'); RELEASE s;
             INSERT INTO t (v) VALUES ('b'); COMMIT",
        )
        .unwrap();
    let documents = database.documents_with(&["add-msg-prefixes=between"]);
    let last: Vec<_> = documents[2..].iter().map(|d| json!([d["sequence"], d["operation"]])).collect();
    assert_eq!(last, [json!([1, "CREATE"]), json!([2, "MESSAGE"]), json!([3, "CREATE"])]);
    // In a database of another encoding, also where no transaction is open.
    let mut latin1 =
        server.database_with("messages_latin1", "ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'");
    latin1.create_slot();
    let mut client = latin1.connect();
    client
        .batch_execute(
            "SELECT pg_logical_emit_message(false, 'prefix é', 'brûlée'); SELECT pg_logical_emit_message(true, 'prefix é', 'brûlée')",
        )
        .unwrap();
    let documents = latin1.documents_with(&["add-msg-prefixes=prefix\\ é"]);
    assert_eq!(documents.len(), 2);
    for document in documents {
        assert_eq!((&document["prefix"], &document["content"]), (&json!("prefix é"), &json!("brûlée")));
    }
}

fn transactions(server: &Server) {
    let database = table(server, "transactions");
    let mut client = database.connect();
    client
        .batch_execute(
            "BEGIN; INSERT INTO t (v) VALUES ('x'), ('y'); SAVEPOINT s; INSERT INTO t (v) VALUES ('z'); RELEASE s; COMMIT;
             CREATE TABLE not_shown AS SELECT 1 AS one; BEGIN; INSERT INTO t (v) VALUES ('gone'); ROLLBACK; DELETE FROM t",
        )
        .unwrap();
    let documents = database.documents_with(&["include-transaction", "add-tables=public.t"]);
    let expected = ["BEGIN", "CREATE", "CREATE", "CREATE", "COMMIT", "BEGIN", "DELETE", "DELETE", "DELETE", "COMMIT"];
    assert_eq!(documents.iter().map(|d| d["operation"].as_str().unwrap()).collect::<Vec<_>>(), expected);
    for marker in [&documents[0], &documents[4]] {
        for key in ["transaction_id", "commit_position", "committed_at", "database"] {
            assert_eq!(marker[key], documents[1][key]);
        }
        assert_eq!(marker.as_object().unwrap().len(), 5);
    }
    let sequences: Vec<&Value> = documents[1..4].iter().map(|d| &d["sequence"]).collect();
    assert_eq!(sequences, [&json!(1), &json!(2), &json!(3)]);
}

fn numbers(server: &Server) {
    let mut database = server.database("numbers");
    database.create_slot();
    database
        .connect()
        .batch_execute(
            "CREATE TYPE pair AS (a int, b numeric[]); CREATE DOMAIN positive AS bigint;
             CREATE TABLE n (i int PRIMARY KEY, s smallint, b positive, r real, d float8, n numeric, a int[], p pair, j jsonb, t text, o oid);
             INSERT INTO n VALUES (1, 2, 3, 1.5, 'NaN', 1.50, '{1,NULL}', ROW(1, '{2.0}'), '{\"a\":1}', '1', 7), (2, NULL, NULL, NULL, '-Infinity', 'NaN', NULL, NULL, NULL, NULL, NULL)",
        )
        .unwrap();
    let documents = database.documents_with(&["numeric-data-types-as-string"]);
    let first = json!({"i":"1","s":"2","b":"3","r":"1.5","d":"NaN","n":"1.50","a":["1",null],"p":{"a":"1","b":["2.0"]},"j":{"a":1},"t":"1","o":"7"});
    assert_eq!(documents[0]["after"], first);
    assert_eq!(documents[0]["primary_key"], json!("1"));
    assert_eq!(documents[0]["sequence"], json!(1));
    assert_eq!((&documents[1]["after"]["d"], &documents[1]["after"]["n"]), (&json!("-Infinity"), &json!("NaN")));
}

fn pretty(server: &Server) {
    let database = table(server, "pretty");
    database
        .connect()
        .batch_execute(
            "SELECT bemi.set_context('{\"a\":[1,{}]}'); INSERT INTO t (v) VALUES ('{\"x\":\\n}'), ('y'); DELETE FROM t",
        )
        .unwrap();
    let plain = database.documents_with(&[]);
    for options in [&["pretty-print"][..], &["pretty-print", "batch-bytes=65536"]] {
        let text = database.read(options).unwrap().join("\n");
        let documents: Vec<Value> =
            serde_json::Deserializer::from_str(&text).into_iter::<Value>().collect::<Result<_, _>>().unwrap();
        assert_eq!(documents, plain);
        assert!(
            text.contains(
                "\n    \"context\": {\n        \"a\": [\n            1,\n            {}\n        ]\n    }\n}"
            ),
            "{text}"
        );
    }
}

fn batches(server: &Server) {
    let database = table(server, "batches");
    let mut client = database.connect();
    client
        .batch_execute(
            "SELECT bemi.set_context('{\"a\":1}'); INSERT INTO t (v) SELECT repeat('x', i % 300) FROM generate_series(1, 5000) i;
             BEGIN; UPDATE t SET v = 'y' WHERE id % 7 = 0; SAVEPOINT s; SELECT bemi.set_context('{\"a\":2}'); DELETE FROM t WHERE id % 5 = 0;
             RELEASE s; INSERT INTO t (v) VALUES (repeat('long', 100000)), ('short'); COMMIT; TRUNCATE t;",
        )
        .unwrap();
    let plain = database.read(&[]).unwrap();
    assert!(plain.len() > 6000);
    for size in ["1", "300", "65536", "67108864"] {
        assert!(database.read(&[&format!("batch-bytes={size}")]).unwrap() == plain, "{size}");
        let marked = ["include-transaction", "stream-changes"];
        let expected = database.read(&marked).unwrap();
        assert!(database.read(&[marked[0], marked[1], &format!("batch-bytes={size}")]).unwrap() == expected, "{size}");
    }
    // There are few messages, none is much longer than asked for, and each is at the position of its last document.
    let rows = client
        .query(
            "SELECT length(data), lsn::text, data FROM pg_logical_slot_peek_changes('batches', NULL, NULL, 'batch-bytes', '65536')",
            &[],
        )
        .unwrap();
    assert!(rows.len() < 60, "{}", rows.len());
    for row in &rows {
        let data: String = row.get(2);
        assert!(row.get::<_, i32>(0) <= 65536 || !data.contains('\n'));
        let last: Value = serde_json::from_str(data.lines().last().unwrap()).unwrap();
        assert_eq!(last["position"], json!(row.get::<_, String>(1)));
    }
    assert_eq!(rows.iter().map(|row| row.get::<_, String>(2)).collect::<Vec<_>>().join("\n"), plain.join("\n"));
}

fn partition_roots(server: &Server) {
    let mut database = server.database("partition_roots");
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE SCHEMA parts;
             CREATE TABLE root (id int, region text, v text, gone int, PRIMARY KEY (region, id)) PARTITION BY LIST (region);
             CREATE TABLE parts.west PARTITION OF root FOR VALUES IN ('west') PARTITION BY RANGE (id);
             CREATE TABLE parts.west_1 PARTITION OF parts.west FOR VALUES FROM (0) TO (100);
             CREATE TABLE parts.east (dropped int, v text, id int NOT NULL, gone int, region text NOT NULL);
             ALTER TABLE parts.east DROP COLUMN dropped; ALTER TABLE parts.east REPLICA IDENTITY FULL;
             ALTER TABLE root ATTACH PARTITION parts.east FOR VALUES IN ('east'); ALTER TABLE root DROP COLUMN gone;
             CREATE TABLE plain (id int)",
        )
        .unwrap();
    database.create_slot();
    client
        .batch_execute(
            "INSERT INTO root VALUES (1, 'west', 'a'), (2, 'east', 'b'); UPDATE parts.east SET v = 'c';
             UPDATE root SET region = 'west' WHERE id = 2; INSERT INTO plain VALUES (1);
             TRUNCATE root; TRUNCATE parts.east;
             BEGIN; INSERT INTO root VALUES (3, 'east', 'd'); ALTER TABLE root RENAME TO trunk; INSERT INTO trunk VALUES (4, 'east', 'e');
             ALTER TABLE trunk RENAME v TO w; INSERT INTO trunk VALUES (5, 'east', 'f');
             ALTER TABLE trunk DETACH PARTITION parts.east; INSERT INTO parts.east (id, region, w) VALUES (6, 'east', 'g'); COMMIT;",
        )
        .unwrap();
    let leaves = short(&database.documents_with(&[]));
    let expected = [
        "parts.west_1 CREATE",
        "parts.east CREATE",
        "parts.east UPDATE",
        "parts.east DELETE",
        "parts.west_1 CREATE",
        "public.plain CREATE",
        "public.root TRUNCATE",
        "parts.west TRUNCATE",
        "parts.west_1 TRUNCATE",
        "parts.east TRUNCATE",
        "parts.east TRUNCATE",
        "parts.east CREATE",
        "parts.east CREATE",
        "parts.east CREATE",
        "parts.east CREATE",
    ];
    let sorted = |list: &[String]| {
        let mut list = list.to_vec();
        list[6..10].sort();
        list
    };
    assert_eq!(sorted(&leaves), sorted(&expected.map(str::to_owned)));
    let documents = database.documents_with(&["publish-via-partition-root"]);
    let expected = [
        "public.root CREATE",
        "public.root CREATE",
        "public.root UPDATE",
        "public.root DELETE",
        "public.root CREATE",
        "public.plain CREATE",
        "public.root TRUNCATE",
        "parts.east TRUNCATE",
        "public.root CREATE",
        "public.trunk CREATE",
        "public.trunk CREATE",
        "parts.east CREATE",
    ];
    assert_eq!(short(&documents), expected);
    assert_eq!(documents[1]["after"].to_string(), r#"{"id":2,"region":"east","v":"b"}"#);
    assert_eq!(documents[2]["before"].to_string(), r#"{"id":2,"region":"east","v":"b"}"#);
    assert_eq!(documents[0]["primary_key"], json!("[\"west\",\"1\"]"));
    assert_eq!(documents[1]["primary_key"], json!("[\"east\",\"2\"]"));
    assert_eq!(documents[10]["after"].to_string(), r#"{"id":5,"region":"east","w":"f"}"#);
    assert_eq!(documents[11]["after"].to_string(), r#"{"w":"g","id":6,"region":"east"}"#);
    // A partition that is not shown under its own name is not when it is emptied.
    let truncated = database.documents_with(&["publish-via-partition-root", "actions=truncate", "add-tables=public.*"]);
    assert_eq!(short(&truncated), ["public.root TRUNCATE"]);
    // Filters see the name that is shown.
    let filtered = database.documents_with(&["publish-via-partition-root", "filter-tables=*.root,*.trunk,*.plain"]);
    assert_eq!(short(&filtered), ["parts.east CREATE"]);
}

fn tracked_only(server: &Server) {
    let database = table(server, "tracked_only");
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE TABLE root (id int) PARTITION BY LIST (id); CREATE TABLE leaf PARTITION OF root FOR VALUES IN (1);
             SELECT bemi.track('root'); CREATE TABLE later PARTITION OF root FOR VALUES IN (2); CREATE TABLE u (id int);
             CREATE FUNCTION emit_context() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
             CREATE TRIGGER bemi_context BEFORE INSERT ON u EXECUTE FUNCTION emit_context()",
        )
        .unwrap();
    client
        .batch_execute(
            "INSERT INTO root VALUES (1), (2); INSERT INTO u VALUES (1); INSERT INTO t (v) VALUES ('x');
             BEGIN; SELECT bemi.untrack('t'); INSERT INTO t (v) VALUES ('untracked'); SELECT bemi.track('t'); INSERT INTO t (v) VALUES ('tracked'); COMMIT;
             ALTER TABLE t DISABLE TRIGGER ALL; INSERT INTO t (v) VALUES ('disabled');
             CREATE UNLOGGED TABLE no_log (id int); INSERT INTO no_log VALUES (1)",
        )
        .unwrap();
    let documents = database.documents_with(&["tracked-only"]);
    let expected =
        ["public.leaf CREATE", "public.later CREATE", "public.t CREATE", "public.t CREATE", "public.t CREATE"];
    assert_eq!(short(&documents), expected);
    assert_eq!(documents[3]["after"]["v"], json!("tracked"));
}
