//! The partitions of `bemi.changes`, and what others have added to that table.
use pgrx::prelude::*;

use super::failure::{Failure, transaction};
use super::gucs;
use super::progress::REQUIRE_SAFE;
use super::statement::{one, run};

/// Creates and drops partitions of `bemi.changes`. Returns false if the extension was dropped.
pub fn keep_house() -> Result<bool, Failure> {
    transaction(|| {
        if one::<bool>("SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'bemi')") != Some(true) {
            return false;
        }
        run(REQUIRE_SAFE);
        let retention = gucs::retention();
        Spi::run_with_args("SELECT bemi.keep_partitions($1::interval)", &[retention.into()])
            .unwrap_or_else(|error| error!("{error}"));
        true
    })
}

/// Returns whether somebody has added to `bemi.changes` what may refuse a row for reasons of its own: triggers on
/// INSERT (bit 4 of their type), checks, indexes. If that cannot be found out, the answer is yes.
pub fn table_has_additions() -> bool {
    let found = transaction(|| {
        let statement = "
            WITH tables AS (SELECT relid FROM pg_partition_tree('bemi.changes'))
            SELECT EXISTS (SELECT FROM pg_trigger JOIN tables ON relid = tgrelid
                    WHERE NOT tgisinternal AND tgtype & 4 <> 0)
                OR EXISTS (SELECT FROM pg_constraint JOIN tables ON relid = conrelid WHERE contype = 'c')
                OR EXISTS (SELECT FROM pg_index i JOIN tables ON relid = indrelid JOIN pg_class c ON c.oid = indexrelid
                    LEFT JOIN pg_inherits h ON h.inhrelid = indexrelid LEFT JOIN pg_class p ON p.oid = h.inhparent
                    WHERE COALESCE(p.relname, c.relname) NOT IN ('changes_pkey', 'changes_of_row', 'changes_of_old_key',
                        'changes_by_time', 'changes_by_position', 'changes_by_context'))";
        one::<bool>(statement)
    });
    !matches!(found, Ok(Some(false)))
}
