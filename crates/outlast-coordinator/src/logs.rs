//! Questions for logs that are out at workers, and their answers.

use outlast_core::coord::ConnId;
use outlast_wire::v2::LogData;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;

/// Parts that may wait for a slow reader; the question is dropped when there are more.
const PARTS: usize = 1024;

#[derive(Default)]
pub(crate) struct Logs {
    last: AtomicU64,
    asked: Mutex<HashMap<u64, (ConnId, mpsc::Sender<LogData>)>>,
}

impl Logs {
    /// A new question to this link: its number, and where the answer's parts arrive. The
    /// receiver ends without a `last` part when the link does.
    pub fn ask(&self, conn: ConnId) -> (u64, mpsc::Receiver<LogData>) {
        let request = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let (tx, rx) = mpsc::channel(PARTS);
        self.map().insert(request, (conn, tx));
        (request, rx)
    }
    pub fn deliver(&self, conn: ConnId, data: LogData) {
        let mut asked = self.map();
        let (request, last) = (data.request, data.last);
        let Some((of, tx)) = asked.get(&request) else { return };
        if *of == conn && (tx.try_send(data).is_err() || last) {
            asked.remove(&request);
        }
    }
    pub fn forget(&self, request: u64) {
        self.map().remove(&request);
    }
    pub fn link_ended(&self, conn: ConnId) {
        self.map().retain(|_, (of, _)| *of != conn);
    }
    fn map(&self) -> std::sync::MutexGuard<'_, HashMap<u64, (ConnId, mpsc::Sender<LogData>)>> {
        self.asked.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
