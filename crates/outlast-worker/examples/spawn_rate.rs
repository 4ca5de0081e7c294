//! Compares the executor's rate of `/bin/true` tasks with that of bare spawning, taking turns so
//! that all see the same machine. `cargo run --release --example spawn_rate -- [rounds] [width]
//! [bare width]`, where the widths (default 4 and 2) are how many run at once.
//!
//! The executor is measured twice: with the next task started by the callback of the one that
//! ended, and by another thread that is told of the end through a channel.

use outlast_wire::v2::{OutcomeKind, TaskOutcome};
use outlast_wire::{Run, TaskSpec};
use outlast_worker::exec::{Config, Executor};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Instant;

const TASKS: usize = 1000;

fn bare(width: usize) {
    std::thread::scope(|scope| {
        for _ in 0..width {
            scope.spawn(|| {
                for _ in 0..TASKS / width {
                    let mut command = Command::new("/bin/true");
                    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                    assert!(command.spawn().unwrap().wait().unwrap().success());
                }
            });
        }
    });
}

fn start(
    executor: &Executor,
    round: u64,
    n: usize,
    done: impl FnOnce(TaskOutcome) + Send + 'static,
) {
    let spec = Arc::new(TaskSpec::new(Run::Command(vec!["/bin/true".to_owned()])));
    executor.start(&format!("task-{n}"), round, spec, "bench", |outcome| {
        assert_eq!(outcome.kind(), OutcomeKind::OutcomeSucceeded, "{}", outcome.message);
        done(outcome);
    });
}

/// What the callbacks of one round share; dropped by the last of them.
struct Round {
    executor: Arc<Executor>,
    number: u64,
    next: AtomicUsize,
    _end: mpsc::Sender<()>,
}

fn start_next(round: Arc<Round>) {
    let n = round.next.fetch_add(1, Ordering::Relaxed);
    if n < TASKS {
        let executor = Arc::clone(&round.executor);
        start(&executor, round.number, n, move |_| start_next(round));
    }
}

fn by_callback(executor: &Arc<Executor>, width: usize, number: u64) {
    let (end, ended) = mpsc::channel();
    let next = AtomicUsize::new(0);
    let round = Arc::new(Round { executor: Arc::clone(executor), number, next, _end: end });
    (0..width).for_each(|_| start_next(Arc::clone(&round)));
    drop(round);
    assert!(ended.recv().is_err());
}

fn by_channel(executor: &Executor, width: usize, round: u64) {
    let (done, outcomes) = mpsc::channel();
    for n in 0..TASKS + width {
        if n >= width {
            let _: TaskOutcome = outcomes.recv().unwrap();
        }
        let done = done.clone();
        if n < TASKS {
            start(executor, round, n, move |outcome| drop(done.send(outcome)));
        }
    }
}

/// The processor time of this process and its reaped children, in seconds.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace();
    fields.skip(11).take(4).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter_map(|a| a.parse().ok());
    let rounds = arguments.next().unwrap_or(10);
    let width = arguments.next().unwrap_or(4);
    let bare_width = arguments.next().unwrap_or(2);
    let root = tempfile::tempdir().unwrap();
    let executor = Arc::new(Executor::new(Config::new(root.path())).unwrap());
    let mut used = [0.0; 3];
    let mut measure = |which: usize, run: &dyn Fn()| {
        let (start, before) = (Instant::now(), cpu());
        run();
        used[which] += cpu() - before;
        TASKS as f64 / start.elapsed().as_secs_f64()
    };
    let mut ratios = [Vec::new(), Vec::new()];
    for round in 0..rounds as u64 {
        let bare = measure(0, &|| bare(bare_width));
        let callback = measure(1, &|| by_callback(&executor, width, 2 * round));
        let channel = measure(2, &|| by_channel(&executor, width, 2 * round + 1));
        println!("per second: bare {bare:.0}, callback {callback:.0}, channel {channel:.0}");
        ratios[0].push(callback / bare);
        ratios[1].push(channel / bare);
    }
    let [callback, channel] = ratios.map(|mut ratios| {
        ratios.sort_by(f64::total_cmp);
        ratios[ratios.len() / 2]
    });
    println!("median ratio to bare: callback {callback:.3}, channel {channel:.3}");
    let [bare, callback, channel] = used.map(|s| s * 1e6 / (rounds * TASKS) as f64);
    println!("processor us per task: bare {bare:.0}, callback {callback:.0}, channel {channel:.0}");
}
