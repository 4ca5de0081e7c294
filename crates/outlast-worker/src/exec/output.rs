//! The output streams of running attempts: pipes, and the thread that empties them onto the disk.
//!
//! A task's stdout and stderr are pipes, since anything else that a shell reopens as `/dev/stderr` can
//! be truncated, and is then written from its beginning. Pipes that an attempt left empty are reused
//! for the next one, as a pipe costs about a tenth of starting a small program.
//!
//! Most tasks end, and their pipes are emptied by the attempt's own thread, before this thread sees
//! them. It polls often enough that a full pipe does not block a task for long, and seldom enough that
//! a task that writes line by line does not wake it for each line.

use super::lock::lock;
use super::segments::Writer;
use outlast_spawn::User;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::fchown;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Pipes that are kept for the next attempts.
const SPARES: usize = 64;
/// Streams whose writing ends are kept here, so that their pipes can serve another attempt.
const HELD: usize = 128;
/// Streams of ended attempts that surviving processes may still write to.
const LINGERING: usize = 256;
/// With more streams than this no file stays open between two looks.
const OPEN: usize = 128;
/// New streams are taken up after this.
const TICK: Duration = Duration::from_millis(10);
/// Polls without a new stream after which the thread waits for one.
const QUIET: u32 = 20;
/// Between two looks at streams that have little to read.
const PAUSE: Duration = Duration::from_millis(5);
/// Bytes read at a time, and of one stream before the others have their turn.
const BUFFER: usize = 128 << 10;
const TURN: usize = 1 << 20;
/// Bytes read at the end of an attempt: more is being written by what outlived it.
const LAST: usize = 16 << 20;
/// A stream with so much to read is looked at again at once.
const MUCH: usize = 32 << 10;
/// The event of the thread's own wake-up call.
const WAKE: u64 = 0;

/// The streams of one executor.
#[derive(Debug)]
pub(super) struct Outputs {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    epoll: OwnedFd,
    wake: OwnedFd,
    table: Mutex<Table>,
    spares: Mutex<Vec<Pipe>>,
    last: AtomicU64,
    held: AtomicUsize,
    cap: u64,
    tail: u64,
    /// The owner of pipes, if not this process's user: else a task could not open `/dev/stderr`.
    owner: Option<User>,
}

#[derive(Debug, Default)]
struct Table {
    /// Started since the last look.
    fresh: Vec<Arc<Stream>>,
    watched: HashMap<u64, Arc<Stream>>,
    /// Streams of ended attempts, oldest first.
    lingering: BTreeMap<u64, Arc<Stream>>,
    asleep: bool,
    exit: bool,
}

/// One stream of an attempt.
#[derive(Debug)]
pub(super) struct Stream {
    id: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    pipe: Option<Pipe>,
    log: Writer,
    /// The thread has taken it up.
    watched: bool,
}

#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: Option<OwnedFd>,
}

/// Result of emptying a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// Empty for now, after this many bytes.
    Some(usize),
    /// No process can write to it any more.
    End,
}

