//! Failures: noted, judged with what else is known, and what the planner says carried out.
//! Delays, workers that a task avoids, quarantines, and knobs that worked.

use super::coordinator::Coordinator;
use super::ends::{End, Loss, Next};
use super::task::Task;
use super::toll::Toll;
use super::workers::Member;
use crate::records::{CoordRecord, TaskState};
use crate::recovery::patterns::{History, MAX_TEXT};
use crate::recovery::plan::{self, Blame, Budget, Fleet, Situation};
use crate::recovery::{
    Classified, Config, Decision, Evidence, Failure, FailureClass, Learned, Quarantine,
    TaskRecovery, classify, knobs,
};
use crate::scheduler::WorkerKey;
use crate::{AttemptId, Millis, Now, TaskId};
use outlast_model::recovery::PatternRules;
use outlast_model::requires::Requires;
use outlast_model::spec::Rerun;
use outlast_model::{Capabilities, Cause, Run, TaskOutcome};
use rand::Rng;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Time in milliseconds that a task waits for a worker that it does not avoid; then it may go to any,
/// unless one that it does not avoid is connected and busy.
const PATIENCE: Millis = 30_000;
impl Coordinator {
    pub(super) fn rules(&self) -> &PatternRules {
        &self.config.recovery.patterns
    }

    /// At start, from what is durable.
    pub(super) fn load_recovery(
        &mut self,
        now: Now,
        failures: Vec<Failure>,
        quarantines: Vec<(Arc<str>, Quarantine)>,
        learned: Vec<Learned>,
    ) {
        self.recover.history = History::new(failures);
        for (worker, quarantine) in quarantines {
            self.isolate(now, worker, Arc::new(quarantine));
        }
        let key = |l: &Learned| (l.task_type.clone(), l.hardware.clone());
        self.recover.learned = learned.into_iter().map(|l| (key(&l), Arc::new(l))).collect();
    }

