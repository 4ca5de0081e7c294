//! `outlast keeper`: the process that a worker's commands run under. Started by `outlast worker`.

use crate::run_as;
use outlast_worker::keeper::{KeeperConfig, main};
use std::path::PathBuf;

/// Run a worker's commands, so that they outlive it. `outlast worker` starts this itself.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The worker's folder of tasks
    #[arg(long, value_name = "FOLDER")]
    root: PathBuf,
    /// User whom tasks run as [default: the keeper's own]
    #[arg(long, value_name = "USER")]
    run_as: Option<String>,
}

/// Blocks until there is nothing to keep any more.
pub(crate) fn run(args: Args) -> anyhow::Result<u8> {
    // Each task that runs takes two.
    if let Err(error) = outlast_spawn::limits::raise_files() {
        tracing::warn!("the limit of open files stays as it is: {error}");
    }
    let mut config = KeeperConfig::new(args.root);
    config.exec.user = args.run_as.as_deref().map(run_as::user).transpose()?;
    config.exec.browser = vec![std::env::current_exe()?.into_os_string(), "browser".into()];
    main(config)?;
    Ok(0)
}
