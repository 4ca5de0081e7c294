//! The limits of running attempts on the disk, checked from time to time.

use super::attempt::{Attempt, Phase};
use super::config::OnOutputLimit;
use super::disk::too_little_left;
use super::engine::Engine;
use super::lock::lock;
use super::stop::Why;
use super::tree;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Growth since the last check, in bytes, below which an attempt is not blamed for a full disk.
const BLAME: u64 = 256 << 10;

/// Measures the output of all attempts and returns those that must be stopped for it.
///
/// `memory`: measure their memory too, which costs more.
pub(super) fn sample(
    engine: &Engine,
    attempts: &[Arc<Attempt>],
    memory: bool,
) -> Vec<(Arc<Attempt>, Why)> {
    let mut over = Vec::new();
    let mut grown: Option<(u64, &Arc<Attempt>)> = None;
    for attempt in attempts {
        let Phase::Running(pid) = lock(&attempt.state).phase else { continue };
        let mut disk = 0;
        let streams = lock(&attempt.output);
        for (stream, name) in streams.iter().flatten().zip(["stdout", "stderr"]) {
            let (len, written) = stream.size();
            disk += written;
            let cap = engine.config.output_cap;
            if len > cap && engine.config.on_output_limit == OnOutputLimit::Kill {
                let reason = format!("output limit: more than {cap} bytes on {name}");
                over.push((Arc::clone(attempt), Why::OverDisk(reason)));
            }
        }
        drop(streams);
        let growth = disk.saturating_sub(attempt.disk.swap(disk, Ordering::Relaxed));
        if growth > grown.map_or(BLAME, |(most, _)| most) {
            grown = Some((growth, attempt));
        }
        // The first look of a task is soon, in case that it does not live to see a second.
        if (memory || attempt.peak.load(Ordering::Relaxed) == 0)
            && let Some(peak) = tree::peak_rss(pid.as_raw_pid())
        {
            attempt.peak.fetch_max(peak, Ordering::Relaxed);
        }
    }
    if let Some((_, attempt)) = grown
        && let Some(free) = too_little_left(&engine.config)
    {
        let reason = format!("disk full: its output left only {} MiB free", free >> 20);
        over.push((Arc::clone(attempt), Why::OverDisk(reason)));
    }
    over
}
