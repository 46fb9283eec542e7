//! The past of columns whose types were something else: other attributes, other labels, another type, or values that today's
//! type refuses.
use postgres::Client;

use crate::Test;
use crate::recorder::recording;
use crate::server::{Notices, Server, is_soon, run};

pub const TESTS: &[Test] = &[
    ("renamed_attributes_are_followed_wherever_a_type_is_used", attributes),
    ("renamed_labels_are_followed_wherever_an_enum_is_used", labels),
    ("old_values_become_what_a_change_of_type_made_of_such_values", retyped),
    ("an_enum_that_was_made_anew_shows_the_labels_of_the_old_one", remade),
    ("what_an_expression_made_of_a_column_is_told_with_its_time", expressions),
    ("a_value_that_cannot_be_read_is_null_and_told_and_the_rest_is_there", unreadable),
    ("settings_of_the_reader_change_no_value_of_the_past", settings),
    ("who_writes_a_label_that_is_being_renamed_is_waited_for", writers),
    ("a_cast_of_others_is_not_run_but_told", casts),
    ("problems_of_an_image_are_named_by_column", problems),
    ("members_of_arrays_that_are_arrays_themselves_come_back", nested),
];

/// Runs statements; an instant after them, and before all others.
fn then(client: &mut Client, statements: &str) -> String {
    run(client, statements);
    client.query_one("SELECT clock_timestamp()::text", &[]).unwrap().get(0)
}

/// The rows of a query, as one text.
fn all(client: &mut Client, from: &str) -> String {
    let query = format!("SELECT COALESCE(string_agg(q::text, ' ' ORDER BY q::text), '') FROM {from} q");
    client.query_one(&query, &[]).unwrap_or_else(|error| panic!("{query}: {error:?}")).get(0)
}

fn past(client: &mut Client, table: &str, moment: &str) -> String {
    all(client, &format!("bemi.as_of(NULL::{table}, '{moment}')"))
}

fn history(client: &mut Client, table: &str, key: &str) -> String {
    let query = format!("SELECT string_agg(\"row\"::text, ' ') FROM bemi.history(NULL::{table}, '{key}')");
    client.query_one(&query, &[]).unwrap_or_else(|error| panic!("{query}: {error:?}")).get(0)
}

/// A session that hears what the server says, for a database that is recorded.
fn listening(server: &Server, name: &str) -> (Client, Notices) {
    let (mut client, notices) = server.connect_listening(name, "postgres");
    client.batch_execute("SET TimeZone = 'UTC'").unwrap();
    (client, notices)
}

fn told(notices: &Notices, parts: &[&str]) -> bool {
    notices.take().iter().any(|notice| parts.iter().all(|part| notice.contains(part)))
}

fn attributes(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "past_attributes");
    run(
        &mut client,
        "CREATE TYPE addr AS (street text, zip text); CREATE TABLE row_of (code text, gone int, x text);
         CREATE DOMAIN home AS addr; CREATE TYPE outer_of AS (a addr, all_of addr[], r row_of);
         CREATE TABLE c (id int PRIMARY KEY, a addr, h home, l addr[], o outer_of, n int); SELECT bemi.track('c');
         INSERT INTO c VALUES (1, '(Main,111)', '(Home,1)', '{\"(A,1)\",\"(B,2)\"}', ROW(ROW('In','9'), '{\"(C,3)\"}', ROW('k', 5, 'x')), 1), (2, '(Side,222)', NULL, NULL, NULL, 1)",
    );
    let moment = then(&mut client, "SELECT 1");
    let seen = all(&mut client, "c");
    run(
        &mut client,
        "UPDATE c SET n = 2 WHERE id = 1; DELETE FROM c WHERE id = 2; ALTER TYPE addr RENAME ATTRIBUTE zip TO postcode; ALTER TABLE row_of RENAME x TO code2",
    );
    assert_eq!(past(&mut client, "c", &moment), seen);
    assert_eq!(history(&mut client, "c", "2"), "(2,\"(Side,222)\",,,,1)");
    // Names that change places, and attributes that come and go.
    run(
        &mut client,
        "ALTER TYPE addr RENAME ATTRIBUTE street TO t; ALTER TYPE addr RENAME ATTRIBUTE postcode TO street; ALTER TYPE addr RENAME ATTRIBUTE t TO postcode;
         ALTER TABLE row_of DROP gone; ALTER TABLE row_of ADD gone int; ALTER TYPE addr ADD ATTRIBUTE zip text",
    );
    let now = "(1,\"(Main,111,)\",\"(Home,1,)\",\"{\"\"(A,1,)\"\",\"\"(B,2,)\"\"}\",\"(\"\"(In,9,)\"\",\"\"{\"\"\"\"(C,3,)\"\"\"\"}\"\",\"\"(k,x,)\"\")\",1) (2,\"(Side,222,)\",,,,1)";
    assert_eq!(past(&mut client, "c", &moment), now);
    run(&mut client, &format!("SELECT bemi.revert(relation => 'c', since => '{moment}')"));
    assert_eq!(all(&mut client, "c"), now);
    // An attribute goes with its type.
    run(&mut client, "CREATE DOMAIN short AS text; ALTER TYPE addr ADD ATTRIBUTE s short");
    let moment = then(&mut client, "UPDATE c SET a = ROW('p', 's', 'z', 'domain') WHERE id = 1");
    run(&mut client, "DELETE FROM c; DROP DOMAIN short CASCADE; ALTER TYPE addr ADD ATTRIBUTE s text");
    assert!(past(&mut client, "c", &moment).starts_with("(1,\"(p,s,z,)\""));
}

