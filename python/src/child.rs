//! A process that runs Python functions, and the frames that are exchanged with it.
//!
//! A frame is a little-endian u32 (the length of what follows the kind), a byte (the kind) and the
//! payload. `outlast._child` is the other side, and says what each kind is.

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The longest payload, in bytes. A result may have 1 MiB.
const MAX_FRAME: usize = 16 << 20;
/// Time after which the wait for a frame is interrupted to check for other events.
pub const TICK: Duration = Duration::from_millis(50);
/// Time for a process that is not needed any more to end by itself.
const LEAVE: Duration = Duration::from_secs(2);

/// A frame: its kind and payload.
pub type Frame = (u8, Vec<u8>);

/// Result of waiting for a frame for one tick.
pub enum Came {
    Frame(Frame),
    Nothing,
    /// The other side is gone.
    End,
}

pub struct Child {
    process: std::process::Child,
    stream: UnixStream,
    /// Bytes of the next frame that were read so far.
    partial: Vec<u8>,
    gone: bool,
}

impl Child {
    /// Starts one in a process group of its own: a terminal's Ctrl-C does not reach it, and what
    /// it starts ends with it. The kernel ends it with the thread that calls this.
    pub fn spawn(command: &[String], boot: &str) -> io::Result<Child> {
        let (ours, theirs) = UnixStream::pair()?;
        let (program, args) = command.split_first().ok_or(ErrorKind::InvalidInput)?;
        let process = Command::new(program)
            .args(args)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .process_group(0)
            // Not a task's business; a user's own coordinator is found without.
            .env_remove("OUTLAST_API_KEY")
            .spawn()?;
        ours.set_read_timeout(Some(TICK))?;
        let mut child = Child { process, stream: ours, partial: Vec::new(), gone: false };
        child.send(b'B', boot.as_bytes())?;
        Ok(child)
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn send(&mut self, kind: u8, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).map_err(|_| ErrorKind::InvalidInput)?;
        let mut frame = Vec::with_capacity(5 + payload.len());
        frame.extend(length.to_le_bytes());
        frame.push(kind);
        frame.extend(payload);
        self.stream.write_all(&frame)
    }

    /// Waits for a frame, at most about a tick.
    ///
    /// # Errors
    /// If what came cannot be a frame.
    pub fn receive(&mut self) -> io::Result<Came> {
        let mut buffer = [0; 16 << 10];
        loop {
            if let Some(frame) = self.whole()? {
                return Ok(Came::Frame(frame));
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(Came::End),
                Ok(n) => self.partial.extend_from_slice(&buffer[..n]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    // Somebody that it forked may hold its end of the socket.
                    let dead = self.process.try_wait().ok().flatten().is_some();
                    return Ok(if dead { Came::End } else { Came::Nothing });
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Ok(Came::End),
            }
        }
    }

    fn whole(&mut self) -> io::Result<Option<Frame>> {
        let Some((head, rest)) = self.partial.split_first_chunk::<5>() else { return Ok(None) };
        let [a, b, c, d, kind] = *head;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        if length > MAX_FRAME {
            let why = format!("a message of {length} bytes; {MAX_FRAME} is the limit");
            return Err(io::Error::new(ErrorKind::InvalidData, why));
        }
        let Some(payload) = rest.get(..length) else {
            self.partial.reserve(5 + length - self.partial.len());
            return Ok(None);
        };
        let frame = (kind, payload.to_vec());
        self.partial.drain(..5 + length);
        if self.partial.capacity() > 1 << 20 {
            self.partial.shrink_to(64 << 10);
        }
        Ok(Some(frame))
    }

    fn group(&self) -> Option<Pid> {
        i32::try_from(self.process.id()).ok().and_then(Pid::from_raw)
    }

    /// Returns true if the process can run a task: it is alive and has sent nothing unexpected.
    pub fn is_ready(&mut self) -> bool {
        !self.gone && self.partial.is_empty() && matches!(self.process.try_wait(), Ok(None))
    }

    /// Has it raise `TaskStopped` in what it runs. The signal is one that does nothing to those
    /// who do not know it.
    pub fn interrupt(&self) {
        // Not reaped yet, so the number is its own.
        if let Some(pid) = self.group() {
            let _ = kill_process(pid, Signal::URG);
        }
    }

    /// Kills it and what it started.
    pub fn kill(&mut self) {
        if let Some(group) = self.group() {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.process.kill();
    }

    /// Ends the process and its descendants; returns its exit status.
    pub fn end(&mut self) -> io::Result<ExitStatus> {
        // Its end of the socket was closed, so it is about to end, unless it closed it on purpose.
        let until = Instant::now() + LEAVE;
        while self.process.try_wait()?.is_none() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.kill();
        self.gone = true;
        self.process.wait()
    }

    /// Tells it to end, which it does if it is idle.
    pub fn dismiss(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.gone {
            self.dismiss();
            let _ = self.end();
        }
    }
}

/// Describes the end of a process; with the signal, if it was one.
pub fn ending(status: ExitStatus) -> (String, Option<i32>) {
    match (status.signal(), status.code()) {
        (Some(signal), _) => {
            let name = NAMES.iter().find(|(number, _)| *number == signal);
            let name = name.map(|(_, name)| format!(" ({name})")).unwrap_or_default();
            (format!("the task's process was killed by signal {signal}{name}"), Some(signal))
        }
        (None, Some(code)) => {
            let how = "in the middle of the task, by os._exit or by what it runs on";
            (format!("the task's process exited with code {code} {how}"), None)
        }
        (None, None) => ("the task's process ended".into(), None),
    }
}

/// Signals that may kill a process, with their names.
const NAMES: [(i32, &str); 14] = [
    (1, "SIGHUP"),
    (2, "SIGINT"),
    (3, "SIGQUIT"),
    (4, "SIGILL"),
    (5, "SIGTRAP"),
    (6, "SIGABRT"),
    (7, "SIGBUS"),
    (8, "SIGFPE"),
    (9, "SIGKILL"),
    (11, "SIGSEGV"),
    (13, "SIGPIPE"),
    (14, "SIGALRM"),
    (15, "SIGTERM"),
    (24, "SIGXCPU"),
];
