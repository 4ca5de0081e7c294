//! Demo of an outage of 18 seconds, during which the coordinator is killed, too: every task runs once.

use super::stage::{Report, Stage, since, until, wall};
use crate::output;
use outlast::api::{TaskResult, TaskState};
use outlast::{Client, NewTask, Run, TaskSpec};
use outlast_chaos::Proxy;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use tokio::time::sleep;

/// Tasks that take about ten seconds each.
fn tasks(runs: &Path) -> Vec<NewTask> {
    let work = [
        ("hash", "head -c 200000000 /dev/zero | sha256sum"),
        ("count", "find /usr/share -type f | wc -l"),
        ("sort", "seq 300000 -1 1 | sort -n | tail -1"),
        ("pack", "head -c 20000000 /dev/urandom | gzip -1 | wc -c"),
        ("sum", "awk 'BEGIN { for (i = 0; i < 5000000; i++) s += i % 7; print s }'"),
    ];
    let task = |n: usize| {
        let (name, line) = work[n % work.len()];
        let id = format!("{name}-{:02}", n + 1);
        let rest = 5 + n % 4;
        let line = format!("echo {id} >> '{}'; {line}; sleep {rest}", runs.display());
        NewTask { id, spec: TaskSpec::new(Run::Shell(line)) }
    };
    (0..20).map(task).collect()
}

pub(super) async fn play(stage: &Stage) -> anyhow::Result<Report> {
    let dir = &stage.dir;
    let runs = dir.join("runs.txt");
    let at = Stage::port()?;
    let mut server = stage.coordinator(&at, &[])?;
    let proxy = Proxy::bind("127.0.0.1:0", &at).await?;
    let (link, via) = (proxy.handle(), format!("http://{}", proxy.local_addr()));
    stage.say(&format!("coordinator at {at}; the workers reach it through a chaos proxy"));
    let more = ["--slots", "2", "--prefetch", "3", "--max-reconnect-delay", "3s"];
    let _workers = [stage.worker("amber", &via, &more)?, stage.worker("birch", &via, &more)?];
    let client =
        Client::builder(&format!("http://{at}")).patience(Duration::from_secs(30)).build()?;
    until(&client, 2).await?;
    stage.say("two workers with two slots each are connected");
    let tasks = tasks(&runs);
    client.submit_all(&tasks).await?;
    stage.say(&format!("{} tasks submitted: {}", tasks.len(), "hash, count, sort, pack, sum"));
    sleep(Duration::from_secs(6)).await;
    link.set("cut".parse()?);
    let cut = wall();
    stage.say("LINK CUT: no worker reaches the coordinator; their tasks continue");
    sleep(Duration::from_secs(9)).await;
    let before = client.counts().await?;
    stage.say(&format!(
        "the coordinator knows of {} results; now it gets SIGKILL",
        before.succeeded
    ));
    server.kill()?;
    drop(server);
    sleep(Duration::from_secs(3)).await;
    let _server = stage.coordinator(&at, &[])?;
    let known = client.counts().await?;
    stage.say(&format!(
        "coordinator restarted from its store: {} results, {} tasks assigned, {} waiting",
        known.succeeded, known.assigned, known.pending
    ));
    sleep(Duration::from_secs(6)).await;
    link.heal();
    let healed = wall();
    stage.say("LINK BACK after 18 s; the workers find the coordinator by themselves");
    until(&client, 2).await?;
    stage.say(&format!("both workers are connected again, {:.1} s later", since(healed)));
    let mut results = BTreeMap::new();
    for task in &tasks {
        let result = client.wait(&task.id).await?;
        results.insert(task.id.clone(), result);
    }
    stage.say("all results have arrived");
    check(stage, &client, &results, &runs, cut, healed).await
}

async fn check(
    stage: &Stage,
    client: &Client,
    results: &BTreeMap<String, TaskResult>,
    runs: &Path,
    cut: i64,
    healed: i64,
) -> anyhow::Result<Report> {
    let log = std::fs::read_to_string(runs)?;
    let (mut bad, mut rows, mut list) = (Vec::new(), Vec::new(), Vec::new());
    let (mut synced, mut during) = (0, 0);
    for (id, result) in results {
        let started = log.lines().filter(|l| l == id).count();
        let task = client.task(id).await?;
        let history = client.history(id).await?;
        let ends = history.events.iter().filter(|e| e.event == "succeeded").count();
        if started != 1 {
            bad.push(format!("{id} was started {started} times"));
        }
        if result.state != TaskState::Succeeded || ends != 1 || task.attempt != 1 {
            let attempt = task.attempt;
            bad.push(format!("{id}: {}, {ends} results, attempt {attempt}", result.state));
        }
        let finished = result.finished_at.as_deref().and_then(output::unix_ms).unwrap_or(0);
        let arrived = task.ended_at.as_deref().and_then(output::unix_ms).unwrap_or(0);
        let away = finished > cut && finished < healed;
        if away {
            during += 1;
            synced = synced.max(arrived - healed);
        }
        let waited = if away { output::duration(arrived - finished) } else { "-".into() };
        let text = result.stdout.trim().to_owned();
        rows.push(vec![
            id.clone(),
            result.worker.clone().unwrap_or_default(),
            result.state.to_string(),
            started.to_string(),
            output::duration(result.duration_ms.unwrap_or(0)),
            waited,
            output::short(&text, 24),
        ]);
        list.push(json!({ "id": id, "worker": result.worker, "state": result.state,
            "runs": started, "finished_during_cut": away, "waited_ms": away.then_some(arrived - finished) }));
    }
    let count = client.counts().await?;
    if count.total != results.len() as u64 || count.succeeded != count.total {
        bad.push(format!("{} tasks, {} succeeded", count.total, count.succeeded));
    }
    if during == 0 {
        bad.push("no task finished during the cut, so the demo proved nothing".into());
    }
    if !stage.quiet {
        println!();
        output::table(
            &["TASK", "WORKER", "STATE", "RUNS", "TOOK", "WAITED FOR LINK", "OUTPUT"],
            &rows,
        )?;
        println!();
        println!(
            "{during} results finished while the link was cut; {} after it returned all were synced.",
            output::duration(synced)
        );
    }
    let json = json!({ "tasks": list, "finished_during_cut": during,
        "link_to_synced_ms": synced, "wrong": bad });
    let good = "Every task ran once, and every result arrived once.";
    Ok(Report { bad, good, json })
}
