//! Attribution of a failed start: to the task, or to the machine.

use outlast_model::Cause;
use rustix::io::Errno;
use std::io;
use std::path::PathBuf;

/// Origin of a failed start, and whether it may be temporary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// The task's, and it stays.
    Task,
    /// The task's, if it stays: somebody writes to the program.
    Busy,
    /// The task's, if it stays: this place is not there.
    Absent(PathBuf),
    /// The machine's: this place is there, and cannot be reached.
    Unreachable(PathBuf),
    /// The machine's: it has too little of something that others may give back.
    Scarce,
    /// The machine's.
    Machine,
}

/// Reason why there is no process.
#[derive(Debug)]
pub(super) struct NoStart {
    /// Explanation in words.
    pub reason: String,
    /// Cause to report if it turns out to be the task's fault.
    pub cause: Cause,
    pub fault: Fault,
}

impl NoStart {
    /// The task's mistake.
    pub fn task(reason: impl Into<String>) -> NoStart {
        NoStart { reason: reason.into(), cause: Cause::NotStarted, fault: Fault::Task }
    }
}

/// Descriptors, processes, memory: of these the machine, or this process, has none left.
pub(super) fn is_scarce(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::AGAIN | Errno::NOMEM | Errno::NOBUFS))
}

/// Disks and mounts that do not answer as they should.
pub(super) fn is_unreachable(error: &io::Error) -> bool {
    let Some(errno) = Errno::from_io_error(error) else { return false };
    let local = matches!(errno, Errno::IO | Errno::NODEV | Errno::NXIO | Errno::ROFS);
    let remote = matches!(
        errno,
        Errno::STALE
            | Errno::TIMEDOUT
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
            | Errno::NETUNREACH
            | Errno::NETDOWN
            | Errno::NOTCONN
            | Errno::CONNREFUSED
            | Errno::CONNRESET
            | Errno::CONNABORTED
    );
    local || remote
}

/// Classifies an error of the executor's own files and folders, which is never the task's fault.
pub(super) fn of_own_files(error: &io::Error) -> Fault {
    if is_scarce(error) { Fault::Scarce } else { Fault::Machine }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_apart() {
        let error = |errno: Errno| io::Error::from(errno);
        for errno in [Errno::MFILE, Errno::NFILE, Errno::AGAIN, Errno::NOMEM] {
            assert!(is_scarce(&error(errno)) && !is_unreachable(&error(errno)), "{errno}");
            assert_eq!(of_own_files(&error(errno)), Fault::Scarce, "{errno}");
        }
        for errno in [Errno::IO, Errno::STALE, Errno::NOTCONN, Errno::TIMEDOUT, Errno::HOSTDOWN] {
            assert!(is_unreachable(&error(errno)) && !is_scarce(&error(errno)), "{errno}");
        }
        for errno in [Errno::NOENT, Errno::ACCESS, Errno::NOEXEC, Errno::TOOBIG, Errno::NOTDIR] {
            assert!(!is_unreachable(&error(errno)) && !is_scarce(&error(errno)), "{errno}");
        }
        for errno in [Errno::NOSPC, Errno::DQUOT, Errno::ROFS, Errno::ACCESS, Errno::NOENT] {
            assert_eq!(of_own_files(&error(errno)), Fault::Machine, "{errno}");
        }
    }
}
