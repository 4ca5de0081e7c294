//! The worker's three durable lanes and the upload that the lane of checkpoints waits for.

use super::adaptation::Adaptation;
use super::outbox::{Outbox, States};
use super::output::{Output, WorkerJournal};
use crate::invariants::{Checked, must};
use crate::records::{WorkerRecord, WorkerSnapshot};
use crate::retention::prunable;
use crate::{AttemptId, Epoch, Millis};
use outlast_model::message::{Cursor, ToCoordinator};
use outlast_model::packing::BULK_TARGET;
use outlast_model::spec::KeepCheckpoints;
use outlast_model::{Bytes, Checkpoint, Lane, StateUpdate, TaskOutcome};
use std::sync::Arc;

/// See the module.
#[derive(Debug)]
pub(super) struct Lanes {
    results: Outbox<TaskOutcome>,
    checkpoints: Outbox<Checkpoint>,
    states: States,
    /// The blob that the driver was asked to upload.
    uploading: Option<Bytes>,
}

impl Lanes {
    /// Takes the lanes of a snapshot.
    pub fn take(snapshot: &mut WorkerSnapshot) -> Lanes {
        let take = std::mem::take;
        Lanes {
            results: Outbox::new(std::mem::take(&mut snapshot.outbox), snapshot.next_seq),
            checkpoints: Outbox::new(take(&mut snapshot.checkpoints), snapshot.next_checkpoint),
            states: States::new(std::mem::take(&mut snapshot.states), snapshot.next_state),
            uploading: None,
        }
    }

    /// Returns the number of items that are not acknowledged.
    pub fn len(&self) -> usize {
        self.results.len() + self.checkpoints.len() + self.states.len()
    }

    /// Handles that everything up to this batch is durable.
    pub fn persisted(&mut self, batch: u64) {
        self.results.persisted(batch);
        self.checkpoints.persisted(batch);
        self.states.persisted(batch);
    }

    /// Returns the newest sequences that are durable, with all before them.
    pub fn durable(&self) -> Vec<Cursor> {
        let all = [
            (Lane::Results, self.results.durable_seq()),
            (Lane::Checkpoints, self.checkpoints.durable_seq()),
            (Lane::State, self.states.durable_seq()),
        ];
        all.map(|(lane, seq)| Cursor { lane, seq }).to_vec()
    }

    fn last_seq(&self, lane: Lane) -> Option<u64> {
        match lane {
            Lane::Results => Some(self.results.last_seq()),
            Lane::Checkpoints => Some(self.checkpoints.last_seq()),
            Lane::State => Some(self.states.last_seq()),
            _ => None,
        }
    }

    /// Drops what is acknowledged.
    pub fn acked(&mut self, Cursor { lane, seq }: Cursor, journal: &mut WorkerJournal) {
        // An acknowledgement of what was never sent would delete results: ignore it.
        if self.last_seq(lane).is_none_or(|last| seq > last) {
            return;
        }
        let news = match lane {
            Lane::Results => self.results.acked(seq),
            Lane::Checkpoints => self.checkpoints.acked(seq),
            _ => self.states.acked(seq),
        };
        if news {
            journal.record(WorkerRecord::Acked { lane, seq });
        }
    }

    /// A lane goes on from the coordinator's cursor.
    pub fn resume(&mut self, lane: Lane, cursor: u64, credit: u64, journal: &mut WorkerJournal) {
        let last = self.last_seq(lane).unwrap_or(0);
        if cursor > last {
            journal.record(WorkerRecord::Acked { lane, seq: last });
            self.renumber(lane, cursor, journal);
        } else if cursor > 0 {
            self.acked(Cursor { lane, seq: cursor }, journal);
        }
        match lane {
            Lane::Results => self.results.open(cursor, credit),
            Lane::Checkpoints => self.checkpoints.open(cursor, credit),
            _ => self.states.open(cursor, credit),
        }
    }

    fn renumber(&mut self, lane: Lane, cursor: u64, journal: &mut WorkerJournal) {
        let batch = journal.open();
        match lane {
            Lane::Results => {
                for (seq, outcome) in self.results.renumber(cursor, batch) {
                    journal.record(WorkerRecord::Finished { lane, seq, outcome });
                }
            }
            Lane::Checkpoints => {
                let moved = self.checkpoints.renumber(cursor, batch);
                record_checkpoints(moved, journal);
            }
            _ => {
                for (seq, update) in self.states.renumber(cursor, batch) {
                    journal.record(WorkerRecord::State { seq, replaces: None, update });
                }
            }
        }
    }

