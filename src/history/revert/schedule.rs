//! The order in which changes are undone, and what waits for what.
//!
//! The newest change comes first. An undo that meets a constraint waits, and with it all older changes of the same row,
//! until others have made room. What waits is tried again from its oldest, since a row that others refer to comes before
//! them, and from its newest. What then still waits may be done by ON UPDATE CASCADE together with another undo, or else
//! with deferred constraints.
#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet, TryReserveError};

use super::rows::{Name, copy};

/// Why a change is left as it is: a newer change of its row is.
pub const NEWER: &[u8] = b"a newer change of the row was not undone";
/// Why an undo waits: rows that wait will refer to the row that it would give up.
pub const REFERRED: &[u8] = b"what refers to it could not be undone";
/// The number of conflicts that are described.
pub const DESCRIBED: usize = 20;

/// Undoes one change.
#[derive(Debug)]
pub struct Undo<C> {
    /// Its place in the selection: 1 is the newest.
    pub number: i64,
    /// The row after the change; None after a deletion.
    pub row_after: Option<Name>,
    /// The row before the change; None before an insertion.
    pub row_before: Option<Name>,
    /// Why it cannot be undone, whatever the row is like.
    pub problem: Option<Vec<u8>>,
    /// What only the database knows of it.
    pub change: C,
}

impl<C> Undo<C> {
    fn rows(&self) -> impl Iterator<Item = &Name> {
        let before = self.row_before.iter().filter(|before| self.row_after.as_ref() != Some(before));
        self.row_after.iter().chain(before)
    }
}

/// What became of an attempt.
#[derive(Debug)]
pub enum Attempt<L> {
    /// The change is undone.
    Done {
        /// What it left.
        left: L,
        /// The numbers of undos that ON UPDATE CASCADE has done with it.
        also: Vec<i64>,
    },
    /// A constraint forbids it, until others have made room.
    Later(Vec<u8>),
    /// The row is not as the change left it.
    Conflict(Vec<u8>),
}

/// A database in which changes are undone.
pub trait Database {
    /// What it knows of a change.
    type Change;
    /// What an undo left.
    type Left;

    /// Returns the next undo of the selection, from the newest on.
    fn next(&mut self) -> Option<Undo<Self::Change>>;
    /// Returns names of the rows that others may refer to and that an undo would give up.
    fn offers(&mut self, undo: &Undo<Self::Change>) -> Vec<Name>;
    /// Returns names of the rows that the row refers to when it is undone.
    fn needs(&mut self, undo: &Undo<Self::Change>) -> Vec<Name>;
    /// Undoes a change if its row is still as the change left it.
    fn attempt(&mut self, undo: &Undo<Self::Change>, is_cascading: bool) -> Attempt<Self::Left>;
    /// Notes that a change is undone.
    fn done(&mut self, undo: &Undo<Self::Change>, left: Self::Left);
    /// Notes that ON UPDATE CASCADE has undone a change.
    fn cascaded(&mut self, undo: &Undo<Self::Change>);
    /// Notes that a change stays as it is.
    fn skipped(&mut self, undo: &Undo<Self::Change>, reason: &[u8]);
    /// Describes a conflict in one line.
    fn describe(&mut self, undo: &Undo<Self::Change>, reason: &[u8]) -> Vec<u8>;
    /// Takes the undos that ON UPDATE CASCADE may do in the attempts that follow.
    fn begin_cascade(&mut self, waiting: &mut dyn Iterator<Item = &Undo<Self::Change>>);
    /// Returns whether any constraint can be deferred.
    fn has_deferrable(&mut self) -> bool;
    /// Defers constraints, runs the passes, and checks the constraints. If a constraint does not hold, takes back all that
    /// the passes did, and returns false.
    fn deferred(
        &mut self,
        passes: &mut dyn FnMut(&mut Self) -> Result<(), TryReserveError>,
    ) -> Result<bool, TryReserveError>;
}

/// The changes that cannot be undone.
#[derive(Debug, Default, PartialEq)]
pub struct Conflicts {
    /// How many there are.
    pub count: u64,
    /// The first of them, a line each.
    pub lines: Vec<Vec<u8>>,
}

impl Conflicts {
    fn add<D: Database>(
        &mut self,
        database: &mut D,
        undo: &Undo<D::Change>,
        reason: &[u8],
    ) -> Result<(), TryReserveError> {
        self.count += 1;
        if self.lines.len() < DESCRIBED {
            self.lines.try_reserve(1)?;
            self.lines.push(database.describe(undo, reason));
        }
        Ok(())
    }
}

/// What a run found.
#[derive(Debug, Default, PartialEq)]
pub struct Found {
    /// Whether the selection has any change.
    pub is_any: bool,
    /// What cannot be undone. (Older changes of the same rows are not counted.)
    pub conflicts: Conflicts,
}

