//! Properties of every task at the end: its history, its result and its ledger agree.

use crate::api::{Listed, unix_ms};
use crate::ledger::{CheckpointId, Fact, Line};
use crate::specs::{Kind, ON_PURPOSE, Plan};
use outlast::api::{History, OutcomeKind, Task, TaskResult, TaskState};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Evidence about a task.
pub(crate) struct Evidence {
    pub plan: Plan,
    pub task: Task,
    pub result: Option<TaskResult>,
    pub history: History,
    pub lines: Vec<Line>,
    /// The coordinator's list of its checkpoints, if available.
    pub listed: Option<Vec<Listed>>,
    /// Time at which the coordinator was seen to have a checkpoint.
    pub seen: BTreeMap<CheckpointId, i64>,
}

/// Sums over all tasks.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Totals {
    pub ends: BTreeMap<TaskState, u64>,
    /// Attempts that were given to a worker.
    pub attempts: u64,
    /// Processes that were started for them.
    pub starts: u64,
    /// Results of abandoned attempts.
    pub superseded: u64,
    pub steps: u64,
    pub steps_twice: u64,
    pub checkpoints: u64,
    /// Number of these that a task itself saw at the coordinator.
    pub delivered: u64,
    pub refused: u64,
    pub restored: u64,
    /// Attempts that went on from an older checkpoint than the coordinator had when they started:
    /// it came after the attempt had been given to its worker.
    pub behind: u64,
    /// Acknowledged by a worker whose disk was destroyed before the coordinator had them.
    pub lost_with_workers: u64,
}

/// A single run of a task's process.
struct Start<'a> {
    attempt: u64,
    pid: u32,
    at: i64,
    worker: &'a str,
}

fn starts(lines: &[Line]) -> Vec<Start<'_>> {
    let mut all = Vec::new();
    for line in lines {
        if let Fact::Start(worker) = &line.fact {
            all.push(Start { attempt: line.attempt, pid: line.pid, at: line.at, worker });
        }
    }
    all
}

/// A checkpoint that a worker acknowledged.
struct Made<'a> {
    id: CheckpointId,
    step: u32,
    at: i64,
    worker: &'a str,
}

fn made(lines: &[Line]) -> Vec<Made<'_>> {
    let starts = starts(lines);
    let mut all = Vec::new();
    for line in lines {
        if let Fact::Made(id, step) = line.fact {
            let of = |s: &&Start<'_>| (s.attempt, s.pid) == (line.attempt, line.pid);
            let worker = starts.iter().rfind(of).map_or("", |s| s.worker);
            all.push(Made { id, step, at: line.at, worker });
        }
    }
    all
}

impl Evidence {
    /// Time at which it was certain that the coordinator has a checkpoint.
    fn delivered(&self) -> BTreeMap<CheckpointId, i64> {
        let mut all = self.seen.clone();
        for one in self.listed.iter().flatten().filter(|c| !c.dropped) {
            if let Some(recorded) = one.recorded {
                let at = all.entry(one.id).or_insert(recorded);
                *at = recorded.min(*at);
            }
        }
        for line in &self.lines {
            if let Fact::Delivered(id) = line.fact {
                let at = all.entry(id).or_insert(line.at);
                *at = line.at.min(*at);
            }
        }
        all
    }

    fn add(&self, totals: &mut Totals) {
        let count =
            |of: fn(&Fact) -> bool| self.lines.iter().filter(|l| of(&l.fact)).count() as u64;
        *totals.ends.entry(self.task.state).or_default() += 1;
        totals.attempts += self.task.attempt;
        totals.starts += count(|f| matches!(f, Fact::Start(_)));
        let superseded = self.history.events.iter().filter(|e| e.event == "superseded");
        totals.superseded += superseded.count() as u64;
        let steps = count(|f| matches!(f, Fact::Step(_)));
        totals.steps += steps;
        let distinct: BTreeSet<u32> = self.lines.iter().filter_map(step).collect();
        totals.steps_twice += steps - distinct.len() as u64;
        totals.checkpoints += count(|f| matches!(f, Fact::Made(..)));
        totals.delivered += count(|f| matches!(f, Fact::Delivered(_)));
        totals.refused += count(|f| matches!(f, Fact::Refused(_)));
        totals.restored += count(|f| matches!(f, Fact::Restored(..)));
    }
}

