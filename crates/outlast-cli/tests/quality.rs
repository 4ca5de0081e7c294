//! Output about a link that is slow and then cut, with real processes and the chaos proxy.

mod common;

use common::{Base, Process};
use outlast::api::{WorkerMetrics, WorkerTimeline};
use outlast::{NewTask, Run, TaskSpec};
use outlast_chaos::Proxy;
use std::future::Future;
use std::process::Command;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Asks until the answer is as wanted.
async fn until<T: std::fmt::Debug, F: Future<Output = T>>(
    what: &str,
    ask: impl Fn() -> F,
    wanted: impl Fn(&T) -> bool,
) -> T {
    let asked = async {
        loop {
            let answer = ask().await;
            if wanted(&answer) {
                return answer;
            }
            sleep(Duration::from_millis(200)).await;
        }
    };
    match timeout(Duration::from_secs(60), asked).await {
        Ok(answer) => answer,
        Err(_) => panic!("{what} never came: {:#?}", ask().await),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_link_and_a_cut_are_seen_with_their_cause() {
    let base = Base::new();
    let _coordinator =
        base.coordinator_with(&["--heartbeat-interval", "1s", "--heartbeat-timeout", "4s"]);
    let proxy = Proxy::bind("127.0.0.1:0", &base.at).await.unwrap();
    let via = format!("http://{}", proxy.local_addr());
    let pace = ["--heartbeat-interval", "1s", "--heartbeat-timeout", "4s"];
    let _worker = base.worker("w", &via, &pace);
    base.connected("w").await;
    let client = &base.client;
    let metrics = || async { client.worker_metrics("w", "1s", None).await.unwrap() };
    let line = || async { client.timeline("w", None).await.unwrap() };
    let rtt = |m: &WorkerMetrics| m.link.rtt.as_ref().map_or(0.0, |r| r.last);
    let samples = |m: &WorkerMetrics| m.link.rtt.as_ref().map_or(0, |r| r.samples);
    let quick = until("a round trip", metrics, |m| samples(m) >= 2).await;
    assert!(rtt(&quick) < 200.0, "{quick:#?}");
    let task = NewTask { id: "t".into(), spec: TaskSpec::new(Run::Shell("sleep 14".into())) };
    client.submit(&task).await.unwrap();

    proxy.handle().set("delay=150ms".parse().unwrap());
    let slow = until("a slow round trip", metrics, |m| rtt(m) >= 280.0).await;
    assert!(slow.link.rtt.unwrap().p95 >= 280.0);
    let seen = |m: &WorkerMetrics| m.series.rtt_ms.iter().flatten().any(|ms| *ms >= 280.0);
    until("a slow round trip in the history", metrics, seen).await;

    proxy.handle().set("cut".parse().unwrap());
    let state = |t: &WorkerTimeline| t.intervals.last().map(|i| i.state.clone());
    let cut = until("a cut", line, |t| state(t).as_deref() == Some("suspect")).await;
    assert_eq!(cut.intervals.last().unwrap().cause, "network", "{cut:#?}");
    let away = metrics().await;
    assert!(away.link.suspicion.is_none() && away.link.last_disconnect.unwrap().cause == "network");
    sleep(Duration::from_secs(2)).await;
    proxy.handle().heal();
    let back = until("the worker", line, |t| state(t).as_deref() == Some("connected")).await;
    let states: Vec<&str> = back.intervals.iter().map(|i| i.state.as_str()).collect();
    assert_eq!(states, ["resync", "connected", "suspect", "resync", "connected"], "{back:#?}");
    let cut = &back.intervals[2];
    assert!(cut.to.unwrap() - cut.from >= 2_000, "{cut:?}");
    let m = metrics().await;
    assert_eq!((m.link.reconnects, m.link.reconnects_per_minute), (1, 1));
    assert!(m.max_reconnect_time.unwrap() >= 2.0 && m.connection_stability < 1.0, "{m:#?}");
    assert!(m.connection_attempts > 2 && m.successful_connections == 2, "{m:#?}");
    client.wait("t").await.unwrap();
    until("the task", metrics, |m| m.tasks_executed == 1).await;

    // The same in the terminal and for pipes.
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_outlast"));
        command.args(args).args(["--coordinator", &base.url()]).env("OUTLAST_CONFIG", "/dev/null");
        let out = command.output().unwrap();
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    let text = run(&["workers", "show", "w", "--last", "5m"]);
    assert!(text.contains("suspect") && text.contains("network: ") && text.contains('▒'), "{text}");
    assert!(!text.contains('\u{1b}'), "no colours in a pipe: {text}");
    let json: serde_json::Value =
        serde_json::from_str(&run(&["workers", "show", "w", "--json"])).unwrap();
    assert_eq!((&json["name"], &json["metrics"]["link"]["reconnects"]), (&"w".into(), &1.into()));
    let text = run(&["watch", "--once"]);
    assert!(text.contains("1 workers: 1 connected") && text.contains("WORKER"), "{text}");
    let json: serde_json::Value =
        serde_json::from_str(&run(&["watch", "--once", "--json"])).unwrap();
    assert_eq!(
        (&json["workers"]["name"][0], &json["fleet"]["connected"]),
        (&"w".into(), &1.into())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_of_checkpoints_counts_as_goodput_and_restores_are_told() {
    let base = Base::new();
    let _coordinator = base.coordinator_with(&["--heartbeat-interval", "1s"]);
    let _worker = base.worker("w", &base.url(), &["--heartbeat-interval", "1s"]);
    base.connected("w").await;
    let outlast = env!("CARGO_BIN_EXE_outlast");
    let line = format!(
        "head -c 3000000 /dev/urandom > c && {outlast} task checkpoint c && \
         {outlast} task restore back && cmp c back"
    );
    let task = NewTask { id: "t".into(), spec: TaskSpec::new(Run::Shell(line)) };
    base.client.submit(&task).await.unwrap();
    let result = base.client.wait("t").await.unwrap();
    assert_eq!(result.state, "succeeded", "{result:#?}");
    let metrics = || async { base.client.worker_metrics("w", "1m", None).await.unwrap() };
    let m = until("the checkpoint", metrics, |m| {
        m.checkpoints_created == 1 && m.checkpoints_restored == 1
    })
    .await;
    assert!(m.link.bytes_up > 2_900_000 && m.link.bytes_up < 4_000_000, "{m:#?}");
    assert_eq!(m.series.checkpoints.iter().flatten().sum::<u64>(), 1);
}

type Told = std::sync::Arc<std::sync::Mutex<Vec<serde_json::Value>>>;

/// Starts a webhook; returns its address and the alerts that it receives.
async fn hook() -> (String, Told) {
    let told = Told::default();
    let keep = told.clone();
    let take = move |body: String| {
        let delivery: serde_json::Value = serde_json::from_str(&body).unwrap();
        keep.lock().unwrap().extend(delivery["alerts"].as_array().unwrap().iter().cloned());
        async { axum::http::StatusCode::NO_CONTENT }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let app = axum::Router::new().route("/hook", axum::routing::post(take));
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, told)
}

fn with_alerts(base: &Base, alerts: &str) -> Process {
    let config = base.dir.path().join("config.toml");
    std::fs::write(&config, alerts).unwrap();
    let log = base.dir.path().join("coordinator.log");
    let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_outlast"));
    command.args(["coordinator", "--listen", &base.at, "--data-dir"]);
    command.arg(base.dir.path().join("data")).env("OUTLAST_CONFIG", config).stderr(log);
    command.env("OUTLAST_NO_KEYS", "1");
    Process(command.env_remove("OTEL_EXPORTER_OTLP_ENDPOINT").spawn().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alerts_that_stand_when_a_coordinator_is_killed_are_cleared_when_they_are_over() {
    let (url, told) = hook().await;
    let base = Base::new();
    let rule = "[alerts.task_success]\nmin_samples = 4\nclear_hold = \"1s\"";
    let alerts = format!("[alerts]\nwebhook = \"{url}\"\n{rule}\n");
    let mut coordinator = with_alerts(&base, &alerts);
    let _worker = base.worker("w", &base.url(), &["--no-browser"]);
    let tasks = async |name: &str, line: &str| {
        let spec = |n: usize| NewTask {
            id: format!("{name}-{n}"),
            spec: TaskSpec::new(Run::Shell(line.into())),
        };
        let all: Vec<_> = (0..6).map(spec).collect();
        base.client.submit_all(&all).await.unwrap();
        for task in &all {
            base.client.wait(&task.id).await.unwrap();
        }
    };
    let told = || async {
        let told = told.lock().unwrap();
        told.iter().map(|a| (a["state"].as_str().unwrap().to_owned(), a["id"].clone())).collect()
    };
    let count = |n: usize| move |told: &Vec<(String, serde_json::Value)>| told.len() >= n;
    tasks("bad", "exit 1").await;
    let fired = until("an alert", told, count(1)).await;
    // It is delivered at once, and stored within a moment.
    sleep(Duration::from_millis(500)).await;
    coordinator.kill();

    // Missing measurements do not clear an alert, and it is not delivered again.
    let mut coordinator = with_alerts(&base, &alerts);
    base.connected("w").await;
    sleep(Duration::from_secs(3)).await;
    assert_eq!(told().await, fired);
    tasks("good", "true").await;
    let cleared = until("its end", told, count(2)).await;
    let id = fired[0].1.clone();
    assert_eq!(cleared, [("firing".to_owned(), id.clone()), ("cleared".to_owned(), id)]);

    // One that nobody looks at any more is over.
    tasks("worse", "exit 1").await;
    let fired = until("another alert", told, count(3)).await;
    sleep(Duration::from_millis(500)).await;
    coordinator.kill();
    let _coordinator = with_alerts(&base, &format!("{alerts}enabled = false\n"));
    let cleared = until("its end", told, count(4)).await;
    assert_eq!(cleared[3], ("cleared".to_owned(), fired[2].1.clone()));
}
