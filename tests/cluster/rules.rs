//! The rules of a table in its documents: columns that are ignored and columns that are masked.
use serde_json::{Value, json};

use crate::Test;
use crate::server::Server;
use crate::tracking::identity;

pub const TESTS: &[Test] = &[
    ("an_update_of_ignored_columns_alone_is_not_shown", ignored),
    ("without_the_whole_row_before_nothing_is_ignored_and_tracked_says_so", ignored_without_images),
    ("masked_values_are_nowhere_in_a_document", masked),
    ("rules_hold_as_of_the_change", as_of_the_change),
    ("rules_follow_renamed_columns_everywhere", renamed),
    ("a_dropped_column_is_missing_until_it_comes_back", dropped),
    ("partitions_have_the_rules_of_their_tree", partitions),
    ("a_partition_made_by_itself_in_a_tracked_schema_is_masked", attached_in_tracked_schema),
    ("renames_by_other_words_and_in_other_roles_are_followed", other_renames),
    ("any_name_can_be_tracked_ignored_and_masked", hostile_names),
    ("rules_nobody_understands_are_told_and_change_nothing", unknown),
    ("a_masked_column_that_becomes_the_key_stays_masked", masked_key),
];

fn ignored(server: &Server) {
    let mut database = server.database("ignored");
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE TABLE t (id int PRIMARY KEY, v text, seen timestamptz, n int, body text); ALTER TABLE t ALTER body SET STORAGE EXTERNAL;
             SELECT bemi.track('t', ignore_columns => '{seen,n}'); INSERT INTO t VALUES (1, 'a', NULL, 1, repeat('long ', 2000)), (2, NULL, NULL, NULL, NULL)",
        )
        .unwrap();
    database.create_slot();
    let hidden = [
        "UPDATE t SET seen = now()",
        "UPDATE t SET n = n + 1",
        "UPDATE t SET seen = NULL, n = NULL",
        // Nothing at all is changed; neither is a value that lies outside of the row, written again.
        "UPDATE t SET v = v",
        "UPDATE t SET body = body || '', seen = now() WHERE id = 1",
    ];
    for statement in hidden {
        assert_eq!(database.changes_of(statement).len(), 0, "{statement}");
    }
    let shown = [
        ("UPDATE t SET v = 'b', seen = now() WHERE id = 1", 1),
        ("UPDATE t SET v = NULL WHERE id = 1", 1),
        ("UPDATE t SET v = 'c' WHERE id = 2", 1),
        ("UPDATE t SET body = repeat('other ', 2000)", 2),
        ("UPDATE t SET body = 'x'", 2),
        ("UPDATE t SET id = id + 10", 2),
        ("INSERT INTO t VALUES (3)", 1),
        ("DELETE FROM t WHERE id = 3", 1),
        ("TRUNCATE t", 1),
    ];
    for (statement, count) in shown {
        assert_eq!(database.changes_of(statement).len(), count, "{statement}");
    }
    // What is not shown is not counted.
    let documents = database.changes_of(
        "BEGIN; INSERT INTO t VALUES (1, 'a'); UPDATE t SET seen = now(); UPDATE t SET v = 'b'; UPDATE t SET n = 2; COMMIT",
    );
    assert_eq!(documents.iter().map(|document| document["sequence"].clone()).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(documents[1]["after"]["v"], "b");
    assert!(documents[1]["after"]["seen"].is_string());
}

fn missing(client: &mut postgres::Client, table: &str) -> Vec<String> {
    let statement =
        format!("SELECT missing FROM bemi.tracked WHERE relation = '{}'::regclass", table.replace('\'', "''"));
    client.query_one(&statement, &[]).unwrap().get(0)
}

