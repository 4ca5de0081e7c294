//! The executor with real processes: outcomes, surroundings, output. Stops are in `stops`, pauses in `pauses`.

#[path = "../common/mod.rs"]
mod common;
mod memory;
mod output;
mod pauses;
mod starts;
mod stops;
mod user;

use common::{PATIENCE, is_alive, pid_in, shell, until};
use outlast_model::{OutcomeKind, TaskOutcome};
use outlast_wire::spec::Call;
use outlast_wire::{Run, TaskSpec};
use outlast_worker::exec::logs::{self, Stream};
use outlast_worker::exec::{Config, Executor, Handle, OnOutputLimit, StopKind};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

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
    assert_eq!(outcome.kind, OutcomeKind::Succeeded, "{outcome:?}");
    assert_eq!((&*outcome.task, outcome.epoch, outcome.message.as_str()), ("task", 1, ""));
    assert_eq!((outcome.exit_code, outcome.signal), (Some(0), None));
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
    assert_eq!(outcome.kind, OutcomeKind::Failed);
    assert_eq!((outcome.exit_code, outcome.message.as_str()), (Some(3), "exit code 3"));
    let outcome = bench.run(shell("kill -9 $$"));
    assert_eq!((outcome.exit_code, outcome.signal), (None, Some(9)));
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
        assert_eq!(outcome.kind, OutcomeKind::Failed);
        assert!(outcome.message.starts_with(reason), "{}", outcome.message);
        assert_eq!((outcome.started_at_ms, outcome.exit_code), (0, None));
    }
    let outcome = bench.start("../escape", shell("true")).wait();
    assert_eq!(outcome.kind, OutcomeKind::Failed);
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
        assert_eq!(mask, 0, "{line}");
    }
}

#[test]
fn endless_output_is_cut_in_the_middle_and_its_end_kept() {
    let bench = Bench::with(|config| config.output_cap = 1 << 20);
    let outcome = bench.run(shell("seq 1 3000000"));
    assert_eq!(outcome.kind, OutcomeKind::Succeeded);
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
    // The second half is in segments, of which one is being filled.
    let lost = log.split("\n[outlast: ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    let kept = size - lost.parse::<u64>().unwrap();
    assert!((1 << 20..(1 << 20) + (33 << 10)).contains(&kept), "{kept}");
    let marker = format!("\n[outlast: {lost} bytes cut here]\n");
    assert_eq!(log.len() as u64, kept + marker.len() as u64);
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
    assert_eq!(outcome.kind, OutcomeKind::Failed);
    assert_eq!(outcome.message, "output limit: more than 1048576 bytes on stdout");
    let bench = Bench::with(|config| config.reserve_bytes = u64::MAX);
    let quiet = bench.start("quiet", command(&["sleep", "1"]));
    let outcome = bench.run(command(&["yes"]));
    assert!(outcome.message.starts_with("disk full: "), "{}", outcome.message);
    assert_eq!(quiet.wait().kind, OutcomeKind::Succeeded);
}

#[test]
fn a_root_has_one_executor_at_a_time() {
    let bench = Bench::new();
    let error = Executor::new(Config::new(bench.root.path())).err().expect("it is in use");
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    assert!(error.to_string().contains("another worker runs tasks in"), "{error}");
}

#[test]
fn memory_is_the_tasks_own_peak() {
    let bench = Bench::new();
    let outcome = bench.run(command(&["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"]));
    assert!((200 << 20..260 << 20).contains(&outcome.max_rss_bytes), "{outcome:?}");
    let outcome = bench.run(command(&["true"]));
    assert!(outcome.max_rss_bytes < 20 << 20, "{outcome:?}");
}
