//! Measurements of one worker, fed by the code that moves its frames and by the core's reports on its
//! link.

mod points;
mod summary;
mod totals;

use super::{Micros, Phi, Point, Rate, RttWindow};
use crate::coord::{ConnId, Tally};
use outlast_model::LinkCause;
use outlast_model::message::LinkReport;
use std::collections::VecDeque;
pub use summary::{LinkEnds, LinkNow, Returns, Summary};
pub use totals::{ByteCounts, Compression, MessageCounts, Totals};

/// Goodput is measured over about so long.
const GOODPUT: Micros = 10_000_000;
/// Loss and compression are measured over about so long.
const RECENT: Micros = 300_000_000;
/// Returns within so long are counted.
const MINUTE: Micros = 60_000_000;
/// Returns that are remembered; more within a minute are not dials apart.
const RETURNS: usize = 32;
/// Heartbeats whose answers are still waited for.
const FLYING: usize = 4;
/// No gap counts as more heartbeats: what a worker says is not trusted further.
const MOST_LOST: u64 = 1_000;
/// Points of a second that are kept of a worker that is looked at.
pub(super) const SECONDS: usize = 300;
/// Characters of a reason that are kept.
const MAX_REASON: usize = 200;

/// Start of a point.
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

/// End of a link: Unix milliseconds, cause, and explanation in words.
pub type End = (i64, LinkCause, Box<str>);

/// Rates, each over about the same time.
#[derive(Debug, Default)]
struct Rates {
    up: Rate,
    down: Rate,
    beats: Rate,
    lost: Rate,
    raw: Rate,
    packed: Rate,
    packs: Rate,
}

/// Times without a link.
#[derive(Debug, Default)]
struct Absence {
    /// Time at which the previous link ended; none while there is one or was none.
    gone: Option<Micros>,
    /// Seconds of the newest returns.
    returns: VecDeque<u32>,
}

/// Times since the last reset of the displayed statistics, in milliseconds.
#[derive(Debug, Default)]
struct Shown {
    /// Totals at the last reset, which are subtracted.
    base: Option<Box<Totals>>,
    /// Counts of outages like those of the totals, and reset with the statistics.
    outages: (u64, u64, u64),
    up_ms: u64,
    down_ms: u64,
    /// Milliseconds of the link, and of the outage, that goes on, from before a reset.
    before: (u64, u64),
}

/// The worker's report with its newest hello.
#[derive(Debug, Default)]
struct Greeting {
    report: Option<Box<LinkReport>>,
    /// Connection attempts in the newest report.
    attempts: Option<u64>,
    resync_ms: Option<u64>,
}

/// Ends of links.
#[derive(Debug, Default)]
struct Ends {
    newest: Option<Box<End>>,
    causes: Vec<(LinkCause, u32)>,
}

/// The worker's reports with its heartbeats.
#[derive(Debug, Default)]
struct Reported {
    /// True if heartbeat numbers continue from link to link.
    numbers_go_on: bool,
    /// Heartbeats of the worker that arrived over its former link.
    heard_before: u64,
    rtt_ms: u32,
    /// Between its heartbeats, in milliseconds.
    interval: u32,
    restored: u64,
    /// Newest value that was not 0.
    restored_before: u64,
    running: u32,
}

/// A worker's measurements. Takes about a kilobyte.
#[derive(Debug)]
pub struct Meter {
    rtt: RttWindow,
    phi: Phi,
    rates: Rates,
    totals: Totals,
    link: Option<Link>,
    absence: Absence,
    shown: Shown,
    greeting: Greeting,
    ends: Ends,
    reported: Reported,
    minute: Mark,
    seconds: Option<Box<Seconds>>,
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
    /// A heartbeat with its number.
    Beat(u64),
    /// To the heartbeat of this number.
    Reply(u64),
    /// Another frame.
    None,
}

impl Meter {
    /// Creates the meter of a worker with this heartbeat interval in milliseconds.
    pub fn new(now: Micros, interval: u64) -> Meter {
        Meter {
            rtt: RttWindow::default(),
            phi: Phi::new(interval as f32),
            rates: Rates::default(),
            totals: Totals::default(),
            link: None,
            absence: Absence::default(),
            shown: Shown::default(),
            greeting: Greeting::default(),
            ends: Ends::default(),
            reported: Reported {
                interval: u32::try_from(interval).unwrap_or(u32::MAX),
                ..Reported::default()
            },
            minute: Mark { at: now, ..Mark::default() },
            seconds: None,
        }
    }

