//! Wrong usage and unusual data on the command line, with real processes.

mod common;

use common::{Base, Process};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

fn command(base: &Base, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outlast"));
    command.args(args).current_dir(base.dir.path()).stdin(Stdio::null());
    command.env("OUTLAST_CONFIG", "/dev/null").env("OUTLAST_COORDINATOR", base.url());
    for name in ["OUTLAST_API_KEY", "OUTLAST_CA", "OUTLAST_DATA_DIR"] {
        command.env_remove(name);
    }
    command
}

fn run(base: &Base, args: &[&str]) -> Output {
    command(base, args).output().unwrap()
}

/// The code, and what was said to people.
fn said(out: &Output) -> (i32, String) {
    (out.status.code().unwrap(), String::from_utf8_lossy(&out.stderr).into_owned())
}

/// Runs it, which must end with this code and say this.
fn fails(base: &Base, args: &[&str], code: i32, says: &str) {
    let (got, text) = said(&run(base, args));
    assert_eq!(got, code, "{args:?}: {text}");
    assert!(text.contains(says), "{args:?}: {text}");
}

/// Runs a command whose standard output is closed, or a full disk.
fn printing_to(base: &Base, args: &[&str], to: Stdio) -> (i32, String) {
    let child = command(base, args).stdout(to).stderr(Stdio::piped()).spawn().unwrap();
    said(&child.wait_with_output().unwrap())
}

/// A pipe that nobody reads.
fn closed() -> Stdio {
    let mut child = Command::new("true").stdin(Stdio::piped()).spawn().unwrap();
    let pipe = child.stdin.take().unwrap();
    child.wait().unwrap();
    pipe.into()
}

fn full() -> Stdio {
    std::fs::File::options().write(true).open("/dev/full").unwrap().into()
}

