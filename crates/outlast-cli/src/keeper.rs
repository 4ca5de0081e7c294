//! `outlast keeper`: the parent process of a worker's commands, started by `outlast worker`.

use crate::run_as;
use outlast_worker::keeper::{KeeperConfig, main};
use std::path::PathBuf;

/// Run a worker's commands, so that they outlive the worker. `outlast worker` starts this itself
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folder of the worker's tasks
    #[arg(long, value_name = "FOLDER")]
    root: PathBuf,
    /// User that tasks run as [default: the keeper's own]
    #[arg(long, value_name = "USER")]
    run_as: Option<String>,
}

/// Runs until there is nothing left to keep.
pub(crate) fn run(args: Args) -> anyhow::Result<u8> {
    // Each task that runs takes two.
    if let Err(error) = outlast_spawn::limits::raise_files() {
        tracing::warn!("cannot raise the limit of open files: {error}");
    }
    let mut config = KeeperConfig::new(args.root);
    config.exec.user = args.run_as.as_deref().map(run_as::user).transpose()?;
    config.exec.browser = vec![std::env::current_exe()?.into_os_string(), "browser".into()];
    main(config)?;
    Ok(0)
}
