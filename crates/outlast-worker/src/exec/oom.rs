//! Detection of kills by the kernel for lack of memory: the kernel's log names the process, or the
//! count of such kills in this control group grew.
//!
//! Both are read only when a task died of a SIGKILL that this worker did not send, or reports that one
//! of its processes did. The log is certain where it is readable and shows process ids of this
//! namespace (not in a container); the count is the group's, so it accounts for one death only.
//!
//! A process that its parent has reaped cannot be looked up any more. A kill is attributed to an
//! attempt only if everything in the log fits: it came after the attempt began, in this control group,
//! did not hit another attempt's main process, and hit a process no larger than the attempt's own
//! have been.

use super::lock::lock;
use super::tree;
use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

/// Kills that are remembered.
const KEEP: usize = 64;
/// Records of the kernel log that are read at once, at most.
const RECORDS: usize = 100_000;
/// The kernel signals before it writes its log: how long and how often the log is waited for.
const WAIT: (u32, Duration) = (3, Duration::from_millis(10));
/// Tolerance between the log's clock and this process's, and the longest time between the kill of a
/// process and its task's end, in microseconds.
const SLACK: u64 = 10_000_000;

/// Tolerance of the kernel's count of a process's memory: a quarter, and a number of bytes.
const ROUGHLY: (u64, u64) = (4, 16 << 20);
/// The namespaces that the kernel log speaks of: of process ids, and of control groups.
const INITIAL: [&str; 2] = ["pid:[4026531836]", "cgroup:[4026531835]"];

/// Kills that were observed.
#[derive(Debug)]
pub struct Memory {
    log: Mutex<Option<Log>>,
    /// True if the log uses the process ids of this namespace.
    log_is_ours: bool,
    count: Option<PathBuf>,
    counts: Mutex<Counts>,
}

/// Number of kills that were known when an attempt began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Before {
    logged: u64,
    counted: u64,
}

#[derive(Debug)]
struct Log {
    file: File,
    kills: VecDeque<Kill>,
    /// Kills that were read so far.
    read: u64,
    /// The process that was chosen last, and its control group.
    chosen: Option<(i32, String)>,
    /// Our control group, if the log knows it by the same name.
    group: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
struct Kill {
    /// Microseconds since boot.
    at: u64,
    pid: i32,
    /// Resident private memory of the process in bytes, if the log has it.
    size: Option<u64>,
    text: String,
    /// The control group, if it is known.
    group: Option<String>,
    /// Kills that were read before it.
    after: u64,
}

#[derive(Debug, Default)]
struct Counts {
    /// The count two looks ago, and at the last.
    looks: [u64; 2],
    /// Up to here deaths were explained by it.
    spent: u64,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory {
    /// Looks at what there is to look at.
    pub fn new() -> Memory {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let count = candidates(&groups).into_iter().find(|path| kills_in(path).is_some());
        let now = count.as_deref().and_then(kills_in).unwrap_or_default();
        let counts = Counts { looks: [now; 2], spent: now };
        let initial =
            |n: usize, name| fs::read_link(name).is_ok_and(|link| link.as_os_str() == INITIAL[n]);
        let group = own_group(&groups).filter(|_| initial(1, "/proc/self/ns/cgroup"));
        let log = Log::open(group).ok();
        let log_is_ours = log.is_some() && initial(0, "/proc/self/ns/pid");
        Memory { log: Mutex::new(log), log_is_ours, count, counts: Mutex::new(counts) }
    }

    /// An attempt is about to begin.
    pub(super) fn before(&self) -> Before {
        let mut before = Before { logged: 0, counted: 0 };
        if !self.log_is_ours {
            before.counted = self.count.as_deref().and_then(kills_in).unwrap_or_default();
        } else if let Some(log) = &mut *lock(&self.log) {
            log.read();
            before.logged = log.read;
        }
        before
    }

    /// Notes the count; to be called every few seconds while tasks run.
    pub fn look(&self) {
        if let Some(now) = self.count.as_deref().and_then(kills_in) {
            let mut counts = lock(&self.counts);
            counts.looks = [counts.looks[1], now];
        }
    }

    /// The evidence that the process, dead by SIGKILL, was killed for want of memory.
    pub fn killed(&self, pid: i32) -> Option<String> {
        for again in 0..WAIT.0 {
            if again > 0 {
                std::thread::sleep(WAIT.1);
            }
            let named = self.find(|kill| kill.pid == pid);
            if let Some(found) = named.or_else(|| self.grown()) {
                return Some(found);
            }
        }
        None
    }

    /// Reason why a process of an attempt that has ended is taken for killed for want of memory: its main
    /// process, which was another, says that one died of SIGKILL. None of them was ever larger than
    /// `largest` bytes.
    pub(super) fn killed_of(&self, before: Before, largest: u64) -> Option<String> {
        if !self.log_is_ours {
            let evidence = self.grown_since(before.counted)?;
            return Some(format!("out of memory, most likely: exit code 137, and {evidence}"));
        }
        let others = tree::mains();
        let found = (0..WAIT.0).find_map(|again| {
            if again > 0 {
                std::thread::sleep(WAIT.1);
            }
            self.find_own(before.logged, largest, &others)
        })?;
        let what = "exit code 137, one of its processes was killed by the kernel";
        Some(format!("out of memory: {what} ({found})"))
    }

    fn find_own(&self, logged: u64, largest: u64, others: &BTreeSet<i32>) -> Option<String> {
        let own = lock(&self.log).as_ref()?.group.clone();
        self.find(|kill| kill.fits(logged, own.as_deref(), largest) && !others.contains(&kill.pid))
    }

    /// A recent kill, which is not found again.
    fn find(&self, which: impl Fn(&Kill) -> bool) -> Option<String> {
        let mut log = lock(&self.log);
        let log = log.as_mut()?;
        log.read();
        let now = boot_time();
        log.kills.retain(|kill| kill.at + SLACK >= now);
        let found = log.kills.iter().position(which)?;
        let kill = log.kills.remove(found)?;
        // It is in the count as well, and is not to explain another death there.
        self.grown();
        Some(format!("kernel log: {}", kill.text))
    }

    /// The evidence of the count, once for each time that it grew.
    fn grown(&self) -> Option<String> {
        self.grown_since(0)
    }

    fn grown_since(&self, start: u64) -> Option<String> {
        let path = self.count.as_deref()?;
        let now = kills_in(path)?;
        let mut counts = lock(&self.counts);
        let base = counts.spent.max(counts.looks[0]).max(start);
        if now <= base {
            return None;
        }
        counts.spent = base + 1;
        Some(format!("{} counts {now} such kills, {} of them new", path.display(), now - base))
    }
}

impl Kill {
    /// Returns whether it may have been of an attempt in the group `own`, that began when `logged` kills
    /// were known, and whose processes were never larger than `largest` bytes.
    fn fits(&self, logged: u64, own: Option<&str>, largest: u64) -> bool {
        let here = match (own, self.group.as_deref()) {
            // Below the root is everything.
            (Some("/"), Some(group)) => group == "/",
            (Some(own), Some(group)) => {
                let below = group.strip_prefix(own);
                below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            _ => true,
        };
        let most = largest.saturating_add(largest / ROUGHLY.0).saturating_add(ROUGHLY.1);
        here && self.after >= logged && self.size.is_none_or(|size| size <= most)
    }
}

impl Log {
    fn open(group: Option<String>) -> io::Result<Log> {
        let nonblock = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        let mut file = File::options().read(true).custom_flags(nonblock).open("/dev/kmsg")?;
        file.seek(SeekFrom::End(0))?;
        Ok(Log { file, kills: VecDeque::new(), read: 0, chosen: None, group })
    }

