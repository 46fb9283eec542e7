//! Catalog changes: each document has the names and types that held at that moment.
use serde_json::{Value, json};

use crate::Test;
use crate::server::{Database, Server};

pub const TESTS: &[Test] = &[
    ("columns_changed_in_one_transaction_are_told_as_of_the_change", columns),
    ("names_changed_in_one_transaction_are_told_as_of_the_change", names),
    ("types_changed_in_one_transaction_are_told_as_of_the_change", types),
    ("rewritten_tables_give_no_documents_of_their_own", rewritten),
    ("keys_and_replica_identities_changed_in_one_transaction_hold_from_there_on", keys),
    ("streamed_catalog_changes_are_told_the_same", streamed),
    ("extension_types_are_as_to_jsonb_gives_them", extension_types),
    ("a_cast_to_json_of_a_user_is_never_called", user_casts),
    ("what_is_omitted_is_logged_once_for_each_table", warnings),
];

/// The table and rows of each change.
fn rows(changes: &[Value]) -> Vec<Value> {
    changes.iter().map(|d| json!([d["table"], d["before"], d["after"]])).collect()
}

fn with_slot<'a>(server: &'a Server, name: &str, setup: &str) -> Database<'a> {
    let mut database = server.database(name);
    database.connect().batch_execute(setup).unwrap();
    database.create_slot();
    database
}

const COLUMNS: &str = "BEGIN;
    INSERT INTO c VALUES (1, 'a', 1);
    ALTER TABLE c ADD COLUMN late text DEFAULT 'd'; UPDATE c SET v = 'b';
    ALTER TABLE c DROP COLUMN n; UPDATE c SET v = 'c';
    ALTER TABLE c RENAME v TO \"V é\"; UPDATE c SET late = 'e';
    ALTER TABLE c ADD COLUMN n jsonb DEFAULT '{\"x\":1}'; DELETE FROM c;
    COMMIT";

fn columns(server: &Server) {
    let setup = "CREATE TABLE c (id int PRIMARY KEY, v text, n int); ALTER TABLE c REPLICA IDENTITY FULL";
    let mut database = with_slot(server, "catalog_columns", setup);
    let expected = [
        json!(["c", {}, {"id":1,"v":"a","n":1}]),
        json!(["c", {"id":1,"v":"a","n":1,"late":"d"}, {"id":1,"v":"b","n":1,"late":"d"}]),
        json!(["c", {"id":1,"v":"b","late":"d"}, {"id":1,"v":"c","late":"d"}]),
        json!(["c", {"id":1,"V é":"c","late":"d"}, {"id":1,"V é":"c","late":"e"}]),
        json!(["c", {"id":1,"V é":"c","late":"e","n":{"x":1}}, {}]),
    ];
    assert_eq!(rows(&database.changes_of(COLUMNS)), expected);
    // A row that the log has not is not the one before it.
    let wider: Vec<String> = (0..40).map(|i| format!("ALTER TABLE c ADD w{i} int;")).collect();
    let changes = database.changes_of(&format!("INSERT INTO c VALUES (9); {} DELETE FROM c", wider.concat()));
    assert_eq!(changes[1]["before"].as_object().unwrap().len(), 44);
    // What was rolled back never was.
    let changes = database.changes_of(
        "BEGIN; INSERT INTO c VALUES (2); SAVEPOINT s; ALTER TABLE c RENAME late TO never; ALTER TABLE c RENAME TO not_c;
         INSERT INTO not_c VALUES (3); ROLLBACK TO s; INSERT INTO c VALUES (4); COMMIT",
    );
    let shown: Vec<Value> = changes.iter().map(|d| json!([d["table"], d["after"]["id"], d["after"]["late"]])).collect();
    assert_eq!(shown, [json!(["c", 2, "d"]), json!(["c", 4, "d"])]);
}

fn names(server: &Server) {
    let mut database = with_slot(server, "catalog_names", "CREATE SCHEMA one; CREATE TABLE one.t (id int)");
    let changes = database.changes_of(
        "BEGIN;
         INSERT INTO one.t VALUES (1); ALTER TABLE one.t RENAME TO u; INSERT INTO one.u VALUES (2);
         ALTER TABLE one.u SET SCHEMA public; INSERT INTO public.u VALUES (3);
         ALTER SCHEMA one RENAME TO two; ALTER TABLE public.u SET SCHEMA two; INSERT INTO two.u VALUES (4);
         ALTER SCHEMA two RENAME TO three; INSERT INTO three.u VALUES (5);
         DROP TABLE three.u; CREATE TABLE three.u (other text); INSERT INTO three.u VALUES ('new');
         COMMIT",
    );
    let shown: Vec<Value> = changes.iter().map(|d| json!([d["schema"], d["table"], d["after"]])).collect();
    let expected = [
        json!(["one", "t", {"id":1}]),
        json!(["one", "u", {"id":2}]),
        json!(["public", "u", {"id":3}]),
        json!(["two", "u", {"id":4}]),
        json!(["three", "u", {"id":5}]),
        json!(["three", "u", {"other":"new"}]),
    ];
    assert_eq!(shown, expected);
}

