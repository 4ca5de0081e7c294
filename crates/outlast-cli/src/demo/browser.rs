//! Demo of a script that computes with WebGPU in a headless browser: its browser is killed, and it
//! resumes in a new one from its checkpoint.

use super::stage::{Report, Stage, until};
use anyhow::Context;
use outlast::api::TaskState;
use outlast::{Browser, Client, NewTask, OnContextLoss, Run, TaskSpec};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use tokio::time::sleep;

const SCRIPT: &str = include_str!("collatz.js");
/// Part after which the browser is killed.
const KILLED: usize = 20;
const PARTS: usize = 64;

/// Parses the parts in an attempt's output.
fn parts(output: &str) -> Vec<usize> {
    output.lines().filter_map(|l| l.strip_prefix("part ")?.parse().ok()).collect()
}

/// Computes the expected count on the processor.
fn expected() -> u64 {
    let steps = |mut n: u64| {
        let mut steps = 0;
        while n > 1 {
            n = if n % 2 == 1 { 3 * n + 1 } else { n / 2 };
            steps += 1;
        }
        steps
    };
    (0..65_536).map(steps).sum()
}

/// Finds the browser whose profile is below the folder: its process without a type.
fn browser_below(folder: &Path) -> Option<String> {
    let mark = format!("--user-data-dir={}", folder.display());
    let all = std::fs::read_dir("/proc").ok()?.flatten();
    let found = all.filter_map(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).into_owned();
        let main = line.contains(&mark) && !line.contains("--type=") && !line.contains("/bin/sh");
        main.then(|| entry.file_name().to_string_lossy().into_owned())
    });
    found.last()
}

pub(super) async fn play(stage: &Stage) -> anyhow::Result<Report> {
    let which = crate::browser::Which::default();
    let found = which.probe().await.map_err(anyhow::Error::msg);
    let found = found.context("this demo needs Chromium, which was not found")?;
    anyhow::ensure!(found.webgpu.is_some(), "this demo needs WebGPU, which this browser lacks");
    stage.say(&format!("browser: {} {}", found.name, found.version));
    let at = Stage::port()?;
    let _server = stage.coordinator(&at, &[])?;
    let url = format!("http://{at}");
    let _worker = stage.worker("web", &url, &["--slots", "1"])?;
    let client = Client::builder(&url).patience(Duration::from_secs(30)).build()?;
    until(&client, 1).await?;
    let browser = Browser {
        script: SCRIPT.into(),
        args: Value::Null,
        page: String::new(),
        on_context_loss: OnContextLoss::Fail,
    };
    let mut spec = TaskSpec::new(Run::Browser(browser));
    spec.requires.insert("webgpu".into(), "*".into());
    client.submit(&NewTask { id: "collatz".into(), spec }).await?;
    stage.say("task collatz: 64 parts on WebGPU; a checkpoint every 8 parts");
    let mut done = 0;
    while done < KILLED {
        sleep(Duration::from_millis(20)).await;
        let progress = client.task_state("collatz").await?.progress.unwrap_or(0.0);
        done = (progress * PARTS as f64).round() as usize;
    }
    let pid = browser_below(&stage.dir).context("the browser's process is not found")?;
    let killed = std::process::Command::new("kill").args(["-9", &pid]).status()?.success();
    stage.say(&format!("part {done}: BROWSER KILLED (process {pid})"));
    let result = client.wait("collatz").await?;
    stage.say(&format!("collatz: {}, {}", result.state, result.value));
    let story = client.explain("collatz").await?;
    if !stage.quiet {
        println!("\n  outlast task explain collatz");
        for sentence in &story.sentences {
            println!("    {sentence}");
        }
        println!("    now: {}\n", story.now);
    }
    let mut bad = Vec::new();
    let mut claim = |holds: bool, text: String| {
        if !holds {
            bad.push(text);
        }
    };
    let second = parts(&result.stdout);
    let (first, last) = (second.first().copied().unwrap_or(0), second.last().copied());
    claim(killed, "the browser was gone before it was killed".into());
    claim(
        result.state == TaskState::Succeeded,
        format!("the task {}: {}", result.state, result.message),
    );
    claim(result.attempt == 2, format!("attempt {} decided it", result.attempt));
    claim(first % 8 == 1 && first > 8, format!("it went on at part {first}"));
    claim(last == Some(PARTS), format!("it ended at part {last:?}"));
    let total = result.value.parse().ok().and_then(|v: Value| v["total"].as_u64());
    claim(total == Some(expected()), format!("it counted {total:?}, not {}", expected()));
    let told = |words: &str| story.sentences.iter().any(|s| s.contains(words));
    claim(told("browser_crash"), "its history does not mention the crash".into());
    claim(told("new browser"), "nor of a new browser".into());
    claim(told("going on from checkpoint"), "nor of its checkpoint".into());
    let json = json!({ "killed_after": done, "went_on_at": first, "total": total, "wrong": bad });
    let good = "A new browser resumed from the checkpoint, and the count is correct.";
    Ok(Report { bad, good, json })
}
