//! A database of a server for tests, and the changes that come out of it.
use std::process::{Command, Stdio};

use postgres::Client;
use serde_json::Value;

use crate::server::Server;
use crate::wait::{patience, wait_until};

/// A database of a server, and its changes.
pub struct Database<'a> {
    pub server: &'a Server,
    pub name: String,
    pub(crate) slot_is_made: bool,
}

impl Database<'_> {
    /// A new session.
    pub fn connect(&self) -> Client {
        self.server.connect(&self.name)
    }

    /// Has the log kept from here on.
    pub fn create_slot(&mut self) {
        let statement = format!("SELECT pg_create_logical_replication_slot('{}', 'bemi_decoder')", self.name);
        self.connect().batch_execute(&statement).expect("a slot");
        self.slot_is_made = true;
    }

    /// Says that the caller made the slot, under the name of the database.
    pub fn slot_is_there(&mut self) {
        self.slot_is_made = true;
    }

    /// Reads all changes since the last call, or since the slot was made, by `pg_recvlogical`.
    pub fn lines(&mut self) -> Vec<String> {
        let text = self.server.check(&mut self.recvlogical(&[])).stdout;
        String::from_utf8(text).expect("the stream is UTF-8").lines().map(str::to_owned).collect()
    }

    /// The command that reads all changes up to now, with more arguments.
    pub fn recvlogical(&self, arguments: &[&str]) -> Command {
        assert!(self.slot_is_made, "create_slot comes first");
        let end: String =
            self.connect().query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).expect("a position").get(0);
        let mut command = self.server.program("pg_recvlogical", &self.name);
        command.args([
            "-d",
            &self.name,
            "-S",
            &self.name,
            "--start",
            "--no-loop",
            "-F",
            "0",
            "-f",
            "-",
            "--endpos",
            &end,
        ]);
        command.args(arguments);
        command
    }

    /// The documents of all changes since the last call.
    pub fn documents(&mut self) -> Vec<Value> {
        let lines = self.lines();
        lines.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
    }

    /// Reads the same changes as the next call of [`Database::lines`] will, with options of the plugin
    /// (`name=value`), and leaves them there. On failure gives what the client said.
    pub fn read(&self, options: &[&str]) -> Result<Vec<String>, String> {
        let mut client = self.connect();
        let copy = format!("{}_copy", self.name);
        let statement = format!("SELECT pg_copy_logical_replication_slot('{}', '{copy}')", self.name);
        client.batch_execute(&statement).expect("a copy of the slot");
        let mut arguments = vec!["-S", copy.as_str()];
        arguments.extend(options.iter().flat_map(|option| ["-o", option]));
        let mut command = self.recvlogical(&arguments);
        // Options are sent in the encoding of the client.
        command.env("PGCLIENTENCODING", "UTF8").stdin(Stdio::null());
        let output = command.output().expect("pg_recvlogical runs");
        let idle = format!("SELECT NOT active FROM pg_replication_slots WHERE slot_name = '{copy}'");
        wait_until("the end of the reader", || client.query_one(&idle, &[]).expect("the slot").get(0));
        client.batch_execute(&format!("SELECT pg_drop_replication_slot('{copy}')")).expect("the copy goes");
        if output.status.success() {
            let text = String::from_utf8(output.stdout).expect("the stream is UTF-8");
            Ok(text.lines().map(str::to_owned).collect())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// As [`Database::read`], parsed.
    pub fn documents_with(&self, options: &[&str]) -> Vec<Value> {
        let lines = self.read(options).unwrap_or_else(|e| panic!("{options:?}: {e}"));
        lines.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
    }

    /// Runs the statements in a session of their own and gives the documents of their changes.
    pub fn changes_of(&mut self, statements: &str) -> Vec<Value> {
        self.connect().batch_execute(statements).unwrap_or_else(|e| panic!("{e:?}: {statements}"));
        self.documents()
    }
}

/// Runs statements each in a transaction of its own, unless they say otherwise. No text or body in them holds `; `. They wait
/// for the recorder as long as tests do.
pub fn run(client: &mut Client, statements: &str) {
    let sync = format!("bemi.sync('{} s')", patience().as_secs());
    for statement in statements.split("; ") {
        let statement = &statement.replace("bemi.sync()", &sync);
        client.batch_execute(statement).unwrap_or_else(|error| panic!("{error:?}: {statement}"));
    }
}

/// The contexts of documents.
pub fn contexts(documents: &[Value]) -> Vec<Value> {
    documents.iter().map(|document| document["context"].clone()).collect()
}

/// The SQLSTATE of a failed statement.
pub fn sqlstate<T: std::fmt::Debug>(result: Result<T, postgres::Error>) -> String {
    let error = result.expect_err("the statement fails");
    error.code().unwrap_or_else(|| panic!("an error of the server, not {error}")).code().to_owned()
}
