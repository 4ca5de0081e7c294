//! The worker's link: dial, hello, heartbeats, silence, and what arrives.

use super::attempts::Arrival;
use super::{Ending, Given, Output, StopKind, Worker};
use crate::health::Heart;
use crate::records::WorkerRecord;
use crate::stats::ConnectionState;
use crate::{AttemptId, Millis, Now, TaskId};
use outlast_model::message::{
    Assignment, Cursor, Heartbeat, Hello, Holding, HoldingState, Inventory, Refused, RefusedCode,
    StopReason, ToCoordinator, ToWorker, Welcome,
};
use outlast_model::{Cause, Lane, LinkCause, OutcomeKind, PROTOCOL};

use std::sync::Arc;

/// Attempts named in one frame of an inventory.
const INVENTORY_CHUNK: usize = 512;
/// An attempt that has run this long gets its start on record, in milliseconds.
const MARK_AFTER: Millis = 200;
/// Starts are put on record at most so often, in milliseconds.
const MARK_EVERY: Millis = 50;
/// A tick this much later than asked for means that the process was stopped or the machine
/// slept, in milliseconds.
const LATE: Millis = 5_000;

/// The stages of a link.
#[derive(Debug)]
pub(super) enum Link {
    Waiting { until: Millis },
    Dialling { since: Millis },
    Hello { heart: Heart },
    Up { heart: Heart },
    Failed,
    Shutdown,
}

impl Link {
    pub fn state(&self) -> ConnectionState {
        match self {
            Link::Waiting { .. } => ConnectionState::Disconnected,
            Link::Dialling { .. } | Link::Hello { .. } => ConnectionState::Connecting,
            Link::Up { .. } => ConnectionState::Connected,
            Link::Failed => ConnectionState::Failed,
            Link::Shutdown => ConnectionState::Shutdown,
        }
    }
    pub fn heart(&mut self) -> Option<&mut Heart> {
        match self {
            Link::Hello { heart } | Link::Up { heart } => Some(heart),
            _ => None,
        }
    }
}

impl Worker {
    /// The dial succeeded: says hello and what is held.
    pub fn on_connected(&mut self, now: Now) {
        if !matches!(self.link, Link::Dialling { .. }) {
            return;
        }
        self.probe.end();
        let (interval, timeout) = self.pace.patience.current();
        let heart = Heart::new(interval, timeout, now.mono);
        self.link = Link::Hello { heart };
        let c = &self.config;
        let hello = Hello {
            protocol: PROTOCOL,
            worker_id: c.name.clone(),
            store_id: self.store_id.to_string(),
            incarnation: self.incarnation,
            connection: self.connection,
            coordinator_id: self.coordinator_id.as_deref().unwrap_or_default().into(),
            slots: c.slots,
            prefetch: c.prefetch,
            capabilities_json: c.capabilities.clone(),
            labels: c.labels.clone().into_iter().collect(),
            version: c.version.clone(),
            draining: self.seems_to_drain(),
            unfit: self.unfit(),
            takes_settled: true,
            lost_reason: self.lost_why.1.clone(),
            lost_cause: self.lost_why.0,
            link: Some(Box::new(self.report(now))),
            nonce: c.nonce,
        };
        self.outputs.push_back(Output::Send(ToCoordinator::Hello(Box::new(hello))));
        self.send_inventory();
    }

    /// The link ended, or the dial failed.
    pub fn on_disconnected(&mut self, now: Now, reason: &str) {
        self.on_lost(now, LinkCause::Closed, reason);
    }

    fn on_lost(&mut self, now: Now, cause: LinkCause, reason: &str) {
        match self.link {
            Link::Up { ref heart } => {
                self.beats = heart.sent();
                self.stats.connected(now, false);
                let lasted = now.mono.saturating_sub(self.up_since);
                self.lost = Some(now.mono);
                if self.attempts.count() != (0, 0) {
                    self.note_lost(now);
                }
                self.pace.patience.lost(cause == LinkCause::Silent);
                self.pace.thrift.lost(now.mono);
                self.lost_why = (cause, reason.to_owned());
                if self.uploading.take().is_some() {
                    self.outputs.push_back(Output::Upload(None));
                }
                // One that ends as soon as it is up must not be dialled in a circle.
                if lasted >= self.config.heartbeat_interval {
                    let until = now.mono + self.backoff.lost(&mut self.rng);
                    self.wait_to_dial(until, reason);
                } else {
                    self.retry(now, reason);
                }
            }
            Link::Hello { .. } | Link::Dialling { .. } => {
                self.stats.failed_connections += 1;
                self.retry(now, reason);
            }
            _ => {}
        }
    }

