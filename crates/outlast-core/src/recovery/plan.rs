//! The planner: from a failure and everything known around it to what is done, and why.

use super::knobs::{self, Move};
use super::{FailureClass, HardwareClass, Ladders, Strategy, TaskRecovery};
use crate::Millis;
use outlast_model::TaskSpec;

/// No delayed retry waits less, in milliseconds, unless the table's base delay is shorter:
/// jitter must not make it instant.
const FLOOR: Millis = 100;

/// Input of a decision.
#[derive(Debug)]
pub struct Situation<'a> {
    /// Rules that apply to the task.
    pub ladders: &'a Ladders,
    /// The task.
    pub spec: &'a TaskSpec,
    /// Previous recovery actions for it.
    pub state: &'a TaskRecovery,
    /// Class of the failure.
    pub class: FailureClass,
    /// Hardware of the attempt.
    pub hardware: HardwareClass,
    /// The name of the worker where it happened, if that is known.
    pub worker: Option<&'a str>,
    /// Remaining retries.
    pub budget: Budget,
    /// Other workers that could run it.
    pub fleet: Fleet,
    /// The reason why nobody else could, where more is known than those counts.
    pub nobody: Option<&'a str>,
    /// Similar failures.
    pub blame: Blame,
    /// From -1 to 1, drawn by the caller.
    pub jitter: f64,
}

/// Limit on retries of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// The field of the task that limits it.
    pub name: &'static str,
    /// Limit of that field.
    pub limit: u32,
    /// Number of retries that were used.
    pub spent: u32,
}

const OOM: &str = "max_oom_retries";

impl Budget {
    /// The one that a failure of this class counts toward; `retries` are those of other causes.
    pub fn of(spec: &TaskSpec, state: &TaskRecovery, class: FailureClass, retries: u32) -> Budget {
        // Where there is something to change, or a budget of its own.
        let own = class == FailureClass::OutOfMemory
            && (!spec.knobs.is_empty() || spec.max_oom_retries.is_some());
        if own {
            let limit = spec.max_oom_retries.unwrap_or(knobs::steps(&spec.knobs) + 1);
            return Budget { name: OOM, limit, spent: state.oom_retries };
        }
        Budget { name: "max_retries", limit: spec.max_retries, spent: retries }
    }

    /// Returns true if it is the budget for running out of memory.
    pub fn of_memory(&self) -> bool {
        self.name == OOM
    }
}

/// The workers, and what the network lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fleet {
    /// Other workers that are connected, meet what the task requires, and that it does not avoid.
    pub others: usize,
    /// Number of these with other hardware than where it failed.
    pub other_hardware: usize,
    /// Other workers that cannot be reached now.
    pub away: usize,
}

/// Similar failures within the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Blame {
    /// Number of similar failures of several tasks on this worker, which points to the worker.
    pub worker: usize,
    /// The tasks that these are of.
    pub tasks: usize,
    /// Number of similar failures of tasks of this type on several workers, which points to no worker.
    pub task_type: usize,
    /// The workers that these are on.
    pub workers: usize,
    /// Number of workers that died with an attempt of this task, which points to the task.
    pub killed: usize,
}

/// Decision about a failure.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Strategy of the decision.
    pub strategy: Strategy,
    /// Delay before the next attempt.
    pub delay: Millis,
    /// Knob that changes.
    pub moved: Option<Move>,
    /// True to avoid the worker where it failed.
    pub avoid: bool,
    /// True to avoid that worker's kind of hardware.
    pub avoid_hardware: bool,
    /// Action and reason, in words.
    pub reason: String,
}

impl Plan {
    fn new(strategy: Strategy, reason: impl Into<String>) -> Plan {
        let reason = reason.into();
        Plan { strategy, delay: 0, moved: None, avoid: false, avoid_hardware: false, reason }
    }

    /// Returns true if the task fails for good.
    pub fn gives_up(&self) -> bool {
        self.strategy == Strategy::Escalation
    }
}

