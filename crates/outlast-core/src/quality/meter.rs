//! All that is measured of one worker: fed by whoever moves its frames, and by the core's news of
//! its link.

use super::{Micros, Phi, Point, Rate, Rtt, RttWindow};
use crate::coord::{ConnId, Tally};
use outlast_wire::v2::{LinkCause, LinkReport};
use std::collections::VecDeque;

/// Goodput is measured over about so long.
const GOODPUT: Micros = 10_000_000;
/// Loss and compression are measured over about so long.
const RECENT: Micros = 300_000_000;
/// Returns within so long are counted.
const MINUTE: Micros = 60_000_000;
/// Returns that are remembered; more within a minute are not told apart.
const RETURNS: usize = 32;
/// Heartbeats whose answers are still waited for.
const FLYING: usize = 4;
/// No gap counts as more heartbeats: what a worker says is not trusted further.
const MOST_LOST: u64 = 1_000;
/// Points of a second that are kept of a worker that is looked at.
pub(super) const SECONDS: usize = 300;
/// Characters of a reason that are kept.
const MAX_REASON: usize = 200;

/// Counts since the coordinator started.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Totals {
    /// From the worker.
    pub bytes_up: u64,
    /// To the worker.
    pub bytes_down: u64,
    /// Bytes of data that came beside the link.
    pub bulk: u64,
    /// From the worker.
    pub messages_up: u64,
    /// To the worker.
    pub messages_down: u64,
    /// That could not be understood.
    pub errors: u64,
    /// Round-trip times, and their sum in microseconds.
    pub rtt: (u64, u64),
    /// Times that it came back.
    pub reconnects: u64,
    /// Heartbeats that never arrived.
    pub lost: u64,
    /// Milliseconds with a link, up to the end of the last one.
    connected_ms: u64,
    /// Nanoseconds for compressing, and for decompressing.
    pub packing: (u64, u64),
    /// What became of its tasks.
    pub tally: Tally,
}

impl Totals {
    /// Adds what was counted of a link elsewhere; not what became of tasks.
    pub fn add(&mut self, other: &Totals) {
        self.bytes_up += other.bytes_up;
        self.bytes_down += other.bytes_down;
        self.bulk += other.bulk;
        self.messages_up += other.messages_up;
        self.messages_down += other.messages_down;
        self.errors += other.errors;
        self.reconnects += other.reconnects;
        self.lost += other.lost;
    }
}

/// Since when a point is measured.
#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    at: Micros,
    totals: Totals,
    connected_ms: u64,
    rtt_max_us: u32,
    suspicion: f32,
}

#[derive(Debug)]
struct Link {
    conn: ConnId,
    since: Micros,
    heard: Micros,
    /// Heartbeats sent and not answered yet.
    flying: [(u64, Micros); FLYING],
    sent: u64,
    answered: u64,
    /// The newest heartbeat of the worker.
    beat: u64,
}

/// Points of the newest seconds.
#[derive(Debug)]
struct Seconds {
    mark: Mark,
    points: VecDeque<Point>,
    /// Unix seconds of the newest.
    newest: i64,
}

/// How a link ended: Unix milliseconds, why, and the same for people.
pub type End = (i64, LinkCause, Box<str>);

/// A worker's measurements. Takes about a kilobyte.
#[derive(Debug)]
pub struct Meter {
    rtt: RttWindow,
    phi: Phi,
    up: Rate,
    down: Rate,
    beats: Rate,
    lost: Rate,
    raw: Rate,
    packed: Rate,
    packs: Rate,
    totals: Totals,
    link: Option<Link>,
    /// When the former link ended; none while there is one or was none.
    gone: Option<Micros>,
    returns: VecDeque<u32>,
    report: Option<Box<LinkReport>>,
    up_ms: u64,
    down_ms: u64,
    /// Heartbeats of the worker that arrived over its former link.
    heard_before: u64,
    resync_ms: Option<u64>,
    end: Option<Box<End>>,
    causes: Vec<(LinkCause, u32)>,
    worker_rtt_ms: u32,
    restored: u64,
    running: u32,
    minute: Mark,
    seconds: Option<Box<Seconds>>,
}

