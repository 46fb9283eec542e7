//! Processes beside the tests: what memory they have, and their end.
use std::fs;
use std::process::{Child, Command, Stdio};

/// Resident memory of a process, in kB.
pub fn resident_kb(pid: i32) -> i64 {
    memory_kb(pid, "VmRSS:")
}

/// The most that it ever was, in kB.
pub fn most_resident_kb(pid: i32) -> i64 {
    memory_kb(pid, "VmHWM:")
}

/// Its address space, in kB.
pub fn address_space_kb(pid: i32) -> i64 {
    memory_kb(pid, "VmSize:")
}

fn memory_kb(pid: i32, what: &str) -> i64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = status.lines().find(|line| line.starts_with(what)).expect("its memory");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).expect("a number")
}

/// A program that runs until this is dropped.
pub struct Running(Child);

impl Running {
    /// Starts it.
    pub fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().expect("the program runs"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