fn labels(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "past_labels");
    run(
        &mut client,
        "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN dm AS mood; CREATE TYPE cm AS (m mood, l dm[]); CREATE TYPE rm AS RANGE (subtype = mood);
         CREATE TABLE e (id int PRIMARY KEY, m mood, d dm, l mood[], c cm, r rm, cs cm[], n int); SELECT bemi.track('e');
         INSERT INTO e VALUES (1, 'sad', 'ok', '{{sad,ok},{ok,NULL}}', '(sad,\"{ok,sad}\")', '[sad,ok]', '{\"(ok,{sad})\"}', 1), (2, 'ok', NULL, '{}', NULL, '(,sad]', NULL, 1)",
    );
    let moment = then(&mut client, "SELECT 1");
    run(
        &mut client,
        "UPDATE e SET n = 2 WHERE id = 1; DELETE FROM e WHERE id = 2; ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'",
    );
    let blue = "(1,blue,ok,\"{{blue,ok},{ok,NULL}}\",\"(blue,\"\"{ok,blue}\"\")\",\"[blue,ok]\",\"{\"\"(ok,{blue})\"\"}\",1) (2,ok,,{},,\"(,blue]\",,1)";
    assert_eq!(past(&mut client, "e", &moment), blue);
    assert_eq!(history(&mut client, "e", "2"), "(2,ok,,{},,\"(,blue]\",,1)");
    // Labels change places, and one comes by an old name.
    run(
        &mut client,
        "ALTER TYPE mood RENAME VALUE 'ok' TO 't'; ALTER TYPE mood RENAME VALUE 'blue' TO 'ok'; ALTER TYPE mood RENAME VALUE 't' TO 'blue'; ALTER TYPE mood ADD VALUE 'sad'",
    );
    let swapped = blue.replace("blue", "?").replace("ok", "blue").replace('?', "ok");
    assert_eq!(past(&mut client, "e", &moment), swapped);
    let now = then(&mut client, "UPDATE e SET m = 'sad', r = '[sad,sad]' WHERE id = 1");
    run(&mut client, "DELETE FROM e");
    assert!(past(&mut client, "e", &now).starts_with("(1,sad,blue,"));
    run(&mut client, &format!("SELECT bemi.revert(relation => 'e', since => '{moment}')"));
    assert_eq!(all(&mut client, "e"), swapped);
}

