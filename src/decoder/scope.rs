//! Which context is in force in a transaction whose savepoints may still be rolled back.
//!
//! The log does not say which subtransaction is inside of which; it says, at its end, which ones were rolled back. But
//! what a subtransaction wrote between two messages of another one lies inside of that one. So each keeps its last
//! message only, and what stands behind the first message of a subtransaction goes when it sets another, or is rolled
//! back. There may be as many as there are savepoints, so most of them lie in a file.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

/// Bytes of contexts that are kept in memory. What is more lies in a file.
const KEPT: usize = 16 << 20;

/// Makes an empty file that goes when it is closed.
pub type MakeFile = fn() -> io::Result<File>;

/// The contexts that may be in force again, one for each subtransaction that set one and that no other covers.
#[derive(Debug)]
pub struct Scope {
    /// Who set it, and where it is, in the order of the log. The last one is in memory.
    contexts: Vec<(u32, Text)>,
    /// Where in `contexts` each subtransaction's is.
    places: HashMap<u32, usize>,
    /// How many of `contexts`, from the first on, are in the file.
    filed: usize,
    /// Bytes that the others have in memory.
    kept: usize,
    limit: usize,
    file: Option<File>,
    make_file: MakeFile,
}

/// A JSON object.
#[derive(Debug)]
enum Text {
    /// In memory, and how much of it is needed for this one alone: nothing, if the one before is the same.
    Kept(Rc<Vec<u8>>, usize),
    /// In the file: its offset and length.
    Filed(u64, usize),
}

impl Scope {
    /// No context yet.
    pub fn new(make_file: MakeFile) -> Self {
        Self { contexts: Vec::new(), places: HashMap::new(), filed: 0, kept: 0, limit: KEPT, file: None, make_file }
    }

    /// Sets the context that holds from here on, on behalf of the transaction as a whole: nothing can take it back.
    /// Fails without memory.
    pub fn set(&mut self, context: &[u8]) -> io::Result<()> {
        let text = Text::Kept(copy(context)?, context.len());
        self.contexts.try_reserve(1)?;
        self.contexts.clear();
        self.places.clear();
        self.filed = 0;
        self.kept = context.len();
        self.contexts.push((0, text));
        Ok(())
    }

    /// Sets the context that holds from here on, until a subtransaction is rolled back. Fails if the file does, or
    /// without memory.
    pub fn set_in(&mut self, subtransaction: u32, context: &[u8]) -> io::Result<()> {
        self.forget(subtransaction)?;
        let text = match self.contexts.last() {
            Some((_, Text::Kept(last, _))) if last[..] == *context => Text::Kept(last.clone(), 0),
            _ => Text::Kept(copy(context)?, context.len()),
        };
        self.contexts.try_reserve(1)?;
        self.places.try_reserve(1)?;
        self.places.insert(subtransaction, self.contexts.len());
        self.push(subtransaction, text);
        if self.kept > self.limit { self.file_all_but_the_last() } else { Ok(()) }
    }

    /// Takes back what a subtransaction set, and all inside of it. Fails if the file does.
    pub fn roll_back(&mut self, subtransaction: u32) -> io::Result<()> {
        self.forget(subtransaction)
    }

    /// The context in force, a JSON object.
    pub fn current(&self) -> &[u8] {
        match self.contexts.last() {
            Some((_, Text::Kept(context, _))) => context,
            _ => b"{}",
        }
    }

    fn push(&mut self, subtransaction: u32, text: Text) {
        if let Text::Kept(_, bytes) = &text {
            self.kept += bytes;
        }
        self.contexts.push((subtransaction, text));
    }

    fn forget(&mut self, subtransaction: u32) -> io::Result<()> {
        let Some(&place) = self.places.get(&subtransaction) else { return Ok(()) };
        for (owner, text) in self.contexts.drain(place..) {
            self.places.remove(&owner);
            if let Text::Kept(_, bytes) = text {
                self.kept -= bytes;
            }
        }
        self.filed = self.filed.min(place);
        // The one that is in force again is needed in memory.
        if let (Some((owner, Text::Filed(offset, len))), Some(file)) = (self.contexts.last(), &self.file) {
            let mut context = Vec::new();
            context.try_reserve_exact(*len)?;
            context.resize(*len, 0);
            file.read_exact_at(&mut context, *offset)?;
            let (owner, len) = (*owner, *len);
            self.contexts.pop();
            self.filed -= 1;
            self.push(owner, Text::Kept(Rc::new(context), len));
        }
        Ok(())
    }

