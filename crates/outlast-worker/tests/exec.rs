//! The executor with real processes.

use outlast_wire::spec::Call;
use outlast_wire::v2::{OutcomeKind, TaskOutcome};
use outlast_wire::{Run, TaskSpec};
use outlast_worker::exec::logs::{self, Stream};
use outlast_worker::exec::{Config, Executor, Handle, OnOutputLimit, StopKind};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

struct Bench {
    executor: Executor,
    root: tempfile::TempDir,
}

struct Running {
    handle: Handle,
    outcome: mpsc::Receiver<TaskOutcome>,
}

impl Running {
    fn wait(&self) -> TaskOutcome {
        self.outcome.recv_timeout(PATIENCE).expect("an outcome")
    }
}

fn shell(line: &str) -> TaskSpec {
    TaskSpec::new(Run::Shell(line.to_owned()))
}

fn command(argv: &[&str]) -> TaskSpec {
    TaskSpec::new(Run::Command(argv.iter().map(|&a| a.to_owned()).collect()))
}

impl Bench {
    fn new() -> Bench {
        Bench::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Config)) -> Bench {
        let root = tempfile::tempdir().unwrap();
        let mut config = Config::new(root.path());
        change(&mut config);
        Bench { executor: Executor::new(config).unwrap(), root }
    }

    fn start(&self, task: &str, spec: TaskSpec) -> Running {
        let (send, outcome) = mpsc::channel();
        let handle =
            self.executor.start(task, 1, Arc::new(spec), "w1", move |o| send.send(o).unwrap());
        Running { handle, outcome }
    }

    fn run(&self, spec: TaskSpec) -> TaskOutcome {
        self.start("task", spec).wait()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }
}

fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The pid that a task wrote into a file.
fn pid_in(file: &Path) -> i32 {
    until("a pid", || fs::read_to_string(file).ok()?.strip_suffix('\n')?.parse().ok())
}

fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

fn until_dead(pid: i32) {
    until("a process to end", || (!is_alive(pid)).then_some(()));
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn success_carries_output_times_and_usage() {
    let bench = Bench::new();
    let outcome = bench
        .run(shell("echo out; echo err >&2; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"));
    assert_eq!(outcome.kind(), OutcomeKind::OutcomeSucceeded, "{outcome:?}");
    assert_eq!(
        (outcome.task_id.as_str(), outcome.epoch, outcome.message.as_str()),
        ("task", 1, "")
    );
    assert_eq!((outcome.has_exit_code, outcome.exit_code, outcome.signal), (true, 0, 0));
    assert_eq!((text(&outcome.stdout_tail), outcome.stdout_bytes), ("out\n".to_owned(), 4));
    assert_eq!((text(&outcome.stderr_tail), outcome.stderr_bytes), ("err\n".to_owned(), 4));
    assert!(outcome.started_at_ms > 1_600_000_000_000);
    assert!(outcome.finished_at_ms >= outcome.started_at_ms);
    let log = logs::read(bench.root.path(), "task", 1, Stream::Stdout, 1, 2).unwrap();
    assert_eq!((log.data, log.next_offset, log.end), (b"ut".to_vec(), 3, false));
}

#[test]
fn failures_say_why() {
    let bench = Bench::new();
    let outcome = bench.run(shell("exit 3"));
    assert_eq!(outcome.kind(), OutcomeKind::OutcomeFailed);
    assert_eq!((outcome.exit_code, outcome.message.as_str()), (3, "exit code 3"));
    let outcome = bench.run(shell("kill -9 $$"));
    assert_eq!((outcome.has_exit_code, outcome.signal), (false, 9));
    assert_eq!(outcome.message, "killed by signal 9 (SIGKILL)");
}

#[test]
fn what_cannot_be_started_fails_with_the_reason() {
    let bench = Bench::new();
    let plain = bench.file("plain");
    fs::write(&plain, "no program").unwrap();
    let plain = plain.to_str().unwrap();
    let mut nowhere = command(&["true"]);
    nowhere.cwd = Some("/no/such/folder".to_owned());
    let mut by_path = command(&["plain"]);
    by_path.env.insert("PATH".to_owned(), bench.root.path().to_str().unwrap().to_owned());
    let function = Call { function: "f".to_owned(), args: serde_json::Value::Null };
    for (spec, reason) in [
        (command(&["no-such-command"]), "command not found: no-such-command (looked in PATH: /"),
        (command(&["/no/such"]), "command not found: /no/such"),
        (command(&[plain]), "not executable: "),
        (by_path, "not executable: "),
        (command(&["/"]), "not executable: / is a directory"),
        (nowhere, "working directory /no/such/folder does not exist"),
        (TaskSpec::new(Run::Call(function)), "this worker has no function named \"f\""),
    ] {
        let outcome = bench.run(spec);
        assert_eq!(outcome.kind(), OutcomeKind::OutcomeFailed);
        assert!(outcome.message.starts_with(reason), "{}", outcome.message);
        assert_eq!((outcome.started_at_ms, outcome.has_exit_code), (0, false));
    }
    let outcome = bench.start("../escape", shell("true")).wait();
    assert_eq!(outcome.kind(), OutcomeKind::OutcomeFailed);
    assert!(outcome.message.starts_with("id: "), "{}", outcome.message);
}

#[test]
fn the_environment_is_scrubbed_and_the_attempt_named() {
    // Set by the harness below; a worker's key must not reach its tasks.
    if std::env::var_os("OUTLAST_API_KEY").is_none() {
        let test = "the_environment_is_scrubbed_and_the_attempt_named";
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test])
            .env("OUTLAST_API_KEY", "secret")
            .env("INHERITED", "yes")
            .stdout(std::process::Stdio::null())
            .status();
        assert!(status.unwrap().success());
        return;
    }
    let bench = Bench::new();
    let mut spec = command(&["env"]);
    spec.env.insert("OWN".to_owned(), "value".to_owned());
    let env = text(&bench.run(spec).stdout_tail);
    for line in [
        "INHERITED=yes",
        "OWN=value",
        "OUTLAST_TASK_ID=task",
        "OUTLAST_ATTEMPT=1",
        "OUTLAST_WORKER_ID=w1",
    ] {
        assert!(env.lines().any(|l| l == line), "{line} is not in\n{env}");
    }
    assert!(!env.contains("secret"));
}

