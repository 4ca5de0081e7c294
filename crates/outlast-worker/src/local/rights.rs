//! Files with the rights of another user, whom tasks run as: a process of that user reads and writes
//! them for the worker. So whatever a task names, and whatever links it puts in the way meanwhile, it
//! gets no further than by itself.
//!
//! The process is the user's, so tasks may stop it or end it: its silence has a limit.

use super::error::HostError;
use super::frames::{self, Content, Failure, Job, Others, PIECE, kind};
use super::pack::Notes;
use super::types::Kind;
use outlast_spawn::{Process, Program, User};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

/// Processes at a time, beside those whose bytes are being stored; further ones wait, for so long.
const PROCESSES: usize = 14;
const TURN: Duration = Duration::from_secs(60);
/// The longest silence of a process that reads or takes bytes.
const SILENCE: Duration = Duration::from_secs(60);
/// The longest wait for its last word: what it wrote goes to the disk before.
const LAST: Duration = Duration::from_secs(600);
/// The longest wait for one that only looks.
const LOOK: Duration = Duration::from_secs(10);

/// The user whom tasks run as, and the program that gets at files as that user: one that calls
/// [`super::files`].
#[derive(Debug, Clone)]
pub struct RunAs {
    /// The user.
    pub user: User,
    /// The program.
    pub program: PathBuf,
    /// Arguments of the program.
    pub args: Vec<OsString>,
}

/// The rights of one user.
#[derive(Debug)]
pub struct Rights {
    run_as: RunAs,
    turns: Semaphore,
    silence: Duration,
}

/// A process, from its start until this is dropped.
struct Errand {
    stream: UnixStream,
    process: Option<Process>,
    user: String,
}

impl Rights {
    /// Makes the rights of that user.
    pub fn new(run_as: RunAs) -> Rights {
        Rights { run_as, turns: Semaphore::new(PROCESSES), silence: SILENCE }
    }

    /// The user.
    pub fn user(&self) -> &User {
        &self.run_as.user
    }