    fn file_all_but_the_last(&mut self) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert((self.make_file)()?),
        };
        let mut end = match self.filed.checked_sub(1).and_then(|last| self.contexts.get(last)) {
            Some((_, Text::Filed(offset, len))) => offset + *len as u64,
            _ => 0,
        };
        let last = self.contexts.len().saturating_sub(1);
        for place in self.filed..last {
            let Some((_, text @ Text::Kept(..))) = self.contexts.get_mut(place) else { continue };
            let Text::Kept(context, bytes) = text else { continue };
            let (context, bytes) = (context.clone(), *bytes);
            // The same as the one before is where that is.
            let offset = if bytes == 0 { end.saturating_sub(context.len() as u64) } else { end };
            if bytes > 0 {
                file.write_all_at(&context, offset)?;
                end = offset + context.len() as u64;
            }
            *text = Text::Filed(offset, context.len());
            self.kept -= bytes;
            self.filed = place + 1;
        }
        // What the last one shared with those before, it has alone now.
        if let Some((_, Text::Kept(context, bytes @ 0))) = self.contexts.last_mut() {
            *bytes = context.len();
            self.kept += context.len();
        }
        Ok(())
    }
}

fn copy(context: &[u8]) -> io::Result<Rc<Vec<u8>>> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(context.len())?;
    copy.extend_from_slice(context);
    Ok(Rc::new(copy))
}

/// For tests that need no file.
#[cfg(test)]
pub fn no_file() -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
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

    /// A file in the folder for temporary ones, without a name.
    fn file() -> io::Result<File> {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("bemi-scope-{}-{number}", std::process::id()));
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        std::fs::remove_file(path)?;
        Ok(file)
    }

    /// Plays a session. The log is passed on in chunks; what was rolled back before its chunk is not in it, and what
    /// is rolled back after it is told then, in any order. The rows carry what the session had in force, so the model
    /// is a stack of contexts and no more.
    fn play(steps: &[Step], reverse: bool, limit: usize) -> Result<(), TestCaseError> {
        let mut scope = Scope { limit, ..Scope::new(file) };
        // Open subtransactions: their numbers (released ones inside included), and the context before them.
        let mut open: Vec<(Vec<u32>, Vec<u8>)> = vec![(vec![TOP], b"{}".to_vec())];
        let mut context = b"{}".to_vec();
        let mut next = TOP + 1;
        let mut log: Vec<Record> = Vec::new();
        let mut told: Vec<u32> = Vec::new();
        let pass_on = |log: &mut Vec<Record>, told: &mut Vec<u32>, scope: &mut Scope| {
            for record in log.drain(..) {
                match record {
                    Record::Message(TOP, context) => scope.set(&context).unwrap(),
                    Record::Message(owner, context) => {
                        scope.set_in(owner, &context).unwrap();
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
                    context = vec![*value; usize::from(*value) + 1];
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
                        scope.roll_back(*owner).unwrap();
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
        fn random_histories_agree_with_a_stack(
            steps in prop::collection::vec(step(), 0..80), reverse in any::<bool>(), limit in 0usize..12
        ) {
            play(&steps, reverse, KEPT)?;
            play(&steps, reverse, limit)?;
        }
    }

    #[test]
    fn a_subtransaction_keeps_its_last_context_only() {
        let mut scope = Scope::new(file);
        for i in 0..100_000u32 {
            scope.set_in(7, b"{\"a\":1}").unwrap();
            scope.set_in(8 + i, b"{\"a\":2}").unwrap();
        }
        assert_eq!(scope.contexts.len(), 2);
        scope.set(b"{}").unwrap();
        assert_eq!(scope.contexts.len(), 1);
        for i in 0..100_000u32 {
            scope.set_in(i + 1, b"{\"a\":1}").unwrap();
        }
        assert_eq!(scope.kept, 9);
        for i in (0..100_000u32).rev() {
            scope.roll_back(i + 1).unwrap();
        }
        assert_eq!((scope.contexts.len(), scope.current()), (1, &b"{}"[..]));
    }

    #[test]
    fn many_long_contexts_lie_in_a_file() {
        let mut scope = Scope { limit: 100_000, ..Scope::new(file) };
        let context = |i: u32| [&[b' '; 30_000][..], &(i / 2).to_le_bytes()].concat();
        for round in 0..2 {
            for i in 1..=500 {
                scope.set_in(i, &context(i)).unwrap();
                assert!(scope.kept <= 130_000, "{}", scope.kept);
            }
            let len = scope.file.as_ref().unwrap().metadata().unwrap().len();
            assert!((7_000_000..8_000_000).contains(&len), "{len} in round {round}");
            for i in (1..=500).rev() {
                assert!(scope.current() == context(i));
                scope.roll_back(i).unwrap();
            }
            assert_eq!((scope.current(), scope.kept, scope.filed), (&b"{}"[..], 0, 0));
        }
    }
}
