//! Connection of an agent to its keeper: to the running one, or else to a new one.

use super::host::open_log;
use super::proto::{self, Ask, Attach, Frames, Hello, Nothing, Say, ToAgent, ToKeeper, Welcome};
use super::{KeeperError, KeeperLaunch, folder, log, outcomes, socket};
use crate::runner::events::{Held, HeldAttempt};
use std::collections::HashSet;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A new keeper has this long to end what a former one left, and to answer.
const START: Duration = Duration::from_secs(40);
/// Time limit for a keeper's next message.
const ANSWER: Duration = Duration::from_secs(10);
/// Bytes of the end of its log that are quoted in an error.
const LOG_END: usize = 2000;

/// A keeper that was taken.
pub(super) struct Connection {
    pub stream: UnixStream,
    /// With what was read after the greeting.
    pub frames: Frames,
    pub welcome: Welcome,
    pub held: Held,
    /// The process, if it was started here.
    pub child: Option<Child>,
}

/// Requirements of an agent on its keeper.
pub(super) struct Wish<'a> {
    pub root: &'a Path,
    pub launch: &'a KeeperLaunch,
    pub slots: u32,
    pub env: &'a [(String, String)],
    /// True to replace an idle keeper, so that program, settings and environment are this agent's.
    pub fresh: bool,
}

/// Result of connecting to a running keeper.
enum Met {
    Taken(Box<Connection>),
    /// The keeper ends, or has ended; another one has to be started.
    Gone,
}

impl Wish<'_> {
    /// Takes the keeper that is there, if it may be taken as it is.
    pub fn take_present(&self) -> Option<Connection> {
        let stream = socket::dial(self.root).ok()?;
        match self.meet(stream, false) {
            Ok(Met::Taken(connection)) => Some(*connection),
            _ => None,
        }
    }

    /// Takes the keeper that is there, or starts one. Blocks until it answers.
    pub fn take(&self) -> Result<Connection, KeeperError> {
        let failed = |e| KeeperError::Folder(folder(self.root), e);
        socket::make_folder(self.root).map_err(failed)?;
        let deadline = Instant::now() + START;
        let mut child: Option<Child> = None;
        let mut pause = Duration::from_millis(1);
        loop {
            match socket::dial(self.root) {
                Ok(stream) => match self.meet(stream, self.fresh && child.is_none())? {
                    Met::Taken(mut connection) => {
                        connection.child = child.take();
                        if connection.child.is_none() {
                            // The agent that it was started by knows of these.
                            connection.held.swept = 0;
                        }
                        return Ok(*connection);
                    }
                    Met::Gone => {}
                },
                Err(e) if is_nobody(&e) => {}
                Err(e) => return Err(failed(e)),
            }
            let started = match &mut child {
                Some(started) => started,
                None => child.insert(self.start()?),
            };
            if let Ok(Some(status)) = started.try_wait() {
                return Err(KeeperError::Ended(crate::exec::describe(status), self.end_of_log()));
            }
            if Instant::now() > deadline {
                return Err(KeeperError::Silent(self.root.to_owned(), log(self.root)));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    fn start(&self) -> Result<Child, KeeperError> {
        let failed = |e| KeeperError::Folder(folder(self.root), e);
        let KeeperLaunch { program, args, .. } = self.launch;
        let log = open_log(self.root).map_err(failed)?;
        let mut command = Command::new(program);
        // Tasks can read the environment of their parent; it needs no key.
        command.args(args).stdin(Stdio::null()).env_remove("OUTLAST_API_KEY");
        command.stdout(log.try_clone().map_err(failed)?).stderr(log);
        // It outlives this process, which may have anything open.
        outlast_spawn::tidy_at_exec(&mut command);
        command.spawn().map_err(|e| KeeperError::Launch(program.clone(), e))
    }

    fn end_of_log(&self) -> String {
        let text = fs::read(log(self.root)).unwrap_or_default();
        let end = &text[text.len().saturating_sub(LOG_END)..];
        String::from_utf8_lossy(end).trim().to_owned()
    }

    /// Talks to a keeper until it is taken, or not.
    fn meet(&self, stream: UnixStream, fresh: bool) -> Result<Met, KeeperError> {
        use io::ErrorKind as K;
        match self.greet(stream, fresh) {
            Ok(met) => met,
            // It ended while it was talked to.
            Err(e) if matches!(e.kind(), K::UnexpectedEof | K::BrokenPipe | K::ConnectionReset) => {
                Ok(Met::Gone)
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                Err(KeeperError::Silent(self.root.to_owned(), log(self.root)))
            }
            Err(e) => Err(KeeperError::Folder(folder(self.root), e)),
        }
    }

    fn greet(&self, mut stream: UnixStream, fresh: bool) -> io::Result<Result<Met, KeeperError>> {
        stream.set_read_timeout(Some(ANSWER))?;
        stream.set_write_timeout(Some(ANSWER))?;
        let mut frames = Frames::new();
        let software = env!("CARGO_PKG_VERSION").to_owned();
        let hello = Hello { version: proto::VERSION, oldest: proto::OLDEST, software };
        ask(&mut stream, Ask::Hello(hello))?;
        let Say::Welcome(welcome) = next(&mut frames, &mut stream)? else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "this is no keeper"));
        };
        let compatible = welcome.oldest <= proto::VERSION && welcome.version >= proto::OLDEST;
        let wanted = self.launch.user.as_ref();
        let others = welcome.user != wanted.map(|user| user.uid);
        if welcome.busy == 0 && (fresh || !compatible || others) {
            ask(&mut stream, Ask::Retire(Nothing {}))?;
            // It closes once the folder is free.
            let _ = stream.read(&mut [0; 64]);
            return Ok(Ok(Met::Gone));
        }
        if !compatible {
            let Welcome { software: version, pid, busy, .. } = welcome;
            return Ok(Err(KeeperError::Version { version, pid, busy }));
        }
        if others {
            let Welcome { pid, busy, user, .. } = welcome;
            let theirs = user.map_or("its own user".into(), |uid| format!("user number {uid}"));
            let ours = wanted.map_or("its own user".into(), |user| format!("user {}", user.name));
            return Ok(Err(KeeperError::User { pid, busy, theirs, ours }));
        }
        let env = proto::variables(self.env);
        ask(&mut stream, Ask::Attach(Attach { slots: self.slots, env }))?;
        let held = held(&mut frames, &mut stream, welcome.swept)?;
        stream.set_read_timeout(None)?;
        let connection = Connection { stream, frames, welcome, held, child: None };
        Ok(Ok(Met::Taken(Box::new(connection))))
    }
}

