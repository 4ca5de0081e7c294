//! Bodies of requests that are held in memory: within a budget that all share, and only while they
//! arrive at a fair rate. Handlers check the key by the head before they read a body here.

use crate::problem::Refusal;
use axum::body::{Body, BodyDataStream, Bytes};
use axum::http::{HeaderMap, StatusCode, header};
use futures_util::StreamExt;
use outlast_wire::json::Limit;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Bytes of the body of a request that changes one thing.
pub(crate) const MAX_REQUEST: usize = 16 << 10;
/// The limit of a request's document that holds no tasks.
pub(crate) const DOCUMENT: Limit = Limit { bytes: 1 << 20, weight: 4 << 20 };
/// Bytes of bodies in memory at a time: of small ones, and of all others.
const BUDGET: (usize, usize) = (64 << 20, 192 << 20);
/// Bytes of the largest body that is small.
const SMALL: usize = 64 << 10;
/// Bytes of one permit.
const UNIT: usize = 1 << 10;
/// Time that a body waits for its share of the budget.
const TURN: Duration = Duration::from_millis(if cfg!(test) { 100 } else { 10_000 });
/// Silence within a body after which it is not waited for.
const SILENCE: Duration = Duration::from_secs(30);
/// Time between checks of a body's rate while nothing of it arrives.
const LOOK: Duration = Duration::from_secs(1);

/// The least rate at which a body may arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Bytes a second, on average, after the grace.
    pub bytes: u64,
    /// Time that does not count.
    pub grace: Duration,
    /// The longest time in all.
    pub most: Duration,
}

impl Rate {
    /// The rate while there is room for others.
    pub const CALM: Rate =
        Rate { bytes: 1 << 10, grace: Duration::from_secs(20), most: Duration::from_secs(600) };
    /// The rate while others wait for room.
    pub const PRESSED: Rate =
        Rate { bytes: 32 << 10, grace: Duration::from_secs(10), most: Duration::from_secs(120) };

    /// Returns whether so many bytes in this time are too few.
    pub fn misses(self, got: usize, took: Duration) -> bool {
        let Some(counted) = took.checked_sub(self.grace) else { return false };
        took > self.most || (got as u64) < (counted.as_secs_f64() * self.bytes as f64) as u64
    }
}

/// The budget.
pub(crate) struct Intake {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

impl Default for Intake {
    fn default() -> Intake {
        let pool = |bytes: usize| Arc::new(Semaphore::new(bytes / UNIT));
        Intake { small: pool(BUDGET.0), large: pool(BUDGET.1) }
    }
}

/// A whole body; it counts until this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    bytes: Bytes,
    _share: OwnedSemaphorePermit,
}

impl Deref for Held {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Intake {
    /// Reads a body of at most `limit` bytes.
    pub async fn read(
        &self,
        headers: &HeaderMap,
        body: Body,
        limit: usize,
    ) -> Result<Held, Refusal> {
        let length = announced(headers);
        if length.is_some_and(|n| n > limit as u64) {
            return Err(too_large(limit));
        }
        // One of unknown length may become as long as it may be.
        let most = length.and_then(|n| usize::try_from(n).ok()).unwrap_or(limit);
        let pool = if most <= SMALL { &self.small } else { &self.large };
        let units = u32::try_from(most.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let share = timeout(TURN, pool.clone().acquire_many_owned(units)).await;
        let Ok(Ok(share)) = share else {
            return Err(Refusal::busy("many requests with large bodies are on their way"));
        };
        let mut arriving = BodyReader::new(body);
        let mut all = Vec::with_capacity(most);
        while let Some(data) = arriving.next(|| pressed(pool)).await? {
            if all.len() + data.len() > limit {
                return Err(too_large(limit));
            }
            // A body that came in one part is not copied.
            if all.is_empty() && length == Some(data.len() as u64) {
                return Ok(Held { bytes: data, _share: share });
            }
            all.extend_from_slice(&data);
        }
        Ok(Held { bytes: all.into(), _share: share })
    }
}

/// Returns whether there is little left for others.
fn pressed(pool: &Semaphore) -> bool {
    pool.available_permits() * UNIT < BUDGET.1 / 8
}

/// The length that a head announces.
pub(crate) fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A body in parts, as long as it arrives fast enough.
pub(crate) struct BodyReader {
    body: BodyDataStream,
    began: Instant,
    last: Instant,
    got: usize,
    rates: [Rate; 2],
}

impl BodyReader {
    /// Time counts from now on.
    pub fn new(body: Body) -> BodyReader {
        let now = Instant::now();
        BodyReader {
            body: body.into_data_stream(),
            began: now,
            last: now,
            got: 0,
            rates: [Rate::CALM, Rate::PRESSED],
        }
    }

