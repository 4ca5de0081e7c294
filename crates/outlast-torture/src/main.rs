//! `outlast-torture`: real processes that run tasks with checkpoints while they are killed, stopped,
//! cut off and run out of disk; and the proof that nothing was lost.
//!
//! `world` has the processes, `plan` what is done to them, `specs` and `task` the work, `ledger`
//! what really happened, `watch` and `oracle` what must hold, `run` the course of it all. The
//! faults follow from the seed; what they meet does not.

mod api;
mod disk;
mod ledger;
mod oracle;
mod payload;
mod plan;
mod procs;
mod report;
mod run;
mod specs;
mod task;
mod watch;
mod world;

use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;

/// Torture Outlast, and see that it loses nothing.
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Subcommand)]
enum Command {
    #[command(hide = true)]
    Task(task::Args),
}

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The `outlast` program [default: beside this one]
    #[arg(long)]
    outlast: Option<PathBuf>,
    /// Duration of the faults
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Seed of faults and tasks [default: the time]
    #[arg(long)]
    seed: Option<u64>,
    /// Tasks [default: one in two seconds]
    #[arg(long)]
    tasks: Option<u32>,
    /// Workers, with four slots each
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    workers: u32,
    /// MiB of the first worker's own small disk, which is filled up; 0: none, and it needs root
    #[arg(long, default_value_t = 64)]
    disk: u32,
    /// Keep the folder with stores, logs and ledgers
    #[arg(long)]
    keep: bool,
    /// Keep all processes until Ctrl-C if something hangs at the end
    #[arg(long)]
    hold: bool,
    /// The report as JSON
    #[arg(long)]
    json: bool,
    /// Print the faults that follow from the seed, and end
    #[arg(long)]
    plan: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let code = match cli.command {
        Some(Command::Task(args)) => task::run(args),
        None => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
            match runtime {
                Ok(runtime) => runtime.block_on(run::run(cli.args)),
                Err(error) => Err(error.into()),
            }
        }
    };
    match code {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => {
            eprintln!("outlast-torture: {error:#}");
            ExitCode::FAILURE
        }
    }
}