#[test]
fn the_working_directory_is_the_specs_or_a_fresh_one_of_its_own() {
    let bench = Bench::new();
    let mut spec = command(&["pwd"]);
    spec.cwd = Some("/usr".to_owned());
    assert_eq!(text(&bench.run(spec).stdout_tail), "/usr\n");
    for n in 0..5 {
        let outcome = bench.start(&format!("t{n}"), shell("ls -A; pwd >file; pwd")).wait();
        let output = text(&outcome.stdout_tail);
        let folder = Path::new(output.trim_end());
        assert!(folder.starts_with(bench.executor.root()), "not empty: {output}");
        assert_eq!(fs::read_to_string(folder.join("file")).unwrap(), output);
        let link = bench.file(&format!("work/t{n}.1"));
        assert_eq!(link.canonicalize().unwrap(), folder.canonicalize().unwrap());
        // One that is left empty leaves nothing.
        bench.start(&format!("e{n}"), command(&["true"])).wait();
        assert!(!bench.file(&format!("work/e{n}.1")).exists());
    }
}

#[test]
fn standard_input_is_empty_and_signals_are_default() {
    let bench = Bench::new();
    let outcome = bench.run(shell("cat; grep -E 'SigIgn|SigBlk' /proc/self/status"));
    let output = text(&outcome.stdout_tail);
    assert_eq!(output.lines().count(), 2, "{output}");
    for line in output.lines() {
        let mask = u64::from_str_radix(line.rsplit('\t').next().unwrap(), 16).unwrap();
        // The C library keeps two real-time signals to itself; a task has no use for them.
        assert_eq!(mask & 0x7fff_ffff, 0, "{line}");
    }
}

#[test]
fn a_timeout_kills_the_whole_tree_even_what_left_the_group_and_ignores_sigterm() {
    let bench = Bench::new();
    let (near, far) = (bench.file("near"), bench.file("far"));
    let inner = format!("trap '' TERM; echo $$ >{}; while :; do sleep 1; done", far.display());
    let mut spec = shell(&format!(
        "setsid sh -c \"setsid sh -c '{}' &\" & echo $$ >{}; sleep 60",
        inner.replace('\'', "'\\''").replace('$', "\\$"),
        near.display()
    ));
    spec.timeout = Some(0.7);
    spec.kill_grace = 0.3;
    let start = Instant::now();
    let running = bench.start("task", spec);
    let (near, far) = (pid_in(&near), pid_in(&far));
    assert!(is_alive(near) && is_alive(far));
    let outcome = running.wait();
    assert_eq!(outcome.kind(), OutcomeKind::OutcomeTimedOut);
    assert_eq!(outcome.message, "timed out after 0.7 s");
    assert!(!is_alive(near) && !is_alive(far));
    assert!((Duration::from_millis(950)..Duration::from_secs(5)).contains(&start.elapsed()));
}

