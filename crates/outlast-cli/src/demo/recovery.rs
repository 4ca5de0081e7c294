//! Demo of a benchmark of 1,000 steps, whose link is lost at step 875, after its checkpoint at 850: it
//! ends offline, and all data is at the coordinator once the link is back.

use super::stage::{Report, Stage, since, until, wall};
use futures_util::StreamExt;
use outlast::api::{CheckpointList, TaskResult, TaskState, TaskStateView, Worker};
use outlast::{Client, NewTask, Run, TaskSpec};
use outlast_chaos::Proxy;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::time::sleep;

const TASK: &str = "benchmark";
const STEPS: usize = 1000;
/// Step at which the link is lost.
const LOST: usize = 875;

/// Script of the task, which uses the commands for tasks.
fn script(outlast: &Path, ledger: &Path, pause: f64) -> String {
    let (outlast, ledger) = (outlast.display(), ledger.display());
    format!(
        "set -e
step=0
if '{outlast}' task restore point >/dev/null; then step=$(cat point); fi
while [ $step -lt {STEPS} ]; do
  step=$((step + 1))
  sleep {pause}
  echo $step >> '{ledger}'
  if [ $((step % 25)) -eq 0 ]; then
    '{outlast}' task progress $(printf %d.%03d $((step / 1000)) $((step % 1000))) \\
      --data \"{{\\\"step\\\": $step}}\" >/dev/null
  fi
  if [ $((step % 50)) -eq 0 ]; then
    echo $step > point
    '{outlast}' task checkpoint point --meta \"{{\\\"step\\\": $step}}\" >/dev/null
  fi
done
echo finished after step $step"
    )
}

struct Play<'a> {
    stage: &'a Stage,
    client: Client,
    ledger: PathBuf,
    log: PathBuf,
}

