//! How far WAL is recorded, which `bemi.recorder` keeps.
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::failure::{Failure, transaction};
use super::spi::{one, run};
use super::start_lock;
use crate::decoder::encode;
use crate::recorder::document::{self, Identity};

/// How far WAL is recorded, and by which slot.
#[derive(Debug)]
pub struct Progress {
    pub slot: String,
    /// The number of the source in `bemi.sources`.
    pub source: i32,
    pub recorded: Identity,
    /// Everything before this position is recorded, and nothing behind it is confirmed.
    pub read: u64,
    /// The document of a gap before the slot, which is to be recorded first.
    pub gap: Option<String>,
}

/// Runs before anything is read or written there: else a trigger of others would run with the rights of this worker.
pub const REQUIRE_SAFE: &str =
    "SELECT bemi.require_readable(), bemi.require_safe_tables(ARRAY['bemi.recorder'::regclass::oid])";

/// Waits until the transaction that started this worker has ended, and returns what the worker is to do; None if that
/// was rolled back, or if the worker is no longer wanted. Drops slots that are no longer wanted, since the server keeps
/// WAL for them.
pub fn begin() -> Result<Option<Wanted>, Failure> {
    transaction(|| {
        // bemi.start() and bemi.stop() hold it until their transactions end. Before anything gives this transaction an
        // id: a slot that is being created waits for all transactions that have one.
        if !start_lock::take() {
            return None;
        }
        let is_there = one::<bool>("SELECT to_regclass('bemi.recorder') IS NOT NULL") == Some(true);
        if is_there {
            // Before it is read or written.
            run("SELECT bemi.require_safe()");
            run(REQUIRE_SAFE);
        }
        if !is_there && one::<bool>("SELECT to_regclass('bemi.changes') IS NOT NULL") == Some(true) {
            log!("the recorder of bemi stops because the table bemi.recorder does not exist; its slots are kept");
            return None;
        }
        let kept = if is_there { "(SELECT slot FROM bemi.recorder)" } else { "NULL" };
        run(&format!(
            "SELECT pg_drop_replication_slot(slot_name) FROM bemi.recorder_slots()
            WHERE NOT active AND slot_name IS DISTINCT FROM {kept}"
        ));
        if !is_there {
            return None;
        }
        let slot: String = one("SELECT slot::text FROM bemi.recorder WHERE is_wanted")?;
        let failures: Option<i32> = one("SELECT failures FROM bemi.recorder");
        Some(Wanted { slot, failures: failures.unwrap_or_default() as u32 })
    })
}

/// What the worker is to do.
#[derive(Debug)]
pub struct Wanted {
    pub slot: String,
    /// How often the worker has failed since it last succeeded.
    pub failures: u32,
}

/// Reads how far WAL is recorded, while this process holds the slot, so that nobody else moves it. Fails if the slot or
/// the progress is not as the recorder left it.
pub fn read(wanted: Wanted) -> Result<Progress, Failure> {
    transaction(|| {
        run(REQUIRE_SAFE);
        if let Some(problem) = one::<String>("SELECT bemi.slot_problem()") {
            let code = PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
            ErrorReport::new(code, problem, "read").report(PgLogLevel::ERROR);
        }
        // After pg_upgrade, which takes slots along, this is another server than before.
        let source = one::<i32>("SELECT bemi.continue_source()").unwrap_or_default();
        let position = |column: &str| {
            let text: Option<String> = one(&format!("SELECT {column}::text FROM bemi.recorder"));
            text.and_then(|text| document::lsn(&text)).unwrap_or_default()
        };
        let sequence: Option<i32> = one("SELECT sequence FROM bemi.recorder");
        let recorded =
            Identity { commit_position: position("commit_position"), sequence: sequence.unwrap_or_default() as u32 };
        Progress { slot: wanted.slot, source, recorded, read: position("read_position"), gap: gap() }
    })
}

/// Returns the document of the gap that `bemi.recorder` describes, whose values `bemi.slot_problem()` has checked.
fn gap() -> Option<String> {
    let document: Option<Vec<u8>> = one("
        SELECT convert_to(concat(
            '{\"position\":', to_json(gap_to), ',\"commit_position\":', to_json(gap_to),
            ',\"sequence\":0,\"transaction_id\":', gap_transaction & 4294967295,
            ',\"committed_at\":', to_json(to_char(gap_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"+00:00\"')),
            ',\"database\":', to_json(current_database()), ',\"schema\":\"\",\"table\":\"\",\"operation\":\"GAP\"',
            ',\"primary_key\":null',
            ',\"before\":{},\"after\":{},\"context\":',
            CASE WHEN gap_source < source THEN json_build_object('reason', gap_reason, 'from', gap_from,
                'from_source', gap_source, 'to', gap_to, 'accepted_by', gap_accepted_by)
              ELSE json_build_object('reason', gap_reason, 'from', gap_from, 'to', gap_to,
                'accepted_by', gap_accepted_by) END,
            '}'), 'UTF8')
        FROM bemi.recorder WHERE gap_reason IS NOT NULL");
    document.map(|document| String::from_utf8_lossy(&document).replace('\n', " "))
}

/// Writes into `bemi.recorder` that everything before a position is recorded.
pub fn keep(position: u64) -> Result<(), Failure> {
    transaction(|| {
        run(REQUIRE_SAFE);
        run("SELECT bemi.require_own_trail()");
        let statement = "UPDATE bemi.recorder SET read_position = GREATEST(read_position, $1::pg_lsn)";
        Spi::run_with_args(statement, &[encode::lsn(position).into()]).unwrap_or_else(|error| error!("{error}"));
    })
}
