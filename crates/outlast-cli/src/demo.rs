//! `outlast demo`: an outage, lived through by real processes, and the proof that nothing was
//! lost or run twice.

use crate::{Context, output};
use outlast::api::TaskResult;
use outlast::{Client, NewTask, Run, TaskSpec};
use outlast_chaos::Proxy;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::time::sleep;

/// The longest that the whole may take.
const LIMIT: Duration = Duration::from_secs(180);

/// Live through an outage of about a minute.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Keep the folder with stores and logs
    #[arg(long)]
    keep: bool,
}

/// A process of ours; ended with us, whatever happens.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Stage {
    dir: PathBuf,
    start: Instant,
    quiet: bool,
}

impl Stage {
    fn say(&self, text: &str) {
        if !self.quiet {
            println!("{:>5.1}s  {text}", self.start.elapsed().as_secs_f64());
        }
    }
    fn spawn(&self, name: &str, args: &[&str]) -> anyhow::Result<Process> {
        let path = self.dir.join(format!("{name}.log"));
        let log = File::options().create(true).append(true).open(path)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(args).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // The user's own settings are not meant for the demo.
        for name in ["OUTLAST_API_KEY", "OUTLAST_CA", "OUTLAST_COORDINATOR", "OUTLAST_STATE_DIR"] {
            command.env_remove(name);
        }
        command.env("OUTLAST_CONFIG", "/dev/null");
        Ok(Process(command.spawn()?))
    }
}

/// Real work, about ten seconds each.
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

fn wall() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

pub(crate) async fn run(context: &Context, args: Args) -> anyhow::Result<u8> {
    let dir = std::env::temp_dir().join(format!("outlast-demo-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let stage = Stage { dir: dir.clone(), start: Instant::now(), quiet: context.json() };
    let outcome = tokio::select! {
        outcome = tokio::time::timeout(LIMIT, play(&stage)) => outcome,
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted; logs are in {}", dir.display()),
    };
    let report = match outcome {
        Ok(Ok(report)) => report,
        Ok(Err(error)) => return Err(error.context(format!("logs are in {}", dir.display()))),
        Err(_) => anyhow::bail!("not done after {LIMIT:?}; logs are in {}", dir.display()),
    };
    let good = report.bad.is_empty();
    if context.json() {
        output::json(&report.json)?;
    } else {
        for bad in &report.bad {
            println!("WRONG: {bad}");
        }
        println!(
            "{}",
            if good { "Every task ran once, and every result is there, once." } else { "FAILED." }
        );
    }
    if good && !args.keep {
        let _ = std::fs::remove_dir_all(&dir);
    } else {
        eprintln!("stores and logs are in {}", dir.display());
    }
    Ok(u8::from(!good))
}

struct Report {
    bad: Vec<String>,
    json: serde_json::Value,
}

async fn play(stage: &Stage) -> anyhow::Result<Report> {
    let dir = &stage.dir;
    let data = dir.join("coordinator").display().to_string();
    let runs = dir.join("runs.txt");
    // A free port, which the restarted coordinator needs again.
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let at = format!("127.0.0.1:{port}");
    let coordinator =
        || stage.spawn("coordinator", &["coordinator", "--listen", &at, "--data-dir", &data]);
    let mut server = coordinator()?;
    let proxy = Proxy::bind("127.0.0.1:0", &at).await?;
    let (link, via) = (proxy.handle(), format!("http://{}", proxy.local_addr()));
    stage.say(&format!("coordinator at {at}; the workers reach it through a chaos proxy"));
    let mut workers = Vec::new();
    for name in ["amber", "birch"] {
        let state = dir.join(name).display().to_string();
        let args = [
            "worker",
            "--name",
            name,
            "--coordinator",
            &via,
            "--slots",
            "2",
            "--prefetch",
            "3",
            "--state-dir",
            &state,
            "--max-reconnect-delay",
            "3s",
        ];
        workers.push(stage.spawn(name, &args)?);
    }
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
    stage.say("LINK CUT: no worker reaches the coordinator; their tasks go on");
    sleep(Duration::from_secs(9)).await;
    let before = client.counts().await?;
    stage.say(&format!(
        "the coordinator knows of {} results; now it gets SIGKILL",
        before.succeeded
    ));
    server.0.kill()?;
    server.0.wait()?;
    drop(server);
    sleep(Duration::from_secs(3)).await;
    let _server = coordinator()?;
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
    stage.say("all results are there");
    check(stage, &client, &results, &runs, cut, healed).await
}

fn since(then: i64) -> f64 {
    (wall() - then) as f64 / 1000.0
}

/// Waits for so many connected workers.
async fn until(client: &Client, count: usize) -> anyhow::Result<()> {
    loop {
        let all = client.workers().await?;
        if all.workers.iter().filter(|w| w.state == "connected").count() >= count {
            return Ok(());
        }
        sleep(Duration::from_millis(50)).await;
    }
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
        if result.state != "succeeded" || ends != 1 || task.attempt != 1 {
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
            result.state.clone(),
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
        bad.push("no task finished during the cut: the demo showed nothing".into());
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
    Ok(Report { bad, json })
}