fn retyped(server: &Server) {
    let (database, mut client, _stop) = recording(server, "past_retyped_values");
    run(
        &mut client,
        "SET TimeZone = 'UTC'; CREATE TYPE kind AS ENUM ('a', 'b');
         CREATE TABLE c (id int PRIMARY KEY, n int, m numeric, v varchar(20), t timestamp, l int[], k kind, j text, d date, w char(4)); SELECT bemi.track('c');
         INSERT INTO c SELECT i, 7, 1.266, 'abc', '2026-01-01 12:00', '{1,NULL}', 'a', '{\"a\": 1}', '2026-02-03', 'x' FROM generate_series(1, 2) i",
    );
    let moment = then(&mut client, "SELECT 1");
    // One row stays, for ALTER TABLE itself; the other is read as it was recorded.
    run(
        &mut client,
        "DELETE FROM c WHERE id = 2; SET TimeZone = 'Asia/Kathmandu'; SET DateStyle = 'German';
         ALTER TABLE c ALTER n TYPE bigint, ALTER m TYPE numeric(6, 2), ALTER v TYPE text, ALTER t TYPE timestamptz, ALTER l TYPE bigint[], ALTER k TYPE text, ALTER d TYPE text,
           ALTER w TYPE text, ALTER j TYPE jsonb USING j::jsonb;
         ALTER TYPE kind RENAME VALUE 'a' TO 'later'; SET TimeZone = 'America/New_York'; SET DateStyle = 'ISO';
         ALTER TABLE c ALTER m TYPE int, ALTER n TYPE text, ALTER t TYPE date, ALTER j TYPE text USING CAST(j AS text)",
    );
    let (mut listener, notices) = listening(server, &database.name);
    let rows = past(&mut listener, "c", &moment);
    let kept = rows.split(") (").next().unwrap().replacen("(1", "(2", 1);
    assert_eq!(rows, format!("{}) {kept})", rows.split(") (").next().unwrap()));
    assert!(rows.contains("(1,7,1,abc,2026-01-01,\"{1,NULL}\",a,\"{\"\"a\"\": 1}\",03.02.2026,x"), "{rows}");
    assert_eq!(notices.take(), Vec::<String>::new());
    // The image of then as it would be recorded today.
    let today = all(
        &mut client,
        "(SELECT bemi.image_today('c', before, position) FROM bemi.changes WHERE operation = 'DELETE')",
    );
    assert!(today.contains("\"\"n\"\": \"\"7\"\"") && today.contains("\"\"m\"\": 1,"), "{today}");
    run(&mut client, &format!("SELECT bemi.revert(relation => 'c', since => '{moment}')"));
    assert_eq!(all(&mut client, "(SELECT * FROM c WHERE id = 2)"), kept + ")");
}

fn remade(server: &Server) {
    let (database, mut client, _stop) = recording(server, "past_remade");
    run(
        &mut client,
        "CREATE TYPE status AS ENUM ('open', 'done'); CREATE TABLE r (id int PRIMARY KEY, s status); SELECT bemi.track('r'); INSERT INTO r VALUES (1, 'open'), (2, 'done')",
    );
    let moment = then(&mut client, "SELECT 1");
    run(
        &mut client,
        "UPDATE r SET s = 'done' WHERE id = 1; DELETE FROM r WHERE id = 2; ALTER TYPE status RENAME VALUE 'open' TO 'new'; ALTER TYPE status RENAME TO status_old;
         CREATE TYPE status AS ENUM ('done', 'new', 'more'); ALTER TABLE r ALTER s TYPE status USING s::text::status; DROP TYPE status_old; ALTER TYPE status RENAME VALUE 'done' TO 'closed'",
    );
    let (mut listener, notices) = listening(server, &database.name);
    assert_eq!(past(&mut listener, "r", &moment), "(1,new) (2,closed)");
    assert_eq!(history(&mut listener, "r", "1"), "(1,closed) (1,new)");
    assert_eq!(notices.take(), Vec::<String>::new());
    // Without a label that there was.
    let moment = then(&mut client, "INSERT INTO r VALUES (3, 'more'), (4, 'new')");
    run(
        &mut client,
        "DELETE FROM r WHERE id IN (3, 4); CREATE TYPE fewer AS ENUM ('closed', 'new'); ALTER TABLE r ALTER s TYPE fewer USING s::text::fewer; DROP TYPE status",
    );
    assert_eq!(past(&mut listener, "r", &moment), "(1,closed) (3,) (4,new)");
    assert!(told(&notices, &["the column s of public.r", "\"more\" is gone"]));
}

