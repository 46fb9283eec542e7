//! Undoing changes of several tables: in which order, and what foreign keys forbid.
use crate::Test;
use crate::recorder::recording;
use crate::revert::{NEWEST, error, of, revert, rows, statements, under};
use crate::server::{Server, run};

pub const TESTS: &[Test] = &[
    ("rows_are_undone_in_an_order_that_foreign_keys_allow", references),
    ("rows_of_others_are_never_changed_by_a_cascade", cascades),
    ("deferrable_constraints_are_deferred_where_nothing_else_helps", deferred),
    ("partitions_are_undone_by_the_name_of_their_table", partitions),
    ("a_truncate_is_undone", truncated),
];

const FAMILY: &str = "CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE c (id int PRIMARY KEY, p int REFERENCES p ON DELETE CASCADE ON UPDATE CASCADE); \
     CREATE TABLE g (id int PRIMARY KEY, c int REFERENCES c ON DELETE CASCADE, up int REFERENCES g ON DELETE CASCADE); SELECT bemi.track_all(); \
     INSERT INTO p VALUES (1), (2); INSERT INTO c VALUES (1, 1), (2, 1), (3, 2); INSERT INTO g VALUES (1, 1, NULL), (2, 2, 1), (3, 3, 2), (4, NULL, 4)";

fn references(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "revert_references");
    run(&mut client, FAMILY);
    let all = |client: &mut postgres::Client| ["p", "c", "g"].map(|table| rows(client, table));
    let before = all(&mut client);
    for (name, statements) in [
        ("deleted", "DELETE FROM p; DELETE FROM g"),
        ("moved", "UPDATE p SET id = id + 10; UPDATE p SET id = id + 10"),
        ("moved and deleted", "UPDATE p SET id = 7 WHERE id = 1; DELETE FROM p WHERE id = 7; INSERT INTO p VALUES (1)"),
        (
            "made",
            "INSERT INTO p VALUES (5); INSERT INTO c VALUES (5, 5); INSERT INTO g VALUES (9, 5, 9); DELETE FROM p WHERE id = 5",
        ),
    ] {
        under(&mut client, name, statements);
        let after = all(&mut client);
        let done = revert(&mut client, &of(name));
        assert!(done.iter().all(|line| line.contains(" reverted")), "{done:?}");
        assert_eq!(all(&mut client), before, "{name}");
        revert(&mut client, &format!("context => '{{\"reverts\":{{\"context\":{{\"x\":\"{name}\"}}}}}}'"));
        assert_eq!(all(&mut client), after, "{name}");
        // And back, by the newest of them.
        run(&mut client, "SELECT bemi.sync()");
        revert(&mut client, NEWEST);
        assert_eq!(all(&mut client), before, "{name}");
    }
}

fn cascades(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "revert_cascades");
    run(&mut client, FAMILY);
    run(&mut client, "CREATE TABLE n (id int PRIMARY KEY, p int REFERENCES p ON DELETE SET NULL)");
    under(&mut client, "x", "INSERT INTO p VALUES (5), (6); UPDATE p SET id = 22 WHERE id = 2");
    run(&mut client, "INSERT INTO c VALUES (50, 5); INSERT INTO n VALUES (60, 6); INSERT INTO c VALUES (70, 22)");
    let before = ["p", "c", "n"].map(|table| rows(&mut client, table));
    let (state, text) = error(&mut client, &of("x"));
    assert_eq!(state, "27000");
    for line in [
        "public.p 22 (UPDATE): rows of public.c refer to it by the foreign key c_p_fkey, which would change them too",
        "public.p 6 (CREATE): rows of public.n refer to it by the foreign key n_p_fkey, which would change them too",
        "public.p 5 (CREATE): rows of public.c refer to it by the foreign key c_p_fkey, which would change them too",
    ] {
        assert!(text.contains(line), "{text}");
    }
    revert(&mut client, &format!("{}, on_conflict => 'skip'", of("x")));
    assert_eq!(["p", "c", "n"].map(|table| rows(&mut client, table)), before);
}

