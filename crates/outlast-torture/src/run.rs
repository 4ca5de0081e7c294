//! The course of a run: processes start, faults strike and end, tasks finish, the oracle judges.

use crate::api::Api;
use crate::args::Args;
use crate::ledger::read;
use crate::oracle::{self, Evidence};
use crate::payload::payload;
use crate::plan;
use crate::report::Report;
use crate::specs::{self, Places, Plan};
use crate::watch::{Seen, watch};
use crate::world::World;
use anyhow::Context;
use outlast::Client;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Once all is healed: without any progress for so long, something hangs.
const PATIENCE: Duration = Duration::from_secs(120);
/// The longest that everything may take once it is healed.
const LIMIT: Duration = Duration::from_secs(900);
const TICK: Duration = Duration::from_millis(50);
/// Between lines about how it goes.
const TELL: Duration = Duration::from_secs(5);
/// Share of the time in which tasks are submitted.
const HANDING_IN: f64 = 0.7;

pub(crate) async fn run(args: Args) -> anyhow::Result<i32> {
    let seed = args.seed.unwrap_or_else(|| crate::ledger::wall().unsigned_abs() / 1000);
    if args.plan {
        for p in plan::faults(seed, args.seconds, args.workers as usize, Some(0)) {
            let who =
                p.fault.worker().map_or("coordinator".into(), |n| format!("worker {}", n + 1));
            println!(
                "{:7.1}s  {who:12} {}, {:.1}s",
                p.at.as_secs_f64(),
                p.fault,
                p.lasts.as_secs_f64()
            );
        }
        return Ok(0);
    }
    let torture = std::env::current_exe()?;
    let beside = || torture.with_file_name("outlast");
    let outlast = std::path::absolute(args.outlast.clone().unwrap_or_else(beside))?;
    anyhow::ensure!(outlast.is_file(), "{} is not there; give --outlast", outlast.display());
    let dir = std::env::temp_dir().join(format!("outlast-torture-{}", std::process::id()));
    std::fs::create_dir_all(dir.join("ledger"))?;
    let course = Course { args: &args, seed, dir: &dir, outlast, torture };
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let report = tokio::select! {
        report = course.play() => report.with_context(|| course.trouble())?,
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted; {}", course.trouble()),
        _ = term.recv() => anyhow::bail!("told to end; {}", course.trouble()),
    };
    report.print(args.json)?;
    if report.wrong.is_empty() && !args.keep {
        let _ = std::fs::remove_dir_all(&dir);
    } else {
        eprintln!("{}", course.trouble());
    }
    Ok(i32::from(!report.wrong.is_empty()))
}

struct Course<'a> {
    args: &'a Args,
    seed: u64,
    dir: &'a Path,
    outlast: PathBuf,
    torture: PathBuf,
}