fn ignored_without_images(server: &Server) {
    let mut database = server.database("ignored_without_images");
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE TABLE t (id int PRIMARY KEY, v text, seen int); SELECT bemi.track('t', 'default', '{seen}'); INSERT INTO t VALUES (1)",
        )
        .unwrap();
    database.create_slot();
    assert_eq!(database.changes_of("UPDATE t SET seen = 1").len(), 1);
    assert_eq!(database.changes_of("UPDATE t SET seen = 1, id = 2").len(), 1);
    let said = missing(&mut client, "t");
    assert!(said.iter().any(|missing| missing.starts_with("ignored columns are not ignored")), "{said:?}");
    assert!(said.iter().any(|missing| missing.starts_with("WAL contains only the key")), "{said:?}");
    client.batch_execute("SELECT bemi.track('t', 'full', '{seen}')").unwrap();
    assert_eq!(missing(&mut client, "t"), [""; 0]);
    assert_eq!(database.changes_of("UPDATE t SET seen = 2").len(), 0);
}

fn masked(server: &Server) {
    let mut database = server.database("masked");
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE TYPE pair AS (a text, b text);
             CREATE TABLE t (id int PRIMARY KEY, v text, password text, card bigint, likes text[], p pair, doc jsonb, body text);
             ALTER TABLE t ALTER body SET STORAGE EXTERNAL;
             SELECT bemi.track('t', mask_columns => '{password,card,likes,p,doc,body}')",
        )
        .unwrap();
    database.create_slot();
    let insert = "INSERT INTO t VALUES (1, 'seen', 'hidden', 4242424242, '{hidden}', '(hidden,\"\")', '{\"hidden\":true}', repeat('hidden', 2000)); INSERT INTO t VALUES (2)";
    let update = "UPDATE t SET v = 'seen too' WHERE id = 1; UPDATE t SET password = 'hidden better' WHERE id = 1; UPDATE t SET card = NULL, body = 'hidden';";
    let statements = format!("BEGIN; {insert}; {update} DELETE FROM t; COMMIT");
    for identity in ["FULL", "DEFAULT", "NOTHING"] {
        client.batch_execute(&format!("ALTER TABLE t REPLICA IDENTITY {identity}; {statements}")).unwrap();
        let lines = database.read(&[]).unwrap();
        assert!(lines.iter().all(|line| !line.contains("hidden") && !line.contains("4242")), "{lines:?}");
        let documents = database.documents();
        assert_eq!(documents.len(), 8);
        let mask = json!({"id":1,"v":"seen","password":"[masked]","card":"[masked]","likes":"[masked]","p":"[masked]","doc":"[masked]","body":"[masked]"});
        assert_eq!(documents[0]["after"], mask);
        let nothing = json!({"id":2,"v":null,"password":null,"card":null,"likes":null,"p":null,"doc":null,"body":null});
        assert_eq!(documents[1]["after"], nothing);
        // What is not in the log is masked all the same, and not told to be unchanged.
        assert_eq!(documents[2]["after"]["body"], "[masked]");
        assert!(documents.iter().all(|document| document.get("unchanged").is_none()));
        if identity == "FULL" {
            assert_eq!(documents[2]["before"], mask);
            assert_eq!(documents[3]["before"]["password"], "[masked]");
        }
    }
}

/// The rules may change while earlier changes wait to be decoded, and within their transaction.
fn as_of_the_change(server: &Server) {
    let mut database = server.database("as_of_the_change");
    let mut client = database.connect();
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY, a text, b text)").unwrap();
    database.create_slot();
    client
        .batch_execute(
            "INSERT INTO t VALUES (1, 'one', 'two'); SELECT bemi.track('t', mask_columns => '{a}'); COMMIT;
             UPDATE t SET b = 'three'; COMMIT;
             BEGIN; UPDATE t SET b = 'four'; SELECT bemi.track('t', mask_columns => '{b}'); UPDATE t SET b = 'five';
             SAVEPOINT s; SELECT bemi.untrack('t'); UPDATE t SET b = 'six'; ROLLBACK TO s; UPDATE t SET b = 'seven'; COMMIT;
             SELECT bemi.untrack('t'); COMMIT; UPDATE t SET b = 'eight'",
        )
        .unwrap();
    let images: Vec<String> = database
        .documents()
        .iter()
        .map(|document| {
            format!("{}/{}", document["after"]["a"].as_str().unwrap(), document["after"]["b"].as_str().unwrap())
        })
        .collect();
    assert_eq!(images, ["one/two", "[masked]/three", "[masked]/four", "one/[masked]", "one/[masked]", "one/eight"]);
}