    /// Dials at once, whatever the backoff says; also out of FAILED.
    pub fn force_reconnect(&mut self, now: Now) {
        if matches!(self.link, Link::Shutdown) {
            return;
        }
        if self.link.state() != ConnectionState::Disconnected {
            self.hang_up(now, LinkCause::Closed, "reconnect was asked for");
        }
        self.backoff.reset();
        self.link = Link::Waiting { until: now.mono };
        self.on_tick(now);
    }

    /// Time has passed.
    pub fn on_tick(&mut self, now: Now) {
        let late = self.is_late(now);
        self.last_tick = now.mono;
        self.pace.clock = self.pace.clock.max(now.mono);
        for (id, at) in self.attempts.unmarked(now.mono.saturating_sub(MARK_AFTER)) {
            let (task, epoch) = (id.task.clone(), id.epoch);
            self.records.push(WorkerRecord::Starting { task, epoch, at: at.wall });
            self.is_untold(id, at.wall);
        }
        self.tell_starts();
        self.watch_store(now, late);
        self.attend(now);
        if self.wants_probe(now) {
            self.outputs.push_back(Output::Probe);
        }
        let dial_limit = self.config.heartbeat_timeout;
        match &mut self.link {
            Link::Waiting { until } if now.mono >= *until => {
                self.link = Link::Dialling { since: now.mono };
                self.connection += 1;
                self.stats.connection_attempts += 1;
                self.outputs.push_back(Output::Dial);
                self.outputs.push_back(Output::State(ConnectionState::Connecting, String::new()));
            }
            Link::Dialling { since } if now.mono >= *since + dial_limit => {
                let reason = "the coordinator could not be reached in time";
                self.hang_up(now, LinkCause::Silent, reason);
                self.begin_probes(now);
            }
            Link::Hello { heart } | Link::Up { heart } => {
                // After a sleep, silence says nothing yet: ask before judging.
                if late {
                    heart.heard(now.mono);
                    heart.beat_soon();
                }
                if heart.expired(now.mono) {
                    let reason = "the coordinator has been silent for too long";
                    self.hang_up(now, LinkCause::Silent, reason);
                } else {
                    self.repace(now);
                    self.beat(now);
                    self.send_outbox();
                }
            }
            _ => {}
        }
    }

    /// Marks a start to be reported. Without a link, the next inventory reports it.
    pub(super) fn is_untold(&mut self, id: AttemptId, at: i64) {
        if matches!(self.link, Link::Hello { .. } | Link::Up { .. }) {
            self.untold.push((id, at));
        }
    }

    /// Reports the starts of running attempts; outcomes report the others.
    pub(super) fn tell_starts(&mut self) {
        if self.untold.is_empty() || !matches!(self.link, Link::Up { .. }) {
            return;
        }
        let mut started = std::mem::take(&mut self.untold);
        started.retain(|(id, _)| self.attempts.is_running(&id.task, id.epoch));
        if !started.is_empty() {
            self.outputs.push_back(Output::Send(ToCoordinator::Started(started)));
        }
    }

    /// Returns true if the process was suspended, or the machine slept, until now.
    pub(super) fn is_late(&self, now: Now) -> bool {
        now.mono.saturating_sub(self.next_wake().max(self.last_tick)) > LATE
    }

    /// Returns the latest time for the next `on_tick`, in milliseconds of `Now::mono`.
    pub fn next_wake(&self) -> Millis {
        let link = match &self.link {
            Link::Waiting { until } => (*until).min(self.probe.next_wake()),
            Link::Dialling { since } => since + self.config.heartbeat_timeout,
            Link::Hello { heart } | Link::Up { heart } => heart.next_wake(),
            Link::Failed | Link::Shutdown => Millis::MAX,
        };
        let mark = self.attempts.first_unmarked().map(|at| at.mono + MARK_AFTER);
        // Many at once are reported in batches.
        let mark = mark.map(|at| at.max(self.last_tick + MARK_EVERY));
        let mark = mark.unwrap_or(Millis::MAX);
        // Leases are not judged between hello and welcome.
        let lost = self.lost.filter(|_| !matches!(self.link, Link::Hello { .. }));
        let attempts = self.attempts.next_wake(lost, self.away);
        link.min(mark).min(attempts).min(self.states_wake()).min(self.fitness.next_wake())
    }