fn ask(stream: &mut UnixStream, ask: Ask) -> io::Result<()> {
    let mut bytes = Vec::new();
    proto::frame(&ToKeeper::from(ask), &mut bytes);
    stream.write_all(&bytes)
}

fn next(frames: &mut Frames, stream: &mut UnixStream) -> io::Result<Say> {
    loop {
        match frames.next()? {
            Some(ToAgent { say: Some(say) }) => return Ok(say),
            Some(ToAgent { say: None }) => {}
            None if frames.read(stream)? => {}
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Reads everything up to `Ready`.
fn held(frames: &mut Frames, stream: &mut UnixStream, swept: u64) -> io::Result<Held> {
    let mut held = Held { swept: swept as usize, ..Held::default() };
    loop {
        match next(frames, stream)? {
            Say::Held(one) => held.running.push(HeldAttempt {
                id: (&one.id).into(),
                started_at_ms: Some(one.started_at_ms).filter(|&ms| ms != 0),
                paused: one.paused,
            }),
            Say::Finished(one) => held.finished.push(outcomes::outcome(one)),
            Say::Unfit(unfit) => held.unfit = unfit.reason,
            Say::Ready(_) => break,
            _ => {}
        }
    }
    let over: HashSet<_> = held.finished.iter().map(|o| (&*o.task, o.epoch)).collect();
    held.running.retain(|one| !over.contains(&(&*one.id.task, one.id.epoch)));
    Ok(held)
}

/// Returns whether nobody listens, as opposed to an address that cannot be used.
fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread::JoinHandle;

    /// Runs a keeper of another version; returns the request that it receives after reporting that.
    fn stranger(root: &Path, version: u32, oldest: u32, busy: u64) -> JoinHandle<Ask> {
        socket::make_folder(root).unwrap();
        let listener = socket::listen(root).unwrap();
        let root = root.to_owned();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut frames = Frames::new();
            let mut asked = || {
                while let Ok(true) = frames.read(&mut &stream) {
                    if let Some(ToKeeper { ask: Some(ask) }) = frames.next().unwrap() {
                        return ask;
                    }
                }
                Ask::Retire(Nothing {})
            };
            assert!(matches!(asked(), Ask::Hello(_)));
            let software = "9.9.9".to_owned();
            let welcome = Welcome {
                version,
                oldest,
                software,
                pid: 42,
                busy,
                instance: 1,
                swept: 0,
                user: None,
            };
            let mut bytes = Vec::new();
            proto::frame(&ToAgent::from(Say::Welcome(welcome)), &mut bytes);
            (&stream).write_all(&bytes).unwrap();
            let wish = asked();
            bytes.clear();
            proto::frame(&ToAgent::from(Say::Ready(Nothing {})), &mut bytes);
            if matches!(wish, Ask::Attach(_)) {
                stream.write_all(&bytes).unwrap();
            }
            socket::remove(&root);
            wish
        })
    }

    fn take(root: &Path) -> Result<Connection, KeeperError> {
        let launch = KeeperLaunch { program: "/bin/false".into(), args: Vec::new(), user: None };
        Wish { root, launch: &launch, slots: 1, env: &[], fresh: true }.take()
    }

    #[test]
    fn a_keeper_of_another_version_is_used_if_it_can_be_and_replaced_if_it_is_idle() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        // One that also speaks this version.
        let newer = stranger(root, 7, proto::VERSION, 2);
        assert_eq!(take(root).expect("a keeper").welcome.software, "9.9.9");
        assert!(matches!(newer.join().unwrap(), Ask::Attach(_)));
        // One that does not, and is busy.
        let busy = stranger(root, 9, 9, 2);
        let error = take(root).err().expect("an error").to_string();
        assert!(error.contains("version 9.9.9 (process 42) runs 2 tasks"), "{error}");
        busy.join().unwrap();
        // One that does not, and is idle: another is started, which fails here.
        let idle = stranger(root, 9, 9, 0);
        assert!(matches!(take(root), Err(KeeperError::Ended(..))));
        assert!(matches!(idle.join().unwrap(), Ask::Retire(_)));
    }
}
