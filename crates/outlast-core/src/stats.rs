//! Statistics of a worker about its link over time.

use crate::{Millis, Now};
use std::collections::VecDeque;

/// Newest latency samples kept.
pub const LATENCY_SAMPLES: usize = 100;

/// State of a worker's link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionState {
    /// Accepted by the coordinator.
    Connected,
    /// Dialling or waiting for the welcome.
    Connecting,
    /// Waiting to dial again.
    Disconnected,
    /// Stopped until a reconnect is forced.
    Failed,
    /// Closed on purpose.
    Shutdown,
}

impl ConnectionState {
    /// The word that users see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "CONNECTED",
            Self::Connecting => "CONNECTING",
            Self::Disconnected => "DISCONNECTED",
            Self::Failed => "FAILED",
            Self::Shutdown => "SHUTDOWN",
        }
    }
}

/// Statistics of a worker's link, since its process started.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ConnectionStats {
    /// Dials.
    pub connection_attempts: u64,
    /// Welcomes.
    pub successful_connections: u64,
    /// Dials that ended without a welcome.
    pub failed_connections: u64,
    /// Unix time in milliseconds of the newest welcome.
    pub last_connected: Option<i64>,
    /// Unix time in milliseconds of the newest loss.
    pub last_disconnected: Option<i64>,
    /// Times from a loss to the next welcome: how many, their sum and the longest, in milliseconds.
    pub reconnects: (u64, Millis, Millis),
    latency: VecDeque<f64>,
    connected_ms: Millis,
    disconnected_ms: Millis,
    since: Option<(Millis, bool)>,
}

impl ConnectionStats {
    /// The link came up or went down.
    pub fn connected(&mut self, now: Now, up: bool) {
        let outage = self.outage(now);
        if up && outage > 0 {
            let (count, sum, max) = self.reconnects;
            self.reconnects = (count + 1, sum + outage, max.max(outage));
        }
        self.connected_ms = self.connected_time(now);
        // `connected_time` was computed with the old `since`; do the same for the other side.
        self.disconnected_ms = self.disconnected_time(now);
        self.since = Some((now.mono, up));
        if up {
            self.successful_connections += 1;
            self.last_connected = Some(now.wall);
        } else {
            self.last_disconnected = Some(now.wall);
        }
    }
    /// Forgets all but whether the link is up.
    pub fn reset(&mut self, now: Now) {
        let since = self.since.map(|(_, up)| (now.mono, up));
        *self = ConnectionStats { since, ..Default::default() };
    }
    /// Adds a round-trip time in milliseconds.
    pub fn add_latency_sample(&mut self, ms: f64) {
        if self.latency.len() == LATENCY_SAMPLES {
            self.latency.pop_front();
        }
        self.latency.push_back(ms);
    }
    /// The newest round-trip times in milliseconds, oldest first.
    pub fn latency_samples(&self) -> impl Iterator<Item = f64> + '_ {
        self.latency.iter().copied()
    }
    /// Mean round-trip time in milliseconds; 0 without samples.
    pub fn average_latency(&self) -> f64 {
        if self.latency.is_empty() {
            return 0.0;
        }
        self.latency.iter().sum::<f64>() / self.latency.len() as f64
    }
    /// Milliseconds spent connected.
    pub fn connected_time(&self, now: Now) -> Millis {
        self.connected_ms + self.open_span(now, true)
    }
    /// Milliseconds spent cut off, from the first loss on.
    pub fn disconnected_time(&self, now: Now) -> Millis {
        self.disconnected_ms + self.open_span(now, false)
    }
    /// Milliseconds since the loss of the link; 0 while there is one, and before the first.
    pub fn outage(&self, now: Now) -> Millis {
        self.open_span(now, false)
    }
    fn open_span(&self, now: Now, up: bool) -> Millis {
        match self.since {
            Some((at, was)) if was == up => now.mono.saturating_sub(at),
            _ => 0,
        }
    }
    /// Share of the time spent connected; 1 before there is any.
    pub fn connection_stability(&self, now: Now) -> f64 {
        let (up, down) = (self.connected_time(now), self.disconnected_time(now));
        if up + down == 0 { 1.0 } else { up as f64 / (up + down) as f64 }
    }
    /// Share of dials that led to a welcome; 1 before the first dial.
    pub fn connection_success_rate(&self) -> f64 {
        if self.connection_attempts == 0 {
            return 1.0;
        }
        self.successful_connections as f64 / self.connection_attempts as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_split_between_up_and_down() {
        let at = |mono| Now { mono, wall: mono as i64 };
        let mut s = ConnectionStats::default();
        assert_eq!((s.connection_stability(at(5)), s.connection_success_rate()), (1.0, 1.0));
        s.connected(at(100), true);
        s.connected(at(400), false);
        assert_eq!((s.connected_time(at(500)), s.disconnected_time(at(500))), (300, 100));
        assert_eq!(s.connection_stability(at(500)), 0.75);
        s.connected(at(500), true);
        assert_eq!((s.connected_time(at(600)), s.disconnected_time(at(600))), (400, 100));
        assert_eq!((s.reconnects, s.outage(at(600))), ((1, 100, 100), 0));
        s.reset(at(600));
        assert_eq!((s.connected_time(at(650)), s.disconnected_time(at(650))), (50, 0));
        for i in 0..200 {
            s.add_latency_sample(f64::from(i));
        }
        assert_eq!(s.latency_samples().count(), LATENCY_SAMPLES);
        assert_eq!(s.average_latency(), 149.5);
    }
}
