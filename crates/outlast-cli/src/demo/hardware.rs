//! Demo of a training run whose batches are too large for its memory: it runs out of memory while its
//! link is down, is retried with smaller batches from its checkpoint, loses its link again during
//! recovery, and the next run starts with the batch size that worked.

use super::stage::{Report, Stage, until};
use anyhow::Context;
use outlast::api::{Explanation, HistoryEvent, TaskState};
use outlast::{Client, NewTask, Run, TaskSpec};
use outlast_chaos::Proxy;
use serde_json::json;
use std::path::Path;
use std::time::Duration;
use tokio::time::sleep;

const PROGRAM: &str = include_str!("train.py");
const STEPS: usize = 100;
/// Step after which the link is lost for the first time, and the duration of the loss.
const LOST: (usize, Duration) = (45, Duration::from_secs(4));
/// Duration of the loss during recovery.
const AGAIN: Duration = Duration::from_secs(3);

/// A completed step: attempt, batch size, number.
type Step = (u64, u64, usize);

fn steps(ledger: &Path) -> Vec<Step> {
    let text = std::fs::read_to_string(ledger).unwrap_or_default();
    let step = |line: &str| {
        let mut words = line.split(' ');
        let mut next = || words.next();
        Some((next()?.parse().ok()?, next()?.parse().ok()?, next()?.parse().ok()?))
    };
    text.lines().filter_map(step).collect()
}

struct Play<'a> {
    stage: &'a Stage,
    client: Client,
}

impl Play<'_> {
    async fn submit(&self, id: &str) -> anyhow::Result<()> {
        let program = self.stage.dir.join("train.py");
        let ledger = self.stage.dir.join(id);
        let outlast = std::env::current_exe()?;
        let words = [Path::new("python3"), &program, &outlast, &ledger];
        let argv = words.map(|w| w.display().to_string()).to_vec();
        let mut spec = TaskSpec::new(Run::Command(argv));
        spec.knobs.insert("batch_size".into(), vec![json!(64), json!(32), json!(16)]);
        self.client.submit(&NewTask { id: id.into(), spec }).await?;
        Ok(())
    }
    async fn at_step(&self, id: &str, step: usize) {
        while steps(&self.stage.dir.join(id)).len() < step {
            sleep(Duration::from_millis(10)).await;
        }
    }
    /// Waits until the task's history has a decision.
    async fn decided(&self, id: &str) -> anyhow::Result<HistoryEvent> {
        loop {
            let history = self.client.history(id).await?;
            if let Some(event) = history.events.into_iter().find(|e| e.event == "recovery") {
                return Ok(event);
            }
            sleep(Duration::from_millis(10)).await;
        }
    }
    async fn tell(&self, id: &str) -> anyhow::Result<Explanation> {
        let story = self.client.explain(id).await?;
        if !self.stage.quiet {
            println!("\n  outlast task explain {id}");
            for sentence in &story.sentences {
                println!("    {sentence}");
            }
            println!("    now: {}", story.now);
        }
        Ok(story)
    }
}

pub(super) async fn play(stage: &Stage) -> anyhow::Result<Report> {
    let python = std::process::Command::new("python3").arg("--version").output();
    python.context("this demo needs python3, which cannot be started")?;
    std::fs::write(stage.dir.join("train.py"), PROGRAM)?;
    let beats = ["--heartbeat-interval", "500ms", "--heartbeat-timeout", "2s"];
    let at = Stage::port()?;
    let _server = stage.coordinator(&at, &beats)?;
    let proxy = Proxy::bind("127.0.0.1:0", &at).await?;
    let (link, via) = (proxy.handle(), format!("http://{}", proxy.local_addr()));
    let _worker = stage.worker(
        "small",
        &via,
        &[&beats[..], &["--slots", "1", "--prefetch", "1"]].concat(),
    )?;
    let client =
        Client::builder(&format!("http://{at}")).patience(Duration::from_secs(30)).build()?;
    let play = Play { stage, client };
    until(&play.client, 1).await?;
    play.submit("first").await?;
    stage.say("task first: 100 steps in batches of 64, 32 or 16; a checkpoint every 10 steps");
    play.at_step("first", LOST.0).await;
    link.set("cut".parse()?);
    stage.say(&format!("step {}: LINK LOST; the samples grow, and memory runs out", LOST.0));
    sleep(LOST.1).await;
    let alone = steps(&stage.dir.join("first"));
    let died = alone.last().map_or(0, |s| s.2);
    stage.say(&format!("it died offline after step {died}; nobody knows yet"));
    link.heal();
    stage.say("LINK BACK: the coordinator learns of it");
    let decision = play.decided("first").await?;
    // During recovery: the new attempt is being sent.
    link.set("cut".parse()?);
    stage.say(&format!("decided: {}", decision.reason));
    stage.say("LINK LOST again, in mid-recovery");
    sleep(AGAIN).await;
    link.heal();
    stage.say("LINK BACK");
    let result = play.client.wait("first").await?;
    stage.say(&format!("first: {}, {:?}", result.state, result.stdout.trim()));
    play.submit("second").await?;
    let second = play.client.wait("second").await?;
    stage.say(&format!("second: {}, {:?}", second.state, second.stdout.trim()));
    let stories = [play.tell("first").await?, play.tell("second").await?];
    if !stage.quiet {
        println!();
    }
    let mut bad = Vec::new();
    let mut claim = |holds: bool, text: String| {
        if !holds {
            bad.push(text);
        }
    };
    let ran = steps(&stage.dir.join("first"));
    let (before, after): (Vec<Step>, Vec<Step>) = ran.iter().partition(|s| s.0 == 1);
    claim(result.state == TaskState::Succeeded, format!("the first task {}", result.state));
    claim(result.attempt == 2, format!("attempt {} decided it", result.attempt));
    claim(before.iter().all(|s| s.1 == 64), "its first attempt had other batches".into());
    claim(after.iter().all(|s| s.1 == 32), format!("it went on with {:?}", after.first()));
    let (from, kept) = (after.first().map_or(0, |s| s.2), died / 10 * 10);
    claim(from == kept + 1, format!("it went on at step {from}, not after checkpoint {kept}"));
    let done = after.last().map_or(0, |s| s.2);
    claim(done == STEPS, format!("it ended at step {done}"));
    let ran = steps(&stage.dir.join("second"));
    claim(second.state == TaskState::Succeeded, format!("the second task {}", second.state));
    claim(second.attempt == 1, format!("the second one took {} attempts", second.attempt));
    claim(ran.len() == STEPS, format!("the second one did {} steps", ran.len()));
    claim(ran.iter().all(|s| s.1 == 32), format!("the second one began with {:?}", ran.first()));
    let told = |story: &Explanation, words: &str| story.sentences.iter().any(|s| s.contains(words));
    claim(told(&stories[0], "out_of_memory"), "its history does not mention memory".into());
    claim(told(&stories[0], "going on from checkpoint"), "nor of its checkpoint".into());
    claim(told(&stories[1], "which worked for task first"), "nor does the second's".into());
    let json = json!({ "died_after": died, "went_on_at": from, "batch": 32,
        "second_attempts": second.attempt, "wrong": bad });
    let good = "It recovered with smaller batches from its checkpoint, and the next run started with these.";
    Ok(Report { bad, good, json })
}