    /// The next part; none at its end. `pressed` says whether others wait.
    pub async fn next(&mut self, pressed: impl Fn() -> bool) -> Result<Option<Bytes>, Refusal> {
        loop {
            let next = timeout(LOOK, self.body.next()).await;
            match next {
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => {
                    return Err(Refusal::bad(&format!("the body broke off: {error}")));
                }
                Ok(Some(Ok(data))) => {
                    self.got += data.len();
                    self.last = Instant::now();
                    self.check(&pressed)?;
                    return Ok(Some(data));
                }
                Err(_) => self.check(&pressed)?,
            }
        }
    }

    /// Bytes that arrived.
    pub fn got(&self) -> usize {
        self.got
    }

    fn check(&self, pressed: impl Fn() -> bool) -> Result<(), Refusal> {
        let took = self.began.elapsed();
        let silent = self.last.elapsed() >= SILENCE;
        let [calm, under_pressure] = self.rates;
        let slow =
            calm.misses(self.got, took) || (under_pressure.misses(self.got, took) && pressed());
        if silent || slow { Err(too_slow()) } else { Ok(()) }
    }
}

fn too_slow() -> Refusal {
    Refusal::new(
        StatusCode::REQUEST_TIMEOUT,
        "slow",
        "the body stopped arriving, or arrived too slowly",
        "send it again, in smaller parts; what was answered with 200 need not be sent",
    )
}

pub(crate) fn too_large(limit: usize) -> Refusal {
    let detail = format!("the limit is {limit} bytes; send it in smaller parts");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "the body is too large", &detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trickle_is_too_slow_and_a_thin_link_is_not() {
        let seconds = Duration::from_secs;
        assert!(!Rate::CALM.misses(0, seconds(20)), "within the grace");
        assert!(Rate::CALM.misses(60, seconds(60)), "a byte a second");
        assert!(!Rate::CALM.misses(60 * 2048, seconds(60)));
        assert!(Rate::PRESSED.misses(60 * 2048, seconds(60)), "while others wait");
        assert!(Rate::CALM.misses(usize::MAX, seconds(601)));
    }

    #[tokio::test]
    async fn a_body_that_trickles_is_not_waited_for_and_sooner_if_others_wait() {
        let rate = |bytes| Rate { bytes, grace: Duration::ZERO, most: Duration::from_secs(60) };
        for (calm, pressed, waits) in [(1_000_000, 0, false), (0, 1_000_000, true)] {
            let drops = futures_util::stream::repeat_with(|| Ok::<_, String>(Bytes::from("x")));
            let drops = drops.then(async |drop| {
                tokio::time::sleep(Duration::from_millis(10)).await;
                drop
            });
            let mut body = BodyReader::new(Body::from_stream(drops));
            body.rates = [rate(calm), rate(pressed)];
            let slow = loop {
                match body.next(|| waits).await {
                    Ok(part) => assert_eq!(part.unwrap().len(), 1),
                    Err(refusal) => break refusal,
                }
            };
            assert_eq!(slow.problem.status, 408);
        }
        // One of which nothing comes at all.
        let mut body = BodyReader::new(Body::from_stream(futures_util::stream::pending::<
            Result<Bytes, String>,
        >()));
        body.rates = [rate(1), rate(0)];
        assert_eq!(body.next(|| false).await.unwrap_err().problem.status, 408);
    }

    #[tokio::test]
    async fn the_budget_is_shared_and_free_again() {
        let intake = Intake::default();
        let none = HeaderMap::new();
        let mut held = Vec::new();
        let large = BUDGET.1 / 4;
        for _ in 0..4 {
            held.push(intake.read(&none, Body::from("x"), large).await.unwrap());
        }
        let full = intake.read(&none, Body::from("x"), large).await.unwrap_err();
        assert_eq!(full.problem.status, 503);
        // Small ones have a part of their own.
        let mut length = HeaderMap::new();
        length.insert(header::CONTENT_LENGTH, 1.into());
        assert_eq!(&*intake.read(&length, Body::from("x"), large).await.unwrap(), b"x");
        held.pop();
        assert!(intake.read(&none, Body::from("x"), large).await.is_ok());
    }

    #[tokio::test]
    async fn what_is_longer_than_its_limit_or_its_length_is_refused() {
        let intake = Intake::default();
        let body = || Body::from("0123456789");
        let long = intake.read(&HeaderMap::new(), body(), 9).await.unwrap_err();
        assert_eq!(long.problem.status, 413);
        let mut length = HeaderMap::new();
        length.insert(header::CONTENT_LENGTH, 10.into());
        // Nothing of it was read.
        assert_eq!(intake.read(&length, Body::empty(), 9).await.unwrap_err().problem.status, 413);
        assert_eq!(&*intake.read(&length, body(), 10).await.unwrap(), b"0123456789");
    }
}
