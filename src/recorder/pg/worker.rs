//! The background worker: reads the WAL of its database as it grows, and records what it decodes.
use std::ffi::CString;
use std::time::{Duration, Instant};

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::failure::{Failure, guarded, transaction};
use super::progress::{self, Progress};
use super::reader::{Reader, file_failed};
use super::statement::one;
use super::{gucs, partitions, report, slots, store, update, worker_session};
use crate::recorder::portion::{Portion, Reduction};
use crate::recorder::spool::{Excess, Spool};
use crate::recorder::state::{CONFIRM, State, delay};
use crate::sys::{process, slot, temporary_file, wal};

/// Documents are kept in memory up to this many bytes, the rest in a temporary file.
const MEMORY: usize = 8 << 20;
/// What waits is recorded when it is longer than this, in bytes.
const BATCH: u64 = 64 << 20;
/// What waits is recorded after this time, so that not much has to be decoded again after a crash.
const BATCH_TIME: Duration = Duration::from_secs(1);
/// How often partitions are created and dropped.
const HOUSEKEEPING: Duration = Duration::from_secs(60);

/// The worker's main function. Its argument is the OID of its database.
///
/// # Safety
/// The server calls this once, in a new background worker.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_recorder_main(argument: pg_sys::Datum) {
    process::handle_signals();
    let database = argument.value() as u32;
    // It may have been dropped, with its slot, while the server waited to start this worker again.
    if !slots::databases().contains(&database) {
        process::exit(0);
    }
    // SAFETY: a background worker connects once, at its start; this is that place.
    unsafe {
        // Also where nobody may connect: what was committed before is recorded.
        let flags = pg_sys::BGWORKER_BYPASS_ALLOWCONN;
        pg_sys::BackgroundWorkerInitializeConnectionByOid(database.into(), pg_sys::InvalidOid, flags);
    }
    worker_session::pin_timeouts();
    match transaction(worker_session::pin).and_then(|()| guarded(run)).and_then(|result| result) {
        Ok(()) => process::exit(0),
        Err(failure) => match slots::is_lost() {
            true => {
                log!("the recorder of bemi stops because its slot is lost: {}", failure.message);
                report::report(State::SlotLost, Some(&failure));
                process::exit(0);
            }
            false => {
                log!("the recorder of bemi failed and restarts: {}", failure.message);
                report::report(State::Waiting, Some(&failure));
                process::exit(1);
            }
        },
    }
}

/// Records until it is no longer wanted.
fn run() -> Result<(), Failure> {
    update::wait_for()?;
    let Some(wanted) = progress::begin()? else { return Ok(()) };
    worker_session::limit_locks();
    report::show(State::Starting, None, None);
    let (name, failures) = (wanted.slot.clone(), wanted.failures);
    let slot = CString::new(name.clone()).unwrap_or_default();
    // From here on nobody else reads the slot, also while this waits.
    match transaction(|| slot::acquire(&slot)) {
        Err(_) if slots::is_recorded(&name)? => return Ok(()),
        acquired => acquired?,
    }
    let mut progress = progress::read(wanted)?;
    // What failed is decoded again from where the slot stands, so not at once.
    process::sleep(delay(failures));
    if process::reload_configuration() {
        transaction(worker_session::read_again)?;
    }
    // In a transaction: outside of one the server would take this process for a walsender, whose snapshots keep no row
    // from being vacuumed.
    let reader = transaction(Reader::open)?;
    let gap = progress.gap.take();
    report::report(State::CatchingUp, None);
    let mut recorder = Recorder {
        reader,
        spool: Spool::new(MEMORY, temporary_file::create),
        progress,
        state: State::CatchingUp,
        portion: Portion::default(),
        is_busy: true,
        caches_are_of_now: true,
        housekeeping: None,
        is_asked: false,
        is_due: false,
        own_end: 0,
    };
    recorder.spool.file_limit = gucs::temporary_file_limit();
    if let Some(gap) = gap {
        recorder.spool.push(0, &gap).unwrap_or_else(|error| file_failed(&error));
        let read = recorder.progress.read;
        recorder.flush(read)?;
    }
    while recorder.work()? {
        recorder.is_asked = process::wait(gucs::flush_interval());
    }
    report::report(State::Stopped, None);
    Ok(())
}

