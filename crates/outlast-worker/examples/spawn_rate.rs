//! Compares the executor's rate of `/bin/true` tasks with that of bare spawning, taking turns so
//! that all see the same machine. `cargo run --release --example spawn_rate -- [rounds] [width]
//! [bare width] [staged]`, where the widths (default 4 and 2) are how many run at once.
//!
//! The executor is measured three times: with the next task started by the callback of the one
//! that ended; by another thread that a channel notifies of the end; and in a keeper's
//! process, which is given `staged` (default 16) tasks more than run at once.

use outlast_core::AttemptId;
use outlast_model::{OutcomeKind, TaskOutcome};
use outlast_wire::{Run, TaskSpec};
use outlast_worker::exec::{Config, Executor, StopKind};
use outlast_worker::keeper::{self, Keeper, KeeperConfig, KeeperLaunch};
use outlast_worker::runner::{Event, Start};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
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
        assert_eq!(outcome.kind, OutcomeKind::Succeeded, "{}", outcome.message);
        done(outcome);
    });
}

/// State shared by the callbacks of one round; dropped by the last of them.
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

/// An agent's side of a keeper: starts one more for each that ends, as many at once as end
/// together, and forgets those that ended as an agent does that has written them down.
struct Kept {
    keeper: Keeper,
    round: AtomicUsize,
    next: AtomicUsize,
    left: AtomicUsize,
    end: Mutex<mpsc::Sender<()>>,
    spec: Arc<TaskSpec>,
}

impl Kept {
    fn start(&self, count: usize) {
        let epoch = self.round.load(Ordering::Relaxed) as u64;
        let first = self.next.fetch_add(count, Ordering::Relaxed);
        let start = |n| {
            let id = AttemptId { task: format!("task-{n}").into(), epoch };
            let (spec, worker) = (Arc::clone(&self.spec), "bench".into());
            Start { id, spec, worker, env: Vec::new() }
        };
        let starts: Vec<Start> = (first..(first + count).min(TASKS)).map(start).collect();
        if !starts.is_empty() {
            self.keeper.start(starts);
        }
    }

    fn told(&self, events: Vec<Event>) {
        let mut over = Vec::new();
        for event in events {
            let Event::Finished(outcome) = event else { continue };
            assert_eq!(outcome.kind, OutcomeKind::Succeeded, "{}", outcome.message);
            over.push(AttemptId { task: outcome.task, epoch: outcome.epoch });
        }
        self.start(over.len());
        self.keeper.forget(&over);
        if self.left.fetch_sub(over.len(), Ordering::Relaxed) == over.len() {
            self.end.lock().unwrap().send(()).unwrap();
        }
    }

    fn run(&self, round: u64, at_once: usize, ended: &mpsc::Receiver<()>) {
        self.round.store(round as usize, Ordering::Relaxed);
        self.next.store(0, Ordering::Relaxed);
        self.left.store(TASKS, Ordering::Relaxed);
        self.start(at_once);
        ended.recv().unwrap();
    }
}

/// The processor time of a process and its reaped children, in seconds.
fn cpu(process: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace();
    fields.skip(11).take(4).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some("keeper") {
        let root = std::env::args_os().nth(2).unwrap();
        return keeper::main(KeeperConfig::new(root)).unwrap();
    }
    let mut arguments = std::env::args().skip(1).filter_map(|a| a.parse().ok());
    let rounds = arguments.next().unwrap_or(10);
    let width = arguments.next().unwrap_or(4);
    let bare_width = arguments.next().unwrap_or(2);
    let staged = arguments.next().unwrap_or(16);
    let root = tempfile::tempdir().unwrap();
    let executor = Arc::new(Executor::new(Config::new(root.path())).unwrap());
    let (end, ended) = mpsc::channel();
    let home = tempfile::tempdir().unwrap();
    let program = std::env::current_exe().unwrap();
    let launch =
        KeeperLaunch { program, args: vec!["keeper".into(), home.path().into()], user: None };
    let (keeper, _) = Keeper::connect(home.path(), launch, width as u32, Vec::new()).unwrap();
    let keeper_pid = keeper.pid().to_string();
    let kept = Arc::new(Kept {
        keeper,
        round: AtomicUsize::new(0),
        next: AtomicUsize::new(0),
        left: AtomicUsize::new(0),
        end: Mutex::new(end),
        spec: Arc::new(TaskSpec::new(Run::Command(vec!["/bin/true".to_owned()]))),
    });
    let told = Arc::clone(&kept);
    kept.keeper.listen(Box::new(move |events| told.told(events)));
    let mut used = [0.0; 4];
    let mut measure = |which: usize, run: &dyn Fn()| {
        let cpu = || cpu("self") + cpu(&keeper_pid);
        let (start, before) = (Instant::now(), cpu());
        run();
        used[which] += cpu() - before;
        TASKS as f64 / start.elapsed().as_secs_f64()
    };
    let mut ratios = [Vec::new(), Vec::new(), Vec::new()];
    for round in 0..rounds as u64 {
        let bare = measure(0, &|| bare(bare_width));
        let callback = measure(1, &|| by_callback(&executor, width, 2 * round));
        let channel = measure(2, &|| by_channel(&executor, width, 2 * round + 1));
        let keeper = measure(3, &|| kept.run(round, width + staged, &ended));
        println!(
            "per second: bare {bare:.0}, callback {callback:.0}, channel {channel:.0}, \
             keeper {keeper:.0}"
        );
        ratios[0].push(callback / bare);
        ratios[1].push(channel / bare);
        ratios[2].push(keeper / bare);
    }
    let [callback, channel, keeper] = ratios.map(|mut ratios| {
        ratios.sort_by(f64::total_cmp);
        ratios[ratios.len() / 2]
    });
    println!(
        "median ratio to bare: callback {callback:.3}, channel {channel:.3}, keeper {keeper:.3}"
    );
    let [bare, callback, channel, keeper] = used.map(|s| s * 1e6 / (rounds * TASKS) as f64);
    println!(
        "processor us per task: bare {bare:.0}, callback {callback:.0}, channel {channel:.0}, \
         keeper {keeper:.0}"
    );
    kept.keeper.shutdown(StopKind::Interrupt);
}
