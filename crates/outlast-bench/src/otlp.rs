//! The cost of traces: no-ops without and with a collector, one after the other.

use crate::figures::{Figures, put};
use crate::noops::rate;
use crate::procs::Lab;
use anyhow::Context;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

const COUNT: usize = 150_000;
const WARM: usize = 5_000;

pub(crate) async fn run(figures: &mut Figures) -> anyhow::Result<()> {
    let taken = Arc::new(AtomicU64::new(0));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let sink = tokio::spawn(sink(listener, taken.clone()));
    let (mut off, mut on) = (Vec::new(), Vec::new());
    let (mut out, mut cpu, mut bytes) = (0.0, 0.0, 0);
    for _ in 0..3 {
        let lab = Lab::new().await?;
        let _worker = lab.worker(10_000, None).await?;
        rate(&lab, WARM, 0).await?;
        off.push(rate(&lab, COUNT, WARM as u64).await?);
        drop(lab);
        let lab = Lab::traced(&url).await?;
        let _worker = lab.worker(10_000, None).await?;
        rate(&lab, WARM, 0).await?;
        exported(&lab, WARM).await?;
        let (began, before, own) =
            (Instant::now(), lab.coordinator.cpu()?, taken.load(Ordering::Relaxed));
        on.push(rate(&lab, COUNT, WARM as u64).await?);
        exported(&lab, WARM + COUNT).await?;
        out = COUNT as f64 / began.elapsed().as_secs_f64();
        cpu = (lab.coordinator.cpu()? - before) * 1e6 / COUNT as f64;
        bytes = taken.load(Ordering::Relaxed) - own;
    }
    sink.abort();
    let median = |of: &mut Vec<f64>| {
        of.sort_by(f64::total_cmp);
        of[of.len() / 2]
    };
    let (off, on) = (median(&mut off), median(&mut on));
    put(figures, "no-op tasks/s, no collector", off, "/s", "");
    put(figures, "  with traces to a collector", on, "/s", "");
    put(figures, "  traces out, from the first task on", out, "/s", "");
    put(figures, "  coordinator CPU per no-op and its trace", cpu, "µs", "");
    put(figures, "  bytes to the collector per no-op", bytes as f64 / COUNT as f64, "B", "");
    Ok(())
}

/// Waits until so many tasks are out, two spans each.
async fn exported(lab: &Lab, tasks: usize) -> anyhow::Result<()> {
    loop {
        let mut stream = TcpStream::connect(&lab.addr).await?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\nhost: localhost\r\n\r\n").await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        let line = "outlast_otlp_exported_total{what=\"spans\"} ";
        let count = text.lines().find_map(|l| l.strip_prefix(line)).context("no such metric")?;
        if count.parse::<f64>()? >= 2.0 * tasks as f64 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Takes requests, and counts their bytes.
async fn sink(listener: TcpListener, taken: Arc<AtomicU64>) {
    while let Ok((stream, _)) = listener.accept().await {
        let taken = taken.clone();
        tokio::spawn(async move { drop(serve(stream, &taken).await) });
    }
}

async fn serve(stream: TcpStream, taken: &AtomicU64) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0);
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        if line == "\r\n" {
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await?;
            taken.fetch_add(length as u64, Ordering::Relaxed);
            stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await?;
        }
    }
}
