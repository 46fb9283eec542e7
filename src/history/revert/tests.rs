//! The order of undos against a search that tries everything.
#![forbid(unsafe_code)]

use std::collections::{BTreeSet, TryReserveError};

use proptest::prelude::*;

use super::model::{Change, End, Model, Row, State, has_order, is_sound, is_unique, replace};
use super::rows::Name;
use super::schedule::{Attempt, Conflicts, DESCRIBED, Database, Found, NEWER, REFERRED, Undo, run};

/// Changes that need others to be undone before, and that conflict or not, whatever else is done.
struct Rules {
    /// The rows, what is needed, and whether it conflicts.
    changes: Vec<(BTreeSet<u8>, BTreeSet<usize>, bool)>,
    read: usize,
    done: BTreeSet<usize>,
    skipped: BTreeSet<usize>,
}

impl Database for Rules {
    type Change = usize;
    type Left = ();

    fn next(&mut self) -> Option<Undo<usize>> {
        let (rows, ..) = self.changes.get(self.read)?;
        let mut rows = rows.iter().map(|row| vec![*row]);
        let (row_after, row_before) = (rows.next(), rows.next());
        let change = self.read;
        self.read += 1;
        Some(Undo { number: change as i64 + 1, row_after, row_before, problem: None, change })
    }

    fn offers(&mut self, _undo: &Undo<usize>) -> Vec<Name> {
        Vec::new()
    }

    fn needs(&mut self, _undo: &Undo<usize>) -> Vec<Name> {
        Vec::new()
    }

    fn attempt(&mut self, undo: &Undo<usize>, _is_cascading: bool) -> Attempt<()> {
        let (_, needed, is_conflict) = &self.changes[undo.change];
        assert!(!self.done.contains(&undo.change), "{} is undone twice", undo.change);
        match is_conflict {
            true => Attempt::Conflict(Vec::new()),
            false if needed.is_subset(&self.done) => {
                self.done.insert(undo.change);
                Attempt::Done { left: (), also: Vec::new() }
            }
            false => Attempt::Later(Vec::new()),
        }
    }

    fn done(&mut self, undo: &Undo<usize>, (): ()) {
        assert!(self.done.contains(&undo.change));
    }

    fn cascaded(&mut self, _undo: &Undo<usize>) {
        panic!("nothing cascades");
    }

    fn skipped(&mut self, undo: &Undo<usize>, _reason: &[u8]) {
        assert!(self.skipped.insert(undo.change));
    }

    fn describe(&mut self, _undo: &Undo<usize>, _reason: &[u8]) -> Vec<u8> {
        Vec::new()
    }

    fn begin_cascade(&mut self, _waiting: &mut dyn Iterator<Item = &Undo<usize>>) {}

    fn has_deferrable(&mut self) -> bool {
        false
    }

    fn deferred(
        &mut self,
        _passes: &mut dyn FnMut(&mut Self) -> Result<(), TryReserveError>,
    ) -> Result<bool, TryReserveError> {
        panic!("nothing can be deferred");
    }
}

/// Tries all of them again and again, until nothing changes. Returns what is done then.
fn fixed_point(changes: &[(BTreeSet<u8>, BTreeSet<usize>, bool)]) -> BTreeSet<usize> {
    let (mut done, mut lost) = (BTreeSet::new(), BTreeSet::new());
    loop {
        let before = done.len() + lost.len();
        for (index, (rows, needed, is_conflict)) in changes.iter().enumerate() {
            if done.contains(&index) || lost.contains(&index) {
                continue;
            }
            let newer = || (0..index).filter(|newer| !changes[*newer].0.is_disjoint(rows));
            if newer().any(|newer| lost.contains(&newer)) {
                lost.insert(index);
            } else if newer().any(|newer| !done.contains(&newer)) {
                continue;
            } else if *is_conflict {
                lost.insert(index);
            } else if needed.is_subset(&done) {
                done.insert(index);
            }
        }
        if done.len() + lost.len() == before {
            return done;
        }
    }
}

const fn child(key: u8, parent: Option<u8>, number: Option<u8>) -> Row {
    Row::Child { key, parent, number }
}

fn made(row: Row) -> Change {
    Change { before: None, after: Some(row) }
}

fn removed(row: Row) -> Change {
    Change { before: Some(row), after: None }
}

fn updated(before: Row, after: Row) -> Change {
    Change { before: Some(before), after: Some(after) }
}

