//! The cost of a loss in retries. Tasks that ran beside each other are lost together when one of them kills the
//! keeper that ran them, and nothing says which one it was. The first loss of that kind counts as
//! any other. Further ones do not, up to a bound, so that a task does not fail for its neighbours.

use super::task::Task;
use outlast_model::{OutcomeKind, TaskOutcome};
use std::borrow::Cow;

/// Losses together with others after which each one counts again: a task that kills its keeper and
/// is never alone must end at some time.
const MAX_SHARED: u32 = 10;

/// The cost of one loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Toll {
    /// True if others were lost with it.
    pub shared: bool,
    /// True if it does not count.
    pub spared: bool,
    beside: u32,
}

impl Toll {
    /// Returns the cost of losing the current attempt of this task; without an outcome its worker said
    /// nothing of it.
    pub fn of(task: &Task, outcome: Option<&TaskOutcome>) -> Toll {
        let lost = outcome.filter(|o| o.kind == OutcomeKind::Interrupted);
        let beside = lost.map_or(0, |o| o.beside);
        let before = task.recovery.as_ref().map_or(0, |recovery| recovery.shared);
        let shared = beside > 0;
        Toll { shared, spared: shared && (1..MAX_SHARED).contains(&before), beside }
    }

    /// The losses that count after this one, and its reason.
    pub fn charge(self, retries: u32, reason: &str) -> (u32, Cow<'_, str>) {
        if !self.spared {
            return (retries + 1, reason.into());
        }
        let others = match self.beside {
            1 => "another task".to_owned(),
            n => format!("{n} other tasks"),
        };
        let why = format!("{reason}; it ran beside {others}, and does not count as a retry again");
        (retries, why.into())
    }
}
