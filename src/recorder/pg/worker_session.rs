//! The settings of the worker's session. `ALTER DATABASE … SET` gives each database its own; the worker reads them
//! again when the configuration is reloaded.
use super::statement::run;
use crate::pinned::{self, Need};
use crate::sys::guc;

/// Sets what the worker needs for its session, whatever the settings of its database are. In a transaction.
pub fn pin() {
    guc::pin(pinned::of(Need::Recorder));
}

/// Lets the worker's transactions take as long as they need. Before the first one.
pub fn pin_timeouts() {
    guc::pin(guc::NO_TIMEOUTS.iter().copied());
}

/// From here on, the worker reports that it waits for a lock when that takes long, and tries again.
pub fn limit_locks() {
    guc::pin([(c"lock_timeout", c"10s")]);
}

/// Gives settings the values that they have now for a new session in this database: those of ALTER DATABASE, else those
/// of the configuration files. In a transaction.
pub fn read_again() {
    run("
        SELECT set_config(s.name, COALESCE(
            (SELECT substr(c, strpos(c, '=') + 1)
             FROM pg_db_role_setting r LEFT JOIN pg_database d ON d.oid = r.setdatabase, unnest(r.setconfig) c
             WHERE (d.datname = current_database() OR r.setdatabase = 0) AND r.setrole = 0
                AND lower(split_part(c, '=', 1)) = lower(s.name)
             ORDER BY r.setdatabase DESC LIMIT 1),
            (SELECT f.setting FROM pg_file_settings f
             WHERE lower(f.name) = lower(s.name) AND f.applied ORDER BY f.seqno DESC LIMIT 1),
            s.boot_val), false)
        FROM pg_settings s
        WHERE s.name IN ('bemi.flush_interval', 'bemi.tracked_only', 'bemi.retention', 'temp_file_limit',
            'logical_decoding_work_mem')");
}