fn types(server: &Server) {
    let setup =
        "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TYPE pair AS (a int, b text); CREATE DOMAIN small AS int;
                 CREATE TABLE t (id int PRIMARY KEY, m mood, p pair, ps pair[], s small, v varchar(5));
                 ALTER TABLE t REPLICA IDENTITY FULL";
    let mut database = with_slot(server, "catalog_types", setup);
    let changes = database.changes_of(
        "BEGIN;
         INSERT INTO t VALUES (1, 'sad', (1, 'x'), '{\"(1,x)\"}', 5, '7');
         ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'; ALTER TYPE mood ADD VALUE 'late' AFTER 'ok';
         ALTER TYPE pair RENAME ATTRIBUTE b TO c; UPDATE t SET v = '8';
         ALTER TABLE t ALTER v TYPE int USING v::int; UPDATE t SET v = v + 1;
         ALTER TABLE t ALTER v TYPE timestamptz USING '2026-11-20 11:00+00'; UPDATE t SET s = 6;
         COMMIT;
         UPDATE t SET m = 'late'; ALTER TYPE pair ADD ATTRIBUTE d int; UPDATE t SET p = (1, 'x', 2);
         ALTER TYPE pair DROP ATTRIBUTE a; UPDATE t SET s = 7;",
    );
    let after: Vec<&Value> = changes.iter().map(|d| &d["after"]).collect();
    let pair = json!({"a":1,"c":"x"});
    let at = "2026-11-20T11:00:00+00:00";
    let expected = [
        json!({"id":1,"m":"sad","p":{"a":1,"b":"x"},"ps":[{"a":1,"b":"x"}],"s":5,"v":"7"}),
        json!({"id":1,"m":"blue","p":pair,"ps":[pair],"s":5,"v":"8"}),
        json!({"id":1,"m":"blue","p":pair,"ps":[pair],"s":5,"v":9}),
        json!({"id":1,"m":"blue","p":pair,"ps":[pair],"s":6,"v":at}),
        json!({"id":1,"m":"late","p":pair,"ps":[pair],"s":6,"v":at}),
        json!({"id":1,"m":"late","p":{"a":1,"c":"x","d":2},"ps":[{"a":1,"c":"x","d":null}],"s":6,"v":at}),
        json!({"id":1,"m":"late","p":{"c":"x","d":2},"ps":[{"c":"x","d":null}],"s":7,"v":at}),
    ];
    assert_eq!(after, expected.iter().collect::<Vec<_>>());
    assert_eq!(changes[1]["before"]["m"], json!("blue"));
}

fn rewritten(server: &Server) {
    let setup = "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, i FROM generate_series(1, 100) i";
    let mut database = with_slot(server, "rewritten", setup);
    let changes = database.changes_of(
        "BEGIN; INSERT INTO t VALUES (0, 'before'); ALTER TABLE t ADD r float8 DEFAULT random(), ALTER id TYPE bigint;
         INSERT INTO t VALUES (101, 'after', 1.5); TRUNCATE t; INSERT INTO t VALUES (1, 'new', 2.5); CLUSTER t USING t_pkey; COMMIT;
         INSERT INTO t VALUES (2, 'end', 3.5)",
    );
    let shown: Vec<Value> = changes.iter().map(|d| json!([d["operation"], d["after"]])).collect();
    let expected = [
        json!(["CREATE", {"id":0,"v":"before"}]),
        json!(["CREATE", {"id":101,"v":"after","r":1.5}]),
        json!(["TRUNCATE", {}]),
        json!(["CREATE", {"id":1,"v":"new","r":2.5}]),
        json!(["CREATE", {"id":2,"v":"end","r":3.5}]),
    ];
    assert_eq!(shown, expected);
    let mut client = database.connect();
    client.batch_execute("VACUUM FULL t").unwrap();
    client.batch_execute("REINDEX TABLE t").unwrap();
    assert_eq!(database.documents(), [Value::Null; 0]);
}

