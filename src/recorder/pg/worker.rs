//! The background worker: reads the log of its database as it grows, and records what it decodes.
use std::ffi::CString;
use std::time::{Duration, Instant};

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::control::{self, Progress};
use super::reader::{Reader, file_failed};
use super::transaction::{Failure, guarded, transaction};
use super::{settings, slots, store};
use crate::recorder::portion::{Portion, Reduction};
use crate::recorder::spool::Spool;
use crate::recorder::state::{State, delay};
use crate::sys::{self, process};

/// Documents are kept in memory up to so many bytes, the rest in a temporary file.
const MEMORY: usize = 8 << 20;
/// What waits is recorded when it is longer than this, in bytes.
const BATCH: u64 = 64 << 20;
/// What waits is recorded after so long, so that not much has to be decoded again after a crash.
const BATCH_TIME: Duration = Duration::from_secs(1);
/// How often partitions are looked after.
const HOUSEKEEPING: Duration = Duration::from_secs(60);

/// The worker's main function. Its argument is the OID of its database.
///
/// # Safety
/// Called by the server, in a process of its own.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_recorder_main(argument: pg_sys::Datum) {
    process::handle_signals();
    let database = argument.value() as u32;
    // It may have been dropped, with its slot, while the server waited to start this worker again.
    if !slots::databases().contains(&database) {
        process::exit(0);
    }
    // SAFETY: once, at the start of the process.
    unsafe {
        // Also where nobody may connect any more: what was committed before is recorded.
        let flags = pg_sys::BGWORKER_BYPASS_ALLOWCONN;
        pg_sys::BackgroundWorkerInitializeConnectionByOid(database.into(), pg_sys::InvalidOid, flags);
    }
    settings::pin_timeouts();
    match transaction(settings::pin).and_then(|()| guarded(run)).and_then(|result| result) {
        Ok(()) => process::exit(0),
        Err(failure) => match control::slot_is_lost() {
            Ok(true) => {
                log!("the recorder of bemi ends, since its slot is lost: {}", failure.message);
                control::report(State::SlotLost, Some(&failure.message));
                process::exit(0);
            }
            _ => {
                log!("the recorder of bemi failed, and is started again: {}", failure.message);
                control::report(State::Waiting, Some(&failure.message));
                process::exit(1);
            }
        },
    }
}

/// Until it is not wanted any more.
fn run() -> Result<(), Failure> {
    let Some(progress) = control::begin()? else { return Ok(()) };
    settings::limit_locks();
    control::show(State::Starting, None, true);
    // What failed is decoded again from where the slot stands, so not at once.
    process::sleep(delay(progress.failures));
    let slot = CString::new(progress.slot.clone()).unwrap_or_default();
    // In a transaction: outside of one the server would take this process for a walsender, whose snapshots keep no row from
    // being vacuumed.
    let reader = match transaction(|| Reader::open(&slot, &control::decoder_options())) {
        Err(_) if control::slot_is_recorded(&progress.slot)? => return Ok(()),
        opened => opened?,
    };
    control::report(State::CatchingUp, None);
    let mut recorder = Recorder {
        reader,
        spool: Spool::new(MEMORY, sys::temporary_file),
        progress,
        state: State::CatchingUp,
        portion: Portion::default(),
        is_busy: true,
        caches_are_of_now: true,
        housekeeping: None,
    };
    recorder.spool.file_limit = settings::temporary_file_limit();
    if let Some(gap) = recorder.progress.gap.take() {
        recorder.spool.push(gap.as_bytes()).unwrap_or_else(|error| file_failed(&error));
        recorder.flush()?;
    }
    while recorder.work()? {
        process::wait(settings::flush_interval());
    }
    control::report(State::Stopped, None);
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
    /// Whether the catalogs were read as they are now, and not as they were at a change.
    caches_are_of_now: bool,
    /// When partitions were last looked after.
    housekeeping: Option<Instant>,
}

