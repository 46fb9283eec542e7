//! One transaction of a client, and what the log has to say of it. Its last row goes into the table `ledger` and tells
//! what the transaction did; so the database itself knows after a crash which transactions there were.
use std::fmt::Write as _;
use std::io::Write as _;

use postgres::{Client, Error, SimpleQueryMessage};
use serde_json::{Map, Value, json};

use crate::random::Random;

/// What a context holds.
pub type Context = Map<String, Value>;

/// The columns that every table has besides its key, `id`.
pub const COLUMNS: &str = "client, counter, step, note";

/// What must not be recorded, since it is rolled back, holds this word: in its row, its table's name, or its context.
pub const NEVER: &str = "never";

/// A session of a client.
pub struct Session {
    pub connection: Client,
    /// The number of the client.
    pub me: u64,
    /// The context of the session, on which those of its transactions build.
    pub context: Context,
}

impl Session {
    /// Runs one statement by the simple or the extended protocol; gives the number of rows that it changed.
    pub fn run(&mut self, random: &mut Random, statement: &str) -> Result<u64, Error> {
        if random.once_in(2) {
            return self.connection.execute(statement, &[]);
        }
        let messages = self.connection.simple_query(statement)?;
        let count = |message: &SimpleQueryMessage| match message {
            SimpleQueryMessage::CommandComplete(rows) => *rows,
            _ => 0,
        };
        Ok(messages.iter().map(count).sum())
    }

    /// Gives the session another context.
    pub fn set_context(&mut self, random: &mut Random, counter: u64) -> Result<(), Error> {
        let mut context = Context::new();
        if !random.once_in(3) {
            context.insert("session".to_owned(), json!(counter));
        }
        self.connection.batch_execute(&match random.below(2) {
            _ if context.is_empty() => "SELECT bemi.clear_context()".to_owned(),
            0 => format!("SET bemi.context = {}", literal(&context)),
            _ => format!("SELECT bemi.set_context({})", literal(&context)),
        })?;
        self.context = context;
        Ok(())
    }
}

struct Savepoint {
    /// The context and the length of the ledger's list when it was set.
    context: Context,
    did: usize,
    is_doomed: bool,
}

/// A transaction that has begun.
pub struct Transaction<'a> {
    pub session: &'a mut Session,
    pub random: &'a mut Random,
    pub counter: u64,
    step: u64,
    /// The context that the next statement has.
    context: Context,
    savepoints: Vec<Savepoint>,
    /// What it did, in order: `[table, operation, rows, context]`, and for the columns and tables that come and go
    /// `["add", table, column, value]`, `["drop", table, column]` and `["forget", table]`.
    did: Vec<Value>,
    is_doomed: bool,
}

impl<'a> Transaction<'a> {
    /// Begins one. If it is doomed, it is not going to be committed.
    pub fn begin(
        session: &'a mut Session,
        random: &'a mut Random,
        counter: u64,
        is_doomed: bool,
    ) -> Result<Self, Error> {
        session.connection.batch_execute("BEGIN")?;
        let context = session.context.clone();
        let mut transaction =
            Self { session, random, counter, step: 0, context, savepoints: Vec::new(), did: Vec::new(), is_doomed };
        transaction.set_context()?;
        Ok(transaction)
    }

    /// Whether what is done now is going to be rolled back.
    pub fn is_doomed(&self) -> bool {
        self.is_doomed || self.savepoints.iter().any(|savepoint| savepoint.is_doomed)
    }

    /// A name for something new.
    pub fn new_name(&mut self, prefix: &str) -> String {
        self.step += 1;
        let prefix = if self.is_doomed() { NEVER } else { prefix };
        format!("{prefix}_{}_{}_{}", self.session.me, self.counter, self.step)
    }

    fn mark(&self) -> Context {
        mark(self.session.me, self.counter, self.step, self.is_doomed())
    }

    /// Gives the statements that follow another context, in one of the ways there are, or leaves it.
    pub fn set_context(&mut self) -> Result<(), Error> {
        self.step += 1;
        let mark = self.mark();
        let statement = match self.random.below(10) {
            0..=2 => {
                self.context.clone_from(&mark);
                format!("SELECT bemi.set_context({}, true)", literal(&mark))
            }
            3..=5 => {
                self.context.clone_from(&mark);
                format!("SET LOCAL bemi.context = {}", literal(&mark))
            }
            6..=7 => {
                self.context.extend(mark.clone());
                format!("SELECT bemi.merge_context({}, true)", literal(&mark))
            }
            8 => {
                self.context.clear();
                "SELECT bemi.set_context(NULL, true)".to_owned()
            }
            _ => return Ok(()),
        };
        self.session.connection.batch_execute(&statement)
    }

