//! The pump of bytes one way, with the faults of that way. The bytes on their way are bounded.

use crate::Faults;
use crate::counters::Counters;
use crate::fault::{Effects, Way};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

/// Bytes read at a time.
const CHUNK: usize = 4096;
/// Chunks on their way: 256 KiB at most.
const FLYING: usize = 64;

/// One direction of a connection did not end cleanly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Broken;
type Ended = Result<(), Broken>;

type Flight = (Instant, Vec<u8>);

pub(crate) async fn run(
    from: ReadHalf<'_>,
    to: WriteHalf<'_>,
    way: Way,
    faults: watch::Receiver<Faults>,
    counters: &Counters,
    lost: &AtomicBool,
) -> Ended {
    let (tx, rx) = mpsc::channel(FLYING);
    let reader = read(from, way, faults.clone(), counters, lost, tx);
    let writer = write(to, way, faults, counters, rx);
    tokio::pin!(reader, writer);
    tokio::select! {
        read = &mut reader => match read {
            Ok(()) => writer.await,
            broken => broken,
        },
        written = &mut writer => written,
    }
}

async fn read(
    mut from: ReadHalf<'_>,
    way: Way,
    mut faults: watch::Receiver<Faults>,
    counters: &Counters,
    lost: &AtomicBool,
    tx: mpsc::Sender<Flight>,
) -> Ended {
    let mut rng = SmallRng::from_os_rng();
    let (mut passed, mut last_due) = (0_u64, Instant::now());
    loop {
        let mut data = vec![0; CHUNK];
        let read = from.read(&mut data).await;
        // Judged when the bytes arrive, not when they were waited for.
        let effects = unstalled(&mut faults, way).await;
        let n = match read {
            Ok(n) if effects.half_open => {
                lost.store(true, Ordering::Relaxed);
                counters.swallowed.fetch_add(n as u64, Ordering::Relaxed);
                if n == 0 {
                    // The end is swallowed too; the connection is reset when the fault ends.
                    std::future::pending::<()>().await;
                }
                continue;
            }
            Ok(0) => {
                if let Some(time) = effects.slow_close {
                    sleep(time).await;
                }
                return Ok(());
            }
            Ok(n) => n,
            Err(_) => {
                if effects.half_open {
                    lost.store(true, Ordering::Relaxed);
                    std::future::pending::<()>().await;
                }
                return Err(Broken);
            }
        };
        data.truncate(n);
        if effects.corrupt > 0.0 && rng.random_bool(effects.corrupt) {
            let at = rng.random_range(0..n);
            data[at] ^= 1 << rng.random_range(0..8);
            counters.corrupted.fetch_add(1, Ordering::Relaxed);
        }
        let left = effects.truncate.map(|limit| limit.saturating_sub(passed));
        let over = left.is_some_and(|left| left < n as u64);
        if let Some(left) = left.filter(|_| over) {
            data.truncate(left as usize);
        }
        passed += data.len() as u64;
        let delay = effects.delay.map_or(Duration::ZERO, |(base, jitter)| {
            let spread = jitter.mul_f64(rng.random_range(0.0..=2.0));
            (base + spread).saturating_sub(jitter)
        });
        // In order: nothing overtakes.
        last_due = last_due.max(Instant::now() + delay);
        if tx.send((last_due, data)).await.is_err() {
            return Err(Broken);
        }
        if over {
            // Leaves what was passed the time to arrive before the reset.
            sleep_until(last_due + Duration::from_millis(50)).await;
            return Err(Broken);
        }
    }
}

/// Waits while the way is stalled.
async fn unstalled(faults: &mut watch::Receiver<Faults>, way: Way) -> Effects {
    loop {
        let effects = faults.borrow_and_update().way(way);
        if !effects.stall {
            return effects;
        }
        if faults.changed().await.is_err() {
            return effects;
        }
    }
}

async fn write(
    mut to: WriteHalf<'_>,
    way: Way,
    faults: watch::Receiver<Faults>,
    counters: &Counters,
    mut rx: mpsc::Receiver<Flight>,
) -> Ended {
    let count = &counters.bytes[usize::from(way == Way::Down)];
    while let Some((due, data)) = rx.recv().await {
        sleep_until(due).await;
        let rate = faults.borrow().way(way).bandwidth;
        if let Some(rate) = rate {
            sleep(Duration::from_secs_f64(data.len() as f64 / rate as f64)).await;
        }
        if to.write_all(&data).await.is_err() {
            return Err(Broken);
        }
        count.fetch_add(data.len() as u64, Ordering::Relaxed);
    }
    match to.shutdown().await {
        Ok(()) => Ok(()),
        Err(_) => Err(Broken),
    }
}
