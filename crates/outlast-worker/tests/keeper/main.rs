//! The keeper with real processes: what outlives an agent, what a dead keeper leaves. The order
//! and the number of what runs are in `queue`.

#[path = "../common/mod.rs"]
mod common;
mod output;
mod queue;

use common::{PATIENCE, is_alive, pid_in, shell, until};
use outlast_core::AttemptId;
use outlast_model::{Cause, OutcomeKind, TaskOutcome};
use outlast_wire::{Run, TaskSpec};
use outlast_worker::exec::{Signal, StopKind};
use outlast_worker::keeper::{self, Keeper, KeeperConfig, KeeperError, KeeperLaunch};
use outlast_worker::runner::{Event, Held, Start};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// Run again by itself, this is the keeper's process.
#[test]
fn keeper_process() {
    let Some(root) = std::env::var_os("OUTLAST_TEST_KEEPER") else { return };
    let linger = std::env::var("OUTLAST_TEST_LINGER").unwrap().parse().unwrap();
    let mut config = KeeperConfig::new(root);
    config.linger = Duration::from_millis(linger);
    keeper::main(config).unwrap();
}

fn launch(root: &Path, linger: u64) -> KeeperLaunch {
    let mut variable = OsString::from("OUTLAST_TEST_KEEPER=");
    variable.push(root);
    let exe = std::env::current_exe().unwrap();
    let mut args = vec![variable, format!("OUTLAST_TEST_LINGER={linger}").into(), exe.into()];
    args.extend(["--exact", "keeper_process", "--nocapture"].map(Into::into));
    KeeperLaunch { program: "/usr/bin/env".into(), args, user: None }
}

/// An agent: its attempts at a keeper, and the events that it received. Dropping it is like a crash.
struct Agent {
    keeper: Keeper,
    events: mpsc::Receiver<Event>,
    held: Held,
}

/// Ends the keeper of a folder with the test.
struct Place(tempfile::TempDir, PathBuf);

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("tasks");
        Place(folder, root)
    }

    fn agent(&self, slots: u32) -> Agent {
        self.agent_with(slots, 60_000)
    }

    fn agent_with(&self, slots: u32, linger: u64) -> Agent {
        let env = vec![("EXTRA".to_owned(), "of the worker".to_owned())];
        let launch = launch(&self.1, linger);
        let (keeper, held) = Keeper::connect(&self.1, launch, slots, env).unwrap();
        let (send, events) = mpsc::channel();
        keeper.listen(Box::new(move |told| {
            told.into_iter().for_each(|event| drop(send.send(event)));
        }));
        Agent { keeper, events, held }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A shell line with `@name` for files of this place.
    fn line(&self, line: &str) -> TaskSpec {
        shell(&line.replace('@', &format!("{}/", self.0.path().display())))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Ok((keeper, _)) = Keeper::connect(&self.1, launch(&self.1, 0), 1, Vec::new()) {
            keeper.listen(Box::new(drop));
            keeper.shutdown(StopKind::Interrupt);
        }
    }
}

impl Agent {
    fn start(&self, task: &str, spec: TaskSpec) -> AttemptId {
        let start = start(task, spec);
        let id = start.id.clone();
        self.keeper.start(vec![start]);
        id
    }

    fn next(&self) -> Event {
        self.events.recv_timeout(PATIENCE).expect("an event")
    }

    fn finished(&self) -> TaskOutcome {
        loop {
            match self.next() {
                Event::Finished(ended) => return ended,
                Event::Died(reason) => panic!("{reason}"),
                _ => {}
            }
        }
    }

    fn until(&self, wanted: Event) {
        while self.next() != wanted {}
    }
}

fn id(task: &str) -> AttemptId {
    AttemptId { task: task.into(), epoch: 1 }
}

fn start(task: &str, spec: TaskSpec) -> Start {
    Start { id: id(task), spec: Arc::new(spec), worker: "w1".into(), env: Vec::new() }
}

fn kill(pid: u32, signal: &str) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

fn tasks(finished: &[TaskOutcome]) -> Vec<&str> {
    let mut tasks: Vec<_> = finished.iter().map(|o| &*o.task).collect();
    tasks.sort_unstable();
    tasks
}