fn expressions(server: &Server) {
    let (database, mut client, _stop) = recording(server, "past_expressions");
    run(
        &mut client,
        "CREATE TABLE p (id int PRIMARY KEY, price int, same int); SELECT bemi.track('p'); INSERT INTO p VALUES (1, 1999, 1), (2, 1999, 1), (3, 1999, 1)",
    );
    let moment = then(&mut client, "SELECT 1");
    run(
        &mut client,
        "UPDATE p SET price = 2500 WHERE id = 1; ALTER TABLE p ALTER price TYPE numeric(10, 2) USING price / 100.0; ALTER TABLE p ALTER same TYPE int USING -same",
    );
    let (mut listener, notices) = listening(server, &database.name);
    past(&mut listener, "p", &moment);
    let heard = notices.take();
    for column in ["price", "same"] {
        let says = format!("the column {column} of p was rewritten at 2");
        assert!(heard.iter().any(|notice| notice.replace("public.", "").contains(&says)), "{heard:?}");
    }
    history(&mut listener, "p", "1");
    assert!(told(&notices, &["the column price of", "was rewritten at 2"]));
    // From then on there is nothing to tell.
    let later = then(&mut client, "UPDATE p SET price = 1 WHERE id = 2");
    past(&mut listener, "p", &later);
    assert_eq!(notices.take(), Vec::<String>::new());
    if server.major >= 17 {
        run(
            &mut client,
            "CREATE TABLE g (id int PRIMARY KEY, v int GENERATED ALWAYS AS (id * 2) STORED); SELECT bemi.track('g')",
        );
        let moment = then(&mut client, "INSERT INTO g VALUES (1)");
        run(&mut client, "ALTER TABLE g ALTER v SET EXPRESSION AS (id * 3)");
        past(&mut listener, "g", &moment);
        assert!(told(&notices, &["the column v of", "was rewritten at 2"]));
    }
}

fn unreadable(server: &Server) {
    let (database, mut client, _stop) = recording(server, "past_unreadable");
    run(
        &mut client,
        "CREATE TABLE victim (a int); CREATE FUNCTION lost() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE TYPE lost_type AS ENUM ('x'); CREATE ROLE past_lost_role;
         CREATE TYPE with_class AS (c regclass, n int);
         CREATE TABLE u (id int PRIMARY KEY, r regclass, p regproc, y regtype, o regrole, w with_class, l regclass[], n int, m numeric, b bigint); SELECT bemi.track('u');
         INSERT INTO u VALUES (1, 'victim', 'lost', 'lost_type', 'past_lost_role', ROW('victim', 1), '{victim}', 1, 12345.678, 5000000000), (2, 't', 'now', 'int', 'postgres', ROW('t', 2), '{t}', 2, 1.2, 3)",
    );
    let moment = then(&mut client, "SELECT 1");
    run(
        &mut client,
        "DELETE FROM u; DROP TABLE victim; DROP FUNCTION lost(); DROP TYPE lost_type; DROP ROLE past_lost_role; ALTER TABLE u ALTER m TYPE numeric(4, 2), ALTER b TYPE int",
    );
    let (mut listener, notices) = listening(server, &database.name);
    let expected = "(1,,,,,,,1,12345.678,) (2,t,now,integer,postgres,\"(t,2)\",{t},2,1.20,3)";
    assert_eq!(past(&mut listener, "u", &moment), expected);
    let heard = notices.take();
    for column in ["r", "p", "y", "o", "w", "l", "m", "b"] {
        let says = format!("the column {column} of ");
        assert!(
            heard.iter().any(|notice| notice.contains(&says) && notice.contains("recorded at 2")),
            "{column}: {heard:?}"
        );
    }
    assert_eq!(heard.len(), 8, "{heard:?}");
    assert_eq!(history(&mut listener, "u", "1"), "(1,,,,,,,1,12345.678,)");
    // In all forms of the query.
    assert_eq!(
        all(&mut listener, &format!("(SELECT (x).* FROM (SELECT bemi.as_of(NULL::u, '{moment}') AS x) y)")),
        expected
    );
}