fn renamed(server: &Server) {
    let mut database = server.database("renamed_columns");
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE TABLE t (id int PRIMARY KEY, a text, b text, c text); CREATE TABLE child () INHERITS (t);
             CREATE TABLE root (id int, a text) PARTITION BY LIST (id); CREATE TABLE leaf PARTITION OF root FOR VALUES IN (1);
             CREATE TYPE shape AS (a text, id int); CREATE TABLE typed OF shape;
             SELECT bemi.track('t', mask_columns => '{a,b}', ignore_columns => '{c}'), bemi.track('child', mask_columns => '{a}'),
               bemi.track('root', mask_columns => '{a}'), bemi.track('typed', mask_columns => '{a}');
             ALTER TABLE t DISABLE TRIGGER bemi_context",
        )
        .unwrap();
    database.create_slot();
    // Two columns change their names with each other.
    client
        .batch_execute(
            "ALTER TABLE t RENAME a TO \"the 'a' = \\\"; ALTER TABLE t RENAME COLUMN c TO a; ALTER TABLE t RENAME \"the 'a' = \\\" TO c;
             ALTER TABLE root RENAME a TO aa; ALTER TYPE shape RENAME ATTRIBUTE a TO aaa CASCADE;
             INSERT INTO t VALUES (1, 'hidden', 'hidden', 'shown'); INSERT INTO child VALUES (1, 'hidden', 'b', 'c');
             INSERT INTO root VALUES (1, 'hidden'); INSERT INTO typed VALUES ('hidden', 1)",
        )
        .unwrap();
    let documents = database.documents();
    let images: Vec<Value> = documents.iter().map(|document| document["after"].clone()).collect();
    assert_eq!(
        images,
        [
            json!({"id":1,"c":"[masked]","b":"[masked]","a":"shown"}),
            // What a parent masks is masked in the child.
            json!({"id":1,"c":"[masked]","b":"[masked]","a":"c"}),
            json!({"id":1,"aa":"[masked]"}),
            json!({"aaa":"[masked]","id":1}),
        ]
    );
    let row = client
        .query_one(
            "SELECT ignore_columns::text, mask_columns::text, missing FROM bemi.tracked WHERE relation = 't'::regclass",
            &[],
        )
        .unwrap();
    assert_eq!((row.get(0), row.get(1)), ("{a}", "{c,b}"));
    assert_eq!(row.get::<_, Vec<String>>(2), ["the trigger is disabled"]);
    // A role that owns the table, but has no more rights, renames too.
    client.batch_execute("CREATE ROLE renamed_owner LOGIN; ALTER TABLE t OWNER TO renamed_owner; ALTER TABLE child OWNER TO renamed_owner").unwrap();
    server.connect_with("renamed_columns", "renamed_owner", "").batch_execute("ALTER TABLE t RENAME b TO bb").unwrap();
    let masks: String = client
        .query_one("SELECT mask_columns::text FROM bemi.tracked WHERE relation = 't'::regclass", &[])
        .unwrap()
        .get(0);
    assert_eq!(masks, "{c,bb}");
    client.batch_execute("DROP OWNED BY renamed_owner CASCADE; DROP ROLE renamed_owner").unwrap();
}

fn dropped(server: &Server) {
    let mut database = server.database("dropped");
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE TABLE t (id int PRIMARY KEY, a text, b text); SELECT bemi.track('t', mask_columns => '{a}', ignore_columns => '{b}');
             ALTER TABLE t DROP COLUMN a, DROP COLUMN b",
        )
        .unwrap();
    database.create_slot();
    assert_eq!(missing(&mut client, "t"), ["there is no column a to mask", "there is no column b to ignore"]);
    let documents =
        database.changes_of("INSERT INTO t VALUES (1); ALTER TABLE t ADD a int; COMMIT; UPDATE t SET a = 42");
    assert_eq!(documents[1]["after"], json!({"id":1,"a":"[masked]"}));
    assert_eq!(missing(&mut client, "t"), ["there is no column b to ignore"]);
    client.batch_execute("SELECT bemi.track('t', mask_columns => '{a}')").unwrap();
    assert_eq!(missing(&mut client, "t"), [""; 0]);
}

