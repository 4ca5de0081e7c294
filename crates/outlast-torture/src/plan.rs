//! Plan of faults: kinds, targets, times and durations, all derived from the seed. The state that a
//! fault meets is not: processes and disks are as fast as they are.

use outlast_chaos::Faults;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::fmt;
use std::time::Duration;

/// A fault of a process, a link or a disk. `who` counts workers from 0.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fault {
    KillCoordinator,
    StopCoordinator,
    KillWorker(usize),
    StopWorker(usize),
    /// The process that the worker's tasks run under.
    KillKeeper(usize),
    StopKeeper(usize),
    /// Worker, keeper and tasks at once, as when a machine loses power; its disk is kept.
    PowerLoss(usize),
    /// A worker is killed and its disk is lost, too: another worker replaces it.
    Destroy(usize),
    Link(usize, Faults),
    DiskFull(usize),
}

impl Fault {
    /// Name of the kind of fault, for statistics.
    pub fn word(&self) -> &'static str {
        match self {
            Fault::KillCoordinator => "coordinator killed",
            Fault::StopCoordinator => "coordinator stopped",
            Fault::KillWorker(_) => "worker killed",
            Fault::StopWorker(_) => "worker stopped",
            Fault::KillKeeper(_) => "keeper killed",
            Fault::StopKeeper(_) => "keeper stopped",
            Fault::PowerLoss(_) => "power lost",
            Fault::Destroy(_) => "worker destroyed",
            Fault::Link(_, faults) => match faults.to_string() {
                f if f.contains("half-open") => "link half-open",
                f if f.contains("cut") => "link cut",
                f if f.contains("stall") => "link stalled",
                _ => "link slow",
            },
            Fault::DiskFull(_) => "disk full",
        }
    }
    pub fn worker(&self) -> Option<usize> {
        match self {
            Fault::KillCoordinator | Fault::StopCoordinator => None,
            Fault::KillWorker(n)
            | Fault::StopWorker(n)
            | Fault::KillKeeper(n)
            | Fault::StopKeeper(n)
            | Fault::PowerLoss(n)
            | Fault::Destroy(n)
            | Fault::Link(n, _)
            | Fault::DiskFull(n) => Some(*n),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())?;
        match self {
            Fault::Link(_, faults) => write!(f, " ({faults})"),
            _ => Ok(()),
        }
    }
}

/// A fault and its time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Planned {
    /// Start time.
    pub at: Duration,
    /// Time for which it lasts; of a kill, when the process is started again.
    pub lasts: Duration,
    pub fault: Fault,
}

/// Links as they are when they are bad, each as likely as the others.
const LINKS: [&str; 12] = [
    "cut",
    "cut",
    "cut",
    "cut",
    "half-open",
    "half-open",
    "up:half-open",
    "down:half-open",
    "stall",
    "down:stall",
    "delay=300ms~200ms",
    "bandwidth=40kB",
];

/// Faults for so many seconds against so many workers; `full`: whose disk can be filled.
pub(crate) fn faults(seed: u64, seconds: u64, workers: usize, full: Option<usize>) -> Vec<Planned> {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x6661_756c_7473);
    let mut at = Duration::from_secs(4);
    let mut all = Vec::new();
    loop {
        at += Duration::from_millis(rng.random_range(500..=3500));
        if at.as_secs() >= seconds {
            return all;
        }
        let fault = one(&mut rng, workers, full);
        let lasts = match &fault {
            Fault::Link(..) => rng.random_range(500..=22_000),
            Fault::StopWorker(_) | Fault::StopKeeper(_) => rng.random_range(500..=12_000),
            Fault::StopCoordinator => rng.random_range(500..=8_000),
            Fault::DiskFull(_) => rng.random_range(3_000..=10_000),
            _ => rng.random_range(200..=8_000),
        };
        all.push(Planned { at, lasts: Duration::from_millis(lasts), fault });
    }
}

fn one(rng: &mut SmallRng, workers: usize, full: Option<usize>) -> Fault {
    let who = rng.random_range(0..workers);
    // Drawn in any case, so that a machine without that disk sees the same faults otherwise.
    match rng.random_range(0..100) {
        0..20 => Fault::KillWorker(who),
        20..30 => Fault::KillCoordinator,
        30..34 => Fault::KillKeeper(who),
        34..39 => Fault::PowerLoss(who),
        39..42 => Fault::Destroy(who),
        42..52 => Fault::StopWorker(who),
        52..57 => Fault::StopCoordinator,
        57..60 => Fault::StopKeeper(who),
        60..66 => match full {
            Some(who) => Fault::DiskFull(who),
            None => Fault::KillWorker(who),
        },
        _ => {
            let text = LINKS.choose(rng).copied().unwrap_or("cut");
            Fault::Link(who, text.parse().unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_seed_always_gives_the_same_faults_and_all_kinds_occur() {
        let plan = faults(3, 600, 4, Some(0));
        assert_eq!(plan, faults(3, 600, 4, Some(0)));
        assert_ne!(plan, faults(4, 600, 4, Some(0)));
        let words: BTreeSet<_> = plan.iter().map(|p| p.fault.word()).collect();
        assert_eq!(words.len(), 13, "{words:?}");
    }
}
