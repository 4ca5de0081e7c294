//! Workers that say that they cannot work: they are given nothing, what runs there is moved once
//! its window has passed, and outcomes that they cannot make durable are kept here.

use super::links::LinkChange;
use super::outbox::MAX_NUMBER;
use super::workers::Member;
use super::{ConnId, Coordinator, Lookup};
use crate::records::TaskState;
use crate::scheduler::WorkerKey;
use crate::{AttemptId, Millis, Now, TaskId};
use outlast_wire::spec::Rerun;
use outlast_wire::v2::{self, Cause, StopReason, TaskOutcome, Unfit, Unfitness};
use std::sync::Arc;
use v2::body::Kind;

/// Faults of one worker that are kept.
const MAX_FAULTS: usize = 8;
/// The longest reason that is kept, in characters.
const MAX_REASON: usize = 300;

/// How long a worker that cannot write its store may take to give back what runs there, in
/// milliseconds.
const GIVES_BACK: Millis = 30_000;

/// What a worker said of itself that does not work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults {
    /// What and why, after the worker's name: "cannot write its store: No space left on device".
    pub says: String,
    /// The parts that do not work, as words.
    pub sources: Vec<&'static str>,
    /// It is given no work.
    pub unfit: bool,
    /// Unix time in milliseconds of the first report.
    pub since: i64,
}

/// With what the core needs to judge them.
#[derive(Debug)]
pub(super) struct Unable {
    pub faults: Arc<Faults>,
    since: Millis,
    /// Its store cannot be written.
    store: bool,
}

/// An outcome that came beside its lane and is not durable here yet.
#[derive(Debug)]
pub(super) struct Beside {
    batch: u64,
    worker: Arc<str>,
    id: AttemptId,
    outcome: Arc<TaskOutcome>,
}

impl Member {
    /// Whether it said that it cannot work.
    pub fn is_unfit(&self) -> bool {
        self.unable.as_ref().is_some_and(|u| u.faults.unfit)
    }
}

