//! Masks hold by the number of a column as well as by its name, and in whatever inherits from a table. The triggers are
//! made by hand, and nothing follows renames: what is tested is what the decoder makes of their arguments.
use postgres::Client;
use serde_json::{Value, json};

use crate::Test;
use crate::server::{Database, Server};

pub const TESTS: &[Test] = &[
    ("a_masked_column_stays_masked_under_any_name", renamed),
    ("numbers_of_another_table_do_not_count", other_numbers),
    ("a_partition_is_masked_by_the_numbers_of_the_tables_above_it", partitions),
    ("what_inherits_has_the_masks_of_all_its_parents", inheritance),
    ("inherited_masks_do_not_make_a_table_tracked", not_tracked),
    ("rules_tell_their_numbers", told),
];

/// A database in which nothing follows a rename.
fn database<'a>(server: &'a Server, name: &str) -> (Database<'a>, Client) {
    let mut database = server.database(name);
    let mut client = database.connect();
    client
        .batch_execute(
            "DO $$ DECLARE found name; BEGIN
               FOR found IN SELECT evtname FROM pg_event_trigger LOOP EXECUTE format('ALTER EVENT TRIGGER %I DISABLE', found); END LOOP;
             END $$",
        )
        .unwrap();
    database.create_slot();
    (database, client)
}

/// Makes the trigger. `%` in an argument stands for the OID of the table.
fn track(client: &mut Client, table: &str, arguments: &[&str]) {
    let oid: u32 = client.query_one(&format!("SELECT '{table}'::regclass::oid"), &[]).unwrap().get(0);
    let arguments: Vec<String> = arguments.iter().map(|a| format!("'{}'", a.replace('%', &oid.to_string()))).collect();
    client
        .batch_execute(&format!(
            "CREATE OR REPLACE TRIGGER bemi_context BEFORE INSERT OR UPDATE OR DELETE ON {table} FOR EACH STATEMENT
             EXECUTE FUNCTION bemi.emit_context({})",
            arguments.join(",")
        ))
        .unwrap();
}

fn afters(documents: &[Value]) -> Vec<Value> {
    documents.iter().map(|document| document["after"].clone()).collect()
}

fn renamed(server: &Server) {
    let (mut database, mut client) = database(server, "masks_renamed");
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY, password text, v text)").unwrap();
    track(&mut client, "t", &["mask=password", "numbers=%:2"]);
    let insert = "INSERT INTO t VALUES (1, 'secret', 'seen')";
    assert_eq!(afters(&database.changes_of(insert)), [json!({"id":1,"password":"[masked]","v":"seen"})]);
    // Renamed before and within a transaction; the names swapped; another column under the old name.
    let documents = database.changes_of(
        "ALTER TABLE t RENAME password TO pw; UPDATE t SET id = 2; COMMIT;
         BEGIN; ALTER TABLE t RENAME pw TO other; UPDATE t SET id = 3; COMMIT",
    );
    let expected = [json!({"id":2,"pw":"[masked]","v":"seen"}), json!({"id":3,"other":"[masked]","v":"seen"})];
    assert_eq!(afters(&documents), expected);
    let documents = database.changes_of("ALTER TABLE t RENAME v TO password; UPDATE t SET id = 4");
    assert_eq!(afters(&documents), [json!({"id":4,"other":"[masked]","password":"[masked]"})]);
    let documents = database.changes_of(
        "ALTER TABLE t DROP other; ALTER TABLE t RENAME password TO v; ALTER TABLE t ADD password text;
         UPDATE t SET password = 'secret'",
    );
    assert_eq!(afters(&documents), [json!({"id":4,"v":"seen","password":"[masked]"})]);
    // A trigger of another name hides too.
    client.batch_execute("ALTER TRIGGER bemi_context ON t RENAME TO another").unwrap();
    client.batch_execute("ALTER TABLE t RENAME password TO p").unwrap();
    track(&mut client, "t", &[]);
    client.batch_execute("DROP TRIGGER another ON t; CREATE TABLE u (a text, b text)").unwrap();
    track(&mut client, "u", &["numbers=%:2"]);
    client.batch_execute("ALTER TRIGGER bemi_context ON u RENAME TO another").unwrap();
    track(&mut client, "u", &[]);
    database.documents();
    let documents = database.changes_of("INSERT INTO u VALUES ('seen', 'secret')");
    assert_eq!(afters(&documents), [json!({"a":"seen","b":"[masked]"})]);
}

/// As after a restored dump, or with a table copied by hand: then only names count.
fn other_numbers(server: &Server) {
    let (mut database, mut client) = database(server, "masks_other_numbers");
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY, password text, v text)").unwrap();
    track(&mut client, "t", &["mask=password", "numbers=1:3"]);
    let documents = database.changes_of("INSERT INTO t VALUES (1, 'secret', 'seen')");
    assert_eq!(afters(&documents), [json!({"id":1,"password":"[masked]","v":"seen"})]);
    // Malformed ones say nothing, and stop nothing.
    track(&mut client, "t", &["mask=password", "numbers=%:3,x", "numbers=", "numbers=%:99999", "numbers=%"]);
    let documents = database.changes_of("INSERT INTO t VALUES (2, 'secret', 'seen')");
    assert_eq!(afters(&documents), [json!({"id":2,"password":"[masked]","v":"seen"})]);
}

