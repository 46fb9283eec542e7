//! A server of its own for tests: a new cluster in a new folder, reached by a socket there, stopped and removed at the
//! end.
use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use postgres::{Client, NoTls};

pub use crate::database::{Database, contexts, run, sqlstate};
use crate::log;
pub use crate::process::{Running, address_space_kb, most_resident_kb, resident_kb};
pub use crate::wait::{is_soon, patience, wait_until};

/// What a server says to a session besides results.
#[derive(Clone, Default)]
pub struct Notices(Arc<Mutex<Vec<String>>>);

impl Notices {
    /// What it said since the last call.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// One running server.
pub struct Server {
    folder: PathBuf,
    bin: PathBuf,
    /// What its environment has more than that of the tests.
    environment: Vec<(&'static str, &'static str)>,
    /// The major version.
    pub major: u32,
    has_template: bool,
    watch: Mutex<Watch>,
}

/// What is known of the server's log.
#[derive(Default)]
struct Watch {
    /// How much of it was looked at, in bytes.
    seen: usize,
    /// Processes that tests have killed.
    killed: HashSet<i32>,
    /// The tests that made the databases.
    tests: HashMap<String, &'static str>,
    /// What was found and belongs to tests that still run.
    kept: Vec<(&'static str, String)>,
}

thread_local! {
    /// The test that runs in this thread.
    static TEST: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// The settings of each server. Tests have many databases with a slot each. JIT, which only some builds have, takes longer than the
/// queries of the tests.
const SETTINGS: &str = "
listen_addresses = ''
wal_level = logical
max_replication_slots = 200
max_wal_senders = 50
max_prepared_transactions = 10
max_worker_processes = 50
max_connections = 200
statement_timeout = 120s
fsync = off
full_page_writes = off
autovacuum_naptime = 10min
jit = off
log_min_messages = warning
log_min_error_statement = panic
log_line_prefix = '%m [%p] %d '
";

/// The database of which others are copies.
const TEMPLATE: &str = "bemi_template";

impl Server {
    /// Starts a server of the version of `PG_CONFIG` (default: `pg_config` on the PATH), with more settings. Those of
    /// `BEMI_TEST_SETTINGS`, with a semicolon between, hold for all servers, unless a test sets them itself.
    pub fn start(settings: &str) -> Self {
        Self::start_with_environment(settings, &[])
    }

    /// As [`Server::start`], with variables in the server's environment.
    pub fn start_with_environment(settings: &str, environment: &[(&'static str, &'static str)]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("bemi-{}-{number}", std::process::id()));
        fs::create_dir(&folder).expect("a new folder for the server");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("permissions");
        let pg_config = std::env::var("PG_CONFIG").unwrap_or_else(|_| "pg_config".to_owned());
        let ask = |what: &str| {
            let output = Command::new(&pg_config).arg(what).output().expect("pg_config runs");
            String::from_utf8(output.stdout).expect("pg_config answers").trim().to_owned()
        };
        let version = ask("--version");
        let digits: String =
            version.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
        let (bin, major) = (ask("--bindir").into(), digits.parse().expect("a version"));
        let environment = environment.to_vec();
        let server = Self { folder, bin, environment, major, has_template: false, watch: Mutex::default() };
        if is_root() {
            server.check(Command::new("chown").arg("postgres").arg(&server.folder));
        }
        server.check(
            server
                .as_owner("initdb")
                .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync", "-D"])
                .arg(server.data()),
        );
        let knows_allow_list = {
            let output =
                server.as_owner("postgres").arg("--describe-config").output().expect("postgres describes its settings");
            String::from_utf8_lossy(&output.stdout).contains("output_plugin_libraries\t")
        };
        let mut conf = fs::read_to_string(server.data().join("postgresql.conf")).expect("its settings");
        conf.push_str(SETTINGS);
        if knows_allow_list {
            conf.push_str("output_plugin_libraries = 'pgoutput, test_decoding, bemi_decoder, wal2json, bemi_null'\n");
        }
        if let Ok(more) = std::env::var("BEMI_TEST_SETTINGS") {
            more.split(';').for_each(|setting| conf.extend([setting.trim(), "\n"]));
        }
        conf.push_str(settings);
        fs::write(server.data().join("postgresql.conf"), conf).expect("its settings are written");
        server.pg_ctl("start");
        server
    }

    /// Has new databases be copies of one that has the extension: making that takes longer than most tests.
    pub fn with_template(mut self) -> Self {
        let mut client = self.connect("postgres");
        client.batch_execute(&format!("CREATE DATABASE {TEMPLATE}")).expect("a new database");
        self.connect(TEMPLATE).batch_execute("CREATE EXTENSION bemi").expect("the extension");
        client.batch_execute(&format!("ALTER DATABASE {TEMPLATE} ALLOW_CONNECTIONS false")).expect("a template");
        self.has_template = true;
        self
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The folder of the socket, which is the host to connect to.
    pub fn host(&self) -> &Path {
        &self.folder
    }

    /// What the server wrote to its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Starts, stops or restarts the server.
    pub fn pg_ctl(&self, action: &str) {
        self.pg_ctl_with(action, "fast");
    }

    /// Stops the server in a mode of `pg_ctl`; its folder stays, and it can be started again.
    pub fn stop_with(&self, mode: &str) {
        self.pg_ctl_with("stop", mode);
    }

    fn pg_ctl_with(&self, action: &str, mode: &str) {
        let options = format!("-k {}", self.folder.display());
        let mut command = self.as_owner("pg_ctl");
        command.args([action, "-w", "-s", "-m", mode, "-t", "120", "-o", &options, "-D"]).arg(self.data());
        command.arg("-l").arg(self.folder.join("log"));
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().expect("pg_ctl runs");
        assert!(status.success(), "pg_ctl {action} failed: {}", self.log());
    }

    /// A program of this version, by the user who may run a server.
    fn as_owner(&self, program: &str) -> Command {
        let program = self.bin.join(program);
        let mut command = if is_root() { Command::new("runuser") } else { Command::new(&program) };
        if is_root() {
            command.args(["-u", "postgres", "--"]).arg(program).current_dir(&self.folder);
        }
        // With it, errors that pass through Rust show a stack trace as their detail.
        command.env_remove("RUST_BACKTRACE").envs(self.environment.iter().copied());
        command
    }

    /// A client program of this version that connects to a database.
    pub fn program(&self, program: &str, database: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.env("PGHOST", &self.folder).env("PGUSER", "postgres").env("PGDATABASE", database).env_remove("PGPORT");
        let options = match program {
            "pg_recvlogical" => std::env::var("BEMI_TEST_READER_OPTIONS").unwrap_or_default(),
            _ => session_options("postgres"),
        };
        command.env("PGOPTIONS", options);
        command
    }

    /// Runs a command that has to succeed.
    pub fn check(&self, command: &mut Command) -> Output {
        let output = command.stdin(Stdio::null()).output().expect("the command runs");
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    /// Connects to a database.
    pub fn connect(&self, database: &str) -> Client {
        self.connect_with(database, "postgres", "")
    }

    /// Connects to a database, if the server accepts connections.
    pub fn try_connect(&self, database: &str) -> Option<Client> {
        let mut config = postgres::Config::new();
        config.host_path(&self.folder).user("postgres").dbname(database).options(&session_options("postgres"));
        config.connect(NoTls).ok()
    }

    /// Connects as a role, with the options of `PGOPTIONS`.
    pub fn connect_with(&self, database: &str, user: &str, options: &str) -> Client {
        let mut config = postgres::Config::new();
        config.host_path(&self.folder).user(user).dbname(database);
        config.options(&format!("{} {options}", session_options(user)));
        config.connect(NoTls).expect("a connection")
    }

    /// Connects as a role, and keeps what the server says besides results: notices and warnings, with their hints.
    pub fn connect_listening(&self, database: &str, user: &str) -> (Client, Notices) {
        let notices = Notices::default();
        let mut config = postgres::Config::new();
        config.host_path(&self.folder).user(user).dbname(database).options(&session_options(user));
        let heard = notices.clone();
        config.notice_callback(move |notice| {
            let hint = notice.hint().map_or(String::new(), |hint| format!(" HINT: {hint}"));
            heard.0.lock().unwrap().push(format!("{}: {}{hint}", notice.severity(), notice.message()));
        });
        (config.connect(NoTls).expect("a connection"), notices)
    }

    /// Makes a new database with the extension and a slot for its changes.
    pub fn database(&self, name: &str) -> Database<'_> {
        self.database_with(name, "")
    }

    /// Makes a new database without the extension.
    pub fn bare_database(&self, name: &str) -> Database<'_> {
        self.connect("postgres").batch_execute(&format!("CREATE DATABASE {name}")).expect("a new database");
        Database { server: self, name: name.to_owned(), slot_is_made: false }
    }

    /// As [`Server::database`], with more clauses for CREATE DATABASE.
    pub fn database_with(&self, name: &str, clauses: &str) -> Database<'_> {
        let is_copy = self.has_template && clauses.is_empty();
        let clauses = if is_copy { format!("TEMPLATE {TEMPLATE}") } else { clauses.to_owned() };
        let mut client = self.connect("postgres");
        client
            .batch_execute(&format!("CREATE DATABASE \"{}\" {clauses}", name.replace('"', "\"\"")))
            .expect("a new database");
        if !is_copy {
            self.connect(name).batch_execute("CREATE EXTENSION bemi").expect("the extension");
        }
        if let Some(test) = TEST.get() {
            self.watch().tests.insert(name.to_owned(), test);
        }
        Database { server: self, name: name.to_owned(), slot_is_made: false }
    }
}

impl Server {
    /// Runs a test. It fails too if the log says that something crashed or leaked in a session of a database of the
    /// test, or in a process without a database; what a session of another test's database wrote is kept for that test.
    pub fn run(&self, name: &'static str, test: fn(&Self)) -> Result<(), String> {
        TEST.set(Some(name));
        let begun = Instant::now();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(self)));
        let seconds = begun.elapsed().as_secs();
        if seconds >= 20 {
            println!("{name} took {seconds} s");
        }
        let ills = self.ills(Some(name));
        match outcome {
            Ok(()) if ills.is_empty() => Ok(()),
            Ok(()) => Err(told(&ills)),
            Err(panic) => {
                if !ills.is_empty() {
                    eprintln!("{name}: {}", told(&ills));
                }
                std::panic::resume_unwind(panic)
            }
        }
    }

    /// Kills a process of the server with SIGKILL, which its log may then tell.
    pub fn kill(&self, pid: i32) -> bool {
        self.watch().killed.insert(pid);
        Command::new("kill").args(["-KILL", &pid.to_string()]).status().is_ok_and(|status| status.success())
    }

    fn watch(&self) -> std::sync::MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// What a test has to answer for, or all if it is none, of what the log says since it was looked at.
    fn ills(&self, test: Option<&'static str>) -> Vec<String> {
        let watch = &mut *self.watch();
        let log = fs::read(self.folder.join("log")).unwrap_or_default();
        let new = log.get(watch.seen..).unwrap_or_default();
        // A line that is being written is read the next time.
        let new = &new[..new.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)];
        watch.seen += new.len();
        for ill in log::ills(&String::from_utf8_lossy(new), &watch.killed) {
            let of = ill.database.and_then(|database| watch.tests.get(&database).copied());
            watch.kept.push((of.or(test).unwrap_or_default(), ill.line));
        }
        let is_mine = |(of, _): &mut (&'static str, String)| test.is_none_or(|test| *of == test);
        watch.kept.extract_if(.., is_mine).map(|(_, line)| line).collect()
    }

    /// Stops the server and removes its folder. Gives the lines of its log that must not be there and were not given
    /// before.
    pub fn end(&self) -> Vec<String> {
        let mut command = self.as_owner("pg_ctl");
        command.args(["stop", "-w", "-s", "-m", "immediate", "-D"]).arg(self.data());
        let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
        let ills = self.ills(None);
        let _ = fs::remove_dir_all(&self.folder);
        ills
    }

    /// Stops the server and removes its folder; fails if its log says that something crashed or leaked.
    pub fn stop(&self) {
        let ills = self.end();
        if std::thread::panicking() {
            ills.iter().for_each(|line| eprintln!("{line}"));
        } else {
            assert!(ills.is_empty(), "{}", told(&ills));
        }
    }
}

/// What a test fails with.
fn told(ills: &[String]) -> String {
    format!("the server's log has what must not be there:\n{}", ills.join("\n"))
}

impl Drop for Server {
    /// For a test that fails; stopping twice does no harm.
    fn drop(&mut self) {
        self.stop();
    }
}

/// What `BEMI_TEST_SESSION_OPTIONS` says, for sessions of the superuser that run SQL, as `PGOPTIONS` does: a setting
/// of `BEMI_TEST_SETTINGS` then holds for workers only. `BEMI_TEST_READER_OPTIONS` says the same for `pg_recvlogical`.
fn session_options(user: &str) -> String {
    let options = std::env::var("BEMI_TEST_SESSION_OPTIONS").unwrap_or_default();
    if user == "postgres" { options } else { String::new() }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata) == 0)
}
