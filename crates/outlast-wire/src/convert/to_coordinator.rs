//! Messages of workers.

use super::{Unexpected, each, name, twins};
use crate::v2::{self, body::Kind, outbox_item};
use outlast_model::message::{
    Adapted, Happened, Hello, Holding, HoldingState, Inventory, LinkReport, OutboxBatch,
    OutboxItem, ToCoordinator,
};
use outlast_model::{Lane, LinkCause, TaskId};
use std::sync::Arc;

impl From<ToCoordinator> for Kind {
    fn from(message: ToCoordinator) -> Kind {
        match message {
            ToCoordinator::Hello(hello) => Kind::Hello((*hello).into()),
            ToCoordinator::Inventory(part) => Kind::Inventory(part.into()),
            ToCoordinator::Outbox(batch) => Kind::Outbox(batch.into()),
            ToCoordinator::Started(starts) => {
                let (attempts, at_ms) = starts.into_iter().map(|(id, at)| (id.into(), at)).unzip();
                Kind::Started(v2::Started { attempts, at_ms })
            }
            ToCoordinator::Bye(reason) => Kind::Bye(v2::Bye { reason }),
            ToCoordinator::Happened(h) => Kind::Happened(v2::Happened {
                attempt: Some(h.attempt.into()),
                kind: h.kind.into(),
                note: h.note,
                at_ms: h.at_ms,
            }),
            ToCoordinator::Adapted(a) => Kind::Adapted(a.into()),
            ToCoordinator::Unsaved(outcomes) => {
                Kind::Unsaved(v2::Unsaved { outcomes: each(outcomes) })
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
            Kind::Inventory(part) => ToCoordinator::Inventory(part.into()),
            Kind::Outbox(batch) => ToCoordinator::Outbox(batch.into()),
            Kind::Started(started) => {
                let attempts = started.attempts.into_iter().map(Into::into);
                ToCoordinator::Started(attempts.zip(started.at_ms).collect())
            }
            Kind::Bye(bye) => ToCoordinator::Bye(bye.reason),
            Kind::Happened(h) => ToCoordinator::Happened(Happened {
                attempt: h.attempt.unwrap_or_default().into(),
                kind: h.kind.into(),
                note: h.note,
                at_ms: h.at_ms,
            }),
            Kind::Adapted(a) => ToCoordinator::Adapted(a.into()),
            Kind::Unsaved(unsaved) => ToCoordinator::Unsaved(each(unsaved.outcomes)),
            Kind::Heartbeat(beat) => ToCoordinator::Heartbeat(beat.into()),
            Kind::HeartbeatReply(reply) => ToCoordinator::HeartbeatReply(reply.seq),
            _ => return Err(Unexpected),
        })
    }
}

twins! { Hello = Hello {
    same: [
        protocol, worker_id, store_id, incarnation, connection, coordinator_id, slots, prefetch, capabilities_json,
        labels, version, draining, lost_reason, takes_settled, nonce,
    ],
    lost_cause => lost_cause: i32::from, LinkCause::from;
    link => link: boxed, boxed;
    unfit => unfit: each, each;
} }

fn boxed<T, U: From<T>>(value: Option<Box<T>>) -> Option<Box<U>> {
    value.map(|value| Box::new((*value).into()))
}

twins! { LinkReport = LinkReport {
    same: [
        attempts, welcomes, failures, reconnects, reconnect_ms, reconnect_max_ms, outage_ms, connected_ms,
        disconnected_ms, beats,
    ],
    owed => owed: each, each;
} }

twins! { Inventory = Inventory {
    same: [last],
    holdings => holdings: each, each;
} }

twins! { Holding = Holding {
    same: [epoch, started_at_ms, paused],
    task => task_id: name, TaskId::from;
    state => state: i32::from, HoldingState::from;
} }

twins! { Adapted = Adapted {
    same: [setting, from, to, why, at_ms, configured, minor],
} }

twins! { OutboxBatch = OutboxBatch {
    same: [first_seq, seqs, prev_seq],
    lane => lane: i32::from, Lane::from;
    items => items: each, each;
} }

impl From<OutboxItem> for v2::OutboxItem {
    fn from(item: OutboxItem) -> v2::OutboxItem {
        use outbox_item::Kind;
        let kind = match item {
            OutboxItem::Outcome(o) => Some(Kind::Outcome(Arc::unwrap_or_clone(o).into())),
            OutboxItem::Checkpoint(c) => Some(Kind::Checkpoint(Arc::unwrap_or_clone(c).into())),
            OutboxItem::State(s) => Some(Kind::State(Arc::unwrap_or_clone(s).into())),
            OutboxItem::Nothing => None,
        };
        v2::OutboxItem { kind }
    }
}

impl From<v2::OutboxItem> for OutboxItem {
    fn from(item: v2::OutboxItem) -> OutboxItem {
        use outbox_item::Kind;
        match item.kind {
            Some(Kind::Outcome(o)) => OutboxItem::Outcome(Arc::new(o.into())),
            Some(Kind::Checkpoint(c)) => OutboxItem::Checkpoint(Arc::new(c.into())),
            Some(Kind::State(s)) => OutboxItem::State(Arc::new(s.into())),
            None => OutboxItem::Nothing,
        }
    }
}
