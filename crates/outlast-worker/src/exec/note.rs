//! The notes of an executor on attempts that go on.

/// A note on an attempt that goes on. It may cross with the outcome: a note on an attempt that has ended
/// means nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// The attempt has been running for a while, since this Unix time in ms. Short attempts end without.
    Started(i64),
    /// Pause: no process of the attempt runs.
    Paused,
    /// Resumption: its processes run again.
    Resumed,
}

/// The watcher of attempts (task, epoch). It is called on the supervisor's thread and must be quick.
pub type Watch = Box<dyn Fn(&str, u64, Note) + Send + Sync>;
