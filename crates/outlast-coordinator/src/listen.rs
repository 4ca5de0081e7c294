//! Connections: accepted, shared out among addresses, with or without TLS.
//!
//! Connections are accepted in a thread of their own. Where ten thousand workers return at once a
//! busy runtime leaves the kernel's queue full, and whoever finds it so hears nothing and asks
//! again seconds later, long after its turn.
//!
//! Anybody may connect: who says nothing, or half a request, is let go, there are fewer
//! connections than descriptors, so that the stores never lack one, and no address has all of them
//! (`peers`). The costly part of a TLS handshake is done in turns, in rotation over addresses, once
//! the whole ClientHello is here; no turn waits for anybody's network.

use crate::fair::{Limits, Turns};
use crate::peers::{ConnectionConfig, Crowded, Group, Peers, Seat};
use axum::extract::ConnectInfo;
use axum::{Router, http::Request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use outlast_net::pulse::{Counted, Progress};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::server::Acceptor;
use tokio_rustls::server::TlsStream;

/// Accepted connections that wait for the runtime.
const AHEAD: usize = 16_384;
/// Time that a connection may be open without a byte.
const FIRST: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 15 });
/// Time for the head of a request, with the wait for it on a connection that was used before. More than
/// clients keep such ones (90 s, mostly), so that none is closed under a request.
const HEADER: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 120 });
/// Descriptors that are not for connections: stores, packs, what is being sent.
const RESERVED: usize = 256;
/// Time between two log lines.
const CROWDED: Duration = Duration::from_secs(60);
/// Time for the head of a request from its first byte on.
const HEAD: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });
/// Time between checks whether a head is on its way.
const LOOK: Duration = Duration::from_millis(if cfg!(test) { 200 } else { 2000 });
/// Bytes of a head at most; also of what is read of a body in one go.
const MAX_HEAD: usize = 64 << 10;
/// Time for the first message of TLS.
const HELLO: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 5 });
/// Time for the rest of a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Connections as they were accepted; its thread ends, and the socket is closed, when this is dropped.
pub(crate) struct Accepted {
    ready: mpsc::Receiver<(std::net::TcpStream, SocketAddr)>,
}

impl Accepted {
    /// Accepts from now on, in a thread.
    pub fn start(listener: TcpListener) -> io::Result<(Accepted, JoinHandle<()>)> {
        let listener = listener.into_std()?;
        let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
        let (tx, ready) = mpsc::channel(AHEAD);
        let run = move || {
            let accepting = async {
                let listener = TcpListener::from_std(listener)?;
                loop {
                    let (stream, peer) = tokio::select! {
                        accepted = accept(&listener) => accepted,
                        () = tx.closed() => return Ok(()),
                    };
                    if let Ok(stream) = stream.into_std() {
                        drop(tx.send((stream, peer)).await);
                    }
                }
            };
            let done: io::Result<()> = runtime.block_on(accepting);
            if let Err(error) = done {
                tracing::error!("no connection can be accepted: {error}");
            }
        };
        let thread = std::thread::Builder::new().name("accept".into()).spawn(run)?;
        Ok((Accepted { ready }, thread))
    }

    async fn next(&mut self) -> Option<(TcpStream, SocketAddr)> {
        loop {
            let (stream, peer) = self.ready.recv().await?;
            match TcpStream::from_std(stream) {
                Ok(stream) => return Some((stream, peer)),
                Err(error) => tracing::warn!("a connection could not be watched: {error}"),
            }
        }
    }
}

