//! Patterns of failures: a common worker, class of hardware, or type of task.
//!
//! The newest failures are kept, and patterns are recomputed each time, never stored. Only decisions
//! that follow from one are stored (a quarantine).

use super::{Blame, FailureClass, HardwareClass};
use outlast_model::recovery::PatternRules;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The longest text of a failure that is kept, in characters.
pub const MAX_TEXT: usize = 200;
/// No probation is longer, in milliseconds.
pub const MAX_PROBATION: i64 = 3_600_000;

/// A failure that is looked back at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// Grows; its identity.
    pub number: u64,
    /// Time in Unix milliseconds.
    pub at: i64,
    /// The task.
    pub task: String,
    /// The attempt.
    pub epoch: u64,
    /// The task's type.
    pub task_type: String,
    /// The worker's store id.
    pub worker: String,
    /// Name of the worker.
    pub worker_name: String,
    /// Hardware that the attempt used.
    pub hardware: HardwareClass,
    /// Class of the failure.
    pub class: FailureClass,
    /// The evidence, for people.
    pub text: String,
    /// True if it blames no worker: see [`super::Classified::weak`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub weak: bool,
}

/// A worker that is given no work but probes. Stored as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Quarantine {
    /// Start in Unix milliseconds.
    pub since: i64,
    /// Time without a probe, in milliseconds.
    pub wait: i64,
    /// Time of the next probe.
    pub until: i64,
    /// Probes that failed.
    pub failed: u32,
    /// Reason in words.
    pub reason: String,
}

impl Quarantine {
    /// The next one, after a probe that failed; or the first.
    pub fn next(
        before: Option<&Quarantine>,
        now: i64,
        rules: &PatternRules,
        reason: String,
    ) -> Self {
        let failed = before.map_or(0, |q| q.failed + 1);
        let base = (rules.probation * 1000.0) as i64;
        let wait = base.saturating_mul(1 << failed.min(20)).min(MAX_PROBATION.max(base));
        let since = before.map_or(now, |q| q.since);
        Quarantine { since, wait, until: now + wait, failed, reason }
    }

    /// Returns the remaining time in milliseconds. A clock that was set back does not lengthen it.
    pub fn left(&self, now: i64) -> u64 {
        u64::try_from((self.until - now).min(self.wait)).unwrap_or(0)
    }
}

/// Property that similar failures share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PatternKind {
    /// A worker.
    Worker,
    /// A class of hardware, on several workers.
    Hardware,
    /// A type of task, on several workers.
    TaskType,
    /// A type of task on a class of hardware.
    TypeOnHardware,
    /// One task, on several workers.
    Task,
}

impl PatternKind {
    /// The word that users see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Hardware => "hardware",
            Self::TaskType => "task_type",
            Self::TypeOnHardware => "type_on_hardware",
            Self::Task => "task",
        }
    }
}

/// Like failures.
#[derive(Debug, Clone, PartialEq)]
pub struct Pattern {
    /// Kind of the shared property.
    pub kind: PatternKind,
    /// Value of the property: worker (by name), hardware or type; for a type on hardware
    /// `TYPE on HARDWARE`.
    pub subject: String,
    /// Common class of the failures.
    pub class: FailureClass,
    /// Number of failures.
    pub count: usize,
    /// Number of tasks.
    pub tasks: usize,
    /// Number of workers.
    pub workers: usize,
    /// The first and the last of them, in Unix milliseconds.
    pub between: (i64, i64),
    /// The newest one's evidence.
    pub text: String,
}

/// The newest failures, oldest first.
#[derive(Debug, Clone, Default)]
pub struct History {
    failures: VecDeque<Failure>,
}

/// Returns true if failures of this class can be the machine's fault.
pub fn blames_worker(class: FailureClass) -> bool {
    use FailureClass as F;
    matches!(class, F::Device | F::BrowserCrash | F::ContextLost | F::Disk | F::NotStarted)
}

/// Returns true if failures of this class can exclude a type of task from a class of hardware.
fn blames_hardware(class: FailureClass) -> bool {
    use FailureClass as F;
    matches!(class, F::Device | F::BrowserCrash | F::ContextLost | F::OutOfMemory)
}

impl History {
    /// Restores the history from stored failures.
    pub fn new(failures: Vec<Failure>) -> History {
        History { failures: failures.into() }
    }

