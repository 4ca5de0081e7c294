//! `outlast tasks`, with a real coordinator.

mod common;

use common::Base;
use outlast::{NewTask, Run, TaskSpec};
use serde_json::json;
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Standard output and error of `outlast tasks`.
fn tasks(base: &Base, args: &str) -> (String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outlast"));
    command.args(["--coordinator", &base.url(), "tasks"]).args(args.split_whitespace());
    let output = command.env("OUTLAST_CONFIG", "/dev/null").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[tokio::test]
async fn counts_keep_to_the_filter_and_a_full_page_is_not_said_to_be_more() {
    let base = Base::new();
    let _coordinator = base.coordinator();
    let task = |n: u32| {
        let mut spec = TaskSpec::new(Run::Shell("true".into()));
        spec.labels.insert("kind".into(), if n < 2 { "a" } else { "b" }.into());
        NewTask { id: format!("t{n}"), spec }
    };
    base.client.submit_all(&(0..5).map(task).collect::<Vec<_>>()).await.unwrap();
    base.client.cancel("t1").await.unwrap();
    let tasks = |args: &str| tasks(&base, args);
    let lines = |args| tasks(args).0.lines().count() - 1;
    for (args, count, more) in [
        ("-n 5", 5, false),
        ("-n 4", 4, true),
        ("-n 2 --label kind=a", 2, false),
        ("-n 1 --state cancelled", 1, false),
        ("-n 3 --label kind=b --oldest", 3, false),
        ("-n 2 --label kind=b", 2, true),
    ] {
        assert_eq!(lines(args), count, "{args}");
        assert_eq!(tasks(args).1.contains("and more"), more, "{args}");
    }
    for (args, pending, cancelled) in [
        ("", 4, 1),
        ("--label kind=a", 1, 1),
        ("--label kind=b", 3, 0),
        ("--state pending --prefix t1", 0, 0),
        ("--state cancelled,pending", 4, 1),
        ("--queue other", 0, 0),
    ] {
        let json = tasks(&format!("--count --json {args}")).0;
        let counts: serde_json::Value = serde_json::from_str(&json).unwrap();
        let of = |state: &str| counts[state].as_u64().unwrap();
        let found = (of("pending"), of("cancelled"), of("total"));
        assert_eq!(found, (pending, cancelled, pending + cancelled), "{args}");
    }
}

#[tokio::test]
async fn what_runs_is_counted_apart_from_what_waits_at_its_worker() {
    let base = Base::new();
    let _coordinator = base.coordinator();
    let _worker = base.worker("w", &base.at, &["--slots", "1", "--prefetch", "3"]);
    base.connected("w").await;
    let mut spec = TaskSpec::new(Run::Shell("sleep 600".into()));
    spec.kill_grace = 0.1;
    let task = |n: u32| NewTask { id: format!("t{n}"), spec: spec.clone() };
    base.client.submit_all(&(0..3).map(task).collect::<Vec<_>>()).await.unwrap();
    let shown = |args: &str| tasks(&base, args).0;
    let counts =
        || -> serde_json::Value { serde_json::from_str(&shown("--count --json")).unwrap() };
    let until = Instant::now() + Duration::from_secs(120);
    while (&counts()["assigned"], &counts()["running"]) != (&json!(3), &json!(1)) {
        assert!(Instant::now() < until, "{}", counts());
        sleep(Duration::from_millis(100)).await;
    }
    let states = |args: &str| {
        let text = shown(args);
        let of = |line: &str| line.split_whitespace().nth(1).map(ToOwned::to_owned);
        let mut states: Vec<_> = text.lines().skip(1).filter_map(of).collect();
        states.sort();
        states
    };
    assert_eq!(states(""), ["assigned", "assigned", "running"]);
    assert_eq!(states("--state running"), ["running"]);
    assert_eq!(states("--state assigned --state running").len(), 3);
    let text = shown("--count --state running");
    assert!(text.contains("of these running  1"), "{text}");
}