    /// A turn for one process. It is waited for here, since a thread that waits is not another's.
    pub(super) async fn turn(&self) -> Result<SemaphorePermit<'_>, HostError> {
        match timeout(TURN, self.turns.acquire()).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => {
                let text = "too many files are read and written for tasks; ask again in a moment";
                Err(HostError::Unavailable(text.into()))
            }
        }
    }

    /// Looks whether processes can run as the user, have no further rights, and get to these folders.
    /// Blocks.
    ///
    /// # Errors
    /// The reason why not; `Unavailable` if the process did not get to say.
    pub fn check(&self, folders: Vec<PathBuf>) -> Result<(), HostError> {
        let job = Job::Enter { uid: self.user().uid, folders };
        self.start(&job)?.last_word(LOOK.min(self.silence))
    }

    /// Opens a file for its content, or a folder for its tar stream, as [`super::pack::open`]. Blocks.
    pub(super) fn read(
        &self,
        path: &Path,
        notes: &Notes,
    ) -> Result<(Kind, Box<dyn Read + Send>), HostError> {
        let mut errand = self.start(&Job::Read(path.to_owned()))?;
        match errand.receive()? {
            (kind::CONTENT, content) => {
                let content = frames::json(&content).map_err(|e| errand.lost(&e))?;
                let notes = notes.clone();
                Ok((content, Box::new(Content::new(Reading { errand, notes }))))
            }
            (kind, bytes) => Err(errand.failed(kind, &bytes)),
        }
    }

    /// Puts bytes to a place, as [`super::place::put`]. Blocks.
    pub(super) fn write(
        &self,
        path: &Path,
        kind: Kind,
        body: &mut dyn Read,
        force: bool,
        tag: &str,
    ) -> Result<(), HostError> {
        let job = Job::Write { path: path.to_owned(), kind, force, tag: tag.to_owned() };
        let mut errand = self.start(&job)?;
        let mut piece = vec![0; PIECE];
        let mut broken = None;
        loop {
            let (kind, bytes) = match body.read(&mut piece) {
                Ok(0) => (kind::END, &[][..]),
                Ok(n) => (kind::DATA, &piece[..n]),
                Err(error) => {
                    broken = Some(HostError::of_file(&path.display().to_string(), &error));
                    (kind::BROKEN, &[][..])
                }
            };
            match frames::send(&mut errand.stream, kind, bytes) {
                Ok(()) if kind == kind::DATA => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(errand.lost(&error));
                }
                // It says why it takes no more.
                Ok(()) | Err(_) => break,
            }
        }
        let done = errand.last_word(LAST);
        broken.map_or(done, Err)
    }

    fn start(&self, job: &Job) -> Result<Errand, HostError> {
        let RunAs { user, program, args } = &self.run_as;
        let failed = |error: io::Error| {
            let (name, program) = (&user.name, program.display());
            match error.kind() {
                io::ErrorKind::PermissionDenied => HostError::Internal(format!(
                    "user {name} may not run {program} ({error}): put it where every user can run it"
                )),
                // It has too many processes, or the system has.
                io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory => {
                    HostError::Unavailable(format!("cannot run {program} as {name}: {error}"))
                }
                _ => HostError::Internal(format!("cannot run {program} as {name}: {error}")),
            }
        };
        let started = UnixStream::pair().and_then(|(ours, theirs)| {
            let null = File::options().read(true).write(true).open("/dev/null")?;
            let arguments = [program.as_os_str()].into_iter().chain(args.iter().map(|a| &**a));
            let arguments = arguments.map(|argument| CString::new(argument.as_bytes()));
            let program = Program {
                path: &CString::new(program.as_os_str().as_bytes())?,
                arguments: &arguments.collect::<Result<Vec<_>, _>>()?,
                environment: &[],
                folder: c"/",
                stdio: [theirs.as_fd(), null.as_fd(), null.as_fd()],
                user: Some(user),
                tag: None,
            };
            Ok((program.start()?, ours))
        });
        let (process, stream) = started.map_err(failed)?;
        let mut errand = Errand { stream, process: Some(process), user: user.name.clone() };
        let times = errand.stream.set_read_timeout(Some(self.silence));
        let times = times.and_then(|()| errand.stream.set_write_timeout(Some(self.silence)));
        let asked = times.and_then(|()| frames::send_json(&mut errand.stream, kind::JOB, job));
        asked.map_err(|error| errand.lost(&error))?;
        Ok(errand)
    }
}

impl Errand {
    fn receive(&mut self) -> Result<(u8, Vec<u8>), HostError> {
        frames::receive(&mut self.stream).map_err(|error| self.lost(&error))
    }

    /// The answer of a process that has got everything.
    fn last_word(&mut self, patience: Duration) -> Result<(), HostError> {
        let waits = self.stream.set_read_timeout(Some(patience));
        waits.map_err(|error| self.lost(&error))?;
        match self.receive()? {
            (kind::END, _) => Ok(()),
            (kind, bytes) => Err(self.failed(kind, &bytes)),
        }
    }

    fn failed(&self, kind: u8, bytes: &[u8]) -> HostError {
        match frames::json::<Failure>(bytes) {
            Ok(failure) if kind == kind::FAILED => failure.into_error(&self.user),
            _ => self.lost(&frames::strange(kind)),
        }
    }

    /// Error of a process that ended without a reason.
    fn lost(&self, error: &io::Error) -> HostError {
        let name = &self.user;
        HostError::Unavailable(match error.kind() {
            io::ErrorKind::WouldBlock => {
                format!("the process that has the files as user {name} does not go on")
            }
            _ => format!("the process that had the files as user {name} ended early: {error}"),
        })
    }
}