struct Recorder {
    reader: Reader,
    spool: Spool,
    progress: Progress,
    state: State,
    portion: Portion,
    /// Whether there was something to do when it last looked.
    is_busy: bool,
    /// Whether the caches hold the catalogs as they are now, and not as they were at a change.
    caches_are_of_now: bool,
    /// When partitions were last created and dropped.
    housekeeping: Option<Instant>,
    /// Whether somebody waits until all is confirmed.
    is_asked: bool,
    /// Whether it is time to confirm what there is.
    is_due: bool,
    /// Where the WAL of the last write of this process ends, about.
    own_end: u64,
}

impl Recorder {
    /// Records what there is. Returns false if it is no longer wanted.
    fn work(&mut self) -> Result<bool, Failure> {
        loop {
            process::check_interrupts();
            if process::reload_configuration() {
                self.read_settings()?;
            }
            if self.housekeeping.is_none_or(|last| last.elapsed() >= HOUSEKEEPING) && !self.keep_house() {
                return Ok(false);
            }
            let end = wal::flushed();
            if self.reader.position() >= end {
                break;
            }
            self.be_busy(true);
            self.read_catalogs_as_of(false);
            let is_there_more = self.read(end)?;
            if !is_there_more {
                break;
            }
        }
        self.confirm_idle()?;
        if self.state != State::Recording {
            self.enter(State::Recording, None);
        }
        self.be_busy(false);
        Ok(true)
    }

    /// Decodes a batch of WAL up to `end`, and records what came out. Returns false if there was no more.
    fn read(&mut self, end: u64) -> Result<bool, Failure> {
        let start = Instant::now();
        // Small transactions shall not need a file together.
        let batch = BATCH.min(self.spool.file_limit.max(MEMORY as u64));
        let mut is_there_more = true;
        let mut read = self.reader.position();
        while is_there_more && self.spool.len() < batch && start.elapsed() < BATCH_TIME {
            is_there_more = self.reader.step(&mut self.spool) && self.reader.position() < end;
            if self.spool.excess().is_some() {
                break;
            }
            read = self.reader.position();
            process::check_interrupts();
        }
        let excess = self.spool.excess();
        if !self.spool.is_empty() {
            self.flush(read)?;
        } else if excess.is_some() || read.saturating_sub(self.progress.read) >= CONFIRM {
            self.keep(read)?;
        }
        self.reader.confirm(read.min(self.progress.read));
        match excess {
            Some(excess) => self.fail_for(excess),
            None => Ok(is_there_more),
        }
    }

    /// Confirms WAL without changes to record, if somebody waits for that, or if it is time; but not what it has
    /// written itself, which would have no end. Whoever waits sees how far it is, if that is shown.
    fn confirm_idle(&mut self) -> Result<(), Failure> {
        let read = self.reader.position();
        let is_wanted = self.is_asked || self.is_due;
        if read > self.progress.read && (is_wanted && read > self.own_end || self.is_asked && !process::is_shown()) {
            self.keep(read)?;
            self.reader.confirm(read.min(self.progress.read));
        }
        (self.is_asked, self.is_due) = (false, false);
        Ok(())
    }

    fn keep(&mut self, read: u64) -> Result<(), Failure> {
        if read > self.progress.read {
            self.read_catalogs_as_of(true);
            progress::keep(read)?;
            self.progress.read = read;
            self.own_end = wal::flushed();
        }
        Ok(())
    }

    /// Fails for a transaction that does not fit into temp_file_limit. What came before it is recorded.
    fn fail_for(&self, excess: Excess) -> Result<bool, Failure> {
        if excess.bytes <= self.spool.file_limit {
            log!("the recorder of bemi restarts to have all room for transaction {}", excess.transaction);
            process::exit(1);
        }
        let (message, limit) = excess.advice();
        let database: Option<String> = transaction(|| one("SELECT quote_ident(current_database())"))?;
        let hint = format!(
            "ALTER DATABASE {} SET temp_file_limit = '{limit}';\nSELECT pg_reload_conf();",
            database.unwrap_or_default()
        );
        Err(Failure { code: PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED, message, hint: Some(hint) })
    }

