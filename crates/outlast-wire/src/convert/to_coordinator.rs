//! Messages of workers.

use super::{Unexpected, all, attempt, attempt_id, cursor, cursor_of};
use crate::v2::{self, body::Kind, outbox_item};
use outlast_model::message::{
    Adapted, Happened, HappenedKind, Hello, Holding, HoldingState, Inventory, LinkReport,
    OutboxBatch, OutboxItem, ToCoordinator,
};
use outlast_model::{Lane, LinkCause};
use std::sync::Arc;

impl From<ToCoordinator> for Kind {
    fn from(message: ToCoordinator) -> Kind {
        match message {
            ToCoordinator::Hello(hello) => Kind::Hello((*hello).into()),
            ToCoordinator::Inventory(part) => Kind::Inventory(v2::Inventory {
                holdings: all(part.holdings, Into::into),
                last: part.last,
            }),
            ToCoordinator::Outbox(batch) => Kind::Outbox(batch.into()),
            ToCoordinator::Started(starts) => {
                let (attempts, at_ms) =
                    starts.into_iter().map(|(id, at)| (attempt(id), at)).unzip();
                Kind::Started(v2::Started { attempts, at_ms })
            }
            ToCoordinator::Bye(reason) => Kind::Bye(v2::Bye { reason }),
            ToCoordinator::Happened(h) => Kind::Happened(v2::Happened {
                attempt: Some(attempt(h.attempt)),
                kind: h.kind.number(),
                note: h.note,
                at_ms: h.at_ms,
            }),
            ToCoordinator::Adapted(a) => Kind::Adapted(a.into()),
            ToCoordinator::Unsaved(outcomes) => {
                Kind::Unsaved(v2::Unsaved { outcomes: all(outcomes, Into::into) })
            }
            ToCoordinator::Heartbeat(beat) => Kind::Heartbeat(beat.into()),
            ToCoordinator::HeartbeatReply(seq) => Kind::HeartbeatReply(v2::HeartbeatReply { seq }),
        }
    }
}

impl TryFrom<Kind> for ToCoordinator {
    type Error = Unexpected;

    fn try_from(kind: Kind) -> Result<ToCoordinator, Unexpected> {
        Ok(match kind {
            Kind::Hello(hello) => ToCoordinator::Hello(Box::new(hello.into())),
            Kind::Inventory(part) => ToCoordinator::Inventory(Inventory {
                holdings: all(part.holdings, Into::into),
                last: part.last,
            }),
            Kind::Outbox(batch) => ToCoordinator::Outbox(batch.into()),
            Kind::Started(started) => {
                let attempts = started.attempts.into_iter().map(attempt_id);
                ToCoordinator::Started(attempts.zip(started.at_ms).collect())
            }
            Kind::Bye(bye) => ToCoordinator::Bye(bye.reason),
            Kind::Happened(h) => ToCoordinator::Happened(Happened {
                attempt: attempt_id(h.attempt.unwrap_or_default()),
                kind: HappenedKind::of(h.kind.into()),
                note: h.note,
                at_ms: h.at_ms,
            }),
            Kind::Adapted(a) => ToCoordinator::Adapted(a.into()),
            Kind::Unsaved(unsaved) => ToCoordinator::Unsaved(all(unsaved.outcomes, Into::into)),
            Kind::Heartbeat(beat) => ToCoordinator::Heartbeat(beat.into()),
            Kind::HeartbeatReply(reply) => ToCoordinator::HeartbeatReply(reply.seq),
            _ => return Err(Unexpected),
        })
    }
}

impl From<Hello> for v2::Hello {
    fn from(h: Hello) -> v2::Hello {
        v2::Hello {
            protocol: h.protocol,
            worker_id: h.worker_id,
            store_id: h.store_id,
            incarnation: h.incarnation,
            connection: h.connection,
            coordinator_id: h.coordinator_id,
            slots: h.slots,
            prefetch: h.prefetch,
            capabilities_json: h.capabilities_json,
            labels: h.labels,
            version: h.version,
            draining: h.draining,
            lost_reason: h.lost_reason,
            lost_cause: h.lost_cause.number(),
            link: h.link.map(|link| Box::new((*link).into())),
            unfit: all(h.unfit, Into::into),
            takes_settled: h.takes_settled,
            nonce: h.nonce,
        }
    }
}

