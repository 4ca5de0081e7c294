//! The executor of command tasks: start, limits, stop, outcome, output.
//!
//! `engine` is the state that all threads share. Each attempt has a thread of its own while it runs (`pool`,
//! `job`, `launch`, `verdict`); one supervisor thread ends those that must end (`supervisor`, `tree`,
//! `limits`); output goes through pipes (`output`) to files (`segments`, `logs`). Everything lives below one
//! root folder, which one executor at a time may use.
//!
//! When a main process ends by itself, its process group is killed, as CI runners do; what left the group (a
//! daemon) may outlive the task, but not the executor. If the worker is killed, the next executor of the same
//! root ends what it finds still running.

mod attempt;
mod command;
mod config;
mod descriptors;
mod disk;
mod engine;
mod environment;
mod executor;
mod fault;
mod fitness;
mod handle;
mod in_vain;
mod init;
mod job;
mod launch;
mod leftovers;
mod limits;
mod lock;
pub mod logs;
mod note;
mod oom;
mod outcome;
mod output;
mod pause;
mod pool;
mod probe;
mod remove;
mod result;
mod root;
mod segments;
mod signals;
mod spares;
mod stop;
mod supervisor;
mod table;
mod terminated;
mod tree;
mod user;
mod verdict;

pub(crate) use command::describe;
pub use config::{Config, OnOutputLimit};
pub use executor::Executor;
pub use fitness::FitnessWatch;
pub use handle::Handle;
pub use init::serve_as_init;
pub(crate) use job::Refusal;
pub use note::{Note, Watch};
pub use oom::Memory;
pub(crate) use outcome::{Unbegun, never_begun, plain};
pub use result::{MAX_VALUE, Report};
pub(crate) use root::{make as make_root, sweep};
pub use signals::{NoSignal, Signal};
pub use stop::StopKind;
pub(crate) use user::WORK;
