//! The listening socket: bound again briefly after a crash, with or without TLS.
//!
//! Connections are accepted in a thread of their own. Where ten thousand workers return at once a
//! busy runtime leaves the kernel's queue full, and whoever finds it so hears nothing and asks
//! again seconds later, long after its turn.
//!
//! Anybody may connect: who says nothing, or half a request, is let go, and there are fewer
//! connections than descriptors, so that the stores never lack one.

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
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;

/// Connections that wait in the kernel; it takes its own `net.core.somaxconn` where that is less.
const BACKLOG: u32 = 16_384;
/// Accepted connections that wait for the runtime.
const AHEAD: usize = 16_384;
/// How long an address that is in use is tried again: a crashed predecessor may be going away.
const BIND_PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection may be there without a word.
const FIRST: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 15 });
/// How long the head of a request may take, also the wait for it on a connection that was used
/// before. More than clients keep such ones (90 s, mostly), so that none is closed under a request.
const HEADER: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 120 });
/// Descriptors that are not for connections: stores, packs, what is being sent.
const RESERVED: usize = 256;
/// Between two complaints.
const CROWDED: Duration = Duration::from_secs(60);
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes at a time.
const HANDSHAKES: usize = 256;

pub(crate) async fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let deadline = Instant::now() + BIND_PATIENCE;
    loop {
        match listen(addr) {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                sleep(Duration::from_millis(200)).await;
            }
            other => return other,
        }
    }
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // The address may still be in TIME_WAIT.
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

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

/// What arrives on the connection of a request.
#[derive(Debug, Clone)]
pub(crate) struct Arrived(pub Progress);

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
    app: Router,
    stopped: impl Future<Output = ()>,
) {
    let tls = tls.map(TlsAcceptor::from);
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    let (stop, stopping) = watch::channel(false);
    let (most, mut crowded) = (most_connections(), None::<Instant>);
    // Each connection holds one, whatever it becomes.
    let open = Arc::new(());
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
        if Arc::strong_count(&open) > most {
            if crowded.is_none_or(|at| at.elapsed() > CROWDED) {
                crowded = Some(Instant::now());
                tracing::warn!("{most} connections are the limit of open files: more are refused");
            }
            continue;
        }
        let (app, tls, handshakes) = (app.clone(), tls.clone(), handshakes.clone());
        let (stopping, held) = (stopping.clone(), open.clone());
        connections.spawn(async move {
            // Not to be served yet: neither a permit nor memory is spent on who says nothing.
            if !matches!(timeout(FIRST, stream.peek(&mut [0])).await, Ok(Ok(1))) {
                return;
            }
            let Some(tls) = tls else {
                return connection(Counted::holding(stream, held), app, stopping).await;
            };
            let Ok(permit) = handshakes.acquire_owned().await else { return };
            let done = timeout(HANDSHAKE, tls.accept(stream)).await;
            drop(permit);
            match done {
                Ok(Ok(stream)) => {
                    connection(Counted::holding(stream, held), app, stopping).await;
                }
                Ok(Err(error)) => tracing::debug!(%peer, "TLS handshake failed: {error}"),
                Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
            }
        });
    }
    drop(accepted);
    let _ = stop.send(true);
    while connections.join_next().await.is_some() {}
}

/// One connection, until it ends or is asked to.
async fn connection(
    stream: Counted<impl AsyncRead + AsyncWrite + Unpin + Send + 'static>,
    app: Router,
    mut stopping: watch::Receiver<bool>,
) {
    let arrived = ConnectInfo(Arrived(stream.progress()));
    let app = TowerToHyperService::new(app);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(arrived.clone());
        app.call(request)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER);
    let serve = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
    let mut serve = std::pin::pin!(serve);
    let stop = async { drop(stopping.wait_for(|stop| *stop).await) };
    let done = tokio::select! {
        done = &mut serve => done,
        () = stop => {
            serve.as_mut().graceful_shutdown();
            serve.await
        }
    };
    if let Err(error) = done {
        tracing::trace!("a connection broke off: {error}");
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

    /// What a storm of workers meets: more connections than the kernel keeps, and no runtime free.
    #[tokio::test]
    async fn a_busy_runtime_lets_nobody_wait_for_a_connection() {
        let socket = TcpSocket::new_v4().unwrap();
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
        let serving = tokio::spawn(serve(accepted, None, app, async { drop(stopped.await) }));
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