#[test]
fn tasks_outlive_a_dropped_agent_and_outcomes_come_until_they_are_forgotten() {
    let place = Place::new();
    let agent = place.agent(4);
    assert_eq!(agent.held, Held::default());
    let line = "echo $$ >@pid; while ! [ -e @go ]; do sleep 0.05; done; echo done; exit 7";
    let long = agent.start("long", place.line(line));
    let told = agent.start("told", shell("echo $EXTRA"));
    let outcome = agent.finished();
    assert_eq!((&*outcome.task, outcome.cause), ("told", Cause::Done));
    assert_eq!(&outcome.stdout_tail[..], b"of the worker\n");
    assert!(matches!(agent.next(), Event::Started { id, .. } if id == long));
    agent.start("meanwhile", place.line("sleep 0.3; echo >@meanwhile"));
    let pid = pid_in(&place.file("pid"));
    let keeper = agent.keeper.pid();
    drop(agent);
    let agent = until("a task to end without an agent", || {
        std::thread::sleep(Duration::from_millis(100));
        let agent = place.agent(4);
        assert_eq!(agent.keeper.pid(), keeper);
        (agent.held.running.len() == 1).then_some(agent)
    });
    let [held] = &agent.held.running.clone()[..] else { panic!("{:?}", agent.held) };
    assert!(held.id == long && held.started_at_ms.is_some() && !held.paused);
    assert_eq!(tasks(&agent.held.finished), ["meanwhile", "told"]);
    assert!(is_alive(pid));
    agent.keeper.forget(&[told, id("meanwhile")]);
    // What is started twice runs once.
    agent.start("long", shell("echo twice"));
    drop(agent);

    let agent = place.agent(4);
    assert!(agent.held.finished.is_empty(), "{:?}", agent.held);
    fs::write(place.file("go"), "").unwrap();
    let outcome = agent.finished();
    assert_eq!((&*outcome.task, outcome.exit_code, outcome.cause), ("long", Some(7), Cause::Exit));
    assert_eq!(&outcome.stdout_tail[..], b"done\n");
    assert_eq!(Some(outcome.started_at_ms), held.started_at_ms);
    assert!(outcome.max_rss_bytes > 0);
    assert!(agent.events.recv_timeout(Duration::from_millis(100)).is_err());
}