fn deferred(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "revert_deferred");
    run(
        &mut client,
        "CREATE TABLE a (id int PRIMARY KEY, b int, u int UNIQUE DEFERRABLE); CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a DEFERRABLE); \
         ALTER TABLE a ADD CONSTRAINT a_b FOREIGN KEY (b) REFERENCES b DEFERRABLE INITIALLY DEFERRED; SELECT bemi.track_all(); \
         BEGIN; INSERT INTO a VALUES (1, 1, 1), (2, NULL, 2); INSERT INTO b VALUES (1, 1); COMMIT",
    );
    let before = ["a", "b"].map(|table| rows(&mut client, table));
    under(&mut client, "cycle", "SET CONSTRAINTS ALL DEFERRED; DELETE FROM a WHERE id = 1; DELETE FROM b");
    revert(&mut client, &of("cycle"));
    assert_eq!(["a", "b"].map(|table| rows(&mut client, table)), before);
    under(&mut client, "swap", "UPDATE a SET u = 3 - u");
    assert_eq!(revert(&mut client, &of("swap")).len(), 2);
    assert_eq!(["a", "b"].map(|table| rows(&mut client, table)), before);
    // What the caller has not mended yet is his own; others that cannot be undone are conflicts.
    under(&mut client, "b", "UPDATE a SET b = NULL; DELETE FROM b");
    run(&mut client, "BEGIN; DELETE FROM a WHERE id = 1");
    let (state, text) = error(&mut client, &of("b"));
    assert!(state == "27000" && text.contains("b_a_fkey"), "{text}");
    run(&mut client, "ROLLBACK");
}

fn partitions(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "revert_partitions");
    run(
        &mut client,
        "CREATE TABLE m (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); CREATE TABLE m1 PARTITION OF m FOR VALUES FROM (0) TO (10); \
         CREATE TABLE m2 PARTITION OF m FOR VALUES FROM (10) TO (20) PARTITION BY LIST (id); CREATE TABLE m3 PARTITION OF m2 DEFAULT; \
         CREATE TABLE r (id int PRIMARY KEY, m int REFERENCES m ON DELETE CASCADE); SELECT bemi.track_all(); INSERT INTO m VALUES (1, 'a'), (11, 'b'); INSERT INTO r VALUES (1, 11)",
    );
    let before = ["m", "r"].map(|table| rows(&mut client, table));
    under(
        &mut client,
        "x",
        "DELETE FROM r; UPDATE m SET id = id + 5; UPDATE m SET id = 2 WHERE id = 16; INSERT INTO m VALUES (3, 'c'); INSERT INTO r VALUES (2, 3)",
    );
    assert_eq!(statements(&mut client, &format!("relation => 'm2', {}", of("x"))).len(), 2);
    assert!(error(&mut client, &format!("relation => 'm', {}", of("x"))).1.contains("rows of public.r refer to it"));
    revert(&mut client, &of("x"));
    assert_eq!(["m", "r"].map(|table| rows(&mut client, table)), before);
}

fn truncated(server: &Server) {
    let (_database, mut client, _stop) = recording(server, "revert_truncated");
    run(&mut client, FAMILY);
    run(&mut client, "UPDATE p SET id = 3 WHERE id = 2; INSERT INTO p VALUES (9); DELETE FROM p WHERE id = 9");
    let before = ["p", "c", "g"].map(|table| rows(&mut client, table));
    under(&mut client, "x", "TRUNCATE p CASCADE; INSERT INTO p VALUES (1); TRUNCATE g");
    let done = revert(&mut client, &of("x"));
    assert_eq!(done.iter().filter(|line| line.starts_with("TRUNCATE")).count(), 9, "{done:?}");
    assert_eq!(["p", "c", "g"].map(|table| rows(&mut client, table)), before);
}
