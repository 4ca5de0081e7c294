//! The health of the store.

use crate::problem::Refusal;

/// The state of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Health {
    /// The store can be written.
    Good,
    /// The store cannot be written for now.
    Trouble(String),
    /// The store can never be written again by this process.
    Broken(String),
}

impl Health {
    /// Refuses what needs the store while it cannot be written.
    pub fn check(&self) -> Result<(), Refusal> {
        match self {
            Health::Good => Ok(()),
            Health::Trouble(why) | Health::Broken(why) => Err(Refusal::store(why)),
        }
    }
}