    /// Sets that heartbeat numbers continue from link to link: the first one on a link is the base.
    pub fn numbers_go_on(mut self) -> Meter {
        self.reported.numbers_go_on = true;
        self
    }

    /// Returns true if the worker had a link before, and has none now.
    pub fn was_here(&self) -> bool {
        self.absence.gone.is_some()
    }

    /// Records a handshake on this link.
    pub fn connected(&mut self, now: Micros, conn: ConnId, report: Option<Box<LinkReport>>) {
        self.close(now);
        self.dialled(report.as_deref());
        // What the worker measured is nearer to it: a half-open link ends late here.
        let mut outage = report.as_ref().map(|r| r.outage_ms).filter(|ms| *ms > 0);
        if let Some(gone) = self.absence.gone.take() {
            let took = now.saturating_sub(gone) / 1000;
            outage = outage.or(Some(took));
            self.totals.reconnects += 1;
            self.shown.down_ms += took.saturating_sub(std::mem::take(&mut self.shown.before.1));
            if self.absence.returns.len() == RETURNS {
                self.absence.returns.pop_front();
            }
            self.absence.returns.push_back((now / 1_000_000) as u32);
        }
        if let Some(ms) = outage {
            for (n, sum, most) in [&mut self.shown.outages, &mut self.totals.outages] {
                (*n, *sum, *most) = (*n + 1, *sum + ms, ms.max(*most));
            }
        }
        if let Some(report) = &report {
            (self.shown.up_ms, self.shown.down_ms) = (report.connected_ms, report.disconnected_ms);
            // A process that dials for the first time sent none before.
            let missed = report.beats.saturating_sub(self.reported.heard_before).min(MOST_LOST);
            if report.outage_ms > 0 && self.totals.reconnects > 0 && missed > 0 {
                self.lose(now, missed);
            }
        }
        self.greeting.report = report;
        self.greeting.resync_ms = None;
        self.begin(now, conn);
    }

    /// Switches to another of several links; `new`: it was opened just now.
    pub fn switched(&mut self, now: Micros, conn: ConnId, new: bool) {
        self.close(now);
        if new {
            self.dialled(None);
        }
        self.begin(now, conn);
    }

    fn begin(&mut self, now: Micros, conn: ConnId) {
        self.phi.restart();
        let flying = [(0, 0); FLYING];
        self.link =
            Some(Link { conn, since: now, heard: now, flying, sent: 0, answered: 0, beat: 0 });
    }

    /// Records an accepted connection. Attempts before this process began are not counted.
    fn dialled(&mut self, report: Option<&LinkReport>) {
        let dials = report.map(|r| r.attempts);
        // Fewer than before: its process was restarted, or its statistics reset.
        let more = match (dials, self.greeting.attempts) {
            (Some(now), Some(before)) => now.checked_sub(before).unwrap_or(now),
            _ => 1,
        };
        self.greeting.attempts = dials;
        self.totals.dials.0 += more.max(1);
        self.totals.dials.1 += 1;
    }

    /// Resets the displayed statistics. Counters and history continue.
    pub fn reset(&mut self, now: Micros) {
        let open = |since: Option<Micros>| since.map_or(0, |at| now.saturating_sub(at) / 1000);
        // What has passed of the link, or of the outage, that goes on does not count.
        self.shown.before = (open(self.link.as_ref().map(|l| l.since)), open(self.absence.gone));
        (self.shown.up_ms, self.shown.down_ms) = (0, 0);
        self.shown.base = Some(Box::new(self.totals));
        (self.shown.outages, self.greeting.report) = ((0, 0, 0), None);
        self.rtt = RttWindow::default();
        (self.rates.beats, self.rates.lost) = (Rate::default(), Rate::default());
        self.absence.returns.clear();
        self.ends.causes.clear();
    }

    /// Records that all unacknowledged records have been applied.
    pub fn resynced(&mut self, took: u64) {
        self.greeting.resync_ms = Some(took);
    }

    /// Records the end of the link.
    pub fn lost(&mut self, now: Micros, at: i64, cause: LinkCause, reason: &str) {
        self.close(now);
        self.absence.gone = Some(now);
        let reason: String = reason.chars().take(MAX_REASON).collect();
        self.ends.newest = Some(Box::new((at, cause, reason.into())));
        match self.ends.causes.iter_mut().find(|(c, _)| *c == cause) {
            Some((_, n)) => *n += 1,
            None => self.ends.causes.push((cause, 1)),
        }
        (self.reported.running, self.greeting.resync_ms) = (0, None);
    }