/// What a statement did to rows, if constraints hold at its end.
fn statement(state: &State, (kind, k, l, v): (u8, u8, u8, u8)) -> Vec<Change> {
    let row = |table, key| state.get(&(table, key)).copied();
    let children = |parent: u8| {
        let is_of = move |row: &&Row| matches!(row, Row::Child { parent: Some(of), .. } if *of == parent);
        state.values().filter(is_of).copied().collect::<Vec<Row>>()
    };
    let parent = (v > 0).then_some(l);
    let number = (v > 1).then_some(v);
    match (kind, row(0, k), row(1, k)) {
        (0, None, _) => vec![made(Row::Parent(k))],
        (1, _, None) => vec![made(child(k, parent, number))],
        // With its parent, which may come later.
        (2, _, None) if row(0, l).is_none() => vec![made(child(k, Some(l), number)), made(Row::Parent(l))],
        (3, _, Some(old)) => vec![updated(old, child(k, parent, number))],
        (4, _, Some(Row::Child { parent, number, .. })) if row(1, l).is_none() => {
            vec![updated(child(k, parent, number), child(l, parent, number))]
        }
        (5, _, Some(old)) => vec![removed(old)],
        // With its children, which go before it or after it.
        (6, Some(old), _) => {
            let mut all: Vec<Change> = children(k).into_iter().map(removed).collect();
            all.insert(if v > 1 { all.len() } else { 0 }, removed(old));
            all
        }
        (7, Some(old), _) if row(0, l).is_none() => {
            let rename = |row| match row {
                Row::Child { key, number, .. } => updated(row, child(key, Some(l), number)),
                Row::Parent(_) => updated(row, Row::Parent(l)),
            };
            [old].into_iter().chain(children(k)).map(rename).collect()
        }
        // Two children exchange their numbers.
        (8, _, Some(Row::Child { parent: p, number: n, .. })) if k != l => match row(1, l) {
            Some(Row::Child { parent: q, number: m, .. }) => {
                vec![updated(child(k, p, n), child(k, p, m)), updated(child(l, q, m), child(l, q, n))]
            }
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

/// The states before and after, and the changes in between, from the newest to the oldest. What is unique is checked at each
/// row, and a parent comes before its children, unless constraints are deferrable.
fn history(
    before: &[(u8, u8, u8, u8)],
    statements: &[(u8, u8, u8, u8)],
    is_deferrable: bool,
) -> (State, State, Vec<Change>) {
    let mut state = State::new();
    let mut changes = Vec::new();
    let mut first = None;
    for (index, one) in before.iter().chain(statements).enumerate() {
        if index == before.len() {
            first = Some(state.clone());
        }
        let done = if is_deferrable || one.0 != 2 { statement(&state, *one) } else { Vec::new() };
        let mut next = state.clone();
        let mut change_row =
            |change: &Change| replace(&mut next, change.before, change.after) && (is_deferrable || is_unique(&next));
        if done.iter().all(&mut change_row) && is_sound(&next) {
            state = next;
            changes.extend(done.into_iter().filter(|_| first.is_some()));
        }
    }
    changes.reverse();
    (first.unwrap_or_else(|| state.clone()), state, changes)
}

fn statements(count: usize) -> impl Strategy<Value = Vec<(u8, u8, u8, u8)>> {
    proptest::collection::vec((0u8..9, 0u8..3, 0u8..3, 0u8..5), 0..count)
}

proptest! {
    #[test]
    fn what_can_be_undone_is_what_a_search_finds(
        changes in proptest::collection::vec(
            (proptest::collection::btree_set(0u8..6, 1..3), proptest::collection::btree_set(0usize..9, 0..3), any::<u8>()),
            0..9,
        )
    ) {
        let changes: Vec<_> = changes.into_iter().map(|(rows, needed, odds)| (rows, needed, odds < 20)).collect();
        let expected = fixed_point(&changes);
        let mut rules = Rules { changes, read: 0, done: BTreeSet::new(), skipped: BTreeSet::new() };
        let found = run(&mut rules).unwrap();
        prop_assert_eq!(&rules.done, &expected);
        prop_assert_eq!(rules.done.len() + rules.skipped.len(), rules.changes.len());
        prop_assert_eq!(found.conflicts.count == 0, rules.skipped.is_empty());
    }

    #[test]
    fn all_is_undone_where_any_order_undoes_all(before in statements(6), after in statements(5)) {
        let (first, state, changes) = history(&before, &after, false);
        prop_assume!(changes.len() <= 8);
        let is_possible = has_order(&state, &changes);
        let mut model = Model { state, changes: changes.clone(), cascades: true, ..Model::default() };
        let found = run(&mut model).unwrap();
        prop_assert!(is_sound(&model.state));
        if is_possible {
            prop_assert_eq!((found.conflicts, &model.state), (Conflicts::default(), &first), "{:?}", changes);
        }
    }

    #[test]
    fn all_is_undone_with_deferred_constraints(
        before in statements(8), after in statements(12), cascades in any::<bool>(),
    ) {
        let (first, state, changes) = history(&before, &after, true);
        let is_any = !changes.is_empty();
        let mut model = Model { state, changes, is_deferrable: true, cascades, ..Model::default() };
        prop_assert_eq!(run(&mut model).unwrap(), Found { is_any, conflicts: Conflicts::default() });
        prop_assert_eq!(&model.state, &first);
    }

    /// Whatever happened in between: each change has one end, and what waits at the end is not to be had.
    #[test]
    fn each_change_has_one_end(
        before in statements(8), after in statements(12), between in statements(4), is_deferrable in any::<bool>(),
        cascades in any::<bool>(),
    ) {
        let (_, state, changes) = history(&before, &after, true);
        let (mut now, count) = (state.clone(), changes.len());
        for one in between {
            let mut next = now.clone();
            if statement(&now, one).iter().all(|change| replace(&mut next, change.before, change.after))
                && is_sound(&next) {
                now = next;
            }
        }
        let mut model = Model { state: now, changes, is_deferrable, cascades, ..Model::default() };
        let found = run(&mut model).unwrap();
        prop_assert!(is_sound(&model.state));
        let numbers: BTreeSet<i64> = model.ends.iter().map(|end| end.0).collect();
        prop_assert_eq!((numbers.len(), model.ends.len()), (count, count));
        let skipped = model.ends.iter().filter(|end| end.1 == End::Skipped).count();
        prop_assert_eq!(found.conflicts.count == 0, skipped == 0);
        prop_assert!(found.conflicts.count as usize <= skipped);
    }
}

/// Undoes changes, which are given from the oldest to the newest.
fn undo(state: &[Row], changes: &[Change], set: impl FnOnce(&mut Model)) -> (Model, Found) {
    let state = state.iter().map(|row| (row.key(), *row)).collect();
    let mut model = Model { state, changes: changes.iter().rev().copied().collect(), ..Model::default() };
    set(&mut model);
    let found = run(&mut model).unwrap();
    (model, found)
}

#[test]
fn an_empty_selection_is_none() {
    let (model, found) = undo(&[], &[], |_| ());
    assert_eq!((found, model.ends), (Found::default(), Vec::new()));
}

#[test]
fn changes_are_undone_from_the_newest_to_the_oldest() {
    let [one, two] = [1, 2].map(|number| child(1, None, Some(number)));
    let (model, _) = undo(&[two], &[made(one), updated(one, two)], |_| ());
    assert_eq!(model.ends, [(1, End::Done), (2, End::Done)]);
    assert!(model.state.is_empty());
}

#[test]
fn what_meets_a_constraint_waits_with_the_older_changes_of_its_row() {
    // The child goes before its parent; its row is not touched before that.
    let (old, new) = (child(1, Some(1), None), child(1, Some(1), Some(2)));
    let changes = [updated(old, new), removed(new), removed(Row::Parent(1))];
    let changes = [changes[0], changes[2], changes[1]];
    let (model, found) = undo(&[], &changes, |_| ());
    assert_eq!(found.conflicts, Conflicts::default());
    // The newest waits, the oldest stands behind it and is not tried; the parent comes back in between.
    assert_eq!(model.tried, [1, 2, 1, 3]);
    assert_eq!(model.ends, [(2, End::Done), (1, End::Done), (3, End::Done)]);
}

#[test]
fn what_waits_is_tried_from_its_oldest_first() {
    // Parent and children are deleted by a cascade: of the children, which waited, the one that is older comes first.
    let changes = [removed(Row::Parent(1)), removed(child(1, Some(1), None)), removed(child(2, Some(1), None))];
    let (model, _) = undo(&[], &changes, |_| ());
    assert_eq!(model.ends, [(3, End::Done), (2, End::Done), (1, End::Done)]);
}

#[test]
fn a_conflict_keeps_the_older_changes_of_its_rows() {
    let [one, two, moved] = [child(1, None, Some(1)), child(1, None, Some(2)), child(2, None, Some(2))];
    let other = child(3, None, None);
    let changes = [made(other), made(one), updated(one, two), updated(two, moved)];
    let (model, found) = undo(&[child(2, None, Some(9)), other], &changes, |_| ());
    assert_eq!(model.ends, [(1, End::Skipped), (2, End::Skipped), (3, End::Skipped), (4, End::Done)]);
    // Only the first is a conflict of its own, and only that was tried.
    assert_eq!((found.conflicts.count, &model.tried[..]), (1, &[1, 4][..]));
    assert_eq!(model.reasons[1..], [(2, NEWER.to_vec()), (3, NEWER.to_vec())]);
}

#[test]
fn a_row_that_others_wait_for_is_not_given_up() {
    // The child's number is taken, so it waits; its parent stays, although nothing refers to it now.
    let (old, thief) = (child(1, Some(1), Some(5)), child(2, None, Some(5)));
    let changes = [made(Row::Parent(1)), removed(old)];
    let (model, found) = undo(&[Row::Parent(1), thief], &changes, |_| ());
    assert_eq!(model.reasons, [(1, b"a constraint".to_vec()), (2, REFERRED.to_vec())]);
    assert_eq!((found.conflicts.count, model.state.len()), (2, 2));
    assert!(!model.tried.contains(&2));
}

#[test]
fn a_rename_and_its_cascade_are_undone_together() {
    let changes = [
        updated(Row::Parent(1), Row::Parent(2)),
        updated(child(1, Some(1), None), child(1, Some(2), None)),
        updated(child(2, Some(1), None), child(2, Some(2), None)),
    ];
    let state = [Row::Parent(2), child(1, Some(2), None), child(2, Some(2), None)];
    let (model, found) = undo(&state, &changes, |model| model.cascades = true);
    assert_eq!(found.conflicts, Conflicts::default());
    assert_eq!(model.ends, [(3, End::Done), (2, End::Cascaded), (1, End::Cascaded)]);
    // Without that, they block each other.
    let (model, found) = undo(&state, &changes, |_| ());
    assert_eq!((found.conflicts.count, model.state.len()), (3, 3));
}

#[test]
fn constraints_are_deferred_where_nothing_else_helps() {
    let [a, b] = [1, 2].map(|number| child(1, None, Some(number)));
    let [c, d] = [2, 1].map(|number| child(2, None, Some(number)));
    let swap = [updated(a, b), updated(c, d)];
    let (model, found) = undo(&[b, d], &swap, |model| model.is_deferrable = true);
    assert_eq!((found.conflicts.count, model.ends), (0, vec![(1, End::Done), (2, End::Done)]));
    let (model, found) = undo(&[b, d], &swap, |_| ());
    assert_eq!((found.conflicts.count, model.ends.len()), (2, 2));
}

#[test]
fn what_deferred_constraints_forbid_is_taken_back_as_a_whole() {
    let [a, b] = [1, 2].map(|number| child(1, None, Some(number)));
    let [c, d] = [2, 1].map(|number| child(2, None, Some(number)));
    // The numbers could be exchanged, but the parent of the third is gone; the fourth is not as it was left.
    let changes = [updated(a, b), updated(c, d), removed(child(3, Some(1), None)), made(child(4, None, None))];
    let (model, found) = undo(&[b, d], &changes, |model| model.is_deferrable = true);
    assert_eq!(model.state.values().copied().collect::<Vec<_>>(), [b, d]);
    // The conflict of before counts once, and what waited counts with the reason that it waited for.
    let lines = ["1: the row is not as it was left", "2: a constraint", "3: a constraint", "4: a constraint"];
    assert_eq!(found.conflicts, Conflicts { count: 4, lines: lines.map(|line| line.as_bytes().to_vec()).to_vec() });
    assert!(model.ends.iter().all(|end| end.1 == End::Skipped));
}

#[test]
fn all_conflicts_are_counted_and_the_first_are_described() {
    let changes: Vec<Change> = (0..30).map(|key| made(child(key, None, None))).collect();
    let (_, found) = undo(&[], &changes, |_| ());
    assert_eq!((found.conflicts.count, found.conflicts.lines.len()), (30, DESCRIBED));
    assert_eq!(found.conflicts.lines[0], b"1: the row is not as it was left");
}