/// Decides. It always does: with what the ladder has left, else with a delayed retry while the
/// budget lasts, else by giving up.
pub fn plan(s: &Situation<'_>) -> Plan {
    let Budget { name, limit, spent } = s.budget;
    if spent >= limit {
        return give_up(s, &format!("{name} is {limit}"));
    }
    if s.blame.killed > 0 {
        let n = s.blame.killed;
        return give_up(s, &format!("{n} workers died with it, and it must not kill more"));
    }
    let (mut passed, mut why_not) = (Vec::new(), Vec::new());
    let ladder = s.ladders.ladder(s.class, s.hardware);
    // Where nothing else is wanted, it is done each time.
    let again = ladder == [Strategy::ImmediateRetry];
    for rung in ladder {
        match rung {
            Strategy::Escalation => return give_up(s, "the table says so"),
            Strategy::ImmediateRetry if again => {
                return Plan::new(*rung, "it is tried again at once");
            }
            rung => match climb(s, *rung) {
                Ok(mut plan) => {
                    if !why_not.is_empty() {
                        plan.reason += &format!("; not {}", why_not.join("; not "));
                    }
                    return plan;
                }
                Err(Passed { why, of_others }) => {
                    let text = format!("{}: {why}", rung.as_str());
                    if of_others {
                        why_not.push(text.clone());
                    }
                    passed.push(text);
                }
            },
        }
    }
    let passed = passed.join("; ");
    if s.class == FailureClass::OutOfMemory {
        // Whatever else may be smaller.
        if let Some(made) = knobs::moved(&s.spec.knobs, s.state, Strategy::SimplifiedModel) {
            return turn(Strategy::SimplifiedModel, made);
        }
        if !s.spec.knobs.is_empty() {
            return give_up(s, &format!("the same settings would meet the same ({passed})"));
        }
    }
    let mut plan = delayed(s);
    if !passed.is_empty() {
        plan.reason += &format!("; nothing else is left ({passed})");
    }
    plan
}

/// Plans the strategy that an operator requested, regardless of previous actions and patterns.
///
/// # Errors
/// The reason why the strategy does not apply.
pub fn forced(s: &Situation<'_>, strategy: Strategy) -> Result<Plan, String> {
    if strategy == Strategy::Escalation {
        return Ok(give_up(s, "an operator requested it"));
    }
    let state = TaskRecovery { tried: Vec::new(), ..s.state.clone() };
    let fresh = Situation { state: &state, blame: Blame::default(), ..*s };
    climb(&fresh, strategy).map_err(|passed| passed.why)
}

/// The reason why a rung is of no use now.
struct Passed {
    why: String,
    /// Other workers or other failures are why: what is done instead is said with it.
    of_others: bool,
}

impl Passed {
    fn new(why: impl Into<String>) -> Passed {
        Passed { why: why.into(), of_others: false }
    }

    fn of_others(why: impl Into<String>) -> Passed {
        Passed { why: why.into(), of_others: true }
    }
}

