//! Consistency of a worker's memory, between its attempts, lanes, link and whatever waits for the disk; and the
//! snapshot of a store that applied all its records.

use super::machine::{Ending, Worker};
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
        self.lanes.invariants()?;
        self.uplink.invariants(!self.attempts.is_empty())?;
        self.adaptation.invariants()?;
        self.fitness.invariants(self.journal.durable(), self.journal.open())?;
        self.check_attempts()?;
        self.check_starts()?;
        self.check_link()?;
        self.journal.invariants()
    }

    fn check_attempts(&self) -> Checked {
        for (id, _) in self.attempts.all() {
            let ended = self.lanes.has_outcome(id);
            must(!ended, || format!("{}.{} is held, and has ended", id.task, id.epoch))?;
        }
        let may = self.ending < Ending::Stop && !self.fitness.stops_work();
        must(!may || !self.attempts.could_start(), || {
            "an attempt waits though slots are free".into()
        })
    }

    /// Attempts that are reserved are those whose start waits for the disk, unless the worker stops.
    fn check_starts(&self) -> Checked {
        let starts: BTreeSet<_> = self.starts.waiting().map(|(_, id)| id).collect();
        let reserved: BTreeSet<_> = self.attempts.reserved().collect();
        let stops = self.ending >= Ending::Stop && starts.is_empty();
        must(starts == reserved || stops, || {
            format!("{reserved:?} are reserved, and {starts:?} are to start")
        })?;
        match self.fitness.stops_work() {
            true => Ok(()),
            false => self.journal.check_waits(
                "starts",
                self.journal.durable(),
                self.starts.waiting().map(|(batch, _)| batch),
            ),
        }
    }

    fn check_link(&self) -> Checked {
        let known = self.identity.coordinator_id.is_some();
        must(known || !self.uplink.is_up(), || "the link is up, to an unknown coordinator".into())?;
        match self.uplink.has_ended() {
            true => must(self.ending == Ending::Over, || "the link has ended early".into()),
            false => self.lanes.check_upload(self.uplink.is_up()),
        }
    }

    /// Snapshot of a store that has applied all records, as far as memory knows it: without next sequences,
    /// the time of a start, and the time at which the link was lost.
    pub fn snapshot(&self) -> WorkerSnapshot {
        let mut snapshot = WorkerSnapshot {
            store_id: self.identity.store_id.clone(),
            incarnation: self.identity.incarnation,
            coordinator_id: self.identity.coordinator_id.clone(),
            attempts: self.attempts.rows(),
            ..WorkerSnapshot::default()
        };
        self.lanes.snapshot(&mut snapshot);
        snapshot
    }

    /// Returns whether the store has the loss of the link on record.
    pub fn has_recorded_loss(&self) -> bool {
        self.uplink.has_recorded_loss()
    }
}
