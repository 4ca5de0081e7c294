//! Starts as another user that somebody holds up.
//!
//! Between becoming another user and becoming the program, a child is a process that the user's other
//! processes may stop, and whoever started it waits for it. So that nobody can hold up this process
//! like that, such a child is let go on.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A start that takes longer is looked after, and again after as long.
const LONG: Duration = Duration::from_millis(100);

static STARTS: Mutex<Starts> =
    Mutex::new(Starts { last: 0, under_way: BTreeMap::new(), watched: false });
static BEGUN: Condvar = Condvar::new();

struct Starts {
    last: u64,
    under_way: BTreeMap<u64, Instant>,
    /// There is a thread for it.
    watched: bool,
}

/// A start that is under way, until this is dropped.
pub(crate) struct Starting(u64);

impl Starting {
    pub fn begin() -> Starting {
        let mut starts = lock();
        starts.last += 1;
        let number = starts.last;
        starts.under_way.insert(number, Instant::now());
        if !starts.watched {
            let thread = std::thread::Builder::new().name("outlast-starts".into());
            starts.watched = thread.spawn(watch).is_ok();
        }
        BEGUN.notify_one();
        Starting(number)
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        lock().under_way.remove(&self.0);
    }
}

fn lock() -> MutexGuard<'static, Starts> {
    STARTS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn watch() {
    loop {
        let mut starts = lock();
        while starts.under_way.is_empty() {
            starts = BEGUN.wait(starts).unwrap_or_else(PoisonError::into_inner);
        }
        drop(starts);
        std::thread::sleep(LONG);
        if lock().under_way.values().any(|begun| begun.elapsed() >= LONG) {
            wake();
        }
    }
}

/// Lets stopped children go on that are no program of their own yet: they have this process's
/// arguments.
fn wake() {
    let me = std::process::id().to_string();
    let Ok(own) = fs::read("/proc/self/cmdline") else { return };
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Ok(stat) = fs::read(entry.path().join("stat")) else { continue };
        // The name is in brackets, and may contain some.
        let Some(name) = stat.iter().rposition(|&b| b == b')') else { continue };
        let text = String::from_utf8_lossy(&stat[name + 1..]);
        let mut fields = text.split_ascii_whitespace();
        let (state, parent) = (fields.next(), fields.next());
        if state == Some("T")
            && parent == Some(&me)
            && fs::read(entry.path().join("cmdline")).is_ok_and(|line| line == own)
            && let Some(pid) = rustix::process::Pid::from_raw(pid)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::CONT);
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;
    use std::process::Command;
    use std::sync::mpsc;

    #[test]
    fn a_start_that_is_stopped_goes_on() {
        let (started, start) = mpsc::channel();
        std::thread::spawn(move || {
            let mut command = Command::new("/bin/true");
            let stop = || {
                let me = rustix::process::getpid();
                Ok(rustix::process::kill_process(me, rustix::process::Signal::STOP)?)
            };
            // SAFETY: it makes system calls and nothing else.
            #[allow(unsafe_code)]
            unsafe {
                command.pre_exec(stop)
            };
            let _starting = Starting::begin();
            let _ = started.send(command.status().map(|status| status.success()));
        });
        let done = start.recv_timeout(Duration::from_secs(120));
        assert!(done.expect("it is stopped for good").unwrap());
    }
}
