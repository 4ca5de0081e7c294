//! The options of a run.

use std::path::PathBuf;

/// The options.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The `outlast` program [default: beside this one]
    #[arg(long)]
    pub outlast: Option<PathBuf>,
    /// Duration of the faults
    #[arg(long, default_value_t = 600)]
    pub seconds: u64,
    /// Seed of faults and tasks [default: the time]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Tasks [default: one in two seconds]
    #[arg(long)]
    pub tasks: Option<u32>,
    /// Workers, with four slots each
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub workers: u32,
    /// MiB of the first worker's own small disk, which is filled up; 0: none, and it needs root
    #[arg(long, default_value_t = 64)]
    pub disk: u32,
    /// Keep the folder with stores, logs and ledgers
    #[arg(long)]
    pub keep: bool,
    /// Keep all processes until Ctrl-C if something hangs at the end
    #[arg(long)]
    pub hold: bool,
    /// The report as JSON
    #[arg(long)]
    pub json: bool,
    /// Print the faults that follow from the seed, and end
    #[arg(long)]
    pub plan: bool,
}
