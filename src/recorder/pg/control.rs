//! What the worker is told by `bemi.recorder` and the settings, and what it tells there.
use core::ffi::CStr;
use std::ffi::CString;

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::transaction::{Failure, transaction};
use super::{lock, settings};
use crate::recorder::document::Identity;
use crate::recorder::state::State;
use crate::sys::{encoding, process};

/// How far the log is recorded, and by which slot.
#[derive(Debug)]
pub struct Progress {
    pub slot: String,
    pub recorded: Identity,
    /// The documents of gaps before the slot, which are to be recorded, on a line each.
    pub gap: Option<String>,
    /// How often it failed since it last succeeded.
    pub failures: u32,
}

/// What comes before all that is written there: else a trigger of others would run with the rights of this worker.
const REQUIRE_SAFE: &str = "SELECT bemi.require_safe_tables(ARRAY['bemi.recorder'::regclass::oid])";

/// Waits until the transaction that started this worker has ended; None if it was rolled back, or if nobody wants the
/// worker any more. Slots that nobody wants are dropped, since the server keeps the log for them.
pub fn begin() -> Result<Option<Progress>, Failure> {
    transaction(|| {
        // As bemi.start() and bemi.stop() do until their transactions end. Before anything gives this transaction an id: a
        // slot that is being made waits for all that have one.
        if !lock::take() {
            return None;
        }
        let is_there = one::<bool>("SELECT to_regclass('bemi.recorder') IS NOT NULL") == Some(true);
        let kept = if is_there { "(SELECT slot FROM bemi.recorder)" } else { "NULL" };
        run(&format!(
            "SELECT pg_drop_replication_slot(slot_name) FROM bemi.recorder_slots() WHERE NOT active AND slot_name IS DISTINCT FROM {kept}"
        ));
        if !is_there {
            return None;
        }
        run("SELECT bemi.require_safe()");
        let slot: String = one("SELECT slot::text FROM bemi.recorder WHERE is_wanted")?;
        let position: Option<i64> = one("SELECT (commit_position - '0/0')::bigint FROM bemi.recorder");
        let sequence: Option<i32> = one("SELECT sequence FROM bemi.recorder");
        let failures: Option<i32> = one("SELECT failures FROM bemi.recorder");
        let recorded = Identity {
            commit_position: position.unwrap_or_default() as u64,
            sequence: sequence.unwrap_or_default() as u32,
        };
        let gap: Option<Vec<u8>> = one("SELECT convert_to(gap, 'UTF8') FROM bemi.recorder");
        let gap = gap.map(|gap| String::from_utf8_lossy(&gap).into_owned());
        Some(Progress { slot, recorded, gap, failures: failures.unwrap_or_default() as u32 })
    })
}

/// Whether somebody added to `bemi.changes` what may refuse a row for reasons of its own: triggers, checks, indexes. If it
/// cannot be found out, it counts as if there were.
pub fn table_has_additions() -> bool {
    let found = transaction(|| {
        let statement = "
            WITH tables AS (SELECT relid FROM pg_partition_tree('bemi.changes'))
            SELECT EXISTS (SELECT FROM pg_trigger JOIN tables ON relid = tgrelid WHERE NOT tgisinternal)
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

/// Whether the slot is gone, or the log that it needs is.
pub fn slot_is_lost() -> Result<bool, Failure> {
    transaction(|| {
        let statement = "SELECT NOT EXISTS (SELECT FROM bemi.recorder r JOIN bemi.recorder_slots() s ON s.slot_name = r.slot WHERE s.wal_status <> 'lost')";
        one(statement).unwrap_or_default()
    })
}

/// Says in `bemi.recorder` what the worker does, as far as that can be written. An error counts as one failure more.
pub fn report(state: State, error: Option<&str>) {
    let error = error.map(encoding::message_text);
    let written = transaction(|| {
        run(REQUIRE_SAFE);
        let statement = "
            UPDATE bemi.recorder SET state = $1, state_since = now(), last_error = COALESCE($2, last_error),
                last_error_at = CASE WHEN $2 IS NULL THEN last_error_at ELSE now() END,
                failures = CASE WHEN $2 IS NOT NULL THEN failures + 1 WHEN $1 = 'recording' THEN 0 ELSE failures END";
        Spi::run_with_args(statement, &[state.name().into(), error.clone().into()])
            .unwrap_or_else(|error| error!("{error}"));
    });
    if let Err(failure) = written {
        log!("the recorder of bemi could not say that it is {}: {}", state.name(), failure.message);
    }
    show(state, error.as_deref(), true);
}

/// Says in pg_stat_activity what the worker does.
pub fn show(state: State, error: Option<&str>, is_busy: bool) {
    match error {
        None => process::show(&format!("bemi recorder: {}", state.name()), is_busy),
        Some(error) => process::show(&format!("bemi recorder: {}: {error}", state.name()), is_busy),
    }
}

/// Makes and drops partitions of `bemi.changes`, and says how far the log was read. False if the extension was dropped.
pub fn keep_house(position: u64) -> Result<bool, Failure> {
    transaction(|| {
        if one::<bool>("SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'bemi')") != Some(true) {
            return false;
        }
        run(REQUIRE_SAFE);
        // For a lost slot to tell from where on changes are missing; to the megabyte is enough.
        let statement = "UPDATE bemi.recorder SET read_position = '0/0'::pg_lsn + $1::numeric
            WHERE read_position IS NULL OR '0/0'::pg_lsn + $1::numeric - read_position > 1048576";
        Spi::run_with_args(statement, &[(position as i64).into()]).unwrap_or_else(|error| error!("{error}"));
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
    options
}

fn run(statement: &str) {
    Spi::run(statement).unwrap_or_else(|error| error!("{error}"));
}

fn one<T: FromDatum + IntoDatum>(statement: &str) -> Option<T> {
    match Spi::get_one::<T>(statement) {
        Ok(found) => found,
        // No row.
        Err(pgrx::spi::Error::InvalidPosition) => None,
        Err(error) => error!("{error}"),
    }
}
