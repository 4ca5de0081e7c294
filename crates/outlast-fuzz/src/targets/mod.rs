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
    /// Name of the target.
    pub name: &'static str,
    /// Description of the reader.
    pub what: &'static str,
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Dictionary of words that it recognizes.
    pub words: &'static [&'static str],
    /// Makes an input from nothing.
    pub make: Option<fn(&mut SmallRng) -> Vec<u8>>,
    /// Reads one.
    pub run: fn(&[u8]) -> Run,
}

/// Returns all targets.
pub fn all() -> Vec<Target> {
    [wire::targets(), json::targets(), core::targets(), http::targets(), small::targets()]
        .into_iter()
        .flatten()
        .collect()
}

/// Describes the decoded value or the error.
fn said<T, E: std::fmt::Display>(done: Result<T, E>, good: impl FnOnce(T) -> String) -> String {
    match done {
        Ok(value) => good(value),
        Err(error) => error.to_string(),
    }
}
