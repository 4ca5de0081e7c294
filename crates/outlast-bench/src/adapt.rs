//! `outlast-bench adapt`: adaptation beside fixed settings over real links, through the chaos
//! proxy. All pairs of a worker and its coordinator run at once, so that the machine's moods meet
//! both. Heartbeats are ten times as fast as usual, and so are the faults.

use outlast::api::WorkerMetrics;
use outlast::{Call, Client, NewTask, Run, TaskSpec};
use outlast_chaos::{Faults, Handle, Proxy};
use outlast_coordinator::{Config, Coordinator};
use outlast_core::adapt::Pins;
use outlast_core::coord::CoordConfig;
use outlast_core::worker::{HeartbeatConfig, ReconnectConfig, WorkerConfig};
use outlast_worker::shell::{Agent, AgentConfig, Function};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tokio::time::{sleep, sleep_until};

/// Milliseconds between heartbeats, and of silence, as configured.
const BEAT: (u64, u64) = (500, 1_500);
/// Time for which each pair is watched.
const LONG: Duration = Duration::from_secs(285);
/// Time at which the link dies for ten seconds, in seconds.
const DEATHS: [u64; 3] = [90, 180, 270];
/// Results of 12 kB over the thin link.
const RESULTS: usize = 400;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Scene {
    Dies,
    Idle,
    Stalls,
    Thin,
}

#[derive(Debug, Default)]
struct Figures {
    lost: u64,
    noticed: Vec<f64>,
    bytes: u64,
    slowest: f64,
    took: f64,
}

/// Prints the table.
pub(crate) fn run() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let scenes = [Scene::Dies, Scene::Idle, Scene::Stalls, Scene::Thin];
    let all = scenes.into_iter().flat_map(|s| [(s, false), (s, true)]);
    eprintln!("eight workers and coordinators, for {} s …", LONG.as_secs());
    let played = runtime.block_on(async {
        let pairs = all.map(|(scene, adapts)| tokio::spawn(play(scene, adapts)));
        futures_util::future::join_all(pairs).await
    });
    let played = played.into_iter().map(|p| p?).collect::<anyhow::Result<Vec<Figures>>>()?;
    println!(
        "| link | links closed for silence | until a dead link is noticed | bytes | slowest heartbeat | all results after |"
    );
    println!("|---|---|---|---|---|---|");
    for (scene, pair) in scenes.iter().zip(played.chunks(2)) {
        let show = |of: &dyn Fn(&Figures) -> String| format!("{} → {}", of(&pair[0]), of(&pair[1]));
        let mean = |f: &Figures| match f.noticed.len() {
            0 => "-".into(),
            n => format!("{:.2} s", f.noticed.iter().sum::<f64>() / n as f64),
        };
        let title = match scene {
            Scene::Dies => "at work, dies for 10 s every 90 s",
            Scene::Idle => "idle",
            Scene::Stalls => "stalls of 1.2 to 2.5 s every 12 s",
            Scene::Thin => "32 kB/s, 400 results of 12 kB",
        };
        println!(
            "| {title} | {} | {} | {} | {} | {} |",
            show(&|f| f.lost.to_string()),
            show(&mean),
            show(&|f| format!("{:.0} kB", f.bytes as f64 / 1e3)),
            show(&|f| format!("{:.2} s", f.slowest)),
            show(&|f| if f.took > 0.0 { format!("{:.0} s", f.took) } else { "-".into() }),
        );
    }
    Ok(())
}