fn keys(server: &Server) {
    let setup = "CREATE TABLE t (a int NOT NULL, b text NOT NULL, c int)";
    let mut database = with_slot(server, "catalog_keys", setup);
    let changes = database.changes_of(
        "BEGIN; INSERT INTO t VALUES (1, 'x', 0);
         ALTER TABLE t ADD PRIMARY KEY (a); UPDATE t SET a = 2;
         ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (b, a); UPDATE t SET b = 'y';
         ALTER TABLE t RENAME b TO z; ALTER TABLE t REPLICA IDENTITY FULL; UPDATE t SET c = 1;
         CREATE UNIQUE INDEX i ON t (a); ALTER TABLE t REPLICA IDENTITY USING INDEX i; ALTER TABLE t DROP CONSTRAINT t_pkey; UPDATE t SET a = 3;
         ALTER TABLE t REPLICA IDENTITY NOTHING; DELETE FROM t; COMMIT",
    );
    let shown: Vec<Value> = changes.iter().map(|d| json!([d["primary_key"], d["before"]])).collect();
    let expected = [
        json!([null, {}]),
        json!(["2", {"a":1}]),
        json!(["[\"y\",\"2\"]", {"a":2,"b":"x"}]),
        json!(["[\"y\",\"2\"]", {"a":2,"z":"y","c":0}]),
        json!(["3", {"a":2}]),
        json!([null, {}]),
    ];
    assert_eq!(shown, expected);
}

fn streamed(_: &Server) {
    let server = Server::start("logical_decoding_work_mem = 64kB\n");
    let setup = "CREATE TABLE c (id int, v text, n int, pad text); ALTER TABLE c REPLICA IDENTITY FULL; CREATE TYPE mood AS ENUM ('sad')";
    let mut database = with_slot(&server, "catalog_streamed", setup);
    let mut client = database.connect();
    let rows = "INSERT INTO c (id, pad) SELECT i, repeat('x', 500) FROM generate_series(1, 150) i;";
    client
        .batch_execute(&format!(
            "BEGIN; {rows} ALTER TABLE c ADD late text DEFAULT 'd'; {rows} ALTER TABLE c DROP n; UPDATE c SET v = 'x';
             ALTER TABLE c RENAME v TO w; UPDATE c SET w = 'y'; ALTER TABLE c RENAME TO d; ALTER TABLE d RENAME TO c; {rows}
             ALTER TABLE c ALTER late DROP DEFAULT, ALTER late TYPE int USING 7; {rows} ALTER TYPE mood RENAME VALUE 'sad' TO 'blue';
             ALTER TABLE c ADD m mood DEFAULT 'blue'; DELETE FROM c; COMMIT;
             BEGIN; {rows} ALTER TABLE c ADD more int; {rows} SAVEPOINT s; ALTER TABLE c RENAME w TO never; {rows} {rows} ROLLBACK TO s; {rows} COMMIT;"
        ))
        .unwrap();
    let strip = |documents: Vec<Value>| -> Vec<Value> {
        let aborted: Vec<Value> = documents
            .iter()
            .filter(|d| d["operation"] == json!("STREAM ABORT"))
            .map(|d| d["subtransaction_id"].clone())
            .collect();
        let kept = documents.iter().filter(|d| d.get("table").is_some() && !aborted.contains(&d["subtransaction_id"]));
        kept.map(|d| json!([d["position"], d["table"], d["operation"], d["before"], d["after"]])).collect()
    };
    let documents = database.documents_with(&["stream-changes"]);
    assert!(documents.iter().any(|d| d["operation"] == json!("STREAM COMMIT")));
    let streamed = strip(documents);
    assert_eq!(streamed, strip(database.documents()));
    assert!(streamed.len() > 1500, "{}", streamed.len());
    server.stop();
}