/// What is said of a worker at a moment.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Counts.
    pub totals: Totals,
    /// Round-trip times.
    pub rtt: Option<Rtt>,
    /// Mean of the newest dozen, in milliseconds, and how many these are.
    pub rtt_recent: (f64, u32),
    /// The worker's own newest measurement, in milliseconds.
    pub worker_rtt_ms: u32,
    /// φ; none without a link.
    pub suspicion: Option<f64>,
    /// Milliseconds since something was heard; none without a link.
    pub silent_ms: Option<u64>,
    /// Milliseconds since the link ended; none while there is one or was none.
    pub gone_ms: Option<u64>,
    /// Returns within the last minute.
    pub reconnects_per_minute: u32,
    /// Dials, welcomes, and dials that failed.
    pub dials: (u64, u64, u64),
    /// Returns, the mean time that they took, and the longest, in milliseconds.
    pub reconnect_ms: Option<(u64, f64, u64)>,
    /// Share of the time with a link.
    pub stability: f64,
    /// Share of recent heartbeats that never arrived.
    pub loss: Option<f64>,
    /// Bytes per second from the worker.
    pub goodput_up: f64,
    /// Bytes per second to the worker.
    pub goodput_down: f64,
    /// Milliseconds that the newest resynchronisation took; none while it goes on.
    pub resync_ms: Option<u64>,
    /// How the newest link that ended did so.
    pub end: Option<End>,
    /// Links that ended, by cause.
    pub causes: Vec<(LinkCause, u32)>,
    /// Ratio of recent messages that were compressed, and how many these were.
    pub compression: (Option<f64>, f64),
    /// Checkpoints that tasks read back.
    pub restored: u64,
}

/// A frame as it travelled.
#[derive(Debug, Clone, Copy, Default)]
pub struct Size {
    /// Bytes on the link.
    pub bytes: usize,
    /// Bytes before compression, if it was tried.
    pub raw: Option<usize>,
    /// Nanoseconds that this took.
    pub nanos: u64,
}

/// A heartbeat, or an answer to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// With its number.
    Beat(u64),
    /// To the heartbeat of this number.
    Reply(u64),
    /// Another frame.
    None,
}

impl Meter {
    /// Of a worker whose heartbeats are expected every so many milliseconds.
    pub fn new(now: Micros, interval: u64) -> Meter {
        Meter {
            rtt: RttWindow::default(),
            phi: Phi::new(interval as f32),
            up: Rate::default(),
            down: Rate::default(),
            beats: Rate::default(),
            lost: Rate::default(),
            raw: Rate::default(),
            packed: Rate::default(),
            packs: Rate::default(),
            totals: Totals::default(),
            link: None,
            gone: None,
            returns: VecDeque::new(),
            report: None,
            up_ms: 0,
            down_ms: 0,
            heard_before: 0,
            resync_ms: None,
            end: None,
            causes: Vec::new(),
            worker_rtt_ms: 0,
            restored: 0,
            running: 0,
            minute: Mark { at: now, ..Mark::default() },
            seconds: None,
        }
    }

    /// It said hello over this link.
    pub fn connected(&mut self, now: Micros, conn: ConnId, report: Option<LinkReport>) {
        self.close(now);
        if let Some(gone) = self.gone.take() {
            self.totals.reconnects += 1;
            self.down_ms += now.saturating_sub(gone) / 1000;
            if self.returns.len() == RETURNS {
                self.returns.pop_front();
            }
            self.returns.push_back((now / 1_000_000) as u32);
        }
        if let Some(report) = &report {
            (self.up_ms, self.down_ms) = (report.connected_ms, report.disconnected_ms);
            // A process that dials for the first time sent none before.
            let missed = report.beats.saturating_sub(self.heard_before).min(MOST_LOST);
            if report.outage_ms > 0 && self.totals.reconnects > 0 && missed > 0 {
                self.lose(now, missed);
            }
        }
        self.report = report.map(Box::new);
        self.phi.restart();
        self.resync_ms = None;
        let flying = [(0, 0); FLYING];
        self.link =
            Some(Link { conn, since: now, heard: now, flying, sent: 0, answered: 0, beat: 0 });
    }

    /// What it owed has been applied.
    pub fn resynced(&mut self, took: u64) {
        self.resync_ms = Some(took);
    }

    /// Its link ended.
    pub fn lost(&mut self, now: Micros, at: i64, cause: LinkCause, reason: &str) {
        self.close(now);
        self.gone = Some(now);
        let reason: String = reason.chars().take(MAX_REASON).collect();
        self.end = Some(Box::new((at, cause, reason.into())));
        match self.causes.iter_mut().find(|(c, _)| *c == cause) {
            Some((_, n)) => *n += 1,
            None => self.causes.push((cause, 1)),
        }
        (self.running, self.resync_ms) = (0, None);
    }

