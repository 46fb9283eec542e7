//! How far WAL is recorded, which `bemi.recorder` keeps.
use std::borrow::Cow;

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::failure::{Failure, transaction};
use super::start_lock;
use super::statement::{one, run};
use crate::document::gap::Gap;
use crate::document::identity::Identity;
use crate::document::lsn;
use crate::sys::memory;

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
    pub gap: Option<Vec<u8>>,
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
            text.and_then(|text| lsn::read(&text)).unwrap_or_default()
        };
        let sequence: Option<i32> = one("SELECT sequence FROM bemi.recorder");
        let recorded =
            Identity { commit_position: position("commit_position"), sequence: sequence.unwrap_or_default() as u32 };
        Progress { slot: wanted.slot, source, recorded, read: position("read_position"), gap: gap() }
    })
}

/// Returns the document of the gap that `bemi.recorder` describes, whose values `bemi.slot_problem()` has checked.
fn gap() -> Option<Vec<u8>> {
    // Texts in UTF-8, whatever the encoding of this database is.
    let statement = "
        SELECT (gap_transaction & 4294967295)::bigint,
            ((extract(epoch FROM gap_at) - extract(epoch FROM timestamptz '2000-01-01 UTC')) * 1000000)::bigint,
            CASE WHEN gap_source < source THEN gap_source END, gap_from::text, gap_to::text,
            convert_to(current_database()::text, 'UTF8'), convert_to(gap_reason, 'UTF8'),
            convert_to(gap_accepted_by::text, 'UTF8')
        FROM bemi.recorder WHERE gap_reason IS NOT NULL";
    let document = Spi::connect(|client| -> Result<_, pgrx::spi::Error> {
        let found = client.select(statement, Some(1), &[])?;
        if found.is_empty() {
            return Ok(None);
        }
        let row = found.first();
        let text = |column| row.get::<Vec<u8>>(column).map(|text| text.map(|text| lossy(&text)));
        let position = |column| row.get::<String>(column).map(|text| text.and_then(|text| lsn::read(&text)));
        let gap = Gap {
            transaction_id: row.get::<i64>(1)?.unwrap_or_default() as u32,
            at: row.get::<i64>(2)?.unwrap_or_default(),
            from_source: row.get::<i32>(3)?,
            from: position(4)?,
            to: position(5)?.unwrap_or_default(),
            database: text(6)?.unwrap_or_default(),
            reason: text(7)?.unwrap_or_default(),
            accepted_by: text(8)?,
        };
        Ok(Some(gap.document()))
    });
    let document = document.unwrap_or_else(|error| error!("{error}"))?;
    Some(document.unwrap_or_else(|_| memory::out_of_memory()))
}

fn lossy(text: &[u8]) -> Cow<'static, str> {
    Cow::Owned(String::from_utf8_lossy(text).into_owned())
}

/// Writes into `bemi.recorder` that everything before a position is recorded.
pub fn keep(position: u64) -> Result<(), Failure> {
    transaction(|| {
        run(REQUIRE_SAFE);
        run("SELECT bemi.require_own_trail()");
        let statement = "UPDATE bemi.recorder SET read_position = GREATEST(read_position, $1::pg_lsn)";
        Spi::run_with_args(statement, &[lsn::text(position).into()]).unwrap_or_else(|error| error!("{error}"));
    })
}
