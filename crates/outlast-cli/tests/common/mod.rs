//! Real processes for tests: started, signalled, ended with the test.
#![allow(dead_code)] // each test binary uses a part

pub mod rig;

use outlast::Client;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

/// A process of ours; ended with the test.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(Some(_))) {
            return;
        }
        self.signal("CONT");
        // Asked twice, a worker stops what it runs, and takes its keeper along.
        for _ in 0..2 {
            self.signal("TERM");
            std::thread::sleep(Duration::from_millis(50));
        }
        let deadline = Instant::now() + Duration::from_secs(8);
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.kill();
    }
}

impl Process {
    pub fn spawn(dir: &Path, name: &str, args: &[&str]) -> Process {
        Process::spawn_with(dir, name, args, &[])
    }
    /// With variables of its own.
    pub fn spawn_with(dir: &Path, name: &str, args: &[&str], env: &[(&str, &str)]) -> Process {
        let path = dir.join(format!("{name}.log"));
        let log = std::fs::File::options().create(true).append(true).open(path).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_outlast"));
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.env("OUTLAST_CONFIG", "/dev/null").env_remove("OUTLAST_API_KEY");
        // Most tests are about something else than keys.
        command.env("OUTLAST_NO_KEYS", "1");
        command.env_remove("OTEL_EXPORTER_OTLP_ENDPOINT");
        // What a browser can do here is found out once for all tests.
        command.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
        command.envs(env.iter().copied());
        Process(command.spawn().unwrap())
    }
    pub fn signal(&self, signal: &str) {
        let pid = self.0.id().to_string();
        let mut kill = Command::new("kill");
        let _ = kill.args([&format!("-{signal}"), &pid]).stderr(Stdio::null()).status();
    }
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A coordinator's command line and a client for it.
pub struct Base {
    pub dir: tempfile::TempDir,
    pub at: String,
    pub client: Client,
}

impl Base {
    pub fn new() -> Base {
        let dir = tempfile::tempdir().unwrap();
        let at = outlast_chaos::free_address().unwrap().to_string();
        let client = Client::builder(&format!("http://{at}")).patience(Duration::from_secs(60));
        Base { dir, at, client: client.build().unwrap() }
    }
    pub fn coordinator(&self) -> Process {
        self.coordinator_with(&[])
    }
    pub fn coordinator_with(&self, more: &[&str]) -> Process {
        let data = self.dir.path().join("data").display().to_string();
        let args = ["coordinator", "--listen", &self.at, "--data-dir", &data];
        Process::spawn(self.dir.path(), "coordinator", &[&args[..], more].concat())
    }
    pub fn worker(&self, name: &str, via: &str, more: &[&str]) -> Process {
        let state = self.dir.path().join(name).display().to_string();
        let args = ["worker", "--name", name, "--coordinator", via, "--state-dir", &state];
        Process::spawn(self.dir.path(), name, &[&args[..], more].concat())
    }
    pub fn url(&self) -> String {
        format!("http://{}", self.at)
    }
    /// Waits until this worker is connected.
    pub async fn connected(&self, name: &str) {
        let up = async {
            loop {
                let all = self.client.workers().await.unwrap();
                if all.workers.iter().any(|w| w.name == name && w.state == "connected") {
                    return;
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        let log = self.dir.path().join(format!("{name}.log"));
        let logs = || std::fs::read_to_string(&log).unwrap_or_default();
        timeout(Duration::from_secs(90), up).await.unwrap_or_else(|_| panic!("{}", logs()));
    }
}
