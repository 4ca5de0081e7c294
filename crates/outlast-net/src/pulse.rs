//! Detection of a dead link below its protocol: WebSocket pings, answered by any received bytes. A
//! pong may wait behind data on a slow link; that data counts as a sign of life, too.

use std::any::Any;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep, timeout};

/// A wait that took this much longer than it should says that this process was stopped: then
/// silence meanwhile says nothing.
const LATE: Duration = Duration::from_secs(5);

/// Number of times that it is looked whether a long message is on its way.
const LOOK: Duration = Duration::from_secs(2);

/// Interval of pings, and the longest silence after one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PingConfig {
    /// Time between pings; 0: none are sent.
    pub interval: Duration,
    /// Silence after a ping that ends the link.
    pub timeout: Duration,
}

impl Default for PingConfig {
    fn default() -> Self {
        PingConfig { interval: Duration::from_secs(30), timeout: Duration::from_secs(10) }
    }
}

/// Bytes that arrived on a connection. Clones count the same.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<AtomicU64>);

impl Progress {
    /// Number of bytes received so far.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
    /// Bytes may wait that this side does not read for now: that is no silence.
    pub fn touch(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Value that is dropped with a stream.
type Held = Arc<dyn Any + Send + Sync>;

/// A stream whose arriving bytes are counted.
#[derive(Debug)]
pub struct Counted<S> {
    inner: S,
    progress: Progress,
    _held: Option<Held>,
}

impl<S> Counted<S> {
    /// Counts from now on.
    pub fn new(inner: S) -> Counted<S> {
        Counted { inner, progress: Progress::default(), _held: None }
    }
    /// Wraps a stream; `held` is dropped with the stream, which allows to count streams.
    pub fn holding(inner: S, held: Held) -> Counted<S> {
        Counted { _held: Some(held), ..Counted::new(inner) }
    }
    /// The count.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let done = Pin::new(&mut self.inner).poll_read(cx, buf);
        let arrived = buf.filled().len() - before;
        self.progress.0.fetch_add(arrived as u64, Ordering::Relaxed);
        done
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

/// Waits for what comes next. None: bytes arrive that do not make it up yet; wait again.
pub async fn attend<T>(
    progress: &Progress,
    mut next: Pin<&mut impl Future<Output = T>>,
) -> Option<T> {
    loop {
        let before = progress.bytes();
        if let Ok(next) = timeout(LOOK, next.as_mut()).await {
            return Some(next);
        }
        if progress.bytes() != before {
            return None;
        }
    }
}

/// Has a ping sent (`ping` must not wait) every interval, and returns why the link is dead once
/// nothing has arrived for the timeout after one; or for as long as is known to happen on this
/// link (`patience`), where that is longer.
pub async fn watch(
    config: PingConfig,
    progress: Progress,
    patience: impl Fn() -> Duration,
    mut ping: impl FnMut(),
) -> String {
    if config.interval.is_zero() {
        return std::future::pending().await;
    }
    loop {
        sleep(config.interval).await;
        let (before, asked) = (progress.bytes(), Instant::now());
        ping();
        sleep(config.timeout).await;
        let stopped = asked.elapsed() > config.timeout + LATE;
        if progress.bytes() != before || stopped {
            continue;
        }
        let longer = config.timeout.max(patience());
        sleep(longer.saturating_sub(asked.elapsed())).await;
        let stopped = asked.elapsed() > longer + LATE;
        if progress.bytes() == before && !stopped {
            let seconds = longer.as_secs_f64();
            return format!("nothing arrived within {seconds} s of a WebSocket ping");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn config(interval: u64, timeout: u64) -> PingConfig {
        let ms = Duration::from_millis;
        PingConfig { interval: ms(interval), timeout: ms(timeout) }
    }

    #[tokio::test]
    async fn silence_after_a_ping_ends_a_link_and_any_byte_keeps_it() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut near = Counted::new(near);
        let progress = near.progress();
        let read = async { while near.read_u8().await.is_ok() {} };
        let trickle = async {
            for _ in 0..20 {
                far.write_all(b"x").await.unwrap();
                sleep(Duration::from_millis(10)).await;
            }
            std::future::pending::<()>().await;
        };
        let (mut pings, began) = (0, Instant::now());
        let why = tokio::select! {
            why = watch(config(20, 40), progress, || Duration::ZERO, || pings += 1) => why,
            () = read => panic!("the stream ended"),
            () = trickle => unreachable!(),
        };
        assert!(why.contains("0.04 s of a WebSocket ping"), "{why}");
        assert!(pings >= 3 && began.elapsed() >= Duration::from_millis(200), "{pings}");
    }

    #[tokio::test]
    async fn a_link_that_is_known_to_pause_is_given_longer() {
        let (began, longer) = (Instant::now(), Duration::from_millis(300));
        let why = watch(config(10, 20), Progress::default(), || longer, || ()).await;
        assert!(why.contains("0.3 s of a WebSocket ping"), "{why}");
        assert!(began.elapsed() >= longer);
    }

    #[tokio::test]
    async fn none_are_sent_when_turned_off() {
        let none = || Duration::ZERO;
        let off = watch(config(0, 1), Progress::default(), none, || panic!("a ping"));
        assert!(tokio::time::timeout(Duration::from_millis(50), off).await.is_err());
    }
}