    /// Part of a frame arrived.
    pub fn on_heard(&mut self, now: Now) {
        self.heard(now);
    }

    /// A frame arrived.
    pub fn on_message(&mut self, now: Now, message: ToWorker) {
        if self.link.heart().is_none() {
            return;
        }
        self.heard(now);
        match (message, matches!(self.link, Link::Up { .. })) {
            (ToWorker::Welcome(welcome), false) => self.on_welcome(now, welcome),
            (ToWorker::Refused(refused), _) => self.on_refused(now, &refused),
            (ToWorker::Heartbeat(beat), true) => {
                let reply = ToCoordinator::HeartbeatReply(beat.seq);
                self.outputs.push_back(Output::Send(reply));
            }
            (ToWorker::HeartbeatReply(seq), true) => self.answered(seq, now),
            (ToWorker::Assign(assign), true) => {
                self.on_assign(now, assign);
                if self.pace.patience.is_stretched() {
                    self.repace(now);
                }
            }
            (ToWorker::Stop(attempts, reason), true) => self.on_stop(now, &attempts, reason),
            (ToWorker::Control(attempts, kind), true) => self.on_control(now, &attempts, kind),
            (ToWorker::ResetStats, true) => self.stats.reset(now),
            (ToWorker::Saved(saved), true) => self.on_saved(&saved),
            (ToWorker::Settled, true) => self.on_settled(now),
            (ToWorker::BlobMissing(manifest), true) => {
                self.checkpoints.missing(&manifest);
                self.pace.flow.again(1);
            }
            (ToWorker::Ack(cursors), true) => {
                for cursor in cursors {
                    self.arrived(now, cursor);
                    self.on_ack(cursor);
                }
            }
            _ => {}
        }
        self.send_outbox();
        self.settle();
    }

    fn on_welcome(&mut self, now: Now, welcome: Welcome) {
        let Link::Hello { heart } = &self.link else { return };
        self.link = Link::Up { heart: heart.clone() };
        self.backoff.reset();
        self.probe.end();
        self.up_since = now.mono;
        self.stats.connected(now, true);
        if self.coordinator_id.is_none() {
            let id: Arc<str> = welcome.coordinator_id.as_str().into();
            self.records.push(WorkerRecord::Joined { coordinator_id: id.clone() });
            self.coordinator_id = Some(id);
        }
        let outage = now.mono.saturating_sub(self.lost.take().unwrap_or(now.mono));
        self.away = 0;
        if std::mem::take(&mut self.lost_noted) {
            self.records.push(WorkerRecord::LinkLost { at: None });
        }
        self.pace.patience.back(outage, now.mono);
        self.pace.flow.open();
        self.attempts.renew();
        for lane in [Lane::Results, Lane::Checkpoints, Lane::State] {
            let told = welcome.cursors.iter().find(|c| c.lane == lane);
            self.resume_lane(lane, told.map_or(0, |c| c.seq), welcome.credit.into());
        }
        self.outputs.push_back(Output::State(ConnectionState::Connected, String::new()));
        self.tell_starts();
        self.tell_adapted();
        self.repace(now);
        self.welcomed(now, welcome.takes_unsaved);
    }

    /// A lane goes on from the coordinator's cursor.
    fn resume_lane(&mut self, lane: Lane, cursor: u64, credit: u64) {
        let last = match lane {
            Lane::Results => self.outbox.last_seq(),
            Lane::Checkpoints => self.checkpoints.last_seq(),
            _ => self.states.last_seq(),
        };
        if cursor > last {
            self.records.push(WorkerRecord::Acked { lane, seq: last });
            self.renumber(lane, cursor);
        } else if cursor > 0 {
            self.on_ack(Cursor { lane, seq: cursor });
        }
        match lane {
            Lane::Results => self.outbox.open(cursor, credit),
            Lane::Checkpoints => self.checkpoints.open(cursor, credit),
            _ => self.states.open(cursor, credit),
        }
    }

