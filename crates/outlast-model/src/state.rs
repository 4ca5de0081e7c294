//! States of a task.

use serde::{Deserialize, Serialize};
use std::fmt;

/// State of a task at the coordinator.
///
/// A word that this version does not know is an error, unlike that of a [`Cause`](crate::Cause): programs
/// act on a state. One that took an unknown state for `pending` would wait for ever, and for `failed`
/// report a failure that never was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(try_from = "String", into = "&'static str", rename_all = "lowercase")]
pub enum TaskState {
    /// Waiting for a worker.
    Pending,
    /// Given to a worker; it may be running.
    Assigned,
    /// Ended successfully.
    Succeeded,
    /// Ended with a failure.
    Failed,
    /// Cancelled on request.
    Cancelled,
}

impl TaskState {
    /// All states.
    pub const ALL: &'static [TaskState] =
        &[Self::Pending, Self::Assigned, Self::Succeeded, Self::Failed, Self::Cancelled];

    /// Returns true if the state is final, unless the task is retried.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
    /// The word that users see and the store keeps.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Assigned => "assigned",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
    /// The reverse of [`Self::as_str`].
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|s| s.as_str() == word)
    }
}

impl From<TaskState> for &'static str {
    fn from(state: TaskState) -> &'static str {
        state.as_str()
    }
}

impl TryFrom<String> for TaskState {
    type Error = UnknownState;

    fn try_from(word: String) -> Result<Self, UnknownState> {
        Self::parse(&word).ok_or(UnknownState(word))
    }
}

/// State of a task that this version does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown task state {0:?}: a newer version of this program may know it")]
pub struct UnknownState(String);

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl PartialEq<&str> for TaskState {
    fn eq(&self, word: &&str) -> bool {
        self.as_str() == *word
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_its_word_in_json_and_an_unknown_one_is_an_error_that_names_it() {
        for state in TaskState::ALL {
            let json = serde_json::to_string(state).unwrap();
            assert_eq!(json, format!("{:?}", state.as_str()));
            assert_eq!(serde_json::from_str::<TaskState>(&json).unwrap(), *state);
        }
        let error = serde_json::from_str::<TaskState>("\"parked\"").unwrap_err().to_string();
        assert!(error.starts_with("unknown task state \"parked\""), "{error}");
    }
}