/// One rung, or why it is of no use now.
fn climb(s: &Situation<'_>, rung: Strategy) -> Result<Plan, Passed> {
    use Strategy as S;
    let once = || match s.state.has_tried(s.class, rung) {
        true => Err(Passed::new("was tried")),
        false => Ok(()),
    };
    let stays = || match s.blame.worker {
        n if n > 0 && s.fleet.others > 0 => Err(Passed::of_others(blamed(s))),
        _ => once(),
    };
    match rung {
        S::ImmediateRetry => {
            stays()?;
            Ok(Plan::new(rung, "it is tried again at once"))
        }
        S::BrowserRestart => {
            stays()?;
            Ok(Plan::new(rung, "it is tried again with a new browser"))
        }
        S::DelayedRetry => {
            stays()?;
            Ok(delayed(s))
        }
        S::DifferentWorker => {
            if s.blame.worker == 0 && s.blame.task_type > 0 {
                let (n, workers) = (s.blame.task_type, s.blame.workers);
                let class = s.class.as_str();
                let text = format!("{n} {class} failures of its type, on {workers} workers");
                return Err(Passed::of_others(text));
            }
            once()?;
            elsewhere(s, s.fleet.others)?;
            let mut plan = Plan::new(rung, format!("another worker than {} gets it", worker(s)));
            plan.avoid = s.worker.is_some();
            Ok(plan)
        }
        S::DifferentHardwareClass => {
            once()?;
            elsewhere(s, s.fleet.other_hardware)?;
            let text = format!("a worker with other hardware than {} gets it", worker(s));
            let mut plan = Plan::new(rung, text);
            plan.avoid_hardware = s.worker.is_some();
            Ok(plan)
        }
        S::ReducedBatchSize | S::ReducedPrecision | S::SimplifiedModel | S::FallbackCpu => {
            match knobs::moved(&s.spec.knobs, s.state, rung) {
                Some(made) => Ok(turn(rung, made)),
                None => Err(Passed::new(no_knob(s, rung))),
            }
        }
        S::Escalation => Err(Passed::new("is no retry")),
    }
}

fn blamed(s: &Situation<'_>) -> String {
    let (n, tasks, class) = (s.blame.worker, s.blame.tasks, s.class.as_str());
    format!("{n} {class} failures of {tasks} tasks on {}", worker(s))
}

fn elsewhere(s: &Situation<'_>, others: usize) -> Result<(), Passed> {
    if others > 0 {
        return Ok(());
    }
    let mut why = s.nobody.unwrap_or("no other worker could take it").to_owned();
    if s.fleet.away > 0 {
        why += &format!("; {} cannot be reached", s.fleet.away);
    }
    Err(Passed::of_others(why))
}

fn no_knob(s: &Situation<'_>, rung: Strategy) -> String {
    let names: &[&str] = match rung {
        Strategy::ReducedBatchSize => &["batch_size", "batch"],
        Strategy::ReducedPrecision => &["precision", "dtype"],
        Strategy::FallbackCpu => &["device"],
        _ => &["model"],
    };
    match names.iter().find(|n| s.spec.knobs.contains_key(**n)) {
        Some(name) if rung == Strategy::FallbackCpu => format!("knob {name} has no cpu left"),
        Some(name) => format!("knob {name} is at its last value"),
        None => format!("it has no knob {}", names[0]),
    }
}

fn turn(strategy: Strategy, made: Move) -> Plan {
    let mut plan = Plan::new(strategy, format!("it is tried with {made}"));
    plan.moved = Some(made);
    plan
}

fn worker(s: &Situation<'_>) -> String {
    s.worker.unwrap_or("the one where it failed").to_owned()
}

/// `base · 2^n`, ± jitter, never above the maximum; n counts the delayed retries so far.
fn delayed(s: &Situation<'_>) -> Plan {
    let before = s.state.tried.iter().filter(|t| t.strategy == Strategy::DelayedRetry).count();
    let base = s.ladders.base_delay.saturating_mul(1 << before.min(32)).min(s.ladders.max_delay);
    let varied = base as f64 * (1.0 + s.ladders.jitter * s.jitter.clamp(-1.0, 1.0));
    let floor = FLOOR.min(s.ladders.base_delay).min(s.ladders.max_delay);
    let delay = (varied as Millis).clamp(floor, s.ladders.max_delay);
    let seconds = delay as f64 / 1000.0;
    let mut plan =
        Plan::new(Strategy::DelayedRetry, format!("it is tried again after {seconds:.1} s"));
    plan.delay = delay;
    plan
}

fn give_up(s: &Situation<'_>, why: &str) -> Plan {
    let tried = s.state.describe_tried();
    let reason = match tried.is_empty() {
        true => format!("no further attempts, since {why}"),
        false => format!("no further attempts, since {why}; tried: {tried}"),
    };
    Plan::new(Strategy::Escalation, reason)
}

