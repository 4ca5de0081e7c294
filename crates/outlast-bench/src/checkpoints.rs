//! Checkpoints: how fast they are durable, what travels, what memory they take.

use crate::figures::{Figures, put};
use crate::procs::Lab;
use anyhow::Context;
use outlast::api::TaskState;
use outlast::{Call, NewTask, Run, TaskSpec};
use outlast_chaos::Proxy;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const GIB: u64 = 1 << 30;

/// Fills a file with bytes that do not compress, quickly.
pub(crate) fn random_file(path: &Path, size: u64, seed: u64) -> anyhow::Result<()> {
    let mut file = File::create(path)?;
    let mut block = vec![0u8; 1 << 20];
    let mut state = seed | 1;
    for _ in 0..size >> 20 {
        for word in block.chunks_exact_mut(8) {
            // xorshift64*, Vigna 2016.
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            word.copy_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
        }
        file.write_all(&block)?;
    }
    file.sync_all()?;
    Ok(())
}

/// Seconds that `dd` takes to write and sync the same bytes.
fn dd(from: &Path, to: &Path) -> anyhow::Result<f64> {
    let start = Instant::now();
    let status = Command::new("dd")
        .args([format!("if={}", from.display()), format!("of={}", to.display())])
        .args(["bs=1M", "conv=fsync"])
        .stderr(Stdio::null())
        .status()?;
    anyhow::ensure!(status.success(), "dd failed");
    std::fs::remove_file(to)?;
    Ok(start.elapsed().as_secs_f64())
}

async fn call(lab: &Lab, function: &str, args: Value) -> anyhow::Result<(String, Value)> {
    let call = Call { function: function.into(), args };
    let task = NewTask::new(TaskSpec::new(Run::Call(call)));
    lab.client.submit(&task).await?;
    let result = lab.client.wait(&task.id).await?;
    anyhow::ensure!(result.state == TaskState::Succeeded, "{function}: {}", result.message);
    Ok((task.id, result.value.parse()?))
}

/// Takes a checkpoint of a file: seconds until it is durable at the worker, and at the
/// coordinator.
async fn checkpoint(lab: &Lab, path: &Path) -> anyhow::Result<(f64, f64)> {
    let start = Instant::now();
    let (task, value) = call(lab, "checkpoint", json!({ "path": path })).await?;
    let local = value["seconds"].as_f64().context("no time")?;
    // The result is there before the checkpoint is.
    while lab.client.checkpoints(&task).await?.checkpoints.is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok((local, start.elapsed().as_secs_f64()))
}

pub(crate) async fn run(figures: &mut Figures) -> anyhow::Result<()> {
    let lab = Lab::new().await?;
    let proxy = Proxy::bind("127.0.0.1:0", &lab.addr).await?;
    let link = proxy.handle();
    let worker = lab.worker(2, Some(&proxy.local_addr().to_string())).await?;
    let (big, copy) = (lab.path("big"), lab.path("copy"));
    random_file(&big, GIB, 7)?;
    let before = dd(&big, &copy)?;
    let (local, there) = checkpoint(&lab, &big).await?;
    let dd = f64::midpoint(before, dd(&big, &copy)?);
    put(figures, "checkpoint of 1 GiB, durable at the worker", local, "s", "");
    put(figures, "  of the rate of dd with fsync", 100.0 * dd / local, "%", "70");
    put(figures, "  durable at the coordinator", there, "s", "");

    let sent = link.stats().bytes_up;
    let mut file = File::options().write(true).open(&big)?;
    file.seek(SeekFrom::Start(300 << 20))?;
    let mut fresh = vec![0; (GIB / 100) as usize];
    File::open("/dev/urandom")?.read_exact(&mut fresh)?;
    file.write_all(&fresh)?;
    checkpoint(&lab, &big).await?;
    let share = |sent: u64, now: u64| 100.0 * (now - sent) as f64 / GIB as f64;
    let travelled = share(sent, link.stats().bytes_up);
    put(figures, "  bytes that travel after 1% changed in place", travelled, "%", "3");

    let sent = link.stats().bytes_up;
    let mut shifted = File::create(&copy)?;
    shifted.write_all(&fresh[..1024])?;
    std::io::copy(&mut File::open(&big)?, &mut shifted)?;
    checkpoint(&lab, &copy).await?;
    let travelled = share(sent, link.stats().bytes_up);
    put(figures, "  bytes that travel after 1 KiB inserted in front", travelled, "%", "3");

    let (_, value) = call(&lab, "checkpoints", json!({ "count": 60, "size": 1 << 20 })).await?;
    let p50 = value["p50_ms"].as_f64().context("no time")?;
    put(figures, "checkpoint of 1 MiB, call to durable, p50", p50, "ms", "20");
    let _ = std::fs::remove_file(&copy);

    random_file(&big, 4 * GIB, 99)?;
    let idle = (worker.rss()?, lab.coordinator.rss()?);
    let mut most = idle;
    let mut taken = std::pin::pin!(checkpoint(&lab, &big));
    loop {
        tokio::select! {
            done = &mut taken => {
                done?;
                break;
            }
            () = tokio::time::sleep(Duration::from_millis(25)) => {
                most.0 = most.0.max(worker.rss()?);
                most.1 = most.1.max(lab.coordinator.rss()?);
            }
        }
    }
    let mib = f64::from(1 << 20);
    put(
        figures,
        "4 GiB checkpoint: worker's memory above idle",
        (most.0 - idle.0) / mib,
        "MiB",
        "64",
    );
    put(figures, "4 GiB checkpoint: coordinator's", (most.1 - idle.1) / mib, "MiB", "64");
    Ok(())
}
