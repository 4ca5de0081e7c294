//! Attempts that wait in a keeper for slots.

use super::*;
use outlast_worker::exec::Config;
use outlast_worker::runner::Runner;

/// Runs tasks of several sizes with two slots, and checks that they run in order.
fn check_order(place: &Place, start_all: impl Fn(Vec<Start>), finished: impl Fn() -> String) {
    let step = |name: &str, slots: u32| {
        let mut spec = place.line(&format!("echo +{name} >>@log; sleep 0.1; echo -{name} >>@log"));
        spec.slots = slots;
        start(name, spec)
    };
    // `b` needs both slots, and `c` must not pass it; `d` needs more than there are.
    start_all(vec![step("a", 1), step("b", 2), step("c", 1), step("d", 9), step("e", 1)]);
    let order: Vec<String> = (0..5).map(|_| finished()).collect();
    assert_eq!(order, ["a", "b", "c", "d", "e"]);
    let log = fs::read_to_string(place.file("log")).unwrap();
    let log: Vec<&str> = log.lines().collect();
    assert_eq!(log, ["+a", "-a", "+b", "-b", "+c", "-c", "+d", "-d", "+e", "-e"]);
}

#[test]
fn attempts_run_in_order_as_slots_are_free() {
    let place = Place::new();
    let agent = place.agent(2);
    check_order(&place, |starts| agent.keeper.start(starts), || agent.finished().task.to_string());
}

#[test]
fn without_a_keeper_they_run_in_the_same_order_and_end_with_the_runner() {
    let place = Place::new();
    let (runner, held) = Runner::open(Config::new(&place.1), 2, None).unwrap();
    assert_eq!(held, Held::default());
    let (send, events) = mpsc::channel();
    runner.listen(Box::new(move |told| told.into_iter().for_each(|e| drop(send.send(e)))));
    let finished = || loop {
        if let Event::Finished(outcome) = events.recv_timeout(PATIENCE).unwrap() {
            return outcome;
        }
    };
    check_order(&place, |starts| runner.start(starts), || finished().task.to_string());
    let line = "echo $$ >@pid; exec sleep 60";
    runner.start(vec![start("runs", place.line(line)), start("fills", shell("sleep 60"))]);
    runner.start(vec![start("waits", shell("true"))]);
    let pid = pid_in(&place.file("pid"));
    drop(runner);
    assert!(!is_alive(pid));
    let first = finished();
    assert_eq!((&*first.task, first.kind), ("waits", OutcomeKind::Returned));
    assert!((0..2).all(|_| finished().kind == OutcomeKind::Interrupted));
}

#[test]
fn a_task_notices_nothing_of_the_keeper() {
    let place = Place::new();
    let agent = place.agent(1);
    agent.start("task", shell("cat; grep -E 'SigIgn|SigBlk' /proc/self/status; env"));
    let outcome = agent.finished();
    let output = String::from_utf8_lossy(&outcome.stdout_tail).into_owned();
    let masks = output.lines().filter(|line| line.starts_with("Sig"));
    for line in masks {
        let mask = u64::from_str_radix(line.rsplit('\t').next().unwrap(), 16).unwrap();
        // The C library keeps two real-time signals to itself.
        assert_eq!(mask & 0x7fff_ffff, 0, "{line}");
    }
    assert!(output.contains("SigIgn") && output.contains("OUTLAST_WORKER_ID=w1"), "{output}");
    assert!(!output.contains("OUTLAST_TEST"), "{output}");
}

#[test]
fn what_waits_can_be_taken_back_cancelled_and_held_up() {
    let place = Place::new();
    let agent = place.agent(1);
    agent.start("first", place.line("while ! [ -e @go ]; do sleep 0.02; done"));
    for name in ["recalled", "cancelled", "paused", "last"] {
        agent.start(name, place.line(&format!("echo {name} >>@ran")));
    }
    agent.keeper.pause(&id("paused"));
    agent.until(Event::Paused(id("paused")));
    // One that runs is not given back.
    ["first", "recalled"].iter().for_each(|name| agent.keeper.recall(&id(name)));
    let outcome = agent.finished();
    assert_eq!((&*outcome.task, outcome.cause), ("recalled", Cause::NotStarted));
    assert_eq!(outcome.kind, OutcomeKind::Returned);
    agent.keeper.stop(&id("cancelled"), StopKind::Cancel);
    let outcome = agent.finished();
    assert_eq!((&*outcome.task, outcome.cause), ("cancelled", Cause::Cancelled));
    fs::write(place.file("go"), "").unwrap();
    let order = [agent.finished().task.to_string(), agent.finished().task.to_string()];
    assert_eq!(order, ["first", "last"]);
    agent.keeper.resume(&id("paused"));
    assert_eq!(*agent.finished().task, *"paused");
    assert_eq!(fs::read_to_string(place.file("ran")).unwrap(), "last\npaused\n");
}

#[test]
fn two_thousand_tasks_have_two_thousand_outcomes() {
    let place = Place::new();
    let agent = place.agent(8);
    const TASKS: usize = 2000;
    for part in 0..20 {
        let task = |n| {
            let spec = TaskSpec::new(Run::Command(vec!["/bin/true".to_owned()]));
            start(&format!("t{n}"), spec)
        };
        agent.keeper.start((part * 100..(part + 1) * 100).map(task).collect());
    }
    let mut seen = std::collections::HashSet::new();
    for _ in 0..TASKS {
        let outcome = agent.finished();
        assert_eq!(outcome.kind, OutcomeKind::Succeeded, "{outcome:?}");
        agent.keeper.forget(&[id(&outcome.task)]);
        assert!(seen.insert(outcome.task));
    }
    assert!(agent.events.recv_timeout(Duration::from_millis(100)).is_err());
    drop(agent);
    assert_eq!(place.agent(1).held, Held::default());
}