impl Course<'_> {
    fn trouble(&self) -> String {
        format!("seed {}; stores, logs and ledgers are in {}", self.seed, self.dir.display())
    }
    fn say(&self, text: &str) {
        if !self.args.json {
            println!("{text}");
        }
    }

    async fn play(&self) -> anyhow::Result<Report> {
        let (seconds, workers) = (self.args.seconds, self.args.workers as usize);
        let count = self.args.tasks.unwrap_or((seconds / 2).clamp(20, 100_000) as u32);
        let ledger = self.dir.join("ledger");
        let places = Places { outlast: &self.outlast, torture: &self.torture, ledger: &ledger };
        let plans = specs::tasks(self.seed, count, &places);
        let mut world = World::start(self.dir, &self.outlast, workers, self.args.disk).await?;
        let base = format!("http://{}", world.at);
        let client = Client::builder(&base).patience(Duration::from_secs(120)).build()?;
        let impatient = Client::builder(&base).patience(Duration::ZERO).build()?;
        let api = Api::new(&base, &client)?;
        self.say(&format!(
            "seed {}: {count} tasks on {workers} workers, faults for {seconds} s; {}",
            self.seed,
            self.dir.display()
        ));
        if world.small_disk().is_some() {
            self.say(&format!("the first worker has a disk of {} MiB", self.args.disk));
        }
        client.submit(&plans[0].task).await?;
        let told = api.checkpoints(&plans[0].task.id).await?.is_some();
        if !told {
            self.say("this coordinator does not show checkpoints and states: not checked there");
        }
        let faults = plan::faults(self.seed, seconds, workers, world.small_disk());
        let stop = Arc::new(AtomicBool::new(false));
        let watcher = tokio::spawn(watch(impatient.clone(), api.clone(), told, stop.clone()));
        let handed_in = Arc::new(AtomicUsize::new(1));
        let over = Duration::from_secs_f64(seconds as f64 * HANDING_IN);
        let handing = hand_in(client.clone(), plans.clone(), over, handed_in.clone());
        let handing = tokio::spawn(handing);

        let start = Instant::now();
        let mut told_at = start;
        let mut faults = faults.iter().peekable();
        while start.elapsed() < Duration::from_secs(seconds) {
            world.tick()?;
            while let Some(fault) = faults.next_if(|f| f.at <= start.elapsed()) {
                world.hurt(fault)?;
            }
            if told_at.elapsed() >= TELL {
                told_at = Instant::now();
                self.tell(start, &world, &impatient, handed_in.load(Ordering::Relaxed)).await;
            }
            sleep(TICK).await;
        }
        self.say("no more faults; everything is started again");
        world.heal()?;
        let healed = Instant::now();
        let mut wrong = Vec::new();
        let done = self.converge(&mut world, &client, &api, &plans, told, start).await?;
        if let Some(why) = done {
            if self.args.hold {
                println!("{why}; held until Ctrl-C: {}", world.describe());
                std::future::pending::<()>().await;
            }
            wrong.push(why);
        }
        let took = healed.elapsed();
        stop.store(true, Ordering::Relaxed);
        let seen = watcher.await?;
        match tokio::time::timeout(Duration::from_secs(1), handing).await {
            Ok(result) => result??,
            Err(_) => wrong.push("not all tasks could be handed in".into()),
        }
        wrong.extend(seen.wrong.iter().cloned());
        let mut report = Report::new(self.seed, &world, took, &seen, told);
        let evidence = self.evidence(&client, &api, &plans, told, &seen).await?;
        for e in &evidence {
            let found = oracle::judge(e, &world.destroyed, &mut report.totals);
            wrong.extend(found.into_iter().map(|text| format!("{}: {text}", e.plan.task.id)));
        }
        if told {
            wrong.extend(self.read_back(&api, &evidence, &mut report).await);
        }
        wrong.extend(self.panics());
        report.wrong = wrong;
        Ok(report)
    }

    async fn tell(&self, start: Instant, world: &World, client: &Client, handed_in: usize) {
        let counts = tokio::time::timeout(Duration::from_secs(1), client.counts()).await;
        let tasks = match counts {
            Ok(Ok(c)) => {
                let over = c.succeeded + c.failed + c.cancelled;
                format!("{over} of {handed_in} tasks over, {} assigned", c.assigned)
            }
            _ => format!("{handed_in} tasks handed in"),
        };
        let faults: u64 = world.counts.values().sum();
        let at = start.elapsed().as_secs();
        self.say(&format!("{at:>4}s  {tasks}; {faults} faults; {}", world.describe()));
    }

    /// Waits until all is over and nothing is on its way any more. What hangs, if something does.
    async fn converge(
        &self,
        world: &mut World,
        client: &Client,
        api: &Api,
        plans: &[Plan],
        told: bool,
        start: Instant,
    ) -> anyhow::Result<Option<String>> {
        let healed = Instant::now();
        let mut forgotten = std::collections::BTreeSet::new();
        let (mut last, mut moved, mut told_at) = (None, Instant::now(), Instant::now());
        loop {
            world.tick()?;
            for name in world.destroyed.clone() {
                // An operator knows that it will not come back; one that never dialled is unknown.
                if !forgotten.contains(&name) && gone(client.forget(&name).await) {
                    forgotten.insert(name);
                }
            }
            let counts = client.counts().await?;
            let workers = client.workers().await?.workers;
            let names = world.names();
            let ours: Vec<_> = workers.iter().filter(|w| names.contains(&w.name)).collect();
            let ready = ours.iter().filter(|w| w.state == "connected").count();
            let held: u64 = ours.iter().map(|w| w.held + w.unacked).sum();
            let left = plans.len() as u64 - (counts.succeeded + counts.failed + counts.cancelled);
            let mut missing = 0;
            if left == 0 && told {
                missing = self.missing(api, plans, world).await?;
            }
            if left == 0 && held == 0 && missing == 0 && ready == names.len() {
                return Ok(None);
            }
            // Steps are progress too.
            let now = (left, held, missing, ready, self.written());
            if last != Some(now) {
                (last, moved) = (Some(now), Instant::now());
            }
            let how = format!(
                "{left} tasks have not ended, workers hold {held}, {missing} checkpoints are not \
                 delivered, {ready} of {} workers are connected",
                names.len()
            );
            if moved.elapsed() > PATIENCE || healed.elapsed() > LIMIT {
                return Ok(Some(format!("{} s after healing {how}", healed.elapsed().as_secs())));
            }
            if told_at.elapsed() >= TELL {
                told_at = Instant::now();
                self.say(&format!("{:>4}s  {how}", start.elapsed().as_secs()));
            }
            sleep(Duration::from_millis(250)).await;
        }
    }

    /// Bytes in the ledgers.
    fn written(&self) -> u64 {
        let files = std::fs::read_dir(self.dir.join("ledger")).into_iter().flatten().flatten();
        files.filter_map(|f| Some(f.metadata().ok()?.len())).sum()
    }

    /// Counts acknowledged checkpoints that the coordinator must get and does not have.
    async fn missing(&self, api: &Api, plans: &[Plan], world: &World) -> anyhow::Result<u64> {
        let mut missing = 0;
        for plan in plans {
            let lines = read(&self.dir.join("ledger"), &plan.task.id)?;
            let owed = oracle::owed(&lines, &world.destroyed);
            if owed.is_empty() {
                continue;
            }
            let listed = api.checkpoints(&plan.task.id).await?.unwrap_or_default();
            missing += owed.iter().filter(|(id, _)| !listed.iter().any(|c| c.id == *id)).count();
        }
        Ok(missing as u64)
    }

    async fn evidence(
        &self,
        client: &Client,
        api: &Api,
        plans: &[Plan],
        told: bool,
        seen: &Seen,
    ) -> anyhow::Result<Vec<Evidence>> {
        let mut all = Vec::new();
        for plan in plans {
            let id = &plan.task.id;
            let of = (id.clone(), (0, 0))..=(id.clone(), (u64::MAX, u64::MAX));
            all.push(Evidence {
                plan: plan.clone(),
                task: client.task(id).await?,
                result: client.result(id, 0).await?,
                history: client.history(id).await?,
                lines: read(&self.dir.join("ledger"), id)?,
                listed: if told { api.checkpoints(id).await? } else { None },
                seen: seen.kept.range(of).map(|((_, id), at)| (*id, *at)).collect(),
            });
        }
        Ok(all)
    }

    /// Reads what the coordinator keeps, byte by byte.
    async fn read_back(&self, api: &Api, all: &[Evidence], report: &mut Report) -> Vec<String> {
        let mut wrong = Vec::new();
        for e in all {
            let id = &e.plan.task.id;
            for one in e.listed.iter().flatten().filter(|c| c.kept) {
                let which = format!("{}-{}", one.id.0, one.id.1);
                let step = one.step.unwrap_or(0);
                match api.data(id, &which).await {
                    Ok((_, bytes)) if bytes == payload(id, step, e.plan.size) => {
                        report.read_back += 1;
                    }
                    Ok(_) => wrong.push(format!("{id}: checkpoint {which} is not what was kept")),
                    Err(error) => wrong.push(format!("{id}: checkpoint {which}: {error:#}")),
                }
            }
            let newest = e.listed.iter().flatten().filter(|c| c.kept).map(|c| c.id).max();
            if let Some(newest) = newest {
                match api.data(id, "latest").await {
                    Ok((found, _)) if found.is_none_or(|f| f == newest) => {}
                    Ok((found, _)) => {
                        wrong.push(format!("{id}: latest is {found:?}, and not {newest:?}"));
                    }
                    Err(error) => wrong.push(format!("{id}: latest checkpoint: {error:#}")),
                }
            }
        }
        wrong
    }

    /// Panics in the logs of the processes.
    fn panics(&self) -> Vec<String> {
        let files = std::fs::read_dir(self.dir).into_iter().flatten().flatten();
        let mut found = Vec::new();
        for path in files.map(|f| f.path()).filter(|p| p.extension().is_some_and(|e| e == "log")) {
            let text = std::fs::read(&path).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let panics = text.lines().filter(|l| l.contains("panicked at"));
            found.extend(panics.map(|l| format!("{name}: {l}")));
        }
        found
    }
}

fn gone(result: Result<(), outlast::Error>) -> bool {
    match result {
        Ok(()) => true,
        Err(error) => error.status() == Some(404),
    }
}

async fn hand_in(
    client: Client,
    plans: Vec<Plan>,
    over: Duration,
    handed_in: Arc<AtomicUsize>,
) -> anyhow::Result<()> {
    let (start, count) = (Instant::now(), plans.len());
    for (n, plan) in plans.iter().enumerate().skip(1) {
        let due = over.mul_f64(n as f64 / count as f64);
        sleep(due.saturating_sub(start.elapsed())).await;
        client.submit(&plan.task).await.context("handing in a task")?;
        handed_in.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
