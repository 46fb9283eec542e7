//! Memory does not grow with the number of changes.
use std::process::Stdio;

use crate::Test;
use crate::context::table;
use crate::server::{Running, Server, resident_kb, wait_until};

pub const TESTS: &[Test] = &[("a_million_changes_leave_the_walsender_as_small_as_it_was", walsender)];

const GROWTH_KB: i64 = 16 * 1024;

fn walsender(server: &Server) {
    let database = table(server, "walsender");
    let mut client = database.connect();
    client
        .batch_execute(
            "ALTER TABLE t ADD a int[] DEFAULT '{1,2,3}', ADD j jsonb DEFAULT '{\"a\": [1, 2, 3]}', ADD n numeric DEFAULT 1.5,
                ADD ts timestamptz DEFAULT now(), ADD i interval DEFAULT '1 day', ADD r int4range DEFAULT '[1,5)';
             ALTER TABLE t REPLICA IDENTITY FULL; SELECT bemi.set_context('{\"user_id\":187234}')",
        )
        .unwrap();
    let mut command = server.program("pg_recvlogical", &database.name);
    command.args(["-d", &database.name, "-S", &database.name, "--start", "-F", "1", "-s", "1", "-f", "/dev/null"]);
    let reader = Running::start(command.stderr(Stdio::null()));
    let slot = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = 'walsender' AND active";
    wait_until("the walsender", || client.query_opt(slot, &[]).unwrap().is_some());
    let pid: i32 = client.query_one(slot, &[]).unwrap().get(0);
    let sent = "SELECT sent_lsn >= $1::text::pg_lsn FROM pg_stat_replication WHERE pid = $2";
    let mut insert_and_wait = |rows: i32| -> i64 {
        client.execute("INSERT INTO t (v) SELECT 'row ' || i FROM generate_series(1, $1::int) i", &[&rows]).unwrap();
        let position: String = client.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).unwrap().get(0);
        wait_until("the changes", || client.query_one(sent, &[&position, &pid]).unwrap().get(0));
        resident_kb(pid)
    };
    let at_first = insert_and_wait(10_000);
    let mut at_most = at_first;
    for _ in 0..100 {
        at_most = at_most.max(insert_and_wait(10_000));
    }
    drop(reader);
    println!("walsender: {at_first} kB after 10,000 changes, at most {at_most} kB during 1,000,000 more");
    assert!(at_most - at_first <= GROWTH_KB, "{at_first} kB became {at_most} kB");
}
