//! `outlast demo`: outages with real processes, and the proof that nothing was lost or run twice. `stage`
//! starts the processes; `outage`, `recovery`, `hardware` and `browser` are the scenarios, and
//! `dashboard` runs a fleet to watch.

/// Prints a line. A demo continues without a reader, and cleans up.
macro_rules! println {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = std::writeln!(std::io::stdout(), $($text)*);
    }};
}

mod browser;
mod dashboard;
mod hardware;
mod outage;
mod recovery;
mod stage;

use self::stage::{Report, Stage};
use crate::context::Context;
use crate::exit::Usage;
use crate::{args, output};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// Longest duration of a scenario, compressed and in real time.
const LIMIT: (Duration, Duration) = (Duration::from_secs(180), Duration::from_secs(900));
/// Longest duration of the dashboard demo.
const LONGEST: Duration = Duration::from_secs(3600);
/// Demonstrate two outages that lose no work, in about 90 seconds.
#[derive(clap::Args)]
#[command(
    after_help = "The first play: twenty commands, the link cut for 18 s, the coordinator killed meanwhile.
The second: one task of 1,000 steps with checkpoints, its link lost at step 875.
If asked for: a task that runs out of memory, and recovers with smaller batches; and one that
computes in a browser, which is killed.

Examples:
  outlast demo
  outlast demo --only hardware                  # needs python3
  outlast demo --only browser                   # needs chromium
  outlast demo --only recovery --real-time      # the whole 45 s of outage, default timeouts
  outlast demo --dashboard --time 10m           # a fleet with faults, to be watched in a browser"
)]
pub(crate) struct Args {
    /// Keep the folder with stores and logs
    #[arg(long)]
    keep: bool,
    /// Run one scenario: outage, recovery, hardware or browser [default: the first two]
    #[arg(long, value_parser = ["outage", "recovery", "hardware", "browser"], value_name = "PLAY")]
    only: Option<String>,
    /// Run the second scenario at full length: an outage of 45 s, with default timeouts
    #[arg(long)]
    real_time: bool,
    /// Run a fleet with faults instead, and print the address of its dashboard
    #[arg(long, conflicts_with_all = ["only", "real_time"])]
    dashboard: bool,
    /// Duration of the dashboard demo [default: 3m]
    #[arg(long, requires = "dashboard", value_parser = args::seconds, value_name = "TIME")]
    time: Option<f64>,
}

/// Runs a fleet to watch, until its time has passed or it is interrupted.
async fn watched(args: &Args) -> anyhow::Result<u8> {
    let time = Duration::try_from_secs_f64(args.time.unwrap_or(180.0));
    let time = time.ok().filter(|t| *t <= LONGEST);
    let time = time.ok_or_else(|| Usage(format!("--time must be at most {LONGEST:?}")))?;
    let dir = std::env::temp_dir().join(format!("outlast-demo-dashboard-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let stage = Stage { dir: dir.clone(), start: Instant::now(), quiet: false, real_time: false };
    let mut term = signal(SignalKind::terminate())?;
    let outcome = tokio::select! {
        outcome = dashboard::play(&stage, time) => outcome,
        _ = tokio::signal::ctrl_c() => Ok(()),
        _ = term.recv() => Ok(()),
    };
    if outcome.is_err() || args.keep {
        eprintln!("stores and logs are in {}", dir.display());
    } else {
        let _ = std::fs::remove_dir_all(&dir);
    }
    outcome.map(|()| 0)
}

pub(crate) async fn run(context: &Context, args: Args) -> anyhow::Result<u8> {
    if args.dashboard {
        return watched(&args).await;
    }
    let mut worst = 0;
    let mut reports = serde_json::Map::new();
    let plays = args.only.as_deref().map_or(vec!["outage", "recovery"], |only| vec![only]);
    for play in plays {
        let report = played(context, &args, play).await?;
        worst = worst.max(u8::from(!report.bad.is_empty()));
        reports.insert(play.into(), report.json);
    }
    if context.json() {
        output::json(&json!(reports))?;
    }
    Ok(worst)
}

async fn played(context: &Context, args: &Args, play: &str) -> anyhow::Result<Report> {
    let dir = std::env::temp_dir().join(format!("outlast-demo-{play}-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let (quiet, real_time) = (context.json(), args.real_time);
    let stage = Stage { dir: dir.clone(), start: Instant::now(), quiet, real_time };
    let limit = if real_time { LIMIT.1 } else { LIMIT.0 };
    let playing = async {
        match play {
            "outage" => outage::play(&stage).await,
            "hardware" => hardware::play(&stage).await,
            "browser" => browser::play(&stage).await,
            _ => recovery::play(&stage).await,
        }
    };
    let outcome = tokio::select! {
        outcome = tokio::time::timeout(limit, playing) => outcome,
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted; logs are in {}", dir.display()),
    };
    let report = match outcome {
        Ok(Ok(report)) => report,
        Ok(Err(error)) => return Err(error.context(format!("logs are in {}", dir.display()))),
        Err(_) => anyhow::bail!("not done after {limit:?}; logs are in {}", dir.display()),
    };
    let good = report.bad.is_empty();
    if !quiet {
        for bad in &report.bad {
            println!("WRONG: {bad}");
        }
        println!("{}\n", if good { report.good } else { "FAILED." });
    }
    if good && !args.keep {
        let _ = std::fs::remove_dir_all(&dir);
    } else {
        eprintln!("stores and logs are in {}", dir.display());
    }
    Ok(report)
}
