//! Logs for the coordinator's readers. It asks for a slice at a time; the slice goes out in small
//! frames, each behind everything else that waits for the link.

use super::driver::Driver;
use super::outbound::ToLink;
use crate::exec::logs::{self, Stream};
use outlast_wire::v2::body::Kind;
use outlast_wire::v2::{LogData, LogRequest};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Semaphore, mpsc};

/// Slices that are read at a time.
const READING: usize = 4;
/// Requests that may wait, or be served.
const REQUESTS: usize = 64;
/// Bytes of a log in one frame.
const FRAME: (u64, u64) = (4 << 10, 64 << 10);
/// A slice goes out in about so many frames: the coordinator sees by them how fast the link is.
const FRAMES: u64 = 4;
/// The largest slice, in bytes, whatever is asked for.
const SLICE: u64 = 1 << 20;

/// The readers of one connection: they end with it.
pub(super) struct LogReaders {
    driver: Arc<Driver>,
    reading: Arc<Semaphore>,
    open: Open,
    /// To the link, behind all that is in its own queue.
    bulk: mpsc::Sender<Kind>,
}

/// Requests that are not answered in full, and whether their readers left.
#[derive(Clone, Default)]
struct Open(Arc<Mutex<HashMap<u64, Arc<AtomicBool>>>>);

impl Open {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<AtomicBool>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogReaders {
    pub fn new(driver: Arc<Driver>, bulk: mpsc::Sender<Kind>) -> LogReaders {
        let reading = Semaphore::new(READING).into();
        LogReaders { driver, reading, open: Open::default(), bulk }
    }

    pub fn ask(&self, request: LogRequest) {
        let number = request.request;
        let left = Arc::new(AtomicBool::new(false));
        {
            let mut open = self.open.lock();
            if request.cancel {
                if let Some(left) = open.get(&number) {
                    left.store(true, Ordering::Relaxed);
                }
                return;
            }
            if open.len() >= REQUESTS {
                let error = "the worker is asked for too many logs at once".to_owned();
                let data = LogData { request: number, last: true, error, ..LogData::default() };
                let _ = self.driver.outlets.link.send(ToLink::Frame(Kind::LogData(data)));
                return;
            }
            open.insert(number, left.clone());
        }
        let (reading, driver) = (self.reading.clone(), self.driver.clone());
        let (open, bulk) = (self.open.clone(), self.bulk.clone());
        tokio::spawn(async move {
            let _permit = reading.acquire().await;
            let read = move || read(&driver, &request, &bulk, &left);
            let _ = tokio::task::spawn_blocking(read).await;
            open.lock().remove(&number);
        });
    }
}

impl Drop for LogReaders {
    fn drop(&mut self) {
        for left in self.open.lock().values() {
            left.store(true, Ordering::Relaxed);
        }
    }
}

/// Sends a slice, or all up to the end to a coordinator that knows no slices.
fn read(driver: &Driver, request: &LogRequest, bulk: &mpsc::Sender<Kind>, left: &AtomicBool) {
    let number = request.request;
    let send = |data: LogData| bulk.blocking_send(Kind::LogData(data)).is_ok();
    let stream = if request.stderr { Stream::Stderr } else { Stream::Stdout };
    let (root, task, epoch) = (&driver.tasks_root, &request.task_id, request.epoch);
    let sliced = request.length > 0;
    let mut wanted = if sliced { u64::from(request.length).min(SLICE) } else { u64::MAX };
    let frame = if sliced { (wanted / FRAMES).clamp(FRAME.0, FRAME.1) } else { FRAME.1 };
    let begin = match request.from_end {
        false => Ok(request.offset),
        true => logs::length(root, task, epoch, stream).map(|n| n.saturating_sub(request.offset)),
    };
    let mut offset = begin.as_ref().copied().unwrap_or(0);
    let mut sent = false;
    loop {
        if left.load(Ordering::Relaxed) {
            return;
        }
        let most = frame.min(wanted) as usize;
        let chunk = match &begin {
            Ok(_) => logs::read(root, task, epoch, stream, offset, most),
            Err(error) => Err(std::io::Error::new(error.kind(), error.to_string())),
        };
        let chunk = match chunk {
            Ok(chunk) => chunk,
            Err(error) => {
                let error = error.to_string();
                send(LogData { request: number, last: true, error, ..LogData::default() });
                return;
            }
        };
        // A gap is a slice of its own, so that each answer says plainly what it has.
        if sliced && chunk.gap && sent {
            let (start, next_offset) = (offset, offset);
            let request = number;
            send(LogData { request, last: true, start, next_offset, ..LogData::default() });
            return;
        }
        wanted -= wanted.min(chunk.data.len() as u64);
        let last = chunk.end || (sliced && (chunk.gap || wanted == 0));
        let data = LogData {
            request: number,
            data: chunk.data.into(),
            last,
            error: String::new(),
            next_offset: chunk.next_offset,
            end: chunk.end,
            gap: chunk.gap,
            start: offset,
        };
        if !send(data) || last {
            return;
        }
        sent = true;
        offset = chunk.next_offset;
    }
}
