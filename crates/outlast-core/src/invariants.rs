//! Checks of what must hold in memory. Unit tests and the simulator make them after every input.

/// The first contradiction, for people.
pub(crate) type Checked = Result<(), String>;

/// Fails with `what` where it does not hold.
pub(crate) fn must(holds: bool, what: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(what()) }
}
