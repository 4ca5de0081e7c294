//! A system clock that jumps under a coordinator and its worker: libfaketime says what time it is.
#![cfg(target_os = "linux")]

mod common;

use common::{Base, Process};
use outlast::{NewTask, Run, TaskSpec};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use tokio::time::sleep;

/// Path of the library in Debian's package `libfaketime`.
fn library() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?.flatten();
    folders.map(|f| f.path().join("faketime/libfaketime.so.1")).find(|path| path.exists())
}

#[tokio::test]
async fn a_clock_that_jumps_for_a_while_removes_nothing_and_stretches_nothing() {
    let Some(library) = library() else {
        eprintln!("skipped: there is no libfaketime (`apt-get install libfaketime`)");
        return;
    };
    let base = Base::new();
    let dir = base.dir.path();
    let clock = dir.join("clock");
    let set = |offset: &str| {
        std::fs::write(dir.join("new"), offset).unwrap();
        std::fs::rename(dir.join("new"), &clock).unwrap();
    };
    set("+0");
    let clock_path = clock.display().to_string();
    let env = [
        ("LD_PRELOAD", library.to_str().unwrap()),
        ("FAKETIME_TIMESTAMP_FILE", &clock_path),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("FAKETIME_NO_CACHE", "1"),
    ];
    let path = |name: &str| dir.join(name).display().to_string();
    let (data, state) = (path("data"), path("w"));
    let coordinator = ["coordinator", "--listen", &base.at, "--data-dir", &data];
    let aged = ["--task-ttl", "1h", "--checkpoint-ttl", "1h", "--gc-interval", "500ms"];
    let args = [&coordinator[..], &aged].concat();
    let _coordinator = Process::spawn_with(dir, "coordinator", &args, &env);
    let args = ["worker", "--name", "w", "--coordinator", &base.at, "--state-dir", &state];
    let _worker = Process::spawn_with(dir, "w", &args, &env);
    base.connected("w").await;
    let submit = async |line: &str| {
        let task = NewTask::new(TaskSpec::new(Run::Shell(line.into())));
        base.client.submit(&task).await.unwrap();
        task.id
    };
    let outlast = env!("CARGO_BIN_EXE_outlast");
    let kept = submit(&format!("echo kept > f; {outlast} task checkpoint f")).await;
    assert_eq!(base.client.wait(&kept).await.unwrap().state, "succeeded");
    let spans = submit("sleep 6").await;
    sleep(Duration::from_secs(2)).await;
    set("+100d");
    // Removals by age are due again and again meanwhile.
    let ended = base.client.wait(&spans).await.unwrap();
    let jumped = Command::new(outlast)
        .args(["--coordinator", &base.url(), "doctor", "--state-dir", &path("doctor")])
        .env("OUTLAST_CONFIG", "/dev/null")
        .output()
        .unwrap();
    set("+0");
    let said = String::from_utf8_lossy(&jumped.stdout).into_owned();
    assert!(said.contains("has jumped within the last hour"), "{said}");
    assert_eq!(ended.state, "succeeded");
    sleep(Duration::from_secs(2)).await;
    let task = base.client.task(&kept).await.unwrap();
    assert_eq!(task.state, "succeeded", "it is 100 days old by a clock that was wrong");
    let checkpoints = base.client.checkpoints(&kept).await.unwrap().checkpoints;
    assert!(checkpoints.iter().any(|c| c.kept), "{checkpoints:?}");
    // From before the jump to after it, and to the end of it.
    let history = base.client.history(&spans).await.unwrap().events;
    let at = |event: &str| {
        let found = history.iter().find(|e| e.event == event).unwrap();
        found.at.parse::<jiff::Timestamp>().unwrap()
    };
    let ran = at("succeeded").duration_since(at("started")).as_secs();
    assert!((5..120).contains(&ran), "it ran for {ran} s");
}
