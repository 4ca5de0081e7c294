//! A fleet of idle workers that beat, and what it costs to measure and to watch it.

use crate::figures::{Figures, put};
use crate::idle::{Link, dial};
use crate::procs::Lab;
use outlast_wire::v2::{self, body::Kind};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

const WORKERS: usize = 10_000;
/// Long enough for a worker's round-trip times to take all the room that they ever do.
const BEATS: Duration = Duration::from_secs(65);
/// Time for which processor time is measured.
const MEASURED: Duration = Duration::from_secs(20);

/// Answers heartbeats, and sends one for each.
async fn beat((mut sender, mut receiver): Link) {
    let mut seq = 0;
    while let Ok(message) = receiver.next().await {
        let Kind::Heartbeat(asked) = message else { continue };
        seq += 1;
        let reply = v2::HeartbeatReply { seq: asked.seq };
        let beat = v2::Heartbeat { seq, rtt_ms: 1, ..Default::default() };
        let sent = async {
            sender.feed(Kind::HeartbeatReply(reply)).await?;
            sender.feed(Kind::Heartbeat(beat)).await?;
            sender.flush().await
        };
        if sent.await.is_err() {
            return;
        }
    }
}

pub(crate) async fn run(figures: &mut Figures) -> anyhow::Result<()> {
    let lab = Lab::new().await?;
    let mut held = dial(&lab, 0, 50).await?;
    sleep(Duration::from_secs(1)).await;
    let before = lab.coordinator.rss()?;
    held.extend(dial(&lab, 50, WORKERS).await?);
    lab.connected(held.len()).await?;
    let tasks: Vec<_> = held.into_iter().map(|link| tokio::spawn(beat(link))).collect();
    sleep(BEATS).await;
    let each = (lab.coordinator.rss()? - before) / WORKERS as f64 / 1000.0;
    put(figures, "coordinator memory per worker that beats, 10,000", each, "kB", "20");
    let cpu = lab.coordinator.cpu()?;
    sleep(MEASURED).await;
    let idle = (lab.coordinator.cpu()? - cpu) / MEASURED.as_secs_f64() * 100.0;
    put(figures, "  coordinator, of one core, 10,000 beating", idle, "%", "");
    // As a page does: once all, then what changes.
    let mut page = TcpStream::connect(&lab.addr).await?;
    let ask = b"GET /api/v1/events?include=fleet,alert HTTP/1.1\r\nhost: localhost\r\n\r\n";
    page.write_all(ask).await?;
    let page = tokio::spawn(async move {
        let mut buffer = vec![0; 1 << 16];
        while matches!(page.read(&mut buffer).await, Ok(n) if n > 0) {}
    });
    let began = std::time::Instant::now();
    let fleet = lab.client.fleet(None).await?;
    let took = began.elapsed().as_secs_f64() * 1000.0;
    anyhow::ensure!(fleet.workers.id.len() >= WORKERS, "{} workers", fleet.workers.id.len());
    put(figures, "  the fleet in one document", took, "ms", "");
    let cpu = lab.coordinator.cpu()?;
    sleep(MEASURED).await;
    let watched = (lab.coordinator.cpu()? - cpu) / MEASURED.as_secs_f64() * 100.0;
    put(figures, "  one open page more, of one core", watched - idle, "%", "5");
    anyhow::ensure!(!page.is_finished(), "the events ended");
    page.abort();
    for task in tasks {
        task.abort();
    }
    Ok(())
}
