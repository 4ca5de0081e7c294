//! A worker's state folder that was copied to another machine, with real processes.

mod common;

use common::{Base, Process};
use outlast::{NewTask, Run, TaskSpec};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Waits until the process ends: its exit code and what it logged.
async fn ended(process: &mut Process, log: &Path) -> (Option<i32>, String) {
    let began = Instant::now();
    loop {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        if let Some(status) = process.0.try_wait().unwrap() {
            return (status.code(), text);
        }
        assert!(began.elapsed() < Duration::from_secs(120), "{text}");
        sleep(Duration::from_millis(50)).await;
    }
}

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(done.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_copies_of_a_state_folder_one_works_and_nothing_runs_twice() {
    let base = Base::new();
    let dir = base.dir.path();
    let _coordinator = base.coordinator();
    // An image is made of a machine that has worked.
    let mut worker = base.worker("w", &base.url(), &["--slots", "2"]);
    base.connected("w").await;
    worker.signal("TERM");
    ended(&mut worker, &dir.join("w.log")).await;
    let (state, clone) = (dir.join("w"), dir.join("clone"));
    copy(&state, &clone);

    let _worker = base.worker("w", &base.url(), &["--slots", "2"]);
    base.connected("w").await;
    let marks = dir.join("marks");
    let tasks = (0..40).map(|n| {
        let line = format!("echo {n} >> {}; sleep 0.1", marks.display());
        let mut spec = TaskSpec::new(Run::Shell(line));
        spec.rerun = outlast::Rerun::Never;
        NewTask { id: format!("t{n}"), spec }
    });
    base.client.submit_all(&tasks.collect::<Vec<_>>()).await.unwrap();
    let at = clone.display().to_string();
    let url = base.url();
    let args = ["worker", "--name", "w", "--coordinator", &url, "--state-dir", &at, "--slots", "2"];
    let log = dir.join("copy.log");
    // Each start of a service that is always restarted: the second one no longer asks.
    for start in 0..2 {
        let mut copied = Process::spawn(dir, "copy", &args);
        let (code, text) = ended(&mut copied, &log).await;
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains("a copy of the one of worker w"), "start {start}: {text}");
        assert!(text.contains("--new-identity") && text.contains("workers forget w"), "{text}");
    }
    let began = Instant::now();
    loop {
        let counts = base.client.counts().await.unwrap();
        if counts.succeeded == 40 {
            break;
        }
        assert_eq!(counts.failed, 0, "a copy on the same machine kills nothing");
        assert!(began.elapsed() < Duration::from_secs(120), "{counts:?}");
        sleep(Duration::from_millis(100)).await;
    }
    let text = std::fs::read_to_string(&marks).unwrap();
    let mut ran: Vec<u32> = text.lines().map(|l| l.parse().unwrap()).collect();
    ran.sort_unstable();
    assert_eq!(ran, (0..40).collect::<Vec<_>>(), "each ran once");

    // Everything that people look at names it.
    let seen = base.client.worker("w").await.unwrap();
    assert_eq!((seen.state.as_str(), seen.copied.unwrap().times), ("connected", 1));
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_outlast"));
        let output = command.args(["--coordinator", &url]).args(args).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(run(&["workers"]).contains("a copy of its folder was refused"));
    assert!(run(&["doctor"]).contains("a copy of the state folder of w is in use"));
    let began = Instant::now();
    loop {
        let firing = base.client.alerts(Some("firing")).await.unwrap().alerts;
        if firing.iter().any(|a| a.rule == "copies" && a.worker == "w") {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{firing:?}");
        sleep(Duration::from_millis(200)).await;
    }

    // With a new identity it is accepted.
    let args = ["worker", "--name", "w2", "--coordinator", &url, "--state-dir", &at];
    let _other = Process::spawn(dir, "w2", &[&args[..], &["--new-identity"]].concat());
    base.connected("w2").await;
    assert_ne!(base.client.worker("w2").await.unwrap().store_id, seen.store_id);
    let aside = std::fs::read_dir(&clone).unwrap().map(|e| e.unwrap().file_name());
    let aside = aside.filter(|n| n.to_string_lossy().starts_with("former-")).count();
    assert_eq!(aside, 1, "what it held is put aside");
}