/// What `to_jsonb` gave in the session that wrote the row.
fn extension_types(server: &Server) {
    let mut database = with_slot(
        server,
        "extension_types",
        "CREATE EXTENSION hstore; CREATE EXTENSION citext; CREATE EXTENSION ltree; CREATE EXTENSION cube; CREATE EXTENSION isn;
         CREATE TYPE geometry;
         CREATE FUNCTION geometry_in(cstring) RETURNS geometry LANGUAGE internal IMMUTABLE STRICT AS 'byteain';
         CREATE FUNCTION geometry_out(geometry) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'byteaout';
         CREATE TYPE geometry (INPUT = geometry_in, OUTPUT = geometry_out, INTERNALLENGTH = VARIABLE, STORAGE = main);
         CREATE DOMAIN tags AS hstore CHECK (NOT VALUE ? 'bad'); CREATE DOMAIN email AS citext; CREATE DOMAIN places AS geometry[];
         CREATE TYPE mood AS ENUM ('sad', 'ok');
         CREATE TYPE inner_type AS (h hstore, e email, m mood[]); CREATE TYPE outer_type AS (i inner_type[], t tags, g geometry);
         CREATE DOMAIN checked AS outer_type CHECK (VALUE IS NULL OR (VALUE).g IS NOT NULL);
         CREATE TABLE t (id int PRIMARY KEY, h hstore, hs hstore[], d tags, ds tags[], c citext, e email, g geometry, p places,
           o outer_type, os outer_type[], k checked, m mood, ms mood[], l ltree, q cube, n isbn13);
         ALTER TABLE t REPLICA IDENTITY FULL; CREATE TABLE images (id int, image jsonb);
         CREATE FUNCTION take() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO images VALUES (NEW.id, to_jsonb(NEW)); RETURN NEW; END';
         CREATE TRIGGER take AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION take()",
    );
    let changes = database.changes_of(
        "INSERT INTO t VALUES (1, 'a=>1, \"b \\\"q\\\"\"=>NULL, c=>\"x\\ny\", d=>\"日本\"', ARRAY['a=>1', NULL]::hstore[], 'ok=>yes', ARRAY['z=>1']::tags[],
           'MiXed', 'A@B.c', '\\x00ff', ARRAY['\\x01'::geometry, NULL],
           ROW(ARRAY[ROW('k=>v', 'E', '{sad,ok}')::inner_type, NULL], 't=>1', '\\xaa')::outer_type,
           ARRAY[ROW(NULL, NULL, '\\xbb')::outer_type], ROW(NULL, 'x=>y', '\\xcc')::outer_type, 'ok', '{sad}', 'a.b', '(1,2)', '978-0-393-04002-9');
         INSERT INTO t (id, h, hs) VALUES (2, '', '{}'); INSERT INTO t (id) VALUES (3);",
    );
    let mut client = database.connect();
    let shown = changes.iter().filter(|d| d["table"] == json!("t"));
    for document in shown.clone() {
        let image: String = client
            .query_one(
                "SELECT image::text FROM images WHERE id = $1",
                &[&(document["after"]["id"].as_i64().unwrap() as i32)],
            )
            .unwrap()
            .get(0);
        assert_eq!(document["after"], serde_json::from_str::<Value>(&image).unwrap());
        assert_eq!(document.get("omitted"), None);
    }
    let first = shown.clone().next().unwrap();
    assert_eq!(first["after"]["h"], json!({"a":"1","b \"q\"":null,"c":"xny","d":"日本"}));
    assert_eq!(shown.count(), 3);
}

fn user_casts(server: &Server) {
    let mut database = with_slot(
        server,
        "user_casts",
        "CREATE TYPE mood AS ENUM ('sad', 'ok');
         CREATE TABLE called (id int);
         CREATE FUNCTION mood_to_json(mood) RETURNS json LANGUAGE plpgsql AS 'BEGIN INSERT INTO called VALUES (1); RETURN ''{\"cast\":true}''; END';
         CREATE CAST (mood AS json) WITH FUNCTION mood_to_json(mood);
         CREATE TABLE t (m mood)",
    );
    let changes = database.changes_of("INSERT INTO t VALUES ('ok')");
    assert_eq!(changes[0]["after"], json!({"m":"ok"}));
    assert_eq!(changes[0].get("omitted"), None);
}

fn warnings(_: &Server) {
    let server = Server::start("log_min_messages = warning\n");
    let mut database = server.database("warnings");
    database.create_slot();
    database
        .connect()
        .batch_execute(
            "CREATE TABLE one (j json); CREATE TABLE \"t wo\" (id int, j json);
             INSERT INTO one VALUES ('\"\\u0000\"'), ('\"\\u0000\"'); INSERT INTO \"t wo\" VALUES (1, '\"\\u0000\"'), (2, '1');
             BEGIN; SELECT pg_logical_emit_message(true, '_bemi', 'garbage'); INSERT INTO one VALUES ('1'); COMMIT;
             BEGIN; SELECT pg_logical_emit_message(true, '_bemi', '[]'); INSERT INTO one VALUES ('\"\\u0000\"'); COMMIT;
             INSERT INTO one VALUES ('2')",
        )
        .unwrap();
    let documents = database.documents();
    assert_eq!(documents.len(), 7);
    assert_eq!(documents[4]["context"], json!({"bemi_invalid_context":"garbage"}));
    assert_eq!(documents[5]["omitted"], documents[0]["omitted"]);
    let log = server.log();
    let count = |text: &str| log.matches(text).count();
    assert_eq!(count("WARNING:  bemi_decoder cannot show some values of public.one"), 1, "{log}");
    assert_eq!(count("WARNING:  bemi_decoder cannot show some values of public.t wo"), 1, "{log}");
    assert_eq!(count("is not a context"), 1, "{log}");
    assert!(log.contains("a string holds the character \\\\u0000"), "{log}");
    server.stop();
}