#[test]
fn a_cancel_gives_the_task_its_grace() {
    let bench = Bench::new();
    let ready = bench.file("ready");
    let line = "trap 'echo bye; exit 0' TERM; echo $$ >READY; while :; do sleep 0.01; done";
    let running = bench.start("task", shell(&line.replace("READY", ready.to_str().unwrap())));
    pid_in(&ready);
    assert!(running.handle.started_at_ms().is_some());
    running.handle.stop(StopKind::Cancel);
    let outcome = running.wait();
    assert_eq!(outcome.kind(), OutcomeKind::OutcomeCancelled);
    assert_eq!(
        (outcome.message.as_str(), text(&outcome.stdout_tail)),
        ("cancelled", "bye\n".into())
    );
}

#[test]
fn leftovers_of_the_group_end_with_the_task_and_daemons_with_the_executor() {
    let bench = Bench::new();
    let (left, daemon) = (bench.file("left"), bench.file("daemon"));
    let outcome = bench.run(shell(&format!(
        "sleep 60 & echo $! >{0}; setsid sh -c 'echo $$ >{1}; sleep 1; echo late; exec sleep 60' & \
         while ! [ -s {1} ]; do sleep 0.01; done",
        left.display(),
        daemon.display()
    )));
    assert_eq!(outcome.kind(), OutcomeKind::OutcomeSucceeded);
    until_dead(pid_in(&left));
    let daemon = pid_in(&daemon);
    assert!(is_alive(daemon));
    // What a daemon still writes must not turn up in the log of another task.
    let other = bench.start("other", shell("sleep 1.3")).wait();
    assert_eq!((other.stdout_bytes, other.kind()), (0, OutcomeKind::OutcomeSucceeded));
    bench.executor.shutdown(StopKind::Interrupt);
    assert!(!is_alive(daemon));
}

#[test]
fn endless_output_is_cut_in_the_middle_and_its_end_kept() {
    let bench = Bench::with(|config| config.output_cap = 1 << 20);
    let outcome = bench.run(shell("seq 1 3000000"));
    assert_eq!(outcome.kind(), OutcomeKind::OutcomeSucceeded);
    let size = (1..=3_000_000_u64).map(|n| n.ilog10() as u64 + 2).sum::<u64>();
    assert_eq!(outcome.stdout_bytes, size);
    let tail = text(&outcome.stdout_tail);
    assert!(tail.len() == 4096 && tail.ends_with("2999999\n3000000\n"));
    let mut log = Vec::new();
    let mut offset = 0;
    loop {
        let root = bench.root.path();
        let part = logs::read(root, "task", 1, Stream::Stdout, offset, 64 << 10).unwrap();
        log.extend(part.data);
        offset = part.next_offset;
        if part.end {
            break;
        }
    }
    let log = text(&log);
    assert!(log.starts_with("1\n2\n3\n") && log.ends_with("3000000\n"));
    let marker = format!("\n[outlast: {} bytes cut here]\n", size - (1 << 20));
    assert!(log.contains(&marker));
    assert_eq!(log.len(), (1 << 20) + marker.len());
    let disk = disk_of(&bench.file("logs"));
    assert!(disk < (1 << 20) + (64 << 10), "{disk} bytes of disk");
}

fn disk_of(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let files = fs::read_dir(folder).unwrap().flatten();
    files
        .map(|file| match file.metadata().unwrap() {
            meta if meta.is_dir() => disk_of(&file.path()),
            meta => meta.blocks() * 512,
        })
        .sum()
}

#[test]
fn a_task_that_takes_too_much_of_the_disk_is_killed() {
    let bench = Bench::with(|config| {
        config.output_cap = 1 << 20;
        config.on_output_limit = OnOutputLimit::Kill;
    });
    let outcome = bench.run(command(&["yes"]));
    assert_eq!(outcome.kind(), OutcomeKind::OutcomeFailed);
    assert_eq!(outcome.message, "output limit: more than 1048576 bytes on stdout");
    let bench = Bench::with(|config| config.reserve_bytes = u64::MAX);
    let quiet = bench.start("quiet", command(&["sleep", "1"]));
    let outcome = bench.run(command(&["yes"]));
    assert!(outcome.message.starts_with("disk full: "), "{}", outcome.message);
    assert_eq!(quiet.wait().kind(), OutcomeKind::OutcomeSucceeded);
}

