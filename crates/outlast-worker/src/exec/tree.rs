//! Process trees: who belongs to an attempt, and how all of it is made to end.
//!
//! A process belongs to an attempt if it descends from its main process, is in its process group,
//! in a session that one of its processes leads, or carries the attempt's mark: in its environment,
//! or as the tag that `outlast-spawn` gives it. Marks find what detached itself (setsid, double
//! fork) and what a killed worker left behind; the tag also what cleaned its environment, and what
//! may not be looked into. Without `/proc` only the process group is known.

use super::attempt::Attempt;
use super::lock::lock;
use outlast_spawn::{Process as Child, limits};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, pidfd_send_signal,
};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// The variable that marks every process of an attempt: `<root id>:<task>.<epoch>`.
pub(super) const MARK: &str = "OUTLAST_ATTEMPT_ID";

/// Time for which a sweep goes on killing before it gives up on what cannot be killed.
const SWEEP_LIMIT: Duration = Duration::from_secs(10);

/// One line of the process table. A pid alone may be reused; with the start time it is unique.
#[derive(Debug, Clone, Copy)]
pub(super) struct Process {
    pub pid: i32,
    pub parent: i32,
    pub group: i32,
    pub session: i32,
    pub dead: bool,
    /// Stopped by a signal or a debugger.
    pub stopped: bool,
    pub start: u64,
}

impl Process {
    /// Returns an identity that is constant while the process lives, and never reused.
    pub fn identity(&self) -> (i32, u64) {
        (self.pid, self.start)
    }

    fn read(pid: i32, buffer: &mut Vec<u8>) -> Option<Process> {
        buffer.clear();
        File::open(format!("/proc/{pid}/stat")).ok()?.read_to_end(buffer).ok()?;
        // The command's name may contain anything, brackets too: fields start after the last one.
        let rest = &buffer[buffer.iter().rposition(|&b| b == b')')? + 1..];
        let text = std::str::from_utf8(rest).ok()?;
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        let number = |i: usize| fields.get(i)?.parse::<i64>().ok();
        Some(Process {
            pid,
            dead: matches!(*fields.first()?, "Z" | "X" | "x"),
            stopped: matches!(*fields.first()?, "T" | "t"),
            parent: number(1)? as i32,
            group: number(2)? as i32,
            session: number(3)? as i32,
            start: number(19)? as u64,
        })
    }
}

/// The whole process table; empty where there is no `/proc`.
fn snapshot() -> Vec<Process> {
    let mut buffer = Vec::with_capacity(1024);
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Process::read(pid, &mut buffer))
        .collect()
}

/// The bits of a tag that count a root's attempts; those above it are the root's.
const TAG_COUNT: u32 = 32;

/// The tag of a root's attempt with this number.
pub(super) fn tag(root_id: &str, number: u64) -> u64 {
    let root = root_id.get(..8).and_then(|digits| u64::from_str_radix(digits, 16).ok());
    let all = (root.unwrap_or_default() << TAG_COUNT) | (number & ((1 << TAG_COUNT) - 1));
    all & (limits::MAX_TAG - 1)
}

/// The marks of a process, as far as it has some and they may be read.
#[derive(Debug)]
struct Marks {
    variable: Option<String>,
    tag: Option<u64>,
}

impl Marks {
    fn of(pid: i32) -> Option<Marks> {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let variable = environ.split(|&b| b == 0).find_map(|entry| {
            let (name, value) = std::str::from_utf8(entry).ok()?.split_once('=')?;
            (name == MARK).then(|| value.to_owned())
        });
        let tag = limits::tag_of(pid);
        (variable.is_some() || tag.is_some()).then_some(Marks { variable, tag })
    }
}