impl From<v2::Hello> for Hello {
    fn from(h: v2::Hello) -> Hello {
        Hello {
            protocol: h.protocol,
            worker_id: h.worker_id,
            store_id: h.store_id,
            incarnation: h.incarnation,
            connection: h.connection,
            coordinator_id: h.coordinator_id,
            slots: h.slots,
            prefetch: h.prefetch,
            capabilities_json: h.capabilities_json,
            labels: h.labels,
            version: h.version,
            draining: h.draining,
            lost_reason: h.lost_reason,
            lost_cause: LinkCause::of(h.lost_cause.into()),
            link: h.link.map(|link| Box::new((*link).into())),
            unfit: all(h.unfit, Into::into),
            takes_settled: h.takes_settled,
            nonce: h.nonce,
        }
    }
}

impl From<LinkReport> for v2::LinkReport {
    fn from(r: LinkReport) -> v2::LinkReport {
        v2::LinkReport {
            attempts: r.attempts,
            welcomes: r.welcomes,
            failures: r.failures,
            reconnects: r.reconnects,
            reconnect_ms: r.reconnect_ms,
            reconnect_max_ms: r.reconnect_max_ms,
            outage_ms: r.outage_ms,
            connected_ms: r.connected_ms,
            disconnected_ms: r.disconnected_ms,
            beats: r.beats,
            owed: all(r.owed, cursor),
        }
    }
}

impl From<v2::LinkReport> for LinkReport {
    fn from(r: v2::LinkReport) -> LinkReport {
        LinkReport {
            attempts: r.attempts,
            welcomes: r.welcomes,
            failures: r.failures,
            reconnects: r.reconnects,
            reconnect_ms: r.reconnect_ms,
            reconnect_max_ms: r.reconnect_max_ms,
            outage_ms: r.outage_ms,
            connected_ms: r.connected_ms,
            disconnected_ms: r.disconnected_ms,
            beats: r.beats,
            owed: all(r.owed, cursor_of),
        }
    }
}

impl From<Holding> for v2::Holding {
    fn from(h: Holding) -> v2::Holding {
        v2::Holding {
            task_id: h.task.to_string(),
            epoch: h.epoch,
            state: h.state.number(),
            started_at_ms: h.started_at_ms,
            paused: h.paused,
        }
    }
}

impl From<v2::Holding> for Holding {
    fn from(h: v2::Holding) -> Holding {
        Holding {
            task: h.task_id.into(),
            epoch: h.epoch,
            state: HoldingState::of(h.state.into()),
            started_at_ms: h.started_at_ms,
            paused: h.paused,
        }
    }
}

impl From<OutboxBatch> for v2::OutboxBatch {
    fn from(b: OutboxBatch) -> v2::OutboxBatch {
        let item = |item| v2::OutboxItem {
            kind: match item {
                OutboxItem::Outcome(o) => {
                    Some(outbox_item::Kind::Outcome(Arc::unwrap_or_clone(o).into()))
                }
                OutboxItem::Checkpoint(c) => {
                    Some(outbox_item::Kind::Checkpoint(Arc::unwrap_or_clone(c).into()))
                }
                OutboxItem::State(s) => {
                    Some(outbox_item::Kind::State(Arc::unwrap_or_clone(s).into()))
                }
                OutboxItem::Nothing => None,
            },
        };
        v2::OutboxBatch {
            lane: b.lane.number(),
            first_seq: b.first_seq,
            items: all(b.items, item),
            seqs: b.seqs,
            prev_seq: b.prev_seq,
        }
    }
}

impl From<v2::OutboxBatch> for OutboxBatch {
    fn from(b: v2::OutboxBatch) -> OutboxBatch {
        let item = |item: v2::OutboxItem| match item.kind {
            Some(outbox_item::Kind::Outcome(o)) => OutboxItem::Outcome(Arc::new(o.into())),
            Some(outbox_item::Kind::Checkpoint(c)) => OutboxItem::Checkpoint(Arc::new(c.into())),
            Some(outbox_item::Kind::State(s)) => OutboxItem::State(Arc::new(s.into())),
            None => OutboxItem::Nothing,
        };
        OutboxBatch {
            lane: Lane::of(b.lane.into()),
            first_seq: b.first_seq,
            items: all(b.items, item),
            seqs: b.seqs,
            prev_seq: b.prev_seq,
        }
    }
}

impl From<Adapted> for v2::Adapted {
    fn from(a: Adapted) -> v2::Adapted {
        v2::Adapted {
            setting: a.setting,
            from: a.from,
            to: a.to,
            why: a.why,
            at_ms: a.at_ms,
            configured: a.configured,
            minor: a.minor,
        }
    }
}

impl From<v2::Adapted> for Adapted {
    fn from(a: v2::Adapted) -> Adapted {
        Adapted {
            setting: a.setting,
            from: a.from,
            to: a.to,
            why: a.why,
            at_ms: a.at_ms,
            configured: a.configured,
            minor: a.minor,
        }
    }
}
