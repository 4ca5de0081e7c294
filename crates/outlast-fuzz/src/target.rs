//! A target: a reader of bytes from outside, and what it did with an input.

use rand::rngs::SmallRng;

/// The reaction of a reader to an input.
#[derive(Debug, Clone)]
pub struct Run {
    /// The answer: an error's text, or the kind of what it read.
    pub said: String,
    /// Bytes that it took.
    pub peak: usize,
    /// Bytes that it may take.
    pub bound: usize,
}

/// A reader of bytes from outside.
pub struct Target {
    /// The name.
    pub name: &'static str,
    /// A description of what it reads.
    pub what: &'static str,
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Words that it knows.
    pub words: &'static [&'static str],
    /// Makes an input from nothing.
    pub make: Option<fn(&mut SmallRng) -> Vec<u8>>,
    /// Reads one.
    pub run: fn(&[u8]) -> Run,
}

/// A description of what was read, or the error.
pub(crate) fn said<T, E: std::fmt::Display>(
    done: Result<T, E>,
    good: impl FnOnce(T) -> String,
) -> String {
    match done {
        Ok(value) => good(value),
        Err(error) => error.to_string(),
    }
}