    /// Records what waits, again and again until it succeeds: then everything before `read` is recorded.
    fn flush(&mut self, read: u64) -> Result<(), Failure> {
        let mut failures = 0;
        while !self.spool.is_empty() {
            self.read_catalogs_as_of(true);
            match store::record(&mut self.spool, self.progress.source, self.progress.recorded, self.portion, read) {
                Ok(written) => {
                    // SAFETY: no transaction is active here, so this process's statistics may be reported.
                    unsafe { pg_sys::pgstat_report_stat(true) };
                    self.progress.recorded = written.last;
                    self.portion = self.portion.accepted();
                    failures = 0;
                    if written.is_all {
                        self.spool.clear();
                        self.portion = Portion::default();
                        self.progress.read = self.progress.read.max(read);
                        self.own_end = wal::flushed();
                    }
                    if self.state == State::Waiting {
                        self.enter(State::CatchingUp, None);
                    }
                }
                Err((failure, tried)) => {
                    let smaller = if failure.is_of_data() { self.portion.refused(tried) } else { None };
                    // Nothing is left out for what others have added to the table.
                    let is_ours =
                        |smaller: &Portion| smaller.reduction == Reduction::None || !partitions::table_has_additions();
                    if let Some(smaller) = smaller.filter(is_ours) {
                        log!(
                            "the recorder of bemi tries {smaller:?} because one of {tried} changes was refused: {}",
                            failure.message
                        );
                        self.portion = smaller;
                        process::check_interrupts();
                        continue;
                    }
                    // What it wrote before is gone, as after pg_restore --clean: nobody knows what is missing.
                    if failure.code == PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE && slots::is_lost() {
                        return Err(failure);
                    }
                    self.portion = Portion::default();
                    failures += 1;
                    self.enter(State::Waiting, Some(&failure));
                    let delay = delay(failures);
                    log!("the recorder of bemi could not write and tries again in {delay:?}: {}", failure.message);
                    process::sleep(delay);
                    // A setting or a new partition may fix it.
                    if process::reload_configuration() {
                        self.read_settings()?;
                    }
                    self.keep_house();
                }
            }
        }
        Ok(())
    }

    /// Creates and drops partitions. Returns false if the extension was dropped.
    fn keep_house(&mut self) -> bool {
        self.housekeeping = Some(Instant::now());
        self.is_due = true;
        self.read_catalogs_as_of(true);
        match partitions::keep_house() {
            Ok(true) => true,
            Ok(false) => {
                let slot = &self.progress.slot;
                log!(
                    "the recorder of bemi stops because the extension was dropped; \
                     the server keeps WAL until the slot {slot} is dropped too"
                );
                false
            }
            // It is tried again in a minute. Partitions are made a month ahead.
            Err(failure) => {
                log!("the recorder of bemi could not create or drop partitions of bemi.changes: {}", failure.message);
                true
            }
        }
    }

    fn read_settings(&mut self) -> Result<(), Failure> {
        self.read_catalogs_as_of(true);
        let tracked_only = gucs::tracked_only();
        transaction(worker_session::read_again)?;
        self.spool.file_limit = gucs::temporary_file_limit();
        self.housekeeping = None;
        if gucs::tracked_only() != tracked_only {
            log!("the recorder of bemi restarts because bemi.tracked_only has changed");
            process::exit(1);
        }
        Ok(())
    }

    /// The server keeps what was read of the catalogs, as they are now or as they were at a change that was decoded.
    fn read_catalogs_as_of(&mut self, is_now: bool) {
        if self.caches_are_of_now != is_now {
            // SAFETY: no transaction is active here, so nothing points into the caches.
            unsafe { pg_sys::InvalidateSystemCaches() };
            self.caches_are_of_now = is_now;
        }
    }

    fn be_busy(&mut self, is_busy: bool) {
        // While it is idle, the time of this is when it last had recorded all.
        if !is_busy || !self.is_busy {
            report::show(self.state, None, (!is_busy).then(|| self.reader.position()));
        }
        self.is_busy = is_busy;
    }

    fn enter(&mut self, state: State, failure: Option<&Failure>) {
        self.read_catalogs_as_of(true);
        self.state = state;
        report::report(state, failure);
    }
}
