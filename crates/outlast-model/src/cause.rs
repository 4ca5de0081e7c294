//! Causes of the ends and failures of attempts, links and machines: the numbers that stores and links use, and the words
//! that users read.

use serde::{Deserialize, Serialize};

/// Defines an enum whose variants have a number, for stores and links, and a word, for users and JSON.
/// A number or a word that a newer version made becomes the first variant.
macro_rules! words {
    ($(#[doc = $doc:literal])* $name:ident { $($(#[$about:meta])* $variant:ident = $number:literal $word:literal,)* }) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(from = "String", into = "&'static str")]
        pub enum $name {
            #[default]
            $($(#[$about])* $variant = $number,)*
        }

        impl $name {
            /// All values, by number.
            pub const ALL: &'static [$name] = &[$($name::$variant),*];

            /// The word that users see; empty when nothing is known.
            pub const fn word(self) -> &'static str {
                match self {
                    $($name::$variant => $word,)*
                }
            }

            /// The number that stores and links use.
            pub const fn number(self) -> i32 {
                self as i32
            }

            /// The value with this number; the first one for a number that a newer version made.
            pub fn of(number: i64) -> $name {
                match number {
                    $($number => $name::$variant,)*
                    _ => $name::default(),
                }
            }

            /// The value with this word; the first one for a word that a newer version made.
            pub fn from_word(word: &str) -> $name {
                match word {
                    $($word => $name::$variant,)*
                    _ => $name::default(),
                }
            }
        }

        impl From<$name> for i32 {
            fn from(value: $name) -> i32 {
                value.number()
            }
        }

        impl From<i32> for $name {
            fn from(number: i32) -> $name {
                $name::of(number.into())
            }
        }

        impl From<$name> for &'static str {
            fn from(value: $name) -> &'static str {
                value.word()
            }
        }

        impl From<String> for $name {
            fn from(word: String) -> $name {
                $name::from_word(&word)
            }
        }

        #[cfg(feature = "openapi")]
        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                let mut words: Vec<_> = $name::ALL.iter().map(|value| value.word()).collect();
                words.sort_unstable();
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .description(Some(concat!($($doc),*).trim()))
                    .enum_values(Some(words))
                    .into()
            }
        }

        #[cfg(feature = "openapi")]
        impl utoipa::ToSchema for $name {}

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.word())
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, word: &&str) -> bool {
                self.word() == *word
            }
        }
    };
}
pub(crate) use words;

words! {
    /// Cause of the end of an attempt; empty when there is none.
    Cause {
        /// Unknown value.
        Unspecified = 0 "",
        /// The task succeeded.
        Done = 1 "done",
        /// The task exited with a code other than 0, or its function failed.
        Exit = 2 "exit",
        /// A signal that Outlast did not send killed it.
        Signal = 3 "signal",
        /// Out of memory, by cgroup or kernel log.
        OutOfMemory = 4 "out_of_memory",
        /// The task exceeded its timeout.
        TimedOut = 5 "timed_out",
        /// The task was cancelled.
        Cancelled = 6 "cancelled",
        /// The worker drains, and returned the attempt.
        Drained = 7 "drained",
        /// The worker was stopped while the attempt ran.
        Stopped = 8 "worker_stopped",
        /// The worker's process ended, and the attempt's with it.
        WorkerCrashed = 9 "worker_crashed",
        /// The worker could not be reached for the whole reconnect window.
        Network = 10 "network",
        /// An operator removed its worker.
        Forgotten = 11 "worker_forgotten",
        /// Another attempt is current.
        Superseded = 12 "superseded",
        /// The task exceeded a disk limit.
        Disk = 13 "disk",
        /// The task could not be started.
        NotStarted = 14 "not_started",
        /// An operator moved it to another worker.
        Moved = 15 "moved",
        /// The attempt was recalled, since another worker was idle.
        AskedBack = 16 "asked_back",
        /// The worker does not know the attempt any more.
        Lost = 17 "lost",
        /// The worker's machine is at fault: a full disk, no more processes.
        Machine = 60 "machine",
    }
}