    /// Sends what is durable, within the windows and the credit: results first, then checkpoints, then
    /// states, and these `at_once` or in their share of the link.
    pub fn send(
        &mut self,
        now: Millis,
        adapt: &mut Adaptation,
        at_once: bool,
        journal: &mut WorkerJournal,
    ) {
        macro_rules! lane {
            ($lane:expr, $at:expr) => {
                while let Some(limit) = adapt.window.frame($at)
                    && let Some((frame, last, size)) = $lane.next_frame(limit)
                {
                    adapt.window.sent($at, last, size, now);
                    journal.output(Output::Send(ToCoordinator::Outbox(frame)));
                }
            };
        }
        lane!(self.results, 0);
        lane!(self.checkpoints, 1);
        while (at_once || now >= adapt.bandwidth.states_after())
            && let Some(limit) = adapt.window.frame(2)
            && let Some((frame, last, size)) = self.states.next_frame(limit)
        {
            adapt.window.sent(2, last, size, now);
            adapt.bandwidth.states_sent(size, adapt.window.goodput(), now);
            journal.output(Output::Send(ToCoordinator::Outbox(frame)));
        }
        let next = self.checkpoints.to_upload();
        if next != self.uploading {
            self.uploading.clone_from(&next);
            journal.output(Output::Upload(next));
        }
    }

    /// Returns true if a state waits that the open link has not carried.
    pub fn has_unsent_states(&self) -> bool {
        self.states.has_unsent()
    }

    /// Returns the first contradiction.
    pub fn invariants(&self) -> Checked {
        self.results.invariants()?;
        self.checkpoints.invariants()?;
        self.states.invariants()
    }

    /// Checks that what must be uploaded is; `up`: the link is up.
    pub fn check_upload(&self, up: bool) -> Checked {
        let next = self.checkpoints.to_upload().filter(|_| up);
        must(next == self.uploading, || format!("{:?} is uploaded, not {next:?}", self.uploading))
    }

    /// Writes what a store has of the lanes.
    pub fn snapshot(&self, snapshot: &mut WorkerSnapshot) {
        snapshot.outbox = self.results.rows();
        snapshot.checkpoints = self.checkpoints.rows();
        snapshot.states = self.states.rows();
    }
}

/// Outcomes.
impl Lanes {
    /// Appends an outcome, on record.
    pub fn add_outcome(&mut self, outcome: Arc<TaskOutcome>, journal: &mut WorkerJournal) {
        let (lane, seq) = (Lane::Results, self.results.push(journal.open(), outcome.clone()));
        journal.record(WorkerRecord::Finished { lane, seq, outcome });
    }

    /// Returns true if the outcome of this attempt waits here.
    pub fn has_outcome(&self, id: &AttemptId) -> bool {
        self.results.holds(id)
    }

    pub fn outcomes(&self) -> impl Iterator<Item = &TaskOutcome> {
        self.results.all()
    }

    /// Changes outcomes that are not durable here and were not sent.
    pub fn change_unsaved(&mut self, change: impl Fn(&TaskOutcome) -> TaskOutcome) {
        self.results.change_unsaved(change);
    }

    /// Sends outcomes that cannot become durable here, beside their lane.
    pub fn send_unsaved(&mut self, journal: &mut WorkerJournal) {
        while let Some(mut outcomes) = self.results.next_unsaved(BULK_TARGET) {
            for o in &mut outcomes {
                // A crash would take a checkpoint along that is not durable: nobody waits for it.
                o.checkpoint = o.checkpoint.and_then(|c| self.checkpoints.durable(&o.task, c));
            }
            journal.output(Output::Send(ToCoordinator::Unsaved(outcomes)));
        }
    }

    /// The coordinator has made this outcome durable, beside the lane.
    pub fn saved(&mut self, id: &AttemptId) {
        self.results.saved(id);
    }

    /// Returns the number of outcomes that are not known to be durable at the coordinator.
    pub fn unacknowledged(&self) -> usize {
        self.results.unacknowledged()
    }

    /// Returns true if every outcome is durable, here or at the coordinator.
    pub fn is_saved(&self) -> bool {
        self.results.is_saved()
    }
}

