//! The settings of an agent.

use super::functions::Functions;
use super::identity::Identity;
use crate::exec::Config as ExecConfig;
use crate::keeper::KeeperLaunch;
use crate::local::RunAs;
use outlast_core::worker::WorkerConfig;
use outlast_net::pulse::PingConfig;
use std::path::PathBuf;

/// The settings of an agent at its start.
#[derive(Clone)]
pub struct AgentConfig {
    /// The coordinator's address.
    pub coordinator: String,
    /// The folder of this worker's store, logs and working directories; made if absent.
    pub state_dir: PathBuf,
    /// A key of role worker.
    pub api_key: Option<String>,
    /// PEM file of authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Settings of the core.
    pub core: WorkerConfig,
    /// Settings of the executor; its root is `state_dir/tasks` when none is given.
    pub exec: Option<ExecConfig>,
    /// The launch of a process for commands that outlives this one; without it they end with this one.
    pub keeper: Option<KeeperLaunch>,
    /// The functions that `call` tasks may name.
    pub functions: Functions,
    /// Bytes of disk that checkpoints may take here; none: as much as there is.
    pub blob_budget: Option<u64>,
    /// WebSocket pings on the link, beside heartbeats.
    pub ping: PingConfig,
    /// The identity with which it starts.
    pub identity: Identity,
    /// The user as whom commands run, if not this process's own. Needs root, and a keeper that runs
    /// tasks as that user, if there is one.
    pub run_as: Option<RunAs>,
}