    /// Remembers one, and forgets what is more than wanted.
    pub fn push(&mut self, failure: Failure, rules: &PatternRules) {
        self.failures.push_back(failure);
        while self.failures.len() > rules.history {
            self.failures.pop_front();
        }
    }

    /// The number of the newest.
    pub fn last(&self) -> u64 {
        self.failures.back().map_or(0, |f| f.number)
    }

    /// Iterates over all failures, oldest first.
    pub fn all(&self) -> impl DoubleEndedIterator<Item = &Failure> {
        self.failures.iter()
    }

    /// Discards the failures of a worker (by store id) or of a type.
    pub fn forget(&mut self, worker: Option<&str>, task_type: Option<&str>) {
        self.failures.retain(|f| {
            worker.is_some_and(|w| f.worker != w) || task_type.is_some_and(|t| f.task_type != t)
        });
    }

    fn recent(&self, now: i64, rules: &PatternRules) -> impl Iterator<Item = &Failure> {
        let from = now - (rules.window * 1000.0) as i64;
        // A wall clock that was set back must not hide what has just happened.
        self.failures.iter().filter(move |f| f.at >= from)
    }

    /// Compares the newest failure with the others.
    pub fn blame(&self, newest: &Failure, now: i64, rules: &PatternRules) -> Blame {
        let (mut here, mut tasks) = (0, BTreeSet::new());
        let (mut alike, mut outside, mut workers) = (0, 0, BTreeSet::new());
        let mut killed = BTreeSet::new();
        for f in self.recent(now, rules).filter(|f| f.class == newest.class) {
            if f.worker == newest.worker && !f.weak {
                here += 1;
                tasks.insert(&f.task);
            }
            if f.task_type == newest.task_type {
                alike += 1;
                outside += usize::from(f.worker != newest.worker);
                workers.insert(&f.worker);
            }
            if f.task == newest.task && f.class == FailureClass::WorkerCrash {
                killed.insert(&f.worker);
            }
        }
        let (few, several) = (rules.count, |n: usize| n > 1);
        let bad =
            here >= few && several(tasks.len()) && !newest.weak && blames_worker(newest.class);
        // One failure elsewhere does not clear a worker: its type is to blame instead only if it
        // fails often, or about as often, elsewhere too.
        let cleared = outside >= few || (several(outside) && 2 * outside >= here);
        let kind = alike >= few && several(workers.len()) && (!bad || cleared);
        let kills = killed.len() >= few;
        Blame {
            worker: if bad { here } else { 0 },
            tasks: tasks.len(),
            task_type: if kind { alike } else { 0 },
            workers: workers.len(),
            killed: if kills { killed.len() } else { 0 },
        }
    }

    /// Describes how often the like of this failure happened within the window, and the patterns that
    /// it is part of, for people; none if it is the only one.
    pub fn counts(&self, newest: &Failure, now: i64, rules: &PatternRules) -> Option<String> {
        let alike = self.recent(now, rules).filter(|f| f.class == newest.class);
        let (mut count, mut tasks, mut workers) = (0, BTreeSet::new(), BTreeSet::new());
        for f in alike {
            count += 1;
            tasks.insert(&f.task);
            workers.insert(&f.worker);
        }
        if count < 2 {
            return None;
        }
        let both = format!("{} on {}", newest.task_type, newest.hardware.as_str());
        let part = |kind, subject: &str| {
            let own: &str = match kind {
                PatternKind::Worker => &newest.worker_name,
                PatternKind::Hardware => newest.hardware.as_str(),
                PatternKind::TaskType => &newest.task_type,
                PatternKind::TypeOnHardware => &both,
                PatternKind::Task => &newest.task,
            };
            own == subject
        };
        let shown = self.find(now, rules, Some(newest.class), part).into_iter().map(|p| {
            let (kind, times) = (p.kind.as_str(), number(p.count, "failure"));
            let (tasks, workers) = (number(p.tasks, "task"), number(p.workers, "worker"));
            format!("{kind} {}: {times} of {tasks} on {workers}", p.subject)
        });
        let shown: Vec<_> = shown.collect();
        let (class, minutes) = (newest.class.as_str(), (rules.window / 60.0).ceil());
        let (tasks, workers) = (number(tasks.len(), "task"), number(workers.len(), "worker"));
        let found =
            format!("{count} {class} failures of {tasks} on {workers} within {minutes} min");
        Some(match shown.is_empty() {
            true => found,
            false => format!("{found}, a pattern ({})", shown.join("; ")),
        })
    }

