//! What the worker is told by `bemi.recorder` and the settings, and what it tells there.
use core::ffi::CStr;
use std::borrow::Cow;
use std::ffi::CString;

use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::transaction::{Failure, transaction};
use super::{lock, settings};
use crate::document::gap::Gap;
use crate::document::identity::Identity;
use crate::document::lsn;
use crate::recorder::state::State;
use crate::sys::{encoding, memory, process};

/// How far the log is recorded, and by which slot.
#[derive(Debug)]
pub struct Progress {
    pub slot: String,
    /// The number of the source in `bemi.sources`.
    pub source: i32,
    pub recorded: Identity,
    /// Everything before it is recorded, and nothing behind it is confirmed.
    pub read: u64,
    /// The document of a gap before the slot, which is to be recorded.
    pub gap: Option<Vec<u8>>,
}

/// What comes before all that is written there: else a trigger of others would run with the rights of this worker.
const REQUIRE_SAFE: &str =
    "SELECT bemi.require_readable(), bemi.require_safe_tables(ARRAY['bemi.recorder'::regclass::oid])";

/// Waits until the transaction that started this worker has ended; gives the slot to read, None if it was rolled back, or if
/// nobody wants the worker any more. Slots that nobody wants are dropped, since the server keeps the log for them.
pub fn begin() -> Result<Option<Wanted>, Failure> {
    transaction(|| {
        // As bemi.start() and bemi.stop() do until their transactions end. Before anything gives this transaction an id: a
        // slot that is being made waits for all that have one.
        if !lock::take() {
            return None;
        }
        let is_there = one::<bool>("SELECT to_regclass('bemi.recorder') IS NOT NULL") == Some(true);
        if is_there {
            // Before it is read or written.
            run("SELECT bemi.require_safe()");
            run(REQUIRE_SAFE);
        }
        if !is_there && one::<bool>("SELECT to_regclass('bemi.changes') IS NOT NULL") == Some(true) {
            log!("the recorder of bemi ends, since there is no table bemi.recorder; its slots are kept");
            return None;
        }
        let kept = if is_there { "(SELECT slot FROM bemi.recorder)" } else { "NULL" };
        run(&format!(
            "SELECT pg_drop_replication_slot(slot_name) FROM bemi.recorder_slots() WHERE NOT active AND slot_name IS DISTINCT FROM {kept}"
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
    /// How often it failed since it last succeeded.
    pub failures: u32,
}

/// Reads how far the log is recorded, while this process holds the slot, so that nobody else moves it. An error if the slot
/// or the progress is not as it was left.
pub fn progress(wanted: Wanted) -> Result<Progress, Failure> {
    transaction(|| {
        run(REQUIRE_SAFE);
        if let Some(problem) = one::<String>("SELECT bemi.slot_problem()") {
            let code = PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
            ErrorReport::new(code, problem, "progress").report(PgLogLevel::ERROR);
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

/// Returns the document of the gap that `bemi.recorder` tells of, whose values `bemi.slot_problem()` has checked.
fn gap() -> Option<Vec<u8>> {
    // Texts in UTF-8, whatever the encoding of this database is.
    let statement = "
        SELECT (gap_transaction & 4294967295)::bigint, ((extract(epoch FROM gap_at) - extract(epoch FROM timestamptz '2000-01-01 UTC')) * 1000000)::bigint,
            CASE WHEN gap_source < source THEN gap_source END, gap_from::text, gap_to::text,
            convert_to(current_database()::text, 'UTF8'), convert_to(gap_reason, 'UTF8'), convert_to(gap_accepted_by::text, 'UTF8')
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

/// Says that everything before a position is recorded.
pub fn keep(position: u64) -> Result<(), Failure> {
    transaction(|| {
        run(REQUIRE_SAFE);
        run("SELECT bemi.require_own_trail()");
        let statement = "UPDATE bemi.recorder SET read_position = GREATEST(read_position, $1::pg_lsn)";
        Spi::run_with_args(statement, &[lsn::text(position).into()]).unwrap_or_else(|error| error!("{error}"));
    })
}

/// The name of this database, as SQL writes it.
pub fn database() -> Result<String, Failure> {
    transaction(|| one("SELECT quote_ident(current_database())").unwrap_or_default())
}

/// Whether somebody added to `bemi.changes` what may refuse a row for reasons of its own: triggers on INSERT (bit 4 of their
/// type), checks, indexes. If it cannot be found out, it counts as if there were.
pub fn table_has_additions() -> bool {
    let found = transaction(|| {
        let statement = "
            WITH tables AS (SELECT relid FROM pg_partition_tree('bemi.changes'))
            SELECT EXISTS (SELECT FROM pg_trigger JOIN tables ON relid = tgrelid WHERE NOT tgisinternal AND tgtype & 4 <> 0)
                OR EXISTS (SELECT FROM pg_constraint JOIN tables ON relid = conrelid WHERE contype = 'c')
                OR EXISTS (SELECT FROM pg_index i JOIN tables ON relid = indrelid JOIN pg_class c ON c.oid = indexrelid
                    LEFT JOIN pg_inherits h ON h.inhrelid = indexrelid LEFT JOIN pg_class p ON p.oid = h.inhparent
                    WHERE COALESCE(p.relname, c.relname) NOT IN ('changes_pkey', 'changes_of_row', 'changes_of_old_key', 'changes_by_time',
                        'changes_by_position', 'changes_by_context'))";
        one::<bool>(statement)
    });
    !matches!(found, Ok(Some(false)))
}

/// Whether another recorder reads the slot.
pub fn slot_is_recorded(slot: &str) -> Result<bool, Failure> {
    transaction(|| {
        let statement =
            "SELECT EXISTS (SELECT FROM bemi.recorder_slots() s JOIN pg_stat_activity a ON a.pid = s.active_pid
            WHERE s.slot_name = $1::name AND a.backend_type = 'bemi recorder' AND a.pid <> pg_backend_pid())";
        let found = Spi::get_one_with_args(statement, &[slot.into()]);
        found.unwrap_or_else(|error| error!("{error}")).unwrap_or_default()
    })
}

/// Whether the slot or the progress is not as the recorder left it, so that it cannot go on. False if that cannot be read
/// without running code of others.
pub fn slot_is_lost() -> bool {
    let found = transaction(|| {
        run(REQUIRE_SAFE);
        one::<bool>("SELECT bemi.slot_problem() IS NOT NULL")
    });
    matches!(found, Ok(Some(true)))
}

/// Says in `bemi.recorder` what the worker does, as far as that can be written. A failure counts as one more.
pub fn report(state: State, failure: Option<&Failure>) {
    let error = failure.map(|failure| encoding::message_text(&failure.message));
    let fix = failure.and_then(|failure| failure.hint.as_deref()).map(encoding::message_text);
    let written = transaction(|| {
        run(REQUIRE_SAFE);
        let statement = "
            UPDATE bemi.recorder SET state = $1, state_since = now(), last_error = COALESCE($2, last_error),
                last_fix = CASE WHEN $2 IS NULL THEN last_fix ELSE $3 END,
                last_error_at = CASE WHEN $2 IS NULL THEN last_error_at ELSE now() END,
                failures = CASE WHEN $2 IS NOT NULL THEN failures + 1 WHEN $1 = 'recording' THEN 0 ELSE failures END";
        Spi::run_with_args(statement, &[state.name().into(), error.clone().into(), fix.clone().into()])
            .unwrap_or_else(|error| error!("{error}"));
    });
    if let Err(failure) = written {
        log!("the recorder of bemi could not say that it is {}: {}", state.name(), failure.message);
    }
    show(state, error.as_deref(), None);
}

/// Says in pg_stat_activity what the worker does; when it is idle, up to which position it has recorded everything, which
/// bemi.sync() reads there.
pub fn show(state: State, error: Option<&str>, recorded: Option<u64>) {
    let mut activity = format!("bemi recorder: {}", state.name());
    if let Some(error) = error {
        activity += &format!(": {error}");
    }
    if let Some(position) = recorded {
        activity += &format!(" up to {}", lsn::text(position));
    }
    process::show(&activity, recorded.is_none());
}

/// Makes and drops partitions of `bemi.changes`. False if the extension was dropped.
pub fn keep_house() -> Result<bool, Failure> {
    transaction(|| {
        if one::<bool>("SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'bemi')") != Some(true) {
            return false;
        }
        run(REQUIRE_SAFE);
        let retention = settings::retention();
        Spi::run_with_args("SELECT bemi.keep_partitions($1::interval)", &[retention.into()])
            .unwrap_or_else(|error| error!("{error}"));
        true
    })
}

/// Options of the decoder: the recorder's own rows are left out, and untracked tables if the setting says so.
pub fn decoder_options() -> Vec<(&'static CStr, CString)> {
    let own = CString::new(pg_sys::DoNotReplicateId.to_string()).unwrap_or_default();
    let mut options = vec![(c"filter-origins", own), (c"batch-bytes", c"65536".to_owned())];
    if settings::tracked_only() {
        options.push((c"tracked-only", c"true".to_owned()));
    } else {
        // What bemi.start() writes there.
        options.push((c"filter-tables", c"bemi.*".to_owned()));
    }
    options.extend(compact_options());
    options
}

/// Has documents name their relation, and their context only where it is not that of the document before.
fn compact_options() -> [(&'static CStr, CString); 2] {
    [(c"include-relation", c"true".to_owned()), (c"repeat-context", c"false".to_owned())]
}

/// Runs a statement; raises its error.
pub fn run(statement: &str) {
    Spi::run(statement).unwrap_or_else(|error| error!("{error}"));
}

/// What a statement gives in its first column; None without a row. Raises its error.
pub fn one<T: FromDatum + IntoDatum>(statement: &str) -> Option<T> {
    match Spi::get_one::<T>(statement) {
        Ok(found) => found,
        // No row.
        Err(pgrx::spi::Error::InvalidPosition) => None,
        Err(error) => error!("{error}"),
    }
}
