//! Cause of an attempt's end, as one of a few words that programs can act on.

/// Reason why an attempt ended. The outcome's message says it for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Cause {
    /// Unknown cause, or one of a newer version.
    #[default]
    Unknown,
    /// The task ended by itself, successfully or with an exit code.
    Exit,
    /// A signal that the worker did not send.
    Signal,
    /// The kernel killed it, or a process of its own, for want of memory.
    OutOfMemory,
    /// The time limit.
    TimedOut,
    /// The task was cancelled.
    Cancelled,
    /// The worker stopped, or failed inside.
    WorkerStopped,
    /// The output took too much of the disk.
    Disk,
    /// No process was started: it could not be, or the attempt was recalled before.
    NotStarted,
    /// The keeper that it ran under died.
    KeeperDied,
    /// No process could be started, through the machine's fault, not the task's.
    Machine,
}

/// In the order of their numbers.
const ALL: [(Cause, &str); 11] = [
    (Cause::Unknown, "unknown"),
    (Cause::Exit, "exit"),
    (Cause::Signal, "signal"),
    (Cause::OutOfMemory, "out_of_memory"),
    (Cause::TimedOut, "timed_out"),
    (Cause::Cancelled, "cancelled"),
    (Cause::WorkerStopped, "worker_stopped"),
    (Cause::Disk, "disk"),
    (Cause::NotStarted, "not_started"),
    (Cause::KeeperDied, "keeper_died"),
    (Cause::Machine, "machine"),
];

impl Cause {
    /// The name in logs, metrics and JSON.
    pub fn as_str(self) -> &'static str {
        ALL[self as usize].1
    }

    /// The number in messages and files; never given to another cause.
    pub fn number(self) -> u32 {
        self as u32
    }

    /// The cause of a number; `Unknown` for one of a newer version.
    pub fn from_number(number: u32) -> Cause {
        ALL.get(number as usize).map_or(Cause::Unknown, |(cause, _)| *cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_each_causes_own() {
        for (number, (cause, name)) in ALL.into_iter().enumerate() {
            assert_eq!((cause.number(), cause.as_str()), (number as u32, name));
            assert_eq!(Cause::from_number(number as u32), cause);
        }
        assert_eq!(Cause::from_number(4711), Cause::Unknown);
    }
}