fn settings(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "past_types_settings");
    run(
        &mut client,
        "CREATE SCHEMA shadow; CREATE TYPE ra AS RANGE (subtype = text[]); CREATE TABLE shadow.pg_class (a int);
         CREATE TABLE s (id int PRIMARY KEY, x xml, a text[], r ra, c regclass, m money, i interval, d date, z timestamptz); SELECT bemi.track('s');
         INSERT INTO s VALUES (1, XMLPARSE(CONTENT 'text<a/>'), '{a,NULL}', ra('{a,NULL}', '{b,NULL}'), 'pg_class', 1234.5, '-1 day 02:00', '2026-02-03', '2026-01-01 00:00+00')",
    );
    let moment = then(&mut client, "SELECT 1");
    run(&mut client, "CREATE TABLE kept AS SELECT * FROM s; DELETE FROM s");
    for settings in [
        "SET xmloption = document",
        "SET array_nulls = off",
        "SET search_path = shadow, pg_catalog, public",
        "SET IntervalStyle = sql_standard",
        "SET DateStyle = 'SQL, DMY'; SET TimeZone = 'Asia/Kathmandu'",
    ] {
        run(&mut client, settings);
        let same = format!(
            "SELECT (SELECT count(*) FROM public.kept k, bemi.as_of(NULL::public.s, '{moment}') p WHERE k.r = p.r AND k.a = p.a AND k.c = p.c AND k.m = p.m AND k.i = p.i AND k.d = p.d AND k.z = p.z
               AND k.x::text = p.x::text) = 1 AND (SELECT count(*) FROM public.kept k, bemi.history(NULL::public.s, '1') h WHERE (h.row).r = k.r AND (h.row).c = k.c AND (h.row).x::text = k.x::text) = 1"
        );
        assert!(
            client.query_one(&same, &[]).unwrap_or_else(|e| panic!("{settings}: {e:?}")).get::<_, bool>(0),
            "{settings}"
        );
    }
}

fn writers(server: &Server) {
    let (database, mut client, _stop) = recording(server, "past_type_writers");
    run(
        &mut client,
        "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TYPE pair AS (m mood, n int); CREATE TABLE e (id int PRIMARY KEY, p pair[]); SELECT bemi.track('e')",
    );
    let moment = then(&mut client, "INSERT INTO e VALUES (1, '{\"(sad,1)\"}')");
    for (statement, undo) in [
        ("ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'", "ALTER TYPE mood RENAME VALUE 'blue' TO 'sad'"),
        ("ALTER TYPE pair RENAME ATTRIBUTE n TO o", "ALTER TYPE pair RENAME ATTRIBUTE o TO n"),
    ] {
        let mut writer = database.connect();
        run(&mut writer, "BEGIN; UPDATE e SET p = p || '{\"(sad,2)\"}'");
        let mut renamer = database.connect();
        let pid: i32 = renamer.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
        let statement = statement.to_owned();
        let renaming = std::thread::spawn(move || renamer.batch_execute(&statement));
        let waits = format!("SELECT count(*) FROM pg_locks WHERE pid = {pid} AND NOT granted");
        assert!(is_soon(|| client.query_one(&waits, &[]).unwrap().get::<_, i64>(0) > 0), "the rename waits for nobody");
        run(&mut writer, "UPDATE e SET p = p || '{\"(sad,3)\"}'; COMMIT");
        renaming.join().unwrap().unwrap();
        run(&mut client, "UPDATE e SET p = p[1:1]");
        assert!(history(&mut client, "e", "1").contains(",2)") && !past(&mut client, "e", &moment).is_empty());
        run(&mut client, undo);
    }
    // A label more is no reason to wait.
    let mut writer = database.connect();
    run(&mut writer, "BEGIN; UPDATE e SET p = NULL");
    run(&mut client, "SET lock_timeout = '2s'; ALTER TYPE mood ADD VALUE 'more'; RESET lock_timeout");
    run(&mut writer, "COMMIT");
}

fn casts(server: &Server) {
    let (database, mut client, _stop) = recording(server, "past_casts");
    run(
        &mut client,
        "CREATE TYPE e AS ENUM ('x', 'y'); CREATE FUNCTION of_text(text) RETURNS e LANGUAGE sql AS 'SELECT CASE WHEN $1 > ''m'' THEN ''y''::e ELSE ''x'' END';
         CREATE CAST (text AS e) WITH FUNCTION of_text(text) AS ASSIGNMENT; CREATE TABLE c (id int PRIMARY KEY, v text); SELECT bemi.track('c'); INSERT INTO c VALUES (1, 'a'), (2, 'z'), (3, 'z')",
    );
    let moment = then(&mut client, "SELECT 1");
    run(&mut client, "DELETE FROM c WHERE id = 2; ALTER TABLE c ALTER v TYPE e");
    let (mut listener, notices) = listening(server, &database.name);
    assert_eq!(past(&mut listener, "c", &moment), "(1,x) (2,) (3,y)");
    let heard = notices.take();
    assert!(heard.iter().any(|n| n.contains("the column v of") && n.contains("was rewritten at 2")), "{heard:?}");
    assert!(heard.iter().any(|n| n.contains("the column v of") && n.contains("cast")), "{heard:?}");
}

