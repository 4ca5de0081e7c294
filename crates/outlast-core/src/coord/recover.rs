//! Failures: noted, judged with what else is known, and what the planner says carried out.
//! Delays, workers that a task avoids, quarantines, and knobs that worked.

mod invariants;

use super::tasks::{End, Loss};
use super::toll::Toll;
use super::workers::{Isolation, Member};
use super::{CoordConfig, Coordinator, Response, Task};
use crate::records::{CoordRecord, TaskState};
use crate::recovery::patterns::{History, MAX_TEXT, blames_worker};
use crate::recovery::plan::{self, Blame, Budget, Fleet, Plan, Situation};
use crate::recovery::{
    Classified, Config, Decision, Evidence, Failure, FailureClass, HardwareClass, Learned, Pattern,
    Quarantine, Strategy, TaskRecovery, classify, knobs,
};
use crate::requires::Requires;
use crate::scheduler::WorkerKey;
use crate::{AttemptId, Millis, Now, TaskId};
use outlast_model::recovery::PatternRules;
use outlast_model::spec::Rerun;
use outlast_model::{Cause, Run, TaskOutcome};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Time in milliseconds that a task waits for a worker that it does not avoid; then it may go to any,
/// unless one that it does not avoid is connected and busy.
const PATIENCE: Millis = 30_000;
/// The most knobs that are remembered of one type on one kind of hardware.
const MAX_LEARNED_KNOBS: usize = 2 * outlast_model::spec::MAX_KNOBS.0;
/// Reason of an operator's quarantine.
const WISH: &str = "an operator requested it";
/// The most types of tasks, times kinds of hardware, whose knobs are remembered.
const MAX_LEARNED: usize = 4096;

#[derive(Debug)]
pub(super) struct State {
    rng: SmallRng,
    /// The wall clock at the last tick.
    wall: i64,
    history: History,
    /// Quarantines by store id.
    quarantine: BTreeMap<Arc<str>, Arc<Quarantine>>,
    /// Knob values that worked, by type and hardware.
    learned: BTreeMap<(String, String), Arc<Learned>>,
    /// Times of pending retries.
    due: BTreeSet<(Millis, TaskId)>,
    /// Times from which on tasks that avoid workers may go to any.
    patience: BTreeSet<(Millis, TaskId)>,
    /// Times from which on quarantined workers may get a probe.
    probation: BTreeSet<(Millis, Arc<str>)>,
}

/// Operator override of recovery decisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecoveryRequest {
    /// Give a quarantined worker (name or store id) work again; its failures count no more.
    Release(String),
    /// Give a worker no work but probes.
    Quarantine(String),
    /// The failures of tasks of this type count no more.
    Allow(String),
    /// Forget the knobs that worked for this type; none: for all.
    Unlearn(Option<String>),
}

/// View of failures.
#[derive(Debug, Clone)]
pub struct RecoveryView {
    /// Patterns of the failures.
    pub patterns: Vec<Pattern>,
    /// Workers that are given no work but probes: store id, name, how, and why.
    pub quarantined: Vec<(Arc<str>, String, Isolation, Arc<Quarantine>)>,
    /// Knobs that worked.
    pub learned: Vec<Arc<Learned>>,
    /// Failures that are looked back at, newest first.
    pub failures: Vec<Failure>,
}

/// Decision after a failure.
pub(super) struct Next {
    pub plan: Plan,
    found: Classified,
    hardware: HardwareClass,
    worker: String,
    /// The `hardware` that the worker has.
    has: Option<String>,
    /// True if it counts toward the budget for running out of memory.
    own: bool,
    /// True if other attempts were lost with it.
    shared: bool,
}

impl State {
    pub fn new(config: &CoordConfig, now: Now) -> State {
        State {
            rng: SmallRng::seed_from_u64(config.seed),
            wall: now.wall,
            history: History::default(),
            quarantine: BTreeMap::new(),
            learned: BTreeMap::new(),
            due: BTreeSet::new(),
            patience: BTreeSet::new(),
            probation: BTreeSet::new(),
        }
    }

    pub fn see(&mut self, now: Now) {
        self.wall = now.wall;
    }

    pub fn next_due(&self) -> Millis {
        self.due.first().map_or(Millis::MAX, |(at, _)| *at)
    }
}

impl Task {
    fn recovered(&self) -> TaskRecovery {
        self.recovery.as_deref().cloned().unwrap_or_default()
    }
}