impl Cause {
    /// Returns true if the attempt did not end by what the task did: it, or its worker, went away.
    pub fn is_loss(self) -> bool {
        matches!(
            self,
            Cause::Stopped
                | Cause::WorkerCrashed
                | Cause::Network
                | Cause::Forgotten
                | Cause::Lost
                | Cause::Drained
                | Cause::Machine
        )
    }
}

words! {
    /// Cause of the end of a link; empty when there is none.
    LinkCause {
        /// Unknown value.
        Unspecified = 0 "",
        /// The other side closed it, or the network reset it.
        Closed = 1 "network",
        /// Silence for longer than the timeout.
        Silent = 2 "silent",
        /// The worker ended on purpose.
        Stopped = 3 "worker_stopped",
        /// A newer connection of the same worker took over.
        TakenOver = 4 "taken_over",
        /// A message was not accepted.
        Refused = 5 "refused",
        /// The other side did not read what was sent.
        Slow = 6 "slow",
        /// The machine slept, or the process was stopped. Older versions report it.
        Slept = 7 "slept",
        /// The coordinator restarted.
        Restarted = 8 "coordinator_restarted",
    }
}

words! {
    /// Part of a worker that does not work.
    Unfit {
        /// Unknown value.
        Unspecified = 0 "",
        /// The worker's store cannot be written: nothing becomes durable there.
        Store = 1 "store",
        /// The worker cannot start processes.
        Machine = 2 "machine",
        /// The worker cannot store checkpoints; it takes work nonetheless.
        Blobs = 3 "blobs",
        /// The worker's state folder has no room left for tasks.
        Disk = 4 "disk",
    }
}

impl Unfit {
    /// The fault as a predicate that follows the worker's name.
    pub fn says(self) -> &'static str {
        match self {
            Unfit::Unspecified => "cannot work",
            Unfit::Store => "cannot write its store",
            Unfit::Machine => "cannot start tasks",
            Unfit::Blobs => "cannot keep checkpoints",
            Unfit::Disk => "has no room for tasks",
        }
    }

    /// Returns true if a worker with this fault takes no work.
    pub fn stops_work(self) -> bool {
        self != Unfit::Blobs
    }
}

/// A fault of a worker's machine, while it lasts. A worker that cannot work is given nothing, and
/// returns what it has not started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unfitness {
    /// The part that does not work.
    pub source: Unfit,
    /// Reason for people, as the system gave it.
    pub reason: String,
}

impl Unfitness {
    /// The fault and its reason, as a predicate that follows the worker's name: "cannot write its
    /// store: No space left on device".
    pub fn says(&self) -> String {
        match self.reason.as_str() {
            "" => self.source.says().to_owned(),
            reason => format!("{}: {reason}", self.source.says()),
        }
    }
}

words! {
    /// Kind of an attempt's end.
    OutcomeKind {
        /// Unknown value.
        Unspecified = 0 "",
        /// The task succeeded.
        Succeeded = 1 "succeeded",
        /// The task itself ended badly.
        Failed = 2 "failed",
        /// The task exceeded its timeout.
        TimedOut = 3 "timed_out",
        /// The task was cancelled, or another attempt is current.
        Cancelled = 4 "cancelled",
        /// The worker could not finish it: it was killed, rebooted or stopped.
        Interrupted = 5 "interrupted",
        /// The worker returned it before it started.
        Returned = 6 "returned",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_words_lead_back_to_their_value() {
        for cause in Cause::ALL {
            assert_eq!(Cause::of(cause.number().into()), *cause);
            assert_eq!(Cause::from_word(cause.word()), *cause);
            let json = serde_json::to_string(cause).unwrap();
            assert_eq!(serde_json::from_str::<Cause>(&json).unwrap(), *cause);
        }
        assert_eq!(Cause::of(9_999), Cause::Unspecified, "a newer version's");
        assert_eq!(serde_json::from_str::<LinkCause>("\"newer\"").unwrap(), LinkCause::Unspecified);
    }
}
