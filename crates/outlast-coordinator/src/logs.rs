//! Readers of logs that lie at workers.
//!
//! A log is fetched a slice at a time, and only when its reader has taken the former one: a reader
//! that stops reading costs a slice, and one that leaves ends with the slice that is on its way.
//! The readers of one worker take turns, so that no more than one slice at a time is in front of
//! its results and heartbeats, and slices are as long as the link carries in [`HORIZON`].

use crate::input::{Driver, Input};
use outlast_core::coord::ConnId;
use outlast_wire::Bytes;
use outlast_wire::v2::{LogData, LogRequest};
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc};

/// Readers of the logs of one worker, and of all, at a time.
const READERS: (usize, usize) = (16, 64);
/// A reader that has taken nothing for so long makes room for another where there are too many.
const STALLED: Duration = Duration::from_secs(30);
/// Time that a worker may take for a slice, its turn included.
const PATIENCE: Duration = Duration::from_secs(30);
/// The least, the first and the most bytes of a slice.
const SLICE: (u32, u32, u32) = (4 << 10, 32 << 10, 256 << 10);
/// A slice takes the link about so long.
const HORIZON: Duration = Duration::from_millis(250);
/// A note in place of what was cut may be longer than the slice.
const NOTE: usize = 4 << 10;
/// Bytes that may wait for all readers together. Only workers that know no slices, and send all of
/// a log at once, come near it; the reader that goes beyond is dropped.
const BUFFERED: usize = 16 << 20;

/// Requests that are out at workers, and who reads.
#[derive(Default)]
pub(crate) struct Logs {
    last: AtomicU64,
    /// Bytes in the channels of all requests.
    buffered: Arc<AtomicUsize>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    asked: HashMap<u64, Asked>,
    lanes: HashMap<ConnId, Arc<Lane>>,
    readers: HashMap<u64, Slot>,
}

struct Asked {
    conn: ConnId,
    parts: mpsc::UnboundedSender<LogData>,
}

/// The readers of one link.
struct Lane {
    turn: Semaphore,
    slice: AtomicU32,
}

/// One reader's place.
struct Slot {
    conn: ConnId,
    /// Time since which it takes nothing of what it has; none: it waits for its worker.
    idle: Option<Instant>,
    /// Set once its place was given to another.
    lost: Arc<AtomicBool>,
}

/// The reason that there is no room for one more reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crowded {
    /// The limit of readers of the logs of this worker.
    Worker(usize),
    /// The limit of readers of all logs.
    All(usize),
}

/// Part of a log.
#[derive(Debug, Default)]
pub(crate) struct Slice {
    pub data: Bytes,
    /// Offset that it begins at.
    pub start: u64,
    /// Offset that the next begins at.
    pub next: u64,
    /// Set if nothing follows as yet.
    pub end: bool,
    /// The data is a note in place of what is lost.
    pub gap: bool,
}

impl Logs {
    /// A reader of a log at this link; `request` says which.
    pub fn open(
        self: &Arc<Logs>,
        driver: &Driver,
        conn: ConnId,
        request: LogRequest,
    ) -> Result<Reader, Crowded> {
        let number = self.number();
        let lost = Arc::new(AtomicBool::new(false));
        let mut state = self.state();
        state.make_room(conn)?;
        state.readers.insert(number, Slot { conn, idle: None, lost: lost.clone() });
        let lane = state.lanes.entry(conn).or_insert_with(|| {
            Arc::new(Lane { turn: Semaphore::new(1), slice: AtomicU32::new(SLICE.1) })
        });
        let lane = lane.clone();
        drop(state);
        let (logs, driver) = (self.clone(), driver.clone());
        Ok(Reader { logs, driver, conn, lane, number, lost, request, rest: None, over: false })
    }

    /// Delivers data of a worker.
    pub fn deliver(&self, conn: ConnId, data: LogData) {
        let mut state = self.state();
        let (request, last, len) = (data.request, data.last, data.data.len());
        let Some(asked) = state.asked.get(&request) else { return };
        if asked.conn != conn {
            return;
        }
        let before = self.buffered.fetch_add(len, Ordering::Relaxed);
        if before + len > BUFFERED {
            self.buffered.fetch_sub(len, Ordering::Relaxed);
            state.asked.remove(&request);
            return;
        }
        if asked.parts.send(data).is_err() {
            self.buffered.fetch_sub(len, Ordering::Relaxed);
        }
        if last {
            state.asked.remove(&request);
        }
    }

    /// Ends the requests at this link, which get no answer any more.
    pub fn link_ended(&self, conn: ConnId) {
        let mut state = self.state();
        state.asked.retain(|_, asked| asked.conn != conn);
        state.lanes.remove(&conn);
    }

