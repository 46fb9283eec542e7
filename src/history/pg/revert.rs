//! Undoes a selection of changes: what [`schedule`] decides, SQL does. The functions that are called run with the rights of
//! the caller, and see what the statements before them did.
use std::collections::{HashMap, TryReserveError};
use std::rc::Rc;

use pgrx::pg_sys;
use pgrx::pg_sys::errcodes::PgSqlErrorCode;
use pgrx::prelude::*;

use super::guard;
use super::reverted::{Line, Results, Row};
use super::spi::{self, Connection, Parameter, Statement, Value};
use crate::history::revert::rows::{self, Name, Rows};
use crate::history::revert::schedule::{self, Attempt, Database, Undo};
use crate::sys::call::Call;
use crate::sys::{arguments, function, memory};

/// How often rows that triggers changed again are looked at. Before the last time, they are set again.
const ROUNDS: usize = 3;
/// The number of rows that are described when triggers have the last word.
const DESCRIBED: usize = 20;
/// Rows are looked at together up to about this number of bytes.
const TOGETHER: usize = 1 << 20;

const SELECTION: &str = "SELECT u, u.number, u.relation::oid, u.primary_key, u.operation, u.detail, u.problem, u.row_after, \
     u.row_before, u.transaction_id, u.commit_position, u.sequence FROM bemi.undos($1, $2, $3, $4, $5, $6, $7) u";
const TABLE: &str = "SELECT t, (t -> 'has_triggers')::boolean, t -> 'offers' <> '[]', t -> 'needs' <> '[]' \
     FROM bemi.undo_table($1::regclass) t";
const ATTEMPT: &str = "SELECT a.outcome, a.detail, a.statement, a.left_columns, a.also, \
     CASE WHEN $7 AND a.outcome NOT IN ('later', 'conflict') THEN bemi.wanted_row($1, a.left_columns) END \
     FROM bemi.attempt($1, $2, $3, $4, $5, $6) a";

/// `bemi.run_undos(bigint, jsonb, regclass, text, timestamptz, timestamptz, boolean, jsonb)`: undoes the changes of a selection, and
/// returns what it did.
///
/// # Safety
/// Called by the server, as a function that returns a set of `bemi.reverted`.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_run_undos(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the server's call; its arguments are there until it returns.
    unsafe {
        let results = Results::new(fcinfo);
        let call = Call::new(&fcinfo);
        let mut given = [0, 1, 2, 3, 4, 5, 6].map(|index| call.value(index));
        let is_skipping = given[6].is_some_and(|datum| datum.value() as u8 != 0);
        given[6] = Some(pg_sys::Datum::from(is_skipping));
        let caller = call.value(7);
        let connection = Connection::open();
        let mut run = Run::new(&connection, results, given, is_skipping, caller);
        let found = schedule::run(&mut run).unwrap_or_else(|_| memory::out_of_memory());
        run.end(&found);
        drop(run);
        connection.close();
    }
    pg_sys::Datum::from(0)
}

function::sql_callable!(pg_finfo_bemi_run_undos);

/// A change, as SQL has it.
struct Change {
    /// Of the type `bemi.undo`.
    undo: Value,
    row: Row,
    detail: Option<Vec<u8>>,
}

/// What SQL says of an undo.
struct Left {
    status: Vec<u8>,
    detail: Option<Vec<u8>>,
    statement: Option<Vec<u8>>,
    /// The columns that triggers left otherwise than they were.
    columns: Option<Value>,
    wanted: Option<Value>,
}

/// What a row is to be like in the end.
struct Wanted {
    number: i64,
    row: Value,
}

struct Table {
    value: Value,
    has_triggers: bool,
    has_offers: bool,
    has_needs: bool,
}

struct Statements {
    table: Statement,
    tables: Statement,
    check: Statement,
    offers: Statement,
    needs: Statement,
    attempt: Statement,
    wanted: Statement,
    describe: Statement,
    settle: Statement,
}