impl Coordinator {
    fn rules(&self) -> &PatternRules {
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
            task.due = Some(now.mono + left);
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
        let key = task.worker.filter(|key| self.fleet.find(*key).is_some());
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
        let away = |(k, m): (WorkerKey, &Member)| Some(k) != key && m.conn.is_none();
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
        if task.state == TaskState::Pending {
            if plan.delay > 0 {
                task.due = Some(now.mono + plan.delay);
                self.recover.due.insert((now.mono + plan.delay, id.clone()));
            }
            if !state.avoid.is_empty() || state.avoid_hardware.is_some() {
                self.recover.patience.insert((now.mono + plan.delay + PATIENCE, id.clone()));
            }
        }
        let (task, at) = (id.clone(), now.wall);
        self.records.push(CoordRecord::Recovered { task, epoch, decision, state, at });
    }

    /// Tasks whose pause is over.
    pub(super) fn retry_due(&mut self, now: Now) {
        while let Some((at, id)) = self.recover.due.first().cloned()
            && at <= now.mono
        {
            self.recover.due.pop_first();
            let Some(task) = self.tasks.get_mut(&id).filter(|t| t.due == Some(at)) else {
                continue;
            };
            task.due = None;
            if task.state == TaskState::Pending {
                self.enqueue(&id);
            }
        }
    }

    /// Adds quarantined workers, which the scheduler does not know, to its explanation why a task waits.
    pub(super) fn with_quarantine(&self, why: String) -> String {
        let out = |m: &Member| m.conn.is_some() && m.isolation == Isolation::Out;
        match self.fleet.iter().filter(|(_, m)| out(m)).count() {
            0 => why,
            n if self.scheduler.is_empty() => {
                let are =
                    if n == 1 { "worker that is connected is" } else { "connected workers are" };
                format!("the {n} {are} in quarantine: see `outlast recovery patterns`")
            }
            n => format!("{why}; {n} in quarantine: see `outlast recovery patterns`"),
        }
    }

    /// Explains when a waiting task is retried.
    pub(super) fn explain_due(&self, id: &TaskId) -> Option<String> {
        let task = self.tasks.get(id).filter(|t| t.state == TaskState::Pending)?;
        let left = task.due?.saturating_sub(self.last_tick) as f64 / 1000.0;
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
            let Some(task) = self.tasks.get(&id).filter(|t| t.state == TaskState::Pending) else {
                continue;
            };
            let Some(state) = &task.recovery else { continue };
            if state.avoid.is_empty() && state.avoid_hardware.is_none() {
                continue;
            }
            let held_back = task.paused || task.due.is_some() || task.asked.awaited.is_some();
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

    /// Changes how a task is to run without a failure.
    fn settle(
        &mut self,
        now: Now,
        id: &TaskId,
        epoch: u64,
        spec: &outlast_model::TaskSpec,
        state: TaskRecovery,
        text: String,
    ) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        let (hardware, knobs) = (knobs::hardware(spec, &state), knobs::values(&spec.knobs, &state));
        let decision = Decision { class: None, hardware, strategy: None, delay_ms: 0, knobs, text };
        let (decision, state) = (Arc::new(decision), Arc::new(state));
        task.recovery = Some(state.clone());
        let (task, at) = (id.clone(), now.wall);
        self.records.push(CoordRecord::Recovered { task, epoch, decision, state, at });
    }

    /// A task with knobs is given to a worker for the first time: it starts with what worked.
    pub(super) fn begin_knobs(&mut self, now: Now, id: &TaskId, key: WorkerKey) {
        let Some(task) = self.tasks.get(id) else { return };
        if task.spec.knobs.is_empty() || task.recovery.as_ref().is_some_and(|r| r.begun) {
            return;
        }
        let (spec, epoch, mut state) = (task.spec.clone(), task.epoch, task.recovered());
        if !self.config.recovery.of(&spec).remember {
            return;
        }
        state.begun = true;
        let mut told = Vec::new();
        let (kind, class) = (spec.type_name(), knobs::hardware(&spec, &state));
        if self.excluded(kind, class, now.wall)
            && let Some(made) = knobs::moved(&spec.knobs, &state, Strategy::FallbackCpu)
        {
            told.push(format!("{made}, since tasks of type {kind} fail on {}", class.as_str()));
            state.knobs.insert(made.knob, made.place);
        }
        let class = knobs::hardware(&spec, &state);
        let known = |hardware: String| self.recover.learned.get(&(kind.to_owned(), hardware));
        let known = known(self.profile(key, class)).or_else(|| known(class.as_str().into()));
        if let Some(learned) = known {
            let places = knobs::places(&spec.knobs, &learned.knobs);
            let names: Vec<String> = places
                .iter()
                .filter_map(|(name, at)| Some((name, spec.knobs.get(name)?.get(*at)?)))
                .map(|(name, value)| format!("{name} {}", knobs::text(value)))
                .collect();
            let (on, task) = (&learned.hardware, &learned.task);
            state.knobs.extend(places);
            if !names.is_empty() {
                let on = match knobs::hardware(&spec, &state) == class {
                    true => format!("on {on}"),
                    false => format!("where {on} did not"),
                };
                told.push(format!("{}, which worked for task {task} {on}", names.join(", ")));
            }
        }
        if !told.is_empty() {
            let text = format!("it starts with {}", told.join("; "));
            self.settle(now, id, epoch, &spec, state, text);
        }
    }