/// The marks of those processes that can be strays: children of `me`, or, if orphans are not
/// handed to us, of anyone. Read once and used for every attempt that is being stopped.
fn stray_marks(table: &[Process], me: i32, ours: bool) -> HashMap<i32, Marks> {
    table
        .iter()
        .filter(|p| !p.dead && p.pid != me && (!ours || p.parent == me))
        .filter_map(|p| Some((p.pid, Marks::of(p.pid)?)))
        .collect()
}

/// Snapshot of all processes, used for all attempts.
pub(super) struct Look {
    pub table: Vec<Process>,
    /// The main processes of attempts.
    pub mains: BTreeSet<i32>,
    marks: HashMap<i32, Marks>,
    me: i32,
}

impl Look {
    /// `adopts`: orphans are handed to this process.
    pub fn take(adopts: bool) -> Look {
        let table = snapshot();
        let me = std::process::id() as i32;
        let mains = mains();
        let marks = stray_marks(&table, me, adopts);
        Look { table, mains, marks, me }
    }

    /// The dead children of this process.
    pub fn dead(&self) -> impl Iterator<Item = &Process> {
        self.table.iter().filter(|p| p.dead && p.parent == self.me)
    }

    /// Returns the remaining processes of the attempt with this main process; see [`members`].
    pub fn left_of(&self, pid: i32, whose: &Attempt, seen: &HashSet<(i32, u64)>) -> Vec<Process> {
        let is_its = |marks: &Marks| {
            marks.variable.as_ref() == Some(&whose.mark) || marks.tag == Some(whose.tag)
        };
        let marked = |p| self.marks.get(&p).is_some_and(is_its);
        let others = |p| p == self.me || (p != pid && self.mains.contains(&p));
        members(&self.table, Some(pid), seen, marked, others)
    }
}

/// Returns the remaining processes of a tree: living ones only, including the main process.
///
/// `seen` are members of earlier snapshots: they keep belonging to it however they move.
/// `others` never belong to it: the worker itself and the main processes of other attempts.
fn members(
    table: &[Process],
    main: Option<i32>,
    seen: &HashSet<(i32, u64)>,
    marked: impl Fn(i32) -> bool,
    others: impl Fn(i32) -> bool,
) -> Vec<Process> {
    let by_pid: HashMap<i32, u64> = table.iter().map(Process::identity).collect();
    // The ids of members that are gone still name their groups and sessions, unless reused.
    let mut ids: HashSet<i32> = seen
        .iter()
        .filter(|(pid, start)| by_pid.get(pid).is_none_or(|now| now == start))
        .map(|(pid, _)| *pid)
        .collect();
    ids.extend(main);
    let mut found = HashSet::new();
    loop {
        let before = found.len();
        for p in table {
            if found.contains(&p.pid) || p.pid <= 1 || others(p.pid) {
                continue;
            }
            let belongs = [p.pid, p.parent, p.group, p.session].iter().any(|id| ids.contains(id))
                || marked(p.pid);
            if belongs {
                found.insert(p.pid);
                ids.insert(p.pid);
            }
        }
        if found.len() == before {
            break;
        }
    }
    table.iter().filter(|p| !p.dead && found.contains(&p.pid)).copied().collect()
}

/// Signals exactly this process, never a later one that got its pid.
pub(super) fn signal(process: &Process, signal: Signal) {
    let Some(pid) = Pid::from_raw(process.pid) else { return };
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(fd) => {
            // The descriptor pins the process; now make sure that it pinned the right one.
            let now = Process::read(process.pid, &mut Vec::new());
            if now.is_some_and(|p| p.identity() == process.identity()) {
                let _ = pidfd_send_signal(fd, signal);
            }
        }
        Err(Errno::SRCH) => {}
        Err(_) => {
            let _ = kill_process(pid, signal);
        }
    }
}

/// Takes a dead process off the process table if it was handed to us as an orphan.
pub(super) fn reap(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
    }
}

