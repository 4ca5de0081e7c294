//! Disk limits of running attempts, checked periodically.

use super::attempt::{Attempt, Phase, Why};
use super::{Inner, OnOutputLimit, lock, tree};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// An attempt that grew by less since the last look is not blamed for a full disk.
const BLAME: u64 = 256 << 10;

/// Looks at the output of all attempts and returns those that must be stopped for it.
///
/// `memory`: look at their memory too, which costs more.
pub(super) fn sample(
    inner: &Inner,
    attempts: &[Arc<Attempt>],
    memory: bool,
) -> Vec<(Arc<Attempt>, Why)> {
    let mut greedy = Vec::new();
    let mut grown: Option<(u64, &Arc<Attempt>)> = None;
    for attempt in attempts {
        let Phase::Running(pid) = lock(&attempt.state).phase else { continue };
        let mut disk = 0;
        let streams = lock(&attempt.output);
        for (stream, name) in streams.iter().flatten().zip(["stdout", "stderr"]) {
            let (len, written) = stream.size();
            disk += written;
            let cap = inner.config.output_cap;
            if len > cap && inner.config.on_output_limit == OnOutputLimit::Kill {
                let reason = format!("output limit: more than {cap} bytes on {name}");
                greedy.push((Arc::clone(attempt), Why::Greedy(reason)));
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
        && let Some(free) = too_little_left(inner)
    {
        let reason = format!("disk full: its output left only {} MiB free", free >> 20);
        greedy.push((Arc::clone(attempt), Why::Greedy(reason)));
    }
    greedy
}

/// The free bytes of the disk, if they are fewer than the reserve.
pub(super) fn too_little_left(inner: &Inner) -> Option<u64> {
    let disk = rustix::fs::statvfs(&inner.config.root).ok()?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    (free < inner.config.reserve_bytes).then_some(free)
}
