//! The listening socket: bound again briefly after a crash, with or without TLS.
//!
//! Connections are accepted in a thread of their own. Where ten thousand workers return at once a
//! busy runtime leaves the kernel's queue full, and whoever finds it so hears nothing and asks
//! again seconds later, long after its turn.

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use outlast_net::pulse::{Counted, Progress};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// Connections that wait in the kernel; it takes its own `net.core.somaxconn` where that is less.
const BACKLOG: u32 = 16_384;
/// Accepted connections that wait for the runtime.
const AHEAD: usize = 16_384;
/// How long an address that is in use is tried again: a crashed predecessor may be going away.
const BIND_PATIENCE: Duration = Duration::from_secs(10);
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
    addr: SocketAddr,
}

impl Accepted {
    /// Accepts from now on, in a thread.
    pub fn start(listener: TcpListener) -> io::Result<(Accepted, JoinHandle<()>)> {
        let addr = listener.local_addr()?;
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
        Ok((Accepted { ready, addr }, thread))
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

impl Connected<IncomingStream<'_, Plain>> for Arrived {
    fn connect_info(stream: IncomingStream<'_, Plain>) -> Self {
        Arrived(stream.io().progress())
    }
}

impl Connected<IncomingStream<'_, Tls>> for Arrived {
    fn connect_info(stream: IncomingStream<'_, Tls>) -> Self {
        Arrived(stream.io().progress())
    }
}

/// Plain connections, without the delay of small packets.
pub(crate) struct Plain(pub Accepted);

impl Listener for Plain {
    type Io = Counted<TcpStream>;
    type Addr = SocketAddr;
    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        match self.0.next().await {
            Some((stream, peer)) => (Counted::new(stream), peer),
            None => std::future::pending().await,
        }
    }
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.0.addr)
    }
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

/// Connections after their handshake; a slow one keeps nobody waiting.
pub(crate) struct Tls {
    ready: mpsc::Receiver<(Counted<TlsStream<TcpStream>>, SocketAddr)>,
    addr: SocketAddr,
}

impl Tls {
    pub fn new(mut accepted: Accepted, config: Arc<ServerConfig>) -> Tls {
        let addr = accepted.addr;
        let acceptor = TlsAcceptor::from(config);
        let (tx, ready) = mpsc::channel(16);
        let permits = Arc::new(Semaphore::new(HANDSHAKES));
        tokio::spawn(async move {
            while let Ok(permit) = permits.clone().acquire_owned().await {
                let next = tokio::select! {
                    next = accepted.next() => next,
                    () = tx.closed() => None,
                };
                let Some((stream, peer)) = next else { return };
                let (acceptor, tx) = (acceptor.clone(), tx.clone());
                tokio::spawn(async move {
                    match timeout(HANDSHAKE, acceptor.accept(stream)).await {
                        Ok(Ok(stream)) => drop(tx.send((Counted::new(stream), peer)).await),
                        Ok(Err(error)) => tracing::debug!(%peer, "TLS handshake failed: {error}"),
                        Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
                    }
                    drop(permit);
                });
            }
        });
        Tls { ready, addr }
    }
}

impl Listener for Tls {
    type Io = Counted<TlsStream<TcpStream>>;
    type Addr = SocketAddr;
    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        match self.ready.recv().await {
            Some(ready) => ready,
            None => std::future::pending().await,
        }
    }
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a storm of workers meets: more connections than the kernel keeps, and no runtime free.
    #[tokio::test]
    async fn a_busy_runtime_lets_nobody_wait_for_a_connection() {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let (mut accepted, thread) = Accepted::start(socket.listen(32).unwrap()).unwrap();
        let mut held = Vec::new();
        for _ in 0..100 {
            // This blocks the only thread of the runtime; a SYN that was lost is sent again.
            let wait = Duration::from_secs(20);
            held.push(std::net::TcpStream::connect_timeout(&accepted.addr, wait).unwrap());
        }
        for stream in &held {
            let (_, peer) = accepted.next().await.unwrap();
            assert_eq!(peer, stream.local_addr().unwrap());
        }
        let addr = accepted.addr;
        drop(accepted);
        thread.join().unwrap();
        assert!(std::net::TcpStream::connect(addr).is_err(), "it still listens");
    }
}