    fn renumber(&mut self, lane: Lane, cursor: u64) {
        let batch = self.batch;
        match lane {
            Lane::Results => {
                for (seq, outcome) in self.outbox.renumber(cursor, batch) {
                    self.records.push(WorkerRecord::Finished { lane, seq, outcome });
                }
            }
            Lane::Checkpoints => {
                for (seq, checkpoint) in self.checkpoints.renumber(cursor, batch) {
                    self.records.push(WorkerRecord::Checkpoint { seq, checkpoint });
                }
            }
            _ => {
                for (seq, update) in self.states.renumber(cursor, batch) {
                    let replaces = None;
                    self.records.push(WorkerRecord::State { seq, replaces, update });
                }
            }
        }
    }

    fn on_refused(&mut self, now: Now, refused: &Refused) {
        let reason = format!("refused: {}", refused.reason);
        self.hang_up(now, LinkCause::Refused, &reason);
        if refused.code == RefusedCode::Copy {
            // Whatever runs here may run there, too.
            self.copied = Some(refused.reason.clone());
            self.give_up(&reason);
            self.stop(now);
        } else if !refused.retry {
            self.give_up(&reason);
        } else if refused.code == RefusedCode::Busy {
            // The coordinator's admission time replaces the backoff.
            self.backoff.reset();
            self.link = Link::Waiting { until: now.mono + Millis::from(refused.retry_after_ms) };
        } else if let Link::Waiting { until } = &mut self.link {
            *until = (*until).max(now.mono + Millis::from(refused.retry_after_ms));
        }
    }

    fn on_assign(&mut self, now: Now, assignments: Vec<Assignment>) {
        for given in assignments {
            let (task, epoch) = (given.task, given.epoch);
            let held = self.attempts.newest(&task);
            if held.is_some_and(|e| e >= epoch) || self.outbox.holds(&task, epoch) {
                continue;
            }
            if let Some(older) = held {
                self.stop_one(now, &task, older, StopReason::Superseded);
            }
            match given.spec {
                Ok(spec) => {
                    let (paused, after) = (given.paused, given.after);
                    let mut checkpoint = given.checkpoint;
                    checkpoint.iter_mut().for_each(|c| Arc::make_mut(c).detach());
                    let checkpoint = self.newest_checkpoint(&task, epoch, after, checkpoint);
                    self.records.push(WorkerRecord::Accepted {
                        task: task.clone(),
                        epoch,
                        spec: spec.clone(),
                        checkpoint: checkpoint.clone(),
                        paused,
                        after,
                    });
                    let (task, batch, state) = (task.clone(), self.batch, None);
                    self.attempts.insert(Arrival {
                        task,
                        epoch,
                        spec,
                        batch,
                        paused,
                        after,
                        made: 0,
                        checkpoint,
                        state,
                    });
                }
                Err(error) => {
                    let message = &format!("this worker cannot read the task: {error}");
                    let kind = OutcomeKind::Failed;
                    let cause = Cause::NotStarted;
                    self.end_waiting(now, &task, epoch, Given { kind, cause, message });
                }
            }
            if self.ending != Ending::No && self.attempts.holds(&task, epoch) {
                self.end_waiting(now, &task, epoch, Given::BACK_DRAINED);
            }
        }
        if self.fitness.stops_work() {
            self.give_back(now);
        }
        self.start_queued(now);
    }

    fn on_stop(&mut self, now: Now, attempts: &[AttemptId], reason: StopReason) {
        for attempt in attempts {
            self.stop_one(now, &attempt.task, attempt.epoch, reason);
        }
        self.start_queued(now);
    }

