//! The background worker: reads the log of its database as it grows, and records what it decodes.
use std::ffi::CString;
use std::panic::AssertUnwindSafe;
use std::time::Instant;

use pgrx::pg_sys::panic::CaughtError;
use pgrx::prelude::*;
use pgrx::{PgTryBuilder, pg_sys};

use super::control::{self, Progress};
use super::reader::Reader;
use super::store;
use crate::recorder::spool::Spool;
use crate::recorder::state::{Backoff, State};
use crate::sys::{self, process};

/// Documents are kept in memory up to so many bytes, the rest in a temporary file.
const MEMORY: usize = 8 << 20;
/// What waits is recorded when it is longer than this, in bytes.
const BATCH: u64 = 64 << 20;

/// The worker's main function. Its argument is the OID of its database.
///
/// # Safety
/// Called by the server, in a process of its own.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_recorder_main(argument: pg_sys::Datum) {
    process::handle_signals();
    // SAFETY: once, at the start of the process.
    unsafe {
        pg_sys::BackgroundWorkerInitializeConnectionByOid((argument.value() as u32).into(), pg_sys::InvalidOid, 0)
    };
    let result = PgTryBuilder::new(AssertUnwindSafe(|| {
        run();
        Ok(())
    }))
    .catch_others(|error| {
        let message = match &error {
            CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => report.message().to_owned(),
            CaughtError::RustPanic { ereport, .. } => format!("internal error: {}", ereport.message()),
        };
        // SAFETY: what the server itself does after an error.
        unsafe { pg_sys::AbortCurrentTransaction() };
        Err(message)
    })
    .execute();
    // SAFETY: ends the process. With 0 it is not started again, with 1 it is, after a while.
    unsafe {
        match result {
            Ok(()) => pg_sys::proc_exit(0),
            Err(message) => {
                log!("the recorder of bemi failed: {message}");
                control::report(State::Waiting, Some(&message));
                pg_sys::proc_exit(1);
            }
        };
    }
}

/// Until it is not wanted any more.
fn run() {
    let Some(progress) = control::begin() else { return };
    control::report(State::Starting, None);
    let slot = CString::new(progress.slot.clone()).unwrap_or_default();
    let mut recorder = Recorder {
        // In a transaction: outside of one the server would take this process for a walsender, whose snapshots keep no
        // row from being vacuumed.
        reader: store::transaction(|| Reader::open(&slot, &control::decoder_options()))
            .unwrap_or_else(|e| error!("{e}")),
        spool: Spool::new(MEMORY, sys::temporary_file),
        progress,
        state: State::Starting,
        backoff: Backoff::default(),
        caches_are_of_now: false,
    };
    control::report(State::CatchingUp, None);
    loop {
        recorder.work();
        if process::wait(control::flush_interval()) && !recorder.is_wanted() {
            return control::report(State::Stopped, None);
        }
    }
}

struct Recorder {
    reader: Reader,
    spool: Spool,
    progress: Progress,
    state: State,
    backoff: Backoff,
    /// Whether the catalogs were read as they are now, and not as they were at a change.
    caches_are_of_now: bool,
}

impl Recorder {
    /// Whether it is wanted still.
    fn is_wanted(&mut self) -> bool {
        self.caches_are_of_now = true;
        control::is_wanted()
    }

    /// Records what there is.
    fn work(&mut self) {
        process::check_interrupts();
        process::reload_configuration();
        let end = sys::decoding::flushed();
        while self.reader.position() < end && self.spool.len() < BATCH {
            if self.caches_are_of_now {
                // SAFETY: forgets what was read of the catalogs.
                unsafe { pg_sys::InvalidateSystemCaches() };
                self.caches_are_of_now = false;
            }
            self.reader.step(&mut self.spool);
            process::check_interrupts();
        }
        self.flush();
        self.reader.confirm(self.reader.position());
        if self.state != State::Recording && self.reader.position() >= end {
            self.enter(State::Recording, None);
        }
    }

    /// Records what waits, again and again until it succeeds.
    fn flush(&mut self) {
        while !self.spool.is_empty() {
            if !self.caches_are_of_now {
                // SAFETY: as above.
                unsafe { pg_sys::InvalidateSystemCaches() };
                self.caches_are_of_now = true;
            }
            let spilled = self.spool.spilled() as i64;
            match store::record(&mut self.spool, self.progress.recorded, spilled) {
                Ok(written) => {
                    // SAFETY: between transactions; other processes learn what this one counted.
                    unsafe { pg_sys::pgstat_report_stat(true) };
                    self.progress.recorded = written.last;
                    self.spool.clear();
                    self.backoff = Backoff::default();
                    if self.state == State::Waiting {
                        self.enter(State::CatchingUp, None);
                    }
                }
                Err(message) => {
                    self.enter(State::Waiting, Some(&message));
                    let delay = self.backoff.next_delay();
                    log!("the recorder of bemi could not write, and tries again in {delay:?}: {message}");
                    let start = Instant::now();
                    while start.elapsed() < delay {
                        process::wait(delay.saturating_sub(start.elapsed()));
                        process::check_interrupts();
                    }
                }
            }
        }
    }

    fn enter(&mut self, state: State, error: Option<&str>) {
        self.state = state;
        control::report(state, error);
        self.caches_are_of_now = true;
    }
}