    /// A pending task, at start: when it is to be tried, and how long it avoids workers.
    pub(super) fn load_due(&mut self, now: Now, id: &TaskId) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        let Some(state) = task.recovery.clone() else { return };
        // A wall clock that jumped must not make it wait for more than it ever would.
        let most = self.config.recovery.of(&task.spec).max_delay;
        let left = u64::try_from(state.not_before - now.wall).unwrap_or(0).min(most);
        if left > 0 {
            task.wait_until(Some(now.mono + left));
            self.recover.due.insert((now.mono + left, id.clone()));
        }
        if !state.avoid.is_empty() || state.avoid_hardware.is_some() {
            self.recover.patience.insert((now.mono + left + PATIENCE, id.clone()));
        }
    }

    /// Returns the current requirements of this task on a worker.
    pub(super) fn requires_of(&self, task: &Task) -> Requires {
        // It was checked when it was submitted.
        let parse = |map: &BTreeMap<String, String>| Requires::parse(map).unwrap_or_default();
        let blank = TaskRecovery::default();
        let state = task.recovery.as_deref().unwrap_or(&blank);
        let mut requires = parse(&knobs::requires(&task.spec, state));
        requires.add_run(&task.spec.run);
        // An operator's choice of a worker takes precedence.
        if task.asked.place.as_ref().is_none_or(|(_, there)| !there) {
            for worker in &state.avoid {
                requires.add_worker(worker, false);
            }
            if let Some(hardware) = &state.avoid_hardware {
                requires.add_not("hardware", hardware);
            }
        }
        let hardware = knobs::hardware(&task.spec, state);
        let (kind, wall) = (task.spec.type_name(), self.recover.wall);
        if self.excluded(kind, hardware, wall) {
            let mut without = requires.clone();
            without.add_not("hardware_class", hardware.as_str());
            if self.scheduler.fitting(&without, task.spec.slots).next().is_some() {
                return without;
            }
        }
        requires
    }

    /// An attempt failed by what the task did, and nobody cancels it.
    pub(super) fn fail_or_retry(
        &mut self,
        now: Now,
        key: WorkerKey,
        id: &AttemptId,
        outcome: Arc<TaskOutcome>,
        cause: Cause,
    ) {
        let Some(task) = self.tasks.get(&id.task) else { return };
        let config = self.config.recovery.clone();
        let found = classify::classify(
            &Evidence::of(&outcome, cause),
            config.rules_of(&task.spec).iter().map(AsRef::as_ref),
        );
        let spec = task.spec.clone();
        let budget = Budget::of(&spec, &task.recovered(), found.class, task.retries);
        let own = budget.of_memory();
        // What a browser does is no more the task's own failure than what its worker does.
        let around = matches!(spec.run, Run::Browser(_))
            && matches!(found.class, FailureClass::BrowserCrash | FailureClass::ContextLost);
        let wanted = own || around || spec.retry_failures;
        // At most once means that only a person may have it run again.
        let may = spec.rerun == Rerun::Allowed && wanted && budget.limit > 0;
        let blame = self.note_failure(now, Some(key), id, &found);
        let reason = outcome.message.clone();
        let next = may.then(|| self.think(Some(key), &id.task, found, budget, own, blame));
        match next {
            Some(next) if !next.plan.gives_up() => {
                let retries = self.tasks[&id.task].retries + u32::from(!own);
                let back = Loss { retries, reason: &reason, cause };
                self.requeue(now, &id.task, back, Some(outcome), Some(next));
            }
            next => {
                let worker = Some(self.fleet.get(key).row.store_id.clone());
                let reason = match &next {
                    Some(next) => format!("{reason}; {}", next.plan.reason),
                    None => reason,
                };
                let (epoch, state, outcome) = (id.epoch, TaskState::Failed, Some(outcome));
                let end = End { epoch, state, reason: &reason, cause, outcome, worker };
                self.end(now, &id.task, end);
                if let Some(next) = next {
                    self.carry_out(now, &id.task, id.epoch, next);
                }
            }
        }
    }

    /// An attempt was lost, and may be tried again.
    pub(super) fn after_loss(
        &mut self,
        now: Now,
        id: &TaskId,
        reason: &str,
        cause: Cause,
        outcome: Option<&TaskOutcome>,
        toll: Toll,
    ) -> Option<Next> {
        let task = self.tasks.get(id)?;
        let key = task.worker().filter(|key| self.fleet.find(*key).is_some());
        let evidence = match outcome {
            Some(outcome) => Evidence::of(outcome, cause),
            None => Evidence::silent(cause, reason),
        };
        let mut found = classify::classify(&evidence, []);
        use FailureClass as F;
        if !matches!(found.class, F::WorkerCrash | F::WorkerLost) {
            found = Classified::new(F::WorkerStopped, reason);
        }
        let (limit, spent) = (task.spec.max_retries, task.retries);
        let limit = if toll.spared { limit.max(spent + 1) } else { limit };
        let budget = Budget { name: "max_retries", limit, spent };
        let attempt = AttemptId { task: id.clone(), epoch: task.epoch };
        let blame = match found.class {
            // It points to the network or to an operator, not to the task or the machine.
            F::WorkerStopped | F::WorkerLost => Blame::default(),
            // One of several: none of them is known to have killed anything.
            _ if toll.shared => {
                Blame { killed: 0, ..self.note_failure(now, key, &attempt, &found) }
            }
            _ => self.note_failure(now, key, &attempt, &found),
        };
        Some(Next { shared: toll.shared, ..self.think(key, id, found, budget, false, blame) })
    }

    /// Asks the planner.
    fn think(
        &mut self,
        key: Option<WorkerKey>,
        id: &TaskId,
        found: Classified,
        budget: Budget,
        own: bool,
        blame: Blame,
    ) -> Next {
        let task = &self.tasks[id];
        let (spec, state) = (task.spec.clone(), task.recovered());
        let hardware = knobs::hardware(&spec, &state);
        let member = key.and_then(|key| self.fleet.find(key));
        let worker = member.map(|m| m.row.name.to_string());
        let has = member.and_then(|m| hardware_of(&m.row.capabilities));
        let mut wanted = self.requires_of(task);
        if let Some(worker) = &worker {
            wanted.add_worker(worker, false);
        }
        // More than a few make no difference.
        let others = self.scheduler.fitting(&wanted, spec.slots).take(4).count();
        let other_hardware = has.as_ref().map_or(0, |has| {
            wanted.add_not("hardware", has);
            self.scheduler.fitting(&wanted, spec.slots).take(4).count()
        });
        let away = |(k, m): (WorkerKey, &Member)| Some(k) != key && m.link.conn.is_none();
        let away = self.fleet.iter().filter(|pair| away(*pair)).count();
        let jitter = self.recover.rng.random_range(-1.0..=1.0);
        let config = self.config.recovery.clone();
        let plan = plan::plan(&Situation {
            ladders: &config.of(&spec),
            spec: &spec,
            state: &state,
            class: found.class,
            hardware,
            worker: worker.as_deref(),
            budget,
            fleet: Fleet { others, other_hardware, away },
            nobody: None,
            blame,
            jitter,
        });
        let worker = worker.unwrap_or_default();
        Next { plan, found, hardware, worker, has, own, shared: false }
    }

    /// Makes the plan the task's: how it runs next, when, and where not. Of a task that is
    /// pending again, or failed for good.
    pub(super) fn carry_out(&mut self, now: Now, id: &TaskId, epoch: u64, next: Next) {
        let history = &self.recover.history;
        let noted = history.all().rev().find(|f| f.epoch == epoch && f.task == **id);
        let counted = noted.and_then(|f| history.counts(f, now.wall, self.rules()));
        let Some(task) = self.tasks.get_mut(id) else { return };
        let Next { plan, found, hardware, worker, has, own, shared } = next;
        let mut state = task.recovered();
        let (class, strategy) = (found.class, plan.strategy);
        state.follow(&plan, class, &worker, has, own, now.wall);
        state.shared += u32::from(shared);
        let text = found.describe(&plan.reason, counted.as_deref());
        let decision = Decision {
            class: Some(class),
            hardware,
            strategy: Some(strategy),
            delay_ms: plan.delay,
            knobs: knobs::values(&task.spec.knobs, &state),
            text,
        };
        *self.counters.recoveries.entry(strategy.as_str()).or_default() += 1;
        let (state, decision) = (Arc::new(state), Arc::new(decision));
        task.recovery = Some(state.clone());
        if task.state() == TaskState::Pending {
            if plan.delay > 0 {
                task.wait_until(Some(now.mono + plan.delay));
                self.recover.due.insert((now.mono + plan.delay, id.clone()));
            }
            if !state.avoid.is_empty() || state.avoid_hardware.is_some() {
                self.recover.patience.insert((now.mono + plan.delay + PATIENCE, id.clone()));
            }
        }
        let (task, at) = (id.clone(), now.wall);
        self.journal.record(CoordRecord::Recovered { task, epoch, decision, state, at });
    }

    /// Tasks whose pause is over.
    pub(super) fn retry_due(&mut self, now: Now) {
        while let Some((at, id)) = self.recover.due.first().cloned()
            && at <= now.mono
        {
            self.recover.due.pop_first();
            let Some(task) = self.tasks.get_mut(&id).filter(|t| t.due() == Some(at)) else {
                continue;
            };
            task.wait_until(None);
            if task.state() == TaskState::Pending {
                self.enqueue(&id);
            }
        }
    }

    /// Explains when a waiting task is retried.
    pub(super) fn explain_due(&self, id: &TaskId) -> Option<String> {
        let task = self.tasks.get(id).filter(|t| t.state() == TaskState::Pending)?;
        let left = task.due()?.saturating_sub(self.timers.last_tick) as f64 / 1000.0;
        Some(format!("it failed, and is tried again in {left:.0} s"))
    }

    /// Sets the time at which a pending task, given back by its worker, stops avoiding others.
    pub(super) fn time_avoidance(&mut self, now: Now, id: &TaskId) {
        let Some(state) = self.tasks.get(id).and_then(|t| t.recovery.as_ref()) else { return };
        if !state.avoid.is_empty() || state.avoid_hardware.is_some() {
            self.recover.patience.insert((now.mono + PATIENCE, id.clone()));
        }
    }

    /// Tasks that avoid workers, and that nobody else could take for a while, go anywhere.
    pub(super) fn end_patience(&mut self, now: Now) {
        while let Some((at, id)) = self.recover.patience.first().cloned()
            && at <= now.mono
        {
            self.recover.patience.pop_first();
            let Some(task) = self.tasks.get(&id).filter(|t| t.state() == TaskState::Pending) else {
                continue;
            };
            let Some(state) = &task.recovery else { continue };
            if state.avoid.is_empty() && state.avoid_hardware.is_none() {
                continue;
            }
            let held_back = task.paused || task.due().is_some() || task.asked.awaited.is_some();
            if held_back || self.scheduler.has_place(&id) {
                self.recover.patience.insert((now.mono + PATIENCE, id));
                continue;
            }
            let (spec, epoch) = (task.spec.clone(), task.epoch);
            let mut state = TaskRecovery::clone(state);
            state.avoid.clear();
            state.avoid_hardware = None;
            let text = "no other worker took it: any may have it now".to_owned();
            self.settle(now, &id, epoch, &spec, state, text);
            self.scheduler.remove(&id);
            self.enqueue(&id);
        }
    }

    /// Remembers a failure, and says what it has in common with others. A worker that is to
    /// blame is given no more work.
    fn note_failure(
        &mut self,
        now: Now,
        key: Option<WorkerKey>,
        id: &AttemptId,
        found: &Classified,
    ) -> Blame {
        let Some(task) = self.tasks.get(&id.task) else { return Blame::default() };
        let Some(member) = key.and_then(|key| self.fleet.find(key)) else {
            return Blame::default();
        };
        let (state, history) = (task.recovered(), &self.recover.history);
        let failure = Failure {
            number: history.last() + 1,
            at: now.wall,
            task: id.task.to_string(),
            epoch: id.epoch,
            task_type: task.spec.type_name().chars().take(MAX_TEXT).collect(),
            worker: member.row.store_id.to_string(),
            worker_name: member.row.name.to_string(),
            hardware: knobs::hardware(&task.spec, &state),
            class: found.class,
            text: found.text.chars().take(MAX_TEXT).collect(),
            weak: found.weak,
        };
        let config: Arc<Config> = self.config.recovery.clone();
        let rules = &config.patterns;
        self.recover.history.push(failure.clone(), rules);
        let blame = self.recover.history.blame(&failure, now.wall, rules);
        let forget = failure.number.saturating_sub(rules.history as u64);
        let failure = Arc::new(failure);
        self.journal.record(CoordRecord::FailureSeen { failure, forget });
        if let Some(key) = key {
            self.suspect(now, key, found, blame);
        }
        blame
    }
}

fn hardware_of(capabilities: &str) -> Option<String> {
    Some(Capabilities::of(capabilities).text("hardware")?.to_owned())
}