    fn number(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl State {
    fn make_room(&mut self, conn: ConnId) -> Result<(), Crowded> {
        let of_it = self.readers.values().filter(|slot| slot.conn == conn).count();
        let why = match () {
            () if of_it >= READERS.0 => Crowded::Worker(READERS.0),
            () if self.readers.len() >= READERS.1 => Crowded::All(READERS.1),
            () => return Ok(()),
        };
        let which = |slot: &Slot| why == Crowded::All(READERS.1) || slot.conn == conn;
        let candidates = self.readers.iter().filter(|(_, slot)| which(slot));
        let stalled = candidates.filter_map(|(number, slot)| Some((slot.idle?, *number))).min();
        match stalled {
            Some((since, number)) if since.elapsed() >= STALLED => {
                if let Some(slot) = self.readers.remove(&number) {
                    slot.lost.store(true, Ordering::Relaxed);
                }
                Ok(())
            }
            _ => Err(why),
        }
    }
}

/// Reads a log from where its request begins. Dropping it ends what is under way.
pub(crate) struct Reader {
    logs: Arc<Logs>,
    driver: Driver,
    conn: ConnId,
    lane: Arc<Lane>,
    number: u64,
    lost: Arc<AtomicBool>,
    request: LogRequest,
    /// Rest of the data of a worker that knows no slices.
    rest: Option<Request>,
    over: bool,
}

impl Reader {
    /// The next slice, of about `most` bytes at most; none after the end. The error is for people.
    pub async fn next(&mut self, most: u32) -> Result<Option<Slice>, String> {
        if self.over {
            return Ok(None);
        }
        if self.lost.load(Ordering::Relaxed) {
            return Err(format!(
                "this reader took nothing for {} s, and others wait: read on from where it ended",
                STALLED.as_secs()
            ));
        }
        self.set_idle(None);
        let asked = async {
            match self.rest.take() {
                Some(rest) => self.go_on(rest).await,
                None => self.slice(most).await,
            }
        };
        let slice = match tokio::time::timeout(PATIENCE, asked).await {
            Ok(slice) => slice?,
            Err(_) => return Err("its worker did not answer in time".into()),
        };
        self.set_idle(Some(Instant::now()));
        self.over = slice.end;
        self.request.offset = slice.next;
        self.request.from_end = false;
        Ok(Some(slice))
    }

    fn set_idle(&self, idle: Option<Instant>) {
        if let Some(slot) = self.logs.state().readers.get_mut(&self.number) {
            slot.idle = idle;
        }
    }

    async fn ask(&self, length: u32) -> Result<Request, String> {
        let number = self.logs.number();
        let (parts, arriving) = mpsc::unbounded_channel();
        self.logs.state().asked.insert(number, Asked { conn: self.conn, parts });
        let (logs, driver, conn) = (self.logs.clone(), self.driver.clone(), self.conn);
        let asked = Request { logs, driver, conn, number, parts: arriving, answered: false };
        let request = LogRequest { request: number, length, ..self.request.clone() };
        let sent = self.driver.put(Input::Log(self.conn, request)).await;
        sent.map_err(|_| "the coordinator ends")?;
        Ok(asked)
    }

    async fn slice(&mut self, most: u32) -> Result<Slice, String> {
        let lane = self.lane.clone();
        let turn = lane.turn.acquire().await.map_err(|_| "its worker's link ended")?;
        let length = lane.slice.load(Ordering::Relaxed).min(most.max(1));
        let mut asked = self.ask(length).await?;
        let (mut data, mut slice, mut rate) = (Vec::new(), None, Rate::new());
        loop {
            let part = asked.part().await?;
            if !(part.end || part.next_offset > 0) {
                drop(turn);
                // It has counted an offset from the end as one from the beginning.
                if self.request.from_end {
                    (self.request.from_end, self.request.offset) = (false, 0);
                    drop(asked);
                    asked = self.ask(length).await?;
                    return self.go_on(asked).await;
                }
                return Ok(self.older(asked, part));
            }
            rate.see(part.data.len());
            data.extend_from_slice(&part.data);
            if data.len() > length as usize + NOTE {
                return Err("its worker sends more than it was asked for".into());
            }
            let slice = slice.get_or_insert(Slice { start: part.start, ..Slice::default() });
            slice.next = part.next_offset;
            slice.end = part.end;
            slice.gap = part.gap;
            if part.last {
                let fitting = rate.slice(length);
                // A reader that wants little says nothing of the link.
                if fitting < length || length == lane.slice.load(Ordering::Relaxed) {
                    lane.slice.store(fitting, Ordering::Relaxed);
                }
                return Ok(Slice { data: data.into(), ..std::mem::take(slice) });
            }
        }
    }

    /// The next of what a worker sends that knows no slices.
    async fn go_on(&mut self, mut rest: Request) -> Result<Slice, String> {
        let part = rest.part().await?;
        Ok(self.older(rest, part))
    }

    fn older(&mut self, rest: Request, part: LogData) -> Slice {
        let start = self.request.offset;
        if !part.last {
            self.rest = Some(rest);
        }
        let next = start + part.data.len() as u64;
        Slice { data: part.data, start, next, end: part.last, gap: false }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.logs.state().readers.remove(&self.number);
    }
}

/// A request that is out. Dropping it before its answer is complete cancels it.
struct Request {
    logs: Arc<Logs>,
    driver: Driver,
    conn: ConnId,
    number: u64,
    parts: mpsc::UnboundedReceiver<LogData>,
    answered: bool,
}

impl Request {
    async fn part(&mut self) -> Result<LogData, String> {
        let Some(part) = self.parts.recv().await else {
            self.answered = true;
            let full = self.logs.buffered.load(Ordering::Relaxed) > BUFFERED / 2;
            return Err(match full {
                true => "too much of logs waits for readers that are slow".into(),
                false => "its worker's link ended".into(),
            });
        };
        self.logs.buffered.fetch_sub(part.data.len(), Ordering::Relaxed);
        self.answered = part.last;
        match part.error.is_empty() {
            true => Ok(part),
            false => Err(part.error),
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.logs.state().asked.remove(&self.number);
        self.parts.close();
        while let Ok(part) = self.parts.try_recv() {
            self.logs.buffered.fetch_sub(part.data.len(), Ordering::Relaxed);
        }
        if !self.answered {
            let cancel = LogRequest { request: self.number, cancel: true, ..LogRequest::default() };
            self.driver.put_now(Input::Log(self.conn, cancel));
        }
    }
}

/// The rate at which the parts of a slice arrive.
struct Rate {
    begun: Instant,
    first: Option<Instant>,
    /// Bytes after the first part.
    bytes: u64,
}

impl Rate {
    fn new() -> Rate {
        Rate { begun: Instant::now(), first: None, bytes: 0 }
    }

    fn see(&mut self, bytes: usize) {
        match self.first {
            None => self.first = Some(Instant::now()),
            Some(_) => self.bytes += bytes as u64,
        }
    }

    /// The length for the next slice, after one for which `length` was asked.
    fn slice(&self, length: u32) -> u32 {
        let took = self.first.map_or(Duration::ZERO, |first| first.elapsed());
        fitting(length, self.begun.elapsed(), self.bytes, took)
    }
}

/// The length of the slice that the link carries in [`HORIZON`]: the last one had `length`, took
/// `all`, and `bytes` of it came within `took` of its first part.
fn fitting(length: u32, all: Duration, bytes: u64, took: Duration) -> u32 {
    let most = length.saturating_mul(2);
    // The distance of the parts does not count the way there and back, which is no load.
    let carried = match bytes {
        0 if all < HORIZON => u64::from(most),
        0 => u64::from(length),
        bytes => (bytes as f64 * HORIZON.as_secs_f64() / took.as_secs_f64().max(1e-6)) as u64,
    };
    u32::try_from(carried).unwrap_or(u32::MAX).min(most).clamp(SLICE.0, SLICE.2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_what_the_link_carries_in_a_moment() {
        let ms = Duration::from_millis;
        // 64 kB/s: 32 KiB in four frames, whatever the way there and back takes.
        let thin = fitting(32 << 10, ms(500), 24 << 10, ms(384));
        assert!((15_000..17_000).contains(&thin), "{thin}");
        assert_eq!(fitting(32 << 10, ms(1200), 24 << 10, ms(384)), thin);
        // A fast one doubles, up to the most; a slow one keeps the least.
        assert_eq!(fitting(32 << 10, ms(3), 24 << 10, ms(1)), 64 << 10);
        assert_eq!(fitting(SLICE.2, ms(3), 200 << 10, ms(1)), SLICE.2);
        assert_eq!(fitting(4 << 10, ms(3000), 0, ms(0)), SLICE.0);
        assert_eq!(fitting(4 << 10, ms(30), 0, ms(0)), 8 << 10);
    }

    #[test]
    fn only_a_reader_that_takes_nothing_makes_room_for_another() {
        let mut state = State::default();
        let (a, b): (ConnId, ConnId) = (1, 2);
        let slot = |conn, idle| Slot { conn, idle, lost: Arc::default() };
        for n in 0..READERS.0 as u64 {
            state.make_room(a).unwrap();
            state.readers.insert(n, slot(a, Some(Instant::now())));
        }
        assert_eq!(state.make_room(a), Err(Crowded::Worker(READERS.0)));
        state.make_room(b).unwrap();
        let Some(long) = Instant::now().checked_sub(STALLED) else { return };
        let lost = Arc::<AtomicBool>::default();
        state.readers.insert(3, Slot { conn: a, idle: Some(long), lost: lost.clone() });
        state.make_room(a).unwrap();
        assert!(lost.load(Ordering::Relaxed));
        for n in state.readers.len()..READERS.1 {
            state.readers.insert(1000 + n as u64, slot(9 + n as u64, None));
        }
        assert_eq!(state.make_room(b), Err(Crowded::All(READERS.1)));
    }
}
