//! Ten thousand workers that return to a coordinator that was killed.

use crate::figures::{Figures, put};
use crate::idle::{Link, hello};
use crate::procs::Lab;
use outlast_net::Dialler;
use outlast_wire::v2::body::Kind;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const WORKERS: usize = 10_000;
/// Shortest pause before the first dial, in seconds.
const FIRST: f64 = 1.2;

/// The return of one worker.
struct Return {
    /// From the restart to its welcome, in seconds.
    took: f64,
    /// Time of its turn, as it was announced first; none if it was admitted at once.
    announced: Option<f64>,
}

impl Return {
    fn turn(&self) -> f64 {
        self.announced.unwrap_or(self.took)
    }
}

/// Dials until it is accepted, as a worker does, at the turn that it is given.
async fn come_back(addr: String, n: usize, since: Instant) -> anyhow::Result<(Link, Return)> {
    let (mut announced, mut connection) = (None, 1);
    // The backoff of a real worker, first 1 s with jitter, then longer.
    let mut pause = 800 + (n as u64 * 7919) % 400;
    loop {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        connection += 1;
        let dialler = Dialler::new(&format!("http://{addr}"), &format!("idle-{n}"), None, None)?;
        let Ok(Ok((sender, receiver))) =
            tokio::time::timeout(Duration::from_secs(15), dialler.dial()).await
        else {
            pause = 1600 + (n as u64 * 104_729) % 800;
            continue;
        };
        match hello(sender, receiver, n, connection).await {
            Ok((Kind::Welcome(_), link)) => {
                let took = since.elapsed().as_secs_f64();
                return Ok((link, Return { took, announced }));
            }
            Ok((Kind::Refused(refused), _)) => {
                pause = u64::from(refused.retry_after_ms);
                announced.get_or_insert(since.elapsed().as_secs_f64() + pause as f64 / 1000.0);
            }
            _ => pause = 2_000,
        }
    }
}

pub(crate) async fn run(figures: &mut Figures) -> anyhow::Result<()> {
    let mut lab = Lab::new().await?;
    let held = crate::idle::dial(&lab, 0, WORKERS).await?;
    lab.connected(WORKERS).await?;
    lab.restart_coordinator()?;
    drop(held);
    let since = Instant::now();
    let mut all = JoinSet::new();
    for n in 0..WORKERS {
        all.spawn(come_back(lab.addr.clone(), n, since));
    }
    let (mut links, mut returns) = (Vec::new(), Vec::new());
    while let Some(done) = all.join_next().await {
        let (link, one) = done??;
        links.push(link);
        returns.push(one);
    }
    lab.connected(WORKERS).await?;
    let took = since.elapsed().as_secs_f64();
    put(figures, "10,000 workers back after a coordinator's SIGKILL", took, "s", "30");
    // In the order of the turns that they were given, at the even pace of the whole.
    let last = returns.iter().map(|r| r.took).fold(0.0, f64::max);
    returns.sort_by(|a, b| a.turn().total_cmp(&b.turn()));
    let fair = |place: usize| FIRST + last * (place + 1) as f64 / WORKERS as f64;
    let waits = returns.iter().enumerate().map(|(place, r)| r.took / fair(place));
    let worst = waits.fold(0.0, f64::max);
    put(figures, "  longest wait, of its fair turn", worst, "times", "2");
    Ok(())
}
