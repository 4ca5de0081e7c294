//! The readers, each with what it may take.

mod core;
mod http;
mod json;
mod small;
mod wire;

use crate::Run;
use rand::rngs::SmallRng;

/// A reader of bytes from outside.
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// What it reads.
    pub what: &'static str,
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// What it knows.
    pub words: &'static [&'static str],
    /// Makes an input from nothing.
    pub make: Option<fn(&mut SmallRng) -> Vec<u8>>,
    /// Reads one.
    pub run: fn(&[u8]) -> Run,
}

/// All of them.
pub fn all() -> Vec<Target> {
    [wire::targets(), json::targets(), core::targets(), http::targets(), small::targets()]
        .into_iter()
        .flatten()
        .collect()
}

/// What was read, or why not.
fn said<T, E: std::fmt::Display>(done: Result<T, E>, good: impl FnOnce(T) -> String) -> String {
    match done {
        Ok(value) => good(value),
        Err(error) => error.to_string(),
    }
}
