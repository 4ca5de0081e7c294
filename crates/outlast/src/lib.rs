//! The library with which a program submits tasks to Outlast and gets their results.
//!
//! ```no_run
//! use outlast::{Client, NewTask, TaskSpec, Run};
//! # async fn example() -> Result<(), outlast::Error> {
//! let client = Client::builder("http://127.0.0.1:7117").build()?;
//! let spec = TaskSpec::new(Run::Command(vec!["echo".into(), "hello".into()]));
//! let (task, _) = client.submit(&NewTask::new(spec)).await?;
//! let result = client.wait(&task.id).await?;
//! println!("{} {}", result.state, result.stdout);
//! # Ok(())
//! # }
//! ```
//!
//! Every request is repeated while the coordinator cannot be reached, for as long as the
//! client is set to try. Submissions carry their ids, so that repeating them does no harm.

#![warn(missing_docs)]

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
pub use outlast_wire::spec::{Browser, Call, KeepCheckpoints, LateResult};
pub use outlast_wire::spec::{OnContextLoss, OnLeaseExpired, Rerun};
pub use outlast_wire::{Run, TaskSpec};
pub use steer::DataHead;
pub use tasks::{NewTask, TaskQuery};
