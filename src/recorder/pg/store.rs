//! Writes what waits into `bemi.changes`, together with how far it is recorded, in one transaction.
use core::cell::RefCell;
use core::ffi::{c_int, c_void};
use std::panic::AssertUnwindSafe;

use pgrx::pg_sys::panic::{CaughtError, ErrorReport};
use pgrx::prelude::*;
use pgrx::{PgTryBuilder, pg_sys};

use super::reader::file_failed;
use crate::recorder::document::{Document, Identity};
use crate::recorder::row;
use crate::recorder::spool::{Lines, Spool};
use crate::sys::decoding;

/// What was written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Written {
    pub last: Identity,
    pub transactions: i64,
    pub changes: i64,
}

/// Where the rows come from that COPY asks for.
struct Source {
    lines: Lines<'static>,
    /// What is recorded already.
    recorded: Identity,
    now: i64,
    line: Vec<u8>,
    /// Rows, of which the first `taken` bytes are with COPY already.
    buffer: Vec<u8>,
    taken: usize,
    is_over: bool,
    written: Written,
}

thread_local! {
    static SOURCE: RefCell<Option<Source>> = const { RefCell::new(None) };
}

/// Rows are made until there are so many bytes of them.
const BUFFER: usize = 1 << 18;

impl Source {
    fn fill(&mut self) {
        self.buffer.clear();
        self.taken = 0;
        while self.buffer.len() < BUFFER && !self.is_over {
            if !self.lines.next(&mut self.line).unwrap_or_else(|error| file_failed(&error)) {
                self.buffer.extend_from_slice(row::TRAILER);
                self.is_over = true;
                return;
            }
            let document = Document::parse(&self.line).unwrap_or_else(|reason| {
                let start = String::from_utf8_lossy(&self.line[..self.line.len().min(200)]).into_owned();
                ErrorReport::new(
                    PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                    format!("a document cannot be read: {reason}"),
                    "fill",
                )
                .set_detail(start)
                .report(PgLogLevel::ERROR);
                unreachable!("a report at level ERROR does not return")
            });
            let identity = document.identity();
            if identity <= self.recorded {
                continue;
            }
            row::write(&mut self.buffer, &document, self.now, self.now);
            self.written.transactions += i64::from(identity.commit_position != self.written.last.commit_position);
            self.written.changes += 1;
            self.written.last = identity;
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn next_rows(out: *mut c_void, _at_least: c_int, at_most: c_int) -> c_int {
    SOURCE.with_borrow_mut(|source| {
        let Some(source) = source else { return 0 };
        if source.taken == source.buffer.len() && !source.is_over {
            source.fill();
        }
        let rest = &source.buffer[source.taken..];
        let count = rest.len().min(at_most as usize);
        // SAFETY: the server's call: there is room for as many bytes as it says.
        unsafe { core::ptr::copy_nonoverlapping(rest.as_ptr(), out.cast(), count) };
        source.taken += count;
        count as c_int
    })
}

/// Records what waits in the spool and is not recorded yet. On failure nothing is, and the reason is given.
pub fn record(spool: &mut Spool, recorded: Identity, spilled: i64) -> Result<Written, String> {
    let result = transaction(|| {
        // SAFETY: the spool outlives the source, which is taken back before this function returns.
        let lines = spool.lines().unwrap_or_else(|error| file_failed(&error));
        let lines: Lines<'static> = unsafe { core::mem::transmute(lines) };
        // SAFETY: reads the clock.
        let now = unsafe { pg_sys::GetCurrentTimestamp() };
        let written = Written { last: recorded, ..Written::default() };
        let (line, buffer) = (Vec::new(), row::HEADER.to_vec());
        SOURCE.set(Some(Source { lines, recorded, now, line, buffer, taken: 0, is_over: false, written }));
        decoding::copy_from(c"bemi", c"changes", row::COLUMNS, Some(next_rows));
        let written = SOURCE.take().map_or(written, |source| source.written);
        if written.changes > 0 {
            let statement = "UPDATE bemi.recorder SET commit_position = '0/0'::pg_lsn + $1::numeric, sequence = $2,
                             transactions = transactions + $3, changes = changes + $4, spilled_bytes = spilled_bytes + $5, recorded_at = now()";
            let arguments = [
                (written.last.commit_position as i64).into(),
                (written.last.sequence as i32).into(),
                written.transactions.into(),
                written.changes.into(),
                spilled.into(),
            ];
            Spi::run_with_args(statement, &arguments).unwrap_or_else(|error| error!("{error}"));
        }
        written
    });
    SOURCE.set(None);
    result
}

/// Runs `work` in a transaction, whose changes are not decoded again. Gives the message of the error that ended it.
pub fn transaction<R>(work: impl FnOnce() -> R) -> Result<R, String> {
    // SAFETY: no transaction is there; an error ends this one.
    PgTryBuilder::new(AssertUnwindSafe(|| unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        pg_sys::replorigin_session_origin = pg_sys::DoNotReplicateId as pg_sys::RepOriginId;
        let result = work();
        pg_sys::PopActiveSnapshot();
        pg_sys::CommitTransactionCommand();
        pg_sys::replorigin_session_origin = pg_sys::InvalidRepOriginId as pg_sys::RepOriginId;
        Ok(result)
    }))
    .catch_others(|error| {
        let message = match &error {
            CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => report.message().to_owned(),
            CaughtError::RustPanic { ereport, .. } => format!("internal error: {}", ereport.message()),
        };
        // SAFETY: what the server itself does after an error.
        unsafe {
            pg_sys::replorigin_session_origin = pg_sys::InvalidRepOriginId as pg_sys::RepOriginId;
            pg_sys::AbortCurrentTransaction();
        }
        Err(message)
    })
    .execute()
}
