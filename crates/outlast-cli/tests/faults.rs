//! The four faults where others lose work, with real processes: 4 tasks of 8 s in 2 slots.

use outlast::{Client, NewTask, Run, TaskSpec};
use outlast_chaos::Proxy;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// A process of ours; ended with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        self.signal("CONT");
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    fn spawn(dir: &Path, name: &str, args: &[&str]) -> Process {
        let path = dir.join(format!("{name}.log"));
        let log = std::fs::File::options().create(true).append(true).open(path).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_outlast"));
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.env("OUTLAST_CONFIG", "/dev/null").env_remove("OUTLAST_API_KEY");
        Process(command.spawn().unwrap())
    }
    fn signal(&self, signal: &str) {
        let pid = self.0.id().to_string();
        let _ = Command::new("kill").args([&format!("-{signal}"), &pid]).status();
    }
}

struct Rig {
    dir: tempfile::TempDir,
    at: String,
    coordinator: Process,
    proxy: Proxy,
    _worker: Process,
    client: Client,
}

impl Rig {
    fn coordinator(dir: &Path, at: &str) -> Process {
        let data = dir.join("data").display().to_string();
        Process::spawn(dir, "coordinator", &["coordinator", "--listen", at, "--data-dir", &data])
    }

    async fn new() -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let at = format!("127.0.0.1:{port}");
        let coordinator = Rig::coordinator(dir.path(), &at);
        let proxy = Proxy::bind("127.0.0.1:0", &at).await.unwrap();
        let via = format!("http://{}", proxy.local_addr());
        let state = dir.path().join("worker").display().to_string();
        let args =
            ["worker", "--name", "w", "--slots", "2", "--coordinator", &via, "--state-dir", &state];
        let _worker = Process::spawn(dir.path(), "worker", &args);
        let client = Client::builder(&format!("http://{at}")).patience(Duration::from_secs(60));
        let client = client.build().unwrap();
        let rig = Rig { dir, at, coordinator, proxy, _worker, client };
        rig.connected().await;
        let runs = rig.dir.path().join("runs");
        let task = |n: u32| {
            let line = format!("echo t{n} >> '{}'; sleep 8; echo result {n}", runs.display());
            NewTask { id: format!("t{n}"), spec: TaskSpec::new(Run::Shell(line)) }
        };
        rig.client.submit_all(&(1..=4).map(task).collect::<Vec<_>>()).await.unwrap();
        sleep(Duration::from_secs(2)).await;
        rig
    }

    async fn connected(&self) {
        let up = async {
            loop {
                let all = self.client.workers().await.unwrap();
                if all.workers.iter().any(|w| w.state == "connected") {
                    return;
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        let logs =
            || std::fs::read_to_string(self.dir.path().join("worker.log")).unwrap_or_default();
        timeout(Duration::from_secs(90), up).await.unwrap_or_else(|_| panic!("{}", logs()));
    }

    /// Every result there once, nothing run twice, the worker back without help.
    async fn check(self) {
        for n in 1..=4 {
            let id = format!("t{n}");
            let wait = timeout(Duration::from_secs(120), self.client.wait(&id)).await;
            let result = wait.expect("the result never came").unwrap();
            assert_eq!((result.state.as_str(), result.exit_code), ("succeeded", Some(0)));
            assert_eq!(result.stdout.trim(), format!("result {n}"));
            let history = self.client.history(&id).await.unwrap();
            let ends = history.events.iter().filter(|e| e.event == "succeeded").count();
            assert_eq!((ends, self.client.task(&id).await.unwrap().attempt), (1, 1), "{history:?}");
        }
        let runs = std::fs::read_to_string(self.dir.path().join("runs")).unwrap();
        let mut runs: Vec<&str> = runs.lines().collect();
        runs.sort_unstable();
        assert_eq!(runs, ["t1", "t2", "t3", "t4"]);
        self.connected().await;
        let one = NewTask::new(TaskSpec::new(Run::Shell("echo more".into())));
        self.client.submit(&one).await.unwrap();
        let more = timeout(Duration::from_secs(30), self.client.wait(&one.id)).await;
        assert_eq!(more.expect("the worker takes no more work").unwrap().stdout.trim(), "more");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_link_is_cut_for_10_s() {
    let rig = Rig::new().await;
    rig.proxy.handle().set("cut".parse().unwrap());
    sleep(Duration::from_secs(10)).await;
    rig.proxy.handle().heal();
    rig.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_link_is_half_open_for_40_s() {
    let rig = Rig::new().await;
    rig.proxy.handle().set("half-open".parse().unwrap());
    sleep(Duration::from_secs(40)).await;
    rig.proxy.handle().heal();
    rig.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_coordinator_is_stopped_for_30_s() {
    let rig = Rig::new().await;
    rig.coordinator.signal("STOP");
    sleep(Duration::from_secs(30)).await;
    rig.coordinator.signal("CONT");
    rig.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_coordinator_is_killed_and_started_again() {
    let mut rig = Rig::new().await;
    rig.coordinator.0.kill().unwrap();
    rig.coordinator.0.wait().unwrap();
    sleep(Duration::from_secs(3)).await;
    rig.coordinator = Rig::coordinator(rig.dir.path(), &rig.at);
    rig.check().await;
}