/// Undoes a selection.
pub fn run<D: Database>(database: &mut D) -> Result<Found, TryReserveError> {
    let mut schedule = Schedule::default();
    let mut undos = Vec::new();
    let mut is_any = false;
    let mut waiting = Vec::new();
    while let Some(undo) = database.next() {
        is_any = true;
        if let Some(wait) = schedule.step(Pass::First, &undo, database)? {
            waiting.try_reserve(1)?;
            waiting.push(Waiting { index: undos.len(), wait });
            undos.try_reserve(1)?;
            undos.push(Some(undo));
        }
    }
    if !waiting.is_empty() {
        waiting = schedule.passes(Pass::Backward, waiting, &mut undos, database)?;
    }
    if !waiting.is_empty() && database.has_deferrable() {
        waiting = schedule.deferred(waiting, &mut undos, database)?;
    }
    for Waiting { index, wait } in waiting {
        let Some(undo) = &undos[index] else { continue };
        let reason = match &wait {
            Wait::Behind => NEWER,
            Wait::Met(reason) => {
                schedule.conflicts.add(database, undo, reason)?;
                reason
            }
        };
        database.skipped(undo, reason);
    }
    Ok(Found { is_any, conflicts: schedule.conflicts })
}

/// A walk through undos.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    /// Through the selection, from the newest on.
    First,
    /// Through what waits, from the oldest on.
    Backward,
    /// Through what waits, from the newest on.
    Forward,
    /// As `Forward`, together with what ON UPDATE CASCADE does.
    Cascade,
}

impl Pass {
    /// Returns the pass after this one, while anything waits.
    fn next(self, is_progress: bool) -> Option<Self> {
        match self {
            Self::First => Some(Self::Backward),
            Self::Backward => Some(Self::Forward),
            Self::Forward | Self::Cascade if is_progress => Some(Self::Backward),
            Self::Forward => Some(Self::Cascade),
            Self::Cascade => None,
        }
    }
}

/// Why an undo waits.
#[derive(Debug)]
enum Wait {
    /// A newer change of the row does.
    Behind,
    /// It met a constraint, or what waits needs its row.
    Met(Vec<u8>),
}

#[derive(Debug)]
struct Waiting {
    index: usize,
    wait: Wait,
}

/// What is to be done with an undo.
enum Verdict<L> {
    Newer,
    Behind,
    Cascaded,
    Tried(Attempt<L>),
}

#[derive(Default)]
struct Schedule {
    /// The rows of undos that wait.
    held: HashSet<Name>,
    /// The rows that the rows of undos that wait will refer to. They are not given up before.
    needed: HashSet<Name>,
    /// The rows of changes that stay as they are, and the number of the newest of these.
    lost: HashMap<Name, i64>,
    /// The numbers of undos that ON UPDATE CASCADE has done.
    also: HashSet<i64>,
    conflicts: Conflicts,
}

fn insert<T: std::hash::Hash + Eq>(set: &mut HashSet<T>, member: T) -> Result<(), TryReserveError> {
    set.try_reserve(1)?;
    set.insert(member);
    Ok(())
}

impl Schedule {
    /// Passes through what waits until a whole round brings nothing. Returns what waits then.
    fn passes<D: Database>(
        &mut self,
        first: Pass,
        mut waiting: Vec<Waiting>,
        undos: &mut [Option<Undo<D::Change>>],
        database: &mut D,
    ) -> Result<Vec<Waiting>, TryReserveError> {
        self.run_passes(first, &mut waiting, undos, true, database)?;
        Ok(waiting)
    }

    /// As `passes`. What is done is dropped unless it may be taken back.
    fn run_passes<D: Database>(
        &mut self,
        first: Pass,
        waiting: &mut Vec<Waiting>,
        undos: &mut [Option<Undo<D::Change>>],
        is_final: bool,
        database: &mut D,
    ) -> Result<(), TryReserveError> {
        let mut is_progress = false;
        let mut pass = Some(first);
        while let Some(this) = pass.filter(|_| !waiting.is_empty()) {
            is_progress |= self.pass(this, waiting, undos, is_final, database)?;
            pass = this.next(is_progress);
            // What the way back has done counts until the way there has ended too.
            is_progress &= pass == Some(Pass::Forward);
        }
        Ok(())
    }