#[cfg(test)]
mod tests {
    use super::super::Tried;
    use super::*;
    use outlast_model::Run;
    use proptest::prelude::*;
    use serde_json::json;

    fn spec(knobs: serde_json::Value) -> TaskSpec {
        let mut spec = TaskSpec::new(Run::Shell("x".into()));
        spec.knobs = serde_json::from_value(knobs).unwrap();
        spec
    }

    /// Plays a task that never succeeds to its end; what was done each time.
    fn play(
        spec: &TaskSpec,
        class: FailureClass,
        hardware: HardwareClass,
        limit: u32,
        fleet: Fleet,
        blame: Blame,
    ) -> Vec<Plan> {
        let (mut state, mut done) = (TaskRecovery::default(), Vec::new());
        let ladders = Ladders::default();
        loop {
            let budget = Budget { name: "max_retries", limit, spent: done.len() as u32 };
            let s = Situation {
                ladders: &ladders,
                spec,
                state: &state,
                class,
                hardware,
                worker: Some("w1"),
                budget,
                fleet,
                nobody: None,
                blame,
                jitter: 0.5,
            };
            let plan = plan(&s);
            if let Some(made) = &plan.moved {
                state.knobs.insert(made.knob.clone(), made.place);
            }
            let strategy = plan.strategy;
            state.tried.push(Tried { class, strategy, worker: "w1".into() });
            done.push(plan);
            if done.last().is_some_and(Plan::gives_up) {
                return done;
            }
            assert!(done.len() < 200, "{class:?} on {hardware:?} does not end");
        }
    }

    fn words(plans: &[Plan]) -> Vec<&str> {
        plans.iter().map(|p| p.strategy.as_str()).collect()
    }

    const ALONE: Fleet = Fleet { others: 0, other_hardware: 0, away: 0 };
    const MANY: Fleet = Fleet { others: 3, other_hardware: 1, away: 0 };

    #[test]
    fn out_of_memory_goes_down_the_ladder_and_then_gives_up() {
        let task = spec(json!({"batch_size": [64, 32, 16], "precision": ["fp32", "fp16"],
            "device": ["cuda", "cpu"], "len": [2, 1]}));
        let oom = FailureClass::OutOfMemory;
        let done = play(&task, oom, HardwareClass::Gpu, 20, MANY, Blame::default());
        let expected = [
            "reduced_batch_size",
            "reduced_batch_size",
            "reduced_precision",
            "different_worker",
            "fallback_cpu",
            "simplified_model",
            "escalation",
        ];
        assert_eq!(words(&done), expected);
        let last = &done.last().unwrap().reason;
        assert!(last.contains("reduced_batch_size (2 times)"), "{last}");
        assert!(last.contains("the same settings would meet the same"), "{last}");
        let first = play(&task, oom, HardwareClass::Gpu, 1, MANY, Blame::default());
        assert_eq!(words(&first), ["reduced_batch_size", "escalation"]);
        assert!(first[1].reason.contains("max_retries is 1"), "{}", first[1].reason);
    }

    #[test]
    fn delays_grow_and_the_budget_is_used_up() {
        let task = spec(json!({}));
        let (unknown, cpu) = (FailureClass::Unknown, HardwareClass::Cpu);
        let done = play(&task, unknown, cpu, 8, ALONE, Blame::default());
        let delays: Vec<Millis> = done.iter().map(|p| p.delay).collect();
        assert_eq!(delays, [2_200, 4_400, 8_800, 17_600, 35_200, 60_000, 60_000, 60_000, 0]);
        let done = play(&task, unknown, cpu, 3, MANY, Blame::default());
        assert_eq!(
            words(&done),
            ["delayed_retry", "different_worker", "delayed_retry", "escalation"]
        );
        assert!(done[1].avoid && !done[0].avoid);
    }

