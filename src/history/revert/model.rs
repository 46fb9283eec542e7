//! A little database for tests: parents, and children that refer to them and have a unique number.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet, TryReserveError};
use std::mem;

use super::rows::Name;
use super::schedule::{Attempt, Database, Undo};

/// A row: a parent, or a child of a parent with a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Row {
    Parent(u8),
    Child { key: u8, parent: Option<u8>, number: Option<u8> },
}

impl Row {
    /// Its table and its key.
    pub fn key(self) -> (u8, u8) {
        match self {
            Self::Parent(key) => (0, key),
            Self::Child { key, .. } => (1, key),
        }
    }

    fn name(self) -> Name {
        let (table, key) = self.key();
        vec![table, key]
    }

    fn parent(self) -> Option<u8> {
        match self {
            Self::Child { parent, .. } => parent,
            Self::Parent(_) => None,
        }
    }
}

/// All rows, by table and key.
pub type State = BTreeMap<(u8, u8), Row>;

/// A row before a change and after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub before: Option<Row>,
    pub after: Option<Row>,
}

/// Whether each child's number is its own.
pub fn is_unique(state: &State) -> bool {
    let mut numbers = BTreeSet::new();
    state.values().all(|row| match *row {
        Row::Child { number: Some(number), .. } => numbers.insert(number),
        _ => true,
    })
}

/// Whether each child's parent is there, and its number is its own.
pub fn is_sound(state: &State) -> bool {
    let has_parent = |row: &Row| row.parent().is_none_or(|parent| state.contains_key(&(0, parent)));
    is_unique(state) && state.values().all(has_parent)
}

/// Puts a row into the place of another one. False if the row to be replaced is not there, or the key is taken.
pub fn replace(state: &mut State, old: Option<Row>, new: Option<Row>) -> bool {
    if let Some(old) = old
        && state.get(&old.key()) != Some(&old)
    {
        return false;
    }
    if let Some(new) = new
        && old.map(Row::key) != Some(new.key())
        && state.contains_key(&new.key())
    {
        return false;
    }
    if let Some(old) = old {
        state.remove(&old.key());
    }
    if let Some(new) = new {
        state.insert(new.key(), new);
    }
    true
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    Done,
    Cascaded,
    Skipped,
}

/// A database with a selection of changes.
#[derive(Default)]
pub struct Model {
    pub state: State,
    /// From the newest to the oldest.
    pub changes: Vec<Change>,
    /// How many of them were read.
    pub read: usize,
    pub is_deferrable: bool,
    pub cascades: bool,
    pub is_deferred: bool,
    pub waiting: BTreeMap<(u8, u8), (i64, Change)>,
    /// The numbers of the changes that were tried, in this order.
    pub tried: Vec<i64>,
    pub ends: Vec<(i64, End)>,
    pub reasons: Vec<(i64, Vec<u8>)>,
}

impl Model {
    /// Renames a parent and its children's references, if the undos of these wait and do the same.
    fn cascade(&self, change: Change) -> Option<(State, Vec<i64>)> {
        let (Some(Row::Parent(new)), Some(Row::Parent(old))) = (change.before, change.after) else { return None };
        let mut state = self.state.clone();
        let mut also = Vec::new();
        for row in self.state.values().filter(|row| row.parent() == Some(old)) {
            let Row::Child { key, number, .. } = *row else { continue };
            let renamed = Row::Child { key, parent: Some(new), number };
            let (waiting, wanted) = self.waiting.get(&row.key())?;
            if wanted.before != Some(renamed) {
                return None;
            }
            also.push(*waiting);
            state.insert(row.key(), renamed);
        }
        (replace(&mut state, change.after, change.before) && is_sound(&state)).then_some((state, also))
    }
}

impl Database for Model {
    type Change = Change;
    type Left = ();

    fn next(&mut self) -> Option<Undo<Change>> {
        let change = *self.changes.get(self.read)?;
        self.read += 1;
        let [row_after, row_before] = [change.after, change.before].map(|row| row.map(Row::name));
        Some(Undo { number: self.read as i64, row_after, row_before, problem: None, change })
    }

