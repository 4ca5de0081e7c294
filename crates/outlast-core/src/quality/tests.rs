//! A worker's meter, second by second.

use super::Micros;
use super::meter::*;
use outlast_model::LinkCause;
use outlast_model::message::LinkReport;

const S: Micros = 1_000_000;

fn size(bytes: usize) -> Size {
    Size { bytes, ..Size::default() }
}

/// `count` seconds with a heartbeat each way every five.
fn run(m: &mut Meter, from: Micros, count: u64, rtt: Micros) -> Micros {
    for n in 1..=count {
        let now = from + n * S;
        if n % 5 == 0 {
            m.sent(now, 1, size(10), Beat::Beat(n / 5));
            m.received(now + rtt, 1, size(10), Beat::Reply(n / 5));
            m.received(now + rtt, 1, size(20), Beat::Beat(n / 5));
        }
    }
    from + count * S
}

#[test]
fn a_quiet_link_is_measured() {
    let mut m = Meter::new(0, 5_000);
    m.connected(S, 1, None);
    let now = run(&mut m, S, 100, 30_000) + S;
    let s = m.summary(now);
    let rtt = s.rtt.unwrap();
    assert_eq!((rtt.samples, rtt.median, rtt.jitter), (20, 30.0, 0.0));
    assert_eq!((s.returns.loss, s.totals.lost), (Some(0.0), 0));
    assert_eq!((s.returns.stability, s.returns.per_minute), (1.0, 0));
    assert!(s.now.suspicion.unwrap() < 1.0 && s.goodput.0 > s.goodput.1);
    assert!(m.summary(now + 20 * S).now.suspicion.unwrap() > 8.0, "silence is suspicious");
}

#[test]
fn a_worker_that_beats_less_often_is_not_suspected_for_it() {
    let mut m = Meter::new(0, 5_000);
    m.connected(S, 1, None);
    let now = run(&mut m, S, 200, 30_000);
    m.expect(5_000);
    assert!(m.summary(now + 10 * S).now.suspicion.unwrap() > 5.0);
    m.expect(10_000);
    assert!(m.summary(now + 10 * S).now.suspicion.unwrap() < 1.0);
    m.expect(0);
    assert!(m.summary(now + 30 * S).now.suspicion.unwrap() > 5.0);
}

#[test]
fn what_went_missing_is_counted_once() {
    let mut m = Meter::new(0, 5_000);
    m.connected(S, 1, None);
    run(&mut m, S, 20, 1_000);
    // Half-open: three of ours are never answered, four of theirs never come.
    for seq in 5..=7 {
        m.sent(S * seq * 5, 1, size(10), Beat::Beat(seq));
    }
    m.lost(40 * S, 40_000, LinkCause::Silent, "silent for 15 s");
    assert_eq!(m.totals().lost, 2, "the last one may have been on its way");
    let report = Box::new(LinkReport { beats: 8, outage_ms: 5_000, ..LinkReport::default() });
    m.connected(45 * S, 2, Some(report));
    assert_eq!((m.totals().lost, m.totals().reconnects), (6, 1));
    let s = m.summary(46 * S);
    assert!(s.returns.loss.unwrap() > 0.3 && s.returns.per_minute == 1);
    assert_eq!(s.ends.causes, [(LinkCause::Silent, 1)]);
    assert_eq!(m.summary(110 * S).returns.per_minute, 0);
    // Frames of the former link change nothing but the bytes.
    m.received(47 * S, 1, size(5), Beat::Beat(99));
    assert_eq!(m.totals().lost, 6);
}

#[test]
fn points_hold_what_happened_since_the_last() {
    let mut m = Meter::new(0, 5_000);
    m.connected(0, 1, None);
    let now = run(&mut m, 0, 60, 2_000);
    let first = m.on_minute(now);
    assert_eq!((first.span_ms, first.connected_ms, first.rtt.count), (60_000, 60_000, 12));
    assert_eq!((first.rtt_ms(), first.bytes.0), (Some(2.0), 360));
    m.lost(now + 15 * S, 0, LinkCause::Closed, "");
    let second = m.on_minute(now + 60 * S);
    assert_eq!((second.connected_ms, second.rtt.count, second.bytes.0), (15_000, 0, 0));
    assert!(m.on_minute(now + 120 * S).is_blank());
}

#[test]
fn seconds_are_kept_on_demand_and_gaps_stay_gaps() {
    let mut m = Meter::new(0, 5_000);
    m.connected(0, 1, None);
    m.on_second(S, 100);
    assert_eq!(m.seconds().count(), 0);
    m.keep_seconds(2 * S, 101, true);
    m.received(2 * S + 1, 1, size(50), Beat::None);
    m.on_second(3 * S, 102);
    m.on_second(9 * S, 108);
    let all: Vec<_> = m.seconds().map(|(at, p)| (at, p.span_ms, p.bytes.0)).collect();
    assert_eq!(all[0], (102, 1000, 50));
    assert_eq!((all.len(), all[3], all[6]), (7, (105, 0, 0), (108, 6000, 0)));
    for n in 0..1000u64 {
        m.on_second((10 + n) * S, 109 + n as i64);
    }
    assert_eq!((m.seconds().count(), m.seconds().last().unwrap().0), (SECONDS, 1108));
    m.keep_seconds(0, 0, false);
    assert!(!m.keeps_seconds());
}

