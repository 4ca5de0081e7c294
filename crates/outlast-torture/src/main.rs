//! `outlast-torture`: real processes that run tasks with checkpoints while they are killed, stopped,
//! cut off and run out of disk; and the proof that nothing was lost.
//!
//! `world` has the processes, `plan` the faults, `specs` and `task` the work, `ledger` the facts,
//! `watch` and `oracle` what must hold, `run` the course of it all. The
//! faults follow from the seed; what they meet does not.

mod api;
mod args;
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

use args::Args;
use clap::Parser;
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