struct Run<'a> {
    connection: &'a Connection,
    statements: Statements,
    selection: pg_sys::Portal,
    results: Results,
    caller: Parameter,
    is_skipping: bool,
    undo_type: pg_sys::Oid,
    tables: HashMap<pg_sys::Oid, Rc<Table>>,
    /// The same, by their OIDs as text.
    all_tables: Value,
    /// The table and the operation that the caller was last found to have the rights for.
    checked: Option<(pg_sys::Oid, Option<Vec<u8>>)>,
    /// Whether triggers of any tracked table could change rows again.
    is_watched: bool,
    /// Columns that triggers left otherwise than the log has them.
    ours: Rows<Value>,
    /// What rows are to be like in the end, if anything could change them again.
    wanted: Rows<Wanted>,
    /// The undos that ON UPDATE CASCADE may do.
    cascade: Parameter,
    is_deferred: bool,
    /// What was done with deferred constraints, and may be taken back.
    pending: Vec<Line>,
}

impl<'a> Run<'a> {
    /// Begins to read the selection.
    ///
    /// # Safety
    /// The parameters are of the types of the function's arguments, and live as long as the run.
    unsafe fn new(
        connection: &'a Connection,
        results: Results,
        selected: [Parameter; 7],
        is_skipping: bool,
        caller: Parameter,
    ) -> Self {
        use pg_sys::{
            BOOLOID as BOOL, INT8OID as INT8, JSONBARRAYOID, JSONBOID as JSONB, REGCLASSOID as REGCLASS,
            TEXTOID as TEXT, TIMESTAMPTZOID as TIMESTAMPTZ,
        };
        let prepare = |text: &str, types: &[pg_sys::Oid]| connection.prepare(text, types);
        let undo_type = connection.one("SELECT 'bemi.undo'::regtype::oid", |row| row.oid(1));
        let undo_type = undo_type.flatten().unwrap_or(pg_sys::InvalidOid);
        // SAFETY: looks a type up in the catalogs.
        let undos = unsafe { pg_sys::get_array_type(undo_type) };
        let is_watched = connection.one("SELECT bemi.is_watched()", |row| row.is_true(1)).unwrap_or(true);
        let all_tables = connection.one("SELECT '{}'::jsonb", |row| row.value(1)).flatten();
        let selection = prepare(SELECTION, &[INT8, JSONB, REGCLASS, TEXT, TIMESTAMPTZ, TIMESTAMPTZ, BOOL]);
        let statements = Statements {
            table: prepare(TABLE, &[REGCLASS]),
            tables: prepare("SELECT $1 || jsonb_build_object($2::oid::text, $3)", &[JSONB, REGCLASS, JSONB]),
            check: prepare("SELECT bemi.check_undoing($1, $2)", &[JSONB, TEXT]),
            offers: prepare("SELECT n FROM unnest(bemi.given_up($1, $2)) n", &[JSONB, undo_type]),
            needs: prepare("SELECT n FROM unnest(bemi.linked($1 -> 'needs', ($2).before)) n", &[JSONB, undo_type]),
            attempt: prepare(ATTEMPT, &[undo_type, JSONB, JSONB, JSONB, undos, BOOL, BOOL]),
            wanted: prepare("SELECT bemi.wanted_row($1, NULL::jsonb)", &[undo_type]),
            describe: prepare("SELECT format('%s %s (%s): %s', $1, $2, $3, $4)", &[REGCLASS, TEXT, TEXT, TEXT]),
            settle: prepare(
                "SELECT p FROM unnest(bemi.settle($1, $2, $3, $4)) p",
                &[JSONBARRAYOID, JSONB, JSONB, BOOL],
            ),
        };
        Self {
            connection,
            statements,
            // SAFETY: the parameters are the function's arguments, of the types that the statement was prepared with.
            selection: unsafe { selection.open(&selected) },
            results,
            caller,
            is_skipping,
            undo_type,
            tables: HashMap::new(),
            all_tables: all_tables.unwrap_or_default(),
            checked: None,
            is_watched,
            ours: Rows::default(),
            wanted: Rows::default(),
            cascade: None,
            is_deferred: false,
            pending: Vec::new(),
        }
    }

    /// Runs a statement, and returns what `read` makes of its only row.
    fn one<R>(&self, statement: &Statement, with: &[Parameter], read: impl FnMut(&spi::Row) -> R) -> Option<R> {
        // SAFETY: each statement of a run is given values of the types that it was prepared with, which outlive the call.
        unsafe { statement.all(self.connection, with, read) }.pop()
    }