    /// A task with knobs succeeded: the next one of its type starts there.
    pub(super) fn learn(&mut self, now: Now, id: &TaskId, key: WorkerKey) {
        let Some(task) = self.tasks.get(id).filter(|t| !t.spec.knobs.is_empty()) else { return };
        let (spec, state) = (task.spec.clone(), task.recovered());
        if !self.config.recovery.of(&spec).remember {
            return;
        }
        let hardware = self.profile(key, knobs::hardware(&spec, &state));
        let first = self.profile(key, knobs::hardware(&spec, &TaskRecovery::default()));
        // The next one looks where it would start first, and finds that this one had to leave it.
        let left = state.tried.iter().any(|t| t.strategy == Strategy::FallbackCpu);
        if left && first != hardware {
            self.learn_on(now, id, &spec, &state, first);
        }
        self.learn_on(now, id, &spec, &state, hardware);
    }

    fn learn_on(
        &mut self,
        now: Now,
        id: &TaskId,
        spec: &outlast_model::TaskSpec,
        state: &TaskRecovery,
        hardware: String,
    ) {
        let place = (spec.type_name().to_owned(), hardware.clone());
        let known = self.recover.learned.get(&place);
        let moved = state.knobs.values().any(|at| *at > 0);
        if known.is_none() && !moved {
            return;
        }
        // Tasks of a type may have knobs of their own: what another learned of its own stays.
        let mut knobs = known.map(|l| l.knobs.clone()).unwrap_or_default();
        for (name, value) in knobs::values(&spec.knobs, state) {
            if moved || knobs.contains_key(&name) {
                knobs.insert(name, value);
            }
        }
        if knobs.len() > MAX_LEARNED_KNOBS {
            knobs.retain(|name, _| spec.knobs.contains_key(name));
        }
        // That it works still counts against failures since.
        let newer = |l: &Learned| {
            self.recover.history.all().any(|f| f.at > l.at && f.task_type == l.task_type)
        };
        if known.is_some_and(|l| l.knobs == knobs && !newer(l)) {
            return;
        }
        if known.is_none() && self.recover.learned.len() >= MAX_LEARNED {
            let oldest = self.recover.learned.values().min_by_key(|l| l.at).cloned();
            if let Some(oldest) = oldest {
                let (kind, on) = (oldest.task_type.clone(), oldest.hardware.clone());
                self.recover.learned.remove(&(kind.clone(), on.clone()));
                let (task_type, hardware) = (Some(kind), Some(on));
                self.records.push(CoordRecord::Unlearned { task_type, hardware });
            }
        }
        let (task, at) = (id.to_string(), now.wall);
        let learned = Learned { task_type: place.0.clone(), hardware, knobs, task, at };
        let learned = Arc::new(learned);
        self.recover.learned.insert(place, learned.clone());
        self.records.push(CoordRecord::Learned { learned });
    }

    /// Returns true if tasks of this type are excluded from this class of hardware. A later success there
    /// ends the exclusion.
    fn excluded(&self, kind: &str, class: HardwareClass, wall: i64) -> bool {
        let failed = |since| self.recover.history.excluded(kind, class, since, wall, self.rules());
        if !failed(i64::MIN) {
            return false;
        }
        let of_kind = self.recover.learned.range((kind.to_owned(), String::new())..);
        let here = |l: &&Arc<Learned>| {
            let on = l.hardware.split(' ').next() == Some(class.as_str());
            on && knobs::used(&l.knobs).is_none_or(|used| used == class)
        };
        let of_kind = of_kind.take_while(|((k, _), _)| k == kind).map(|(_, l)| l);
        of_kind.filter(here).map(|l| l.at).max().is_none_or(failed)
    }