#[test]
fn every_attempt_has_one_outcome_however_it_races_with_stops() {
    let bench = Bench::new();
    let calls = Arc::new(AtomicUsize::new(0));
    let (send, outcomes) = mpsc::channel();
    const ATTEMPTS: u64 = 200;
    for epoch in 0..ATTEMPTS {
        let spec = shell(if epoch % 2 == 0 { "true" } else { "exec sleep 30" });
        let (calls, send) = (Arc::clone(&calls), send.clone());
        let handle = bench.executor.start("race", epoch, Arc::new(spec), "w", move |outcome| {
            calls.fetch_add(1, Ordering::Relaxed);
            send.send(outcome).unwrap();
        });
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_micros(epoch * 37 % 3000));
            handle.stop(if epoch % 3 == 0 { StopKind::Cancel } else { StopKind::Interrupt });
            handle.stop(StopKind::Cancel);
        });
    }
    for _ in 0..ATTEMPTS {
        let outcome = outcomes.recv_timeout(PATIENCE).expect("an outcome");
        let kind = outcome.kind();
        if outcome.epoch % 2 == 1 {
            assert_ne!(kind, OutcomeKind::OutcomeSucceeded);
        }
        assert_ne!(kind, OutcomeKind::OutcomeFailed, "{outcome:?}");
        if kind == OutcomeKind::OutcomeReturned {
            assert_eq!(outcome.started_at_ms, 0);
        }
    }
    until("the last attempt to be forgotten", || (bench.executor.running() == 0).then_some(()));
    bench.executor.shutdown(StopKind::Cancel);
    assert_eq!(calls.load(Ordering::Relaxed), ATTEMPTS as usize);
}

#[test]
fn a_success_stays_one_when_the_stop_comes_late() {
    let bench = Bench::new();
    let running = bench.start("task", command(&["true"]));
    let outcome = running.wait();
    running.handle.stop(StopKind::Cancel);
    assert_eq!(outcome.kind(), OutcomeKind::OutcomeSucceeded);
    assert!(running.outcome.recv_timeout(Duration::from_millis(50)).is_err());
}

#[test]
fn shutdown_interrupts_what_runs_and_returns_what_comes_later() {
    let bench = Bench::new();
    let pid = bench.file("pid");
    let running = bench.start("task", shell(&format!("echo $$ >{}; sleep 60", pid.display())));
    let pid = pid_in(&pid);
    bench.executor.shutdown(StopKind::Interrupt);
    assert!(!is_alive(pid));
    let outcome = running.outcome.try_recv().expect("all outcomes are out");
    assert_eq!(outcome.kind(), OutcomeKind::OutcomeInterrupted);
    assert_eq!(outcome.message, "the worker was stopped");
    assert_eq!(bench.run(command(&["true"])).kind(), OutcomeKind::OutcomeReturned);
}

#[test]
fn dropping_the_executor_ends_its_tasks() {
    let bench = Bench::new();
    let pid = bench.file("pid");
    let line = format!("trap '' TERM; echo $$ >{}; while :; do sleep 1; done", pid.display());
    let running = bench.start("task", shell(&line));
    let pid = pid_in(&pid);
    drop(bench.executor);
    assert!(!is_alive(pid));
    assert_eq!(running.wait().kind(), OutcomeKind::OutcomeInterrupted);
}

#[test]
fn a_root_has_one_executor_at_a_time() {
    let bench = Bench::new();
    let error = Executor::new(Config::new(bench.root.path())).err().expect("it is in use");
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    assert!(error.to_string().contains("another worker runs tasks in"), "{error}");
}

#[test]
fn what_a_killed_worker_left_running_is_ended_by_the_next() {
    // Run again by itself, this test is the worker that is killed.
    if let Some(root) = std::env::var_os("OUTLAST_TEST_ROOT") {
        let executor = Executor::new(Config::new(&root)).unwrap();
        let line = "(setsid sh -c 'echo $$ >FAR; sleep 60' &); echo $$ >NEAR; sleep 60; true";
        let file = |name| Path::new(&root).join(name).to_str().unwrap().to_owned();
        let line = line.replace("FAR", &file("far")).replace("NEAR", &file("near"));
        executor.start("task", 1, Arc::new(shell(&line)), "w", |_| {});
        std::thread::sleep(PATIENCE);
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let mut worker = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "what_a_killed_worker_left_running_is_ended_by_the_next"])
        .env("OUTLAST_TEST_ROOT", root.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let left = ["near", "far"].map(|name| pid_in(&root.path().join(name)));
    worker.kill().unwrap();
    worker.wait().unwrap();
    assert!(left.iter().all(|&pid| is_alive(pid)));
    let executor = Executor::new(Config::new(root.path())).unwrap();
    assert!(executor.killed_at_start() >= 2, "{}", executor.killed_at_start());
    assert!(!left.iter().any(|&pid| is_alive(pid)));
}