    /// Returns the names that a statement gives.
    fn names(&self, statement: &Statement, with: &[Parameter]) -> Vec<Name> {
        // SAFETY: as above.
        unsafe { statement.all(self.connection, with, |row| row.text(1).unwrap_or_default()) }
    }

    fn table(&mut self, relation: Option<pg_sys::Oid>) -> Option<Rc<Table>> {
        // A table that is gone has no rows that others could refer to.
        let relation = relation?;
        if let Some(table) = self.tables.get(&relation) {
            return Some(Rc::clone(table));
        }
        let found = self.one(&self.statements.table, &[Some(relation.into())], |row| Table {
            value: row.value(1).unwrap_or_default(),
            has_triggers: row.is_true(2),
            has_offers: row.is_true(3),
            has_needs: row.is_true(4),
        });
        let table = Rc::new(found?);
        let with = [self.all_tables.parameter(), Some(relation.into()), table.value.parameter()];
        if let Some(all) = self.one(&self.statements.tables, &with, |row| row.value(1)).flatten() {
            self.all_tables = all;
        }
        sound(self.tables.try_reserve(1));
        self.tables.insert(relation, Rc::clone(&table));
        Some(table)
    }

    /// Raises an error if the caller may not undo such a change.
    fn check(&mut self, row: &Row) {
        let Some(relation) = row.relation else { return };
        if self.checked.as_ref().is_some_and(|checked| checked.0 == relation && checked.1 == row.operation) {
            return;
        }
        let Some(table) = self.table(row.relation) else { return };
        let operation = row.operation.as_deref().map(arguments::text);
        self.one(&self.statements.check, &[table.value.parameter(), operation], |_| ());
        self.checked = Some((relation, row.operation.clone()));
    }

    fn try_once(&self, undo: &Undo<Change>, table: &Table, is_cascading: bool) -> Attempt<Left> {
        let row = undo.row_after.as_ref().or(undo.row_before.as_ref());
        let with = [
            undo.change.undo.parameter(),
            table.value.parameter(),
            row.and_then(|row| self.ours.get(row)).and_then(Value::parameter),
            self.caller,
            self.cascade.filter(|_| is_cascading),
            Some(self.is_deferred.into()),
            Some(self.is_watched.into()),
        ];
        let attempt = self.one(&self.statements.attempt, &with, |row| {
            let (status, detail) = (row.text(1).unwrap_or_default(), row.text(2));
            match &status[..] {
                b"later" => Attempt::Later(detail.unwrap_or_default()),
                b"conflict" => Attempt::Conflict(detail.unwrap_or_default()),
                _ => Attempt::Done {
                    also: row.numbers(5),
                    left: Left { status, detail, statement: row.text(3), columns: row.value(4), wanted: row.value(6) },
                },
            }
        });
        attempt.unwrap_or_else(|| error!("bemi.attempt() returned nothing"))
    }

    /// Sets rows once more that triggers changed after they were undone. Returns which ones are not as they should be then.
    fn settle(&self, rows: &[&Wanted]) -> Option<Vec<Vec<u8>>> {
        let mut problems = Vec::new();
        for round in 1..=ROUNDS {
            problems.clear();
            let mut left = rows;
            while !left.is_empty() {
                let mut size = 0;
                let fits = |wanted: &&&Wanted| {
                    size += wanted.row.size();
                    size <= TOGETHER
                };
                let count = left.iter().take_while(fits).count().max(1);
                let (now, later) = left.split_at(count);
                left = later;
                let array = spi::array(pg_sys::JSONBOID, now.iter().map(|wanted| &wanted.row));
                let is_last = Some((round == ROUNDS).into());
                let with = [Some(array), self.all_tables.parameter(), self.caller, is_last];
                let found = self.names(&self.statements.settle, &with);
                problems.extend(found.into_iter().take(DESCRIBED.saturating_sub(problems.len())));
            }
            if problems.is_empty() {
                return None;
            }
        }
        Some(problems)
    }

