//! A fleet to look at: workers that send their heartbeats, answer the coordinator's, and run
//! nothing; one in a hundred loses its link now and then. The dashboard is measured with it
//! (`make bench-dashboard`).

use crate::idle::{dial, hello};
use crate::procs::Lab;
use outlast_net::{Dialler, Receiver, Sender};
use outlast_wire::v2::body::Kind;
use outlast_wire::v2::{Heartbeat, HeartbeatReply};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};

/// Between the heartbeats of a worker: the default.
const BEAT: Duration = Duration::from_secs(5);
/// Share of workers that lose their link (one in so many), after this time, and are back after as long.
const UNSTEADY: (usize, Duration) = (100, Duration::from_secs(20));
/// No fleet is shown for longer, in seconds.
const LONGEST: u64 = 600;

/// Starts a coordinator and its fleet, and says where: address and process. Ends by itself, or when
/// it is terminated: the coordinator ends with it either way.
pub(crate) fn run(workers: usize, seconds: u64) -> anyhow::Result<()> {
    anyhow::ensure!(seconds <= LONGEST, "at most {LONGEST} seconds");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let lab = Lab::new().await?;
        let links = dial(&lab, 0, workers).await?;
        for (n, link) in links.into_iter().enumerate() {
            tokio::spawn(live(lab.addr.clone(), n, link));
        }
        println!("http://{} {}", lab.addr, lab.coordinator.id());
        let mut term = signal(SignalKind::terminate())?;
        tokio::select! {
            () = sleep(Duration::from_secs(seconds)) => {}
            _ = term.recv() => {}
        }
        Ok(())
    })
}

/// A worker's life, for as long as anybody looks.
async fn live(addr: String, n: usize, mut link: (Sender, Receiver)) {
    // Spread, as those of real workers are.
    sleep(BEAT.mul_f64((n * 7919 % 1000) as f64 / 1000.0)).await;
    let pause = UNSTEADY.1.mul_f64(0.5 + (n * 104_729 % 1000) as f64 / 1000.0);
    for connection in 2.. {
        let steady = !n.is_multiple_of(UNSTEADY.0);
        let until = if steady { Duration::from_secs(LONGEST) } else { pause };
        let _ = timeout(until, beat(&mut link)).await;
        drop(link);
        sleep(pause).await;
        link = loop {
            let url = format!("http://{addr}");
            let Ok(dialler) = Dialler::new(&url, &format!("idle-{n}"), None, None) else { return };
            if let Ok((sender, receiver)) = dialler.dial().await
                && let Ok((Kind::Welcome(_), link)) = hello(sender, receiver, n, connection).await
            {
                break link;
            }
            sleep(Duration::from_secs(1)).await;
        };
    }
}

/// Sends heartbeats and answers those of the coordinator until the link ends.
async fn beat((sender, receiver): &mut (Sender, Receiver)) {
    let (mut seq, mut rtt) = (0, 0);
    loop {
        seq += 1;
        let heartbeat = Heartbeat { seq, rtt_ms: rtt, ..Default::default() };
        if say(sender, Kind::Heartbeat(heartbeat)).await.is_err() {
            return;
        }
        let sent = Instant::now();
        let next = tokio::time::Instant::now() + BEAT;
        while let Ok(heard) = tokio::time::timeout_at(next, receiver.next()).await {
            match heard {
                Ok(Kind::Heartbeat(h)) => {
                    let reply = Kind::HeartbeatReply(HeartbeatReply { seq: h.seq });
                    if say(sender, reply).await.is_err() {
                        return;
                    }
                }
                Ok(Kind::HeartbeatReply(_)) => rtt = sent.elapsed().as_millis() as u32,
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }
}

async fn say(sender: &mut Sender, kind: Kind) -> Result<(), String> {
    sender.feed(kind).await?;
    sender.flush().await
}
