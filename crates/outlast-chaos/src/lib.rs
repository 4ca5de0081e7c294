//! A TCP proxy that injects faults: on command, or by a schedule. It knows nothing of Outlast.

mod command;
mod counters;
mod fault;
mod port;
mod proxy;
mod pump;
mod schedule;

pub use command::Command;
pub use counters::Stats;
pub use fault::{Faults, ParseError};
pub use port::free_address;
pub use proxy::{Handle, Proxy};
pub use schedule::{Event, Schedule};