    fn offers(&mut self, undo: &Undo<Change>) -> Vec<Name> {
        let Change { before, after } = undo.change;
        let given = after.filter(|after| before.map(Row::key) != Some(after.key()));
        given.filter(|after| after.key().0 == 0).map(Row::name).into_iter().collect()
    }

    fn needs(&mut self, undo: &Undo<Change>) -> Vec<Name> {
        undo.change.before.and_then(Row::parent).map(|parent| vec![0, parent]).into_iter().collect()
    }

    fn attempt(&mut self, undo: &Undo<Change>, is_cascading: bool) -> Attempt<()> {
        self.tried.push(undo.number);
        let Change { before, after } = undo.change;
        let mut state = self.state.clone();
        if !replace(&mut state, after, before) {
            return Attempt::Conflict(b"the row is not as it was left".to_vec());
        }
        if self.is_deferred || is_sound(&state) {
            self.state = state;
            return Attempt::Done { left: (), also: Vec::new() };
        }
        if is_cascading
            && self.cascades
            && let Some((state, also)) = self.cascade(undo.change)
        {
            self.state = state;
            return Attempt::Done { left: (), also };
        }
        Attempt::Later(b"a constraint".to_vec())
    }

    fn done(&mut self, undo: &Undo<Change>, (): ()) {
        self.ends.push((undo.number, End::Done));
    }

    fn cascaded(&mut self, undo: &Undo<Change>) {
        self.ends.push((undo.number, End::Cascaded));
    }

    fn skipped(&mut self, undo: &Undo<Change>, reason: &[u8]) {
        self.ends.push((undo.number, End::Skipped));
        self.reasons.push((undo.number, reason.to_vec()));
    }

    fn describe(&mut self, undo: &Undo<Change>, reason: &[u8]) -> Vec<u8> {
        [undo.number.to_string().as_bytes(), b": ", reason].concat()
    }

    fn begin_cascade(&mut self, waiting: &mut dyn Iterator<Item = &Undo<Change>>) {
        let updates = waiting.filter_map(|undo| Some((undo.change.after?.key(), (undo.number, undo.change))));
        self.waiting = updates.collect();
    }

    fn has_deferrable(&mut self) -> bool {
        self.is_deferrable
    }

    fn deferred(
        &mut self,
        passes: &mut dyn FnMut(&mut Self) -> Result<(), TryReserveError>,
    ) -> Result<bool, TryReserveError> {
        let before = (self.state.clone(), self.ends.clone(), self.reasons.clone());
        self.is_deferred = true;
        passes(self)?;
        self.is_deferred = false;
        let is_kept = is_sound(&self.state);
        if !is_kept {
            (self.state, self.ends, self.reasons) = before;
        }
        Ok(is_kept)
    }
}

/// Whether there is any order in which all changes can be undone while constraints hold after each.
pub fn has_order(state: &State, changes: &[Change]) -> bool {
    fn search(
        state: &State,
        left: &mut Vec<Change>,
        failed: &mut BTreeSet<(State, Vec<usize>)>,
        all: &[Change],
    ) -> bool {
        if left.is_empty() {
            return true;
        }
        let key: Vec<usize> = left.iter().filter_map(|one| all.iter().position(|other| other == one)).collect();
        if failed.contains(&(state.clone(), key.clone())) {
            return false;
        }
        for index in 0..left.len() {
            let change = left[index];
            // A newer change of one of its rows comes first.
            let rows = |change: Change| [change.before, change.after].map(|row| row.map(Row::key));
            let is_behind = left[..index]
                .iter()
                .any(|newer| rows(*newer).into_iter().flatten().any(|row| rows(change).contains(&Some(row))));
            let mut next = state.clone();
            if is_behind || !replace(&mut next, change.after, change.before) || !is_sound(&next) {
                continue;
            }
            left.remove(index);
            let is_found = search(&next, left, failed, all);
            left.insert(index, change);
            if is_found {
                return true;
            }
        }
        failed.insert((state.clone(), mem::take(&mut key.clone())));
        false
    }
    search(state, &mut changes.to_vec(), &mut BTreeSet::new(), changes)
}