/// Reads certificate chain and key (PEM).
pub(crate) fn tls(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, String> {
    let name = |path: &Path, e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let chain: Vec<CertificateDer> = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect)
        .map_err(|e| name(cert, &e))?;
    if chain.is_empty() {
        return Err(name(cert, &"holds no certificate"));
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|e| name(key, &e))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(|e| name(key, &e))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The connection of a request: what arrives on it, and its place among others.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    pub progress: Progress,
    pub seat: Arc<Seat>,
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let _ = stream.set_nodelay(true);
                return (stream, peer);
            }
            // Out of descriptors, mostly: leave time for some to be closed.
            Err(error) => {
                tracing::warn!("a connection could not be accepted: {error}");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Serves every connection until `stopped`; then answers what was asked.
pub(crate) async fn serve(
    mut accepted: Accepted,
    tls: Option<Arc<ServerConfig>>,
    config: ConnectionConfig,
    app: Router,
    stopped: impl Future<Output = ()>,
) {
    let tls = tls.map(Tls::new);
    let (stop, stopping) = watch::channel(false);
    let peers = Peers::new(most_connections(), &config);
    let mut complaints = Complaints::default();
    let mut connections = JoinSet::new();
    let mut stopped = std::pin::pin!(stopped);
    loop {
        let (stream, peer) = tokio::select! {
            () = &mut stopped => break,
            Some(_) = connections.join_next() => continue,
            next = accepted.next() => match next {
                Some(next) => next,
                None => break,
            },
        };
        let seat = match peers.enter(peer.ip()) {
            Ok(seat) => Arc::new(seat),
            Err(crowded) => {
                complaints.refused(peer, &crowded);
                continue;
            }
        };
        let (app, tls, stopping) = (app.clone(), tls.clone(), stopping.clone());
        connections.spawn(async move {
            let leaver = seat.clone();
            tokio::select! {
                () = welcome(stream, peer, tls, seat, app, stopping) => {}
                () = leaver.ousted() => tracing::debug!(%peer, "made room for another address"),
            }
        });
    }
    drop(accepted);
    let _ = stop.send(true);
    while connections.join_next().await.is_some() {}
}

/// Refused connections are mentioned, a line a minute for each reason.
#[derive(Default)]
struct Complaints {
    all: Option<Instant>,
    share: Option<Instant>,
}

impl Complaints {
    fn refused(&mut self, peer: SocketAddr, crowded: &Crowded) {
        let last = match crowded {
            Crowded::All(_) => &mut self.all,
            Crowded::Share(_) => &mut self.share,
        };
        if last.is_some_and(|at| at.elapsed() <= CROWDED) {
            return;
        }
        *last = Some(Instant::now());
        let ip = peer.ip();
        match crowded {
            Crowded::All(most) => {
                tracing::warn!("{most} connections are the limit of open files: more are refused");
            }
            Crowded::Share(share) => tracing::warn!(
                "{ip} has {share} connections, its share: more are refused; see \
                 --max-connections-per-address and --trusted-proxies"
            ),
        }
    }
}

/// The TLS settings, and the turns in its costly part.
#[derive(Clone)]
struct Tls {
    config: Arc<ServerConfig>,
    turns: Arc<Turns<Group>>,
}

impl Tls {
    fn new(config: Arc<ServerConfig>) -> Tls {
        let turns = std::thread::available_parallelism().map_or(4, |n| n.get() * 2);
        // There are no more than connections.
        let limits = Limits { turns, each: turns, waiting: usize::MAX };
        Tls { config, turns: Turns::new(limits) }
    }

    async fn accept(&self, stream: TcpStream, of: Group) -> Result<TlsStream<TcpStream>, String> {
        let late = |what: &str| format!("{what} took too long");
        let hello = LazyConfigAcceptor::new(Acceptor::default(), stream);
        let hello = timeout(HELLO, hello).await.map_err(|_| late("the ClientHello"))?;
        let hello = hello.map_err(|e| e.to_string())?;
        let turn = timeout(HANDSHAKE, self.turns.take(of)).await;
        let turn = turn.map_err(|_| late("the wait for a turn"))?;
        let mut rest = std::pin::pin!(hello.into_stream(self.config.clone()));
        // The answer to the ClientHello is what costs; what follows waits for the client.
        let first = futures_util::poll!(rest.as_mut());
        drop(turn);
        match first {
            Poll::Ready(done) => done.map_err(|e| e.to_string()),
            Poll::Pending => match timeout(HANDSHAKE, rest).await {
                Ok(done) => done.map_err(|e| e.to_string()),
                Err(_) => Err(late("the handshake")),
            },
        }
    }
}

/// A new connection: served once it has said something.
async fn welcome(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<Tls>,
    seat: Arc<Seat>,
    app: Router,
    stopping: watch::Receiver<bool>,
) {
    // Neither a turn nor memory is spent on who says nothing.
    if !matches!(timeout(FIRST, stream.peek(&mut [0])).await, Ok(Ok(1))) {
        return;
    }
    let Some(tls) = tls else {
        let stream = Counted::holding(stream, seat.clone());
        return connection(stream, seat, app, stopping).await;
    };
    match tls.accept(stream, seat.group()).await {
        Ok(stream) => {
            let stream = Counted::holding(stream, seat.clone());
            connection(stream, seat, app, stopping).await;
        }
        Err(error) => tracing::debug!(%peer, "TLS: {error}"),
    }
}

/// One connection, until it ends or is asked to.
async fn connection(
    stream: Counted<impl AsyncRead + AsyncWrite + Unpin + Send + 'static>,
    seat: Arc<Seat>,
    app: Router,
    mut stopping: watch::Receiver<bool>,
) {
    let progress = stream.progress();
    let connection = ConnectInfo(Connection { progress: progress.clone(), seat });
    let served = Arc::new(Served::default());
    let app = TowerToHyperService::new(app);
    let (serving, counted) = (served.clone(), progress.clone());
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(connection.clone());
        let (answer, serving) = (app.call(request), Serving::begin(&serving));
        let counted = counted.clone();
        async move {
            let answer = answer.await;
            serving.end(counted.bytes());
            answer
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER).max_buf_size(MAX_HEAD);
    let serve = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
    let mut serve = std::pin::pin!(serve);
    let stop = async { drop(stopping.wait_for(|stop| *stop).await) };
    let done = tokio::select! {
        done = &mut serve => done,
        () = stop => {
            serve.as_mut().graceful_shutdown();
            serve.await
        }
        () = served.stalled(&progress) => return,
    };
    if let Err(error) = done {
        tracing::trace!("a connection broke off: {error}");
    }
}

/// The state of a connection: in a request, or between two.
#[derive(Default)]
struct Served {
    /// Requests that are being answered.
    now: AtomicUsize,
    /// Bytes that had arrived when the last answer began.
    seen: AtomicU64,
}

impl Served {
    /// Waits until the head of a request has been on its way for too long.
    async fn stalled(&self, progress: &Progress) {
        let (began, mut since) = (Instant::now(), None);
        loop {
            sleep(LOOK).await;
            let arrived = progress.bytes();
            let head = arrived != self.seen.load(Ordering::Relaxed);
            if arrived == 0 && began.elapsed() >= FIRST {
                return;
            }
            if !head || self.now.load(Ordering::Relaxed) > 0 {
                since = None;
            } else if since.get_or_insert_with(Instant::now).elapsed() >= HEAD {
                return;
            }
        }
    }
}

/// One request that is being answered, until it is answered or dropped.
struct Serving(Arc<Served>);

impl Serving {
    fn begin(served: &Arc<Served>) -> Serving {
        served.now.fetch_add(1, Ordering::Relaxed);
        Serving(served.clone())
    }
    fn end(self, seen: u64) {
        self.0.seen.store(seen, Ordering::Relaxed);
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Connections at a time: what is left of the descriptors, with some for everything else. As many
/// are asked for as the system allows: where it is not asked, 1,024 are all there are, mostly.
fn most_connections() -> usize {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    let soft = match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    };
    let soft = usize::try_from(soft).unwrap_or(usize::MAX);
    soft.saturating_sub(RESERVED).max(soft / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A storm of workers: more connections than the kernel keeps, and no runtime free.
    #[tokio::test]
    async fn a_busy_runtime_lets_nobody_wait_for_a_connection() {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(32).unwrap();
        let addr = listener.local_addr().unwrap();
        let (mut accepted, thread) = Accepted::start(listener).unwrap();
        let mut held = Vec::new();
        for _ in 0..100 {
            // This blocks the only thread of the runtime; a SYN that was lost is sent again.
            let wait = Duration::from_secs(20);
            held.push(std::net::TcpStream::connect_timeout(&addr, wait).unwrap());
        }
        for stream in &held {
            let (_, peer) = accepted.next().await.unwrap();
            assert_eq!(peer, stream.local_addr().unwrap());
        }
        drop(accepted);
        thread.join().unwrap();
        assert!(std::net::TcpStream::connect(addr).is_err(), "it still listens");
    }

    #[tokio::test]
    async fn who_says_nothing_or_half_of_it_is_let_go() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (accepted, thread) = Accepted::start(listener).unwrap();
        let app = Router::new().route("/", axum::routing::get(async || "here"));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = tokio::spawn(serve(accepted, None, Default::default(), app, async {
            drop(stopped.await)
        }));
        // What comes back until the connection is closed.
        let said = async |text: &str| {
            let mut stream = TcpStream::connect(addr).await.unwrap();
            stream.write_all(text.as_bytes()).await.unwrap();
            let mut all = String::new();
            let read = timeout(Duration::from_secs(10), stream.read_to_string(&mut all)).await;
            drop(read.expect("it is still open"));
            all
        };
        let whole = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
        let (silent, half, kept) = tokio::join!(said(""), said("GET / HT"), said(whole));
        assert_eq!(silent, "");
        assert!(!half.contains("200"), "{half}");
        assert!(kept.ends_with("here"), "{kept}");
        stop.send(()).unwrap();
        timeout(Duration::from_secs(5), serving).await.unwrap().unwrap();
        thread.join().unwrap();
    }
}