    fn close(&mut self, now: Micros) {
        let Some(link) = self.link.take() else { return };
        let up = now.saturating_sub(link.since) / 1000;
        self.shown.up_ms += up.saturating_sub(std::mem::take(&mut self.shown.before.0));
        self.totals.connected_ms += up;
        // A link that the worker never took for open had no heartbeats.
        if link.beat > 0 {
            self.reported.heard_before = link.beat;
        }
        let unanswered = link.sent.saturating_sub(link.answered);
        // One may still have been on its way.
        if unanswered > 1 {
            self.lose(now, unanswered - 1);
        }
    }

    fn lose(&mut self, now: Micros, beats: u64) {
        self.totals.lost += beats;
        self.rates.lost.add(beats as f64, now, RECENT);
        self.rates.beats.add(beats as f64, now, RECENT);
    }

    /// A frame is sent to it.
    pub fn sent(&mut self, now: Micros, conn: ConnId, size: Size, beat: Beat) {
        self.totals.bytes.down += size.bytes as u64;
        self.totals.messages.down += 1;
        self.totals.compression.nanos.0 += size.nanos;
        self.rates.down.add(size.bytes as f64, now, GOODPUT);
        self.pack(now, size);
        let Some(link) = self.link.as_mut().filter(|l| l.conn == conn) else { return };
        if let Beat::Beat(seq) = beat {
            link.sent = link.sent.max(seq);
            link.flying[seq as usize % FLYING] = (seq, now);
        }
    }

    /// A frame came from it.
    pub fn received(&mut self, now: Micros, conn: ConnId, size: Size, beat: Beat) {
        self.totals.bytes.up += size.bytes as u64;
        self.totals.messages.up += 1;
        self.totals.compression.nanos.1 += size.nanos;
        self.rates.up.add(size.bytes as f64, now, GOODPUT);
        self.pack(now, size);
        let Some(link) = self.link.as_mut().filter(|l| l.conn == conn) else { return };
        let silent = now.saturating_sub(link.heard) as f64 / 1000.0;
        link.heard = now;
        let mut gap = 0;
        match beat {
            Beat::Beat(seq) => {
                let first = self.reported.numbers_go_on && link.beat == 0;
                let before = if first { seq } else { link.beat.saturating_add(1) };
                gap = seq.saturating_sub(before).min(MOST_LOST);
                link.beat = link.beat.max(seq);
                self.rates.beats.add(1.0, now, RECENT);
                self.suspect(silent);
                self.phi.beat(now);
            }
            Beat::Reply(seq) => {
                let (asked, at) = link.flying[seq as usize % FLYING];
                if asked == seq && seq > link.answered {
                    let passed = seq - link.answered - 1;
                    link.answered = seq;
                    gap = passed;
                    self.rates.beats.add(1.0, now, RECENT);
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
            self.totals.compression.bytes.0 += raw as u64;
            self.totals.compression.bytes.1 += size.bytes as u64;
            self.rates.raw.add(raw as f64, now, RECENT);
            self.rates.packed.add(size.bytes as f64, now, RECENT);
            self.rates.packs.add(1.0, now, RECENT);
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

    /// The worker beats every so many milliseconds from now on; 0: it does not say.
    pub fn expect(&mut self, interval: u32) {
        if interval > 0 && interval != self.reported.interval {
            self.reported.interval = interval;
            self.phi.expect(interval as f32);
        }
    }

    /// A frame came that could not be understood.
    pub fn errored(&mut self) {
        self.totals.messages.errors += 1;
    }

    /// Data came from it beside the link.
    pub fn bulk(&mut self, now: Micros, bytes: usize) {
        self.totals.bytes.bulk += bytes as u64;
        self.rates.up.add(bytes as f64, now, GOODPUT);
    }

    /// Records the content of a heartbeat.
    pub fn reported(&mut self, worker_rtt_ms: u32, restored: u64) {
        // None: not reported yet. Fewer than before: its process was restarted.
        if restored > 0 {
            let before = std::mem::replace(&mut self.reported.restored_before, restored);
            self.totals.restored += restored.checked_sub(before).unwrap_or(restored);
        }
        (self.reported.rtt_ms, self.reported.restored) = (worker_rtt_ms, restored);
    }

    /// Records the outcomes of its tasks so far, and the number of running ones.
    pub fn count(&mut self, tally: Tally, running: u32) {
        (self.totals.tally, self.reported.running) = (tally, running);
    }
}
