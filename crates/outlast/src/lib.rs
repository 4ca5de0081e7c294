//! The library with which a program submits tasks to Outlast and gets their results.
//!
//! ```
//! # mod common { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mod.rs")); }
//! # common::with_worker(async |client| {
//! # let url = client.url();
//! use outlast::{Client, NewTask, Run, TaskSpec, TaskState};
//!
//! let client = Client::builder(url).build()?; // such as http://127.0.0.1:7117
//! let spec = TaskSpec::new(Run::Command(vec!["echo".into(), "hello".into()]));
//! let (task, _) = client.submit(&NewTask::new(spec)).await?;
//! let result = client.wait(&task.id).await?;
//! assert_eq!((result.state, &*result.stdout), (TaskState::Succeeded, "hello\n"));
//! # Ok(())
//! # });
//! ```
//!
//! Every request is repeated while the coordinator cannot be reached, for as long as the
//! client is set to try. Submissions carry their ids, so that repeating them does no harm.

mod builder;
mod client;
mod error;
mod logs;
mod proxy;
mod recovery;
mod steer;
mod tasks;
mod watch;
#[cfg(feature = "worker")]
pub mod worker;
mod workers;

pub use builder::Builder;
pub use client::Client;
pub use error::Error;
pub use logs::LogPart;
pub use outlast_wire::api;
pub use outlast_wire::api::{Cause, OutcomeKind, TaskState};
pub use outlast_wire::spec::{Browser, Call, KeepCheckpoints, LateResult};
pub use outlast_wire::spec::{OnContextLoss, OnLeaseExpired, Rerun};
pub use outlast_wire::{Run, SpecError, TaskSpec};
pub use steer::DataHead;
pub use tasks::{NewTask, TaskQuery};
