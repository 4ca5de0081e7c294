//! Workers that are killed, their keepers too, and machines that never come back.

mod common;

use common::{Base, Process};
use outlast::api::TaskResult;
use outlast::{NewTask, Rerun, Run, TaskSpec};
use std::time::Duration;
use tokio::time::{sleep, timeout};

struct Rig {
    base: Base,
    _coordinator: Process,
}

impl Rig {
    async fn new(workers: &[&str]) -> (Rig, Vec<Process>) {
        let base = Base::new();
        let _coordinator = base.coordinator();
        let rig = Rig { base, _coordinator };
        let started: Vec<Process> = workers.iter().map(|name| rig.worker(name)).collect();
        for name in workers {
            rig.base.connected(name).await;
        }
        (rig, started)
    }
    fn worker(&self, name: &str) -> Process {
        self.base.worker(name, &self.base.url(), &["--slots", "2", "--max-reconnect-delay", "1s"])
    }
    fn file(&self, name: &str) -> std::path::PathBuf {
        self.base.dir.path().join(name)
    }
    fn lines(&self, name: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.file(name)).unwrap_or_default();
        text.lines().map(ToOwned::to_owned).collect()
    }
    async fn submit(&self, id: &str, line: &str, edit: impl FnOnce(&mut TaskSpec)) {
        let mut spec = TaskSpec::new(Run::Shell(line.to_owned()));
        edit(&mut spec);
        self.base.client.submit(&NewTask { id: id.into(), spec }).await.unwrap();
    }
    async fn until(&self, what: impl Fn() -> bool) {
        let wait = async {
            while !what() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(60), wait).await.expect("it never happened");
    }
    async fn result(&self, id: &str) -> TaskResult {
        let wait = timeout(Duration::from_secs(90), self.base.client.wait(id)).await;
        wait.expect("the result never came").unwrap()
    }
    /// Kills this worker's keeper with SIGKILL.
    fn kill_keeper(&self, name: &str) {
        let root = self.file(name).join("tasks").display().to_string();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains(" keeper ") && line.contains(&root) {
                let pid = entry.file_name().into_string().unwrap();
                std::process::Command::new("kill").args(["-9", &pid]).status().unwrap();
            }
        }
    }
    /// A task of 40 steps of 0.1 s that keeps a checkpoint every ten, and writes each step down.
    fn stepper(&self) -> String {
        let outlast = env!("CARGO_BIN_EXE_outlast");
        let ledger = self.file("steps").display().to_string();
        format!(
            "step=0; if '{outlast}' task restore point; then step=$(cat point); fi
             while [ $step -lt 40 ]; do
               step=$((step + 1)); sleep 0.1; echo $OUTLAST_ATTEMPT $step >> '{ledger}'
               if [ $((step % 10)) -eq 0 ]; then
                 echo $step > point; '{outlast}' task checkpoint point || exit 9
               fi
             done; echo ended at $step"
        )
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_takes_its_tasks_back_and_runs_nothing_twice() {
    let (rig, mut workers) = Rig::new(&["w"]).await;
    let runs = rig.file("runs").display().to_string();
    rig.submit("long", &format!("echo $$ >> '{runs}'; sleep 4; echo $$"), |_| ()).await;
    rig.submit("short", &format!("echo $$ >> '{runs}'; sleep 1.5; echo done"), |_| ()).await;
    rig.until(|| rig.lines("runs").len() == 2).await;
    workers[0].kill();
    // The short one ends while nobody is there.
    sleep(Duration::from_secs(2)).await;
    let _worker = rig.worker("w");
    let (long, short) = (rig.result("long").await, rig.result("short").await);
    assert_eq!((long.state.as_str(), long.attempt), ("succeeded", 1), "{}", long.message);
    assert_eq!((short.state.as_str(), short.stdout.trim()), ("succeeded", "done"));
    assert_eq!(rig.lines("runs").len(), 2);
    // The very process that was started went on to its end.
    assert!(rig.lines("runs").contains(&long.stdout.trim().to_owned()));
    let story = rig.base.client.explain("long").await.unwrap().sentences.join("\n");
    assert!(story.contains("its process had ended, and was started again"), "{story}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destroyed_workers_task_goes_on_elsewhere_from_its_checkpoint() {
    let (rig, mut workers) = Rig::new(&["a", "b"]).await;
    rig.submit("steps", &rig.stepper(), |spec| spec.reconnect_window = 2.0).await;
    rig.until(|| rig.lines("steps").len() >= 25).await;
    let holder = rig.base.client.task("steps").await.unwrap().worker.unwrap();
    let at = ["a", "b"].iter().position(|name| *name == holder).unwrap();
    // The machine is gone: its processes, and its disk.
    workers[at].kill();
    rig.kill_keeper(&holder);
    std::process::Command::new("pkill")
        .args(["-9", "-f", &rig.file("steps").display().to_string()])
        .status()
        .unwrap();
    std::fs::remove_dir_all(rig.file(&holder)).unwrap();
    let before = rig.lines("steps").len();
    let result = rig.result("steps").await;
    assert_eq!((result.state.as_str(), result.attempt), ("succeeded", 2), "{}", result.message);
    assert_ne!(result.worker.as_deref(), Some(holder.as_str()));
    let steps = rig.lines("steps");
    assert!(steps[before..].first().is_some_and(|l| l == "2 21"), "{:?}", &steps[before..]);
    let story = rig.base.client.explain("steps").await.unwrap();
    let story = story.sentences.join("\n");
    assert!(story.contains("network") && story.contains("checkpoint 1-2"), "{story}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_keeper_costs_its_tasks_an_attempt_and_says_so() {
    let (rig, _workers) = Rig::new(&["w"]).await;
    rig.submit("steps", &rig.stepper(), |_| ()).await;
    rig.until(|| rig.lines("steps").len() >= 15).await;
    rig.kill_keeper("w");
    let result = rig.result("steps").await;
    assert_eq!((result.state.as_str(), result.attempt), ("succeeded", 2), "{}", result.message);
    let steps = rig.lines("steps");
    assert!(steps.contains(&"2 11".to_owned()) && !steps.contains(&"2 10".to_owned()), "{steps:?}");
    let history = rig.base.client.history("steps").await.unwrap();
    let lost = history.events.iter().find(|e| e.event == "requeued").unwrap();
    assert_eq!(lost.cause, "worker_crashed", "{lost:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_not_run_twice_fails_when_its_worker_dies() {
    let (rig, mut workers) = Rig::new(&["w"]).await;
    let runs = rig.file("runs").display().to_string();
    let line = format!("echo run >> '{runs}'; sleep 30");
    rig.submit("once", &line, |spec| spec.rerun = Rerun::Never).await;
    rig.until(|| rig.lines("runs").len() == 1).await;
    workers[0].kill();
    rig.kill_keeper("w");
    let _worker = rig.worker("w");
    let result = rig.result("once").await;
    assert_eq!(result.state, "failed");
    assert!(rig.base.client.task("once").await.unwrap().reason.contains("must not run twice"));
    assert_eq!(rig.lines("runs").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_kills_what_runs_it_is_stopped() {
    let (rig, _workers) = Rig::new(&["w"]).await;
    let runs = rig.file("runs").display().to_string();
    // Its parent is the keeper.
    let line = format!("echo run >> '{runs}'; kill -9 $PPID; sleep 30");
    rig.submit("poison", &line, |spec| spec.max_retries = 2).await;
    let result = rig.result("poison").await;
    assert_eq!(result.state, "failed");
    assert_eq!(rig.lines("runs").len(), 3);
    // And its worker still works.
    rig.submit("more", "echo fine", |_| ()).await;
    assert_eq!(rig.result("more").await.stdout.trim(), "fine");
}
