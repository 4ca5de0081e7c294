//! `make fuzz`: tries every reader for a while.

use anyhow::{Context, bail};
use clap::Parser;
use outlast_fuzz::{Report, fuzz, targets};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// Feed malformed input to every reader of bytes from outside, and measure the memory that it takes.
#[derive(Parser)]
#[command(after_help = "Examples:
  outlast-fuzz --total 60
  outlast-fuzz --target frame --seconds 600 --seed 7")]
struct Args {
    /// Time for each target
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    seconds: f64,
    /// Time for all targets together
    #[arg(long, value_name = "SECONDS", conflicts_with = "seconds")]
    total: Option<f64>,
    /// Seed of all chance
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only this target
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// List the targets
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("outlast-fuzz: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Returns whether all is well.
fn run(args: Args) -> anyhow::Result<bool> {
    let Args { seconds, total, seed, target, list } = args;
    let mut targets = targets::all();
    if list {
        targets.iter().for_each(|target| println!("{:16}{}", target.name, target.what));
        return Ok(true);
    }
    if let Some(name) = target {
        targets.retain(|target| target.name == name);
        if targets.is_empty() {
            bail!("there is no target {name:?}; see --list");
        }
    }
    let each = total.map_or(seconds, |total| total / targets.len() as f64);
    let each = Duration::try_from_secs_f64(each).context("the time")?;
    // Panics are reported once they are caught.
    std::panic::set_hook(Box::new(|_| ()));
    println!(
        "{:16}{:>10}{:>8}{:>12}{:>12}{:>10}",
        "TARGET", "INPUTS", "KEPT", "PEAK", "BOUND", "SLOWEST"
    );
    let mut good = true;
    for target in &targets {
        let report = fuzz(target, seed, each);
        let Report { runs, kept, peak: (peak, bound), slowest, wrong } = report;
        let slowest = format!("{} ms", slowest.as_millis());
        println!("{:16}{runs:>10}{kept:>8}{peak:>12}{bound:>12}{slowest:>10}", target.name);
        if let Some((why, input)) = wrong {
            good = false;
            let mut hasher = DefaultHasher::new();
            input.hash(&mut hasher);
            let folder = Path::new("target/fuzz").join(target.name);
            std::fs::create_dir_all(&folder)?;
            let path = folder.join(format!("{:016x}", hasher.finish()));
            std::fs::write(&path, &input)?;
            println!("WRONG: {why}\n  the input is {}", path.display());
            println!("  once it is mended: mv it to crates/outlast-fuzz/corpus/{}/", target.name);
        }
    }
    Ok(good)
}
