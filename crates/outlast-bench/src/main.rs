//! `make bench`: the costs of durability. Coordinator and workers are processes of their own;
//! everything is synced on both sides, as always. Prints a table, and JSON with `--json FILE`.

mod adapt;
mod cases;
mod checkpoints;
mod figures;
mod fleet;
mod idle;
mod noops;
mod otlp;
mod page;
mod procs;
mod storm;

use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};

/// Measure the costs of durability, and print a table.
#[derive(Parser)]
#[command(after_help = "Examples:
  outlast-bench --json latest.json
  outlast-bench --only single")]
struct Cli {
    /// Write the figures to this file, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only this case
    #[arg(long, value_name = "CASE", value_parser = clap::builder::PossibleValuesParser::new(cases::ALL.iter().map(|(name, _)| *name)))]
    only: Option<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Compare adaptation with fixed settings over real links, in five minutes
    Adapt,
    /// Serve the dashboard of a fleet that is not there
    Fleet { workers: usize, seconds: u64 },
    #[command(hide = true)]
    Coordinator { addr: String, dir: String, otlp: Option<String> },
    #[command(hide = true)]
    Worker { url: String, dir: String, slots: String },
    #[command(hide = true)]
    Keeper { root: String },
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    match cli.command {
        Some(Command::Coordinator { addr, dir, otlp }) => {
            procs::coordinator(&addr, &dir, otlp.as_deref())
        }
        Some(Command::Worker { url, dir, slots }) => procs::worker(&url, &dir, &slots),
        Some(Command::Keeper { root }) => procs::keep(&root),
        Some(Command::Fleet { workers, seconds }) => page::run(workers, seconds),
        Some(Command::Adapt) => adapt::run(),
        None => bench(cli.json.as_deref(), cli.only.as_deref()),
    }
}

fn bench(json: Option<&Path>, only: Option<&str>) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let figures = runtime.block_on(async {
        let mut figures = Vec::new();
        for (name, case) in cases::ALL {
            if only.is_none_or(|only| only == *name) {
                eprintln!("{name} …");
                case(&mut figures).await?;
            }
        }
        anyhow::Ok(figures)
    })?;
    println!("| figure | value | target |\n|---|---|---|");
    for f in &figures {
        let digits = if f.value < 10.0 { 2 } else { 0 };
        println!("| {} | {:.digits$} {} | {} |", f.what, f.value, f.unit, f.target);
    }
    if let Some(file) = json {
        std::fs::write(file, serde_json::to_vec_pretty(&figures)?)?;
    }
    Ok(())
}
