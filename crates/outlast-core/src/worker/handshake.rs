//! The handshake on a new link: hello, inventory, and the coordinator's answer.

use super::machine::Worker;
use super::output::Output;
use crate::records::WorkerRecord;
use crate::{Millis, Now};
use outlast_model::message::{
    Hello, Holding, HoldingState, Inventory, Refused, RefusedCode, ToCoordinator, Welcome,
};
use outlast_model::{Lane, LinkCause, PROTOCOL};
use std::sync::Arc;

/// Attempts named in one frame of an inventory.
const INVENTORY_CHUNK: usize = 512;

impl Worker {
    /// The dial succeeded: says hello and what is held.
    pub fn on_connected(&mut self, now: Now) {
        if !self.uplink.connected(now, self.adaptation.detector.current()) {
            return;
        }
        let (c, identity) = (&self.config, &self.identity);
        let (lost_cause, lost_reason) = self.uplink.lost_why();
        let hello = Hello {
            protocol: PROTOCOL,
            worker_id: c.name.clone(),
            store_id: identity.store_id.to_string(),
            incarnation: identity.incarnation,
            connection: self.uplink.connection(),
            coordinator_id: identity.coordinator_id.as_deref().unwrap_or_default().into(),
            slots: c.slots,
            prefetch: c.prefetch,
            capabilities_json: c.capabilities.clone(),
            labels: c.labels.clone().into_iter().collect(),
            version: c.version.clone(),
            draining: self.seems_to_drain(),
            unfit: self.unfit(),
            takes_settled: true,
            lost_reason: lost_reason.to_owned(),
            lost_cause,
            // A lane delivers only what is durable.
            link: Some(Box::new(self.uplink.report(now, self.lanes.durable()))),
            nonce: c.nonce,
        };
        self.journal.output(Output::Send(ToCoordinator::Hello(Box::new(hello))));
        self.send_inventory();
    }

    fn send_inventory(&mut self) {
        // The inventory reports the starts, too.
        self.starts.take_unreported();
        let held = self.attempts.all().map(|(id, a)| Holding {
            paused: a.paused,
            task: id.task.clone(),
            epoch: id.epoch,
            state: if a.is_running() { HoldingState::Running } else { HoldingState::Queued },
            started_at_ms: a.since().map_or(0, |at| at.wall),
        });
        let done = self.lanes.outcomes().map(|o| Holding {
            paused: false,
            task: o.task.clone(),
            epoch: o.epoch,
            state: HoldingState::Finished,
            started_at_ms: o.started_at_ms,
        });
        let all: Vec<Holding> = held.chain(done).collect();
        let chunks = all.len().div_ceil(INVENTORY_CHUNK).max(1);
        let mut rest = all.into_iter();
        for n in 1..=chunks {
            let holdings = rest.by_ref().take(INVENTORY_CHUNK).collect();
            let part = Inventory { holdings, last: n == chunks };
            self.journal.output(Output::Send(ToCoordinator::Inventory(part)));
        }
    }

    pub(super) fn on_welcome(&mut self, now: Now, welcome: Welcome) {
        if self.identity.coordinator_id.is_none() {
            let id: Arc<str> = welcome.coordinator_id.as_str().into();
            self.journal.record(WorkerRecord::Joined { coordinator_id: id.clone() });
            self.identity.coordinator_id = Some(id);
        }
        let Some(outage) = self.uplink.accepted(now, &mut self.journal) else { return };
        self.adaptation.accepted(now.mono, outage);
        self.attempts.renew();
        for lane in [Lane::Results, Lane::Checkpoints, Lane::State] {
            let known = welcome.cursors.iter().find(|c| c.lane == lane).map_or(0, |c| c.seq);
            self.lanes.resume(lane, known, welcome.credit.into(), &mut self.journal);
        }
        self.journal.output(Output::State(crate::stats::ConnectionState::Connected, String::new()));
        self.report_starts();
        self.adaptation.report_all(&mut self.journal);
        self.adapt_heartbeat(now);
        self.accepted(now, welcome.takes_unsaved);
    }

    pub(super) fn on_refused(&mut self, now: Now, refused: &Refused) {
        let reason = format!("refused: {}", refused.reason);
        self.hang_up(now, LinkCause::Refused, &reason);
        let later = now.mono + Millis::from(refused.retry_after_ms);
        if refused.code == RefusedCode::Copy {
            // Whatever runs here may run there, too.
            self.identity.copied = Some(refused.reason.clone());
            self.uplink.give_up(&reason, &mut self.journal);
            self.stop(now);
        } else if !refused.retry {
            self.uplink.give_up(&reason, &mut self.journal);
        } else if refused.code == RefusedCode::Busy {
            // The coordinator's admission time replaces the backoff.
            self.uplink.dial_at(later);
        } else {
            self.uplink.dial_after(later);
        }
    }
}
