//! The list of cases, and those that are short.

use crate::figures::{Figures, put};
use crate::idle::dial;
use crate::noops::{noops, rate};
use crate::procs::Lab;
use futures_util::StreamExt;
use outlast::{NewTask, Run, TaskSpec};
use outlast_chaos::Proxy;
use std::future::Future;
use std::pin::Pin;
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::time::sleep;

type Done<'a> = Pin<Box<dyn Future<Output = anyhow::Result<()>> + 'a>>;
type Case = for<'a> fn(&'a mut Figures) -> Done<'a>;

/// All cases, by name.
pub(crate) const ALL: &[(&str, Case)] = &[
    ("noop", |f| Box::pin(noop(f))),
    ("single", |f| Box::pin(single(f))),
    ("true", |f| Box::pin(bin_true(f))),
    ("latency", |f| Box::pin(latency(f))),
    ("reconnect", |f| Box::pin(reconnect(f))),
    ("bytes", |f| Box::pin(bytes(f))),
    ("finished", |f| Box::pin(finished(f))),
    ("idle", |f| Box::pin(idle(f))),
    ("links", |f| Box::pin(links(f))),
    ("fleet", |f| Box::pin(crate::fleet::run(f))),
    ("checkpoints", |f| Box::pin(crate::checkpoints::run(f))),
    ("otlp", |f| Box::pin(crate::otlp::run(f))),
    ("storm", |f| Box::pin(crate::storm::run(f))),
];

async fn noop(figures: &mut Figures) -> anyhow::Result<()> {
    const COUNT: usize = 60_000;
    for (slots, what) in [
        (1, "no-op tasks/s, batch submit, 1 slot"),
        (10_000, "no-op tasks/s, batch submit, 10,000 slots"),
    ] {
        let lab = Lab::new().await?;
        let worker = lab.worker(slots, None).await?;
        rate(&lab, 5_000, 0).await?;
        let (before, own) = (lab.coordinator.cpu()?, worker.cpu()?);
        let rate = rate(&lab, COUNT, 5_000).await?;
        put(figures, what, rate, "/s", "15,000 now, 50,000 in time");
        if slots > 1 {
            let us = 1e6 / COUNT as f64;
            let coordinator = (lab.coordinator.cpu()? - before) * us;
            put(figures, "coordinator CPU per no-op", coordinator, "µs", "");
            put(figures, "worker CPU per no-op", (worker.cpu()? - own) * us, "µs", "");
        }
    }
    Ok(())
}

async fn single(figures: &mut Figures) -> anyhow::Result<()> {
    const COUNT: usize = 10_000;
    let lab = Lab::new().await?;
    let _worker = lab.worker(10_000, None).await?;
    let tasks = noops(COUNT);
    let start = Instant::now();
    let mut sent =
        futures_util::stream::iter(&tasks).map(|task| lab.client.submit(task)).buffer_unordered(64);
    while let Some(done) = sent.next().await {
        done?;
    }
    lab.succeeded(COUNT as u64).await?;
    let rate = COUNT as f64 / start.elapsed().as_secs_f64();
    put(figures, "no-op tasks/s, single submits, 64 at a time", rate, "/s", "");
    Ok(())
}

async fn bin_true(figures: &mut Figures) -> anyhow::Result<()> {
    // Long enough that filling the pipeline is not what is measured.
    const COUNT: usize = 24_000;
    // The bare rate twice, around ours: these machines are noisy.
    let first = bare(COUNT / 4)?;
    let lab = Lab::new().await?;
    let _worker = lab.worker(2, None).await?;
    let task = |_| NewTask::new(TaskSpec::new(Run::Command(vec!["/bin/true".into()])));
    let tasks: Vec<NewTask> = (0..COUNT).map(task).collect();
    let start = Instant::now();
    lab.client.submit_all(&tasks).await?;
    lab.succeeded_by(COUNT as u64, Duration::from_millis(25)).await?;
    let ours = COUNT as f64 / start.elapsed().as_secs_f64();
    drop(lab);
    let bare = f64::midpoint(first, bare(COUNT / 4)?);
    put(figures, "/bin/true tasks/s", ours, "/s", "");
    put(figures, "bare spawns/s, 2 threads", bare, "/s", "");
    put(figures, "/bin/true, of the bare spawn rate", 100.0 * ours / bare, "%", "90");
    Ok(())
}

