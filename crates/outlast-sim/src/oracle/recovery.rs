//! Budgets and knobs: what a decision after a failure must keep to.

use outlast_core::records::TaskState;
use outlast_core::recovery::{Decision, FailureClass, Strategy, TaskRecovery, knobs};
use outlast_wire::TaskSpec;
use std::collections::BTreeMap;

/// Retries of a task since an operator last requested another run.
#[derive(Default)]
pub(super) struct Recovery {
    retries: u32,
    /// Retries after it ran out of memory, which have a budget of their own.
    oom: u32,
    /// Losses together with others: from the second to the tenth they are free.
    shared: u32,
    knobs: BTreeMap<String, usize>,
}

impl Recovery {
    /// Returns what holds after another decision; or what is wrong with it.
    pub(super) fn after(
        mut self,
        spec: &TaskSpec,
        decision: &Decision,
        state: &TaskRecovery,
        ended: Option<TaskState>,
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
            return match ended {
                Some(TaskState::Failed) => Ok(self),
                other => Err(format!("it was abandoned, and is {other:?}")),
            };
        }
        if ended.is_some() {
            return Err("it has ended, and was to be tried again".into());
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
