//! Whether the kernel killed a process for want of memory: its own log names the process, or the
//! count of such kills in our control group grew.
//!
//! Both are looked at only when a task died of a SIGKILL that was not ours. The log is certain
//! where it can be read and shows our process ids (not in a container); the count is the group's,
//! so it is held against one death only.

use super::lock;
use std::collections::VecDeque;
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
/// How much the clock of the log may differ from ours, and how far before a task's end a kill of
/// one of its processes may lie. Microseconds.
const SLACK: u64 = 10_000_000;

/// What is known of such kills.
#[derive(Debug)]
pub struct Memory {
    log: Mutex<Option<Log>>,
    count: Option<PathBuf>,
    counts: Mutex<Counts>,
}

#[derive(Debug)]
struct Log {
    file: File,
    kills: VecDeque<Kill>,
}

#[derive(Debug, Clone, PartialEq)]
struct Kill {
    /// Microseconds since boot.
    at: u64,
    pid: i32,
    text: String,
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
        Memory { log: Mutex::new(Log::open().ok()), count, counts: Mutex::new(counts) }
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

    /// The evidence that some process was killed for want of memory in the last seconds.
    pub fn killed_any(&self) -> Option<String> {
        self.find(|_| true).or_else(|| self.grown())
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
        let path = self.count.as_deref()?;
        let now = kills_in(path)?;
        let mut counts = lock(&self.counts);
        let base = counts.spent.max(counts.looks[0]);
        if now <= base {
            return None;
        }
        counts.spent = base + 1;
        Some(format!("{} counts {now} such kills, {} of them new", path.display(), now - base))
    }
}

impl Log {
    fn open() -> io::Result<Log> {
        let nonblock = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        let mut file = File::options().read(true).custom_flags(nonblock).open("/dev/kmsg")?;
        file.seek(SeekFrom::End(0))?;
        Ok(Log { file, kills: VecDeque::new() })
    }

    /// Reads what is new.
    fn read(&mut self) {
        let mut record = [0; 8192];
        for _ in 0..RECORDS {
            match self.file.read(&mut record) {
                Ok(0) => return,
                Ok(len) => {
                    let text = String::from_utf8_lossy(&record[..len]);
                    if let Some(kill) = parse(&text) {
                        self.kills.truncate(KEEP - 1);
                        self.kills.push_front(kill);
                    }
                }
                // Some records were overwritten before they were read.
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {}
                Err(_) => return,
            }
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
    // What follows the resident size is of no use to people.
    let end = text.find(", file-rss").unwrap_or(text.len()).min(200);
    Some(Kill { at, pid, text: text.get(..end).unwrap_or(text).to_owned() })
}

/// Microseconds since boot as the kernel log counts them: without suspend.
fn boot_time() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    t.tv_sec as u64 * 1_000_000 + t.tv_nsec as u64 / 1000
}

/// Where the count of our group may be, the likeliest first; `text` is `/proc/self/cgroup`.
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
    fn the_count_is_looked_for_in_both_kinds_of_groups() {
        let found = candidates("4:cpu,memory:/a/b\n0::/c\n");
        let found: Vec<_> = found.iter().filter_map(|p| p.to_str()).collect();
        assert_eq!(found[0], "/sys/fs/cgroup/memory/a/b/memory.oom_control");
        assert!(found.contains(&"/sys/fs/cgroup/c/memory.events"), "{found:?}");
    }
}
