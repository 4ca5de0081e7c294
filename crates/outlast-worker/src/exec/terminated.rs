//! Detection of a shutdown that also ends the tasks' processes: of the machine, or by a service
//! manager that signals all processes of a service at once. A task that dies then was interrupted; it
//! did not fail.

use super::lock::lock;
use rustix::process::Signal;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The signals come in any order: a death waits so long for ours.
const MOMENT: Duration = Duration::from_millis(300);
/// Time between two checks meanwhile.
const LOOK: Duration = Duration::from_millis(10);
/// Service managers kill what is left after a while; systemd's default is 90 s.
const LASTS: Duration = Duration::from_secs(120);
/// Signals that end processes when a machine or a service stops.
const ENDING: [Signal; 4] = [Signal::TERM, Signal::KILL, Signal::HUP, Signal::INT];

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Terminated {
    flag: Arc<AtomicBool>,
    at: Mutex<Option<Instant>>,
}

impl Terminated {
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.flag)
    }

    /// Returns the time since this process received a signal to end. To be called periodically, so that
    /// the time is recorded.
    pub fn look(&self) -> Option<Duration> {
        let mut at = lock(&self.at);
        if self.flag.swap(false, Ordering::Relaxed) {
            *at = Some(Instant::now());
        }
        at.map(|at| at.elapsed()).filter(|&age| age < LASTS)
    }

    /// Returns whether a process that nobody here stopped ended like this because all were told to end.
    /// `grace` is what a task has to end by itself then, in whatever way.
    pub fn explains(&self, status: ExitStatus, grace: Duration) -> bool {
        let killed = ENDING.iter().any(|signal| {
            let number = signal.as_raw();
            // As a shell says it of its last command, and some programs of themselves.
            status.signal() == Some(number) || status.code() == Some(128 + number)
        });
        let deadline = Instant::now() + MOMENT;
        loop {
            match self.look() {
                Some(age) => return killed || age <= grace,
                None if !killed || Instant::now() >= deadline => return false,
                None => std::thread::sleep(LOOK),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deaths_at_the_time_of_a_termination_are_explained_by_it() {
        let terminated = Terminated::default();
        let (grace, none) = (Duration::from_secs(60), Duration::ZERO);
        let by_signal = |n| ExitStatus::from_raw(n);
        let by_code = |n: i32| ExitStatus::from_raw(n << 8);
        assert!(!terminated.explains(by_signal(15), grace));
        assert!(!terminated.explains(by_code(1), grace));
        // The signal may be ours a moment after it was the task's.
        let flag = terminated.flag();
        let late = std::thread::spawn(move || {
            std::thread::sleep(MOMENT / 4);
            flag.store(true, Ordering::Relaxed);
        });
        assert!(terminated.explains(by_signal(9), none));
        late.join().unwrap();
        assert!(terminated.explains(by_code(143), none));
        assert!(terminated.explains(by_code(1), grace));
        std::thread::sleep(Duration::from_millis(5));
        assert!(!terminated.explains(by_code(1), Duration::from_millis(1)));
        assert!(!terminated.explains(by_signal(11), Duration::from_millis(1)));
    }
}
