//! Turns of uploads: in rotation over workers, with a share for each worker and each address. Where others
//! wait, the slowest upload that is too slow makes room.

use crate::fair::{Limits, Turn, Turns};
use crate::intake::Rate;
use crate::peers::Group;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Uploads at a time; others wait. Each takes some 3 MiB.
const UPLOADS: usize = 128;
/// Turns of one worker; it sends one after the other, mostly.
const PER_WORKER: usize = 8;
/// Turns of one address that is not known to stand for many.
const PER_ADDRESS: usize = UPLOADS / 2;
/// Uploads that wait.
const WAITING: usize = 1024;
/// Time that an upload waits before a slow one has to make room, and between two that have to.
const GIVE_WAY: Duration = Duration::from_secs(3);

/// The sender of an upload: an address, none where many come from it, and a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Uploader {
    pub from: Option<Group>,
    pub worker: String,
}

/// The turns of uploads.
pub(crate) struct Uploads {
    addresses: Arc<Turns<Group>>,
    workers: Arc<Turns<Uploader>>,
    active: Mutex<HashMap<u64, Arc<Progress>>>,
    next: AtomicU64,
    pressed: Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct Progress {
    began: Instant,
    got: AtomicUsize,
    leave: AtomicBool,
}

/// An upload that has its turn.
pub(crate) struct Upload {
    uploads: Arc<Uploads>,
    number: u64,
    progress: Arc<Progress>,
    _turns: (Option<Turn<Group>>, Turn<Uploader>),
}

impl Uploads {
    pub fn new() -> Arc<Uploads> {
        let turns = |turns, each| Limits { turns, each, waiting: WAITING };
        Arc::new(Uploads {
            addresses: Turns::new(turns(UPLOADS * 2, PER_ADDRESS)),
            workers: Turns::new(turns(UPLOADS, PER_WORKER)),
            active: Mutex::default(),
            next: AtomicU64::new(0),
            pressed: Mutex::default(),
        })
    }

    /// Waits for a turn; none if too many wait.
    pub async fn take(self: &Arc<Self>, who: Uploader) -> Option<Upload> {
        let turns = async {
            let address = match who.from {
                Some(group) => Some(self.addresses.take(group).await?),
                None => None,
            };
            Some((address, self.workers.take(who).await?))
        };
        let mut turns = std::pin::pin!(turns);
        let turns = loop {
            match tokio::time::timeout(GIVE_WAY, turns.as_mut()).await {
                Ok(turns) => break turns?,
                Err(_) => self.press(),
            }
        };
        let progress = Progress {
            began: Instant::now(),
            got: AtomicUsize::new(0),
            leave: AtomicBool::new(false),
        };
        let (number, progress) = (self.next.fetch_add(1, Ordering::Relaxed), Arc::new(progress));
        self.active.lock().insert(number, progress.clone());
        Some(Upload { uploads: self.clone(), number, progress, _turns: turns })
    }

    /// The slowest of those that are too slow has to make room, one at a time: where all are slow
    /// the link to here is, and ending many would only waste what they have sent.
    fn press(&self) {
        let mut pressed = self.pressed.lock();
        if pressed.is_some_and(|at| at.elapsed() < GIVE_WAY) {
            return;
        }
        let active = self.active.lock();
        let slow = active.values().filter(|p| !p.leave.load(Ordering::Relaxed) && p.is_slow());
        if let Some(slowest) = slow.min_by(|a, b| a.speed().total_cmp(&b.speed())) {
            slowest.leave.store(true, Ordering::Relaxed);
            *pressed = Some(Instant::now());
        }
    }
}

impl Progress {
    fn is_slow(&self) -> bool {
        Rate::PRESSED.misses(self.got.load(Ordering::Relaxed), self.began.elapsed())
    }
    /// Returns its speed in bytes a second.
    fn speed(&self) -> f64 {
        let seconds = self.began.elapsed().as_secs_f64().max(0.001);
        self.got.load(Ordering::Relaxed) as f64 / seconds
    }
}

impl Upload {
    /// Sets the bytes that have arrived in all.
    pub fn got(&self, bytes: usize) {
        self.progress.got.store(bytes, Ordering::Relaxed);
    }
    /// Returns whether it has to make room.
    pub fn must_leave(&self) -> bool {
        self.progress.leave.load(Ordering::Relaxed)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.uploads.active.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;
    use tokio::time::timeout;

    fn who(from: Option<&str>, worker: &str) -> Uploader {
        let from = from.map(|ip| Group::of(ip.parse::<IpAddr>().unwrap()));
        Uploader { from, worker: worker.into() }
    }

    const SOON: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn a_worker_and_an_address_have_shares() {
        let uploads = Uploads::new();
        let mut held = Vec::new();
        for _ in 0..PER_WORKER {
            held.push(uploads.take(who(None, "a")).await.unwrap());
        }
        assert!(timeout(SOON, uploads.take(who(None, "a"))).await.is_err(), "its share");
        for n in 0..PER_ADDRESS {
            held.push(uploads.take(who(Some("10.0.0.1"), &n.to_string())).await.unwrap());
        }
        let more = uploads.take(who(Some("10.0.0.1"), "one more"));
        assert!(timeout(SOON, more).await.is_err(), "the share of an address");
        let other = uploads.take(who(Some("10.0.0.2"), "b"));
        assert!(timeout(SOON, other).await.unwrap().is_some(), "room for another");
        drop(held);
        assert!(uploads.active.lock().is_empty());
    }

    #[tokio::test]
    async fn only_the_slowest_makes_room_and_only_if_it_is_slow() {
        let uploads = Uploads::new();
        let mut all = Vec::new();
        for n in 0..4usize {
            let mut upload = uploads.take(who(None, &n.to_string())).await.unwrap();
            let progress = Progress {
                // The last has just begun.
                began: Instant::now() - Duration::from_secs(if n < 3 { 100 } else { 1 }),
                got: AtomicUsize::new([5 << 20, 90_000, 200_000, 0][n]),
                leave: AtomicBool::new(false),
            };
            upload.progress = Arc::new(progress);
            uploads.active.lock().insert(upload.number, upload.progress.clone());
            all.push(upload);
        }
        let leaving = |all: &[Upload]| all.iter().map(Upload::must_leave).collect::<Vec<_>>();
        uploads.press();
        assert_eq!(leaving(&all), [false, true, false, false]);
        uploads.press();
        assert_eq!(leaving(&all), [false, true, false, false], "one at a time");
        *uploads.pressed.lock() = None;
        uploads.press();
        assert_eq!(leaving(&all), [false, true, true, false]);
        *uploads.pressed.lock() = None;
        uploads.press();
        assert_eq!(leaving(&all), [false, true, true, false], "these are fast, or new");
    }
}