impl Outputs {
    /// Streams of which `cap` bytes are kept, and the last `tail` bytes known; of tasks of `owner`, if they
    /// are another user's.
    pub fn start(cap: u64, tail: u64, owner: Option<User>) -> io::Result<Outputs> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &wake, EventData::new_u64(WAKE), EventFlags::IN)?;
        let shared = Arc::new(Shared {
            epoll,
            wake,
            table: Mutex::default(),
            spares: Mutex::default(),
            last: AtomicU64::new(WAKE),
            held: AtomicUsize::new(0),
            cap,
            tail,
            owner,
        });
        let drain = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("outlast-output".to_owned())
            .spawn(move || drain.run())?;
        Ok(Outputs { shared, thread: Mutex::new(Some(thread)) })
    }

    /// A stream that ends up in this file.
    pub fn stream(&self, path: PathBuf) -> io::Result<Arc<Stream>> {
        let shared = &self.shared;
        let spare = lock(&shared.spares).pop();
        let pipe = match spare {
            Some(pipe) => pipe,
            None => {
                let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
                // Of this end only: what a task does with its end is its business.
                rustix::fs::fcntl_setfl(&read, OFlags::NONBLOCK)?;
                if let Some(owner) = &shared.owner {
                    fchown(&write, Some(owner.uid), Some(owner.gid))?;
                }
                Pipe { read, write: Some(write) }
            }
        };
        shared.held.fetch_add(1, Ordering::Relaxed);
        let id = shared.last.fetch_add(1, Ordering::Relaxed) + 1;
        let log = Writer::new(path, shared.cap, shared.tail);
        let state = State { pipe: Some(pipe), log, watched: false };
        Ok(Arc::new(Stream { id, state: Mutex::new(state) }))
    }

    /// The attempt runs: from now on its streams are emptied.
    pub fn watch(&self, streams: [&Arc<Stream>; 2]) {
        let shared = &self.shared;
        if shared.held.load(Ordering::Relaxed) > HELD {
            streams.iter().for_each(|stream| shared.let_go(&mut lock(&stream.state)));
        }
        shared.take_up(streams);
    }

    /// Ends the attempt's stream. Returns the number of bytes that the task wrote, and the last of them.
    /// Surviving processes may still write, unless it is `deserted`: none of its processes is left.
    pub fn end(&self, stream: &Arc<Stream>, deserted: bool) -> (u64, Vec<u8>) {
        let shared = &self.shared;
        let mut state = lock(&stream.state);
        if !deserted {
            shared.let_go(&mut state);
        }
        let found = shared.empty(&mut state, LAST, !deserted, &mut Vec::new());
        state.log.finish();
        state.log.close();
        let ended = (state.log.len(), state.log.tail());
        if deserted || found == Found::End {
            let pipe = shared.leave(&mut state);
            shared.keep(pipe);
            if state.watched {
                drop(state);
                lock(&shared.table).watched.remove(&stream.id);
            }
        } else {
            drop(state);
            shared.linger(stream);
        }
        ended
    }

    /// Closes the pipes that are kept for the next attempts: descriptors are scarce.
    pub fn drop_spares(&self) {
        lock(&self.shared.spares).clear();
    }

    /// Returns whether something may still write to the log of this `<task>.<epoch>`.
    pub fn lingers(&self, stem: &str) -> bool {
        let all: Vec<_> = lock(&self.shared.table).lingering.values().cloned().collect();
        all.iter().any(|stream| {
            let state = lock(&stream.state);
            state.log.path().file_stem().is_some_and(|name| name == stem)
        })
    }

    /// Empties what is left, and ends.
    pub fn close(&self) {
        let mut table = lock(&self.shared.table);
        table.exit = true;
        table.asleep = false;
        drop(table);
        self.shared.call();
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
        lock(&self.shared.spares).clear();
    }
}

impl Drop for Outputs {
    fn drop(&mut self) {
        self.close();
    }
}

impl Stream {
    /// Gives the task's end of it to `start`, which starts the task.
    pub fn with_end<T>(
        &self,
        start: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        let state = lock(&self.state);
        let end = state.pipe.as_ref().and_then(|pipe| pipe.write.as_ref());
        start(end.ok_or(io::ErrorKind::BrokenPipe)?.as_fd())
    }

    /// The bytes that the task wrote, and those that went to the disk.
    pub fn size(&self) -> (u64, u64) {
        let state = lock(&self.state);
        (state.log.len(), state.log.written())
    }
}

