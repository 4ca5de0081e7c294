//! Times at which a worker wakes, and for what.

use super::rules::{control, dialling, give, refuse};
use super::*;
use outlast_model::spec::OnLeaseExpired;

fn wake(w: &Worker) -> (Millis, Timer) {
    let Wake { at, why } = w.next_wake();
    (at, why)
}

/// Creates a worker on a link that beats so rarely that other timers come first.
fn quiet() -> Worker {
    let mut w = dialling(|c| c.heartbeat = HeartbeatConfig { interval: 100_000, timeout: 300_000 });
    welcome(&mut w, 0, 0);
    sync(&mut w, 0);
    assert_eq!(wake(&w), (100_000, Timer::Heartbeat));
    w
}

#[test]
fn a_link_is_dialled_kept_and_judged() {
    let mut w = dialling(|c| c.reconnect.max_attempts = 2);
    assert_eq!(wake(&w), (15_000, Timer::DialTimeout));
    w.on_unreachable(at(1), "nobody listens");
    let first = wake(&w);
    assert!(first.1 == Timer::Dial && (800..=1_201).contains(&first.0), "{first:?}");
    w.on_tick(at(first.0));
    welcome(&mut w, 1_300, 0);
    sync(&mut w, 1_300);
    assert_eq!(wake(&w), (6_300, Timer::Heartbeat));
    for beat in [6_300, 11_300] {
        w.on_tick(at(beat));
    }
    // Both are due; the link is judged before another heartbeat would be sent.
    assert_eq!(wake(&w), (16_300, Timer::Silence));
    w.on_tick(at(16_300));
    assert_eq!(wake(&w).1, Timer::Dial);
    for _ in 0..2 {
        w.on_tick(at(wake(&w).0));
        w.on_disconnected(at(wake(&w).0), "refused");
    }
    assert_eq!(wake(&w), (Millis::MAX, Timer::Never), "no further dial");
    // A dial that has not been answered and a long delay: the address is probed meanwhile.
    let mut w = dialling(|c| c.reconnect.initial_delay = 50_000);
    w.on_tick(at(15_000));
    let probe = wake(&w);
    assert!(probe.1 == Timer::Probe && (16_500..=17_500).contains(&probe.0), "{probe:?}");
    w.on_tick(at(probe.0));
    assert_eq!(wake(&w).1, Timer::Dial, "one probe at a time");
    let dial = wake(&w).0;
    w.on_tick(at(dial));
    refuse(&mut w, dial, RefusedCode::Busy, true, 7_000);
    assert_eq!(wake(&w), (dial + 7_000, Timer::Dial), "at its admission time");
}

#[test]
fn a_running_attempt_has_its_times() {
    let mut w = quiet();
    give(&mut w, 10, "a", false, |spec| {
        spec.checkpoint_interval = Some(20.0);
        spec.reconnect_window = 5.0;
        spec.on_lease_expired = OnLeaseExpired::Stop;
    });
    assert_eq!(wake(&w), (100_000, Timer::Heartbeat), "it has not started");
    sync(&mut w, 100);
    assert_eq!(wake(&w), (300, Timer::RecordStarts));
    w.on_tick(at(300));
    sync(&mut w, 300);
    assert_eq!(wake(&w), (20_100, Timer::Checkpoint));
    w.on_tick(at(20_100));
    assert_eq!(wake(&w), (40_100, Timer::Checkpoint));
    w.on_listens("a", 1);
    control(&mut w, 21_000, "a", ControlKind::Pause);
    assert_eq!(wake(&w), (31_000, Timer::Pause), "and no checkpoint is requested");
    checkpoint(&mut w, 22_000, "m");
    sync(&mut w, 22_000);
    assert_eq!(wake(&w), (100_000, Timer::Heartbeat), "it was paused with its checkpoint");
    w.on_disconnected(at(23_000), "cut");
    w.on_tick(at(wake(&w).0));
    assert_eq!(wake(&w), (28_000, Timer::Lease));
    w.on_tick(at(28_000));
    assert_eq!(wake(&w).1, Timer::DialTimeout, "a lease ends once");
}

#[test]
fn a_commit_and_states_of_a_narrow_link_are_waited_for() {
    let mut w = quiet();
    give(&mut w, 10, "a", true, |_| {});
    drain(&mut w);
    w.on_tick(at(1_000));
    assert_eq!(wake(&w), (11_000, Timer::Commit));
    w.on_persisted(at(2_000), w.journal.durable() + 1);
    assert_eq!(wake(&w), (100_000, Timer::Heartbeat));

    let mut w = quiet();
    give(&mut w, 10, "a", false, |_| {});
    sync(&mut w, 100);
    w.on_tick(at(300));
    sync(&mut w, 300);
    for now in [400, 500] {
        w.on_carried(at(now), 50_000, 1_000);
    }
    state(&mut w, 600, 1);
    sync(&mut w, 600);
    state(&mut w, 601, 2);
    sync(&mut w, 601);
    let (at, why) = wake(&w);
    assert!(why == Timer::States && (602..1_000).contains(&at), "{at} {why:?}");
}