fn step(line: &Line) -> Option<u32> {
    match line.fact {
        Fact::Step(n) => Some(n),
        _ => None,
    }
}

/// Lists the violations of a task, in sentences without its name.
pub(crate) fn judge(
    e: &Evidence,
    destroyed: &BTreeSet<String>,
    totals: &mut Totals,
) -> Vec<String> {
    e.add(totals);
    let mut wrong = Vec::new();
    for line in &e.lines {
        if let Fact::Wrong(what) = &line.fact {
            wrong.push(format!("attempt {} noted: {what}", line.attempt));
        }
    }
    ended(e, &mut wrong);
    expected(e, &mut wrong);
    worked(e, &mut wrong);
    restored(e, destroyed, totals, &mut wrong);
    kept(e, destroyed, totals, &mut wrong);
    wrong
}

/// Checks that the task ended exactly once.
fn ended(e: &Evidence, wrong: &mut Vec<String>) {
    let state = e.task.state;
    if !state.is_terminal() {
        wrong.push(format!("it is still {state} (attempt {})", e.task.attempt));
    }
    match &e.result {
        Some(result) if result.state == state => {}
        Some(result) => wrong.push(format!("it is {state}, its result is {}", result.state)),
        None => wrong.push("it has no result".into()),
    }
    let is_end = |event: &&str| matches!(*event, "succeeded" | "failed" | "cancelled");
    let ends: Vec<&str> =
        e.history.events.iter().map(|e| e.event.as_str()).filter(is_end).collect();
    // An abandoned attempt may still succeed, late.
    if ends != [state.as_str()] && ends != ["failed", "succeeded"] {
        wrong.push(format!("it is {state}, its history ends with {ends:?}"));
    }
}

/// Checks the expected outcome.
fn expected(e: &Evidence, wrong: &mut Vec<String>) {
    let result = e.result.as_ref();
    let (state, code) = (e.task.state, result.and_then(|r| r.exit_code));
    let (good_end, bad_end) = (state == TaskState::Succeeded, state == TaskState::Failed);
    let good = match e.plan.kind {
        Kind::Plain | Kind::Fence | Kind::Flaky => good_end,
        Kind::Fails => bad_end && code == Some(ON_PURPOSE),
        Kind::Slow => bad_end && result.and_then(|r| r.outcome) == Some(OutcomeKind::TimedOut),
        Kind::Once => good_end || bad_end && e.task.reason.contains("rerun = never"),
    };
    if !good {
        let (reason, message) = (&e.task.reason, result.map_or("", |r| &r.message));
        wrong.push(format!("it ended {state}, exit code {code:?}, {reason:?}, {message:?}"));
    }
}

/// A success did all of the work; what must not run twice did not.
fn worked(e: &Evidence, wrong: &mut Vec<String>) {
    if e.plan.kind == Kind::Once {
        let starts = starts(&e.lines).len();
        let attempts: BTreeSet<u64> =
            e.lines.iter().filter(|l| step(l).is_some()).map(|l| l.attempt).collect();
        if starts > 1 || attempts.len() > 1 {
            wrong.push(format!("it must not run twice: {starts} starts, steps in {attempts:?}"));
        }
    }
    let Some(result) = e.result.as_ref().filter(|r| r.state == TaskState::Succeeded) else {
        return;
    };
    let (attempt, last) = (result.attempt, e.plan.steps);
    // The process that ended well, and where it began.
    let ended = e.lines.iter().rfind(|l| l.attempt == attempt && l.fact == Fact::End(0));
    let Some(ended) = ended else {
        return wrong.push(format!("attempt {attempt} succeeded, and never came to its end"));
    };
    let own = || e.lines.iter().filter(|l| (l.attempt, l.pid) == (attempt, ended.pid));
    let first = own().find_map(|l| match l.fact {
        Fact::Restored(_, step) => Some(step + 1),
        Fact::Fresh => Some(1),
        _ => None,
    });
    let did: Vec<u32> = own().filter_map(step).collect();
    let all: Vec<u32> = (first.unwrap_or(1)..=last).collect();
    let ever: BTreeSet<u32> = e.lines.iter().filter_map(step).collect();
    if did != all || ever.len() as u32 != last {
        let (n, ever) = (did.len(), ever.len());
        wrong.push(format!("attempt {attempt} succeeded with {n} steps from {first:?}; {ever} of {last} were ever done"));
    }
    let line = format!("done {} {last}", e.plan.task.id);
    if result.stdout.trim_end().lines().last() != Some(&line) {
        wrong.push(format!("its output ends with {:?}", result.stdout.lines().last()));
    }
}