fn partitions(server: &Server) {
    let mut database = server.database("partition_rules");
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE TABLE root (id int, secret text, n int) PARTITION BY RANGE (id);
             CREATE TABLE middle (n int, id int, secret text) PARTITION BY RANGE (id); ALTER TABLE root ATTACH PARTITION middle FOR VALUES FROM (0) TO (100);
             CREATE TABLE leaf PARTITION OF middle FOR VALUES FROM (0) TO (10);
             SELECT bemi.track('root', ignore_columns => '{n}', mask_columns => '{secret}');
             CREATE TABLE made PARTITION OF middle FOR VALUES FROM (10) TO (20);
             CREATE TABLE attached (secret text, id int, n int); ALTER TABLE middle ATTACH PARTITION attached FOR VALUES FROM (20) TO (30);
             CREATE TABLE own (LIKE root); SELECT bemi.track('own', 'keep', mask_columns => '{n}'); ALTER TABLE root ATTACH PARTITION own FOR VALUES FROM (100) TO (200);
             CREATE TABLE tree (id int, secret text, n int) PARTITION BY RANGE (id); CREATE TABLE twig PARTITION OF tree FOR VALUES FROM (200) TO (210);
             ALTER TABLE root ATTACH PARTITION tree FOR VALUES FROM (200) TO (300)",
        )
        .unwrap();
    database.create_slot();
    let insert = "INSERT INTO root VALUES (1, 'x', 1), (11, 'x', 1), (21, 'x', 1), (101, 'x', 1), (201, 'x', 1);";
    let documents = database.changes_of(&format!(
        "SELECT bemi.set_context('{{\"a\":1}}'); {insert} UPDATE root SET n = 2; UPDATE root SET secret = 'y'"
    ));
    let of = |operation: &str| -> Vec<String> {
        let chosen = documents.iter().filter(|document| document["operation"] == operation);
        chosen
            .map(|document| {
                format!(
                    "{} {} {}",
                    document["table"].as_str().unwrap(),
                    document["after"]["secret"],
                    document["after"]["n"]
                )
            })
            .collect()
    };
    let mask = "\"[masked]\"";
    let expected = |n: i32| ["leaf", "made", "attached"].map(|table| format!("{table} {mask} {n}"));
    assert_eq!(of("CREATE"), [&expected(1)[..], &[format!("own {mask} {mask}"), format!("twig {mask} 1")]].concat());
    // That of the table with rules of its own: it ignores nothing, and is changed twice.
    let own = [format!("own {mask} {mask}")];
    assert_eq!(
        of("UPDATE"),
        [&own[..], &expected(2), &[format!("own {mask} {mask}"), format!("twig {mask} 2")]].concat()
    );
    for table in ["middle", "leaf", "made", "attached", "tree", "twig"] {
        assert_eq!(identity(&mut client, table), ("full".to_owned(), Some("default".to_owned())), "{table}");
    }
    let rules: String = client
        .query_one(
            "SELECT ignore_columns::text || mask_columns::text FROM bemi.tracked WHERE relation = 'own'::regclass",
            &[],
        )
        .unwrap()
        .get(0);
    assert_eq!(rules, "{}{n,secret}");
    // Detached, a table stays as it was; one that nobody tracks has the rules of what is above it.
    client.batch_execute("ALTER TABLE middle DETACH PARTITION made; SELECT bemi.untrack('leaf')").unwrap();
    assert_eq!(missing(&mut client, "root"), ["the partition leaf is not tracked"]);
    let documents = database.changes_of("INSERT INTO made VALUES (1, 11, 'x'); INSERT INTO leaf VALUES (1, 2, 'x')");
    let secrets: Vec<&Value> = documents.iter().map(|document| &document["after"]["secret"]).collect();
    assert_eq!(secrets, ["[masked]", "[masked]"]);
}

