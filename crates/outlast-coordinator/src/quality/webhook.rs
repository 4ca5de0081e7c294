//! Sends alerts to an address: one after the other, those that wait together, again for a while
//! when it does not answer. Holds up nobody.

use crate::outgoing;
use outlast_wire::api::Alert;
use serde::Serialize;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Alerts that may wait; more are dropped, and counted in the log.
const WAITING: usize = 1_024;
/// Alerts in one delivery.
const TOGETHER: usize = 100;
/// Deliveries of the same alerts, and the first and the longest pause between two.
const TRIES: (u32, Duration, Duration) = (10, Duration::from_secs(1), Duration::from_secs(60));
/// Time that the coordinator's end waits for what is still to be delivered.
const LAST: Duration = Duration::from_secs(5);

/// The address that alerts are sent to.
#[derive(Clone, PartialEq)]
pub struct WebhookConfig {
    /// An `http` or `https` address; it is not left for another by a redirect.
    pub url: String,
    /// Sent as `Authorization: Bearer`.
    pub token: Option<String>,
    /// Timeout of one delivery.
    pub timeout: Duration,
}

impl std::fmt::Debug for WebhookConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookConfig").field("url", &self.url).finish_non_exhaustive()
    }
}

pub(super) struct Webhook {
    queue: mpsc::Sender<Alert>,
    work: JoinHandle<()>,
}

#[derive(Serialize)]
struct Delivery<'a> {
    alerts: &'a [Alert],
}

enum Failure {
    /// The delivery may work later.
    Again(String),
    /// The delivery will never work.
    Final(String),
}

impl Webhook {
    pub fn start(config: &WebhookConfig) -> Result<Webhook, String> {
        let url = reqwest::Url::parse(&config.url).map_err(|e| format!("webhook: {e}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err("webhook: write an address such as https://host/path".into());
        }
        let client = outgoing::client(url.host_str()).map_err(|e| format!("webhook: {e}"))?;
        let (queue, waiting) = mpsc::channel(WAITING);
        let sender = Sender { client, url, token: config.token.clone(), timeout: config.timeout };
        let work = tokio::spawn(sender.run(waiting));
        Ok(Webhook { queue, work })
    }

    /// The coordinator ends: what waits is delivered, if the address answers soon.
    pub async fn end(self) {
        drop(self.queue);
        let mut work = self.work;
        if tokio::time::timeout(LAST, &mut work).await.is_err() {
            work.abort();
            tracing::warn!("the webhook is too slow: it may not know that alerts are cleared");
        }
    }

    pub fn send(&self, alert: Alert) {
        if let Err(error) = self.queue.try_send(alert) {
            let (mpsc::error::TrySendError::Full(alert) | mpsc::error::TrySendError::Closed(alert)) =
                error;
            tracing::warn!("the webhook is too slow: alert {} is not sent to it", alert.id);
        }
    }
}

struct Sender {
    client: reqwest::Client,
    url: reqwest::Url,
    token: Option<String>,
    timeout: Duration,
}

impl Sender {
    async fn run(self, mut waiting: mpsc::Receiver<Alert>) {
        let mut alerts = Vec::new();
        while waiting.recv_many(&mut alerts, TOGETHER).await > 0 {
            let mut pause = TRIES.1;
            for n in 1..=TRIES.0 {
                match self.deliver(&alerts).await {
                    Ok(()) => break,
                    Err(Failure::Again(why)) if n < TRIES.0 => {
                        tracing::debug!("the webhook failed: {why}; again in {pause:?}");
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(TRIES.2);
                    }
                    Err(Failure::Again(why) | Failure::Final(why)) => {
                        let count = alerts.len();
                        tracing::error!("the webhook failed: {why}; {count} alerts are not sent");
                        break;
                    }
                }
            }
            alerts.clear();
        }
    }

    async fn deliver(&self, alerts: &[Alert]) -> Result<(), Failure> {
        let request =
            self.client.post(self.url.clone()).timeout(self.timeout).json(&Delivery { alerts });
        let request = match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        // The address may hold a secret: it is not repeated.
        let answer = request.send().await;
        let answer = answer.map_err(|e| Failure::Again(e.without_url().to_string()))?;
        let status = answer.status();
        match status.as_u16() {
            200..=299 => Ok(()),
            408 | 425 | 429 | 500..=599 => Err(Failure::Again(format!("it answered {status}"))),
            300..=399 => {
                let why = format!("it answered {status}, and redirects are not followed");
                Err(Failure::Final(why))
            }
            _ => Err(Failure::Final(format!("it answered {status}"))),
        }
    }
}
