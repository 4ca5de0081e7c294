//! The readers, each with the memory that it may take.

mod core;
mod http;
mod json;
mod small;
mod wire;

use crate::target::Target;

/// The list of all targets.
pub fn all() -> Vec<Target> {
    [wire::targets(), json::targets(), core::targets(), http::targets(), small::targets()]
        .into_iter()
        .flatten()
        .collect()
}
