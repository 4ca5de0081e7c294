//! The coordinator's half: sessions with workers, who has which task, what an outcome means.
//!
//! Drive it as the crate's documentation says. Tasks that have ended leave memory once that is
//! durable; what needs such a task waits until the driver has loaded it from the store (`loads`).
//! State in memory always takes precedence over what was loaded.
//!
//! `coordinator` has the machine and what it owns. State, which knows no rules: `memory` and `task`, `workers`,
//! `conn`, `loads`, `timers`, `undurable`, `revisions`, `rivals`, `faults`, `tally`, `admission`, `recover_state`; types that
//! go in and out: `config`, `request`, `output`, `news`, `counters`, `ids`, `ends`. All other files are rules: the effect of
//! one kind of input.

mod admission;
mod arrivals;
mod awaited;
mod config;
mod conn;
mod control;
mod coordinator;
mod copies;
#[cfg(test)]
mod copies_tests;
mod counters;
mod ends;
mod faults;
mod given;
#[cfg(test)]
mod given_tests;
mod heartbeats;
mod hello;
mod ids;
mod invariants;
mod isolate;
mod learn;
mod links;
mod loads;
mod memory;
mod news;
mod outbox;
mod output;
mod overrule;
mod principal;
mod reconcile;
mod recover;
mod recover_state;
#[cfg(test)]
mod recover_tests;
mod removal;
mod reports;
mod request;
mod requests;
mod revisions;
mod rivals;
mod session;
mod takeover;
mod tally;
mod task;
mod tasks;
#[cfg(test)]
mod tests;
mod timers;
mod toll;
mod undurable;
mod unfit;
mod v1;
mod workers;

pub use config::CoordConfig;
pub use conn::Principal;
pub use coordinator::Coordinator;
pub use counters::Counters;
pub use faults::Faults;
pub use ids::{ConnId, RequestId};
pub use invariants::Glance;
pub use loads::{Fact, Given, LoadId, PastAttempt, Query};
pub use news::{LinkChange, LinkNews, LinkSample};
pub use output::Output;
pub use overrule::RecoveryView;
pub use removal::may_come_again;
pub use request::{Owner, RecoveryRequest, Request, Response, Submission, Submitted};
pub use rivals::Copied;
pub use tally::Tally;
pub use timers::Timer;
pub use v1::{MAX_LINKS as V1_MAX_LINKS, PAUSE_LAPSES as V1_PAUSE_LAPSES};
pub use v1::{PREFIX as V1_PREFIX, check_worker_id};
pub use workers::{Isolation, WorkerState, WorkerView};