    /// Reads what is new.
    fn read(&mut self) {
        let mut record = [0; 8192];
        for _ in 0..RECORDS {
            match self.file.read(&mut record) {
                Ok(0) => return,
                Ok(len) => self.note(&String::from_utf8_lossy(&record[..len])),
                // Some records were overwritten before they were read.
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {}
                Err(_) => return,
            }
        }
    }

    /// Takes up a record.
    fn note(&mut self, record: &str) {
        if let Some(chosen) = chosen(record) {
            self.chosen = Some(chosen);
        } else if let Some(kill) = parse(record) {
            let chosen = self.chosen.as_ref().filter(|(pid, _)| *pid == kill.pid);
            let group = chosen.map(|(_, group)| group.clone());
            self.kills.truncate(KEEP - 1);
            self.kills.push_front(Kill { group, after: self.read, ..kill });
            self.read += 1;
        }
    }
}

/// A record of the kernel log: `priority,number,microseconds,flags;text`.
fn parse(record: &str) -> Option<Kill> {
    let (head, text) = record.split_once(';')?;
    let text = text.lines().next()?;
    let (_, rest) = text.split_once("Killed process ")?;
    let pid = rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
    let at = head.split(',').nth(2)?.parse().ok()?;
    let kib = rest.rsplit_once(" anon-rss:").and_then(|(_, size)| size.split_once("kB"));
    let size = kib.and_then(|(kib, _)| kib.parse::<u64>().ok()).map(|kib| kib << 10);
    // What follows the resident size is of no use to people.
    let end = text.find(", file-rss").unwrap_or(text.len()).min(200);
    let text = text.get(..end).unwrap_or(text).to_owned();
    Some(Kill { at, pid, size, text, group: None, after: 0 })
}

/// Parses the kernel's preceding record: the chosen process, and its control group.
fn chosen(record: &str) -> Option<(i32, String)> {
    let (_, text) = record.lines().next()?.split_once(";oom-kill:")?;
    let (_, rest) = text.split_once(",task_memcg=")?;
    let (group, rest) = rest.rsplit_once(",task=")?;
    let (_, pid) = rest.rsplit_once(",pid=")?;
    let pid = pid.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
    Some((pid, group.to_owned()))
}

/// Our control group, of those in `/proc/self/cgroup`, that counts memory.
fn own_group(text: &str) -> Option<String> {
    let of = |wanted: &str| {
        text.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            controllers.split(',').any(|c| c == wanted).then(|| path.to_owned())
        })
    };
    of("memory").or_else(|| of(""))
}

/// Microseconds since boot as the kernel log counts them: without suspend.
fn boot_time() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    t.tv_sec as u64 * 1_000_000 + t.tv_nsec as u64 / 1000
}