    /// The context of the next statement, and the comment that makes it so.
    fn comment(&mut self) -> (Context, String) {
        self.step += 1;
        let mut context = self.context.clone();
        if !self.random.once_in(4) {
            return (context, String::new());
        }
        context.extend(self.mark());
        (context, format!("/*Bemi {} Bemi*/", Value::Object(self.mark())))
    }

    /// Values for [`COLUMNS`]: rows say which statement wrote them, by the context if it tells.
    fn values(&mut self, context: &Context) -> [String; 4] {
        let step = context.get("step").and_then(Value::as_u64).unwrap_or(self.step);
        let note = match self.random.below(40) {
            _ if self.is_doomed() => format!("'{NEVER}'"),
            // Too long for the row, and more so when it is not compressed.
            0 => "repeat('so much to tell ', 1000)".to_owned(),
            1 => "(SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 100))".to_owned(),
            2 => "NULL".to_owned(),
            n => format!("E'{n} é \"\\\\\\n'"),
        };
        [self.session.me.to_string(), self.counter.to_string(), step.to_string(), note]
    }

    /// Runs a statement that changes rows of a table, under a comment or not; gives their number.
    fn change(
        &mut self,
        table: &str,
        operation: &str,
        statement: impl FnOnce(&[String; 4]) -> String,
    ) -> Result<u64, Error> {
        let (context, comment) = self.comment();
        let values = self.values(&context);
        let statement = statement(&values);
        let text =
            if self.random.once_in(2) { format!("{comment}{statement}") } else { format!("{statement} {comment}") };
        let count = self.session.run(self.random, &text)?;
        if count > 0 {
            self.did.push(json!([table, operation, count, context]));
        }
        Ok(count)
    }

    /// Inserts rows.
    pub fn insert(&mut self, table: &str, count: u64) -> Result<u64, Error> {
        self.change(table, "CREATE", |values| {
            let values = values.join(", ");
            let from = if count == 1 { String::new() } else { format!(", generate_series(1, {count})") };
            // A set in the list of results is not kept anywhere, as one behind FROM is.
            let values = if from.is_empty() { format!("VALUES ({values})") } else { format!("SELECT {values}{from}") };
            let more = if from.is_empty() { "" } else { ", n" };
            format!("INSERT INTO {table} ({COLUMNS}{more}) {values}")
        })
    }

    /// Inserts rows by COPY.
    pub fn copy(&mut self, table: &str, count: u64) -> Result<u64, Error> {
        let (context, comment) = self.comment();
        let [me, counter, step, _] = self.values(&context);
        let note = if self.is_doomed() { NEVER } else { "copied \"é\" \\\\ " };
        let statement = format!("COPY {table} ({COLUMNS}, n) FROM STDIN {comment}");
        let mut writer = self.session.connection.copy_in(&statement)?;
        let mut rows = String::new();
        for number in 1..=count {
            let _ = writeln!(rows, "{me}\t{counter}\t{step}\t{note}\t{number}");
            if rows.len() > 1 << 16 || number == count {
                // The writer hides the server's error behind another; what comes next on this connection tells.
                if writer.write_all(rows.as_bytes()).is_err() {
                    break;
                }
                rows.clear();
            }
        }
        let copied = writer.finish()?;
        self.did.push(json!([table, "CREATE", copied, context]));
        Ok(copied)
    }

    /// Updates the rows that a condition names, their keys too if wanted.
    pub fn update(&mut self, table: &str, condition: &str, more: &str) -> Result<u64, Error> {
        // The note may be long and stay as it is.
        let keeps_note = !self.is_doomed() && self.random.once_in(3);
        self.change(table, "UPDATE", |[me, counter, step, note]| {
            let note = if keeps_note { "note" } else { note };
            let set = format!("client = {me}, counter = {counter}, step = {step}, note = {note}{more}");
            format!("UPDATE {table} SET {set} WHERE {condition}")
        })
    }

    /// Deletes the rows that a condition names.
    pub fn delete(&mut self, table: &str, condition: &str) -> Result<u64, Error> {
        self.change(table, "DELETE", |_| format!("DELETE FROM {table} WHERE {condition}"))
    }

    /// Empties tables by one statement.
    pub fn truncate(&mut self, tables: &[&str]) -> Result<(), Error> {
        let (context, comment) = self.comment();
        let statement = format!("TRUNCATE {} {comment}", tables.join(", "));
        self.session.run(self.random, &statement)?;
        self.did.extend(tables.iter().map(|table| json!([table, "TRUNCATE", 1, context])));
        Ok(())
    }

    /// Runs DDL, which is in the ledger only if it changes what rows look like.
    pub fn define(&mut self, statement: &str, did: Option<Value>) -> Result<(), Error> {
        self.session.run(self.random, statement)?;
        self.did.extend(did);
        Ok(())
    }

