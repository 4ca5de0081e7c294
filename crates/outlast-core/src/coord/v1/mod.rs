//! Workers that speak the v1 JSON dialect, as sessions of the same core: `link` is their link and
//! the messages to them, `shared` the links that one session may have at once, `beat` the task lists of
//! their heartbeats, `outcome` the assignment of results to attempts, `reports`
//! states and checkpoints, `waits` the timeouts of unanswered requests.
//!
//! Such a worker has no durable outbox and names no attempts. So duplicates are known by what was
//! recorded (task, attempt, and the outcome itself or the checkpoint's name), and a worker's
//! inventory is what its heartbeats name. It may touch tasks only through what v2 uses too.

mod beat;
mod link;
mod outcome;
mod reports;
mod session;
mod shared;
#[cfg(test)]
mod shared_tests;
#[cfg(test)]
mod tests;
mod translate;
mod waits;
mod wants;

pub use link::check_worker_id;
pub use outlast_wire::v1::{FromWorker, ToWorker};
pub(super) use session::{Link, Session, TaskReports, Unsynced};
pub use session::{MAX_LINKS, PAUSE_LAPSES, PREFIX};
pub(super) use translate::translate;