    /// Returns true if tasks of this type are excluded from this class of hardware: several failed there
    /// after `since`. A task that fails repeatedly on its way down a ladder counts once.
    pub fn excluded(
        &self,
        task_type: &str,
        hardware: HardwareClass,
        since: i64,
        now: i64,
        rules: &PatternRules,
    ) -> bool {
        if hardware == HardwareClass::Cpu || self.failures.len() < rules.count {
            return false;
        }
        let mut tasks: BTreeMap<FailureClass, BTreeSet<&str>> = BTreeMap::new();
        for f in self.recent(now, rules).filter(|f| f.at > since) {
            if f.task_type == task_type && f.hardware == hardware && blames_hardware(f.class) {
                tasks.entry(f.class).or_default().insert(&f.task);
            }
        }
        tasks.values().any(|t| t.len() >= rules.count.max(2))
    }

    /// All patterns there are now, the most frequent first.
    pub fn patterns(&self, now: i64, rules: &PatternRules) -> Vec<Pattern> {
        self.find(now, rules, None, |_, _| true)
    }

    /// Finds patterns of a class, or of all classes, with subjects that `may` accepts.
    fn find(
        &self,
        now: i64,
        rules: &PatternRules,
        class: Option<FailureClass>,
        may: impl Fn(PatternKind, &str) -> bool,
    ) -> Vec<Pattern> {
        let mut groups: BTreeMap<(PatternKind, String, FailureClass), Vec<&Failure>> =
            BTreeMap::new();
        for f in self.recent(now, rules).filter(|f| class.is_none_or(|c| f.class == c)) {
            use PatternKind as K;
            let both = format!("{} on {}", f.task_type, f.hardware.as_str());
            for (kind, subject) in [
                (K::Worker, f.worker_name.clone()),
                (K::Hardware, f.hardware.as_str().to_owned()),
                (K::TaskType, f.task_type.clone()),
                (K::TypeOnHardware, both),
                (K::Task, f.task.clone()),
            ] {
                if may(kind, &subject) {
                    groups.entry((kind, subject, f.class)).or_default().push(f);
                }
            }
        }
        let tell = |((kind, subject, class), all): (_, Vec<&Failure>)| {
            let tasks: BTreeSet<_> = all.iter().map(|f| &f.task).collect();
            let workers: BTreeSet<_> = all.iter().map(|f| &f.worker).collect();
            let (first, last) = (all.first()?, all.last()?);
            let (count, between) = (all.len(), (first.at, last.at));
            let (tasks, workers, text) = (tasks.len(), workers.len(), last.text.clone());
            let shared = match kind {
                PatternKind::Worker => tasks > 1,
                PatternKind::Hardware | PatternKind::TaskType | PatternKind::Task => workers > 1,
                PatternKind::TypeOnHardware => true,
            };
            let found = count >= rules.count && shared;
            found.then_some(Pattern { kind, subject, class, count, tasks, workers, between, text })
        };
        let mut found: Vec<Pattern> = groups.into_iter().filter_map(tell).collect();
        found.sort_by_key(|p| std::cmp::Reverse(p.count));
        found
    }
}