/// As partitions are made in practice: a table first, which is tracked at once, and attached then.
fn attached_in_tracked_schema(server: &Server) {
    let mut database = server.database("attached_in_tracked_schema");
    let mut client = database.connect();
    client
        .batch_execute(
            "SELECT bemi.track_all(); CREATE TABLE root (id int, secret text, n int) PARTITION BY LIST (id);
             SELECT bemi.track('root', ignore_columns => '{n}', mask_columns => '{secret}')",
        )
        .unwrap();
    database.create_slot();
    client
        .batch_execute(
            "BEGIN; CREATE TABLE one (n int, secret text, id int); INSERT INTO one VALUES (1, 'shown', 1);
             ALTER TABLE root ATTACH PARTITION one FOR VALUES IN (1); INSERT INTO one VALUES (1, 'hidden', 1); COMMIT;
             CREATE TABLE two (LIKE root); SELECT bemi.untrack('two'); ALTER TABLE root DISABLE TRIGGER bemi_context;
             ALTER EVENT TRIGGER bemi_on_ddl DISABLE; ALTER TABLE root ATTACH PARTITION two FOR VALUES IN (2);
             CREATE TABLE three (LIKE root); SELECT bemi.track('three'); ALTER TABLE root ATTACH PARTITION three FOR VALUES IN (3);
             INSERT INTO root VALUES (2, 'hidden', 2), (3, 'hidden', 3); UPDATE root SET n = 7",
        )
        .unwrap();
    let secrets: Vec<Value> = database.documents().iter().map(|document| document["after"]["secret"].clone()).collect();
    // What happened before the table was a partition; inserted rows; and the update of the one that has no images before,
    // and of the one that ignores nothing.
    assert_eq!(secrets, ["shown", "[masked]", "[masked]", "[masked]", "[masked]", "[masked]"]);
    let rules = |client: &mut postgres::Client, table: &str| -> String {
        let statement = format!(
            "SELECT ignore_columns::text || mask_columns::text FROM bemi.tracked WHERE relation = '{table}'::regclass"
        );
        client.query_one(&statement, &[]).unwrap().get(0)
    };
    assert_eq!(rules(&mut client, "one"), "{n}{secret}");
    // The doctor's statement gives the one that is not tracked the rules of its tree, and leaves the others theirs.
    assert_eq!(missing(&mut client, "root"), ["the partition two is not tracked", "the trigger is disabled"]);
    client.batch_execute("SELECT bemi.track('three', mask_columns => '{n}')").unwrap();
    let fix: String = client.query_one("SELECT fix FROM bemi.doctor() WHERE \"check\" = 'rules'", &[]).unwrap().get(0);
    client.batch_execute(&fix).unwrap();
    assert_eq!(rules(&mut client, "two"), "{n}{secret}");
    assert_eq!(rules(&mut client, "three"), "{}{n}");
}

