//! The descriptors of this process, some of which tasks must leave to the executor.

use rustix::process::{Resource, getrlimit};
use std::os::fd::RawFd;

/// Number of descriptors that tasks leave to the executor itself, which could not end them without.
const RESERVE: u64 = 32;

/// Returns whether a descriptor's number leaves enough for the executor itself.
pub(super) fn leaves_enough(descriptor: RawFd) -> bool {
    let Some(limit) = getrlimit(Resource::Nofile).current else { return true };
    let descriptor = u64::try_from(descriptor).unwrap_or_default();
    descriptor + RESERVE.min(limit / 4) < limit
}
