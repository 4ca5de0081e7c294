//! The tasks that are handed in, as they follow from the seed, and what is expected of each.

use outlast::{LateResult, NewTask, Rerun, Run, TaskSpec};
use outlast_wire::spec::OnLeaseExpired;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::path::Path;

/// Kind of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Succeeds in the end, whatever happens to its workers.
    Plain,
    /// Succeeds; late results of older attempts are refused.
    Fence,
    /// Exits with code 3 after its last step.
    Fails,
    /// Exits with code 3 twice, and is retried.
    Flaky,
    /// Must not run twice.
    Once,
    /// Exceeds its time limit.
    Slow,
}

impl Kind {
    pub fn word(self) -> &'static str {
        match self {
            Kind::Plain => "plain",
            Kind::Fence => "fence",
            Kind::Fails => "fails",
            Kind::Flaky => "flaky",
            Kind::Once => "once",
            Kind::Slow => "slow",
        }
    }
}

/// A task, and what it does.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub kind: Kind,
    pub steps: u32,
    /// Size of a checkpoint in bytes.
    pub size: usize,
    pub task: NewTask,
}

/// Paths of files that a task needs.
pub(crate) struct Places<'a> {
    pub outlast: &'a Path,
    pub torture: &'a Path,
    pub ledger: &'a Path,
}

/// The exit code of a failure on purpose.
pub(crate) const ON_PURPOSE: i32 = 3;

pub(crate) fn tasks(seed: u64, count: u32, places: &Places<'_>) -> Vec<Plan> {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x7461_736b);
    (1..=count).map(|n| one(&mut rng, seed, n, places)).collect()
}

fn one(rng: &mut SmallRng, seed: u64, n: u32, places: &Places<'_>) -> Plan {
    let kind = match rng.random_range(0..100) {
        0..55 => Kind::Plain,
        55..63 => Kind::Fence,
        63..71 => Kind::Fails,
        71..80 => Kind::Flaky,
        80..93 => Kind::Once,
        _ => Kind::Slow,
    };
    let id = format!("{}-{n:03}", kind.word());
    let mut steps: u32 = rng.random_range(20..=200);
    // The longer the task, the shorter its steps: none takes more than about 20 s.
    let mut step_ms = rng.random_range(20..=200_u32).min(20_000 / steps);
    let every = rng.random_range(4..=25_u32);
    let size = (10_240.0 * 204.8_f64.powf(rng.random::<f64>())) as usize;
    if kind == Kind::Slow {
        (steps, step_ms) = (200, 150);
    }
    // Checkpoints would carry it over its time.
    let every = if kind == Kind::Slow { 0 } else { every };
    let argv = [
        places.torture.display().to_string(),
        "task".into(),
        format!("--outlast={}", places.outlast.display()),
        format!("--ledger={}", places.ledger.display()),
        format!("--steps={steps}"),
        format!("--step-ms={step_ms}"),
        format!("--every={every}"),
        format!("--size={size}"),
        format!("--seed={}", seed ^ u64::from(n)),
        format!("--kind={}", kind.word()),
    ];
    let mut spec = TaskSpec::new(Run::Command(argv.to_vec()));
    // Losing attempts is what this is about: that alone must not end a task.
    spec.max_retries = 1000;
    spec.kill_grace = 1.0;
    spec.labels.insert("kind".into(), kind.word().into());
    spec.reconnect_window = if rng.random_bool(0.7) { 15.0 } else { 600.0 };
    spec.priority = rng.random_range(0..2);
    spec.on_lease_expired = match rng.random_range(0..6) {
        0 => OnLeaseExpired::Pause,
        1 => OnLeaseExpired::Stop,
        _ => OnLeaseExpired::Continue,
    };
    match kind {
        Kind::Plain | Kind::Fails => {}
        Kind::Fence => spec.late_result = LateResult::Fence,
        Kind::Flaky => spec.retry_failures = true,
        Kind::Once => spec.rerun = Rerun::Never,
        Kind::Slow => spec.timeout = Some(f64::from(rng.random_range(3..=6_u32))),
    }
    Plan { kind, steps, size, task: NewTask { id, spec } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_always_gives_the_same_tasks() {
        let here = Path::new("x");
        let places = Places { outlast: here, torture: here, ledger: here };
        let list = |seed| -> Vec<_> {
            tasks(seed, 200, &places).into_iter().map(|p| (p.task.id, p.task.spec)).collect()
        };
        assert_eq!(list(7), list(7));
        assert_ne!(list(7), list(8));
        for plan in tasks(7, 200, &places) {
            plan.task.spec.check().unwrap();
        }
    }
}
