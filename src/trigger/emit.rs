//! Whether a statement's context has to be written: a message counts for all changes after it in its transaction, so
//! one is due only when the context differs from the one in force.
#![forbid(unsafe_code)]

use std::rc::Rc;

/// What was written in the current transaction and still holds.
///
/// Each level of savepoints (the top transaction is level 1) has at most one entry: the last context written there.
/// The log's reader forgets what a rolled-back savepoint wrote, and so does this.
#[derive(Debug, Default)]
pub struct Written {
    /// Ascending by level.
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    level: u32,
    /// Of the session's context, if it was that and nothing more.
    revision: Option<u64>,
    content: Rc<str>,
}

impl Written {
    /// Nothing is written at the begin of a transaction.
    pub const fn new() -> Self {
        Self { entries: Vec::new() }
    }

    /// Whether the context in force is the session's at this revision, and nothing more: then nothing is due, which
    /// is known without a look at the context.
    pub fn is_revision(&self, revision: u64) -> bool {
        self.entries.last().is_some_and(|entry| entry.revision == Some(revision))
    }

    /// Whether a statement with the context `content` (JSON; empty for none) has to write it.
    pub fn is_due(&self, content: &str) -> bool {
        self.in_force() != content
    }

    /// Notes that `content` is in force now at this level. `revision` is the session's, if the content is its context
    /// and nothing more.
    pub fn record(&mut self, level: u32, revision: Option<u64>, content: Rc<str>) {
        if self.entries.last().is_some_and(|entry| entry.level == level) {
            self.entries.pop();
        }
        self.entries.push(Entry { level, revision, content });
    }

    /// Notes that the content in force is the session's context at this revision too, so that the next statement need
    /// not compare it.
    pub fn set_revision(&mut self, revision: u64) {
        if let Some(entry) = self.entries.last_mut() {
            entry.revision = Some(revision);
        }
    }

    /// The savepoint at `level` is released: what was written in it belongs to the level around it.
    pub fn release(&mut self, level: u32) {
        if let Some(entry) = self.entries.pop_if(|entry| entry.level >= level) {
            while self.entries.pop_if(|outer| outer.level >= level - 1).is_some() {}
            self.entries.push(Entry { level: level - 1, ..entry });
        }
    }

    /// The savepoint at `level` is rolled back: what was written in it is forgotten.
    pub fn roll_back(&mut self, level: u32) {
        while self.entries.pop_if(|entry| entry.level >= level).is_some() {}
    }

    /// The transaction has ended, in whatever way.
    pub fn end(&mut self) {
        self.entries.clear();
    }

    /// Whether nothing was written that still holds.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The content in force; None if nothing was written.
    pub fn last(&self) -> Option<Rc<str>> {
        self.entries.last().map(|entry| entry.content.clone())
    }

    fn in_force(&self) -> &str {
        self.entries.last().map_or("", |entry| &entry.content)
    }
}

/// The statements that run and may write rows, the outermost first.
///
/// A statement may run others: in its triggers and functions. What such a statement writes counts for its own rows; those
/// that the statement around it writes afterwards have the context that this one had before.
#[derive(Debug, Default)]
pub struct Running {
    statements: Vec<Statement>,
}

#[derive(Debug)]
struct Statement {
    id: usize,
    level: u32,
    /// Of the session's context when it began.
    revision: u64,
    content: Option<Rc<str>>,
}

/// Stands for the statement in which the library was loaded, whose beginning it did not see.
const UNKNOWN: usize = 0;

/// What the end of a statement asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing: its beginning is not known.
    Unknown,
    /// No statement is around it.
    Outermost,
    /// The statement around it has this context. If nothing was written for it, its own is that of the session, which had
    /// this revision when it began.
    Inside(Result<Rc<str>, u64>),
}

impl Running {
    /// No statement runs.
    pub const fn new() -> Self {
        Self { statements: Vec::new() }
    }

    /// Whether no statement is known to run.
    pub fn is_empty(&self) -> bool {
        self.statements.is_empty()
    }

    /// A statement begins, at a level of savepoints. `id` is a number that no other running statement has, nor 0;
    /// `revision` is that of the session's context.
    pub fn begin(&mut self, id: usize, level: u32, revision: u64) {
        self.statements.push(Statement { id, level, revision, content: None });
    }