    fn stop_one(&mut self, now: Now, task: &TaskId, epoch: u64, reason: StopReason) {
        if self.attempts.is_out(task, epoch) {
            let staged = !self.attempts.is_running(task, epoch);
            let kind = match reason {
                StopReason::Return if staged => {
                    return self.outputs.push_back(Output::Recall(task.clone(), epoch));
                }
                StopReason::Return => return,
                // It cannot go on elsewhere: the move came too late.
                StopReason::Move if self.attempts.runs_once(task, epoch) => return,
                StopReason::Move => StopKind::Interrupt,
                StopReason::Cancelled | StopReason::Superseded => StopKind::Cancel,
            };
            self.outputs.push_back(Output::StopRun(task.clone(), epoch, kind));
        } else if self.attempts.holds(task, epoch) {
            let (kind, cause, message) = match reason {
                StopReason::Return => (OutcomeKind::Returned, Cause::AskedBack, "recalled"),
                StopReason::Move => (OutcomeKind::Returned, Cause::Moved, "moved"),
                StopReason::Cancelled => (OutcomeKind::Cancelled, Cause::Cancelled, "cancelled"),
                StopReason::Superseded => (OutcomeKind::Cancelled, Cause::Superseded, "superseded"),
            };
            self.end_waiting(now, task, epoch, Given { kind, cause, message });
        }
    }

    fn on_ack(&mut self, cursor: Cursor) {
        // An acknowledgement of what was never sent would delete results: ignore it.
        let (lane, seq) = (cursor.lane, cursor.seq);
        let news = match cursor.lane {
            Lane::Results => seq <= self.outbox.last_seq() && self.outbox.acked(seq),
            Lane::Checkpoints => seq <= self.checkpoints.last_seq() && self.checkpoints.acked(seq),
            Lane::State => seq <= self.states.last_seq() && self.states.acked(seq),
            _ => false,
        };
        if news {
            self.records.push(WorkerRecord::Acked { lane, seq });
        }
    }

    fn send_inventory(&mut self) {
        self.untold.clear();
        let held = self.attempts.all().map(|(id, a, at)| Holding {
            paused: a.paused,
            task: id.task.clone(),
            epoch: id.epoch,
            state: match at {
                Some(_) => HoldingState::Running,
                None => HoldingState::Queued,
            },
            started_at_ms: at.map_or(0, |at| at.wall),
        });
        let done = self.outbox.all().map(|o| Holding {
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
            self.outputs.push_back(Output::Send(ToCoordinator::Inventory(part)));
        }
    }

    /// Tells the coordinator at once that no new work is wanted.
    pub(super) fn announce(&mut self, now: Now) {
        if let Some(heart) = self.link.heart() {
            heart.beat_soon();
        }
        self.beat(now);
    }

    fn beat(&mut self, now: Now) {
        let (running, queued, unacked) = self.load();
        let (draining, unfit) = (self.seems_to_drain(), self.unfit());
        let rtt_ms = self.stats.latency_samples().last().unwrap_or(0.0) as u32;
        let Link::Up { heart } = &mut self.link else { return };
        if let Some(seq) = heart.beat(now.mono) {
            let beat = Heartbeat {
                seq,
                running: running as u32,
                queued: queued as u32,
                unacked: unacked as u64,
                rtt_ms,
                draining,
                unfit,
                disk_used: self.disk.0,
                disk_budget: self.disk.1,
                refused: self.disk.2,
                restored: self.restored,
                interval_ms: heart.pace().0.try_into().unwrap_or(u32::MAX),
            };
            self.outputs.push_back(Output::Send(ToCoordinator::Heartbeat(beat)));
        }
    }

    /// Drops the link from this side.
    fn hang_up(&mut self, now: Now, cause: LinkCause, reason: &str) {
        self.outputs.push_back(Output::Close(reason.into()));
        self.on_lost(now, cause, reason);
    }

    fn retry(&mut self, now: Now, reason: &str) {
        let until = now.mono + self.backoff.fail(&mut self.rng);
        self.wait_to_dial(until, reason);
    }

    fn wait_to_dial(&mut self, until: Millis, reason: &str) {
        self.link = Link::Waiting { until };
        self.probe.end_asked();
        let limit = self.config.max_reconnect_attempts;
        if limit > 0 && self.backoff.failures() >= limit {
            self.give_up(&format!("gave up after {limit} attempts: {reason}"));
        } else {
            self.outputs.push_back(Output::State(ConnectionState::Disconnected, reason.into()));
        }
    }

    fn give_up(&mut self, reason: &str) {
        self.link = Link::Failed;
        self.outputs.push_back(Output::State(ConnectionState::Failed, reason.into()));
    }
}