    /// Sets a savepoint. If it is doomed, it is going to be rolled back to.
    pub fn savepoint(&mut self) -> Result<(), Error> {
        let is_doomed = self.random.once_in(2);
        self.savepoints.push(Savepoint { context: self.context.clone(), did: self.did.len(), is_doomed });
        let name = format!("SAVEPOINT s{}", self.savepoints.len());
        self.session.connection.batch_execute(&name)
    }

    /// Ends the last savepoint as it is meant to end, if there is one.
    pub fn end_savepoint(&mut self) -> Result<(), Error> {
        let number = self.savepoints.len();
        let Some(savepoint) = self.savepoints.pop() else { return Ok(()) };
        if !savepoint.is_doomed {
            return self.session.connection.batch_execute(&format!("RELEASE s{number}"));
        }
        self.context = savepoint.context;
        self.did.truncate(savepoint.did);
        // It may stay where it is, for the transaction to end it.
        let release = if self.random.once_in(2) { format!("; RELEASE s{number}") } else { String::new() };
        self.session.connection.batch_execute(&format!("ROLLBACK TO s{number}{release}"))
    }

    /// Ends all savepoints and writes the ledger's row.
    pub fn close(&mut self) -> Result<(), Error> {
        while !self.savepoints.is_empty() {
            self.end_savepoint()?;
        }
        let (context, comment) = self.comment();
        self.did.push(json!(["ledger", "CREATE", 1, context]));
        let [me, counter, step, note] = self.values(&context);
        let id = format!("{me}.{counter}");
        let did = text(&Value::Array(std::mem::take(&mut self.did)));
        let statement = format!(
            "INSERT INTO ledger (id, {COLUMNS}, did) VALUES ('{id}', {me}, {counter}, {step}, {note}, {did}) {comment}"
        );
        self.session.run(self.random, &statement).map(|_| ())
    }

    /// Ends it: commits it, or rolls it back if it is doomed.
    pub fn end(mut self) -> Result<(), Error> {
        if self.is_doomed {
            if self.random.once_in(2) {
                self.close()?;
            }
            return self.session.connection.batch_execute("ROLLBACK");
        }
        self.close()?;
        self.session.connection.batch_execute("COMMIT")
    }

    /// Prepares it; gives the name by which any session can end it, which tells how it has to end.
    pub fn prepare(mut self) -> Result<String, Error> {
        let fate = if self.is_doomed { "ROLLBACK" } else { "COMMIT" };
        self.close()?;
        let name = format!("torture {} {} {fate}", self.session.me, self.counter);
        self.session.connection.batch_execute(&format!("PREPARE TRANSACTION '{name}'"))?;
        Ok(name)
    }
}

/// A transaction of two rows in one message, without BEGIN and COMMIT, which the server adds.
pub fn implicit(session: &mut Session, random: &mut Random, counter: u64) -> Result<(), Error> {
    let me = session.me;
    let context = mark(me, counter, 1, false);
    let mut commented = context.clone();
    commented.insert("step".to_owned(), json!(2));
    let did = text(&json!([["items", "CREATE", 1, commented], ["ledger", "CREATE", 1, context]]));
    let set = *random.one_of(&["SELECT bemi.set_context({}, true)", "SET LOCAL bemi.context = {}"]);
    let set = set.replace("{}", &literal(&context));
    let comment = Value::Object(commented);
    session.connection.batch_execute(&format!(
        "{set}; INSERT INTO items ({COLUMNS}) VALUES ({me}, {counter}, 2, 'alone') /*Bemi {comment} Bemi*/;
         INSERT INTO ledger (id, {COLUMNS}, did) VALUES ('{me}.{counter}', {me}, {counter}, 1, NULL, {did})"
    ))
}

/// Ends a prepared transaction as its name tells.
pub fn end_prepared(connection: &mut Client, name: &str) -> Result<(), Error> {
    let fate = name.rsplit(' ').next().unwrap_or_default();
    connection.batch_execute(&format!("{fate} PREPARED '{name}'"))
}

fn mark(me: u64, counter: u64, step: u64, is_doomed: bool) -> Context {
    let mut mark = Context::new();
    mark.insert("client".to_owned(), json!(me));
    mark.insert("counter".to_owned(), json!(counter));
    mark.insert("step".to_owned(), json!(step));
    if is_doomed {
        mark.insert(NEVER.to_owned(), json!(true));
    }
    mark
}

fn literal(context: &Context) -> String {
    text(&Value::Object(context.clone()))
}

/// JSON as a literal of SQL.
fn text(value: &Value) -> String {
    format!("'{}'", value.to_string().replace('\'', "''"))
}