impl Shared {
    fn call(&self) {
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    fn take_up(&self, streams: [&Arc<Stream>; 2]) {
        let mut table = lock(&self.table);
        table.fresh.extend(streams.map(Arc::clone));
        if std::mem::take(&mut table.asleep) {
            drop(table);
            self.call();
        }
    }

    /// Closes this side's writing end: who has one now, and nobody else, keeps the stream open.
    fn let_go(&self, state: &mut State) {
        let end = state.pipe.as_mut().and_then(|pipe| pipe.write.take());
        if end.is_some() {
            self.held.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Takes the pipe off a stream, which the thread then leaves alone.
    fn leave(&self, state: &mut State) -> Option<Pipe> {
        let pipe = state.pipe.take()?;
        if state.watched {
            let _ = epoll::delete(&self.epoll, &pipe.read);
        }
        if pipe.write.is_some() {
            self.held.fetch_sub(1, Ordering::Relaxed);
        }
        state.log.close();
        Some(pipe)
    }

    /// Keeps a pipe for another attempt, if that cannot notice that it had an owner before.
    fn keep(&self, pipe: Option<Pipe>) {
        let Some(pipe) = pipe else { return };
        let plain = |end: &OwnedFd| fcntl_getfl(end).is_ok_and(|flags| flags == OFlags::WRONLY);
        if pipe.write.as_ref().is_some_and(plain) {
            let mut spares = lock(&self.spares);
            if spares.len() < SPARES {
                spares.push(pipe);
            }
        }
    }

    fn linger(&self, stream: &Arc<Stream>) {
        let mut table = lock(&self.table);
        table.lingering.insert(stream.id, Arc::clone(stream));
        let many = (table.lingering.len() > LINGERING).then(|| table.lingering.pop_first());
        drop(table);
        if let Some(Some((id, oldest))) = many {
            tracing::warn!("too many processes outlived their tasks: the output of one is dropped");
            drop(self.leave(&mut lock(&oldest.state)));
            lock(&self.table).watched.remove(&id);
        }
    }

    /// Reads what is there, about `most` bytes at most, and puts it on the disk. `to_the_end`: looks
    /// whether somebody can still write, which takes a call more.
    fn empty(
        &self,
        state: &mut State,
        most: usize,
        to_the_end: bool,
        buffer: &mut Vec<u8>,
    ) -> Found {
        let State { pipe: Some(pipe), log, .. } = state else { return Found::End };
        let mut small = [0; 4096];
        let mut sum = 0;
        while sum < most {
            // Most streams have nothing, or a few lines.
            let part = match sum {
                0 => &mut small[..],
                _ => {
                    buffer.resize(BUFFER, 0);
                    &mut buffer[..]
                }
            };
            match rustix::io::read(&pipe.read, &mut *part) {
                Ok(0) => return Found::End,
                Ok(n) => {
                    log.append(&part[..n]);
                    sum += n;
                    if n < part.len() && !to_the_end {
                        break;
                    }
                }
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        Found::Some(sum)
    }

    /// The thread.
    fn run(&self) {
        let mut buffer = Vec::new();
        let mut events = [MaybeUninit::uninit(); 64];
        let (mut quiet, mut next) = (0, Instant::now());
        loop {
            let wait = {
                let mut table = lock(&self.table);
                if table.exit {
                    break;
                }
                table.asleep = quiet > QUIET && table.fresh.is_empty();
                (!table.asleep).then(|| next.saturating_duration_since(Instant::now()))
            };
            let (mut some, mut much) = (false, false);
            for id in self.wait(&mut events, wait) {
                if id == WAKE {
                    let _ = rustix::io::read(&self.wake, &mut [0; 8]);
                    (quiet, next) = (0, Instant::now() + TICK);
                    continue;
                }
                let stream = lock(&self.table).watched.get(&id).cloned();
                if let Some(stream) = stream {
                    much |= self.look(&stream, &mut buffer);
                    some = true;
                }
            }
            if Instant::now() >= next {
                quiet = if self.watch_fresh() { 0 } else { quiet.saturating_add(1) };
                next = Instant::now() + TICK;
            }
            if some && !much {
                std::thread::sleep(PAUSE);
            }
        }
        // What wrote to them is gone, or is not waited for.
        let table = std::mem::take(&mut *lock(&self.table));
        for stream in table.watched.into_values().chain(table.lingering.into_values()) {
            let mut state = lock(&stream.state);
            self.empty(&mut state, TURN, false, &mut buffer);
            state.log.finish();
        }
    }

    fn wait(
        &self,
        events: &mut [MaybeUninit<epoll::Event>; 64],
        wait: Option<Duration>,
    ) -> Vec<u64> {
        let wait = wait.map(|wait| Timespec {
            tv_sec: wait.as_secs() as i64,
            tv_nsec: i64::from(wait.subsec_nanos()),
        });
        match epoll::wait(&self.epoll, &mut events[..], wait.as_ref()) {
            Ok((ready, _)) => ready.iter().map(|event| event.data.u64()).collect(),
            Err(_) => Vec::new(),
        }
    }

    /// Empties a stream; whether it had much.
    fn look(&self, stream: &Arc<Stream>, buffer: &mut Vec<u8>) -> bool {
        let mut state = lock(&stream.state);
        let found = self.empty(&mut state, TURN, true, buffer);
        let done = found == Found::End;
        if done {
            self.leave(&mut state);
            state.log.finish();
        }
        drop(state);
        let mut table = lock(&self.table);
        if done {
            table.watched.remove(&stream.id);
            table.lingering.remove(&stream.id);
        }
        if table.watched.len() > OPEN {
            drop(table);
            lock(&stream.state).log.close();
        }
        matches!(found, Found::Some(n) if n >= MUCH)
    }

    /// Takes up the streams that were started since the last look and are not over; whether there
    /// were any.
    fn watch_fresh(&self) -> bool {
        let fresh = std::mem::take(&mut lock(&self.table).fresh);
        let any = !fresh.is_empty();
        for stream in fresh {
            let mut state = lock(&stream.state);
            let State { pipe: Some(pipe), watched, .. } = &mut *state else { continue };
            let data = EventData::new_u64(stream.id);
            match epoll::add(&self.epoll, &pipe.read, data, EventFlags::IN) {
                Ok(()) => *watched = true,
                Err(error) => {
                    tracing::warn!(%error, "output cannot be watched, and is looked at again");
                    lock(&self.table).fresh.push(Arc::clone(&stream));
                    continue;
                }
            }
            // Before anybody else can see that it is watched. Nowhere is the table locked first.
            lock(&self.table).watched.insert(stream.id, Arc::clone(&stream));
        }
        any
    }
}