#[test]
fn a_killed_agents_tasks_are_taken_over_by_the_next() {
    // Run again by itself, this test is the agent that is killed.
    if let Some(folder) = std::env::var_os("OUTLAST_TEST_AGENT") {
        let root = Path::new(&folder).join("tasks");
        let (keeper, _) = Keeper::connect(&root, launch(&root, 60_000), 2, Vec::new()).unwrap();
        let told = Path::new(&folder).join("told");
        keeper.listen(Box::new(move |events| {
            let finished = |event: &Event| matches!(event, Event::Finished(_));
            if events.iter().any(finished) {
                fs::write(&told, "").unwrap();
            }
        }));
        let line = "cd @; echo $$ >pid; while ! [ -e go ]; do sleep 0.02; done; echo over";
        let line = line.replace('@', folder.to_str().unwrap());
        let starts = vec![start("long", shell(&line)), start("short", shell("true"))];
        keeper.start(starts);
        std::thread::sleep(PATIENCE);
        return;
    }
    let place = Place::new();
    let mut agent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_killed_agents_tasks_are_taken_over_by_the_next"])
        .env("OUTLAST_TEST_AGENT", place.0.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let pid = pid_in(&place.file("pid"));
    until("the short one", || fs::metadata(place.file("told")).ok());
    agent.kill().unwrap();
    agent.wait().unwrap();
    let agent = place.agent(2);
    assert_eq!(agent.held.running.len(), 1, "{:?}", agent.held);
    assert_eq!(tasks(&agent.held.finished), ["short"]);
    assert!(is_alive(pid));
    fs::write(place.file("go"), "").unwrap();
    let outcome = agent.finished();
    assert_eq!((&*outcome.task, &outcome.stdout_tail[..]), ("long", &b"over\n"[..]));
}

#[test]
fn when_the_keeper_is_killed_its_tasks_are_ended_and_told_and_another_takes_over() {
    let place = Place::new();
    let agent = place.agent(2);
    agent.start("near", place.line("echo $$ >@near; sleep 60"));
    agent.start("far", place.line("setsid sh -c 'echo $$ >@far; exec sleep 60' & wait"));
    agent.start("staged", shell("true"));
    let pids = ["near", "far"].map(|name| pid_in(&place.file(name)));
    let former = agent.keeper.pid();
    kill(former, "-KILL");
    let reason = loop {
        match agent.next() {
            Event::Died(reason) => break reason,
            Event::Started { .. } => {}
            event => panic!("{event:?}"),
        }
    };
    assert!(reason.contains("killed by signal 9 (SIGKILL)"), "{reason}");
    let ended: Vec<TaskOutcome> = (0..3).map(|_| agent.finished()).collect();
    assert_eq!(tasks(&ended), ["far", "near", "staged"]);
    for outcome in ended {
        // What waited behind them had no part in it, and is none of its losses.
        let (kind, why) = match &*outcome.task {
            "staged" => (OutcomeKind::Returned, Cause::NotStarted),
            _ => (OutcomeKind::Interrupted, Cause::WorkerCrashed),
        };
        assert_eq!((outcome.kind, outcome.cause), (kind, why), "{}", outcome.task);
        assert_eq!(outcome.message, reason);
    }
    assert!(!pids.iter().any(|&pid| is_alive(pid)));
    assert_ne!(agent.keeper.pid(), former);
    agent.start("after", shell("true"));
    assert_eq!(agent.finished().kind, OutcomeKind::Succeeded);
}

#[test]
fn outcomes_outlive_keeper_and_agent() {
    let place = Place::new();
    let agent = place.agent(2);
    agent.start("a", shell("sleep 0.2; exit 3"));
    agent.start("b", place.line("echo $$ >@b; exec sleep 60"));
    let (keeper, pid) = (agent.keeper.pid(), pid_in(&place.file("b")));
    drop(agent);
    until("a to be on disk", || {
        let spool = fs::read(place.1.join("keeper/spool")).unwrap();
        spool.windows(9).any(|part| part == b"exit code").then_some(())
    });
    kill(keeper, "-KILL");
    let agent = place.agent(2);
    assert_eq!(agent.held.swept, 1, "{:?}", agent.held);
    assert!(!is_alive(pid) && agent.held.running.is_empty());
    assert_eq!(tasks(&agent.held.finished), ["a"]);
    assert_eq!(agent.held.finished[0].exit_code, Some(3));
}

#[test]
fn a_keeper_with_nothing_to_do_ends_and_one_without_an_agent_ends_on_sigterm() {
    let place = Place::new();
    let agent = place.agent_with(2, 300);
    agent.start("a", shell("exit 4"));
    agent.finished();
    let first = agent.keeper.pid() as i32;
    // While an agent is there, it stays, whatever the time, and whatever signals it is sent.
    ["-TERM", "-INT", "-HUP", "-USR1", "-USR2"]
        .iter()
        .for_each(|signal| kill(first as u32, signal));
    std::thread::sleep(Duration::from_millis(1500));
    assert!(is_alive(first));
    drop(agent);
    until("the keeper to end", || (!is_alive(first)).then_some(()));
    let agent = place.agent(2);
    assert_eq!(agent.held.finished[0].exit_code, Some(4));
    agent.start("b", place.line("echo $$ >@b; exec sleep 60"));
    let (second, task) = (agent.keeper.pid(), pid_in(&place.file("b")));
    drop(agent);
    kill(second, "-TERM");
    until("the keeper to end", || (!is_alive(second as i32)).then_some(()));
    assert!(!is_alive(task));
    let agent = place.agent(2);
    assert_eq!(tasks(&agent.held.finished), ["a", "b"]);
    let b = agent.held.finished.iter().find(|o| *o.task == *"b").unwrap();
    assert_eq!((b.kind, b.cause), (OutcomeKind::Interrupted, Cause::Stopped));
}

#[test]
fn a_shutdown_tells_every_outcome_and_leaves_nothing() {
    let place = Place::new();
    let agent = place.agent(1);
    agent.start("runs", place.line("echo $$ >@pid; exec sleep 60"));
    agent.start("waits", shell("true"));
    let (keeper, task) = (agent.keeper.pid(), pid_in(&place.file("pid")));
    agent.keeper.shutdown(StopKind::Interrupt);
    assert!(!is_alive(task) && !is_alive(keeper as i32));
    let kinds = [agent.finished(), agent.finished()].map(|o| (o.task.to_string(), o.kind));
    let (waits, runs) = (OutcomeKind::Returned, OutcomeKind::Interrupted);
    assert_eq!(kinds, [("waits".to_owned(), waits), ("runs".to_owned(), runs)]);
}

#[test]
fn pauses_signals_and_stops_reach_tasks() {
    let place = Place::new();
    let agent = place.agent(2);
    let line =
        "trap 'echo >@usr1' USR1; echo $$ >@pid; while :; do echo >>@grows; sleep 0.01; done";
    let mut spec = place.line(line);
    spec.kill_grace = 60.0;
    let task = agent.start("task", spec);
    pid_in(&place.file("pid"));
    while !matches!(agent.next(), Event::Started { .. }) {}
    agent.keeper.signal(&task, Signal::parse("USR1").unwrap());
    until("the signal", || fs::metadata(place.file("usr1")).ok());
    agent.keeper.pause(&task);
    agent.until(Event::Paused(task.clone()));
    let size = || fs::metadata(place.file("grows")).unwrap().len();
    let before = size();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(size(), before);
    drop(agent);
    let agent = place.agent(2);
    assert!(agent.held.running[0].paused);
    agent.keeper.resume(&task);
    agent.until(Event::Resumed(task.clone()));
    until("it to go on", || (size() > before).then_some(()));
    agent.keeper.pause(&task);
    agent.until(Event::Paused(task.clone()));
    let stopped = Instant::now();
    agent.keeper.stop(&task, StopKind::Cancel);
    assert_eq!(agent.finished().cause, Cause::Cancelled);
    assert!(stopped.elapsed() < Duration::from_secs(50));
}

#[test]
fn a_state_folder_may_have_a_long_name() {
    let mut place = Place::new();
    place.1 = place.0.path().join("x".repeat(100)).join("y".repeat(120)).join("tasks");
    let agent = place.agent(1);
    agent.start("task", shell("true"));
    assert_eq!(agent.finished().kind, OutcomeKind::Succeeded);
    drop(agent);
    assert_eq!(place.agent(1).held.finished.len(), 1);
}

#[test]
fn a_program_that_is_no_keeper_is_an_error_that_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let connect = |program: &str, args: &[&str]| {
        let args = args.iter().map(Into::into).collect();
        let launch = KeeperLaunch { program: program.into(), args, user: None };
        Keeper::connect(folder.path(), launch, 1, Vec::new()).err().expect("an error")
    };
    let error = connect("/no/such", &[]);
    assert!(matches!(error, KeeperError::Launch(..)), "{error}");
    let error = connect("/bin/sh", &["-c", "echo the reason >&2; exit 3"]).to_string();
    assert!(error.contains("exit code 3") && error.contains("the reason"), "{error}");
}