/// Place where the count of our group may be, the likeliest first; `text` is `/proc/self/cgroup`.
fn candidates(text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let path = path.trim_start_matches('/');
        if controllers.split(',').any(|c| c == "memory") {
            // Inside a container the path may be the host's; the mount then shows our group.
            for path in [path, ""] {
                found
                    .push(Path::new("/sys/fs/cgroup/memory").join(path).join("memory.oom_control"));
            }
        } else if controllers.is_empty() {
            for (mount, path) in [("", path), ("unified", path), ("", "")] {
                found
                    .push(Path::new("/sys/fs/cgroup").join(mount).join(path).join("memory.events"));
            }
        }
    }
    found
}

fn kills_in(path: &Path) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_in_the_kernel_log_is_understood() {
        let record = "3,1234,987654321,-;Memory cgroup out of memory: Killed process 4321 (py (x)) \
                      total-vm:9000kB, anon-rss:8000kB, file-rss:1kB, shmem-rss:0kB\n SUBSYSTEM=x\n";
        let kill = parse(record).unwrap();
        assert_eq!((kill.at, kill.pid), (987_654_321, 4321));
        let text = "Memory cgroup out of memory: Killed process 4321 (py (x)) \
                    total-vm:9000kB, anon-rss:8000kB";
        assert_eq!(kill.text, text);
        assert_eq!(parse("6,1,2,-;eth0: link up\n"), None);
        assert_eq!(parse("garbage"), None);
    }

    #[test]
    fn a_kill_of_a_neighbour_fits_no_attempt() {
        let file = File::open("/dev/null").unwrap();
        let mut log =
            Log { file, kills: VecDeque::new(), read: 0, chosen: None, group: Some("/a".into()) };
        let mut kill = |pid: i32, group: &str, mib: u64| {
            log.note(&format!(
                "6,1,2,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,\
                 mems_allowed=0,oom_memcg=/,task_memcg={group},task=py, x,pid={pid},uid=0\n"
            ));
            let kib = mib << 10;
            log.note(&format!("3,2,3,-;Out of memory: Killed process {pid} (py) anon-rss:{kib}kB"));
            log.kills[0].clone()
        };
        let fits = |kill: &Kill| kill.fits(1, Some("/a"), 100 << 20);
        let early = kill(7, "/a", 90);
        assert_eq!(
            (early.group.as_deref(), early.size, early.after),
            (Some("/a"), Some(90 << 20), 0)
        );
        assert!(!fits(&early), "before it began");
        assert!(fits(&kill(8, "/a", 90)) && fits(&kill(9, "/a/b,c", 110)));
        assert!(!fits(&kill(10, "/ab", 90)) && !fits(&kill(11, "/", 90)), "another group");
        assert!(!fits(&kill(12, "/a", 200)), "larger than it ever was");
        let root = kill(13, "/b", 90);
        assert!(!root.fits(1, Some("/"), 100 << 20) && root.fits(1, None, 100 << 20));
        assert_eq!(own_group("4:cpu,memory:/a/b\n0::/c\n").as_deref(), Some("/a/b"));
        assert_eq!(own_group("0::/c\n").as_deref(), Some("/c"));
    }

    #[test]
    fn a_count_that_grew_before_an_attempt_explains_nothing_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("memory.events");
        let count = |n: u64| fs::write(&path, format!("oom 0\noom_kill {n}\n")).unwrap();
        count(1);
        let memory = Memory {
            log: Mutex::new(None),
            log_is_ours: false,
            count: Some(path.clone()),
            counts: Mutex::new(Counts { looks: [1; 2], spent: 1 }),
        };
        count(2);
        let before = memory.before();
        assert_eq!(memory.killed_of(before, 1 << 30), None);
        count(3);
        let said = memory.killed_of(before, 1 << 30).unwrap();
        assert!(said.starts_with("out of memory, most likely: exit code 137, and "), "{said}");
        assert_eq!(memory.killed_of(before, 1 << 30), None, "once");
    }

    #[test]
    fn the_count_is_looked_for_in_both_kinds_of_groups() {
        let found = candidates("4:cpu,memory:/a/b\n0::/c\n");
        let found: Vec<_> = found.iter().filter_map(|p| p.to_str()).collect();
        assert_eq!(found[0], "/sys/fs/cgroup/memory/a/b/memory.oom_control");
        assert!(found.contains(&"/sys/fs/cgroup/c/memory.events"), "{found:?}");
    }
}