impl Coordinator {
    /// A worker says what does not work there; nothing: all does.
    pub(super) fn set_unfit(&mut self, now: Now, key: WorkerKey, list: &[Unfitness]) {
        let list = &list[..list.len().min(MAX_FAULTS)];
        let member = self.fleet.get_mut(key);
        if list.is_empty() {
            if member.unable.take().is_some() {
                self.fleet.offer(&mut self.scheduler, key);
                self.tell(now, key, LinkChange::Unfit(None));
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
            sources: list.iter().map(|u| u.source().word()).collect(),
            unfit: list.iter().any(|u| u.source().stops_work()),
            since: at.1,
        };
        if before.is_some_and(|u| *u.faults == faults) {
            return;
        }
        let store = list.iter().any(|u| u.source() == Unfit::Store);
        let faults = Arc::new(faults);
        member.unable = Some(Unable { faults: faults.clone(), since: at.0, store });
        self.fleet.offer(&mut self.scheduler, key);
        self.tell(now, key, LinkChange::Unfit(Some(faults)));
    }

    /// What runs at a worker that cannot write its store goes elsewhere once its window has
    /// passed, if somebody else could run it: the worker is asked to give it back, and if it does
    /// not do that either, the attempt is lost. What must not run twice stays.
    pub(super) fn relieve(&mut self, now: Now) {
        let mut due: Vec<(WorkerKey, AttemptId, bool)> = Vec::new();
        for (key, member) in self.fleet.iter() {
            let Some(unable) = member.unable.as_ref().filter(|u| u.store) else { continue };
            if member.conn.is_none() {
                continue;
            }
            let ill = now.mono.saturating_sub(unable.since);
            for id in member.attempts.keys() {
                let Some(task) = self.tasks.get(&id.task) else { continue };
                let movable = task.is_current(key, id.epoch)
                    && task.window() <= ill
                    && task.spec.rerun == Rerun::Allowed
                    && !task.cancelling
                    && !task.paused;
                let asked = task.is_misplaced(&member.row.name);
                let again = asked && ill >= task.window() + GIVES_BACK;
                let fits = |t: &super::Task| {
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
                self.send_stop(key, &id.task, id.epoch, StopReason::StopSuperseded);
                self.lose(now, &id.task, &reason, Cause::Machine, None);
                continue;
            }
            let note = format!("to be moved away from {name}, which {says}");
            self.note(now, &id.task, id.epoch, note);
            self.placed.insert((now.mono + super::MOVE_PATIENCE.0, id.task.clone()));
            self.change_asked(&id.task, |asked| asked.place = Some((name, false)));
            self.send_stop(key, &id.task, id.epoch, StopReason::StopMove);
        }
    }

    /// Outcomes that are not durable at their worker: each takes effect as if it had come in its
    /// lane, and is acknowledged once it is durable here.
    pub(super) fn on_unsaved(
        &mut self,
        now: Now,
        conn: ConnId,
        key: WorkerKey,
        unsaved: v2::Unsaved,
        look: &dyn Lookup,
    ) {
        let worker = self.fleet.get(key).row.store_id.clone();
        let mut attempts = Vec::new();
        for outcome in unsaved.outcomes {
            if outcome.epoch >= MAX_NUMBER {
                continue;
            }
            attempts
                .push(v2::AttemptRef { task_id: outcome.task_id.clone(), epoch: outcome.epoch });
            let id = AttemptId { task: outcome.task_id.as_str().into(), epoch: outcome.epoch };
            // Its end frees its slots, whether or not it counts.
            self.fleet.get_mut(key).drop_attempt(&id);
            if !self.is_given(key, &id, look) {
                self.drop_foreign(now, key, "outcome", &id.task, id.epoch);
                continue;
            }
            if self.is_recorded(key, &id, &outcome, look) {
                self.counters.repeated += 1;
                continue;
            }
            let (batch, worker) = (self.batch, worker.clone());
            let known = Arc::new(outcome.clone());
            self.counters.unsaved += 1;
            self.on_outcome(now, key, outcome, look);
            self.beside.push_back(Beside { batch, worker, id, outcome: known });
        }
        self.fleet.reload(&mut self.scheduler, key);
        self.send(conn, Kind::Saved(v2::Saved { attempts }));
    }

    /// Whether this very outcome was recorded before: it may come beside its lane, in its lane,
    /// and again from a store that forgot that it was sent.
    pub(super) fn is_recorded(
        &self,
        key: WorkerKey,
        id: &AttemptId,
        outcome: &TaskOutcome,
        look: &dyn Lookup,
    ) -> bool {
        // The outcome of a current attempt is its first.
        if self.tasks.get(&id.task).is_some_and(|t| t.is_current(key, id.epoch)) {
            return false;
        }
        self.outcomes_of(key, id, look).iter().any(|known| is_same(known, outcome))
    }

    /// Whether the attempt has ended by what its worker said: it is not taken up again.
    pub(super) fn has_ended(&self, key: WorkerKey, id: &AttemptId, look: &dyn Lookup) -> bool {
        !self.outcomes_of(key, id, look).is_empty()
    }

    /// The outcomes of an attempt that this worker delivered.
    fn outcomes_of(
        &self,
        key: WorkerKey,
        id: &AttemptId,
        look: &dyn Lookup,
    ) -> Vec<Arc<TaskOutcome>> {
        let store = &self.fleet.get(key).row.store_id;
        let past = look.attempts(&id.task, store).into_iter().filter(|p| p.epoch == id.epoch);
        let beside = self.beside.iter().filter(|b| b.worker == *store && b.id == *id);
        past.flat_map(|p| p.outcomes).chain(beside.map(|b| b.outcome.clone())).collect()
    }

    /// Returns the batches of outcomes that came beside their lane.
    pub(super) fn beside_batches(&self) -> Vec<u64> {
        self.beside.iter().map(|b| b.batch).collect()
    }

    /// What is durable can be looked up.
    pub(super) fn forget_beside(&mut self) {
        while self.beside.front().is_some_and(|b| b.batch <= self.persisted) {
            self.beside.pop_front();
        }
    }

    /// Why a task waits, with the workers that are connected and cannot work.
    pub(super) fn with_unfit(&self, why: String) -> String {
        let unfit = self.fleet.iter().filter(|(_, m)| m.conn.is_some() && m.is_unfit());
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

    /// Its attempt is at a worker that cannot work: the worker's name, and what it said.
    pub fn hindered(&self, id: &TaskId) -> Option<(Arc<str>, Arc<Faults>)> {
        let task = self.tasks.get(id).filter(|t| t.state == TaskState::Assigned)?;
        let member = self.fleet.find(task.worker?)?;
        Some((member.row.name.clone(), member.unable.as_ref()?.faults.clone()))
    }

    /// Another worker is to be tried first: where it failed, the machine was at fault.
    pub(super) fn prefer_another(&mut self, now: Now, id: &TaskId, key: WorkerKey) {
        let free = |t: &&super::Task| t.state == TaskState::Pending && t.asked.place.is_none();
        let Some(task) = self.tasks.get(id).filter(free) else { return };
        let (name, slots) = (self.fleet.get(key).row.name.clone(), task.spec.slots);
        let mut requires = self.requires_of(task);
        requires.add_worker(&name, false);
        if self.scheduler.fitting(&requires, slots).next().is_none() {
            return;
        }
        self.placed.insert((now.mono + super::MOVE_PATIENCE.0, id.clone()));
        self.place(id, Some((name, false)));
    }
}

/// Whether two outcomes of one attempt at one worker are the same end: it ends once. What its
/// worker adds (its last checkpoint, a doubt about a failing disk) may differ after a crash.
fn is_same(known: &TaskOutcome, other: &TaskOutcome) -> bool {
    let times = |o: &TaskOutcome| (o.started_at_ms, o.finished_at_ms);
    let doubted = known.cause() == Cause::Machine && known.started_at_ms > 0;
    times(known) == times(other) && (known.kind == other.kind || doubted)
}

/// Answers the inventory of a worker that waits for that.
pub(super) fn settled() -> Kind {
    Kind::Settled(v2::Settled {})
}
