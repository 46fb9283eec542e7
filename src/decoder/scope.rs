//! Which context is in force in a transaction whose savepoints may still be rolled back.
//!
//! The log does not say which subtransaction is inside of which; it says, at its end, which ones were rolled back. But
//! what a subtransaction wrote between two messages of another one lies inside of that one. So each keeps its last
//! message only, and what stands behind the first message of a subtransaction goes when it sets another, or is rolled
//! back.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::rc::Rc;

/// The contexts that may be in force again, one for each subtransaction that set one and that no other covers.
#[derive(Debug, Default)]
pub struct Scope {
    /// Who set it, and the JSON object, in the order of the log.
    contexts: Vec<(u32, Rc<[u8]>)>,
    /// Where in `contexts` each of them is.
    places: HashMap<u32, usize>,
}

impl Scope {
    /// Sets the context that holds from here on, on behalf of the transaction as a whole: nothing can take it back.
    pub fn set(&mut self, context: &[u8]) {
        self.contexts.clear();
        self.places.clear();
        self.contexts.push((0, context.into()));
    }

    /// Sets the context that holds from here on, until a subtransaction is rolled back.
    pub fn set_in(&mut self, subtransaction: u32, context: &[u8]) {
        self.forget(subtransaction);
        let context = match self.contexts.last() {
            Some((_, last)) if **last == *context => last.clone(),
            _ => context.into(),
        };
        self.places.insert(subtransaction, self.contexts.len());
        self.contexts.push((subtransaction, context));
    }

    /// Takes back what a subtransaction set, and all inside of it.
    pub fn roll_back(&mut self, subtransaction: u32) {
        self.forget(subtransaction);
    }

    fn forget(&mut self, subtransaction: u32) {
        if let Some(&place) = self.places.get(&subtransaction) {
            for (owner, _) in self.contexts.drain(place..) {
                self.places.remove(&owner);
            }
        }
    }

    /// The context in force, a JSON object.
    pub fn current(&self) -> &[u8] {
        self.contexts.last().map_or(b"{}", |(_, context)| context)
    }

    /// How many contexts are kept.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.contexts.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a session does.
    #[derive(Clone, Debug)]
    enum Step {
        Set(u8),
        Row,
        Savepoint,
        Release,
        RollbackTo,
        /// The server passes on what is decoded so far.
        Chunk,
    }

    fn step() -> impl Strategy<Value = Step> {
        use Step::*;
        prop_oneof![
            4 => (0u8..4).prop_map(Set),
            3 => Just(Row),
            3 => Just(Savepoint),
            2 => Just(Release),
            2 => Just(RollbackTo),
            1 => Just(Chunk),
        ]
    }

    /// What stands in the log.
    #[derive(Clone, Debug)]
    enum Record {
        Message(u32, Vec<u8>),
        Row(u32, Vec<u8>),
    }

    const TOP: u32 = 1000;

    /// Plays a session. The log is passed on in chunks; what was rolled back before its chunk is not in it, and what
    /// is rolled back after it is told then, in any order. The rows carry what the session had in force, so the model
    /// is a stack of contexts and no more.
    fn play(steps: &[Step], reverse: bool) -> Result<(), TestCaseError> {
        let mut scope = Scope::default();
        // Open subtransactions: their numbers (released ones inside included), and the context before them.
        let mut open: Vec<(Vec<u32>, Vec<u8>)> = vec![(vec![TOP], b"{}".to_vec())];
        let mut context = b"{}".to_vec();
        let mut next = TOP + 1;
        let mut log: Vec<Record> = Vec::new();
        let mut told: Vec<u32> = Vec::new();
        let pass_on = |log: &mut Vec<Record>, told: &mut Vec<u32>, scope: &mut Scope| {
            for record in log.drain(..) {
                match record {
                    Record::Message(TOP, context) => scope.set(&context),
                    Record::Message(owner, context) => {
                        scope.set_in(owner, &context);
                        told.push(owner);
                    }
                    Record::Row(_, expected) => prop_assert_eq!(scope.current(), &expected),
                }
            }
            Ok(())
        };
        for step in steps {
            let current = open.last().map_or(TOP, |(numbers, _)| numbers[0]);
            match step {
                Step::Set(value) => {
                    context = vec![*value];
                    log.push(Record::Message(current, context.clone()));
                }
                Step::Row => log.push(Record::Row(current, context.clone())),
                Step::Savepoint => {
                    open.push((vec![next], context.clone()));
                    next += 1;
                }
                Step::Release if open.len() > 1 => {
                    let (released, _) = open.pop().unwrap();
                    open.last_mut().unwrap().0.extend(released);
                }
                Step::RollbackTo if open.len() > 1 => {
                    let (mut gone, before) = open.pop().unwrap();
                    context = before;
                    log.retain(
                        |r| !matches!(r, Record::Message(owner, _) | Record::Row(owner, _) if gone.contains(owner)),
                    );
                    if reverse {
                        gone.reverse();
                    }
                    for owner in gone.iter().filter(|owner| told.contains(owner)) {
                        scope.roll_back(*owner);
                    }
                    open.push((vec![next], context.clone()));
                    next += 1;
                }
                Step::Chunk => pass_on(&mut log, &mut told, &mut scope)?,
                _ => {}
            }
        }
        pass_on(&mut log, &mut told, &mut scope)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn random_histories_agree_with_a_stack(steps in prop::collection::vec(step(), 0..80), reverse in any::<bool>()) {
            play(&steps, reverse)?;
        }
    }

    #[test]
    fn a_subtransaction_keeps_its_last_context_only() {
        let mut scope = Scope::default();
        for i in 0..100_000u32 {
            scope.set_in(7, b"{\"a\":1}");
            scope.set_in(8 + i, b"{\"a\":2}");
        }
        assert_eq!(scope.len(), 2);
        scope.set(b"{}");
        assert_eq!(scope.len(), 1);
        for i in 0..100_000u32 {
            scope.set_in(i + 1, b"{\"a\":1}");
        }
        for i in (0..100_000u32).rev() {
            scope.roll_back(i + 1);
        }
        assert_eq!((scope.len(), scope.current()), (1, &b"{}"[..]));
    }
}