fn other_renames(server: &Server) {
    let mut database = server.database("other_renames");
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE TABLE t (id int PRIMARY KEY, a text, b text, c text, d text); SELECT bemi.track('t', mask_columns => '{a,b,c,d}');
             CREATE FOREIGN DATA WRAPPER nothing; CREATE SERVER nowhere FOREIGN DATA WRAPPER nothing;
             CREATE FOREIGN TABLE f (id int, x text, y text) SERVER nowhere; CREATE TABLE child () INHERITS (f); SELECT bemi.track('child', mask_columns => '{x,y}')",
        )
        .unwrap();
    database.create_slot();
    client
        .batch_execute(
            "ALTER VIEW t RENAME COLUMN a TO aa; ALTER MATERIALIZED VIEW t RENAME COLUMN b TO bb; ALTER FOREIGN TABLE t RENAME COLUMN c TO cc;
             SET session_replication_role = replica; ALTER TABLE t RENAME d TO dd; RESET session_replication_role;
             ALTER FOREIGN TABLE f RENAME COLUMN x TO xx; ALTER TABLE f RENAME COLUMN y TO yy;
             INSERT INTO t VALUES (1, 'hidden', 'hidden', 'hidden', 'hidden'); INSERT INTO child VALUES (1, 'hidden', 'hidden')",
        )
        .unwrap();
    let lines = database.lines();
    assert!(lines.len() == 2 && lines.iter().all(|line| !line.contains("hidden")), "{lines:?}");
    // One heir that cannot be followed does not keep the others from it.
    client
        .batch_execute(
            "CREATE ROLE other_renames LOGIN; CREATE TABLE par (id int, s text); CREATE TABLE heir () INHERITS (par); CREATE TABLE last () INHERITS (par);
             ALTER TABLE par OWNER TO other_renames; ALTER TABLE heir OWNER TO other_renames; ALTER TABLE last OWNER TO other_renames;
             SELECT bemi.track('par', mask_columns => '{s}'), bemi.track('heir', mask_columns => '{s}'), bemi.track('last', mask_columns => '{s}');
             CREATE TRIGGER other BEFORE INSERT ON heir FOR EACH STATEMENT EXECUTE FUNCTION bemi.emit_context('mask=s')",
        )
        .unwrap();
    let (mut owner, notices) = server.connect_listening("other_renames", "other_renames");
    owner.batch_execute("ALTER TABLE par RENAME s TO s2").unwrap();
    let said = notices.take();
    assert!(said.len() == 1 && said[0].contains("could not follow the change of public.heir"), "{said:?}");
    let names = client.query("SELECT mask_columns::text || cardinality(missing) FROM bemi.tracked WHERE relation::text IN ('par', 'heir', 'last') ORDER BY relation::text", &[]).unwrap();
    // Its column stays masked by its number.
    assert_eq!(names.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>(), ["{s2}2", "{s2}0", "{s2}0"]);
    client.batch_execute("DROP OWNED BY other_renames CASCADE; DROP ROLE other_renames").unwrap();
}

fn hostile_names(server: &Server) {
    let mut database = server.database("any_name");
    let mut client = database.connect();
    database.create_slot();
    let long = "日".repeat(21);
    let names = [
        "select", "a.b", "a\"b", "a'b", "a\\b", "a\\'b", "%s", "%I%L%1$s", "a\nb", " ", "a,b", "{}", "{a", "a=b",
        "ignore=a", "\t", "--", "/*", "$$", "NULL", "é", "\u{1}", ";", &long,
    ];
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let literal = |name: &str| {
        if name.contains('\\') {
            format!("E'{}'", name.replace('\\', "\\\\").replace('\'', "\\'"))
        } else {
            format!("'{}'", name.replace('\'', "''"))
        }
    };
    for (i, name) in names.iter().enumerate() {
        let other = names[(i + 1) % names.len()];
        let table = format!("{}.{}", quoted(name), quoted(other));
        let documents = database.changes_of(&format!(
            "CREATE SCHEMA {0}; CREATE TABLE {table} (id int PRIMARY KEY, {0} text, {1} text);
             SELECT bemi.track({2}, ignore_columns => ARRAY[{3}]::name[], mask_columns => ARRAY[{4}]::name[]); COMMIT;
             INSERT INTO {table} VALUES (1, 'a', 'b'); COMMIT; UPDATE {table} SET {1} = 'c'; COMMIT; UPDATE {table} SET {0} = 'd'; COMMIT;
             ALTER TABLE {table} RENAME {0} TO \"new \"\"'name\"; ALTER TABLE {table} RENAME \"new \"\"'name\" TO {0}; COMMIT; UPDATE {table} SET {0} = 'e'",
            quoted(name), quoted(other), literal(&table), literal(other), literal(name)
        ));
        let images: Vec<&Value> = documents.iter().map(|document| &document["after"]).collect();
        let masked = |other_value: &str| json!({"id":1, *name:"[masked]", other:other_value});
        assert_eq!(images, [&masked("b"), &masked("c"), &masked("c")], "{name:?}");
        assert_eq!((documents[0]["schema"].as_str(), documents[0]["table"].as_str()), (Some(*name), Some(other)));
        let row = client
            .query_one("SELECT ignore_columns = ARRAY[$1]::name[] AND mask_columns = ARRAY[$2]::name[], missing FROM bemi.tracked WHERE relation = $3::text::regclass", &[&other, name, &table])
            .unwrap();
        assert!(row.get::<_, bool>(0), "{name:?}");
        assert_eq!(row.get::<_, Vec<String>>(1), [""; 0], "{name:?}");
        client.batch_execute(&format!("SELECT bemi.untrack({})", literal(&table))).unwrap();
        assert_eq!(identity(&mut client, &table), ("default".to_owned(), None), "{name:?}");
    }
    client
        .execute(
            "SELECT bemi.track_all($1::text[]::name[])",
            &[&names.iter().map(|name| (*name).to_owned()).collect::<Vec<String>>()],
        )
        .unwrap();
    let (tracked, ok): (i64, bool) = {
        let row = client.query_one("SELECT (SELECT count(*) FROM bemi.tracked), (SELECT bool_and(ok) FROM bemi.doctor() WHERE \"check\" ~ 'tables|rules|triggers|images')", &[]).unwrap();
        (row.get(0), row.get(1))
    };
    assert_eq!((tracked as usize, ok), (names.len(), true));
    client.batch_execute("SELECT bemi.untrack_all()").unwrap();
}

