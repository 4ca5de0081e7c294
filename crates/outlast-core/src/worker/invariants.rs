//! Consistency of a worker's memory, between its attempts, lanes, link and whatever waits for the disk; and the
//! snapshot of a store that applied all its records.

use super::session::Link;
use super::{Ending, Worker};
use crate::invariants::{Checked, must};
use crate::records::WorkerSnapshot;
use std::collections::BTreeSet;

impl Worker {
    /// Checks what must hold after every input.
    ///
    /// # Errors
    /// The first contradiction.
    pub fn invariants(&self) -> Result<(), String> {
        self.attempts.invariants()?;
        self.outbox.invariants()?;
        self.checkpoints.invariants()?;
        self.states.invariants()?;
        self.check_attempts()?;
        self.check_link()?;
        let waiting: Vec<u64> = self.after.iter().map(|(b, _)| *b).collect();
        let good = waiting.is_sorted() && waiting.iter().all(|b| *b > self.persisted);
        must(good, || format!("answers wait for {waiting:?}; {} is durable", self.persisted))
    }

    fn check_attempts(&self) -> Checked {
        let starts: BTreeSet<_> = self.starts.values().collect();
        for id in self.attempts.reserved() {
            let starts =
                starts.contains(&(id.task.clone(), id.epoch)) || self.ending >= Ending::Stop;
            must(starts, || format!("{}.{} has slots, and never starts", id.task, id.epoch))?;
        }
        for (id, ..) in self.attempts.all() {
            let ended = self.outbox.holds(&id.task, id.epoch);
            must(!ended, || format!("{}.{} is held, and has ended", id.task, id.epoch))?;
        }
        let may = self.ending < Ending::Stop && !self.fitness.stops_work();
        must(!may || !self.attempts.could_start(), || {
            "an attempt waits though slots are free".into()
        })?;
        let early = self.starts.keys().all(|(batch, _)| *batch > self.persisted);
        must(early || self.fitness.stops_work(), || "starts wait for what is durable".into())
    }

    fn check_link(&self) -> Checked {
        match self.link {
            Link::Up { .. } => {
                must(self.lost.is_none(), || "the link is up, and lost".into())?;
                let next = self.checkpoints.to_upload();
                let uploads = next == self.uploading;
                must(uploads, || format!("{:?} is uploaded, not {next:?}", self.uploading))
            }
            Link::Waiting { .. } | Link::Dialling { .. } | Link::Hello { .. } => {
                must(self.lost.is_some(), || "there is no link, and none was lost".into())?;
                must(self.uploading.is_none(), || "a blob is uploaded without a link".into())?;
                let noted = self.lost_noted || self.attempts.count() == (0, 0);
                must(noted, || "attempts are held, and their lease is not on record".into())
            }
            Link::Failed | Link::Shutdown => Ok(()),
        }
    }

    /// Snapshot of a store that has applied all records, as far as memory knows it: without next sequences,
    /// the time of a start, and the time at which the link was lost.
    pub fn snapshot(&self) -> WorkerSnapshot {
        WorkerSnapshot {
            store_id: self.store_id.clone(),
            incarnation: self.incarnation,
            coordinator_id: self.coordinator_id.clone(),
            attempts: self.attempts.rows(),
            outbox: self.outbox.rows(),
            checkpoints: self.checkpoints.rows(),
            states: self.states.rows(),
            ..WorkerSnapshot::default()
        }
    }

    /// Returns whether the store has the loss of the link on record.
    pub fn has_noted_loss(&self) -> bool {
        self.lost_noted
    }
}
