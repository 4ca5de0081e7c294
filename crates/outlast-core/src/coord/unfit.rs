//! Workers that say that they cannot work: they are given nothing, what runs there is moved once
//! its window has passed, and outcomes that they cannot make durable are kept here.

use super::conn::Arrival;
use super::coordinator::Coordinator;
use super::faults::{Faults, Unable};
use super::ids::ConnId;
use super::loads::{Facts, Query, Wants};
use super::news::LinkChange;
use super::outbox::MAX_NUMBER;
use super::task::Task;
use super::undurable::Beside;
use super::workers::Member;
use crate::records::TaskState;
use crate::scheduler::WorkerKey;
use crate::{AttemptId, Millis, Now, TaskId};
use outlast_model::message::{StopReason, ToCoordinator, ToWorker};
use outlast_model::spec::Rerun;
use outlast_model::{Cause, TaskOutcome, Unfit, Unfitness};
use std::sync::Arc;

/// Faults of one worker that are kept.
const MAX_FAULTS: usize = 8;
/// The longest reason that is kept, in characters.
const MAX_REASON: usize = 300;

/// Time in milliseconds for a worker that cannot write its store to return its running attempts.
const GIVES_BACK: Millis = 30_000;

impl Coordinator {
    /// A worker says what does not work there; nothing: all does.
    pub(super) fn set_unfit(&mut self, now: Now, key: WorkerKey, list: &[Unfitness]) {
        let list = &list[..list.len().min(MAX_FAULTS)];
        let member = self.fleet.get_mut(key);
        if list.is_empty() {
            if member.unable.take().is_some() {
                self.fleet.offer(&mut self.scheduler, key);
                self.publish(now, key, LinkChange::Unfit(None));
            }
            return;
        }
        let tidy = |c: char| if c.is_control() { ' ' } else { c };
        let says: Vec<String> = list.iter().map(Unfitness::says).collect();
        let says = says.join("; ").chars().take(MAX_REASON).map(tidy).collect::<String>();
        let before = member.unable.as_ref();
        let at = before.map_or((now.mono, now.wall), |u| (u.since, u.faults.since));
        let faults = Faults {
            says,
            sources: list.iter().map(|u| u.source.word()).collect(),
            unfit: list.iter().any(|u| u.source.stops_work()),
            since: at.1,
        };
        if before.is_some_and(|u| *u.faults == faults) {
            return;
        }
        let store = list.iter().any(|u| u.source == Unfit::Store);
        let faults = Arc::new(faults);
        member.unable = Some(Unable { faults: faults.clone(), since: at.0, store });
        self.fleet.offer(&mut self.scheduler, key);
        self.publish(now, key, LinkChange::Unfit(Some(faults)));
    }

    /// Reassigns attempts of a worker that cannot write its store once their window has passed, if another
    /// worker could run them: the worker is asked to return them, and if it does not, they are lost.
    /// Attempts that must not run twice stay.
    pub(super) fn relieve(&mut self, now: Now) {
        let mut due: Vec<(WorkerKey, AttemptId, bool)> = Vec::new();
        for (key, member) in self.fleet.iter() {
            let Some(unable) = member.unable.as_ref().filter(|u| u.store) else { continue };
            if member.link.conn.is_none() {
                continue;
            }
            let ill = now.mono.saturating_sub(unable.since);
            for id in member.held.attempts.keys() {
                let Some(task) = self.tasks.get(&id.task) else { continue };
                let movable = task.is_current(key, id.epoch)
                    && task.window() <= ill
                    && task.spec.rerun == Rerun::Allowed
                    && !task.is_cancelling()
                    && !task.paused;
                let asked = task.is_misplaced(&member.row.name);
                let again = asked && ill >= task.window() + GIVES_BACK;
                let fits = |t: &Task| {
                    let requires = self.requires_of(t);
                    self.scheduler.fitting(&requires, t.spec.slots).next().is_some()
                };
                if movable && (again || task.asked.place.is_none()) && fits(task) {
                    due.push((key, id.clone(), again));
                }
            }
        }
        for (key, id, again) in due {
            let member = self.fleet.get(key);
            let name = member.row.name.clone();
            let says = member.unable.as_ref().map_or("", |u| &u.faults.says);
            if again {
                let reason = format!("worker {name} {says}, and does not give it back");
                self.send_stop(key, &id.task, id.epoch, StopReason::Superseded);
                self.lose(now, &id.task, &reason, Cause::Machine, None);
                continue;
            }
            let note = format!("to be moved away from {name}, which {says}");
            self.note(now, &id.task, id.epoch, note);
            self.tasks.placed.insert((now.mono + super::config::MOVE_PATIENCE.0, id.task.clone()));
            self.change_asked(&id.task, |asked| asked.place = Some((name, false)));
            self.send_stop(key, &id.task, id.epoch, StopReason::Move);
        }
    }