    /// Notes the content that is in force for the innermost statement.
    pub fn set_content(&mut self, level: u32, revision: u64, content: Option<Rc<str>>) {
        match self.statements.last_mut() {
            Some(statement) => statement.content = content,
            None => self.statements.push(Statement { id: UNKNOWN, level, revision, content }),
        }
    }

    /// A statement has ended, and with it all that ran inside of it.
    pub fn end(&mut self, id: usize) -> End {
        match self.statements.iter().rposition(|statement| statement.id == id) {
            Some(at) => self.statements.truncate(at),
            None if matches!(self.statements[..], [Statement { id: UNKNOWN, .. }]) => self.statements.clear(),
            None => return End::Unknown,
        }
        self.statements
            .last()
            .map_or(End::Outermost, |around| End::Inside(around.content.clone().ok_or(around.revision)))
    }

    /// The savepoint at `level` is rolled back: what ran in it has ended.
    pub fn roll_back(&mut self, level: u32) {
        while self.statements.pop_if(|statement| statement.level >= level).is_some() {}
    }

    /// The transaction has ended, in whatever way.
    pub fn end_all(&mut self) {
        self.statements.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_context_is_written_once() {
        let mut written = Written::new();
        assert!(!written.is_due(""));
        assert!(written.is_due("A"));
        written.record(1, Some(7), "A".into());
        assert!(!written.is_due("A"));
        assert!(written.is_revision(7));
        assert!(!written.is_revision(8));
        assert!(written.is_due(""));
        written.end();
        assert!(!written.is_due(""));
        assert!(!written.is_revision(7));
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// Under a context, which the session set just now or had already, or which is the statement's own.
        Statement(u8, Origin),
        Savepoint,
        Release,
        RollBack,
        End,
    }

    #[derive(Clone, Copy, Debug)]
    enum Origin {
        SetNow,
        Session,
        Statement,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (0u8..4, prop_oneof![Just(Origin::SetNow), Just(Origin::Session), Just(Origin::Statement)])
                .prop_map(|(context, origin)| Step::Statement(context, origin)),
            3 => Just(Step::Savepoint),
            2 => Just(Step::Release),
            2 => Just(Step::RollBack),
            1 => Just(Step::End),
        ];
        prop::collection::vec(step, 0..60)
    }

    fn content(context: u8) -> String {
        if context == 0 { String::new() } else { format!("{{\"n\":{context}}}") }
    }

    proptest! {
        /// The naive model is the log itself: a list of messages and rows for each level of savepoints. The machine
        /// is right if the last message before each row that survives says what its statement's context was, and if
        /// no message repeats the one before it that still held.
        #[test]
        fn the_log_says_the_context_of_every_row_and_nothing_twice(steps in steps()) {
            #[derive(Clone, Debug)]
            enum Record { Message(String), Row(String) }
            let in_force = |levels: &[Vec<Record>]| -> String {
                levels.iter().flatten().rev().find_map(|r| match r { Record::Message(c) => Some(c.clone()), Record::Row(_) => None }).unwrap_or_default()
            };
            let mut written = Written::new();
            let mut levels: Vec<Vec<Record>> = vec![Vec::new()];
            let mut session = (String::new(), 0u64);
            for step in steps {
                let level = levels.len() as u32;
                match step {
                    Step::Statement(context, origin) => {
                        let (content, revision) = match origin {
                            Origin::SetNow => {
                                session = (content(context), session.1 + 1);
                                (session.0.clone(), Some(session.1))
                            }
                            Origin::Session => (session.0.clone(), Some(session.1)),
                            Origin::Statement => (content(context), None),
                        };
                        let is_known = revision.is_some_and(|revision| written.is_revision(revision));
                        let due = !is_known && written.is_due(&content);
                        prop_assert_eq!(due, in_force(&levels) != content);
                        if due {
                            written.record(level, revision, content.as_str().into());
                            levels.last_mut().unwrap().push(Record::Message(content.clone()));
                        } else if let Some(revision) = revision {
                            written.set_revision(revision);
                        }
                        levels.last_mut().unwrap().push(Record::Row(content));
                    }
                    Step::Savepoint => levels.push(Vec::new()),
                    Step::Release if level > 1 => {
                        written.release(level);
                        let inner = levels.pop().unwrap();
                        levels.last_mut().unwrap().extend(inner);
                    }
                    Step::RollBack if level > 1 => {
                        written.roll_back(level);
                        levels.pop();
                    }
                    Step::End => {
                        written.end();
                        let mut context = String::new();
                        for record in levels.drain(..).flatten() {
                            match record {
                                Record::Message(c) => context = c,
                                Record::Row(c) => prop_assert_eq!(&c, &context),
                            }
                        }
                        levels.push(Vec::new());
                    }
                    _ => {}
                }
            }
        }
    }

