//! The effect of a plan on a task's recovery state.

use super::FailureClass;
use super::plan::Plan;
use super::state::{MAX_AVOIDED, MAX_TRIED, TaskRecovery, Tried};

impl TaskRecovery {
    /// Makes a plan the task's: how it runs next, when (from `wall` on, in Unix milliseconds), and
    /// where not. `worker` is where it failed, `has` the `hardware` there; `of_memory` says that
    /// the budget for running out of memory pays.
    pub fn follow(
        &mut self,
        plan: &Plan,
        class: FailureClass,
        worker: &str,
        has: Option<String>,
        of_memory: bool,
        wall: i64,
    ) {
        self.begun = true;
        self.not_before = if plan.delay > 0 { wall + plan.delay as i64 } else { 0 };
        if of_memory && !plan.gives_up() {
            self.oom_retries += 1;
        }
        if let Some(made) = &plan.moved {
            self.knobs.insert(made.knob.clone(), made.place);
        }
        if plan.avoid && !self.avoid.iter().any(|w| w == worker) {
            self.avoid.push(worker.to_owned());
            let more = self.avoid.len().saturating_sub(MAX_AVOIDED);
            self.avoid.drain(..more);
        }
        if plan.avoid_hardware {
            self.avoid_hardware = has;
        }
        self.tried.push(Tried { class, strategy: plan.strategy, worker: worker.to_owned() });
        let more = self.tried.len().saturating_sub(MAX_TRIED);
        self.tried.drain(..more);
    }
}