    fn close(&mut self, now: Micros) {
        let Some(link) = self.link.take() else { return };
        let up = now.saturating_sub(link.since) / 1000;
        self.up_ms += up;
        self.totals.connected_ms += up;
        // A link that the worker never took for open had no heartbeats.
        if link.beat > 0 {
            self.heard_before = link.beat;
        }
        let unanswered = link.sent.saturating_sub(link.answered);
        // One may still have been on its way.
        if unanswered > 1 {
            self.lose(now, unanswered - 1);
        }
    }

    fn lose(&mut self, now: Micros, beats: u64) {
        self.totals.lost += beats;
        self.lost.add(beats as f64, now, RECENT);
        self.beats.add(beats as f64, now, RECENT);
    }

    /// A frame is sent to it.
    pub fn sent(&mut self, now: Micros, conn: ConnId, size: Size, beat: Beat) {
        self.totals.bytes_down += size.bytes as u64;
        self.totals.messages_down += 1;
        self.totals.packing.0 += size.nanos;
        self.down.add(size.bytes as f64, now, GOODPUT);
        self.pack(now, size);
        let Some(link) = self.link.as_mut().filter(|l| l.conn == conn) else { return };
        if let Beat::Beat(seq) = beat {
            link.sent = link.sent.max(seq);
            link.flying[seq as usize % FLYING] = (seq, now);
        }
    }

    /// A frame came from it.
    pub fn received(&mut self, now: Micros, conn: ConnId, size: Size, beat: Beat) {
        self.totals.bytes_up += size.bytes as u64;
        self.totals.messages_up += 1;
        self.totals.packing.1 += size.nanos;
        self.up.add(size.bytes as f64, now, GOODPUT);
        self.pack(now, size);
        let Some(link) = self.link.as_mut().filter(|l| l.conn == conn) else { return };
        let silent = now.saturating_sub(link.heard) as f64 / 1000.0;
        link.heard = now;
        let mut gap = 0;
        match beat {
            Beat::Beat(seq) => {
                gap = seq.saturating_sub(link.beat.saturating_add(1)).min(MOST_LOST);
                link.beat = link.beat.max(seq);
                self.beats.add(1.0, now, RECENT);
                self.suspect(silent);
                self.phi.beat(now);
            }
            Beat::Reply(seq) => {
                let (asked, at) = link.flying[seq as usize % FLYING];
                if asked == seq && seq > link.answered {
                    let passed = seq - link.answered - 1;
                    link.answered = seq;
                    gap = passed;
                    self.beats.add(1.0, now, RECENT);
                    self.measured(now.saturating_sub(at));
                }
            }
            Beat::None => {}
        }
        if gap > 0 {
            self.lose(now, gap);
        }
    }

    fn pack(&mut self, now: Micros, size: Size) {
        if let Some(raw) = size.raw {
            self.raw.add(raw as f64, now, RECENT);
            self.packed.add(size.bytes as f64, now, RECENT);
            self.packs.add(1.0, now, RECENT);
        }
    }

    fn measured(&mut self, us: u64) {
        self.rtt.push(us as f32 / 1000.0);
        self.totals.rtt = (self.totals.rtt.0 + 1, self.totals.rtt.1 + us);
        let us = u32::try_from(us).unwrap_or(u32::MAX);
        self.minute.rtt_max_us = self.minute.rtt_max_us.max(us);
        if let Some(s) = &mut self.seconds {
            s.mark.rtt_max_us = s.mark.rtt_max_us.max(us);
        }
    }

    fn suspect(&mut self, silent: f64) -> f64 {
        let phi = self.phi.suspicion(silent);
        self.minute.suspicion = self.minute.suspicion.max(phi as f32);
        if let Some(s) = &mut self.seconds {
            s.mark.suspicion = s.mark.suspicion.max(phi as f32);
        }
        phi
    }

    /// A frame came that could not be understood.
    pub fn errored(&mut self) {
        self.totals.errors += 1;
    }

    /// Data came from it beside the link.
    pub fn bulk(&mut self, now: Micros, bytes: usize) {
        self.totals.bulk += bytes as u64;
        self.up.add(bytes as f64, now, GOODPUT);
    }