async fn play(scene: Scene, adapts: bool) -> anyhow::Result<Figures> {
    let pins = if adapts { Pins::NONE } else { Pins::ALL };
    let (data, state) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let (heartbeat_interval, heartbeat_timeout) = BEAT;
    let core = CoordConfig { heartbeat_interval, heartbeat_timeout, pins, ..Default::default() };
    let config = Config {
        listen: ([127, 0, 0, 1], 0).into(),
        data_dir: data.path().into(),
        tls: None,
        core,
        blobs: Default::default(),
        retention: Default::default(),
        watch: Default::default(),
        ping: Default::default(),
        connections: Default::default(),
    };
    let coordinator = Coordinator::start(config).await?;
    let upstream = coordinator.local_addr().to_string();
    let proxy = Proxy::bind("127.0.0.1:0", &upstream).await?;
    let faults = proxy.handle();
    let text = include_str!("adapt.rs");
    let write = Function::inline(move |context| {
        let n = context.args["n"].as_u64().unwrap_or(0) as usize;
        let from = n * 37 % (text.len() / 2);
        let part: String = text.chars().cycle().skip(from).take(12_000).collect();
        Ok(Value::from(part))
    });
    let rest = Function::new(|context| {
        while !context.is_cancelled() {
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(Value::Null)
    });
    let core = WorkerConfig {
        name: "w".into(),
        slots: 16,
        heartbeat: HeartbeatConfig { interval: heartbeat_interval, timeout: heartbeat_timeout },
        reconnect: ReconnectConfig { initial_delay: 100, max_delay: 1_000, ..Default::default() },
        pins,
        ..Default::default()
    };
    let agent = Agent::start(AgentConfig {
        coordinator: format!("http://{}", proxy.local_addr()),
        state_dir: state.path().into(),
        api_key: None,
        ca_file: None,
        core,
        exec: None,
        keeper: None,
        functions: HashMap::from([("write".to_owned(), write), ("rest".to_owned(), rest)]),
        blob_budget: None,
        ping: Default::default(),
        identity: Default::default(),
        run_as: None,
    })?;
    let client = Client::builder(&format!("http://{upstream}")).build()?;
    let figures = watch(scene, &client, &faults, &agent).await;
    faults.heal();
    agent.stop();
    agent.wait().await;
    coordinator.shutdown().await;
    figures
}

fn task(function: &str, n: usize) -> NewTask {
    let call = Call { function: function.into(), args: json!({ "n": n }) };
    NewTask::new(TaskSpec::new(Run::Call(call)))
}

async fn watch(
    scene: Scene,
    client: &Client,
    faults: &Handle,
    agent: &Agent,
) -> anyhow::Result<Figures> {
    while client.workers().await?.workers.is_empty() {
        sleep(Duration::from_millis(20)).await;
    }
    let (mut figures, began) = (Figures::default(), Instant::now());
    match scene {
        Scene::Dies => {
            client.submit(&task("rest", 0)).await?;
            let half_open: Faults = "half-open".parse()?;
            for at in DEATHS {
                sleep_until((began + Duration::from_secs(at)).into()).await;
                let dead = Instant::now();
                faults.set(half_open.clone());
                while client.worker("w").await?.state == "connected" {
                    sleep(Duration::from_millis(10)).await;
                }
                figures.noticed.push(dead.elapsed().as_secs_f64());
                sleep_until((dead + Duration::from_secs(10)).into()).await;
                faults.heal();
            }
        }
        Scene::Idle => {}
        Scene::Stalls => {
            client.submit(&task("rest", 0)).await?;
            let stall: Faults = "stall".parse()?;
            for n in 1.. {
                let at = began + Duration::from_secs(12 * n);
                if at > began + LONG - Duration::from_secs(5) {
                    break;
                }
                sleep_until(at.into()).await;
                faults.set(stall.clone());
                // 1.2 to 2.5 s, evenly spread.
                sleep(Duration::from_millis(1_200 + n * 700 % 1_300)).await;
                faults.heal();
            }
        }
        Scene::Thin => {
            faults.set("bandwidth=32kB".parse()?);
            let tasks: Vec<NewTask> = (0..RESULTS).map(|n| task("write", n)).collect();
            client.submit_all(&tasks).await?;
            while client.counts().await?.succeeded < RESULTS as u64 {
                sleep(Duration::from_millis(50)).await;
            }
            figures.took = began.elapsed().as_secs_f64();
        }
    }
    let slowest = agent.stats().latency_samples().fold(0.0, f64::max);
    figures.slowest = slowest / 1e3;
    if scene == Scene::Idle {
        sleep_until((began + LONG).into()).await;
    }
    let stats = faults.stats();
    figures.bytes = stats.bytes_up + stats.bytes_down;
    let metrics: WorkerMetrics = client.worker_metrics("w", "1m", None).await?;
    figures.lost = metrics.link.disconnects.values().sum();
    Ok(figures)
}
