//! Writes what waits into `bemi.changes`, together with how far it is recorded, in one transaction.
use core::cell::RefCell;
use core::ffi::{c_int, c_void};
use std::collections::TryReserveError;
use std::time::{Duration, Instant};

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::failure::{Failure, transaction};
use super::reader::{file_failed, out_of_memory};
use super::statement::{one, run};
use crate::document::change::{Committed, SAME_CONTEXT};
use crate::document::fields::OUT_OF_MEMORY;
use crate::document::identity::Identity;
use crate::document::json::Charset;
use crate::document::lsn;
use crate::recorder::portion::Portion;
use crate::recorder::row::{self, Encoding, Stamp};
use crate::recorder::spool::{KEPT, Lines, Spool};
use crate::sys::{copy, encoding};

/// What one transaction has written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Written {
    /// The last change.
    pub last: Identity,
    /// When that was committed, in microseconds since 2000-01-01 UTC.
    pub committed_at: i64,
    pub transactions: i64,
    pub changes: i64,
    /// Whether nothing waits behind it.
    pub is_all: bool,
}

/// Where the rows come from that COPY asks for.
struct Rows {
    lines: Lines<'static>,
    /// What is recorded already.
    recorded: Identity,
    portion: Portion,
    /// The number of the source in `bemi.sources`.
    source: i32,
    now: i64,
    encoding: Encoding,
    line: Vec<u8>,
    context: LastContext,
    /// Rows, of which the first `taken` bytes are with COPY already.
    buffer: Vec<u8>,
    taken: usize,
    is_over: bool,
    written: Written,
}

/// The context of the last document that had one of its own, and the transaction of that.
#[derive(Default)]
struct LastContext {
    text: String,
    commit_position: u64,
}

impl LastContext {
    /// Returns the context of a document; None if it is that of a document that was not seen.
    fn of(&mut self, document: &Committed) -> Result<Option<&str>, TryReserveError> {
        let context = document.change.context;
        if context != SAME_CONTEXT {
            self.text.clear();
            self.text.shrink_to(KEPT);
            self.text.try_reserve(context.len())?;
            self.text.push_str(context);
            self.commit_position = document.identity.commit_position;
        }
        Ok((self.commit_position == document.identity.commit_position).then_some(&self.text))
    }
}

thread_local! {
    static ROWS: RefCell<Option<Rows>> = const { RefCell::new(None) };
    /// When the whole check last succeeded, if nothing was refused since, and what bemi.require_owner() gave then.
    static CHECKED: RefCell<Option<(Instant, String)>> = const { RefCell::new(None) };
}

const WHOLE_CHECK: Duration = Duration::from_secs(1);

/// More changes than any transaction has: it is recorded whole.
const LAST: u32 = i32::MAX as u32;
/// Rows are made until they have this many bytes.
const BUFFER: usize = 1 << 18;

impl Rows {
    fn fill(&mut self) {
        self.buffer.clear();
        self.buffer.shrink_to(KEPT);
        self.taken = 0;
        while self.buffer.len() < BUFFER && !self.is_over {
            let is_full = self.written.changes as u64 >= self.portion.limit;
            let has_line = !is_full && self.lines.next(&mut self.line).unwrap_or_else(|error| file_failed(&error));
            if !has_line {
                self.buffer.extend_from_slice(row::TRAILER);
                self.is_over = true;
                self.written.is_all = !is_full;
                return;
            }
            let document = Committed::read(&self.line).unwrap_or_else(|reason| refuse(&self.line, &reason));
            // Also of what is recorded already: the documents behind it may have the same.
            let context = self.context.of(&document).unwrap_or_else(|_| out_of_memory());
            let context = context.unwrap_or_else(|| refuse(&self.line, "the context that it refers to is missing"));
            let identity = document.identity;
            if identity <= self.recorded {
                continue;
            }
            let stamp = Stamp { source: self.source, queued_at: self.now, created_at: self.now };
            row::write(&mut self.buffer, &document, context, stamp, self.portion.reduction, self.encoding)
                .unwrap_or_else(|_| out_of_memory());
            self.written.transactions += i64::from(identity.commit_position != self.written.last.commit_position);
            self.written.changes += 1;
            self.written.last = identity;
            self.written.committed_at = document.committed_at;
            if self.line.capacity() > KEPT {
                // While COPY reads the row, the document is not needed.
                self.line = Vec::new();
            }
        }
    }
}

fn refuse(line: &[u8], reason: &str) -> ! {
    if reason == OUT_OF_MEMORY {
        out_of_memory();
    }
    let message = format!("a document cannot be read: {reason}");
    let start = String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned();
    ErrorReport::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, message, "fill")
        .set_detail(start)
        .report(PgLogLevel::ERROR);
    unreachable!("a report at level ERROR does not return")
}

#[pg_guard]
unsafe extern "C-unwind" fn next_rows(out: *mut c_void, _at_least: c_int, at_most: c_int) -> c_int {
    ROWS.with_borrow_mut(|rows| {
        let Some(rows) = rows else { return 0 };
        if rows.taken == rows.buffer.len() && !rows.is_over {
            rows.fill();
        }
        let rest = &rows.buffer[rows.taken..];
        let count = rest.len().min(at_most as usize);
        // SAFETY: COPY passes a buffer with room for `at_most` bytes, and `count` is no more.
        unsafe { core::ptr::copy_nonoverlapping(rest.as_ptr(), out.cast(), count) };
        rows.taken += count;
        count as c_int
    })
}

