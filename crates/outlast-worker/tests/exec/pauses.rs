//! Pauses, signals, and what the worker adds to a task's surroundings.

use super::*;
use outlast_worker::exec::{Note, Signal};

/// An executor that passes on what it notes.
fn watched() -> (Bench, mpsc::Receiver<(String, Note)>) {
    let bench = Bench::new();
    let (send, notes) = mpsc::channel();
    bench.executor.set_watch(Box::new(move |task, _, note| {
        let _ = send.send((task.to_owned(), note));
    }));
    (bench, notes)
}

fn wait_for(notes: &mpsc::Receiver<(String, Note)>, wanted: Note) {
    while notes.recv_timeout(PATIENCE).expect("a note").1 != wanted {}
}

/// Clock ticks of processor time.
fn cpu(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = stat.rsplit(')').next().unwrap().split_ascii_whitespace();
    fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

#[test]
fn a_paused_tree_takes_no_time_and_a_cancel_ends_it() {
    let (bench, notes) = watched();
    let (near, far) = (bench.file("near"), bench.file("far"));
    let line = format!(
        "setsid sh -c 'echo $$ >{}; while :; do :; done' & echo $$ >{}; while :; do :; done",
        far.display(),
        near.display()
    );
    let mut spec = shell(&line);
    spec.kill_grace = 60.0;
    let running = bench.start("task", spec);
    let pids = [pid_in(&near), pid_in(&far)];
    wait_for_start(&running);
    running.handle.pause();
    wait_for(&notes, Note::Paused);
    let before = pids.map(cpu);
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(pids.map(cpu), before);
    running.handle.resume();
    wait_for(&notes, Note::Resumed);
    until("them to go on", || (0..2).all(|n| cpu(pids[n]) > before[n]).then_some(()));
    running.handle.pause();
    wait_for(&notes, Note::Paused);
    let stopped = Instant::now();
    running.handle.stop(StopKind::Cancel);
    assert_eq!(running.wait().kind, OutcomeKind::Cancelled);
    assert!(stopped.elapsed() < Duration::from_secs(50));
    assert!(!pids.into_iter().any(is_alive));
}

fn wait_for_start(running: &Running) {
    until("its start to be noted", || running.handle.started_at_ms());
}

#[test]
fn the_time_limit_waits_while_a_task_is_paused() {
    let (bench, notes) = watched();
    let mut spec = shell("sleep 60");
    spec.timeout = Some(0.6);
    let start = Instant::now();
    let running = bench.start("task", spec);
    wait_for_start(&running);
    running.handle.pause();
    wait_for(&notes, Note::Paused);
    std::thread::sleep(Duration::from_millis(1200));
    running.handle.resume();
    assert_eq!(running.wait().kind, OutcomeKind::TimedOut);
    assert!(start.elapsed() >= Duration::from_millis(1700));
}

#[test]
fn only_the_main_process_is_signalled_and_long_tasks_are_announced() {
    let (bench, notes) = watched();
    let ready = bench.file("ready");
    let line = format!(
        "sleep 60 & trap 'echo $!; kill -0 $! && echo alive; exit 5' USR1; echo $$ >{}; \
         while :; do sleep 0.01; done",
        ready.display()
    );
    let running = bench.start("task", shell(&line));
    pid_in(&ready);
    wait_for_start(&running);
    let started = running.handle.started_at_ms().unwrap();
    wait_for(&notes, Note::Started(started));
    assert!(running.handle.signal(Signal::parse("SIGUSR1").unwrap()));
    let outcome = running.wait();
    assert_eq!(outcome.exit_code, Some(5));
    assert!(text(&outcome.stdout_tail).ends_with("alive\n"), "{outcome:?}");
    assert!(!running.handle.signal(Signal::parse("USR1").unwrap()));
}

#[test]
fn the_workers_variables_are_over_those_of_the_spec() {
    let bench = Bench::with(|config| config.extra_env = vec![("A".into(), "worker".into())]);
    let mut spec = shell("echo $A $B");
    spec.env.insert("A".to_owned(), "spec".to_owned());
    spec.env.insert("B".to_owned(), "spec".to_owned());
    assert_eq!(text(&bench.run(spec.clone()).stdout_tail), "worker spec\n");
    bench.executor.set_extra_env(vec![("B".into(), "later".into())]);
    assert_eq!(text(&bench.run(spec).stdout_tail), "spec later\n");
}
