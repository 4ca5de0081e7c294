//! Browser tasks, with real processes. Without a browser there is little to test.

mod common;

use common::*;
use outlast::api::{OutcomeKind, TaskResult};
use outlast::{Browser, NewTask, OnContextLoss, Run, TaskSpec};
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;
use tokio::time::{sleep, timeout};

fn no_browser() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let missing = outlast_browser::find(None, &path).is_err();
    if missing {
        eprintln!("not tested: no browser here");
    }
    missing
}

fn spec(script: &str, args: Value) -> TaskSpec {
    let (script, page, on_context_loss) = (script.into(), String::new(), OnContextLoss::Fail);
    TaskSpec::new(Run::Browser(Browser { script, args, page, on_context_loss }))
}

async fn submit(base: &Base, id: &str, spec: TaskSpec) {
    base.client.submit(&NewTask { id: id.into(), spec }).await.unwrap();
}

async fn ended(base: &Base, id: &str) -> TaskResult {
    let waited = timeout(Duration::from_secs(120), base.client.wait(id)).await;
    waited.expect("it ends").unwrap()
}

fn value(result: &TaskResult) -> Value {
    result.value.parse().unwrap()
}

/// Waits until the script says that it is half way.
async fn half_way(base: &Base, id: &str) {
    let seen = async {
        while base.client.task_state(id).await.unwrap().progress != Some(0.5) {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(90), seen).await.expect("it gets there");
}

/// The browsers whose profiles are below the test's folder.
fn browsers(base: &Base) -> Vec<String> {
    let all = Command::new("ps").args(["-ww", "-eo", "pid,args"]).output().unwrap();
    let mark = format!("--user-data-dir={}", base.dir.path().canonicalize().unwrap().display());
    let text = String::from_utf8_lossy(&all.stdout).into_owned();
    let main = |l: &&str| l.contains(&mark) && !l.contains("--type=") && !l.contains("/bin/sh");
    text.lines().filter(main).map(|l| l.split_whitespace().next().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_run_fail_end_and_recover() {
    if no_browser() {
        return;
    }
    let base = Base::new();
    let _server = base.coordinator();
    let _worker = base.worker("w1", &base.url(), &["--slots", "2"]);
    base.connected("w1").await;
    let has = base.client.worker("w1").await.unwrap().capabilities;
    assert!(has["browser"].is_string() && has["webgl"].is_string(), "{has:?}");

    let mut plain = spec("task => [task.id, task.args.n * 2]", json!({"n": 4}));
    plain.requires.insert("webgl".into(), "*".into());
    submit(&base, "plain", plain).await;
    let result = ended(&base, "plain").await;
    assert_eq!((result.state.as_str(), value(&result)), ("succeeded", json!(["plain", 8])));

    submit(&base, "throws", spec("() => { throw new Error('no such luck') }", Value::Null)).await;
    let result = ended(&base, "throws").await;
    assert_eq!((result.state.as_str(), result.attempt), ("failed", 1));
    assert_eq!(result.message, "Error: no such luck");
    assert!(result.stderr.contains("at task.js:1:"), "{}", result.stderr);

    // Its browser is killed, and it goes on from its checkpoint in another one.
    let script = r#"async task => {
        const before = await task.restore();
        if (before) return [before.kept, task.attempt];
        await task.checkpoint({kept: "yes"});
        await task.artifact("note.txt", "hello");
        await task.progress(0.5, "half way");
        await new Promise(() => {});
    }"#;
    submit(&base, "crash", spec(script, Value::Null)).await;
    half_way(&base, "crash").await;
    // It travels beside the state.
    let arrived = async {
        while base.client.artifacts("crash").await.unwrap().artifacts.is_empty() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(60), arrived).await.expect("the artifact arrives");
    let pids = browsers(&base);
    assert_eq!(pids.len(), 1, "{pids:?}");
    assert!(Command::new("kill").arg("-9").args(&pids).status().unwrap().success());
    let result = ended(&base, "crash").await;
    assert_eq!((result.state.as_str(), value(&result)), ("succeeded", json!(["yes", 2])));
    let story = base.client.explain("crash").await.unwrap().sentences.join("\n");
    assert!(story.contains("browser_crash") && story.contains("with a new browser"), "{story}");

    // A lost context is another class, and is recovered from alike.
    let script = r#"async task => {
        if (task.attempt > 1) return task.attempt;
        const gl = document.createElement("canvas").getContext("webgl");
        gl.getExtension("WEBGL_lose_context").loseContext();
        await new Promise(() => {});
    }"#;
    submit(&base, "lost", spec(script, Value::Null)).await;
    let result = ended(&base, "lost").await;
    assert_eq!((result.state.as_str(), value(&result)), ("succeeded", json!(2)));
    let story = base.client.explain("lost").await.unwrap().sentences.join("\n");
    assert!(story.contains("context_lost"), "{story}");

    // Both ways to be stopped take the browser along.
    let waits = "async task => { await task.progress(0.5); await new Promise(() => {}) }";
    submit(&base, "cancel", spec(waits, Value::Null)).await;
    half_way(&base, "cancel").await;
    base.client.cancel("cancel").await.unwrap();
    assert_eq!(ended(&base, "cancel").await.state, "cancelled");
    let limited = TaskSpec { timeout: Some(6.0), ..spec(waits, Value::Null) };
    submit(&base, "limit", limited).await;
    let result = ended(&base, "limit").await;
    assert_eq!(result.outcome, Some(OutcomeKind::TimedOut), "{}", result.message);
    assert_eq!(browsers(&base), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_a_browser_is_given_no_browser_tasks() {
    let base = Base::new();
    let _server = base.coordinator();
    let _workers = [
        base.worker("none", &base.url(), &["--no-browser"]),
        base.worker("wrong", &base.url(), &["--browser", "/no/such/browser"]),
    ];
    for name in ["none", "wrong"] {
        base.connected(name).await;
        let has = base.client.worker(name).await.unwrap().capabilities;
        assert!(has.get("browser").is_none() && has.get("webgl").is_none(), "{has:?}");
    }
    let log = std::fs::read_to_string(base.dir.path().join("wrong.log")).unwrap();
    assert!(log.contains("/no/such/browser is no program"), "{log}");
    submit(&base, "t", spec("1", Value::Null)).await;
    sleep(Duration::from_millis(500)).await;
    let task = base.client.task("t").await.unwrap();
    assert_eq!(task.state, "pending");
    assert!(task.waiting_for.as_deref().unwrap_or_default().contains("browser"), "{task:?}");
    // By hand the same mistake has an exit code of its own.
    let script = base.dir.path().join("x.js");
    std::fs::write(&script, "1").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_outlast"));
    let ran = command.arg("browser").arg(&script).args(["--browser", "/no/such/browser"]).output();
    let ran = ran.unwrap();
    assert_eq!(ran.status.code(), Some(127));
    assert!(String::from_utf8_lossy(&ran.stderr).contains("no browser: /no/such/browser"));
}
