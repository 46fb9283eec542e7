//! What is done to the server and to its recorder.
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use postgres::{Client, Error};

use crate::clients::{Shared, is_expected};
use crate::random::Random;
use crate::server::Server;

/// The recorder has to be back within this time.
const RETURN: Duration = Duration::from_secs(60);
/// So long the recorder may try in vain.
const LOW_LIMIT: Duration = Duration::from_secs(8);

/// So long it may catch up undisturbed.
const REST: Duration = Duration::from_secs(10);
/// With so many bytes of log to record, the clients shall write less.
const FAR_BEHIND: i64 = 200_000_000;

/// One thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ill {
    /// SIGKILL of the worker: the server ends all sessions and recovers.
    Kill,
    /// SIGTERM of the worker.
    Term,
    /// `pg_terminate_backend` of the worker.
    Terminate,
    /// As before, and `bemi.start()` while it is about to come back.
    StartAgain,
    /// The server stops without a checkpoint and is started again.
    StopImmediate,
    /// The server stops as usual and is started again.
    StopFast,
    Checkpoint,
    /// For some seconds there is no room for temporary files.
    LowLimit,
}

impl Ill {
    pub const ALL: [Self; 8] = [
        Self::Kill,
        Self::Term,
        Self::Terminate,
        Self::StartAgain,
        Self::StopImmediate,
        Self::StopFast,
        Self::Checkpoint,
        Self::LowLimit,
    ];

    /// As the report shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "SIGKILL",
            Self::Term => "SIGTERM",
            Self::Terminate => "pg_terminate_backend",
            Self::StartAgain => "bemi.start() meanwhile",
            Self::StopImmediate => "immediate stop",
            Self::StopFast => "fast stop",
            Self::Checkpoint => "checkpoint",
            Self::LowLimit => "low temp_file_limit",
        }
    }
}

/// Does it.
pub struct Tormentor<'a> {
    pub server: &'a Server,
    pub shared: &'a Shared,
    /// Whether the recorder comes back by itself when the server does.
    pub is_preloaded: bool,
    pub start: Instant,
    pub counts: BTreeMap<Ill, u32>,
    /// How often the recorder was seen to wait for room.
    pub backoffs: u32,
    /// The time that the recorder was awaited, in all and at most.
    pub waited: Duration,
    pub longest: Duration,
    /// It did not come back: there is nothing left to torment.
    pub is_lost: bool,
    /// What was done when.
    pub history: Vec<String>,
}

impl<'a> Tormentor<'a> {
    pub fn new(server: &'a Server, shared: &'a Shared, is_preloaded: bool) -> Self {
        Self {
            server,
            shared,
            is_preloaded,
            start: Instant::now(),
            counts: BTreeMap::new(),
            backoffs: 0,
            waited: Duration::ZERO,
            longest: Duration::ZERO,
            is_lost: false,
            history: Vec::new(),
        }
    }