    /// A class of hardware, with the worker's model where it has one.
    fn profile(&self, key: WorkerKey, class: HardwareClass) -> String {
        let capabilities = self.fleet.find(key).map(|m| m.row.capabilities.as_str());
        let flat: Option<serde_json::Value> =
            capabilities.and_then(|json| serde_json::from_str(json).ok());
        match (class, flat.as_ref().and_then(|f| f.get("gpu")?.as_str())) {
            (HardwareClass::Gpu, Some(model)) => format!("gpu {model}"),
            _ => class.as_str().to_owned(),
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
        self.records.push(CoordRecord::FailureSeen { failure, forget });
        if let Some(key) = key {
            self.suspect(now, key, found, blame);
        }
        blame
    }

    /// Quarantines a worker that is to blame, or whose probe failed.
    fn suspect(&mut self, now: Now, key: WorkerKey, found: &Classified, blame: Blame) {
        let member = self.fleet.get(key);
        let store = member.row.store_id.clone();
        let minutes = (self.rules().window / 60.0).ceil();
        let reason = match member.isolation {
            Isolation::Free if blame.worker > 0 && blame.task_type == 0 => format!(
                "{} failures of several tasks within {minutes} min: {} ({})",
                blame.worker,
                found.class.as_str(),
                found.text
            ),
            Isolation::Probe if blames_worker(found.class) && !found.weak => {
                format!("a probe failed: {} ({})", found.class.as_str(), found.text)
            }
            _ => return,
        };
        // The last one that works is better than none; of probes, one at a time is better.
        let free = |(k, m): (WorkerKey, &Member)| {
            k != key && m.isolation == Isolation::Free && takes_tasks(m)
        };
        if !self.fleet.iter().any(free) {
            return;
        }
        self.quarantine(now, key, store, reason);
    }

    fn quarantine(&mut self, now: Now, key: WorkerKey, store: Arc<str>, reason: String) {
        let before = self.recover.quarantine.get(&store).cloned();
        let reason: String = reason.chars().take(2 * MAX_TEXT).collect();
        let next = Quarantine::next(before.as_deref(), now.wall, self.rules(), reason);
        let (worker, next) = (store.clone(), Arc::new(next));
        let quarantine = Some(next.clone());
        self.records.push(CoordRecord::Quarantined { worker, quarantine });
        self.counters.quarantines += 1;
        self.isolate(now, store, next);
        self.fleet.offer(&mut self.scheduler, key);
        self.take_back(key);
    }

    fn isolate(&mut self, now: Now, store: Arc<str>, quarantine: Arc<Quarantine>) {
        if let Some(key) = self.fleet.by_store(&store) {
            self.fleet.get_mut(key).isolation = Isolation::Out;
        }
        let at = now.mono + quarantine.left(now.wall);
        self.recover.probation.retain(|(_, s)| *s != store);
        self.recover.probation.insert((at, store.clone()));
        self.recover.quarantine.insert(store, quarantine);
    }

    /// Workers whose probation begins are offered one task at a time.
    pub(super) fn end_probation(&mut self, now: Now) {
        while let Some((at, store)) = self.recover.probation.first().cloned()
            && at <= now.mono
        {
            self.recover.probation.pop_first();
            if !self.recover.quarantine.contains_key(&store) {
                continue;
            }
            let Some(key) = self.fleet.by_store(&store) else { continue };
            self.probe(key);
        }
        self.probe_for_want_of_others(now);
    }

    fn probe(&mut self, key: WorkerKey) {
        if self.fleet.get(key).isolation == Isolation::Out {
            self.fleet.get_mut(key).isolation = Isolation::Probe;
            self.fleet.offer(&mut self.scheduler, key);
        }
    }

    /// Probes the next quarantined worker at once if no other worker is left. Workers that an operator
    /// quarantined wait.
    fn probe_for_want_of_others(&mut self, now: Now) {
        if self.recover.quarantine.is_empty() {
            return;
        }
        let takes = |(_, m): (WorkerKey, &Member)| m.isolation != Isolation::Out && takes_tasks(m);
        if self.fleet.iter().any(takes) {
            return;
        }
        let there = |(key, m): (WorkerKey, &Member)| {
            let quarantine = self.recover.quarantine.get(&m.row.store_id)?;
            let may = takes_tasks(m) && quarantine.reason != WISH;
            may.then(|| (quarantine.left(now.wall), key))
        };
        if let Some((_, key)) = self.fleet.iter().filter_map(there).min() {
            self.probe(key);
        }
    }

    /// A task succeeded there: a worker on probation is well again.
    pub(super) fn proved(&mut self, key: WorkerKey) {
        let member = self.fleet.get(key);
        if member.isolation == Isolation::Probe {
            let store = member.row.store_id.clone();
            self.release(key, store);
        }
    }

    fn release(&mut self, key: WorkerKey, store: Arc<str>) {
        self.recover.quarantine.remove(&store);
        self.recover.probation.retain(|(_, s)| *s != store);
        self.recover.history.forget(Some(&store), None);
        let worker = Some(store.clone());
        self.records.push(CoordRecord::FailuresForgotten { worker, task_type: None });
        self.records.push(CoordRecord::Quarantined { worker: store, quarantine: None });
        self.fleet.get_mut(key).isolation = Isolation::Free;
        self.fleet.offer(&mut self.scheduler, key);
    }

    /// A person removed a worker.
    pub(super) fn forget_quarantine(&mut self, store: &Arc<str>) {
        if self.recover.quarantine.remove(store).is_some() {
            self.recover.probation.retain(|(_, s)| s != store);
            let worker = store.clone();
            self.records.push(CoordRecord::Quarantined { worker, quarantine: None });
        }
    }

    pub(super) fn overrule(&mut self, now: Now, what: RecoveryRequest) -> Response {
        match what {
            RecoveryRequest::Release(name) => match self.fleet.named(&name) {
                Some(key) => {
                    let store = self.fleet.get(key).row.store_id.clone();
                    self.release(key, store);
                    Response::Overruled
                }
                None => Response::NotFound,
            },
            RecoveryRequest::Quarantine(name) => match self.fleet.named(&name) {
                Some(key) => {
                    let store = self.fleet.get(key).row.store_id.clone();
                    self.recover.quarantine.remove(&store);
                    self.quarantine(now, key, store, WISH.into());
                    Response::Overruled
                }
                None => Response::NotFound,
            },
            RecoveryRequest::Allow(kind) => {
                if !self.recover.history.all().any(|f| f.task_type == kind) {
                    return Response::NotFound;
                }
                self.recover.history.forget(None, Some(&kind));
                let task_type = Some(kind);
                self.records.push(CoordRecord::FailuresForgotten { worker: None, task_type });
                Response::Overruled
            }
            RecoveryRequest::Unlearn(task_type) => {
                let is = |kind: &String| task_type.as_ref().is_none_or(|t| t == kind);
                let before = self.recover.learned.len();
                self.recover.learned.retain(|(kind, _), _| !is(kind));
                if task_type.is_some() && self.recover.learned.len() == before {
                    return Response::NotFound;
                }
                let hardware = None;
                self.records.push(CoordRecord::Unlearned { task_type, hardware });
                Response::Overruled
            }
        }
    }

    /// The table that is in force.
    pub fn recovery_config(&self) -> Arc<Config> {
        self.config.recovery.clone()
    }

    /// Returns the current view of failures.
    pub fn recovery(&self, now: Now) -> RecoveryView {
        let name = |store: &Arc<str>| {
            let member = self.fleet.by_store(store).and_then(|key| self.fleet.find(key));
            member.map(|m| (m.row.name.to_string(), m.isolation))
        };
        let quarantined = self.recover.quarantine.iter().map(|(store, q)| {
            let (name, how) = name(store).unwrap_or_else(|| (store.to_string(), Isolation::Out));
            (store.clone(), name, how, q.clone())
        });
        RecoveryView {
            patterns: self.recover.history.patterns(now.wall, self.rules()),
            quarantined: quarantined.collect(),
            learned: self.recover.learned.values().cloned().collect(),
            failures: self.recover.history.all().rev().cloned().collect(),
        }
    }
}

/// Returns true if a worker is connected and may get tasks, apart from a quarantine.
fn takes_tasks(member: &Member) -> bool {
    let willing = !member.draining && !member.row.drained && !member.is_unfit();
    member.conn.is_some() && member.ready && willing
}

fn hardware_of(capabilities: &str) -> Option<String> {
    let flat: serde_json::Value = serde_json::from_str(capabilities).ok()?;
    Some(flat.get("hardware")?.as_str()?.to_owned())
}
