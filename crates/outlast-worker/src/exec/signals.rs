//! Signals that a task's main process may be sent from outside.

use super::attempt::Phase;
use super::handle::Handle;
use super::lock::lock;
use rustix::process::{Signal as Raw, kill_process};

/// A signal that a task may have a use for, such as USR1 as a request for a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal(&'static str, Raw);

/// Signals that may be sent to a task. Those that end, stop or continue it are not among them: there
/// are other functions for that.
const KNOWN: [(&str, Raw); 8] = [
    ("HUP", Raw::HUP),
    ("INT", Raw::INT),
    ("QUIT", Raw::QUIT),
    ("USR1", Raw::USR1),
    ("USR2", Raw::USR2),
    ("ALRM", Raw::ALARM),
    ("TERM", Raw::TERM),
    ("WINCH", Raw::WINCH),
];

/// A name that is no such signal's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a task cannot be sent {0:?}; use one of HUP INT QUIT USR1 USR2 ALRM TERM WINCH")]
pub struct NoSignal(pub String);

impl Signal {
    /// The signal of a name such as `USR1` or `SIGUSR1`.
    ///
    /// # Errors
    /// [`NoSignal`] names those that there are.
    pub fn parse(name: &str) -> Result<Signal, NoSignal> {
        let upper = name.to_ascii_uppercase();
        let short = upper.strip_prefix("SIG").unwrap_or(&upper);
        let known = KNOWN.iter().find(|(known, _)| *known == short);
        known.map(|&(name, raw)| Signal(name, raw)).ok_or_else(|| NoSignal(name.to_owned()))
    }

    /// The name, without `SIG`.
    pub fn name(self) -> &'static str {
        self.0
    }
}

impl Handle {
    /// Sends a signal to the main process, not to its group. False: it has none that lives.
    pub fn signal(&self, signal: Signal) -> bool {
        let state = lock(&self.attempt.state);
        // Under the lock it is not reaped: the pid is its own.
        let Phase::Running(pid) = state.phase else { return false };
        kill_process(pid, signal.1).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_those_that_end_a_task_are_refused() {
        for name in ["USR1", "SIGUSR1", "usr1"] {
            assert_eq!(Signal::parse(name).unwrap().name(), "USR1");
        }
        for name in ["KILL", "STOP", "CONT", "", "SIG", "10"] {
            assert!(Signal::parse(name).is_err(), "{name}");
        }
    }
}
