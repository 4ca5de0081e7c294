//! Demo fleet with faults for the dashboard: links that are cut, slow or half open, a worker that
//! stops and returns, and a continuous supply of tasks.

use super::stage::{Process, Stage, until};
use outlast::{Client, NewTask, Run, TaskSpec};
use outlast_chaos::Proxy;
use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Heartbeat settings that make losses visible within the demo.
const BEATS: [&str; 4] = ["--heartbeat-interval", "1s", "--heartbeat-timeout", "4s"];
/// Worker names, slots, and the faults of their common link (empty: none).
const GROUPS: [(&[&str], &str, &str); 4] = [
    (&["lab-1", "lab-2", "lab-3", "lab-4"], "2", ""),
    (&["edge-1", "edge-2", "edge-3"], "1", "random cut for 3s..14s every 15s..35s seed 7"),
    (&["sat-1", "sat-2"], "2", "0s delay=140ms~60ms"),
    (&["mobile-1", "mobile-2"], "1", "random half-open for 6s..9s every 25s..50s seed 11"),
];
/// Worker that is stopped, with the seconds until it stops and until it starts again.
const STOPPED: (&str, u64, u64) = ("lab-4", 30, 55);
/// Number of waiting tasks below which new ones are submitted.
const BACKLOG: u64 = 40;

struct Work<'a> {
    client: &'a Client,
    outlast: String,
    made: u64,
}

impl Work<'_> {
    fn task(&mut self, kind: &str, line: String) -> NewTask {
        self.made += 1;
        let mut spec = TaskSpec::new(Run::Shell(line));
        spec.labels = BTreeMap::from([("kind".into(), kind.into())]);
        // Short, so that reassignments are visible.
        spec.reconnect_window = 10.0;
        NewTask { id: format!("{kind}-{:04}", self.made), spec }
    }

    /// Script that reports its progress and saves checkpoints.
    fn training(&mut self) -> NewTask {
        let outlast = &self.outlast;
        let line = format!(
            "step=0
if '{outlast}' task restore point >/dev/null; then step=$(cat point); echo goes on after $step; fi
while [ $step -lt 20 ]; do
  step=$((step + 1)); sleep 1; echo step $step of 20
  '{outlast}' task progress $(printf 0.%02d $((step * 5 - 1))) --data \"{{\\\"step\\\": $step}}\" >/dev/null
  if [ $((step % 4)) -eq 0 ]; then
    echo $step > point; '{outlast}' task checkpoint point --meta \"{{\\\"step\\\": $step}}\" >/dev/null
  fi
done"
        );
        self.task("train", line)
    }

    async fn submit(&mut self, second: u64) -> anyhow::Result<()> {
        if self.client.counts().await?.pending > BACKLOG {
            return Ok(());
        }
        if second.is_multiple_of(8) {
            let task = self.training();
            self.client.submit(&task).await?;
        }
        for n in 0..3 + second % 5 {
            let pause = (second * 7 + n * 13) % 30;
            let line = match (second * 5 + n) % 61 {
                0 => "echo the disk is not there >&2; exit 3".to_owned(),
                _ => format!("sleep {}.{}; echo done", pause / 10, pause % 10),
            };
            let task = self.task("job", line);
            self.client.submit(&task).await?;
        }
        Ok(())
    }
}

pub(super) async fn play(stage: &Stage, time: Duration) -> anyhow::Result<()> {
    let at = Stage::port()?;
    let _server = stage.coordinator(&at, &BEATS)?;
    let url = format!("http://{at}");
    let client = Client::builder(&url).patience(Duration::from_secs(30)).build()?;
    let (mut proxies, mut workers) = (Vec::new(), BTreeMap::new());
    for (names, slots, faults) in GROUPS {
        let mut via = url.clone();
        if !faults.is_empty() {
            let proxy = Proxy::bind("127.0.0.1:0", &at).await?;
            via = format!("http://{}", proxy.local_addr());
            let (handle, schedule) = (proxy.handle(), faults.parse()?);
            tokio::spawn(async move { handle.run(&schedule, |_| {}).await });
            proxies.push(proxy);
        }
        for name in names {
            workers.insert(*name, worker(stage, name, &via, slots)?);
        }
    }
    until(&client, 1).await?;
    println!("Dashboard: {url}/dashboard");
    let (count, seconds) = (workers.len(), time.as_secs());
    println!("{count} workers, seven with unreliable links; for {seconds} s, or until Ctrl-C.");
    look(&format!("{url}/dashboard"));
    let outlast = std::env::current_exe()?.display().to_string();
    let mut work = Work { client: &client, outlast, made: 0 };
    let start = Instant::now();
    for second in 0.. {
        let Some(left) = time.checked_sub(start.elapsed()) else { break };
        work.submit(second).await?;
        if second == STOPPED.1 {
            stage.say(&format!("{} is stopped", STOPPED.0));
            // Its tasks are reassigned.
            workers.remove(STOPPED.0);
        } else if second == STOPPED.2 {
            stage.say(&format!("{} is back", STOPPED.0));
            workers.insert(STOPPED.0, worker(stage, STOPPED.0, &url, "2")?);
        }
        sleep(left.min(Duration::from_secs(1))).await;
    }
    println!("The demo has ended.");
    Ok(())
}

fn worker(stage: &Stage, name: &str, via: &str, slots: &str) -> anyhow::Result<Process> {
    let pauses = ["--slots", slots, "--max-reconnect-delay", "3s"];
    stage.worker(name, via, &[&BEATS[..], &pauses].concat())
}

/// Opens the page, if there is a desktop.
fn look(url: &str) {
    let desktop = ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|v| std::env::var_os(v).is_some());
    let open = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    if desktop || cfg!(target_os = "macos") {
        let quiet = (Stdio::null(), Stdio::null(), Stdio::null());
        let _ = Command::new(open).arg(url).stdin(quiet.0).stdout(quiet.1).stderr(quiet.2).spawn();
    }
}
