//! The conditions under which one worker's link may stay: WebSocket pings, bytes that arrive, and the key
//! that it was opened with.

use crate::auth::{Pass, Who};
use crate::input::{Driver, Input};
use crate::listen::Connection;
use crate::outbound::Why;
use crate::share::{Held, Share};
use axum::extract::ws::{Message, WebSocket};
use futures_util::StreamExt;
use futures_util::stream::SplitStream;
use outlast_core::coord::ConnId;
use outlast_model::LinkCause;
use outlast_net::pulse::{self, PingConfig, Progress};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// Time between signs of life for the core, on a link on which nothing is read.
const HEARD: Duration = Duration::from_secs(2);

/// The signs of life of one link.
pub(crate) struct Keepalive {
    pub conn: ConnId,
    pub driver: Driver,
    pass: Pass,
    config: PingConfig,
    progress: Progress,
    pings: Notify,
    /// Milliseconds that this link may be silent after a ping; 0: what is configured holds.
    timeout: AtomicU64,
}

impl Keepalive {
    /// The keepalive of a link that was opened with this key.
    pub fn new(
        (conn, driver): (ConnId, Driver),
        pass: Pass,
        config: PingConfig,
        connection: Connection,
    ) -> Keepalive {
        let (pings, timeout) = (Notify::new(), AtomicU64::new(0));
        Keepalive { conn, driver, pass, config, progress: connection.progress, pings, timeout }
    }

    /// The key that opened the link.
    pub fn who(&self) -> &Who {
        self.pass.who()
    }

    /// Sets how many milliseconds the link may be silent after a ping.
    pub fn set_timeout(&self, ms: u64) {
        self.timeout.store(ms, Ordering::Relaxed);
    }

    /// Waits until a ping is to be sent.
    pub async fn ping_due(&self) {
        self.pings.notified().await;
    }

    /// Waits until nothing arrives any more, or the key is not valid any more.
    pub async fn dead(&self) -> Why {
        let ping = || self.pings.notify_one();
        let timeout = || Duration::from_millis(self.timeout.load(Ordering::Relaxed));
        tokio::select! {
            why = pulse::watch(self.config, self.progress.clone(), timeout, ping) => {
                (LinkCause::Silent, why)
            }
            why = self.pass.ended() => (LinkCause::Refused, why),
        }
    }

    /// Returns the next message. One that is long in coming is a sign of life before it is there.
    pub async fn next(
        &self,
        stream: &mut SplitStream<WebSocket>,
    ) -> Option<Result<Message, axum::Error>> {
        let mut next = stream.next();
        loop {
            match pulse::attend(&self.progress, Pin::new(&mut next)).await {
                Some(next) => return next,
                None => self.heard().await,
            }
        }
    }

    /// Waits until the link's share has room for so many bytes. Meanwhile nothing is read of the
    /// link, which is no silence of its peer.
    pub async fn room(&self, share: &Share, bytes: usize) -> Held {
        loop {
            match tokio::time::timeout(HEARD, share.take(bytes)).await {
                Ok(held) => return held,
                Err(_) => {
                    self.progress.touch();
                    self.heard().await;
                }
            }
        }
    }

    async fn heard(&self) {
        let _ = self.driver.put(Input::Heard(self.conn)).await;
    }
}
