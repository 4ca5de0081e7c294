//! The face that both machines show to their driver.

use crate::records::Batch;
use crate::{Millis, Now};
use std::fmt::Debug;

/// A state machine. Its inputs are functions of its own, `on_…`; what it puts out after each is polled.
pub trait Machine {
    /// A fact to make durable.
    type Record;
    /// An action for the driver.
    type Output;
    /// The reason of a wake-up.
    type Timer: Debug;

    /// Returns the next output. All are to be taken after each input, in order.
    fn poll(&mut self) -> Option<Step<Self::Record, Self::Output>>;

    /// Returns the latest time for the next [`Machine::on_tick`], and the reason.
    fn next_wake(&self) -> Wake<Self::Timer>;

    /// Handles that time has passed.
    fn on_tick(&mut self, now: Now);
}

/// The next wake-up of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wake<T> {
    /// The latest time for the next [`Machine::on_tick`], in milliseconds of `Now::mono`.
    pub at: Millis,
    /// The timer that is due then.
    pub why: T,
}

/// An output of a machine.
#[derive(Debug)]
pub enum Step<R, O> {
    /// Make durable, then report it. What rests on it follows only then.
    Persist(Batch<R>),
    /// Carry out.
    Perform(O),
}
