//! What must never stand in the log of a server under test, whatever the test itself looks at.
use std::collections::HashSet;

/// What a WARNING says when a transaction ends and something of it is left, or when memory was written out of bounds.
const LEFT_OVERS: [&str; 13] = [
    " leak: ",
    "resource was not closed",
    "not closed at end-of-transaction",
    "still active",
    "still referenced",
    "seem to remain after cleanup",
    "non-empty SPI stack",
    "problem in alloc set",
    "problem in slab",
    "problem in Generation",
    "problem in Bump",
    "write past chunk end",
    "don't own a lock",
];

/// A line that must not be there.
#[derive(Debug, PartialEq, Eq)]
pub struct Ill {
    /// The database of the session that wrote it, if one did.
    pub database: Option<String>,
    /// The line.
    pub line: String,
}

/// Finds failed assertions, crashes and what was left over, in lines that begin with `log_line_prefix = '%m [%p] %d '`.
/// A process that a test has killed may end by signal 9.
pub fn ills(log: &str, killed: &HashSet<i32>) -> Vec<Ill> {
    let lines = log.lines().filter_map(|line| {
        // An assertion is reported without a prefix.
        if line.starts_with("TRAP:") {
            return Some(Ill { database: None, line: line.to_owned() });
        }
        let (_, behind) = line.split_once(" [")?.1.split_once("] ")?;
        let (database, severity, text) = ["PANIC", "WARNING", "LOG"].iter().find_map(|severity| {
            let (database, text) = behind.split_once(&format!("{severity}:  "))?;
            Some((database.trim_end(), *severity, text))
        })?;
        let is_ill = match severity {
            "WARNING" => LEFT_OVERS.iter().any(|sign| text.contains(sign)),
            "LOG" => is_crash(text, killed),
            _ => true,
        };
        let database = (!database.is_empty()).then(|| database.to_owned());
        is_ill.then(|| Ill { database, line: line.to_owned() })
    });
    lines.collect()
}

/// Whether the postmaster says that one of its processes has crashed: `server process (PID 71) was terminated by signal
/// 11: …`. One that exits with a status other than 0 and 1 makes it restart all others.
fn is_crash(text: &str, killed: &HashSet<i32>) -> bool {
    let Some((_, behind)) = text.split_once("(PID ") else { return false };
    let Some((pid, how)) = behind.split_once(')') else { return false };
    if how.starts_with(" was terminated by signal 9:") {
        return !pid.parse().is_ok_and(|pid| killed.contains(&pid));
    }
    let is_abort = how.strip_prefix(" exited with exit code ").is_some_and(|code| !matches!(code.trim(), "0" | "1"));
    how.starts_with(" was terminated by signal ") || how.starts_with(" crashed") || is_abort
}

/// The check checks.
pub fn test() {
    let log = r#"2026-11-27 17:00:00.000 UTC [7]  LOG:  database system is ready to accept connections
2026-11-27 17:00:01.000 UTC [8] one WARNING:  there is no transaction in progress
2026-11-27 17:00:01.000 UTC [8] one WARNING:  resource was not closed: relation "t"
2026-11-27 17:00:01.000 UTC [8] o [n] e WARNING:  relcache reference leak: relation "t" not closed
2026-11-27 17:00:01.000 UTC [8] one ERROR:  a text like PANIC: and TRAP: and a leak: of memory
	TRAP: as part of a text
TRAP: failed Assert("ctx->streaming"), File: "logical.c", Line: 1446, PID: 9
2026-11-27 17:00:02.000 UTC [7]  LOG:  server process (PID 9) was terminated by signal 6: Aborted
2026-11-27 17:00:02.000 UTC [7]  LOG:  background worker "bemi recorder" (PID 10) was terminated by signal 9: Killed
2026-11-27 17:00:02.000 UTC [7]  LOG:  background worker "bemi recorder" (PID 11) was terminated by signal 9: Killed
2026-11-27 17:00:02.000 UTC [7]  LOG:  background worker "bemi recorder" (PID 12) exited with exit code 1
2026-11-27 17:00:02.000 UTC [7]  LOG:  server process (PID 13) exited with exit code 2
2026-11-27 17:00:03.000 UTC [14]  PANIC:  could not write to file
"#;
    let found: Vec<_> = ills(log, &HashSet::from([10]))
        .into_iter()
        .map(|ill| (ill.database, ill.line.split_at(32).1.to_owned()))
        .collect();
    let signs = ["resource", "relcache", "logical.c", "PID 9", "PID 11", "PID 13", "PANIC"];
    assert_eq!(found.len(), signs.len(), "{found:?}");
    assert!(found.iter().zip(signs).all(|((_, line), sign)| line.contains(sign)), "{found:?}");
    let databases: Vec<_> = found.iter().filter_map(|(database, _)| database.as_deref()).collect();
    assert_eq!(databases, ["one", "o [n] e"]);
}
