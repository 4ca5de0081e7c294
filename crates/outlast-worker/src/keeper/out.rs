//! The sending side of a connection: messages gather in a buffer and leave together.
//!
//! An urgent sender writes the buffer itself, without blocking; the rest, and messages that are not
//! urgent, are sent by a thread a moment later. So no caller ever waits for the other side, and a
//! burst costs few system calls and wakes the other side few times. The buffer is bounded by the
//! number of attempts.

use prost::Message;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendFlags, send};
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Time for which a message waits for others, if nothing urgent waits.
const GATHER: Duration = Duration::from_millis(30);
/// A buffer that is fuller waits for nothing.
const FULL: usize = 32 << 10;

/// See the module.
#[derive(Debug)]
pub(super) struct Out {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    socket: Option<Arc<UnixStream>>,
    bytes: Vec<u8>,
    /// Number of these bytes that were sent.
    sent: usize,
    end: bool,
}

impl Out {
    /// Without a connection as yet: what is put in meanwhile waits for one.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start() -> io::Result<Arc<Out>> {
        let out = Arc::new(Out { state: Mutex::default(), changed: Condvar::new() });
        let thread = Arc::clone(&out);
        std::thread::Builder::new().name("outlast-send".into()).spawn(move || thread.run())?;
        Ok(out)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends over this connection from now on, first what waits.
    pub fn open(&self, socket: Arc<UnixStream>) {
        let mut state = self.lock();
        state.socket = Some(socket);
        self.send(&mut state);
    }

    /// The connection is over; what was not sent is dropped.
    pub fn close(&self) {
        let mut state = self.lock();
        state.socket = None;
        state.bytes.clear();
        state.sent = 0;
    }

    /// Puts in a message.
    pub fn push(&self, message: &impl Message, hurry: bool) {
        self.put(hurry, |bytes| super::proto::frame(message, bytes));
    }

    /// Puts in what `write` appends: whole frames.
    pub fn put(&self, hurry: bool, write: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.lock();
        let first = state.bytes.is_empty();
        write(&mut state.bytes);
        if hurry || state.bytes.len() > FULL {
            self.send(&mut state);
        } else if first {
            self.changed.notify_one();
        }
    }

    /// Waits until everything is sent, or the connection or the time is over.
    pub fn drain(&self, limit: Duration) {
        let deadline = std::time::Instant::now() + limit;
        loop {
            let mut state = self.lock();
            self.send(&mut state);
            let over = state.bytes.is_empty() || state.socket.is_none();
            drop(state);
            if over || std::time::Instant::now() > deadline {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends the thread.
    pub fn end(&self) {
        self.lock().end = true;
        self.changed.notify_one();
    }

    /// Sends what can be sent without blocking.
    fn send(&self, state: &mut State) {
        let Some(socket) = &state.socket else { return };
        while state.sent < state.bytes.len() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match send(socket, &state.bytes[state.sent..], flags) {
                Ok(n) => state.sent += n,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    // The thread waits until the other side has read.
                    self.changed.notify_one();
                    return;
                }
                // It is broken: whoever reads from it notices, and closes.
                Err(_) => break,
            }
        }
        state.bytes.clear();
        state.sent = 0;
    }

    fn run(&self) {
        let mut state = self.lock();
        while !state.end {
            let socket = state.socket.clone().filter(|_| !state.bytes.is_empty());
            let Some(socket) = socket else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let blocked = state.sent > 0;
            drop(state);
            if blocked {
                let second = Timespec { tv_sec: 1, tv_nsec: 0 };
                let _ = poll(&mut [PollFd::new(&socket, PollFlags::OUT)], Some(&second));
            } else {
                std::thread::sleep(GATHER);
            }
            state = self.lock();
            self.send(&mut state);
        }
    }
}
