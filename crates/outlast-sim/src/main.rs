//! Runs seeds: `outlast-sim --seeds 1000`, `--seed 7 --trace`, `--planted`.

use clap::Parser;
use outlast_sim::compare::{Figures, LONG, Scene, play};
use outlast_sim::{Bug, Outcome, run};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Seeds within which a planted bug must be caught.
const PLANTED: u64 = 3000;

/// Run coordinator and workers in virtual time, with the faults that follow from a seed, and check what must hold.
#[derive(Parser)]
#[command(after_help = "Examples:
  outlast-sim --seeds 20000
  outlast-sim --seed 7 --trace
  outlast-sim --planted --only LyingDisk")]
struct Args {
    /// Number of seeds [default: 1000, and 10 with --adapt]
    #[arg(long, value_name = "N")]
    seeds: Option<u64>,
    /// First seed
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    start: u64,
    /// Time after which no more seeds begin
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
    /// Number of threads [default: one for each processor]
    #[arg(long, value_name = "N")]
    threads: Option<u64>,
    /// Number of seeds that may fail before the rest is left out
    #[arg(long, value_name = "N", default_value_t = 10)]
    stop_after: usize,
    /// Print the totals as JSON
    #[arg(long)]
    json: bool,
    /// Run this seed alone
    #[arg(long, conflicts_with_all = ["seeds", "planted", "adapt"])]
    seed: Option<u64>,
    /// Print what happens
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Check that each planted bug is caught
    #[arg(long)]
    planted: bool,
    /// Only this bug
    #[arg(long, value_name = "BUG", requires = "planted", value_parser = bug)]
    only: Option<Bug>,
    /// Compare adaptation to the link with fixed settings
    #[arg(long, conflicts_with = "planted")]
    adapt: bool,
}

fn bug(name: &str) -> Result<Bug, String> {
    let names = || Bug::ALL.map(|b| format!("{b:?}")).join(", ");
    let known = Bug::ALL.into_iter().find(|b| format!("{b:?}") == name);
    known.ok_or_else(|| format!("the planted bugs are: {}", names()))
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.planted {
        return planted(args.only);
    }
    if args.adapt {
        compare_settings(args.seeds.unwrap_or(10));
        return ExitCode::SUCCESS;
    }
    if let Some(seed) = args.seed {
        let outcome = run(seed, None, args.trace);
        return match outcome.wrong {
            Some(wrong) => {
                println!("seed {seed}: {wrong}");
                ExitCode::FAILURE
            }
            None => {
                println!("seed {seed}: well, hash {:016x}", outcome.hash);
                ExitCode::SUCCESS
            }
        };
    }
    many(&args)
}

#[derive(Default)]
struct Totals {
    seeds: u64,
    tasks: u64,
    events: u64,
    virtual_ms: u64,
    faults: BTreeMap<&'static str, u64>,
    failed: BTreeMap<u64, String>,
}

impl Totals {
    fn add(&mut self, seed: u64, outcome: Outcome) {
        self.seeds += 1;
        self.tasks += outcome.tasks;
        self.events += outcome.events;
        self.virtual_ms += outcome.virtual_ms;
        for (fault, count) in outcome.faults {
            *self.faults.entry(fault).or_default() += count;
        }
        if let Some(wrong) = outcome.wrong {
            self.failed.insert(seed, wrong);
        }
    }
}

fn many(args: &Args) -> ExitCode {
    let &Args { start, seconds, stop_after, json, .. } = args;
    let seeds = args.seeds.unwrap_or(1000);
    let cores = || std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let threads = args.threads.unwrap_or_else(cores);
    let time = seconds.map_or(Duration::MAX, Duration::from_secs);
    let (next, began) = (AtomicU64::new(start), Instant::now());
    let (totals, stop) = (Mutex::new(Totals::default()), AtomicBool::new(false));
    let work = || {
        while !stop.load(Ordering::Relaxed) && began.elapsed() < time {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= start + seeds {
                return;
            }
            let outcome = run(seed, None, false);
            let Ok(mut totals) = totals.lock() else { return };
            totals.add(seed, outcome);
            if totals.failed.len() >= stop_after {
                stop.store(true, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        (0..threads).for_each(|_| drop(scope.spawn(work)));
    });
    let totals = totals.into_inner().unwrap_or_default();
    let took = began.elapsed().as_secs_f64();
    let rate = totals.seeds as f64 / took;
    if json {
        println!(
            "{}",
            serde_json::json!({ "seeds": totals.seeds, "seeds_per_second": rate, "tasks": totals.tasks,
                "events": totals.events, "virtual_hours": totals.virtual_ms as f64 / 3.6e6,
                "faults": totals.faults, "failed": totals.failed })
        );
    } else {
        let hours = totals.virtual_ms as f64 / 3.6e6;
        println!(
            "{} seeds in {took:.1} s ({rate:.0}/s): {hours:.0} virtual hours, {} tasks, {} events",
            totals.seeds, totals.tasks, totals.events
        );
        for (fault, count) in &totals.faults {
            println!("  {count:>8} {fault}");
        }
        for (seed, wrong) in &totals.failed {
            println!("seed {seed}: {wrong}\n  replay: outlast-sim --seed {seed} --trace");
        }
    }
    if totals.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A table: adaptation beside fixed settings, from the same seeds.
fn compare_settings(seeds: u64) {
    let hours = seeds * LONG / 3_600_000;
    println!("Each row: {seeds} seeds, {hours} virtual hours; fixed settings → adaptation.\n");
    println!(
        "| link | false suspicions | until a dead link is noticed | bytes | slowest heartbeat | results | changes |"
    );
    println!("|---|---|---|---|---|---|---|");
    for scene in Scene::ALL {
        let mut sums = [Figures::default(); 2];
        for seed in 0..seeds {
            for (sum, adapts) in sums.iter_mut().zip([false, true]) {
                sum.add(play(scene, seed, adapts));
            }
        }
        let pair = |of: &dyn Fn(&Figures) -> String| format!("{} → {}", of(&sums[0]), of(&sums[1]));
        let noticed = |f: &Figures| match f.detections {
            (0, _) => "-".into(),
            (n, ms) => format!("{:.1} s", ms as f64 / f64::from(n) / 1e3),
        };
        println!(
            "| {} | {} | {} | {} | {} | {} | {} |",
            scene.title(),
            pair(&|f| f.false_suspicions.to_string()),
            pair(&noticed),
            pair(&|f| format!("{:.2} MB", f.bytes as f64 / 1e6)),
            pair(&|f| format!("{:.1} s", f.slowest_beat as f64 / 1e3)),
            pair(&|f| f.results.to_string()),
            sums[1].changes,
        );
    }
}

fn planted(only: Option<Bug>) -> ExitCode {
    let mut missed = false;
    for bug in Bug::ALL.into_iter().filter(|b| only.is_none_or(|o| o == *b)) {
        let caught = (0..PLANTED).find_map(|seed| Some((seed, run(seed, Some(bug), false).wrong?)));
        match caught {
            Some((seed, how)) => println!("{bug:?}: seed {seed}: {how}"),
            None => {
                println!("{bug:?}: NOT CAUGHT in {PLANTED} seeds");
                missed = true;
            }
        }
    }
    if missed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