    /// Outcomes that are not durable at their worker: each takes effect as if it had come in its
    /// lane, and is acknowledged once it is durable here.
    pub(super) fn on_unsaved(
        &mut self,
        now: Now,
        conn: ConnId,
        key: WorkerKey,
        outcomes: Vec<TaskOutcome>,
        facts: &Facts,
    ) -> Option<(Arrival, Vec<Query>)> {
        let worker = self.fleet.get(key).row.store_id.clone();
        let (mut attempts, mut missing) = (Vec::new(), Vec::new());
        let mut rest = outcomes.into_iter().filter(|o| o.epoch < MAX_NUMBER).peekable();
        while let Some(outcome) = rest.next_if(|outcome| {
            let mut wants = Wants::new(facts);
            self.wants_of_attempt(key, &outcome.attempt(), &mut wants);
            missing = wants.missing();
            missing.is_empty()
        }) {
            let id = outcome.attempt();
            attempts.push(id.clone());
            // Its end frees its slots, whether or not it counts.
            self.fleet.get_mut(key).drop_attempt(&id);
            if !self.is_given(key, &id, facts) {
                self.drop_foreign(now, key, "outcome", &id.task, id.epoch);
                continue;
            }
            if self.is_recorded(key, &id, &outcome, facts) {
                self.counters.outbox.repeated += 1;
                continue;
            }
            let (batch, worker) = (self.journal.open(), worker.clone());
            let outcome = Arc::new(outcome);
            self.counters.outbox.unsaved += 1;
            self.on_outcome(now, key, outcome.clone(), facts);
            self.undurable.beside.push_back(Beside { batch, worker, id, outcome });
        }
        self.fleet.update_room(&mut self.scheduler, key);
        let rest: Vec<TaskOutcome> = rest.collect();
        if !attempts.is_empty() || rest.is_empty() {
            self.send(conn, ToWorker::Saved(attempts));
        }
        let rest = (!rest.is_empty()).then_some(rest)?;
        Some((Arrival::Message(ToCoordinator::Unsaved(rest)), missing))
    }

    /// Returns true if this outcome was recorded before: it may come outside of its lane, in its lane, and
    /// again from a store that forgot that it was sent.
    pub(super) fn is_recorded(
        &self,
        key: WorkerKey,
        id: &AttemptId,
        outcome: &TaskOutcome,
        facts: &Facts,
    ) -> bool {
        // The outcome of a current attempt is its first.
        if self.tasks.get(&id.task).is_some_and(|t| t.is_current(key, id.epoch)) {
            return false;
        }
        self.outcomes_of(key, id, facts).iter().any(|known| is_same(known, outcome))
    }

    /// Returns true if the attempt has ended according to its worker, so that it is not resumed.
    pub(super) fn has_ended(&self, key: WorkerKey, id: &AttemptId, facts: &Facts) -> bool {
        !self.outcomes_of(key, id, facts).is_empty()
    }

    /// The outcomes of an attempt that this worker delivered.
    fn outcomes_of(&self, key: WorkerKey, id: &AttemptId, facts: &Facts) -> Vec<Arc<TaskOutcome>> {
        let store = &self.fleet.get(key).row.store_id;
        let past = facts.attempts(&id.task, store).into_iter().filter(|p| p.epoch == id.epoch);
        let beside = self.undurable.beside.iter().filter(|b| b.worker == *store && b.id == *id);
        past.flat_map(|p| p.outcomes).chain(beside.map(|b| b.outcome.clone())).collect()
    }

    /// Adds the connected workers that cannot work to the explanation why a task waits.
    pub(super) fn with_unfit(&self, why: String) -> String {
        let unfit = self.fleet.iter().filter(|(_, m)| m.link.conn.is_some() && m.is_unfit());
        let says = |m: &Member| m.unable.as_ref().map(|u| u.faults.says.clone());
        let named: Vec<String> = unfit
            .filter_map(|(_, m)| Some(format!("{} {}", m.row.name, says(m)?)))
            .take(3)
            .collect();
        match named.is_empty() {
            true => why,
            false => format!("{why}; {}", named.join("; ")),
        }
    }

    /// Returns the worker of its attempt, if that cannot work: name and reported faults.
    pub fn hindered(&self, id: &TaskId) -> Option<(Arc<str>, Arc<Faults>)> {
        let task = self.tasks.get(id).filter(|t| t.state() == TaskState::Assigned)?;
        let member = self.fleet.find(task.worker()?)?;
        Some((member.row.name.clone(), member.unable.as_ref()?.faults.clone()))
    }

    /// Another worker is to be tried first: where it failed, the machine was at fault.
    pub(super) fn prefer_another(&mut self, now: Now, id: &TaskId, key: WorkerKey) {
        let free = |t: &&Task| t.state() == TaskState::Pending && t.asked.place.is_none();
        let Some(task) = self.tasks.get(id).filter(free) else { return };
        let (name, slots) = (self.fleet.get(key).row.name.clone(), task.spec.slots);
        let mut requires = self.requires_of(task);
        requires.add_worker(&name, false);
        if self.scheduler.fitting(&requires, slots).next().is_none() {
            return;
        }
        self.tasks.placed.insert((now.mono + super::config::MOVE_PATIENCE.0, id.clone()));
        self.place(id, Some((name, false)));
    }
}

/// Returns true if two outcomes of one attempt at one worker are the same end: it ends once. Additions
/// by the worker (its last checkpoint, a doubt about a failing disk) may differ after a crash.
fn is_same(known: &TaskOutcome, other: &TaskOutcome) -> bool {
    let times = |o: &TaskOutcome| (o.started_at_ms, o.finished_at_ms);
    let doubted = known.cause == Cause::Machine && known.started_at_ms > 0;
    times(known) == times(other) && (known.kind == other.kind || doubted)
}
