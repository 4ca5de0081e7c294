//! Conditions and observations for tests with real processes.

use outlast_wire::{Run, TaskSpec};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

pub const PATIENCE: Duration = Duration::from_secs(120);

pub fn shell(line: &str) -> TaskSpec {
    TaskSpec::new(Run::Shell(line.to_owned()))
}

pub fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The pid that a task wrote into a file.
pub fn pid_in(file: &Path) -> i32 {
    until("a pid", || fs::read_to_string(file).ok()?.strip_suffix('\n')?.parse().ok())
}

pub fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}