fn bare(count: usize) -> anyhow::Result<f64> {
    let start = Instant::now();
    std::thread::scope(|scope| {
        let spawn = |_| {
            scope.spawn(move || {
                for _ in 0..count / 2 {
                    Command::new("/bin/true").status()?;
                }
                std::io::Result::Ok(())
            })
        };
        let threads: Vec<_> = (0..2).map(spawn).collect();
        threads.into_iter().all(|t| matches!(t.join(), Ok(Ok(()))))
    });
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

async fn latency(figures: &mut Figures) -> anyhow::Result<()> {
    let lab = Lab::new().await?;
    let _worker = lab.worker(1, None).await?;
    let mut times = Vec::new();
    for task in noops(500) {
        let start = Instant::now();
        lab.client.submit(&task).await?;
        lab.client.wait(&task.id).await?;
        times.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    times.sort_by(f64::total_cmp);
    put(figures, "submit to result, p50", times[times.len() / 2], "ms", "5");
    put(figures, "submit to result, p99", times[times.len() * 99 / 100], "ms", "");
    Ok(())
}

async fn reconnect(figures: &mut Figures) -> anyhow::Result<()> {
    const COUNT: usize = 10_000;
    let lab = Lab::new().await?;
    let proxy = Proxy::bind("127.0.0.1:0", &lab.addr).await?;
    let _worker = lab.worker(10_000, Some(&proxy.local_addr().to_string())).await?;
    // Assignments arrive, results do not.
    proxy.handle().set("up:half-open".parse()?);
    lab.client.submit_all(&noops(COUNT)).await?;
    sleep(Duration::from_secs(3)).await;
    anyhow::ensure!(lab.client.counts().await?.succeeded == 0, "a result got through");
    proxy.handle().set("cut".parse()?);
    sleep(Duration::from_secs(1)).await;
    proxy.handle().heal();
    let back = Instant::now();
    lab.connected(1).await?;
    let connected = back.elapsed();
    lab.succeeded(COUNT as u64).await?;
    let all = back.elapsed();
    put(figures, "10,000 waiting results, link back to all synced", all.as_secs_f64(), "s", "2");
    let synced = (all - connected).as_secs_f64();
    put(figures, "  of that, from connected to all synced", synced, "s", "");
    Ok(())
}

async fn bytes(figures: &mut Figures) -> anyhow::Result<()> {
    const COUNT: usize = 10_000;
    let lab = Lab::new().await?;
    let proxy = Proxy::bind("127.0.0.1:0", &lab.addr).await?;
    let _worker = lab.worker(100, Some(&proxy.local_addr().to_string())).await?;
    rate(&lab, COUNT, 0).await?;
    let stats = proxy.handle().stats();
    let each = |n: u64| n as f64 / COUNT as f64;
    put(figures, "bytes to the coordinator per no-op", each(stats.bytes_up), "B", "");
    put(figures, "bytes to the worker per no-op", each(stats.bytes_down), "B", "");
    Ok(())
}

async fn finished(figures: &mut Figures) -> anyhow::Result<()> {
    let lab = Lab::new().await?;
    let _worker = lab.worker(1000, None).await?;
    // Until the store's page cache has reached its limit.
    rate(&lab, 200_000, 0).await?;
    sleep(Duration::from_secs(1)).await;
    let before = lab.coordinator.rss()?;
    rate(&lab, 100_000, 200_000).await?;
    sleep(Duration::from_secs(1)).await;
    let grown = lab.coordinator.rss()? - before;
    put(figures, "coordinator memory after 200,000 tasks", before / 1e6, "MB", "");
    put(figures, "  growth by 100,000 more", grown / 1e6, "MB", "flat");
    Ok(())
}

async fn idle(figures: &mut Figures) -> anyhow::Result<()> {
    let lab = Lab::new().await?;
    let worker = lab.worker(2, None).await?;
    sleep(Duration::from_secs(1)).await;
    let before = worker.cpu()?;
    sleep(Duration::from_secs(10)).await;
    put(figures, "idle worker, memory", worker.rss()? / 1e6, "MB", "15");
    put(figures, "  of that, not the program's file", worker.anonymous()? / 1e6, "MB", "");
    put(figures, "idle worker, of one core", (worker.cpu()? - before) * 10.0, "%", "0.2");
    Ok(())
}

async fn links(figures: &mut Figures) -> anyhow::Result<()> {
    let lab = Lab::new().await?;
    // What the first connections and requests cost once is not theirs.
    let mut held = dial(&lab, 0, 50).await?;
    sleep(Duration::from_secs(1)).await;
    for (count, what) in [
        (1_000, "coordinator memory per idle worker, 1,000"),
        (10_000, "coordinator memory per idle worker, 10,000"),
    ] {
        let have = held.len();
        let before = lab.coordinator.rss()?;
        held.extend(dial(&lab, have, count).await?);
        lab.connected(held.len()).await?;
        sleep(Duration::from_secs(1)).await;
        let each = (lab.coordinator.rss()? - before) / count as f64 / 1000.0;
        put(figures, what, each, "kB", "20");
    }
    Ok(())
}