impl Drop for Errand {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            if let Some(pid) = Pid::from_raw(process.id()) {
                // It is not reaped yet, so the number is its own.
                let _ = kill_process(pid, Signal::KILL);
            }
            let _ = process.wait();
        }
    }
}

/// Content that a process sends.
struct Reading {
    errand: Errand,
    notes: Notes,
}

impl Read for Reading {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let ended = || Err(io::ErrorKind::UnexpectedEof.into());
        let read = match self.errand.stream.read(buf) {
            Ok(0) if !buf.is_empty() => ended(),
            read => read,
        };
        read.map_err(|error| io::Error::other(self.errand.lost(&error)))
    }
}

impl Others for Reading {
    fn other(&mut self, kind: u8, bytes: &[u8]) -> io::Result<bool> {
        match kind {
            kind::END => return Ok(true),
            kind::NOTE => self.notes.push(frames::shortened(&String::from_utf8_lossy(bytes))),
            kind => return Err(io::Error::other(self.errand.failed(kind, bytes))),
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rights of nobody, by a program of ours; none where this is not root.
    fn rights(script: &str) -> Option<Rights> {
        let user = User::find("nobody").ok().filter(|_| outlast_spawn::effective_uid() == 0);
        let Some(user) = user else {
            eprintln!("skipped: only root can start programs as another user");
            return None;
        };
        let args = ["-c", script].map(OsString::from).into();
        Some(Rights::new(RunAs { user, program: "/bin/sh".into(), args }))
    }

    /// The outcome of reading and of writing.
    fn both(rights: &Rights) -> [String; 2] {
        let path = Path::new("/etc/passwd");
        let read = rights.read(path, &Notes::default()).and_then(|(_, mut body)| {
            let read = body.read_to_end(&mut Vec::new());
            read.map(drop).map_err(|error| HostError::of_file("it", &error))
        });
        let mut body = io::repeat(7).take(3 << 20);
        let written = rights.write(Path::new("/nowhere"), Kind::Raw, &mut body, true, "t");
        [read, written].map(|done| done.map_or_else(|e| e.to_string(), |()| "done".into()))
    }

    #[test]
    fn whatever_the_process_does_is_an_error() {
        // It ends, it says what makes no sense, or too much, and it hangs up in the middle.
        for (script, says) in [
            ("exit 0", "ended early"),
            ("kill -9 $$", "ended early"),
            ("printf '\\0\\0\\0\\0\\0' >&0; cat >/dev/null", "was not expected"),
            ("printf 'C\\377\\377\\377\\377' >&0; cat >/dev/null", "too long"),
            ("printf 'C\\006\\0\\0\\0\"file\"D\\5\\0\\0\\0ab' >&0; exit 0", "ended early"),
        ] {
            let Some(rights) = rights(script) else { return };
            let said = both(&rights);
            assert!(said[0].contains(says), "{script}: {said:?}");
            assert_ne!(said[1], "done", "{script}");
        }
        // A task of the same user stops it.
        let Some(mut stopped) = rights("kill -STOP $$") else { return };
        stopped.silence = Duration::from_millis(300);
        assert!(both(&stopped)[0].contains("does not go on"));
        assert!(matches!(stopped.check(Vec::new()), Err(HostError::Unavailable(_))));
        let Some(rights) = rights("printf 'E\\0\\0\\0\\0' >&0; cat >/dev/null") else { return };
        assert_eq!(both(&rights)[1], "done");
        assert!(rights.check(Vec::new()).is_ok());
    }

    #[test]
    fn a_program_that_the_user_may_not_run_is_named() {
        let Some(known) = rights("") else { return };
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        std::fs::write(&program, "").unwrap();
        let run_as = RunAs { program: program.clone(), ..known.run_as.clone() };
        let error = Rights::new(run_as).check(Vec::new()).unwrap_err().to_string();
        let says = format!("user nobody may not run {}", program.display());
        assert!(error.contains(&says), "{error}");
    }
}
