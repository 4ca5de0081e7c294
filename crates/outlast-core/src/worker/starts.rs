//! Starts of attempts: those that wait for the disk, those that the coordinator has yet to learn of, and how
//! many attempts are handed over ahead of their slots.

use super::config::StageConfig;
use crate::AttemptId;
use outlast_model::TaskOutcome;
use std::collections::BTreeMap;

/// See the module.
#[derive(Debug)]
pub(super) struct Starts {
    /// Reserved attempts, by the batch that must be durable first and the order of reservation.
    waiting: BTreeMap<(u64, u64), AttemptId>,
    order: u64,
    /// Starts on record that the open link has not carried, with their times (Unix ms).
    unreported: Vec<(AttemptId, i64)>,
    stage: StageConfig,
    slots: u32,
    /// Mean duration of recent tasks in milliseconds.
    typical: Option<f64>,
}

impl Starts {
    pub fn new(stage: StageConfig, slots: u32) -> Starts {
        Starts {
            waiting: BTreeMap::new(),
            order: 0,
            unreported: Vec::new(),
            stage,
            slots,
            typical: None,
        }
    }

    /// Lets a reserved attempt wait for a batch.
    pub fn wait(&mut self, batch: u64, id: AttemptId) {
        self.waiting.insert((batch, self.order), id);
        self.order += 1;
    }

    /// Returns the next attempt that rests on nothing after this batch, once.
    pub fn take_durable(&mut self, durable: u64) -> Option<AttemptId> {
        let first = self.waiting.first_entry()?;
        (first.key().0 <= durable).then(|| first.remove())
    }

    /// Returns all attempts that wait: none of them starts.
    pub fn take_all(&mut self) -> impl Iterator<Item = AttemptId> + use<> {
        std::mem::take(&mut self.waiting).into_values()
    }

    /// Removes an attempt that has ended before it started.
    pub fn cancel(&mut self, id: &AttemptId) {
        self.waiting.retain(|_, waiting| waiting != id);
    }

    /// Keeps a start to be reported.
    pub fn add_unreported(&mut self, id: AttemptId, at: i64) {
        self.unreported.push((id, at));
    }

    /// Returns the starts to be reported, once.
    pub fn take_unreported(&mut self) -> Vec<(AttemptId, i64)> {
        std::mem::take(&mut self.unreported)
    }

    /// Returns how many attempts may be handed over ahead, after this outcome: some while tasks are so
    /// short that a round trip between two would matter.
    pub fn learn(&mut self, outcome: &TaskOutcome) -> Option<usize> {
        if outcome.started_at_ms <= 0 {
            return None;
        }
        let ms = (outcome.finished_at_ms - outcome.started_at_ms).max(0) as f64;
        let mean = self.typical.map_or(ms, |old| old * 0.8 + ms * 0.2);
        self.typical = Some(mean);
        let enough = f64::from(self.slots) * self.stage.work / mean.max(0.05);
        let ahead = (enough as usize).min(self.stage.limit);
        Some(if mean < self.stage.below { ahead } else { 0 })
    }

    /// Returns the attempts that wait, each with its batch, in order.
    pub fn waiting(&self) -> impl Iterator<Item = (u64, &AttemptId)> {
        self.waiting.iter().map(|((batch, _), id)| (*batch, id))
    }
}