    /// Whether a row is as it was undone, or can be set so. If it cannot, all is as before.
    fn is_settled(&self, row: &Wanted) -> bool {
        let is_refused = |code: PgSqlErrorCode| code == PgSqlErrorCode::ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION;
        let settle = || self.settle(&[row]).is_none().then_some(());
        guard::behind_savepoint(is_refused, settle).is_some()
    }

    /// What follows from the whole: an error, a notice, or a last look at rows that triggers could have changed again.
    fn end(&self, found: &schedule::Found) {
        let conflicts = &found.conflicts;
        if conflicts.count > 0 && !self.is_skipping {
            let refuse = self
                .connection
                .prepare("SELECT bemi.refuse_conflicts($1, $2)", &[pg_sys::INT8OID, pg_sys::TEXTARRAYOID]);
            let with = [Some((conflicts.count as i64).into()), Some(text_array(&conflicts.lines))];
            self.one(&refuse, &with, |_| ());
        } else if !found.is_any {
            notice!("no change was selected");
        } else if self.is_watched {
            let mut rows = Vec::new();
            for wanted in self.wanted.values() {
                sound(rows.try_reserve(1));
                rows.push(wanted);
            }
            rows.sort_unstable_by_key(|wanted| wanted.number);
            if let Some(problems) = self.settle(&rows) {
                let refuse = self.connection.prepare("SELECT bemi.refuse_unsettled($1)", &[pg_sys::TEXTARRAYOID]);
                self.one(&refuse, &[Some(text_array(&problems))], |_| ());
            }
        }
    }

    fn report(&mut self, line: Line) {
        if self.is_deferred {
            sound(self.pending.try_reserve(1));
            self.pending.push(line);
        } else {
            self.results.put(&line);
        }
    }

    /// Notes what an undo left in its row.
    fn note(&mut self, undo: &Undo<Change>, columns: Option<Value>, wanted: Option<Value>) {
        let table = self.table(undo.change.row.relation);
        if table.is_some_and(|table| table.has_triggers) {
            if let Some(row) = &undo.row_after {
                sound(self.ours.remove(row));
            }
            if let (Some(row), Some(columns)) = (&undo.row_before, columns) {
                sound(rows::copy(row).and_then(|row| self.ours.set(row, columns)));
            }
        }
        if let Some(row) = wanted {
            if let Some(row) = &undo.row_after {
                sound(self.wanted.remove(row));
            }
            if let Some(name) = undo.row_before.as_ref().or(undo.row_after.as_ref()) {
                let wanted = Wanted { number: undo.number, row };
                sound(rows::copy(name).and_then(|name| self.wanted.set(name, wanted)));
            }
        }
    }
}

