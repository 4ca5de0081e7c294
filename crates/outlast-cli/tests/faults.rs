//! The four faults where others lose work, with real processes: 4 tasks of 8 s in 2 slots.

mod common;

use common::rig::Rig;
use outlast::{NewTask, Run, TaskSpec};
use std::time::Duration;
use tokio::time::{sleep, timeout};

impl Rig {
    /// A rig at which four tasks run or wait.
    async fn with_tasks() -> Rig {
        let rig = Rig::new().await;
        let runs = rig.base.dir.path().join("runs");
        let task = |n: u32| {
            let line = format!("echo t{n} >> '{}'; sleep 8; echo result {n}", runs.display());
            NewTask { id: format!("t{n}"), spec: TaskSpec::new(Run::Shell(line)) }
        };
        rig.base.client.submit_all(&(1..=4).map(task).collect::<Vec<_>>()).await.unwrap();
        sleep(Duration::from_secs(2)).await;
        rig
    }

    /// Every result there once, nothing run twice, the worker back without help.
    async fn check(self) {
        for n in 1..=4 {
            let id = format!("t{n}");
            let wait = timeout(Duration::from_secs(120), self.base.client.wait(&id)).await;
            let result = wait.expect("the result never came").unwrap();
            assert_eq!((result.state.as_str(), result.exit_code), ("succeeded", Some(0)));
            assert_eq!(result.stdout.trim(), format!("result {n}"));
            let history = self.base.client.history(&id).await.unwrap();
            let ends = history.events.iter().filter(|e| e.event == "succeeded").count();
            assert_eq!(
                (ends, self.base.client.task(&id).await.unwrap().attempt),
                (1, 1),
                "{history:?}"
            );
        }
        let runs = std::fs::read_to_string(self.base.dir.path().join("runs")).unwrap();
        let mut runs: Vec<&str> = runs.lines().collect();
        runs.sort_unstable();
        assert_eq!(runs, ["t1", "t2", "t3", "t4"]);
        self.base.connected("w").await;
        let one = NewTask::new(TaskSpec::new(Run::Shell("echo more".into())));
        self.base.client.submit(&one).await.unwrap();
        let more = timeout(Duration::from_secs(120), self.base.client.wait(&one.id)).await;
        assert_eq!(more.expect("the worker takes no more work").unwrap().stdout.trim(), "more");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_link_is_cut_for_10_s() {
    let rig = Rig::with_tasks().await;
    rig.proxy.handle().set("cut".parse().unwrap());
    sleep(Duration::from_secs(10)).await;
    rig.proxy.handle().heal();
    rig.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_link_is_half_open_for_40_s() {
    let rig = Rig::with_tasks().await;
    rig.proxy.handle().set("half-open".parse().unwrap());
    sleep(Duration::from_secs(40)).await;
    rig.proxy.handle().heal();
    rig.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_coordinator_is_stopped_for_30_s() {
    let rig = Rig::with_tasks().await;
    rig.coordinator.signal("STOP");
    sleep(Duration::from_secs(30)).await;
    rig.coordinator.signal("CONT");
    rig.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_coordinator_is_killed_and_started_again() {
    let mut rig = Rig::with_tasks().await;
    rig.coordinator.kill();
    sleep(Duration::from_secs(3)).await;
    rig.coordinator = rig.base.coordinator();
    rig.check().await;
}
