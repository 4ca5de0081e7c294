//! `make fuzz`: tries every reader for a while.

use anyhow::{Context, bail};
use outlast_fuzz::{Report, fuzz, targets};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

const USAGE: &str = "outlast-fuzz [--seconds N] [--total N] [--seed N] [--target NAME] [--list]

  --seconds N    for each target [default: 60]
  --total N      for all of them together
  --seed N       of all chance [default: 1]
  --target NAME  only this one";

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("outlast-fuzz: {error:#}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// Returns whether all is well.
fn run() -> anyhow::Result<bool> {
    let mut targets = targets::all();
    let (mut seconds, mut total, mut seed) = (60.0, None, 1);
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        if flag == "--list" {
            targets.iter().for_each(|target| println!("{:16}{}", target.name, target.what));
            return Ok(true);
        }
        let value = args.next().with_context(|| format!("{flag} lacks its value"))?;
        match flag.as_str() {
            "--seconds" => seconds = value.parse()?,
            "--total" => total = Some(value.parse::<f64>()?),
            "--seed" => seed = value.parse()?,
            "--target" => {
                targets.retain(|target| target.name == value);
                if targets.is_empty() {
                    bail!("there is no target {value:?}; see --list");
                }
            }
            other => bail!("unknown option {other:?}"),
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