/// Records a portion of what waits in the spool and is not recorded yet. If that is all of it, everything before the
/// position `read` is recorded. On failure nothing is: returns the reason, and how many documents were tried, at most.
pub fn record(
    spool: &mut Spool,
    source: i32,
    recorded: Identity,
    portion: Portion,
    read: u64,
) -> Result<Written, (Failure, u64)> {
    let spilled = spool.spilled() as i64;
    let result = transaction(|| {
        let lines = spool.lines().unwrap_or_else(|error| file_failed(&error));
        // SAFETY: the lines go into ROWS, which this function empties before it returns, on errors too, and the spool
        // is borrowed until then.
        let lines: Lines<'static> = unsafe { core::mem::transmute(lines) };
        // SAFETY: reads the clock; takes nothing.
        let now = unsafe { pg_sys::GetCurrentTimestamp() };
        let written = Written { last: recorded, ..Written::default() };
        let encoding = match encoding::charset() {
            Charset::Utf8 => Encoding::Utf8,
            Charset::Ascii if encoding::is_known() => Encoding::Other,
            Charset::Ascii => Encoding::Unknown,
        };
        let (line, buffer, context) = (Vec::new(), row::HEADER.to_vec(), LastContext::default());
        ROWS.set(Some(Rows {
            lines,
            recorded,
            portion,
            source,
            now,
            encoding,
            line,
            context,
            buffer,
            taken: 0,
            is_over: false,
            written,
        }));
        require_safe();
        run("SELECT bemi.require_own_trail()");
        copy::from(c"bemi", c"changes", row::COLUMNS, Some(next_rows));
        let mut written = ROWS.with_borrow(|rows| rows.as_ref().map_or(written, |rows| rows.written));
        // The spool has whole transactions. Decoded with other options, the last one may have other numbers. (0 is a
        // gap, which is no transaction.)
        if written.is_all && written.last.sequence > 0 {
            written.last.sequence = LAST;
        }
        if written.changes > 0 || written.is_all {
            advance(&written, if written.is_all { spilled } else { 0 }, read);
        }
        written
    });
    let tried = ROWS.take().map_or(0, |rows| rows.written.changes as u64);
    result.map_err(|failure| (failure, tried))
}

/// Raises an error if what belongs to the tables is not a superuser's. The whole check takes some milliseconds: it is
/// left out as long as nobody can have owned a table in between.
fn require_safe() {
    // Taken until it has succeeded: after a refusal, the next check is a whole one.
    let checked = CHECKED.take();
    let owners = one::<String>("SELECT bemi.require_owner()").unwrap_or_default();
    let checked = checked.filter(|(at, before)| at.elapsed() < WHOLE_CHECK && *before == owners);
    if checked.is_none() {
        run("SELECT bemi.require_safe()");
    }
    CHECKED.set(checked.or_else(|| Some((Instant::now(), owners))));
}

/// Writes into `bemi.recorder` how far WAL is recorded now.
fn advance(written: &Written, spilled: i64, read: u64) {
    let statement = "
        UPDATE bemi.recorder SET commit_position = $1::pg_lsn, sequence = $2, transactions = transactions + $3,
            changes = changes + $4, spilled_bytes = spilled_bytes + $5, failures = 0,
            committed_at = COALESCE($6, committed_at),
            read_position = CASE WHEN $8 THEN GREATEST(read_position, $7::pg_lsn) ELSE read_position END,
            gap_reason = CASE WHEN $8 THEN NULL ELSE gap_reason END,
            gap_from = CASE WHEN $8 THEN NULL ELSE gap_from END,
            gap_source = CASE WHEN $8 THEN NULL ELSE gap_source END,
            gap_to = CASE WHEN $8 THEN NULL ELSE gap_to END, gap_at = CASE WHEN $8 THEN NULL ELSE gap_at END,
            gap_transaction = CASE WHEN $8 THEN NULL ELSE gap_transaction END,
            gap_accepted_by = CASE WHEN $8 THEN NULL ELSE gap_accepted_by END
        RETURNING true";
    // SAFETY: a timestamptz is a 64-bit number of microseconds, passed by value. (The type of pgrx does not hold all of
    // them.)
    let committed_at = unsafe { DatumWithOid::new(written.committed_at, pg_sys::TIMESTAMPTZOID) };
    let arguments = [
        lsn::text(written.last.commit_position).into(),
        (written.last.sequence as i32).into(),
        written.transactions.into(),
        written.changes.into(),
        spilled.into(),
        if written.changes > 0 { committed_at } else { DatumWithOid::null_oid(pg_sys::TIMESTAMPTZOID) },
        lsn::text(read).into(),
        written.is_all.into(),
    ];
    match Spi::get_one_with_args::<bool>(statement, &arguments) {
        Ok(Some(true)) => {}
        // Rows without a position would be recorded again.
        Ok(_) | Err(pgrx::spi::Error::InvalidPosition) => error!("the table bemi.recorder has lost its row"),
        Err(error) => error!("{error}"),
    }
}