impl Play<'_> {
    fn steps(&self) -> usize {
        std::fs::read(&self.ledger).map_or(0, |b| b.iter().filter(|c| **c == b'\n').count())
    }
    async fn at_step(&self, step: usize) {
        while self.steps() < step {
            sleep(Duration::from_millis(5)).await;
        }
    }
    /// Waits until the worker's log contains this text after this offset in bytes.
    async fn worker_says(&self, words: &str, after: usize) -> String {
        loop {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let new = log.get(after..).unwrap_or_default();
            if let Some(line) = new.lines().find(|l| l.contains(words)) {
                let at = line.find(words).unwrap_or(0);
                return line[at..].to_owned();
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
    fn log_len(&self) -> usize {
        std::fs::metadata(&self.log).map_or(0, |m| m.len() as usize)
    }
}

pub(super) async fn play(stage: &Stage) -> anyhow::Result<Report> {
    let real = stage.real_time;
    let (pause, outage) = if real { (0.15, 45.0) } else { (0.008, 10.0) };
    let beats: &[&str] =
        if real { &[] } else { &["--heartbeat-interval", "500ms", "--heartbeat-timeout", "2s"] };
    let at = Stage::port()?;
    let _server = stage.coordinator(&at, beats)?;
    let proxy = Proxy::bind("127.0.0.1:0", &at).await?;
    let (link, via) = (proxy.handle(), format!("http://{}", proxy.local_addr()));
    let worker = stage.worker("bench", &via, &[beats, &["--slots", "1"]].concat())?;
    let client =
        Client::builder(&format!("http://{at}")).patience(Duration::from_secs(30)).build()?;
    let (ledger, log) = (stage.dir.join("steps"), stage.dir.join("bench.log"));
    let play = Play { stage, client, ledger, log };
    until(&play.client, 1).await?;
    stage.say("worker bench is CONNECTED");
    let line = script(&std::env::current_exe()?, &play.ledger, pause);
    let spec = TaskSpec::new(Run::Shell(line));
    play.client.submit(&NewTask { id: TASK.into(), spec }).await?;
    stage.say(&format!("task {TASK}: {STEPS} steps, a checkpoint every 50"));
    play.at_step(LOST).await;
    let before = play.client.checkpoints(TASK).await?;
    let newest = before.checkpoints.iter().rfind(|c| c.kept).map(step_of);
    let shown = newest.flatten().unwrap_or(0);
    stage.say(&format!("step {}: the newest checkpoint is of step {shown}", play.steps()));
    let known = play.log_len();
    link.set("half-open".parse()?);
    let lost = Instant::now();
    stage.say("LINK LOST: all data is dropped silently");
    let why = play.worker_says("disconnected", known).await;
    let noticed = lost.elapsed();
    // From here on no connection attempt is answered.
    link.set("cut".parse()?);
    stage.say(&format!("the worker noticed after {:.1} s: {why}", noticed.as_secs_f64()));
    let last = play.steps();
    stage.say(&format!("it continues, at step {last}, and keeps trying to reconnect"));
    play.at_step(STEPS).await;
    sleep(Duration::from_millis(300)).await;
    let task = play.client.task(TASK).await?;
    stage.say(&format!(
        "step {STEPS}: it ended offline; the coordinator still thinks it is {}",
        task.state
    ));
    let rest = Duration::from_secs_f64(outage).saturating_sub(lost.elapsed());
    sleep(rest).await;
    let (known, back) = (play.log_len(), wall());
    link.heal();
    stage.say(&format!("LINK BACK after {:.1} s", lost.elapsed().as_secs_f64()));
    let how = play.worker_says("connected", known).await;
    stage.say(&format!("the worker is CONNECTED again, {:.1} s later ({how})", since(back)));
    let result = play.client.wait(TASK).await?;
    stage.say(&format!("result: {}, {:?}", result.state, result.stdout.trim()));
    let synced = play.everything_there().await?;
    stage.say(&format!(
        "checkpoints and state have arrived, too, {:.1} s after the link",
        since(back)
    ));
    let report = play.judge(&result, &synced, shown).await?;
    drop(worker);
    Ok(report)
}

fn step_of(c: &outlast::api::Checkpoint) -> Option<u64> {
    c.meta.get("user")?.get("step")?.as_u64()
}

/// The coordinator's data at the end.
struct Synced {
    checkpoints: CheckpointList,
    state: TaskStateView,
    newest: String,
}

impl Play<'_> {
    /// Waits until the last checkpoint is at the coordinator, and reads it there.
    async fn everything_there(&self) -> anyhow::Result<Synced> {
        loop {
            let checkpoints = self.client.checkpoints(TASK).await?;
            let newest = checkpoints.checkpoints.iter().rfind(|c| c.kept);
            if newest.and_then(step_of) == Some(STEPS as u64) {
                let (_, data) = self.client.checkpoint_data(TASK, "latest", 0).await?;
                let mut data = std::pin::pin!(data);
                let mut all = Vec::new();
                while let Some(part) = data.next().await {
                    all.extend(part?);
                }
                let state = self.client.task_state(TASK).await?;
                let newest = String::from_utf8_lossy(&all).trim().to_owned();
                return Ok(Synced { checkpoints, state, newest });
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn judge(
        &self,
        result: &TaskResult,
        synced: &Synced,
        shown: u64,
    ) -> anyhow::Result<Report> {
        let mut bad = Vec::new();
        let mut claim = |holds: bool, text: String| {
            if !holds {
                bad.push(text);
            }
        };
        let ledger = std::fs::read_to_string(&self.ledger)?;
        let wanted: Vec<String> = (1..=STEPS).map(|n| n.to_string()).collect();
        let in_order = ledger.lines().eq(wanted.iter().map(String::as_str));
        claim(in_order, format!("{} steps were run, not {STEPS} in order", ledger.lines().count()));
        claim(result.state == TaskState::Succeeded, format!("the task {}", result.state));
        claim(result.attempt == 1, format!("attempt {} decided it", result.attempt));
        claim(shown == 850, format!("the checkpoint before the loss was of step {shown}"));
        claim(synced.newest == STEPS.to_string(), format!("the last one says {:?}", synced.newest));
        claim(synced.state.progress == Some(1.0), format!("progress {:?}", synced.state.progress));
        let step = synced.state.state.get("step").and_then(Value::as_u64);
        claim(step == Some(STEPS as u64), format!("its state says step {step:?}"));
        let made = synced.checkpoints.checkpoints.len();
        claim(made == STEPS / 50, format!("{made} checkpoints are known, not {}", STEPS / 50));
        let history = self.client.history(TASK).await?;
        let ends = history.events.iter().filter(|e| e.event == "succeeded").count();
        claim(ends == 1, format!("it has {ends} results"));
        let worker = self.client.worker("bench").await?;
        claim(worker.connection > 1, "the worker did not connect again".into());
        if !self.stage.quiet {
            self.tell(&worker, synced).await?;
        }
        let json = json!({ "steps": ledger.lines().count(), "checkpoints": made,
            "connection": worker.connection, "wrong": bad });
        let good = "No step was lost, and none was run twice.";
        Ok(Report { bad, good, json })
    }

    async fn tell(&self, worker: &Worker, synced: &Synced) -> anyhow::Result<()> {
        let story = self.client.explain(TASK).await?;
        println!();
        for sentence in &story.sentences {
            println!("  {sentence}");
        }
        println!("  now: {}", story.now);
        let kept = synced.checkpoints.checkpoints.iter().filter(|c| c.kept);
        let kept: Vec<&str> = kept.map(|c| c.id.as_str()).collect();
        println!("  checkpoints kept: {}; the newest says step {}", kept.join(", "), synced.newest);
        println!(
            "  worker {}: {}, dial {}, round trip {} ms",
            worker.name, worker.state, worker.connection, worker.rtt_ms
        );
        println!();
        Ok(())
    }
}