fn write(base: &Base, name: &str, bytes: &[u8]) {
    std::fs::write(base.dir.path().join(name), bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn output_is_shown_as_it_was_written() {
    let base = Base::new();
    let _coordinator = base.coordinator();
    let _worker = base.worker("w", &base.url(), &["--no-browser", "--slots", "4"]);
    base.connected("w").await;
    // Short, and no text.
    let odd: Vec<u8> = (0..3000_u32).map(|n| (n * 7 % 256) as u8).collect();
    write(&base, "odd", &odd);
    let path = base.dir.path().join("odd").display().to_string();
    let out = run(&base, &["submit", "--wait", "--", "cat", &path]);
    assert!(out.status.success(), "{out:?}");
    assert_eq!(out.stdout, odd);
    // Longer than what a result holds, on standard error too.
    let line = "seq 20000; seq 30000 >&2; exit 3";
    let out = run(&base, &["submit", "--id", "long", "--wait", "--shell", line]);
    assert_eq!(out.status.code(), Some(3));
    assert!(out.stdout.starts_with(b"1\n2\n") && out.stdout.ends_with(b"\n20000\n"));
    let told = String::from_utf8_lossy(&out.stderr);
    assert!(told.starts_with("1\n2\n") && told.contains("\n30000\n"), "{} bytes", told.len());
    let result = run(&base, &["task", "result", "long"]);
    let result = String::from_utf8_lossy(&result.stdout).into_owned();
    assert!(result.contains("stderr (the end of 165 KiB"), "{result}");
    assert!(result.contains("outlast task logs --stderr long)"), "{result}");

    // A reader that went away ends it quietly; what cannot be written is an error.
    let echo = ["submit", "--wait", "--", "echo", "hi"];
    let (code, text) = printing_to(&base, &echo, full());
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("standard output: No space left"), "{text}");
    assert_eq!(printing_to(&base, &echo, closed()), (0, String::new()));
    let (code, text) = printing_to(&base, &["doctor"], full());
    assert!(code == 1 && text.contains("standard output: "), "{text}");
    assert_eq!(printing_to(&base, &["doctor"], closed()).0, 0);

    // What there is no worker for has no log.
    run(&base, &["submit", "--id", "waits", "--requires", "moon", "--", "true"]);
    fails(&base, &["task", "logs", "waits"], 6, "no log yet");
    // Of many, each is tried.
    fails(&base, &["task", "cancel", "no", "waits", "long"], 6, "there is no task \"no\"");
    let task = base.client.task("waits").await.unwrap();
    assert_eq!(task.state, "cancelled");
    fails(&base, &["task", "retry", "no", "waits"], 3, "waits: pending");
    fails(&base, &["task", "pause", "no", "waits"], 3, "waits: is paused");
    fails(&base, &["task", "resume", "no", "waits"], 3, "waits: resumes");
    fails(&base, &["task", "checkpoint-now", "no", "waits"], 6, "waits");
    fails(&base, &["workers", "drain", "no", "w"], 3, "w: gets no new tasks");
    fails(&base, &["workers", "undrain", "no", "w"], 3, "w: gets new tasks again");
    fails(&base, &["recovery", "quarantine", "no", "w"], 3, "w: gets no work except probes");
    fails(&base, &["recovery", "release", "no", "w"], 3, "w: gets work again");
    // Programs are answered with JSON.
    for (args, says) in [
        (&["recovery", "quarantine", "w"][..], "\"quarantine\":\"quarantined\""),
        (&["recovery", "release", "w"], "\"name\":\"w\""),
        (&["recovery", "forget", "--all"], "\"forgotten\":true"),
        (&["workers", "reset-stats", "w"], "\"asked\":\"reset_connection_stats\""),
    ] {
        let out = run(&base, &[&["--json"], args].concat());
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success() && text.contains(says), "{args:?}: {out:?}");
        serde_json::from_str::<serde_json::Value>(&text).unwrap();
    }
    // A task without a command, in a file and by HTTP.
    write(&base, "tasks", b"true\n{\"slots\": 2}\n");
    fails(&base, &["submit", "--file", "tasks"], 2, "give one of command, shell, call or browser");
    let fetch = ["task", "fetch", "long", "-o", "nowhere/z"];
    fails(&base, &fetch, 2, "nowhere/z");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_told_once() {
    let base = Base::new();
    let mut coordinator = base.coordinator();
    base.client.counts().await.unwrap();
    let mut submit = command(&base, &["submit", "--array", "1-40", "--wait", "--", "true"]);
    let submit = submit.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    while base.client.counts().await.unwrap().total < 40 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    coordinator.kill();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let _coordinator = base.coordinator();
    let _worker = base.worker("w", &base.url(), &["--no-browser", "--slots", "8"]);
    let out = tokio::task::spawn_blocking(|| submit.wait_with_output().unwrap()).await.unwrap();
    let (code, text) = said(&out);
    assert_eq!(code, 0, "{text}");
    assert_eq!(text.matches("retrying").count(), 1, "{text}");
    assert_eq!(text.matches("is back").count(), 1, "{text}");
}

#[test]
fn mistakes_are_told_without_a_coordinator() {
    let base = Base::new();
    assert_eq!(printing_to(&base, &["completions", "bash"], closed()), (0, String::new()));
    let (code, text) = printing_to(&base, &["completions", "bash"], full());
    assert!(code == 1 && text.contains("standard output: "), "{text}");

    // Looking at keys makes nothing.
    fails(
        &base,
        &["keys", "--data-dir", "typo", "list"],
        2,
        "typo: contains no coordinator's data",
    );
    fails(&base, &["keys", "revoke", "k", "--data-dir", "typo"], 2, "--data-dir");
    assert!(!base.dir.path().join("typo").exists());
    fails(
        &base,
        &["keys", "add", "me", "--data-dir", "data"],
        0,
        "data: created a new data folder",
    );
    let out = run(&base, &["keys", "list", "--data-dir", "data"]);
    assert!(String::from_utf8_lossy(&out.stdout).contains("me"), "{out:?}");
    // They are in the folder: an address as a flag is a mistake, wherever it stands, and nothing is
    // made. The variable, which holds for all commands, is none.
    let url = base.url();
    for args in [
        &["keys", "--coordinator", &url, "--data-dir", "far", "add", "me"][..],
        &["--coordinator", &url, "keys", "--data-dir", "far", "add", "me"],
        &["keys", "add", "me", "--data-dir", "far", "--coordinator", &url],
        &["backup", "far", "--data-dir", "data", "--coordinator", &url],
        &["restore", "data", "--data-dir", "far", "--coordinator", &url],
    ] {
        fails(&base, args, 2, "leave out --coordinator and run it on the coordinator's machine");
    }
    assert!(!base.dir.path().join("far").exists());

    fails(&base, &["tasks", "-n", "0"], 2, "'--limit <N>'");
    write(&base, "odd", b"echo 1\necho \xff\n");
    fails(&base, &["submit", "--file", "odd"], 2, "odd:2: is not UTF-8");
    let stdin = std::fs::File::open(base.dir.path().join("odd")).unwrap();
    let out = command(&base, &["submit", "--file", "-"]).stdin(stdin).output().unwrap();
    assert_eq!(said(&out), (2, "outlast: -:2: is not UTF-8\n".into()));

    fails(&base, &["chaos", "--upstream", "nohost"], 2, "HOST:PORT");
    fails(&base, &["coordinator", "--heartbeat-interval", "0s"], 2, "too short");
    fails(&base, &["worker", "--heartbeat-interval", "0"], 2, "too short");
    let worker = ["worker", "--no-browser", "--state-dir", "w", "--max-reconnect-attempts", "1"];
    fails(&base, &worker, 5, "outlast: gave up after 1 attempts: ");
    fails(&base, &["--ca", "odd", "tasks"], 2, "odd: holds no certificate");
    write(&base, "config", b"[worker]\non_term = \"bogus\"\n");
    let out = command(&base, &["tasks"]).env("OUTLAST_CONFIG", "config").output().unwrap();
    let text = "outlast: config: [worker] on_term: \"bogus\" must be drain or stop\n";
    assert_eq!(said(&out), (2, text.into()));
}

#[test]
fn settings_are_shown_with_their_sources() {
    let base = Base::new();
    let file = "[worker]\nslots = 3\nprefetch = 2\nlabels = { zone = \"lab\" }\n\
                [client]\napi_key = \"secret\"\n[coordinator]\nhistory_budget = \"1G\"\n\
                [alerts]\nwebhook = \"http://h/x\"\nwebhook_token = \"secret\"\n\
                [alerts.latency]\nthreshold = 400\n";
    write(&base, "config", file.as_bytes());
    let show = |args: &[&str]| {
        let mut show = command(&base, &[&["config", "show"], args].concat());
        show.env("OUTLAST_CONFIG", "config").env("OUTLAST_WORKER_PREFETCH", "5");
        let out = show.output().unwrap();
        assert!(out.status.success(), "{args:?}: {out:?}");
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    let all = show(&[]);
    assert!(all.contains("history_budget = \"1G\"") && all.contains("prefetch = 5"), "{all}");
    assert!(!all.contains("secret"), "{all}");
    // It can be used as a file.
    write(&base, "config2", all.as_bytes());
    let mut again = command(&base, &["config", "show"]);
    assert!(again.env("OUTLAST_CONFIG", "config2").output().unwrap().status.success());
    let text = show(&["worker", "--origin", "--", "--slots", "4", "--label", "rack=7"]);
    for line in [
        "[worker]",
        "slots = 4  # flag --slots",
        "prefetch = 5  # environment OUTLAST_WORKER_PREFETCH",
        "heartbeat_interval = \"5s\"  # default",
        "on_term = \"drain\"  # default",
        "# name: this machine's",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line}: {text}");
    }
    assert!(text.contains("zone = \"lab\"") && text.contains("rack = \"7\""), "{text}");
    let text = show(&["worker", "--origin", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let slots = serde_json::json!({ "value": 3, "origin": "file", "source": "file config" });
    assert_eq!(json["worker"]["slots"], slots, "{text}");
    let text = show(&["alerts", "--origin"]);
    for line in [
        "[alerts]",
        "webhook_token = \"(hidden)\"  # file config",
        "webhook_timeout = \"5s\"  # default",
        "[alerts.latency]",
        "threshold = 400.0  # file config",
        "clear = 300.0  # default",
        "to = [\"log\", \"webhook\"]  # default",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line}: {text}");
    }
    let text = show(&["--origin", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["alerts"]["latency"]["threshold"]["origin"], "file", "{text}");
    assert_eq!(json["alerts"]["unfit"]["severity"]["value"], "critical", "{text}");
    let mut show = command(&base, &["--ca", "ca.pem", "config", "show", "client", "--origin"]);
    let out = show.env("OUTLAST_CONFIG", "config").env("OUTLAST_API_KEY", "k").output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    for line in [
        "ca = \"ca.pem\"  # flag --ca".to_owned(),
        "api_key = \"(hidden)\"  # environment OUTLAST_API_KEY".into(),
        format!("coordinator = \"{}\"  # environment OUTLAST_COORDINATOR", base.url()),
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line}: {text}");
    }
    let mut worker = command(&base, &["worker"]);
    let (code, text) = said(&worker.env("OUTLAST_WORKER_SLOTS", "0").output().unwrap());
    assert!(code == 2 && text.contains("'--slots <N>': must be a whole number from 1"), "{text}");
    assert!(text.contains("of the environment variable OUTLAST_WORKER_SLOTS"), "{text}");
    fails(&base, &["config", "show", "wroker"], 2, "invalid value 'wroker'");
    fails(&base, &["config", "show", "worker", "--", "--slots", "0"], 2, "from 1 to 1000000");
}

/// A certificate for this name; false where there is no openssl.
fn certificate(dir: &Path) -> bool {
    let args = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
                -subj /CN=outlast-test -addext subjectAltName=DNS:localhost,IP:127.0.0.1 \
                -addext basicConstraints=critical,CA:FALSE -keyout key.pem -out cert.pem";
    let mut openssl = Command::new("openssl");
    openssl.args(args.split_whitespace()).current_dir(dir);
    openssl.output().is_ok_and(|out| out.status.success())
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_with_tls_are_told_in_words() {
    let base = Base::new();
    let plain = base.coordinator();
    base.client.counts().await.unwrap();
    let https = format!("https://{}", base.at);
    fails(&base, &["--coordinator", &https, "tasks"], 5, "it may not speak TLS: try http://");
    drop(plain);
    let dir = base.dir.path();
    if !certificate(dir) {
        return;
    }
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    let tls = ["--tls-cert", cert.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let _tls: Process = base.coordinator_with(&tls);
    for _ in 0..100 {
        if run(&base, &["--coordinator", &https, "--ca", "cert.pem", "tasks"]).status.success() {
            break;
        }
    }
    fails(&base, &["--coordinator", &https, "tasks"], 5, "give it with --ca");
    fails(&base, &["tasks"], 5, "try https://");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_tasks_than_a_coordinator_ever_takes_go_in_parts() {
    let base = Base::new();
    let mut coordinator = base.coordinator_with(&["--max-unfinished", "3"]);
    let _worker = base.worker("w", &base.url(), &["--no-browser", "--slots", "4"]);
    let submit = ["submit", "--array", "1-20", "--id", "a", "--wait", "--", "true"];
    let mut submit = command(&base, &submit);
    let out = tokio::task::spawn_blocking(move || submit.output().unwrap()).await.unwrap();
    let (code, text) = said(&out);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("20 of 20 tasks succeeded"), "{text}");

    // Where even one is too many, that is an error, and not waited for.
    coordinator.signal("TERM");
    coordinator.0.wait().unwrap();
    let _coordinator = base.coordinator_with(&["--max-unfinished", "0"]);
    let mut submit = command(&base, &["submit", "--array", "1-2", "--", "true"]);
    let out = tokio::task::spawn_blocking(move || submit.output().unwrap()).await.unwrap();
    let (code, text) = said(&out);
    assert!(code == 2 && text.contains("raise max_unfinished"), "{code}: {text}");
}
