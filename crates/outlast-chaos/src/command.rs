//! The commands that an operator types while a proxy runs.

use crate::{Faults, ParseError};
use std::str::FromStr;

/// A line typed to a running proxy.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Set the faults from now on.
    Set(Faults),
    /// Reset what is open, once.
    Reset,
    /// Show the counters.
    Stats,
    /// Show the commands.
    Help,
    /// End the proxy.
    Quit,
}

impl Command {
    /// The commands, for people.
    pub const HELP: &'static str = "\
cut | refuse | half-open | stall       one of these, or several with commas
delay=50ms~20ms  bandwidth=64kB  corrupt=0.1  truncate=1000B  slow-close=2s
up:FAULT  down:FAULT                   one direction only
heal                                   no more faults
reset                                  reset what is open, once
stats | help | quit";
}

impl FromStr for Command {
    type Err = ParseError;
    fn from_str(line: &str) -> Result<Self, ParseError> {
        let line = line.trim();
        Ok(match line {
            "reset" => Self::Reset,
            "stats" => Self::Stats,
            "help" | "?" => Self::Help,
            "quit" | "exit" | "q" => Self::Quit,
            _ => Self::Set(line.strip_prefix("set ").unwrap_or(line).parse().map_err(
                |ParseError(e)| ParseError(format!("{e}; or reset, stats, help, quit")),
            )?),
        })
    }
}