fn unknown(server: &Server) {
    let mut database = server.database("unknown_rules");
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE TABLE t (id int PRIMARY KEY, v text);
             CREATE TRIGGER bemi_context BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON t FOR EACH STATEMENT EXECUTE FUNCTION bemi.emit_context('mask', 'hide=v', '', 'mask=v', 7)",
        )
        .unwrap();
    database.create_slot();
    let documents = database.changes_of("INSERT INTO t VALUES (1, 'x')");
    assert_eq!(documents[0]["after"]["v"], "[masked]");
    let said = missing(&mut client, "t");
    assert_eq!(said.iter().filter(|missing| missing.contains("is unknown")).count(), 4, "{said:?}");
    // Renaming a column keeps what it does not know.
    client.batch_execute("ALTER TABLE t RENAME v TO w").unwrap();
    let rules: Vec<String> =
        client.query_one("SELECT bemi.rules(arguments, 'every') FROM bemi.context_triggers", &[]).unwrap().get(0);
    assert_eq!(rules, ["mask", "hide=v", "", "mask=w", "7"]);
}

fn masked_key(server: &Server) {
    let mut database = server.database("masked_key");
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE TABLE t (a int NOT NULL, email text NOT NULL); SELECT bemi.track('t', mask_columns => '{email}');
             ALTER TABLE t ADD PRIMARY KEY (email); CREATE TABLE two (a int NOT NULL, email text NOT NULL);
             SELECT bemi.track('two', mask_columns => '{email}'); ALTER TABLE two ADD PRIMARY KEY (a, email)",
        )
        .unwrap();
    database.create_slot();
    let documents =
        database.changes_of("INSERT INTO t VALUES (1, 'me@x'); UPDATE t SET email = 'you@x'; DELETE FROM t; INSERT INTO two VALUES (1, 'me@x');
         UPDATE two SET email = 'you@x'; UPDATE two SET a = 2");
    let keys: Vec<&Value> = documents.iter().map(|document| &document["primary_key"]).collect();
    let (one, two) = (json!("[masked]"), ["1", "2"].map(|a| json!(format!("[\"{a}\",\"[masked]\"]"))));
    assert_eq!(keys, [&one, &one, &one, &two[0], &two[0], &two[1]]);
    let old: Vec<Option<&Value>> = documents.iter().map(|document| document.get("old_primary_key")).collect();
    assert_eq!(old, [None, None, None, None, None, Some(&two[0])]);
    assert_eq!(missing(&mut client, "t"), ["the column email to mask belongs to the key"]);
}