    /// A statement with a context of its own, whether its trigger fires, and what it does.
    #[derive(Clone, Debug)]
    struct Nested {
        context: u8,
        fires: bool,
        steps: Vec<Inner>,
    }

    #[derive(Clone, Debug)]
    enum Inner {
        Row,
        Statement(Nested),
        /// In a savepoint, which an error rolls back before the statement ends.
        Failing(Nested),
    }

    fn nested() -> impl Strategy<Value = Nested> {
        let leaf =
            (0u8..3, any::<bool>()).prop_map(|(context, fires)| Nested { context, fires, steps: vec![Inner::Row] });
        leaf.prop_recursive(3, 24, 4, |inner| {
            let step = prop_oneof![
                2 => Just(Inner::Row),
                2 => inner.clone().prop_map(Inner::Statement),
                1 => inner.prop_map(Inner::Failing),
            ];
            (0u8..3, any::<bool>(), prop::collection::vec(step, 1..5)).prop_map(|(context, fires, steps)| Nested {
                context,
                fires,
                steps,
            })
        })
    }

    /// The server's side in small, and the log: each row as the reader sees it, beside what it has to be.
    #[derive(Default)]
    struct Simulation {
        written: Written,
        running: Running,
        level: u32,
        statements: usize,
        /// Of each level: the messages.
        messages: Vec<Vec<String>>,
        rows: Vec<(String, String)>,
    }

    impl Simulation {
        fn emit(&mut self, content: &str) {
            if self.written.is_due(content) {
                self.written.record(self.level, None, content.into());
                self.messages.last_mut().unwrap().push(content.to_owned());
            }
        }

        fn run(&mut self, statement: &Nested) {
            self.statements += 1;
            let id = self.statements;
            self.running.begin(id, self.level, 0);
            let own = content(statement.context);
            let is_written = !self.written.is_empty() || statement.fires;
            if is_written {
                self.emit(&own);
            }
            self.running.set_content(self.level, 0, self.written.last());
            for step in &statement.steps {
                match step {
                    Inner::Row => {
                        let seen = self.messages.iter().flatten().next_back().cloned().unwrap_or_default();
                        self.rows.push((seen, if is_written { own.clone() } else { String::new() }));
                    }
                    Inner::Statement(inner) => self.run(inner),
                    Inner::Failing(inner) => {
                        self.level += 1;
                        self.messages.push(Vec::new());
                        let rows = self.rows.len();
                        self.running.begin(usize::MAX, self.level, 0);
                        self.run(inner);
                        self.written.roll_back(self.level);
                        self.running.roll_back(self.level);
                        self.messages.pop();
                        self.level -= 1;
                        self.rows.truncate(rows);
                    }
                }
            }
            match self.running.end(id) {
                // As if what ran inside of it had set another context.
                End::Inside(content) => self.emit(&content.unwrap_or_default()),
                end => assert_eq!(end, End::Outermost),
            }
        }
    }

    proptest! {
        #[test]
        fn rows_behind_a_nested_statement_have_the_context_of_the_statement_around_it(statements in prop::collection::vec(nested(), 1..4)) {
            let mut simulation = Simulation { level: 1, messages: vec![Vec::new()], ..Default::default() };
            for statement in &statements {
                simulation.run(statement);
            }
            for (seen, expected) in &simulation.rows {
                prop_assert_eq!(seen, expected);
            }
        }
    }

    #[test]
    fn the_statement_that_loads_the_library_ends_like_any_other() {
        let mut running = Running::new();
        running.set_content(1, 3, Some("A".into()));
        running.begin(7, 1, 3);
        assert_eq!(running.end(7), End::Inside(Ok("A".into())));
        running.begin(7, 1, 3);
        running.begin(9, 1, 4);
        assert_eq!(running.end(9), End::Inside(Err(3)));
        assert_eq!(running.end(7), End::Inside(Ok("A".into())));
        assert_eq!(running.end(8), End::Outermost);
        assert_eq!(running.end(8), End::Unknown);
    }
}