fn number(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(number: u64, task: &str, kind: &str, worker: &str, class: FailureClass) -> Failure {
        Failure {
            number,
            at: number as i64 * 1000,
            task: task.into(),
            epoch: 1,
            task_type: kind.into(),
            worker: worker.into(),
            worker_name: worker.into(),
            hardware: HardwareClass::Gpu,
            class,
            text: "x".into(),
            weak: false,
        }
    }

    #[test]
    fn a_worker_is_blamed_by_several_tasks_only() {
        let rules = PatternRules::default();
        let mut history = History::default();
        let device = FailureClass::Device;
        for n in 1..=3 {
            history.push(failure(n, "t", "k", "w", device), &rules);
        }
        let newest = failure(3, "t", "k", "w", device);
        let blame = history.blame(&newest, 3_000, &rules);
        assert_eq!((blame.worker, blame.task_type, blame.killed), (0, 0, 0));
        let other = failure(4, "u", "k", "w", device);
        history.push(other.clone(), &rules);
        assert_eq!(history.blame(&other, 4_000, &rules).worker, 4);
        // What only their standard output says does not count.
        let weak = |n| Failure { weak: true, ..failure(n, "v", "k", "x", device) };
        (1..=3).for_each(|n| history.push(weak(n), &rules));
        let stronger = failure(4, "u", "k", "x", device);
        history.push(stronger.clone(), &rules);
        assert_eq!(history.blame(&stronger, 4_000, &rules).worker, 0);
        history.forget(Some("x"), None);
        // They age, and what a program does is no worker's fault.
        assert_eq!(history.blame(&other, 3_604_500, &rules).worker, 0);
        let own = failure(5, "u", "k", "w", FailureClass::Software);
        assert_eq!(history.blame(&own, 5_000, &rules).worker, 0);
        // Four failures of two tasks keep no type off its hardware; three tasks do.
        let off = |h: &History, on, since| h.excluded("k", on, since, 5_000, &rules);
        assert!(!off(&history, HardwareClass::Gpu, 0));
        history.push(failure(5, "v", "k", "w", device), &rules);
        assert!(off(&history, HardwareClass::Gpu, 0));
        assert!(!off(&history, HardwareClass::Gpu, 3_500));
        assert!(!off(&history, HardwareClass::Cpu, 0));
        history.forget(Some("w"), None);
        assert_eq!(history.all().count(), 0);
    }

    #[test]
    fn a_failure_elsewhere_does_not_clear_a_worker_and_as_many_do() {
        let rules = PatternRules::default();
        let device = FailureClass::Device;
        let told = |outside: u64, here: u64| {
            let mut history = History::default();
            for n in 0..outside {
                history.push(failure(n, &format!("o{n}"), "k", "other", device), &rules);
            }
            for n in 0..here {
                history.push(failure(n, &format!("h{n}"), "k", "w", device), &rules);
            }
            let blame = history.blame(&failure(9, "h0", "k", "w", device), 9_000, &rules);
            (blame.worker, blame.task_type)
        };
        assert_eq!(told(1, 3), (3, 0));
        assert_eq!(told(2, 3), (3, 5));
        assert_eq!(told(2, 5), (5, 0));
        assert_eq!(told(3, 8), (8, 11));
        assert_eq!(told(2, 1), (0, 3));
    }

    #[test]
    fn patterns_say_what_is_shared() {
        let rules = PatternRules { history: 5, ..PatternRules::default() };
        let mut history = History::default();
        let crash = FailureClass::WorkerCrash;
        for (n, worker) in [(1, "a"), (2, "b"), (3, "c")] {
            history.push(failure(n, "t", "k", worker, crash), &rules);
        }
        let newest = failure(3, "t", "k", "c", crash);
        assert_eq!(history.blame(&newest, 3_000, &rules).killed, 3);
        let found = history.patterns(3_000, &rules);
        let told: Vec<_> = found.iter().map(|p| (p.kind, p.subject.as_str(), p.count)).collect();
        use PatternKind as K;
        assert_eq!(
            told,
            [
                (K::Hardware, "gpu", 3),
                (K::TaskType, "k", 3),
                (K::TypeOnHardware, "k on gpu", 3),
                (K::Task, "t", 3)
            ]
        );
        (4..20).for_each(|n| history.push(failure(n, "z", "z", "z", crash), &rules));
        assert_eq!(history.all().count(), 5);
    }

    #[test]
    fn probation_doubles_up_to_an_hour() {
        let rules = PatternRules::default();
        let mut q = Quarantine::next(None, 0, &rules, "x".into());
        assert_eq!((q.until, q.failed), (60_000, 0));
        for n in 1..30 {
            q = Quarantine::next(Some(&q), 0, &rules, "x".into());
            assert_eq!((q.until, q.failed), ((60_000 << n.min(20)).min(MAX_PROBATION), n));
        }
    }

    #[test]
    fn programs_blame_no_worker_and_a_clock_that_was_set_back_prolongs_no_quarantine() {
        let rules = PatternRules::default();
        let mut history = History::default();
        for n in 1..=8 {
            history.push(failure(n, &format!("t{n}"), "k", "w", FailureClass::Software), &rules);
        }
        let newest = failure(8, "t8", "k", "w", FailureClass::Software);
        assert_eq!(history.blame(&newest, 8_000, &rules).worker, 0);
        let reason = String::new();
        let q = Quarantine { since: 0, wait: 1_000, until: 9_000_000, failed: 0, reason };
        assert_eq!((q.left(0), q.left(9_000_001)), (1_000, 0));
    }
}