/// Checkpoints and states.
impl Lanes {
    /// Appends a checkpoint, on record, and gives up the uploads that `rule` makes needless.
    pub fn add_checkpoint(
        &mut self,
        checkpoint: &Arc<Checkpoint>,
        rule: &KeepCheckpoints,
        journal: &mut WorkerJournal,
    ) {
        let seq = self.checkpoints.push(journal.open(), checkpoint.clone());
        journal.record(WorkerRecord::Checkpoint { seq, checkpoint: checkpoint.clone() });
        // A checkpoint that would not be kept by the time that it arrived need not travel. But one on its
        // way goes on, or a link that is slower than the checkpoints come would never bring one.
        let (task, epoch) = (&checkpoint.task, checkpoint.epoch);
        let needless = prunable(&self.checkpoints.waiting(task, epoch), rule);
        let uploading = self.uploading.clone();
        let which = |c: &Checkpoint| {
            c.task == *task
                && needless.contains(&(c.epoch, c.number))
                && uploading.as_ref() != Some(&c.manifest)
        };
        self.give_up(which, journal);
    }

    fn give_up(&mut self, which: impl Fn(&Checkpoint) -> bool, journal: &mut WorkerJournal) {
        let dropped = self.checkpoints.give_up(which, journal.open());
        record_checkpoints(dropped, journal);
    }

    /// Appends a state, on record.
    pub fn add_state(&mut self, update: Arc<StateUpdate>, journal: &mut WorkerJournal) {
        let (seq, replaces) = self.states.push(journal.open(), update.clone());
        journal.record(WorkerRecord::State { seq, replaces, update });
    }

    /// The upload is complete, or (false) it can never be.
    pub fn uploaded(&mut self, manifest: &[u8], complete: bool, journal: &mut WorkerJournal) {
        match complete {
            true => self.checkpoints.uploaded(manifest),
            false => self.give_up(|c| c.manifest == manifest, journal),
        }
        self.end_upload(manifest);
    }

    /// The coordinator has no room for this blob: others that wait are tried before it.
    pub fn postpone(&mut self, manifest: &[u8], journal: &mut WorkerJournal) {
        let moved = self.checkpoints.postpone(manifest, journal.open());
        record_checkpoints(moved, journal);
        self.end_upload(manifest);
    }

    fn end_upload(&mut self, manifest: &[u8]) {
        if self.uploading.as_deref() == Some(manifest) {
            self.uploading = None;
        }
    }

    /// Without a link nothing is uploaded.
    pub fn stop_upload(&mut self, journal: &mut WorkerJournal) {
        if self.uploading.take().is_some() {
            journal.output(Output::Upload(None));
        }
    }

    /// The coordinator does not have this blob.
    pub fn missing(&mut self, manifest: &[u8]) {
        self.checkpoints.missing(manifest);
    }

    /// Returns the checkpoints of an attempt that wait for their upload, oldest first.
    pub fn waiting_checkpoints(&self, task: &str, epoch: Epoch) -> Vec<Arc<Checkpoint>> {
        self.checkpoints.waiting(task, epoch)
    }

    /// Returns the checkpoints of a task's attempts in this range that have not reached the coordinator.
    pub fn sending<'a>(
        &'a self,
        task: &'a str,
        epochs: impl std::ops::RangeBounds<Epoch> + 'a,
    ) -> impl Iterator<Item = &'a Arc<Checkpoint>> {
        self.checkpoints.shared().filter(move |c| {
            epochs.contains(&c.epoch) && *c.task == *task && c.artifact.is_empty() && !c.dropped
        })
    }

    /// Returns true if this checkpoint was dropped before it reached the coordinator.
    pub fn was_dropped(&self, checkpoint: &Checkpoint) -> bool {
        let place = (checkpoint.epoch, checkpoint.number);
        let mut all = self.checkpoints.all();
        all.any(|c| c.dropped && c.task == checkpoint.task && (c.epoch, c.number) == place)
    }

    /// Returns the blobs that are needed for what is here.
    pub fn blobs(&self) -> impl Iterator<Item = Bytes> {
        self.checkpoints.blobs()
    }
}

fn record_checkpoints(all: Vec<(u64, Arc<Checkpoint>)>, journal: &mut WorkerJournal) {
    for (seq, checkpoint) in all {
        journal.record(WorkerRecord::Checkpoint { seq, checkpoint });
    }
}