/// Kills every process that carries a mark of this root, with its descendants. Returns how many.
///
/// Must not run while the root has attempts of its own.
pub(super) fn sweep(root_id: &str) -> usize {
    let me = std::process::id() as i32;
    let prefix = format!("{root_id}:");
    let root = tag(root_id, 0) >> TAG_COUNT;
    let is_ours = |marks: &Marks| {
        marks.variable.as_ref().is_some_and(|mark| mark.starts_with(&prefix))
            || marks.tag.is_some_and(|tag| tag >> TAG_COUNT == root)
    };
    let mut killed = HashSet::new();
    let deadline = Instant::now() + SWEEP_LIMIT;
    loop {
        let table = snapshot();
        let ancestors = ancestors(&table, me);
        let marks = stray_marks(&table, me, false);
        let left = members(
            &table,
            None,
            &killed,
            |pid| marks.get(&pid).is_some_and(is_ours),
            |pid| ancestors.contains(&pid),
        );
        for process in &left {
            signal(process, Signal::KILL);
            killed.insert(process.identity());
        }
        for p in table.iter().filter(|p| p.dead && p.parent == me) {
            if killed.contains(&p.identity()) {
                reap(p.pid);
            }
        }
        if left.is_empty() || Instant::now() > deadline {
            return killed.len();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// `me` and everything above it: never to be killed, whatever mark it carries.
fn ancestors(table: &[Process], me: i32) -> HashSet<i32> {
    let parents: HashMap<i32, i32> = table.iter().map(|p| (p.pid, p.parent)).collect();
    let mut above = HashSet::from([me]);
    let mut pid = me;
    while let Some(&parent) = parents.get(&pid) {
        if !above.insert(parent) {
            break;
        }
        pid = parent;
    }
    above
}

/// Main processes that some executor of this process waits for, so that nobody else reaps them.
static MAINS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());
/// Held shared while a main process is started and registered, exclusively while strays are reaped.
static SPAWNING: RwLock<()> = RwLock::new(());

/// A main process: known to be one from its start until this is dropped.
#[derive(Debug)]
pub(super) struct Main(i32);

impl Main {
    /// Starts a process and registers it.
    pub fn start(start: impl FnOnce() -> io::Result<Child>) -> io::Result<(Main, Child)> {
        let _gate = SPAWNING.read().unwrap_or_else(PoisonError::into_inner);
        let child = start()?;
        lock(&MAINS).insert(child.id());
        Ok((Main(child.id()), child))
    }
}

impl Drop for Main {
    fn drop(&mut self) {
        lock(&MAINS).remove(&self.0);
    }
}

/// The main processes of all attempts.
pub(super) fn mains() -> BTreeSet<i32> {
    lock(&MAINS).clone()
}

/// Reaps dead orphans that were inherited by this process and belong to no attempt.
///
/// Children that other code of this process started are recognized by their process group, which is
/// this process's own, and by being reaped in time: an orphan was already dead in the last snapshot.
/// With `all`, the group does not matter. `earlier` is passed from one snapshot to the next.
pub(super) fn reap_strays(earlier: &mut HashSet<(i32, u64)>, all: bool) {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let peek = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    if !matches!(waitid(WaitId::All, peek), Ok(Some(_))) {
        earlier.clear();
        return;
    }
    // Nothing may start meanwhile: a main process that ended at once is not registered yet.
    let _gate = SPAWNING.write().unwrap_or_else(PoisonError::into_inner);
    let table = snapshot();
    let mains = mains();
    let me = std::process::id() as i32;
    let own_group = table.iter().find(|p| p.pid == me).map(|p| p.group);
    let dead: HashSet<_> = table
        .iter()
        .filter(|p| p.dead && p.parent == me && (all || Some(p.group) != own_group))
        .filter(|p| !mains.contains(&p.pid))
        .map(Process::identity)
        .collect();
    dead.intersection(earlier).for_each(|(pid, _)| reap(*pid));
    *earlier = dead;
}

/// The largest resident size of a living process so far, in bytes.
pub(super) fn peak_rss(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}