fn partitions(server: &Server) {
    let (mut database, mut client) = database(server, "masks_partitions");
    client
        .batch_execute(
            "CREATE TABLE root (id int, password text, v text) PARTITION BY RANGE (id);
             CREATE TABLE middle (gone int, v text, gone2 int, password text, id int) PARTITION BY RANGE (id);
             ALTER TABLE middle DROP gone, DROP gone2;
             CREATE TABLE leaf (v text, gone int, id int, password text); ALTER TABLE leaf DROP gone;
             ALTER TABLE middle ATTACH PARTITION leaf FOR VALUES FROM (0) TO (10);
             ALTER TABLE root ATTACH PARTITION middle FOR VALUES FROM (0) TO (100)",
        )
        .unwrap();
    track(&mut client, "root", &["mask=password", "numbers=%:2"]);
    let masked = |name: &str, id: i32| json!({"id":id,name:"[masked]","v":"seen"});
    let insert = |id: i32| format!("INSERT INTO root (id, v) VALUES ({id}, 'seen'); UPDATE root SET ");
    let documents = database.changes_of(&(insert(1) + "password = 'secret'"));
    assert_eq!(documents[1]["after"], masked("password", 1));
    let documents =
        database.changes_of(&("ALTER TABLE root RENAME password TO pw;".to_owned() + &insert(2) + "pw = 'secret'"));
    assert_eq!(documents[2]["after"], masked("pw", 2));
    // By the numbers of the table in the middle, too.
    track(&mut client, "middle", &["numbers=%:2"]);
    let documents = database.changes_of("INSERT INTO root VALUES (3, 'secret', 'hidden')");
    assert_eq!(afters(&documents), [json!({"v":"[masked]","id":3,"pw":"[masked]"})]);
}

fn inheritance(server: &Server) {
    let (mut database, mut client) = database(server, "masks_inheritance");
    client
        .batch_execute(
            "CREATE TABLE top (a text, secret text); CREATE TABLE side (gone int, card text, b text); ALTER TABLE side DROP gone;
             CREATE TABLE middle (c text) INHERITS (top);
             CREATE TABLE child (d text) INHERITS (middle, side); CREATE TABLE apart (id int, a text, secret text)",
        )
        .unwrap();
    track(&mut client, "top", &["mask=secret", "numbers=%:2"]);
    track(&mut client, "side", &["mask=card", "numbers=%:2"]);
    let values = "(a, secret, c, card, b, d) VALUES ('a', 'secret', 'c', 'secret', 'b', 'd')";
    let insert = format!("INSERT INTO child {values}");
    let seen = json!({"a":"a","secret":"[masked]","c":"c","card":"[masked]","b":"b","d":"d"});
    assert_eq!(afters(&database.changes_of(&insert)), std::slice::from_ref(&seen));
    // Tracked by itself, without masks; and renamed from above, with nobody following.
    track(&mut client, "child", &[]);
    assert_eq!(afters(&database.changes_of(&insert)), [seen]);
    let documents = database.changes_of(
        "ALTER TABLE top RENAME secret TO pw; ALTER TABLE side RENAME card TO number;
         INSERT INTO child (pw, number) VALUES ('secret', 'secret')",
    );
    let expected = json!({"a":null,"pw":"[masked]","c":null,"number":"[masked]","b":null,"d":null});
    assert_eq!(afters(&documents), [expected]);
    // A mask that comes and goes with the parent, while the child is known to the reader.
    let documents = database.changes_of(
        "ALTER TABLE top RENAME pw TO secret; INSERT INTO apart VALUES (1, 'a', 'secret'); ALTER TABLE apart INHERIT top;
         COMMIT; INSERT INTO apart VALUES (2, 'a', 'secret'); ALTER TABLE apart NO INHERIT top; COMMIT;
         INSERT INTO apart VALUES (3, 'a', 'seen'); ALTER TABLE apart INHERIT top; DROP TRIGGER bemi_context ON top; COMMIT;
         INSERT INTO apart VALUES (4, 'a', 'seen')",
    );
    let secrets: Vec<&Value> = documents.iter().map(|document| &document["after"]["secret"]).collect();
    // The first two were written in one transaction with the ALTER TABLE behind the first.
    assert_eq!(secrets, ["secret", "[masked]", "seen", "seen"]);
}

fn not_tracked(server: &Server) {
    let (mut database, mut client) = database(server, "masks_not_tracked");
    client.batch_execute("CREATE TABLE top (id int, a text, b text); CREATE TABLE child () INHERITS (top)").unwrap();
    track(&mut client, "top", &["mask=a", "ignore=b"]);
    client.batch_execute("INSERT INTO child VALUES (1, 'secret', 'b')").unwrap();
    assert_eq!(database.documents_with(&["tracked-only"]).len(), 0);
    assert_eq!(afters(&database.documents()), [json!({"id":1,"a":"[masked]","b":"b"})]);
    // Nor do rules of what is ignored come down.
    track(&mut client, "child", &[]);
    client.batch_execute("ALTER TABLE child REPLICA IDENTITY FULL").unwrap();
    let documents = database.changes_of("UPDATE child SET b = 'c'");
    assert_eq!(afters(&documents), [json!({"id":1,"a":"[masked]","b":"c"})]);
}

fn told(server: &Server) {
    let (_database, mut client) = database(server, "masks_told");
    let arguments = "convert_to('mask=a' || chr(1) || 'numbers=16384:2,5' || chr(1) || 'numbers=x' || chr(1), 'UTF8')";
    let stored = format!("decode(replace(encode({arguments}, 'hex'), '01', '00'), 'hex')");
    for (kind, expected) in [("numbers", "{\"16384:2,5\"}"), ("mask", "{a}"), ("unknown", "{numbers=x}")] {
        let statement = format!("SELECT bemi.rules({stored}, '{kind}')::text");
        assert_eq!(client.query_one(&statement, &[]).unwrap().get::<_, String>(0), expected, "{kind}");
    }
}
