//! Settings of tasks that recovery moves, and those that worked, by type of task and kind of hardware.

use super::coordinator::Coordinator;
use crate::records::CoordRecord;
use crate::recovery::{Decision, HardwareClass, Learned, Strategy, TaskRecovery, knobs};
use crate::scheduler::WorkerKey;
use crate::{Now, TaskId};
use outlast_model::Capabilities;
use std::sync::Arc;

/// The most knobs that are remembered of one type on one kind of hardware.
const MAX_LEARNED_KNOBS: usize = 2 * outlast_model::spec::MAX_KNOBS.0;

/// The most types of tasks, times kinds of hardware, whose knobs are remembered.
const MAX_LEARNED: usize = 4096;

impl Coordinator {
    /// Changes how a task is to run without a failure.
    pub(super) fn settle(
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
        self.journal.record(CoordRecord::Recovered { task, epoch, decision, state, at });
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
        let mut begins_with = Vec::new();
        let (kind, class) = (spec.type_name(), knobs::hardware(&spec, &state));
        if self.excluded(kind, class, now.wall)
            && let Some(made) = knobs::moved(&spec.knobs, &state, Strategy::FallbackCpu)
        {
            begins_with
                .push(format!("{made}, since tasks of type {kind} fail on {}", class.as_str()));
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
                begins_with
                    .push(format!("{}, which worked for task {task} {on}", names.join(", ")));
            }
        }
        if !begins_with.is_empty() {
            let text = format!("it starts with {}", begins_with.join("; "));
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
                self.journal.record(CoordRecord::Unlearned { task_type, hardware });
            }
        }
        let (task, at) = (id.to_string(), now.wall);
        let learned = Learned { task_type: place.0.clone(), hardware, knobs, task, at };
        let learned = Arc::new(learned);
        self.recover.learned.insert(place, learned.clone());
        self.journal.record(CoordRecord::Learned { learned });
    }

    /// Returns true if tasks of this type are excluded from this class of hardware. A later success there
    /// ends the exclusion.
    pub(super) fn excluded(&self, kind: &str, class: HardwareClass, wall: i64) -> bool {
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
        let member = self.fleet.find(key);
        let capabilities = member.map(|m| Capabilities::of(&m.row.capabilities));
        match (class, capabilities.as_ref().and_then(|c| c.text("gpu"))) {
            (HardwareClass::Gpu, Some(model)) => format!("gpu {model}"),
            _ => class.as_str().to_owned(),
        }
    }
}