    /// What its newest heartbeat says.
    pub fn told(&mut self, worker_rtt_ms: u32, restored: u64) {
        (self.worker_rtt_ms, self.restored) = (worker_rtt_ms, restored);
    }

    /// What became of its tasks so far, and how many run.
    pub fn count(&mut self, tally: Tally, running: u32) {
        (self.totals.tally, self.running) = (tally, running);
    }

    fn connected_ms(&self, now: Micros) -> u64 {
        let open = self.link.as_ref().map_or(0, |l| now.saturating_sub(l.since) / 1000);
        self.totals.connected_ms + open
    }

    /// The point since the mark, which moves to now.
    fn take(&self, mark: Mark, now: Micros) -> (Point, Mark) {
        let (new, old) = (&self.totals, &mark.totals);
        let small = |a: u64, b: u64| u32::try_from(a.saturating_sub(b)).unwrap_or(u32::MAX);
        let connected_ms = self.connected_ms(now);
        let point = Point {
            span_ms: small(now / 1000, mark.at / 1000),
            connected_ms: small(connected_ms, mark.connected_ms),
            rtt_count: small(new.rtt.0, old.rtt.0),
            rtt_us: new.rtt.1 - old.rtt.1,
            rtt_max_us: mark.rtt_max_us,
            suspicion: mark.suspicion,
            bytes_up: new.bytes_up + new.bulk - old.bytes_up - old.bulk,
            bytes_down: new.bytes_down - old.bytes_down,
            messages: small(
                new.messages_up + new.messages_down,
                old.messages_up + old.messages_down,
            ),
            reconnects: small(new.reconnects, old.reconnects),
            lost: small(new.lost, old.lost),
            executed: small(new.tally.executed, old.tally.executed),
            failed: small(new.tally.failed(), old.tally.failed()),
            checkpoints: small(new.tally.checkpoints, old.tally.checkpoints),
            running: self.running,
        };
        let mark =
            Mark { at: now, totals: self.totals, connected_ms, rtt_max_us: 0, suspicion: 0.0 };
        (point, mark)
    }

    /// A second has passed, by the Unix time `second`. Says the suspicion, if there is a link.
    pub fn on_second(&mut self, now: Micros, second: i64) -> Option<f64> {
        let silent = self.link.as_ref().map(|l| now.saturating_sub(l.heard) as f64 / 1000.0);
        let phi = silent.map(|silent| self.suspect(silent));
        if let Some(mut s) = self.seconds.take() {
            let (point, mark) = self.take(s.mark, now);
            s.mark = mark;
            // Seconds that nobody measured are empty, up to a whole ring of them.
            let missed = (second - s.newest - 1).clamp(0, SECONDS as i64);
            for point in std::iter::repeat_n(Point::default(), missed as usize).chain([point]) {
                if s.points.len() == SECONDS {
                    s.points.pop_front();
                }
                s.points.push_back(point);
            }
            s.newest = second;
            self.seconds = Some(s);
        }
        phi
    }

    /// The point of the minute that ends.
    pub fn on_minute(&mut self, now: Micros) -> Point {
        let (point, mark) = self.take(self.minute, now);
        self.minute = mark;
        point
    }

    /// The point of the minute that goes on.
    pub fn this_minute(&self, now: Micros) -> Point {
        self.take(self.minute, now).0
    }

    /// Begins to keep points of seconds, or ends it.
    pub fn keep_seconds(&mut self, now: Micros, second: i64, on: bool) {
        match (on, &self.seconds) {
            (false, _) => self.seconds = None,
            (true, Some(_)) => {}
            (true, None) => {
                let (_, mark) = self.take(Mark::default(), now);
                let points = VecDeque::with_capacity(SECONDS);
                self.seconds = Some(Box::new(Seconds { mark, points, newest: second }));
            }
        }
    }

    /// Whether points of seconds are kept.
    pub fn keeps_seconds(&self) -> bool {
        self.seconds.is_some()
    }

    /// Points of seconds and their Unix seconds, oldest first.
    pub fn seconds(&self) -> impl Iterator<Item = (i64, &Point)> {
        let all = self.seconds.as_deref();
        let first = all.map_or(0, |s| s.newest + 1 - s.points.len() as i64);
        (first..).zip(all.into_iter().flat_map(|s| &s.points))
    }