#[test]
fn what_dies_while_all_processes_are_told_to_end_was_interrupted() {
    let place = Place::new();
    let agent = place.agent(8);
    // A shell that dies, one that says so of its last command, and one that tidies up first.
    let lines = [
        ("dies", "echo $$ >@dies; sleep 60"),
        ("says", "echo $$ >@says; trap 'exit 143' TERM; while :; do sleep 0.05; done"),
        ("tidies", "echo $$ >@tidies; trap 'sleep 1; exit 1' TERM; while :; do sleep 0.05; done"),
        ("alone", "echo $$ >@alone; exec sleep 60"),
    ];
    lines.iter().for_each(|(name, line)| drop(agent.start(name, place.line(line))));
    let pids = lines.map(|(name, _)| pid_in(&place.file(name)) as u32);
    // One that is killed by itself has failed.
    kill(pids[3], "-TERM");
    let outcome = agent.finished();
    assert_eq!((outcome.kind, outcome.cause), (OutcomeKind::Failed, Cause::Signal));
    // The keeper is signalled last.
    pids[..3].iter().for_each(|&pid| kill(pid, "-TERM"));
    kill(agent.keeper.pid(), "-TERM");
    let ended: Vec<TaskOutcome> = (0..3).map(|_| agent.finished()).collect();
    assert_eq!(tasks(&ended), ["dies", "says", "tidies"]);
    for outcome in ended {
        let got = (outcome.kind, outcome.cause);
        assert_eq!(got, (OutcomeKind::Interrupted, Cause::Stopped), "{outcome:?}");
        assert!(outcome.message.starts_with("the worker's processes were told to end: "));
    }
}
