//! Runs seeds: `outlast-sim --seeds 1000`, `--seed 7 --trace`, `--planted`.

use outlast_sim::compare::{Figures, LONG, Scene, play};
use outlast_sim::{Bug, Outcome, run};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const USAGE: &str = "usage: outlast-sim [--seeds N] [--start S] [--seconds T] [--threads N] [--stop-after FAILURES] [--json]
       outlast-sim --seed S [--trace]
       outlast-sim --planted [--only BUG]
       outlast-sim --adapt [--seeds N]";

/// Seeds within which a planted bug must be caught.
const PLANTED: u64 = 3000;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let flag = |name: &str| args.iter().any(|a| a == name);
    let value = |name: &str| -> Option<u64> {
        let at = args.iter().position(|a| a == name)?;
        args.get(at + 1)?.parse().ok()
    };
    if flag("--help") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    if flag("--planted") {
        let at = args.iter().position(|a| a == "--only");
        return planted(at.and_then(|at| args.get(at + 1)));
    }
    if flag("--adapt") {
        compare_settings(value("--seeds").unwrap_or(10));
        return ExitCode::SUCCESS;
    }
    if let Some(seed) = value("--seed") {
        let outcome = run(seed, None, flag("--trace"));
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
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let bounds = Bounds {
        start: value("--start").unwrap_or(0),
        seeds: value("--seeds").unwrap_or(1000),
        seconds: value("--seconds").unwrap_or(u64::MAX / 2),
        threads: value("--threads").unwrap_or(threads),
        failures: value("--stop-after").unwrap_or(10) as usize,
    };
    many(&bounds, flag("--json"))
}

/// Size of a run.
struct Bounds {
    start: u64,
    seeds: u64,
    seconds: u64,
    threads: u64,
    /// Seeds that may fail before the rest is left out.
    failures: usize,
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

fn many(bounds: &Bounds, json: bool) -> ExitCode {
    let &Bounds { start, seeds, seconds, threads, failures } = bounds;
    let (next, began) = (AtomicU64::new(start), Instant::now());
    let (totals, stop) = (Mutex::new(Totals::default()), AtomicBool::new(false));
    let work = || {
        while !stop.load(Ordering::Relaxed) && began.elapsed() < Duration::from_secs(seconds) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= start + seeds {
                return;
            }
            let outcome = run(seed, None, false);
            let Ok(mut totals) = totals.lock() else { return };
            totals.add(seed, outcome);
            if totals.failed.len() >= failures {
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

fn planted(only: Option<&String>) -> ExitCode {
    let mut missed = false;
    for bug in Bug::ALL.into_iter().filter(|b| only.is_none_or(|n| format!("{b:?}") == *n)) {
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
