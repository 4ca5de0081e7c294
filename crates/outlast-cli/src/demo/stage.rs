//! The stage of a demo: a folder, the processes that run there, and their ends.

use outlast::Client;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::time::sleep;

/// Time for a process to end on request.
const LEAVE: Duration = Duration::from_secs(5);

/// A child process, ended with the demo in any case.
pub(super) struct Process(Child);

impl Process {
    /// Kills the process with SIGKILL, like a power loss.
    pub fn kill(&mut self) -> std::io::Result<()> {
        self.0.kill()?;
        self.0.wait().map(drop)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(Some(_))) {
            return;
        }
        // A worker that ends on request also ends its keeper.
        let _ = Command::new("kill").arg(self.0.id().to_string()).stderr(Stdio::null()).status();
        let deadline = Instant::now() + LEAVE;
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The place where a scenario runs its processes.
pub(super) struct Stage {
    pub dir: PathBuf,
    pub start: Instant,
    pub quiet: bool,
    pub real_time: bool,
}

impl Stage {
    /// Prints a line with the time.
    pub fn say(&self, text: &str) {
        if !self.quiet {
            println!("{:>5.1}s  {text}", self.start.elapsed().as_secs_f64());
        }
    }
    /// Starts this program with other arguments.
    pub fn spawn(&self, name: &str, args: &[&str]) -> anyhow::Result<Process> {
        let path = self.dir.join(format!("{name}.log"));
        let log = File::options().create(true).append(true).open(path)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(args).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // The user's own settings do not apply to the demo.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("OUTLAST_") {
                command.env_remove(name);
            }
        }
        command.env("OUTLAST_CONFIG", "/dev/null").env("OUTLAST_NO_KEYS", "1");
        Ok(Process(command.spawn()?))
    }
    /// Starts a worker that stops at once on request.
    pub fn worker(&self, name: &str, via: &str, more: &[&str]) -> anyhow::Result<Process> {
        let state = self.dir.join(name).display().to_string();
        let args = [
            "worker",
            "--name",
            name,
            "--coordinator",
            via,
            "--state-dir",
            &state,
            "--on-term",
            "stop",
        ];
        self.spawn(name, &[&args[..], more].concat())
    }
    /// A free address, on which a coordinator can be restarted.
    pub fn port() -> std::io::Result<String> {
        Ok(outlast_chaos::free_address()?.to_string())
    }
    /// Starts a coordinator.
    pub fn coordinator(&self, at: &str, more: &[&str]) -> anyhow::Result<Process> {
        let data = self.dir.join("coordinator").display().to_string();
        let args = ["coordinator", "--listen", at, "--data-dir", &data];
        self.spawn("coordinator", &[&args[..], more].concat())
    }
}

/// Report of a scenario.
pub(super) struct Report {
    pub bad: Vec<String>,
    pub good: &'static str,
    pub json: serde_json::Value,
}

/// Unix time in milliseconds.
pub(super) fn wall() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Seconds since then.
pub(super) fn since(then: i64) -> f64 {
    (wall() - then) as f64 / 1000.0
}

/// Waits for this number of connected workers.
pub(super) async fn until(client: &Client, count: usize) -> anyhow::Result<()> {
    loop {
        let all = client.workers().await?;
        if all.workers.iter().filter(|w| w.state == "connected").count() >= count {
            return Ok(());
        }
        sleep(Duration::from_millis(50)).await;
    }
}
