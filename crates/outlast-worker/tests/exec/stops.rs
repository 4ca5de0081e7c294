//! Early ends of an attempt, which leave nothing behind.

use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};

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
    assert_eq!(outcome.kind, OutcomeKind::TimedOut);
    assert_eq!(outcome.message, "timed out after 0.7 s");
    assert!(!is_alive(near) && !is_alive(far));
    assert!(start.elapsed() >= Duration::from_millis(950));
}

#[test]
fn a_cancel_gives_the_task_its_grace() {
    let bench = Bench::new();
    let ready = bench.file("ready");
    let line = "trap 'echo bye; exit 0' TERM; echo $$ >READY; while :; do sleep 0.01; done";
    let running = bench.start("task", shell(&line.replace("READY", ready.to_str().unwrap())));
    pid_in(&ready);
    until("its start to be noted", || running.handle.started_at_ms());
    running.handle.stop(StopKind::Cancel);
    let outcome = running.wait();
    assert_eq!(outcome.kind, OutcomeKind::Cancelled);
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
    assert_eq!(outcome.kind, OutcomeKind::Succeeded);
    until_dead(pid_in(&left));
    let daemon = pid_in(&daemon);
    assert!(is_alive(daemon));
    // What a daemon still writes must not turn up in the log of another task.
    let other = bench.start("other", shell("sleep 1.3")).wait();
    assert_eq!((other.stdout_bytes, other.kind), (0, OutcomeKind::Succeeded));
    bench.executor.shutdown(StopKind::Interrupt);
    assert!(!is_alive(daemon));
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
        let kind = outcome.kind;
        if outcome.epoch % 2 == 1 {
            assert_ne!(kind, OutcomeKind::Succeeded);
        }
        assert_ne!(kind, OutcomeKind::Failed, "{outcome:?}");
        if kind == OutcomeKind::Returned {
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
    assert_eq!(outcome.kind, OutcomeKind::Succeeded);
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
    assert_eq!(outcome.kind, OutcomeKind::Interrupted);
    assert_eq!(outcome.message, "the worker was stopped");
    assert_eq!(bench.run(command(&["true"])).kind, OutcomeKind::Returned);
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
    assert_eq!(running.wait().kind, OutcomeKind::Interrupted);
}

#[test]
fn what_a_killed_worker_left_running_is_ended_by_the_next() {
    // Run again by itself, this test is the worker that is killed.
    if let Some(root) = std::env::var_os("OUTLAST_TEST_ROOT") {
        let executor = Executor::new(Config::new(&root)).unwrap();
        let line = "(setsid sh -c 'echo $$ >FAR; sleep 60' &); \
                    (env -i setsid sh -c 'echo $$ >CLEAN; exec /bin/sleep 60' &); \
                    echo $$ >NEAR; sleep 60; true";
        let file = |name| Path::new(&root).join(name).to_str().unwrap().to_owned();
        let line = line.replace("FAR", &file("far")).replace("NEAR", &file("near"));
        let line = line.replace("CLEAN", &file("clean"));
        executor.start("task", 1, Arc::new(shell(&line)), "w", |_| {});
        std::thread::sleep(PATIENCE);
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let mut worker = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "stops::what_a_killed_worker_left_running_is_ended_by_the_next"])
        .env("OUTLAST_TEST_ROOT", root.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let left = ["near", "far", "clean"].map(|name| pid_in(&root.path().join(name)));
    worker.kill().unwrap();
    worker.wait().unwrap();
    assert!(left.iter().all(|&pid| is_alive(pid)));
    let executor = Executor::new(Config::new(root.path())).unwrap();
    assert!(executor.killed_at_start() >= 3, "{}", executor.killed_at_start());
    assert!(!left.iter().any(|&pid| is_alive(pid)));
}

/// Starts a task that leaves a process behind that nothing of its own leads to: no parent, no group,
/// no session, no environment; returns its id.
fn with_a_runaway(
    bench: &Bench,
    task: &str,
    then: &str,
    change: impl FnOnce(&mut TaskSpec),
) -> (Running, i32) {
    let pid = bench.file(&format!("{task}.pid"));
    let line = format!(
        "( env -i setsid sh -c 'exec >/dev/null 2>&1; echo $$ >{0}; exec /bin/sleep 999' & ); {then}",
        pid.display()
    );
    let mut spec = shell(&line);
    change(&mut spec);
    let running = bench.start(task, spec);
    (running, pid_in(&pid))
}

#[test]
fn what_cleaned_its_environment_ends_with_its_own_task_and_no_other() {
    let bench = Bench::new();
    let wait = "while :; do sleep 0.05; done";
    let (first, far) = with_a_runaway(&bench, "first", wait, |_| {});
    let (second, other) = with_a_runaway(&bench, "second", wait, |_| {});
    let (third, late) = with_a_runaway(&bench, "third", wait, |spec| spec.timeout = Some(2.0));
    assert!([far, other, late].into_iter().all(is_alive));
    first.handle.stop(StopKind::Cancel);
    assert_eq!(first.wait().kind, OutcomeKind::Cancelled);
    assert!(!is_alive(far) && is_alive(other));
    assert_eq!(third.wait().kind, OutcomeKind::TimedOut);
    assert!(!is_alive(late) && is_alive(other));
    // Paused and resumed with its task, too.
    second.handle.pause();
    let state = || fs::read_to_string(format!("/proc/{other}/stat")).unwrap_or_default();
    until("it to be paused", || state().contains(") T ").then_some(()));
    second.handle.resume();
    until("it to go on", || state().contains(") S ").then_some(()));
    second.handle.stop(StopKind::Interrupt);
    second.wait();
    assert!(!is_alive(other));
    // What a task that ended by itself leaves may outlive it, but not the executor.
    let until_it_runs =
        format!("while ! [ -e {} ]; do sleep 0.01; done", bench.file("ended.pid").display());
    let (ended, daemon) = with_a_runaway(&bench, "ended", &until_it_runs, |_| {});
    assert_eq!(ended.wait().kind, OutcomeKind::Succeeded);
    assert!(is_alive(daemon));
    bench.executor.shutdown(StopKind::Interrupt);
    assert!(!is_alive(daemon));
}