    /// Counts since the coordinator started.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Everything at this moment.
    pub fn summary(&self, now: Micros) -> Summary {
        let silent = self.link.as_ref().map(|l| now.saturating_sub(l.heard));
        let (attempts, welcomes, failures, count, sum, max) = match &self.report {
            Some(r) => {
                let (sum, max) = (r.reconnect_ms + r.outage_ms, r.reconnect_max_ms);
                let count = r.reconnects + u64::from(r.outage_ms > 0);
                (r.attempts, r.welcomes + 1, r.failures, count, sum, max.max(r.outage_ms))
            }
            None => {
                let seen = self.totals.reconnects + u64::from(self.link.is_some());
                (seen, seen, 0, 0, 0, 0)
            }
        };
        let (up, down) = self.times(now);
        let (beats, lost) = (self.beats.sum(now, RECENT), self.lost.sum(now, RECENT));
        let packed = self.packed.sum(now, RECENT);
        let packs = self.packs.sum(now, RECENT);
        Summary {
            totals: self.totals,
            rtt: self.rtt.summary(),
            rtt_recent: self.rtt.recent(12),
            worker_rtt_ms: self.worker_rtt_ms,
            suspicion: silent.map(|us| self.phi.suspicion(us as f64 / 1000.0)),
            silent_ms: silent.map(|us| us / 1000),
            gone_ms: self.gone.map(|at| now.saturating_sub(at) / 1000),
            reconnects_per_minute: self.reconnects_per_minute(now),
            dials: (attempts, welcomes, failures),
            reconnect_ms: (count > 0).then(|| (count, sum as f64 / count as f64, max)),
            stability: if up + down == 0 { 1.0 } else { up as f64 / (up + down) as f64 },
            loss: (beats > 0.1).then(|| lost / beats),
            goodput_up: self.up.per_second(now, GOODPUT),
            goodput_down: self.down.per_second(now, GOODPUT),
            resync_ms: self.resync_ms,
            end: self.end.as_deref().cloned(),
            causes: self.causes.clone(),
            compression: ((packs >= 0.5).then(|| self.raw.sum(now, RECENT) / packed), packs),
            restored: self.restored,
        }
    }

    /// Milliseconds with a link and without.
    fn times(&self, now: Micros) -> (u64, u64) {
        let open = |since: Option<Micros>| since.map_or(0, |at| now.saturating_sub(at) / 1000);
        let up = self.up_ms + open(self.link.as_ref().map(|l| l.since));
        (up, self.down_ms + open(self.gone))
    }

    /// Share of the time with a link.
    pub fn stability(&self, now: Micros) -> f64 {
        let (up, down) = self.times(now);
        if up + down == 0 { 1.0 } else { up as f64 / (up + down) as f64 }
    }

    /// Returns within the last minute.
    pub fn reconnects_per_minute(&self, now: Micros) -> u32 {
        let since = (now.saturating_sub(MINUTE) / 1_000_000) as u32;
        self.returns.iter().filter(|at| **at > since || now < MINUTE).count() as u32
    }

    /// The newest round-trip time in milliseconds.
    pub fn last_rtt(&self) -> Option<f32> {
        self.rtt.last()
    }

    /// Bytes per second, from the worker and to it.
    pub fn goodput(&self, now: Micros) -> (f64, f64) {
        (self.up.per_second(now, GOODPUT), self.down.per_second(now, GOODPUT))
    }

    /// Mean of the newest round-trip times in milliseconds, and how many these are.
    pub fn recent_rtt(&self) -> (f64, u32) {
        self.rtt.recent(12)
    }

    /// How the newest link that ended did so.
    pub fn end(&self) -> Option<&End> {
        self.end.as_deref()
    }

    /// Milliseconds since the link ended against the worker's will; none while there is one.
    pub fn cut_off_ms(&self, now: Micros) -> Option<u64> {
        let wanted = self.end.as_ref().is_some_and(|e| e.1 == LinkCause::LinkStopped);
        self.gone.filter(|_| !wanted).map(|at| now.saturating_sub(at) / 1000)
    }

    /// Compression ratio of recent messages, and how many these were.
    pub fn compression(&self, now: Micros) -> (f64, u32) {
        let (raw, packed) = (self.raw.sum(now, RECENT), self.packed.sum(now, RECENT));
        (if packed > 0.0 { raw / packed } else { 1.0 }, self.packs.sum(now, RECENT) as u32)
    }
}