impl Recorder {
    /// Records what there is. False if nobody wants it any more.
    fn work(&mut self) -> Result<bool, Failure> {
        loop {
            process::check_interrupts();
            if process::reload_configuration() {
                self.read_settings()?;
            }
            if self.housekeeping.is_none_or(|last| last.elapsed() >= HOUSEKEEPING) && !self.keep_house() {
                return Ok(false);
            }
            let end = sys::decoding::flushed();
            if self.reader.position() >= end {
                break;
            }
            self.be_busy(true);
            self.read_catalogs_as_of(false);
            let start = Instant::now();
            let mut is_there_more = true;
            while is_there_more && self.spool.len() < BATCH && start.elapsed() < BATCH_TIME {
                is_there_more = self.reader.step(&mut self.spool) && self.reader.position() < end;
                process::check_interrupts();
            }
            self.flush()?;
            self.reader.confirm(self.reader.position());
            if !is_there_more {
                break;
            }
        }
        if self.state != State::Recording {
            self.enter(State::Recording, None);
        }
        self.be_busy(false);
        Ok(true)
    }

    /// Records what waits, again and again until it succeeds.
    fn flush(&mut self) -> Result<(), Failure> {
        let mut failures = 0;
        while !self.spool.is_empty() {
            self.read_catalogs_as_of(true);
            match store::record(&mut self.spool, self.progress.recorded, self.portion) {
                Ok(written) => {
                    // SAFETY: between transactions; other processes learn what this one counted.
                    unsafe { pg_sys::pgstat_report_stat(true) };
                    self.progress.recorded = written.last;
                    self.portion = self.portion.accepted();
                    failures = 0;
                    if written.is_all {
                        self.spool.clear();
                        self.portion = Portion::default();
                    }
                    if self.state == State::Waiting {
                        self.enter(State::CatchingUp, None);
                    }
                }
                Err((failure, tried)) => {
                    let smaller = if failure.is_of_data() { self.portion.refused(tried) } else { None };
                    // Nothing is left out for what others have added to the table.
                    let is_ours =
                        |smaller: &Portion| smaller.reduction == Reduction::None || !control::table_has_additions();
                    if let Some(smaller) = smaller.filter(is_ours) {
                        log!(
                            "the recorder of bemi tries {smaller:?}, since of {tried} changes one was refused: {}",
                            failure.message
                        );
                        self.portion = smaller;
                        process::check_interrupts();
                        continue;
                    }
                    self.portion = Portion::default();
                    failures += 1;
                    self.enter(State::Waiting, Some(&failure.message));
                    let delay = delay(failures);
                    log!("the recorder of bemi could not write, and tries again in {delay:?}: {}", failure.message);
                    process::sleep(delay);
                    // What is mended by a setting, or by a new partition.
                    if process::reload_configuration() {
                        self.read_settings()?;
                    }
                    self.keep_house();
                }
            }
        }
        Ok(())
    }

    /// Looks after partitions. False if the extension is gone.
    fn keep_house(&mut self) -> bool {
        self.housekeeping = Some(Instant::now());
        self.read_catalogs_as_of(true);
        match control::keep_house(self.reader.position()) {
            Ok(true) => true,
            Ok(false) => {
                let slot = &self.progress.slot;
                log!(
                    "the recorder ends, since the extension bemi was dropped; the log is kept until the slot {slot} is dropped too"
                );
                false
            }
            // It is tried again in a minute. Partitions are made a month ahead.
            Err(failure) => {
                log!("the recorder of bemi could not look after the partitions of bemi.changes: {}", failure.message);
                true
            }
        }
    }

    fn read_settings(&mut self) -> Result<(), Failure> {
        self.read_catalogs_as_of(true);
        let tracked_only = settings::tracked_only();
        transaction(settings::read_again)?;
        self.spool.file_limit = settings::temporary_file_limit();
        self.housekeeping = None;
        if settings::tracked_only() != tracked_only {
            log!("the recorder of bemi is started again, since bemi.tracked_only has changed");
            process::exit(1);
        }
        Ok(())
    }

    /// The server keeps what was read of the catalogs, as they are now or as they were at a change that was decoded.
    fn read_catalogs_as_of(&mut self, is_now: bool) {
        if self.caches_are_of_now != is_now {
            // SAFETY: forgets what was read of the catalogs, between transactions.
            unsafe { pg_sys::InvalidateSystemCaches() };
            self.caches_are_of_now = is_now;
        }
    }

    fn be_busy(&mut self, is_busy: bool) {
        // While it is idle, the time of this is when it last had recorded all.
        if !is_busy || !self.is_busy {
            control::show(self.state, None, is_busy);
        }
        self.is_busy = is_busy;
    }

    fn enter(&mut self, state: State, error: Option<&str>) {
        self.read_catalogs_as_of(true);
        self.state = state;
        control::report(state, error);
    }
}
