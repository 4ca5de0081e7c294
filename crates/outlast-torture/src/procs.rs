//! Processes: started in an environment of their own, found in `/proc`, sent signals by their ids.

use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A child; killed and reaped with its owner.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// True while the process is stopped by SIGSTOP.
    pub stopped: bool,
}

impl Process {
    /// Standard output and error go to the end of `log`.
    pub fn spawn(program: &Path, args: &[String], log: &Path) -> io::Result<Process> {
        let log = File::options().create(true).append(true).open(log)?;
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // The user's own settings are not meant for this.
        for (name, _) in
            std::env::vars_os().filter(|(n, _)| n.as_encoded_bytes().starts_with(b"OUTLAST_"))
        {
            command.env_remove(name);
        }
        command.env("OUTLAST_CONFIG", "/dev/null").env("OUTLAST_NO_KEYS", "1");
        Ok(Process { child: command.spawn()?, stopped: false })
    }
    pub fn id(&self) -> u32 {
        self.child.id()
    }
    /// Returns the exit status, if the process has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
    /// Stops or continues the process. As an unreaped child, its id cannot be reused.
    pub fn stop(&mut self, on: bool) {
        signal(self.id(), if on { Signal::STOP } else { Signal::CONT });
        self.stopped = on;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        let _ = kill_process(pid, signal);
    }
}

fn all() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().to_str()?.parse().ok())
}

fn is_zombie(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']))
}

/// The keeper of a worker's state folder.
pub(crate) fn keeper(state: &Path) -> Option<u32> {
    let root = state.join("tasks").into_os_string().into_encoded_bytes();
    all().find(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|b| *b == 0);
        words.nth(1) == Some(b"keeper") && words.any(|w| w == root) && !is_zombie(*pid)
    })
}

/// Processes of tasks of a worker's state folder: they carry its socket in their environment.
pub(crate) fn tasks(state: &Path) -> Vec<u32> {
    let mut socket = b"OUTLAST_SOCKET=".to_vec();
    socket.extend(state.join("api.sock").into_os_string().into_encoded_bytes());
    let of = |pid: &u32| {
        let variables = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        variables.split(|b| *b == 0).any(|v| v == socket) && !is_zombie(*pid)
    };
    all().filter(of).collect()
}

/// Ends the keeper and the tasks of a state folder, and all that they still start meanwhile.
pub(crate) fn kill_all_of(state: &Path) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        let mut found = tasks(state);
        found.extend(keeper(state));
        if found.is_empty() {
            return;
        }
        for pid in found {
            signal(pid, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
