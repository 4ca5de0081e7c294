//! Summary of a worker's measurements at a point in time.

use super::{End, GOODPUT, MINUTE, Meter, RECENT, Totals};
use crate::quality::{Micros, Rtt};
use outlast_model::LinkCause;

/// Summary of a worker's measurements.
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
    /// The link at this moment.
    pub now: LinkNow,
    /// Connection attempts and their success.
    pub returns: Returns,
    /// Bytes per second from the worker, and to it.
    pub goodput: (f64, f64),
    /// Milliseconds that the newest resynchronisation took; none while it goes on.
    pub resync_ms: Option<u64>,
    /// Ends of links.
    pub ends: LinkEnds,
    /// Ratio of recent messages that were compressed, and how many these were.
    pub compression: (Option<f64>, f64),
    /// Checkpoints that tasks read back.
    pub restored: u64,
}

/// A worker's link at a moment.
#[derive(Debug, Clone, Copy)]
pub struct LinkNow {
    /// φ; none without a link.
    pub suspicion: Option<f64>,
    /// Milliseconds since something was heard; none without a link.
    pub silent_ms: Option<u64>,
    /// Milliseconds since the link ended; none while there is one or was none.
    pub gone_ms: Option<u64>,
}

/// Returns of a worker after the ends of its links.
#[derive(Debug, Clone, Copy)]
pub struct Returns {
    /// Returns within the last minute.
    pub per_minute: u32,
    /// Dials, welcomes, and dials that failed.
    pub dials: (u64, u64, u64),
    /// Returns, the mean time that they took, and the longest, in milliseconds.
    pub took_ms: Option<(u64, f64, u64)>,
    /// Share of the time with a link.
    pub stability: f64,
    /// Share of recent heartbeats that never arrived.
    pub loss: Option<f64>,
}

/// Ends of a worker's links.
#[derive(Debug, Clone)]
pub struct LinkEnds {
    /// End of the newest link that ended.
    pub newest: Option<End>,
    /// Links that ended, by cause.
    pub causes: Vec<(LinkCause, u32)>,
}

impl Meter {
    /// Counts since the coordinator started.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Returns the counts since the coordinator started, or since the statistics were reset.
    fn shown(&self) -> Totals {
        self.shown.base.as_ref().map_or(self.totals, |base| self.totals.since(base))
    }

    /// Returns the summary at this time.
    pub fn summary(&self, now: Micros) -> Summary {
        let silent = self.link.as_ref().map(|l| now.saturating_sub(l.heard));
        let shown = self.shown();
        let (attempts, welcomes, failures, count, sum, max) = match &self.greeting.report {
            Some(r) => {
                let (sum, max) = (r.reconnect_ms + r.outage_ms, r.reconnect_max_ms);
                let count = r.reconnects + u64::from(r.outage_ms > 0);
                (r.attempts, r.welcomes + 1, r.failures, count, sum, max.max(r.outage_ms))
            }
            None => {
                let ((dials, welcomes), (count, sum, max)) = (shown.dials, self.shown.outages);
                (dials, welcomes, dials - welcomes, count, sum, max)
            }
        };
        let (up, down) = self.times(now);
        let (beats, lost) = (self.rates.beats.sum(now, RECENT), self.rates.lost.sum(now, RECENT));
        let packed = self.rates.packed.sum(now, RECENT);
        let packs = self.rates.packs.sum(now, RECENT);
        Summary {
            totals: shown,
            rtt: self.rtt.summary(),
            rtt_recent: self.rtt.recent(12),
            worker_rtt_ms: self.reported.rtt_ms,
            now: LinkNow {
                suspicion: silent.map(|us| self.phi.suspicion(us as f64 / 1000.0)),
                silent_ms: silent.map(|us| us / 1000),
                gone_ms: self.absence.gone.map(|at| now.saturating_sub(at) / 1000),
            },
            returns: Returns {
                per_minute: self.reconnects_per_minute(now),
                dials: (attempts, welcomes, failures),
                took_ms: (count > 0).then(|| (count, sum as f64 / count as f64, max)),
                stability: if up + down == 0 { 1.0 } else { up as f64 / (up + down) as f64 },
                loss: (beats > 0.1).then(|| lost / beats),
            },
            goodput: (
                self.rates.up.per_second(now, GOODPUT),
                self.rates.down.per_second(now, GOODPUT),
            ),
            resync_ms: self.greeting.resync_ms,
            ends: LinkEnds {
                newest: self.ends.newest.as_deref().cloned(),
                causes: self.ends.causes.clone(),
            },
            compression: ((packs >= 0.5).then(|| self.rates.raw.sum(now, RECENT) / packed), packs),
            restored: self.reported.restored,
        }
    }

    /// Milliseconds with a link and without.
    fn times(&self, now: Micros) -> (u64, u64) {
        let open = |since: Option<Micros>| since.map_or(0, |at| now.saturating_sub(at) / 1000);
        let up = open(self.link.as_ref().map(|l| l.since)).saturating_sub(self.shown.before.0);
        let down = open(self.absence.gone).saturating_sub(self.shown.before.1);
        (self.shown.up_ms + up, self.shown.down_ms + down)
    }

    /// Share of the time with a link.
    pub fn stability(&self, now: Micros) -> f64 {
        let (up, down) = self.times(now);
        if up + down == 0 { 1.0 } else { up as f64 / (up + down) as f64 }
    }

    /// Returns within the last minute.
    pub fn reconnects_per_minute(&self, now: Micros) -> u32 {
        let since = (now.saturating_sub(MINUTE) / 1_000_000) as u32;
        self.absence.returns.iter().filter(|at| **at > since || now < MINUTE).count() as u32
    }

    /// The newest round-trip time in milliseconds.
    pub fn last_rtt(&self) -> Option<f32> {
        self.rtt.last()
    }

    /// Bytes per second, from the worker and to it.
    pub fn goodput(&self, now: Micros) -> (f64, f64) {
        (self.rates.up.per_second(now, GOODPUT), self.rates.down.per_second(now, GOODPUT))
    }

    /// Mean of the newest round-trip times in milliseconds, and how many these are.
    pub fn recent_rtt(&self) -> (f64, u32) {
        self.rtt.recent(12)
    }

    /// Returns the end of the newest link that ended.
    pub fn end(&self) -> Option<&End> {
        self.ends.newest.as_deref()
    }

    /// Milliseconds since the link ended against the worker's will; none while there is one.
    pub fn cut_off_ms(&self, now: Micros) -> Option<u64> {
        let wanted = self.ends.newest.as_ref().is_some_and(|e| e.1 == LinkCause::Stopped);
        self.absence.gone.filter(|_| !wanted).map(|at| now.saturating_sub(at) / 1000)
    }

    /// Compression ratio of recent messages, and how many these were.
    pub fn compression(&self, now: Micros) -> (f64, u32) {
        let (raw, packed) = (self.rates.raw.sum(now, RECENT), self.rates.packed.sum(now, RECENT));
        (if packed > 0.0 { raw / packed } else { 1.0 }, self.rates.packs.sum(now, RECENT) as u32)
    }
}
