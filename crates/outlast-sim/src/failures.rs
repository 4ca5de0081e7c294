//! Failures of tasks and of hardware: who fails how, and what recovery must keep to.

use crate::world::World;
use outlast_core::AttemptId;
use outlast_core::records::TaskState;
use outlast_core::recovery::{Decision, FailureClass, Strategy, TaskRecovery, knobs};
use outlast_wire::TaskSpec;
use outlast_wire::recovery::Recovery as Override;
use outlast_wire::v2::OutcomeKind;
use rand::Rng;
use serde_json::json;
use std::collections::BTreeMap;

/// The label that says at which batch size a task has enough memory; 0: at none.
const FITS: &str = "fits";

impl World {
    /// Some tasks have knobs, budgets and delays of their own.
    pub fn may_fail(&mut self, spec: &mut TaskSpec) {
        let rng = &mut self.rng;
        if rng.random_bool(0.3) {
            let sizes = [64, 32, 16, 8].map(|n| json!(n));
            let from = rng.random_range(0..4);
            spec.knobs.insert("batch_size".into(), sizes[from..].to_vec());
            let fits = [64, 32, 16, 8, 0][rng.random_range(0..5)];
            spec.labels.insert(FITS.into(), fits.to_string());
            spec.max_oom_retries = rng.random_bool(0.3).then(|| rng.random_range(0..4));
            spec.task_type = ["a", "b"][rng.random_range(0..2)].into();
        }
        if rng.random_bool(0.2) {
            let base_delay = Some([0.0, 0.5, 20.0][rng.random_range(0..3)]);
            let own = Override { base_delay, max_delay: Some(30.0), ..Override::default() };
            spec.recovery = Some(Box::new(own));
        }
    }

    /// How an attempt ends by itself, and what it writes.
    pub fn fate(
        &mut self,
        i: usize,
        id: &AttemptId,
        spec: &TaskSpec,
    ) -> (OutcomeKind, &'static str) {
        use OutcomeKind::{OutcomeFailed, OutcomeSucceeded};
        if let Some(size) = spec.env.get("OUTLAST_KNOB_BATCH_SIZE") {
            self.oracle.runs_with(id, &self.coord.store, size);
            let fits: u32 = spec.labels.get(FITS).and_then(|f| f.parse().ok()).unwrap_or(64);
            if size.parse::<u32>().is_ok_and(|size| size > fits) {
                return (OutcomeFailed, "MemoryError");
            }
        }
        if self.workers[i].bad_until > self.now && self.rng.random_bool(0.9) {
            return (OutcomeFailed, "RuntimeError: CUDA error: unspecified launch failure");
        }
        match self.rng.random_range(0..20) {
            0 => (OutcomeFailed, "RuntimeError: CUDA error: device-side assert triggered"),
            1 => (OutcomeFailed, "Error: read ECONNRESET"),
            _ => (OutcomeSucceeded, ""),
        }
    }
}

/// The task as an attempt gets it at first.
pub(crate) fn first_values(spec: &TaskSpec) -> TaskSpec {
    knobs::effective(spec, &TaskRecovery::default()).into_owned()
}

/// What was done for a task since a person last asked for another run.
#[derive(Default)]
pub(crate) struct Recovery {
    retries: u32,
    /// Those after it ran out of memory, with a budget of their own.
    oom: u32,
    /// Losses together with others: from the second to the tenth they are free.
    shared: u32,
    knobs: BTreeMap<String, usize>,
}

impl Recovery {
    /// After another decision; or what is wrong with it.
    pub fn after(
        mut self,
        spec: &TaskSpec,
        decision: &Decision,
        state: &TaskRecovery,
        over: Option<TaskState>,
    ) -> Result<Recovery, String> {
        for (name, place) in &self.knobs {
            let now = state.knobs.get(name).copied().unwrap_or(0);
            if now < *place {
                return Err(format!("knob {name} went back from {place} to {now}"));
            }
        }
        for (name, place) in &state.knobs {
            if spec.knobs.get(name).is_none_or(|ladder| *place >= ladder.len()) {
                return Err(format!("knob {name} is at {place}, beyond its ladder"));
            }
        }
        if decision.text.is_empty() {
            return Err("a decision without a reason".into());
        }
        let (Some(class), Some(strategy)) = (decision.class, decision.strategy) else {
            self.knobs = state.knobs.clone();
            return Ok(self);
        };
        if strategy == Strategy::Escalation {
            return match over {
                Some(TaskState::Failed) => Ok(self),
                other => Err(format!("it was given up, and is {other:?}")),
            };
        }
        if over.is_some() {
            return Err("it is over, and was to be tried again".into());
        }
        let shared = state.shared.checked_sub(self.shared).filter(|more| *more <= 1);
        let shared = shared.ok_or("the count of losses with others went wrong")? == 1;
        let free = shared && (1..10).contains(&self.shared);
        self.shared = state.shared;
        if free {
            self.knobs = state.knobs.clone();
            return Ok(self);
        }
        let own = class == FailureClass::OutOfMemory
            && (!spec.knobs.is_empty() || spec.max_oom_retries.is_some());
        let (spent, limit) = match own {
            true => {
                self.oom += 1;
                (self.oom, spec.max_oom_retries.unwrap_or(knobs::steps(&spec.knobs) + 1))
            }
            false => {
                self.retries += 1;
                (self.retries, spec.max_retries)
            }
        };
        if spent > limit {
            return Err(format!("{} was the {spent}th of {limit} retries", class.as_str()));
        }
        let place = |knobs: &BTreeMap<String, usize>| knobs.get("batch_size").copied().unwrap_or(0);
        let (before, now) = (place(&self.knobs), place(&state.knobs));
        let more = spec.knobs.get("batch_size").is_some_and(|ladder| before + 1 < ladder.len());
        if class == FailureClass::OutOfMemory && more && now <= before {
            return Err("it ran out of memory, and is tried with the same settings".into());
        }
        self.knobs = state.knobs.clone();
        Ok(self)
    }
}
