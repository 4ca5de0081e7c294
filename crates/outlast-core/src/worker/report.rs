//! The worker's report on its links: values that only the worker knows, for display.

use super::Worker;
use crate::Now;
use outlast_model::Lane;
use outlast_model::message::{Cursor, LinkReport};

impl Worker {
    /// A task has read a checkpoint back.
    pub fn on_restored(&mut self) {
        self.restored += 1;
    }

    /// Returns the report on its links so far, for a handshake.
    pub(super) fn report(&self, now: Now) -> LinkReport {
        let s = &self.stats;
        let (reconnects, reconnect_ms, reconnect_max_ms) = s.reconnects;
        // What is not durable cannot be delivered in its lane.
        let owed = [
            (Lane::Results, self.outbox.durable_seq()),
            (Lane::Checkpoints, self.checkpoints.durable_seq()),
            (Lane::State, self.states.durable_seq()),
        ];
        LinkReport {
            attempts: s.connection_attempts,
            welcomes: s.successful_connections,
            failures: s.failed_connections,
            reconnects,
            reconnect_ms,
            reconnect_max_ms,
            outage_ms: s.outage(now),
            connected_ms: s.connected_time(now),
            disconnected_ms: s.disconnected_time(now),
            beats: self.beats,
            owed: owed.map(|(lane, seq)| Cursor { lane, seq }).to_vec(),
        }
    }
}