/// Every attempt went on from the newest checkpoint that it could have.
fn restored(
    e: &Evidence,
    destroyed: &BTreeSet<String>,
    totals: &mut Totals,
    wrong: &mut Vec<String>,
) {
    let (made, delivered) = (made(&e.lines), e.delivered());
    for start in starts(&e.lines) {
        let own = |l: &&Line| (l.attempt, l.pid) == (start.attempt, start.pid);
        let got = e.lines.iter().filter(own).find_map(|l| match l.fact {
            Fact::Restored(id, _) => Some(id),
            Fact::Fresh => Some((0, 0)),
            _ => None,
        });
        let Some(got) = got else { continue };
        let events = e.history.events.iter();
        let given = events.filter(|h| h.event == "assigned" && h.attempt == start.attempt);
        let given = given.map(|h| unix_ms(&h.at)).min().unwrap_or(0);
        let newest = |before: i64| {
            let had = delivered.iter().filter(|(id, at)| **at < before && id.0 <= start.attempt);
            had.map(|(id, _)| *id).max()
        };
        totals.behind += u64::from(newest(start.at).is_some_and(|had| got < had));
        if let Some(had) = newest(given).filter(|had| got < *had) {
            wrong.push(format!(
                "attempt {} went on from {got:?}, and the coordinator had {had:?} before",
                start.attempt
            ));
        }
        let here = made
            .iter()
            .filter(|m| m.worker == start.worker && m.at < start.at && m.id.0 <= start.attempt);
        if let Some(had) = here.map(|m| m.id).max().filter(|had| got < *had)
            && !destroyed.contains(start.worker)
        {
            let (attempt, worker) = (start.attempt, start.worker);
            wrong.push(format!("attempt {attempt} went on from {got:?}, and {worker} itself had acknowledged {had:?}"));
        }
    }
}

/// Acknowledged checkpoints of workers that still exist, which the coordinator must therefore have:
/// ids and steps.
pub(crate) fn owed(lines: &[Line], destroyed: &BTreeSet<String>) -> Vec<(CheckpointId, u32)> {
    let made = made(lines);
    made.iter().filter(|m| !destroyed.contains(m.worker)).map(|m| (m.id, m.step)).collect()
}

/// No acknowledged checkpoint is missing.
fn kept(e: &Evidence, destroyed: &BTreeSet<String>, totals: &mut Totals, wrong: &mut Vec<String>) {
    let Some(listed) = &e.listed else { return };
    let find = |id| listed.iter().find(|c| c.id == id);
    let owed = owed(&e.lines, destroyed);
    for Made { id, step, .. } in made(&e.lines) {
        match find(id) {
            Some(c) if c.step.is_some_and(|s| s != step) => {
                wrong.push(format!("checkpoint {id:?} is of step {step}, listed as {:?}", c.step));
            }
            Some(_) => {}
            None if owed.contains(&(id, step)) => {
                wrong.push(format!("the coordinator does not know checkpoint {id:?}"));
            }
            None => totals.lost_with_workers += 1,
        }
    }
    for id in e.delivered().keys() {
        if find(*id).is_none_or(|c| c.dropped) {
            wrong.push(format!("checkpoint {id:?} was delivered, and is not there"));
        }
    }
    // Dropped is only what newer ones of the same attempt made needless.
    for (id, _) in &owed {
        let newer = owed.iter().filter(|(n, _)| n.0 == id.0 && n.1 > id.1).count();
        if find(*id).is_some_and(|c| c.dropped) && newer == 0 {
            wrong.push(format!("checkpoint {id:?} was dropped, and it was the newest"));
        }
    }
    if let Some(newest) = owed.iter().map(|(id, _)| *id).max()
        && find(newest).is_some_and(|c| !c.kept)
        && !listed.iter().any(|c| c.kept && c.id > newest)
    {
        wrong.push(format!("the newest checkpoint, {newest:?}, is not kept"));
    }
}

#[cfg(test)]
#[path = "oracle_tests.rs"]
mod tests;
