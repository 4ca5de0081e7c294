//! The present state of a task, and what an operator can do about it.

use super::attempts::from;
use super::facts::{Facts, Whereabouts};
use super::words::{Clock, duration, gone};
use outlast_core::records::TaskState;
use outlast_model::Cause;
use outlast_store::EventKind;

pub(super) fn present(facts: &Facts, clock: Clock) -> (String, Option<String>) {
    let task = &facts.task;
    match task.state {
        TaskState::Pending if facts.extra.paused => (
            format!("it is paused{}, and no worker is given it", paused(facts, clock)),
            resume(facts),
        ),
        TaskState::Pending => pending(facts, clock),
        TaskState::Assigned => assigned(facts, clock),
        TaskState::Succeeded => (over(facts, clock, "succeeded"), None),
        TaskState::Cancelled => {
            let hint = format!("`outlast task retry {}` runs it again", task.id);
            (over(facts, clock, "was cancelled"), Some(hint))
        }
        TaskState::Failed => (over(facts, clock, "failed"), Some(after_failure(facts))),
    }
}

fn paused(facts: &Facts, clock: Clock) -> String {
    let since = facts.events.iter().rfind(|e| e.kind == EventKind::PauseRequested);
    since.map_or_else(String::new, |e| format!(" since {}", clock.time(e.at)))
}

fn resume(facts: &Facts) -> Option<String> {
    Some(format!("`outlast task resume {}` lets it go on", facts.task.id))
}

fn pending(facts: &Facts, clock: Clock) -> (String, Option<String>) {
    let task = &facts.task;
    let since = facts.events.last().map_or(task.submitted_at, |e| e.at).max(task.submitted_at);
    let why = facts.waiting_for.as_deref().unwrap_or("its turn comes next");
    let now = format!("it waits since {}: {why}", clock.time(since));
    let drained = facts.workers.values().filter(|w| w.there && w.drained).count();
    let works = |w: &&Whereabouts| w.there && !w.drained && !w.is_unfit();
    let unfit = facts.workers.values().find(|w| w.is_unfit());
    let hint = match (facts.workers.values().any(|w| works(&w)), drained) {
        (false, _) if unfit.is_some() => {
            unfit.map(|w| format!("mend the machine of {}; it gets work again by itself", w.name))
        }
        (false, 0) => Some("start a worker with `outlast worker`".to_owned()),
        (false, _) => {
            Some("all workers are drained; `outlast workers undrain NAME` gives one work".into())
        }
        (true, _) if !task.spec.requires.is_empty() => {
            let wants: Vec<String> =
                task.spec.requires.iter().map(|(k, v)| format!("{k} {v}")).collect();
            let wants = wants.join(", ");
            Some(format!("it requires {wants}: see what `outlast workers show NAME` has"))
        }
        (true, _) => None,
    };
    (now, hint)
}

fn assigned(facts: &Facts, clock: Clock) -> (String, Option<String>) {
    let task = &facts.task;
    let worker = facts.name(task.worker.as_ref());
    let n = task.epoch;
    let place = task.worker.as_ref().and_then(|w| facts.workers.get(w));
    let from = from(facts, n, task.assigned_at);
    let mut now = match (task.started_at, task.assigned_at) {
        (Some(at), _) => {
            let (time, long) = (clock.time(at), duration(facts.now - at));
            match facts.extra.paused {
                true => format!("attempt {n} is at {worker}{from} since {time} ({long})"),
                false => format!("attempt {n} runs on {worker}{from} since {time} ({long})"),
            }
        }
        (None, Some(at)) => {
            format!("attempt {n} is at {worker} since {}, and waits there", clock.time(at))
        }
        (None, None) => format!("attempt {n} is at {worker}"),
    };
    if let Some(progress) = facts.extra.progress {
        now += &format!(", and is {:.0}% done", progress * 100.0);
    }
    let mut hint = None;
    if let Some(place) = place.filter(|w| !w.there) {
        let window = (task.spec.reconnect_window * 1000.0) as i64;
        let gone_at = place.gone_at.unwrap_or(facts.now);
        let left = gone_at + window - facts.now;
        now += &format!(
            "; {worker} cannot be reached since {}{}",
            clock.time(gone_at),
            gone(place.gone_cause)
        );
        now += &match left > 0 {
            true => format!(", and keeps it for another {}", duration(left)),
            false => ", and it will be given to another worker".to_owned(),
        };
        let id = &place.name;
        hint = Some(format!(
            "if {id} is gone for good, `outlast workers forget {id}` gives it to others at once"
        ));
    }
    if let Some((name, faults)) = place.and_then(|w| Some((&w.name, w.unfit.as_ref()?))) {
        now += &format!("; {name} {} (since {})", faults.says, clock.time(faults.since));
        if faults.unfit && task.started_at.is_none() {
            now += ", and gives back what it has not started";
        }
        hint = Some(format!("mend the machine of {name}; it gets work again by itself"));
    }
    if task.cancelling {
        now += "; it is being cancelled, and is over once its worker says that it has stopped";
    } else if facts.extra.paused {
        now += &format!("; it is paused{}", paused(facts, clock));
        hint = resume(facts);
    }
    (now, hint)
}

fn over(facts: &Facts, clock: Clock, word: &str) -> String {
    let at = facts.task.ended_at.unwrap_or(facts.now);
    let mut now = format!("it {word} at {}", clock.time(at));
    if !facts.task.reason.is_empty() {
        now += &format!(": {}", facts.task.reason);
    }
    match facts.extra.cause {
        Cause::Unspecified | Cause::Done | Cause::Cancelled => now,
        cause => format!("{now} ({})", cause.word()),
    }
}

fn after_failure(facts: &Facts) -> String {
    let id = &facts.task.id;
    let retry = match facts.checkpoints.iter().rfind(|c| c.kept).map(|c| &c.checkpoint) {
        Some(c) => {
            format!("`outlast task retry {id}` goes on from checkpoint {}", c.id())
        }
        None => format!("`outlast task retry {id}` runs it again"),
    };
    match facts.extra.cause {
        Cause::OutOfMemory => {
            format!("let it need less memory, or require a larger worker; {retry}")
        }
        Cause::TimedOut => format!("its timeout was too short, or it hung; {retry}"),
        Cause::NotStarted => {
            format!("see whether what it runs is there on that worker; {retry}")
        }
        Cause::Disk => format!("let it write less, or give the worker more room; {retry}"),
        cause if cause.is_loss() => {
            format!("see why its workers were lost with `outlast workers`; {retry}")
        }
        _ => format!("see what it wrote with `outlast task logs --stderr {id}`; {retry}"),
    }
}
