//! A TCP proxy that injects faults: on command, or by a schedule. Knows nothing of Outlast.

#![warn(missing_docs)]

mod command;
mod fault;
mod proxy;
mod pump;
mod schedule;

pub use command::Command;
pub use fault::{Faults, ParseError};
pub use proxy::{Handle, Proxy, Stats};
pub use schedule::{Event, Schedule};
