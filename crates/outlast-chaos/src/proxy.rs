//! The proxy: it accepts, connects, counts and resets. `pump` moves the bytes.

use crate::Faults;
use crate::counters::{Counters, Stats};
use crate::fault::Way;
use crate::pump;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

/// Connections at a time; more are refused.
const CONNECTIONS: usize = 16_384;
/// Time that the upstream may take to accept.
const CONNECT: Duration = Duration::from_secs(10);

/// The faults that hold, and the counts, for all connections.
#[derive(Debug)]
struct Shared {
    faults: watch::Sender<Faults>,
    /// Grows with each cut.
    cuts: watch::Sender<u64>,
    counters: Counters,
}

/// Steers a proxy; clones steer the same one.
#[derive(Debug, Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    /// Sets the faults from now on, also for connections that are open.
    pub fn set(&self, faults: Faults) {
        if faults.cuts() {
            self.cut();
        }
        self.shared.faults.send_replace(faults);
    }
    /// The faults that hold.
    pub fn faults(&self) -> Faults {
        self.shared.faults.borrow().clone()
    }
    /// Ends all faults.
    pub fn heal(&self) {
        self.set(Faults::none());
    }
    /// Resets what is open; new connections are accepted.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|n| *n += 1);
    }
    /// The counts so far.
    pub fn stats(&self) -> Stats {
        self.shared.counters.stats()
    }
}

/// A proxy that runs. Dropping it stops accepting; what is open ends with it.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    handle: Handle,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// Listens, and forwards to `upstream` (`host:port`). Needs a tokio runtime.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(listen: &str, upstream: &str) -> io::Result<Proxy> {
        let listener = TcpListener::bind(listen).await?;
        let addr = listener.local_addr()?;
        let (faults, cuts) = (watch::Sender::new(Faults::none()), watch::Sender::new(0));
        let shared = Arc::new(Shared { faults, cuts, counters: Counters::default() });
        let task = tokio::spawn(accept(listener, upstream.to_owned(), shared.clone()));
        Ok(Proxy { addr, handle: Handle { shared }, task })
    }
    /// The address at which it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }
    /// A handle that steers it.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
    /// Stops listening and resets what is open.
    pub async fn shutdown(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
        self.handle.cut();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.handle.cut();
    }
}

async fn accept(listener: TcpListener, upstream: String, shared: Arc<Shared>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok((client, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let permit = permits.clone().try_acquire_owned();
        let (Ok(permit), false) = (permit, shared.faults.borrow().refuses()) else {
            shared.counters.refused.fetch_add(1, Ordering::Relaxed);
            reset(&client);
            continue;
        };
        let (upstream, shared) = (upstream.clone(), shared.clone());
        tokio::spawn(async move {
            connection(client, &upstream, &shared).await;
            drop(permit);
        });
    }
}

/// Makes a close from now on a reset.
fn reset(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

async fn connection(mut client: TcpStream, upstream: &str, shared: &Shared) {
    let counters = &shared.counters;
    counters.connections.fetch_add(1, Ordering::Relaxed);
    let mut cuts = shared.cuts.subscribe();
    cuts.mark_unchanged();
    let connected = tokio::select! {
        connected = tokio::time::timeout(CONNECT, TcpStream::connect(upstream)) => connected,
        _ = cuts.changed() => return reset(&client),
    };
    let Ok(Ok(mut server)) = connected else { return reset(&client) };
    counters.open.fetch_add(1, Ordering::Relaxed);
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let lost = AtomicBool::new(false);
    let clean = {
        let (client_read, client_write) = client.split();
        let (server_read, server_write) = server.split();
        let faults = || shared.faults.subscribe();
        let up = pump::run(client_read, server_write, Way::Up, faults(), counters, &lost);
        let down = pump::run(server_read, client_write, Way::Down, faults(), counters, &lost);
        tokio::select! {
            // One that breaks ends both.
            ends = async { tokio::try_join!(up, down) } => ends.is_ok(),
            _ = cuts.changed() => false,
            () = healed(faults(), &lost) => false,
        }
    };
    if !clean {
        counters.resets.fetch_add(1, Ordering::Relaxed);
        reset(&client);
        reset(&server);
    }
    counters.open.fetch_sub(1, Ordering::Relaxed);
}

/// Waits until a connection that lost bytes is no longer half-open: it cannot go on.
async fn healed(mut faults: watch::Receiver<Faults>, lost: &AtomicBool) {
    loop {
        if faults.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        if lost.load(Ordering::Relaxed) && !faults.borrow().half_open() {
            return;
        }
    }
}