impl Database for Run<'_> {
    type Change = Change;
    type Left = Left;

    fn next(&mut self) -> Option<Undo<Change>> {
        let read = |row: &spi::Row| {
            let change = Change {
                undo: row.value(1).unwrap_or_default(),
                row: Row {
                    relation: row.oid(3),
                    primary_key: row.text(4),
                    operation: row.text(5),
                    transaction_id: row.get(10),
                    commit_position: row.get(11),
                    sequence: row.get(12),
                },
                detail: row.text(6),
            };
            let number = row.get(2).map_or(0, |number| number.value() as i64);
            Undo { number, problem: row.text(7), row_after: row.text(8), row_before: row.text(9), change }
        };
        // SAFETY: the cursor was opened by this run, at the level of the transaction that this is still called in.
        let undo = unsafe { spi::fetch(self.connection, self.selection, read) }?;
        self.check(&undo.change.row);
        Some(undo)
    }

    fn offers(&mut self, undo: &Undo<Change>) -> Vec<Name> {
        match self.table(undo.change.row.relation) {
            Some(table) if table.has_offers => {
                self.names(&self.statements.offers, &[table.value.parameter(), undo.change.undo.parameter()])
            }
            _ => Vec::new(),
        }
    }

    fn needs(&mut self, undo: &Undo<Change>) -> Vec<Name> {
        match self.table(undo.change.row.relation) {
            Some(table) if table.has_needs => {
                self.names(&self.statements.needs, &[table.value.parameter(), undo.change.undo.parameter()])
            }
            _ => Vec::new(),
        }
    }

    fn attempt(&mut self, undo: &Undo<Change>, is_cascading: bool) -> Attempt<Left> {
        let Some(table) = self.table(undo.change.row.relation) else {
            error!("a change without a table has no problem");
        };
        let attempt = self.try_once(undo, &table, is_cascading);
        if matches!(attempt, Attempt::Conflict(_))
            && let Some(wanted) = undo.row_after.as_ref().and_then(|row| self.wanted.get(row))
            && self.is_settled(wanted)
        {
            return self.try_once(undo, &table, is_cascading);
        }
        attempt
    }

    fn done(&mut self, undo: &Undo<Change>, left: Left) {
        let Left { status, detail, statement, columns, wanted } = left;
        self.note(undo, columns, wanted);
        self.report(Line { row: undo.change.row.clone(), status, detail, statement });
    }

    fn cascaded(&mut self, undo: &Undo<Change>) {
        let with = [undo.change.undo.parameter()];
        let wanted = self.is_watched.then(|| self.one(&self.statements.wanted, &with, |row| row.value(1)));
        self.note(undo, None, wanted.flatten().flatten());
        let mut detail = undo.change.detail.clone().unwrap_or_default();
        detail.extend_from_slice(if detail.is_empty() { b"" } else { b". " });
        detail.extend_from_slice(b"done by ON UPDATE CASCADE");
        let row = undo.change.row.clone();
        self.report(Line { row, status: b"reverted".to_vec(), detail: Some(detail), statement: None });
    }

    fn skipped(&mut self, undo: &Undo<Change>, reason: &[u8]) {
        if self.is_skipping {
            let (row, detail) = (undo.change.row.clone(), Some(reason.to_vec()));
            self.report(Line { row, status: b"skipped".to_vec(), detail, statement: None });
        }
    }

    fn describe(&mut self, undo: &Undo<Change>, reason: &[u8]) -> Vec<u8> {
        let Row { relation, primary_key, operation, .. } = &undo.change.row;
        let text = |text: &Option<Vec<u8>>| text.as_deref().map(arguments::text);
        let relation = relation.map(pg_sys::Datum::from);
        let with = [relation, text(primary_key), text(operation), Some(arguments::text(reason))];
        self.one(&self.statements.describe, &with, |row| row.text(1)).flatten().unwrap_or_default()
    }

    fn begin_cascade(&mut self, waiting: &mut dyn Iterator<Item = &Undo<Change>>) {
        let updates = waiting.filter(|undo| undo.change.row.operation.as_deref() == Some(b"UPDATE"));
        let array = spi::array(self.undo_type, updates.map(|undo| &undo.change.undo));
        // Functions that are called with it need not copy it.
        self.cascade = Some(self.connection.expanded(array));
    }

    fn has_deferrable(&mut self) -> bool {
        let ask = "SELECT EXISTS (SELECT FROM pg_constraint WHERE condeferrable)";
        self.connection.one(ask, |row| row.is_true(1)).unwrap_or(false)
    }

    fn deferred(
        &mut self,
        passes: &mut dyn FnMut(&mut Self) -> Result<(), TryReserveError>,
    ) -> Result<bool, TryReserveError> {
        self.is_deferred = true;
        self.wanted.begin();
        let work = || {
            self.connection.run("SET CONSTRAINTS ALL DEFERRED");
            sound(passes(self));
            self.connection.run("SET CONSTRAINTS ALL IMMEDIATE");
            self.connection.run("SELECT bemi.declare_constraints()");
            Some(())
        };
        let is_kept = guard::behind_savepoint(guard::is_of_a_constraint, work).is_some();
        self.is_deferred = false;
        self.cascade = None;
        let pending = core::mem::take(&mut self.pending);
        if is_kept {
            self.wanted.commit()?;
            pending.iter().for_each(|line| self.results.put(line));
        } else {
            self.wanted.roll_back();
        }
        Ok(is_kept)
    }
}

/// What was reserved, or the error that there is no memory.
fn sound<T>(reserved: Result<T, TryReserveError>) -> T {
    reserved.unwrap_or_else(|_| memory::out_of_memory())
}

fn text_array(lines: &[Vec<u8>]) -> pg_sys::Datum {
    let lines: Vec<&[u8]> = lines.iter().map(|line| &line[..]).collect();
    arguments::text_array(&lines)
}