#[test]
fn the_worker_tells_what_only_it_knows() {
    let mut m = Meter::new(0, 5_000);
    let report = LinkReport {
        attempts: 9,
        welcomes: 3,
        failures: 5,
        reconnects: 2,
        reconnect_ms: 4_000,
        reconnect_max_ms: 3_000,
        outage_ms: 5_000,
        connected_ms: 90_000,
        disconnected_ms: 10_000,
        ..LinkReport::default()
    };
    m.connected(S, 1, Some(Box::new(report)));
    let s = m.summary(S);
    assert_eq!(s.returns.dials, (9, 4, 5));
    assert_eq!(s.returns.took_ms, Some((3, 3_000.0, 5_000)));
    assert_eq!(s.returns.stability, 0.9);
    assert_eq!(m.stability(S * 101), 190.0 / 200.0);
}

#[test]
fn of_a_worker_that_tells_nothing_welcomes_and_outages_are_counted() {
    let mut m = Meter::new(0, 5_000).numbers_go_on();
    m.connected(0, 1, None);
    assert!(!m.was_here());
    m.lost(10 * S, 0, LinkCause::Closed, "");
    assert!(m.was_here());
    assert_eq!(m.summary(11 * S).returns.dials, (1, 1, 0), "not fewer once the link is over");
    m.connected(12 * S, 2, None);
    m.lost(20 * S, 0, LinkCause::Closed, "");
    m.connected(26 * S, 3, None);
    let s = m.summary(26 * S);
    assert_eq!((s.returns.dials, s.returns.took_ms), ((3, 3, 0), Some((2, 4_000.0, 6_000))));
}

#[test]
fn numbers_that_go_on_over_links_are_no_losses() {
    let mut m = Meter::new(0, 5_000).numbers_go_on();
    let beat = |m: &mut Meter, conn, seq| m.received(S, conn, size(20), Beat::Beat(seq));
    m.connected(0, 1, None);
    beat(&mut m, 1, 7);
    beat(&mut m, 1, 9);
    assert_eq!(m.totals().lost, 1, "a gap within a link");
    m.connected(2 * S, 2, None);
    beat(&mut m, 2, 500);
    beat(&mut m, 2, 501);
    assert_eq!(m.totals().lost, 1, "the first on a link is the base");
    let mut m = Meter::new(0, 5_000);
    m.connected(0, 1, None);
    beat(&mut m, 1, 3);
    assert_eq!(m.totals().lost, 2, "of protocol 2 each link begins with 1");
}

#[test]
fn statistics_begin_anew_and_counters_go_on() {
    let mut m = Meter::new(0, 5_000);
    let report = LinkReport {
        attempts: 9,
        welcomes: 3,
        failures: 5,
        connected_ms: 90_000,
        disconnected_ms: 10_000,
        ..LinkReport::default()
    };
    m.connected(0, 1, Some(Box::new(report.clone())));
    let now = run(&mut m, 0, 20, 30_000);
    m.errored();
    m.lost(now, 0, LinkCause::Silent, "");
    let again = LinkReport { attempts: 12, outage_ms: 1_000, ..report };
    m.connected(now + S, 2, Some(Box::new(again)));
    let now = now + 5 * S;
    let totals = *m.totals();
    assert_eq!((totals.reconnects, totals.messages.errors, totals.dials), (1, 1, (4, 2)));
    m.reset(now);
    let s = m.summary(now);
    assert_eq!((s.totals.reconnects, s.totals.messages.errors, s.totals.bytes.up), (0, 0, 0));
    assert_eq!(
        (s.returns.dials, s.returns.took_ms, s.returns.stability, s.rtt),
        ((0, 0, 0), None, 1.0, None)
    );
    assert_eq!((s.returns.per_minute, s.ends.causes.len(), *m.totals() == totals), (0, 0, true));
    m.lost(now + 3 * S, 0, LinkCause::Silent, "");
    assert_eq!(m.summary(now + 4 * S).returns.stability, 0.75, "from then on");
    // In an outage, too.
    m.reset(now + 4 * S);
    assert_eq!(m.cut_off_ms(now + 5 * S), Some(2_000), "the outage itself goes on");
    m.connected(now + 6 * S, 3, None);
    assert_eq!(m.stability(now + 8 * S), 0.5);
}

#[test]
fn sums_of_several_workers_leave_nothing_out() {
    let mut m = Meter::new(0, 5_000);
    m.connected(0, 1, None);
    let now = run(&mut m, 0, 20, 30_000);
    m.received(now, 1, Size { bytes: 10, raw: Some(40), nanos: 7 }, Beat::None);
    m.lost(now, 0, LinkCause::Silent, "");
    m.connected(now + 2 * S, 2, None);
    // Heartbeats without a value yet, and a process that was restarted.
    for restored in [2, 0, 2, 3, 1] {
        m.reported(0, restored);
    }
    let mut tally = crate::coord::Tally::default();
    (tally.executed, tally.succeeded, tally.duration_ms) = (3, 2, 70);
    m.count(tally, 0);
    let mut sums = *m.totals();
    sums.add(m.totals());
    assert_eq!(
        (sums.rtt, sums.compression.nanos, sums.compression.bytes),
        ((8, 240_000), (0, 14), (80, 20))
    );
    assert_eq!((sums.dials, sums.outages, sums.restored), ((4, 4), (2, 4_000, 2_000), 8));
    let tally = (sums.tally.executed, sums.tally.succeeded, sums.tally.duration_ms);
    assert_eq!(tally, (6, 4, 140));
}