    /// Tries what waits once more. Returns whether anything has been done, or given up.
    fn pass<D: Database>(
        &mut self,
        pass: Pass,
        waiting: &mut Vec<Waiting>,
        undos: &mut [Option<Undo<D::Change>>],
        is_final: bool,
        database: &mut D,
    ) -> Result<bool, TryReserveError> {
        if pass != Pass::Backward {
            self.held.clear();
            self.needed.clear();
        }
        if pass == Pass::Cascade {
            let alone = waiting.iter().filter(|waiting| matches!(waiting.wait, Wait::Met(_)));
            database.begin_cascade(&mut alone.filter_map(|waiting| undos[waiting.index].as_ref()));
        }
        let is_backward = pass == Pass::Backward;
        let before = waiting.len();
        if is_backward {
            waiting.reverse();
        }
        let mut remaining = Vec::new();
        remaining.try_reserve(before)?;
        for Waiting { index, wait } in waiting.drain(..) {
            if is_backward && matches!(wait, Wait::Behind) {
                remaining.push(Waiting { index, wait });
                continue;
            }
            let Some(undo) = &undos[index] else { continue };
            match self.step(pass, undo, database)? {
                Some(wait) => remaining.push(Waiting { index, wait }),
                None if is_final => undos[index] = None,
                None => {}
            }
        }
        if is_backward {
            remaining.reverse();
        }
        *waiting = remaining;
        Ok(waiting.len() < before)
    }

    /// Tries what waits with deferred constraints. Returns what waits then.
    fn deferred<D: Database>(
        &mut self,
        waiting: Vec<Waiting>,
        undos: &mut [Option<Undo<D::Change>>],
        database: &mut D,
    ) -> Result<Vec<Waiting>, TryReserveError> {
        let described = self.conflicts.lines.len();
        let count = self.conflicts.count;
        let mut tried = Vec::new();
        tried.try_reserve(waiting.len())?;
        tried.extend(waiting.iter().map(|waiting| Waiting { index: waiting.index, wait: Wait::Behind }));
        let mut run = |database: &mut D| self.run_passes(Pass::Forward, &mut tried, undos, false, database);
        if database.deferred(&mut run)? {
            return Ok(tried);
        }
        // Nothing of what waited can be done.
        self.conflicts.lines.truncate(described);
        self.conflicts.count = count;
        Ok(waiting)
    }

    /// Does with one undo what can be done. Returns why it waits, if it does.
    fn step<D: Database>(
        &mut self,
        pass: Pass,
        undo: &Undo<D::Change>,
        database: &mut D,
    ) -> Result<Option<Wait>, TryReserveError> {
        let wait = match self.verdict(pass, undo, database)? {
            Verdict::Tried(Attempt::Done { left, also }) => {
                self.also.try_reserve(also.len())?;
                self.also.extend(also);
                database.done(undo, left);
                return Ok(None);
            }
            Verdict::Cascaded => {
                database.cascaded(undo);
                return Ok(None);
            }
            Verdict::Newer => {
                self.lose(undo)?;
                database.skipped(undo, NEWER);
                return Ok(None);
            }
            Verdict::Tried(Attempt::Conflict(reason)) => {
                self.conflicts.add(database, undo, &reason)?;
                self.lose(undo)?;
                database.skipped(undo, &reason);
                return Ok(None);
            }
            Verdict::Tried(Attempt::Later(reason)) => Wait::Met(reason),
            Verdict::Behind => Wait::Behind,
        };
        if pass != Pass::Backward {
            if undo.row_before.is_some() {
                for name in database.needs(undo) {
                    insert(&mut self.needed, name)?;
                }
            }
            for row in undo.rows() {
                insert(&mut self.held, copy(row)?)?;
            }
        }
        Ok(Some(wait))
    }

    fn lose<C>(&mut self, undo: &Undo<C>) -> Result<(), TryReserveError> {
        for row in undo.rows() {
            self.lost.try_reserve(1)?;
            let newest = self.lost.entry(copy(row)?).or_insert(undo.number);
            *newest = undo.number.min(*newest);
        }
        Ok(())
    }

    fn verdict<D: Database>(
        &mut self,
        pass: Pass,
        undo: &Undo<D::Change>,
        database: &mut D,
    ) -> Result<Verdict<D::Left>, TryReserveError> {
        if undo.rows().any(|row| self.lost.get(row).is_some_and(|newest| *newest < undo.number)) {
            return Ok(Verdict::Newer);
        }
        if let Some(problem) = &undo.problem {
            return Ok(Verdict::Tried(Attempt::Conflict(copy(problem)?)));
        }
        if pass != Pass::Backward && undo.rows().any(|row| self.held.contains(row)) {
            return Ok(Verdict::Behind);
        }
        if !self.needed.is_empty() && database.offers(undo).iter().any(|name| self.needed.contains(name)) {
            return Ok(Verdict::Tried(Attempt::Later(copy(REFERRED)?)));
        }
        if self.also.contains(&undo.number) {
            return Ok(Verdict::Cascaded);
        }
        Ok(Verdict::Tried(database.attempt(undo, pass == Pass::Cascade)))
    }
}