fn problems(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "past_problems");
    run(
        &mut client,
        "CREATE TABLE victim (a int); CREATE TABLE p (id int PRIMARY KEY, r regclass, v int, w text, x int); SELECT bemi.track('p'); INSERT INTO p VALUES (1, 'victim', 1, 'w', 70000)",
    );
    run(
        &mut client,
        "DELETE FROM p; DROP TABLE victim; ALTER TABLE p RENAME r TO \"R\"\"\"; ALTER TABLE p ALTER v TYPE int USING v * 2, ALTER w TYPE varchar, ALTER x TYPE smallint; SELECT bemi.sync()",
    );
    let query = "SELECT (SELECT string_agg(k, ' ' ORDER BY k) FROM jsonb_object_keys(bemi.image_problems('p', before, position)) k), bemi.image_today('p', before, position)::text
       FROM bemi.changes WHERE operation = 'DELETE'";
    let row = client.query_one(query, &[]).unwrap();
    assert_eq!(row.get::<_, &str>(0), "R\" v x");
    // What cannot be read is as it was recorded.
    assert_eq!(row.get::<_, &str>(1), r#"{"v": 1, "w": "w", "x": 70000, "R\"": "public.victim", "id": 1}"#);
    run(&mut client, "INSERT INTO p VALUES (2, 't', 2, 'x', 3)");
    let query = "SELECT bemi.image_problems('p', after, position) IS NULL AND NOT bemi.is_as_ever('p'::regclass) FROM bemi.changes WHERE primary_key = '2'";
    run(&mut client, "SELECT bemi.sync()");
    assert!(client.query_one(query, &[]).unwrap().get::<_, bool>(0));
}

/// In JSON they look like dimensions.
fn nested(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "past_nested");
    run(
        &mut client,
        "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN ints AS int[]; CREATE DOMAIN moods AS mood[]; CREATE DOMAIN doc AS jsonb;
         CREATE TYPE holder AS (i ints[], m moods[]);
         CREATE TABLE n (id int PRIMARY KEY, i ints[], m moods[], j jsonb[], k json[], d doc[], h holder[], plain int[]); SELECT bemi.track('n');
         INSERT INTO n VALUES (1, ARRAY['{1,2}', '{3}', NULL, '{{4,5},{6,7}}']::ints[], ARRAY['{sad,NULL}', '{ok}']::moods[], ARRAY['[1, 2]', '[3]', '{\"a\": []}']::jsonb[],
           ARRAY['[1, 2]', '7']::json[], ARRAY['[[]]', NULL]::doc[], ARRAY[ROW(ARRAY['{1}', '{2,3}']::ints[], ARRAY['{sad}']::moods[])::holder], '{{1,2},{3,4}}'),
           (2, ARRAY['{1,2}', '{3,4}']::ints[], '{}', ARRAY['[1, 2]', '[3, 4]']::jsonb[], '{}', NULL, NULL, '{}')",
    );
    let moment = then(&mut client, "SELECT 1");
    let kept = all(&mut client, "n");
    run(&mut client, "UPDATE n SET plain = NULL WHERE id = 1; DELETE FROM n");
    assert_eq!(past(&mut client, "n", &moment), kept);
    run(
        &mut client,
        "SELECT bemi.revert(relation => 'n', since => (SELECT min(committed_at) FROM bemi.changes WHERE operation = 'UPDATE'))",
    );
    assert_eq!(all(&mut client, "n"), kept);
    run(&mut client, "DELETE FROM n; ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'");
    assert_eq!(past(&mut client, "n", &moment), kept.replace("sad", "blue"));
    run(&mut client, "SELECT bemi.revert(relation => 'n', since => (SELECT max(committed_at) FROM bemi.changes))");
    assert_eq!(all(&mut client, "n"), kept.replace("sad", "blue"));
}
