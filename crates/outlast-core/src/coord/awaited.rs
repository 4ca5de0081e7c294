//! Checkpoints that an ended attempt left at its worker. Outcomes travel before checkpoints, so an
//! outcome names the newest one; the next attempt goes where it lies or waits until it arrives.

use super::coordinator::Coordinator;
use super::task::Task;
use crate::records::{Awaited, TaskState};
use crate::scheduler::WorkerKey;
use crate::{Epoch, Millis, Now, TaskId};
use outlast_model::TaskOutcome;

/// Longest wait for a checkpoint of a worker whose link is up, in milliseconds. 1 GiB takes as
/// long at 3.5 MB/s.
pub(super) const WAIT_LINKED: Millis = 300_000;
/// Longest wait for one of a worker whose link is down, from the loss of the link, in milliseconds:
/// a few dials, since a worker that stays away longer may never come back.
pub(super) const WAIT_UNLINKED: Millis = 30_000;

impl Task {
    /// The place of the newest checkpoint that is kept.
    fn newest_kept(&self) -> Option<(Epoch, u64)> {
        self.reported.checkpoints.last().map(|c| (c.epoch, c.number))
    }
}

impl Coordinator {
    /// An attempt ended and its task is pending again: waits for the checkpoint that its outcome
    /// names, unless that has arrived.
    pub(super) fn await_checkpoint(
        &mut self,
        now: Now,
        id: &TaskId,
        holder: Option<WorkerKey>,
        outcome: Option<&TaskOutcome>,
    ) {
        let Some(task) = self.tasks.get(id) else { return };
        let named = outcome.and_then(|o| o.checkpoint);
        let member = holder.and_then(|key| self.fleet.find(key));
        if let Some((epoch, number)) = named
            && let Some(member) = member
            && (task.after < epoch && epoch <= task.epoch)
            && Some((epoch, number)) > task.newest_kept()
        {
            let worker = member.row.store_id.clone();
            self.change_asked(id, |a| a.awaited = Some(Awaited { epoch, number, worker }));
        }
        if self.tasks.get(id).is_some_and(|t| t.asked.awaited.is_some()) {
            self.tasks.awaiting.insert(id.clone(), now.mono);
        }
    }

    /// A checkpoint arrived, or word that it was dropped.
    pub(super) fn on_awaited(&mut self, now: Now, id: &TaskId, place: (Epoch, u64), dropped: bool) {
        let Some(task) = self.tasks.get(id) else { return };
        let Some(awaited) = task.asked.awaited.clone().filter(|a| a.place() <= place) else {
            return;
        };
        if dropped && awaited.place() == place {
            self.stop_awaiting(now, id, "its worker dropped it");
        } else if !dropped {
            self.change_asked(id, |a| a.awaited = None);
            self.tasks.awaiting.remove(id);
            self.requeue_waiting(id);
        }
    }

    /// Tasks that have waited long enough go on without the checkpoint.
    pub(super) fn end_awaiting(&mut self, now: Now) {
        let mut late = Vec::new();
        for (id, since) in &self.tasks.awaiting {
            let Some(task) = self.tasks.get(id) else {
                late.push((id.clone(), None));
                continue;
            };
            let Some(awaited) = task.asked.awaited.as_ref() else {
                late.push((id.clone(), None));
                continue;
            };
            if task.state() != TaskState::Pending {
                continue;
            }
            let member = self.fleet.by_store(&awaited.worker).map(|key| self.fleet.get(key));
            let why = match member {
                None => Some("its worker is not known any more"),
                Some(m) if m.link.conn.is_none() && now.mono >= m.link.gone + WAIT_UNLINKED => {
                    Some("its worker is away")
                }
                Some(_) if now.mono >= since + WAIT_LINKED => Some("it did not arrive in time"),
                Some(_) => None,
            };
            if why.is_some() {
                late.push((id.clone(), why));
            }
        }
        for (id, why) in late {
            match why {
                Some(why) => self.stop_awaiting(now, &id, why),
                None => drop(self.tasks.awaiting.remove(&id)),
            }
        }
    }

    /// Goes on from an older checkpoint, and leaves a note of it.
    fn stop_awaiting(&mut self, now: Now, id: &TaskId, why: &str) {
        self.tasks.awaiting.remove(id);
        let Some(task) = self.tasks.get(id) else { return };
        let Some(Awaited { epoch, number, worker }) = task.asked.awaited.clone() else { return };
        let from = match task.newest_kept() {
            Some((epoch, number)) => format!("checkpoint {epoch}-{number}"),
            None => "the start".to_owned(),
        };
        let key = self.fleet.by_store(&worker);
        let name = key.map_or(worker, |key| self.fleet.get(key).row.name.clone());
        let note = format!(
            "checkpoint {epoch}-{number} of worker {name} is out of reach ({why}): \
             the next attempt goes on from {from}"
        );
        let current = task.epoch;
        self.note(now, id, current, note);
        self.change_asked(id, |a| a.awaited = None);
        self.requeue_waiting(id);
    }

    /// A pending task's needs changed.
    fn requeue_waiting(&mut self, id: &TaskId) {
        if self.tasks.get(id).is_some_and(|t| t.state() == TaskState::Pending) {
            self.scheduler.remove(id);
            self.enqueue(id);
        }
    }

    /// Explains why a pending task waits for a checkpoint.
    pub(super) fn explain_awaited(&self, id: &TaskId) -> Option<String> {
        let task = self.tasks.get(id).filter(|t| t.state() == TaskState::Pending)?;
        let Awaited { epoch, number, worker } = task.asked.awaited.as_ref()?;
        let member = self.fleet.get(self.fleet.by_store(worker)?);
        let name = &member.row.name;
        let how = match member.link.conn.is_some() {
            true => format!("which is sending it, or for room there; {} s", WAIT_LINKED / 1000),
            false => format!("which is away; {} s", WAIT_UNLINKED / 1000),
        };
        Some(format!(
            "waits for checkpoint {epoch}-{number} of its last attempt from worker {name}, {how} \
             at most"
        ))
    }
}