    #[test]
    fn a_pattern_changes_what_is_tried() {
        let task = spec(json!({}));
        let (device, gpu) = (FailureClass::Device, HardwareClass::Gpu);
        let worker = Blame { worker: 3, ..Blame::default() };
        assert_eq!(words(&play(&task, device, gpu, 1, MANY, worker))[0], "different_worker");
        // Alone it has nowhere to go.
        assert_eq!(words(&play(&task, device, gpu, 1, ALONE, worker))[0], "delayed_retry");
        let kind = Blame { task_type: 4, ..Blame::default() };
        let done = play(&task, device, gpu, 3, MANY, kind);
        assert!(!words(&done).contains(&"different_worker"), "{:?}", words(&done));
        let lost = play(&task, FailureClass::WorkerLost, gpu, 3, ALONE, Blame::default());
        assert_eq!(words(&lost)[..3], ["immediate_retry"; 3]);
        let killer = Blame { killed: 3, ..Blame::default() };
        let done = play(&task, FailureClass::WorkerCrash, gpu, 9, MANY, killer);
        assert_eq!(words(&done), ["escalation"]);
        assert!(done[0].reason.contains("3 workers died"), "{}", done[0].reason);
    }

    #[test]
    fn who_cannot_be_reached_is_named() {
        let task = spec(json!({}));
        let fleet = Fleet { away: 2, ..ALONE };
        let (class, cpu) = (FailureClass::NotStarted, HardwareClass::Cpu);
        let done = play(&task, class, cpu, 2, fleet, Blame::default());
        assert!(done[1].reason.contains("2 cannot be reached"), "{}", done[1].reason);
    }

    proptest! {
        /// Every class of failure on every class of hardware has an end, within its budget, and
        /// the end says why.
        #[test]
        fn everything_ends(
            class in proptest::sample::select(FailureClass::ALL),
            hardware in proptest::sample::select(HardwareClass::ALL),
            limit in 0u32..40, others in 0usize..3, away in 0usize..3,
            worker in 0usize..4, task_type in 0usize..4,
            batches in 0usize..6, precisions in 0usize..3, devices in 0usize..3,
        ) {
            let mut task = spec(json!({}));
            for (name, count) in [("batch_size", batches), ("precision", precisions)] {
                let values = (0..count).rev().map(|n| json!(n)).collect::<Vec<_>>();
                if count > 0 {
                    task.knobs.insert(name.into(), values);
                }
            }
            if devices > 0 {
                let all = [json!("cuda"), json!("cpu")];
                task.knobs.insert("device".into(), all[..devices].to_vec());
            }
            let fleet = Fleet { others, other_hardware: others, away };
            let blame = Blame { worker, task_type, ..Blame::default() };
            let done = play(&task, class, hardware, limit, fleet, blame);
            prop_assert!(done.len() <= limit as usize + 1);
            let last = done.last().unwrap();
            prop_assert!(last.gives_up() && last.reason.starts_with("no further attempts, since "));
            prop_assert!(done.iter().all(|p| p.delay <= 60_000 && !p.reason.is_empty()));
            // A knob never goes back.
            let mut places = std::collections::BTreeMap::new();
            for made in done.iter().filter_map(|p| p.moved.as_ref()) {
                let before = places.insert(made.knob.clone(), made.place).unwrap_or(0);
                prop_assert!(made.place > before);
                prop_assert!(made.place < task.knobs[&made.knob].len());
            }
        }
    }

    #[test]
    fn memory_has_a_budget_of_its_own_and_what_is_remembered_has_a_limit() {
        let task = spec(json!({"batch_size": [64, 32], "len": [2, 1]}));
        let budget = Budget::of(&task, &TaskRecovery::default(), FailureClass::OutOfMemory, 7);
        assert_eq!((budget.limit, budget.spent, budget.of_memory()), (3, 0, true));
        let mut state = TaskRecovery::default();
        for n in 0..100 {
            let mut plan = Plan::new(super::Strategy::DifferentWorker, "");
            plan.avoid = true;
            state.follow(&plan, FailureClass::Device, &format!("w{n}"), None, false, 0);
        }
        assert_eq!((state.avoid.len(), state.tried.len()), (4, 64));
    }
}