    /// Lets a recorder that is far behind catch up, for some seconds, so that its backlog does not grow for ever.
    pub fn rest(&mut self) {
        let start = Instant::now();
        while start.elapsed() < REST && self.lag() > FAR_BEHIND {
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Does one thing, and notes what did not go well.
    pub fn inflict(&mut self, ill: Ill, random: &mut Random) {
        let lag = self.lag();
        self.shared.is_behind.store(lag > FAR_BEHIND, Relaxed);
        self.note(&format!("{} at a lag of {lag} bytes", ill.name()));
        // The recorder may end by itself just before it is to be ended.
        for _ in 0..5 {
            let done = match ill {
                Ill::Kill => self.kill(),
                Ill::Term => self.signal("-TERM"),
                Ill::Terminate => self.terminate(),
                Ill::StartAgain => self.start_again(random),
                Ill::StopImmediate => self.restart("immediate", random),
                Ill::StopFast => self.restart("fast", random),
                Ill::Checkpoint => self.connect().batch_execute("CHECKPOINT").map(|()| true),
                Ill::LowLimit => self.low_limit(random),
            };
            match done {
                Ok(true) => {
                    *self.counts.entry(ill).or_default() += 1;
                    return;
                }
                Ok(false) if self.is_lost => return,
                Ok(false) => self.note("was not done"),
                // The server is still about to go.
                Err(error) if is_expected(&error) => self.note(&format!("was not done: {error}")),
                Err(error) => {
                    self.note(&format!("failed: {error:?}"));
                    self.shared.problem(format!("{} failed: {error:?}", ill.name()));
                    return;
                }
            }
        }
    }

    /// How much of the log is not recorded yet.
    fn lag(&self) -> i64 {
        let statement = "SELECT COALESCE(lag_bytes::bigint, 0) FROM bemi.status";
        self.connect().query_one(statement, &[]).map_or(0, |row| row.get(0))
    }

    fn note(&mut self, text: &str) {
        self.history.push(format!("{:8.3} s  {text}", self.start.elapsed().as_secs_f64()));
    }

    /// Connects as soon as the server has recovered.
    pub fn connect(&self) -> Client {
        let start = Instant::now();
        loop {
            if let Some(connection) = self.server.try_connect(self.shared.database) {
                return connection;
            }
            assert!(start.elapsed() < 2 * RETURN, "the server does not come back");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the recorder is there; gives its process id.
    pub fn recorder(&mut self) -> Option<i32> {
        let start = Instant::now();
        let mut connection = self.connect();
        let pid = loop {
            match connection.query_one("SELECT bemi.recorder_pid()", &[]).map(|row| row.get(0)) {
                Ok(Some(pid)) => break Some(pid),
                Ok(None) => {}
                Err(_) => connection = self.connect(),
            }
            if start.elapsed() > RETURN {
                self.note("the recorder is not back");
                self.shared.problem(format!("the recorder was not back within {RETURN:?}"));
                self.is_lost = true;
                break None;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        self.waited += start.elapsed();
        self.longest = self.longest.max(start.elapsed());
        pid
    }

    fn kill(&mut self) -> Result<bool, Error> {
        let mut witness = self.connect();
        let is_done = self.recorder().is_some_and(|pid| self.server.kill(pid));
        let start = Instant::now();
        // What comes next shall not meet a server that does not know of it yet.
        while is_done && start.elapsed() < RETURN && witness.batch_execute("SELECT 1").is_ok() {
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(is_done)
    }

    fn signal(&mut self, signal: &str) -> Result<bool, Error> {
        let Some(pid) = self.recorder() else { return Ok(false) };
        Ok(Command::new("kill").args([signal, &pid.to_string()]).status().is_ok_and(|status| status.success()))
    }

    fn terminate(&mut self) -> Result<bool, Error> {
        if self.recorder().is_none() {
            return Ok(false);
        }
        let statement = "SELECT COALESCE(pg_terminate_backend(bemi.recorder_pid()), false)";
        self.connect().query_one(statement, &[]).map(|row| row.get(0))
    }

    /// There has to be one recorder then, and not a second one that fails for ever, since the first one has the slot.
    fn start_again(&mut self, random: &mut Random) -> Result<bool, Error> {
        if !self.terminate()? {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(random.below(500)));
        let mut connection = self.connect();
        connection.batch_execute("SELECT bemi.start()")?;
        std::thread::sleep(Duration::from_secs(5));
        let failed: Option<String> =
            connection.query_one("SELECT max(last_error) FROM bemi.status WHERE state = 'waiting'", &[])?.get(0);
        if let Some(error) = failed {
            self.note(&format!("it waits: {error}"));
            self.shared.problem(format!("the recorder waits 5 s after bemi.start(): {error}"));
        }
        Ok(true)
    }

    fn restart(&mut self, mode: &str, random: &mut Random) -> Result<bool, Error> {
        self.server.stop_with(mode);
        std::thread::sleep(Duration::from_millis(random.below(300)));
        self.server.pg_ctl("start");
        // Already there, it is left as it is; one that is on its way would be started twice.
        if !self.is_preloaded {
            self.connect().batch_execute("SELECT bemi.start()")?;
        }
        Ok(self.recorder().is_some())
    }

    fn low_limit(&mut self, random: &mut Random) -> Result<bool, Error> {
        let Some(_) = self.recorder() else { return Ok(false) };
        let mut connection = self.connect();
        let before = spilled(&mut connection)?;
        connection.batch_execute("ALTER SYSTEM SET temp_file_limit = '256kB'")?;
        connection.batch_execute("SELECT pg_reload_conf()")?;
        self.shared.wants_big.store(true, Relaxed);
        let statement =
            "SELECT state = 'waiting' OR COALESCE(last_error_at > now() - interval '1 s', false) FROM bemi.status";
        let start = Instant::now();
        // One that does not mind spills.
        let mut is_waiting = false;
        while start.elapsed() < LOW_LIMIT && !is_waiting && spilled(&mut connection)? == before {
            std::thread::sleep(Duration::from_millis(50));
            is_waiting = connection.query_one(statement, &[])?.get(0);
        }
        if is_waiting {
            self.backoffs += 1;
            self.note("it waits");
            // It tries in vain a few times more.
            std::thread::sleep(Duration::from_millis(random.below(3000)));
        }
        connection.batch_execute("ALTER SYSTEM RESET temp_file_limit")?;
        connection.batch_execute("SELECT pg_reload_conf()")?;
        // Now and then the next ill comes before it has tried again.
        if is_waiting && random.below(8) > 0 {
            self.goes_on(&mut connection, before)?;
        }
        Ok(true)
    }

    /// Waits until the recorder has recorded what it had no room for.
    fn goes_on(&mut self, connection: &mut Client, before: i64) -> Result<(), Error> {
        let start = Instant::now();
        while spilled(connection)? == before {
            if start.elapsed() > RETURN {
                let statement = "SELECT to_jsonb(s)::text FROM bemi.status s";
                let status: String = connection.query_one(statement, &[])?.get(0);
                self.shared.problem(format!(
                    "the recorder did not go on within {RETURN:?} after there was room again: {status}"
                ));
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.note(&format!("it goes on after {:.1} s", start.elapsed().as_secs_f64()));
        Ok(())
    }
}

/// How many bytes the recorder had in temporary files.
pub fn spilled(connection: &mut Client) -> Result<i64, Error> {
    Ok(connection.query_one("SELECT spilled_bytes FROM bemi.status", &[])?.get(0))
}
